//! What the end-to-end tests share: a host service of their own, asked as a user would ask it.
//!
//! Every host has its own folder, socket, network namespace and TAP, and takes everything with it
//! when it goes. The binaries are those of `make` (`target/release`); a test without them fails and
//! says so.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it expects")]

pub mod chaos;
pub mod lab;
pub mod run;
pub mod suite;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use moirai_bench::driver::{Driver, Start};
use serde_json::Value;
use tempfile::TempDir;

/// A test that waits longer than this has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What the log says of a system call that a thread of the host service may not make.
pub const REFUSED: &str = "which is not for it";
/// How `show` and `stop` end of a tenant that has failed.
const HAS_FAILED: i32 = 5;

/// The `moirai` of this tree; `MOIRAI_BINARY` names another.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn moirai_binary() -> PathBuf {
    let built = || root().join("target/release/moirai");
    let path = std::env::var_os("MOIRAI_BINARY").map_or_else(built, PathBuf::from);
    assert!(path.exists(), "{} is not built; run `make` first", path.display());
    path
}

/// The top of the source tree.
///
/// # Panics
/// Never, in a checkout.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Runs `moirai` without a host service.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn moirai(words: &[&str]) -> Output {
    Command::new(moirai_binary())
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("moirai can be run")
}

/// The core that the tests' tenants run on.
#[must_use]
pub fn core() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get) - 1
}

/// One disk, which is the folder, and one link into the network namespace.
fn configuration(folder: &Path, netns: &str, cores: &[usize]) -> String {
    let path = folder.display();
    format!(
        r#"
[host]
cores = {cores:?}
socket = "{path}/host.sock"
state_dir = "{path}/state"

[[disk]]
name = "disk"
path = "{path}"
depth = 4

[[link]]
name = "link"
rate = "100Mbit/s"
tap = "moirai0"
netns = "{netns}"
address = "10.77.0.1/24"
"#
    )
}

/// A running host service; ends with the value and leaves nothing behind.
#[derive(Debug)]
pub struct Host {
    driver: Judged,
    folder: TempDir,
    /// Its network namespace.
    pub netns: String,
}

/// A host service that is judged when it goes. Whatever a test is about, it is about the
/// compartments, too: the threads ask the kernel for nothing that is forbidden to them.
#[derive(Debug)]
struct Judged(Option<Driver>);

impl Judged {
    fn driver(&self) -> &Driver {
        self.0.as_ref().expect("it goes with its last use")
    }

    fn kill(mut self) {
        self.0.take().expect("it goes with its last use").kill();
    }
}

impl Drop for Judged {
    fn drop(&mut self) {
        let log = self.0.as_ref().map(Driver::log).unwrap_or_default();
        let refused: Vec<_> = log.lines().filter(|line| line.contains(REFUSED)).collect();
        assert!(refused.is_empty() || std::thread::panicking(), "{}", refused.join("\n"));
    }
}

impl Host {
    /// Starts a host with one core, one disk (its folder) and one 100 Mbit/s link.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on(&[core()])
    }

    /// The same, whose tenants run on these cores.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_on(cores: &[usize]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let netns = format!("moirai-t{}-{number}", std::process::id());
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let text = configuration(folder.path(), &netns, cores);
        Self::start_with(folder, netns, &text, &[])
    }

    /// The same, with further words for `moirai host`, in a folder that exists already.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_in(folder: TempDir, netns: String, words: &[&str]) -> Self {
        let text = configuration(folder.path(), &netns, &[core()]);
        Self::start_with(folder, netns, &text, words)
    }

    /// The same, with a configuration of the caller's; it has to put the socket at `host.sock` in
    /// the folder.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_with(folder: TempDir, netns: String, text: &str, words: &[&str]) -> Self {
        std::fs::write(folder.path().join("host.toml"), text).expect("the configuration");
        let (config, socket) = (folder.path().join("host.toml"), folder.path().join("host.sock"));
        let start = Start::new(&moirai_binary(), &config, &socket).words(words);
        let driver = start.serve().unwrap_or_else(|error| panic!("{error}"));
        Self { driver: Judged(Some(driver)), folder, netns }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.driver.driver().pid()
    }

    /// Its folder, which is also its disk.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has written on standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.driver.driver().log()
    }

    /// Runs `moirai` against it.
    ///
    /// # Panics
    /// If `moirai` cannot be run.
    #[must_use]
    pub fn ask(&self, words: &[&str]) -> Output {
        self.driver.driver().ask(words).expect("moirai can be run")
    }

    /// Runs `moirai ... --json` against it and reads the answer.
    ///
    /// # Panics
    /// If it fails, or the answer is no JSON.
    #[must_use]
    pub fn json(&self, words: &[&str]) -> Value {
        let output = self.ask(&[words, &["--json"]].concat());
        // That a tenant has failed is an answer like any other.
        let answered = matches!(output.status.code(), Some(0 | HAS_FAILED));
        assert!(answered, "{words:?}: {}\n{}", said(&output), self.log());
        last_json(&output)
    }

    /// Stops a tenant that has failed, or fails by being stopped.
    ///
    /// # Panics
    /// If it has not, or cannot be stopped.
    pub fn stop_failed(&self, tenant: &str) {
        let output = self.ask(&["stop", tenant]);
        assert_eq!(output.status.code(), Some(HAS_FAILED), "{tenant}: {}", said(&output));
    }

    /// Starts the tenants of a configuration text.
    ///
    /// # Panics
    /// If they do not start.
    pub fn launch(&self, text: &str) {
        let output = self.try_launch(text);
        assert!(output.status.success(), "{}\n{}", said(&output), self.log());
    }

    /// Tries to start the tenants of a configuration text.
    ///
    /// # Panics
    /// If the text cannot be written.
    #[must_use]
    pub fn try_launch(&self, text: &str) -> Output {
        let path = self.folder.path().join("launch.toml");
        std::fs::write(&path, text).expect("the configuration");
        self.ask(&["launch", &path.to_string_lossy()])
    }

    /// All measurements at this moment.
    #[must_use]
    pub fn stats(&self) -> Value {
        self.json(&["top", "--once"])
    }

    /// A tenant's part in the resources of one kind (`cpu`, `disk`, `link`).
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn part(&self, tenant: &str, kind: &str) -> Value {
        let stats = self.stats();
        let tenants = stats["tenants"].as_array().cloned().unwrap_or_default();
        let tenant_stats = tenants.iter().find(|stats| stats["name"] == tenant);
        let parts = tenant_stats.and_then(|stats| stats["parts"].as_array()).cloned();
        let of_kind = |part: &&Value| {
            part["resource"].as_str().is_some_and(|name| name.starts_with(&format!("{kind}/")))
        };
        let parts = parts.unwrap_or_default();
        parts.iter().find(of_kind).cloned().unwrap_or_else(|| panic!("{tenant} has no {kind}"))
    }

    /// What is on a tenant's console so far.
    #[must_use]
    pub fn console(&self, tenant: &str) -> String {
        String::from_utf8_lossy(&self.ask(&["console", tenant, "--once"]).stdout).into_owned()
    }

    /// Waits until a tenant has reported this event on its console, and returns the report.
    ///
    /// # Panics
    /// If that takes too long.
    #[must_use]
    pub fn report(&self, tenant: &str, event: &str) -> Value {
        let mut found = Value::Null;
        wait_for(&format!("{tenant} reports {event:?}"), || {
            let console = self.console(tenant);
            let mut reports =
                console.lines().filter_map(|line| serde_json::from_str(line.trim()).ok());
            let last = reports.rfind(|report: &Value| report["event"] == event);
            found = last.unwrap_or_default();
            !found.is_null()
        });
        found
    }

    /// Kills it without a chance to clean up; its folder stays for a new start.
    #[must_use]
    pub fn kill(self) -> (TempDir, String) {
        self.driver.kill();
        (self.folder, self.netns)
    }
}

