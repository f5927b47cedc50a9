//! The host service under test: one core, one disk of depth 32, and one link that is faster than
//! any sender, so that neither contracts nor pacing limit what is measured.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use moirai_bench::driver::{Driver, Start};
use moirai_runtime::netns::in_netns;
use moirai_tests::{core, last_json, moirai_binary, said};
use serde_json::Value;
use tempfile::TempDir;

/// A tenant reports within this time.
const PATIENCE: Duration = Duration::from_secs(15);

/// A host service with its folder, network namespace and TAP; takes them with it when it goes.
#[derive(Debug)]
pub(crate) struct Server {
    driver: Driver,
    folder: TempDir,
    launched: usize,
}

/// A tenant that runs; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Tenant<'a> {
    server: &'a Server,
    pub(crate) name: String,
}

impl Server {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder in /var/tmp");
        let config = folder.path().join("host.toml");
        std::fs::write(&config, configuration(folder.path())).expect("the configuration");
        let start = Start::new(&moirai_binary(), &config, &folder.path().join("host.sock"));
        let driver = start.serve().unwrap_or_else(|error| panic!("{error}"));
        Self { driver, folder, launched: 0 }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.driver.pid()
    }

    /// Its folder, which is also its disk.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its network namespace; the host has 10.77.0.1 there.
    pub(crate) fn netns(&self) -> String {
        netns()
    }

    /// Starts a tenant with nine tenths of the core for its own; `devices` is TOML with its
    /// devices.
    pub(crate) fn launch(&mut self, image: &str, args: &str, devices: &str) -> Tenant<'_> {
        self.launched += 1;
        let name = format!("{image}-{}", self.launched);
        let text = format!(
            "[[tenant]]\nname = \"{name}\"\nimage = \"{image}\"\nargs = \"{args}\"\n\
             memory = \"128M\"\nprefault = true\n\
             cpu = {{ period = \"10ms\", slice = \"9ms\", extra = true }}\n{devices}"
        );
        let path = self.folder().join("launch.toml");
        std::fs::write(&path, text).expect("the tenant's configuration");
        let output = self.ask(&["launch", &path.to_string_lossy()]);
        assert!(output.status.success(), "{}\n{}", said(&output), self.log());
        Tenant { server: self, name }
    }

    /// A socket in its namespace that nobody reads: packets to it end without an answer.
    pub(crate) fn sink(&self, address: &'static str) -> UdpSocket {
        let socket = in_netns(&netns(), || UdpSocket::bind(address));
        socket.expect("the namespace").expect("a socket in it")
    }

    /// All measurements at this moment.
    pub(crate) fn stats(&self) -> Value {
        self.json(&["top", "--once"])
    }

    fn json(&self, words: &[&str]) -> Value {
        let output = self.ask(&[words, &["--json"]].concat());
        assert!(output.status.success(), "{words:?}: {}\n{}", said(&output), self.log());
        last_json(&output)
    }

    fn ask(&self, words: &[&str]) -> Output {
        self.driver.ask(words).expect("moirai can be run")
    }

    fn log(&self) -> String {
        self.driver.log()
    }
}

impl Tenant<'_> {
    /// The host service that it runs on.
    pub(crate) fn server(&self) -> &Server {
        self.server
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        let pid = self.server.json(&["show", &self.name])["pid"].as_u64();
        pid.and_then(|pid| u32::try_from(pid).ok()).expect("a tenant that runs has a process")
    }

    /// Its last report on the console.
    pub(crate) fn report(&self) -> Value {
        let console = self.server.ask(&["console", &self.name, "--once"]).stdout;
        let console = String::from_utf8_lossy(&console).into_owned();
        let reports = console.lines().filter_map(|line| serde_json::from_str(line.trim()).ok());
        let mut reports = reports.filter(|report: &Value| report["event"] == "report");
        reports.next_back().unwrap_or_default()
    }

    /// Waits until it has reported for the first time: then its load is at its full height.
    pub(crate) fn settle(&self) {
        let begin = Instant::now();
        while self.report().is_null() {
            assert!(
                begin.elapsed() < PATIENCE,
                "{} reports nothing:\n{}",
                self.name,
                self.server.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Tenant<'_> {
    fn drop(&mut self) {
        let _ = self.server.ask(&["stop", &self.name]);
    }
}

/// One service at a time: the name of the process is enough.
fn netns() -> String {
    format!("moirai-b{}", std::process::id())
}

fn configuration(folder: &Path) -> String {
    let (folder, core, netns) = (folder.display(), core(), netns());
    format!(
        r#"
[host]
cores = [{core}]
socket = "{folder}/host.sock"
state_dir = "{folder}/state"

[[disk]]
name = "disk"
path = "{folder}"
depth = 32

[[link]]
name = "link"
rate = "100Gbit/s"
tap = "moirai0"
netns = "{netns}"
address = "10.77.0.1/24"
"#
    )
}