/// CPU time that 400 us of a guest's work, its wake-up and two bytes of console output take on the
/// tenants' core when nobody else wants it, in microseconds. It is some 500 on this machine at its
/// best. Where it is twice that, no contract that was written for 400 us of work can be judged.
///
/// # Panics
/// If the guest does not report.
#[must_use]
pub fn cost_of_work(host: &Host) -> u64 {
    host.launch(&format!(
        "[[tenant]]\nname = \"probe\"\nimage = \"pulse\"\nmemory = \"16M\"\ncore = {}\nargs \
         = \"period_us=20000 work_us=400 report_ms=500\"\ncpu = {{ period = \"20ms\", slice \
         = \"10ms\" }}\n",
        core()
    ));
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap_or_default();
    let used = || {
        let part = host.part("probe", "cpu");
        let used = number(&part, "guaranteed_ns") + number(&part, "extra_ns");
        (used, number(&host.stats(), "now_ns"))
    };
    // Reports come late where output is slow: each is held against the time that it names.
    let reports = || {
        let console = host.console("probe");
        let reports = console.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let said = reports.filter(|line| line["jobs"].is_u64());
        said.map(|line| (number(&line, "jobs"), number(&line, "t_ms"))).collect::<Vec<_>>()
    };
    wait_for("the probe reports", || !reports().is_empty());
    let (first, begin) = (reports().len(), used());
    wait_for("the probe reports again", || reports().len() >= first + 2);
    let (reports, end) = (reports(), used());
    let _ = host.ask(&["stop", "probe"]);
    let (from, to) = (reports[first - 1], reports[reports.len() - 1]);
    let jobs = (end.1 - begin.1) * (to.0 - from.0) / ((to.1 - from.1).max(1) * 1_000_000);
    (end.0 - begin.0) / 1_000 / jobs.max(1)
}

/// Why an experiment with [`cost_of_work`] of so much says nothing; `None` if it does.
#[must_use]
pub fn too_slow(cost_us: u64) -> Option<String> {
    const MOST: u64 = 950;
    let why = || format!("the machine is too busy with others: 400 us of work take {cost_us} us");
    (cost_us > MOST).then(why)
}

/// Waits until `done`.
///
/// # Panics
/// If that takes longer than [`PATIENCE`].
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a program of the machine, which has to succeed; everything it wrote.
///
/// # Panics
/// If it cannot be run or fails.
pub fn program(words: &[&str]) -> String {
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", words[0]));
    assert!(output.status.success(), "{words:?}:\n{}", said(&output));
    said(&output)
}

/// Everything a program wrote.
#[must_use]
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// The JSON that a program wrote: all of its output, or the last line.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn last_json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let whole = serde_json::from_str(text.trim());
    let last = || serde_json::from_str(text.trim().lines().last().unwrap_or_default());
    whole.or_else(|_| last()).unwrap_or_else(|_| panic!("no JSON: {}", said(output)))
}

/// Whether a process of this number lives.
#[must_use]
pub fn lives(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// Sends SIGKILL.
pub fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
}
