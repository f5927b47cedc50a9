//! Hostile guests (`guest/apps/hostile`) beside tenants with contracts. Whatever a guest does, its
//! own device or its own machine fails, with a reason; the others keep what they were promised, the
//! host service answers, and all that the guest held is given back.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use moirai_runtime::netns::in_netns;
use moirai_tests::{Host, core, lives, said, wait_for};
use serde_json::Value;

/// How long an attack lasts that does not end.
const ENDLESS: Duration = Duration::from_millis(1500);
/// Least number of calls to the victim during an attack, and the time between two.
const CALLS: u32 = 30;
const CALL_EVERY: Duration = Duration::from_millis(20);

/// A host service with two victims: one was promised CPU time, one answers calls.
struct Scene {
    host: Host,
    free: Vec<Value>,
    files: usize,
    threads: usize,
}

/// Calls to the victim that go on.
struct Calls {
    over: Arc<AtomicBool>,
    /// How many were made and how many answered.
    thread: JoinHandle<(u32, u32)>,
}

/// How an attack ended.
struct Attack {
    /// The attacker's report, if it lived to make one.
    report: Value,
    /// How it ended, if it did.
    end: Value,
    /// Why its devices failed, if they did.
    failed: Vec<String>,
    console: String,
}

impl Scene {
    fn set() -> Self {
        let host = Host::start();
        let core = core();
        host.launch(&format!(
            r#"
[[tenant]]
name = "promised"
image = "carnage"
memory = "16M"
core = {core}
cpu = {{ period = "10ms", slice = "3ms" }}

[[tenant]]
name = "echo"
image = "echo"
args = "ip=10.77.0.2/24 report_ms=0"
memory = "16M"
core = {core}
cpu = {{ period = "10ms", slice = "1ms", extra = true }}

[[tenant.net]]
link = "link"
period = "10ms"
slice = "1ms"
extra = true
"#
        ));
        let _ready = (host.report("promised", "ready"), host.report("echo", "ready"));
        let mut scene = Self { host, free: Vec::new(), files: 0, threads: 0 };
        scene.calls().all_answered("peace");
        scene.free = scene.reserved();
        (scene.files, scene.threads) = (scene.held("fd"), scene.held("task"));
        scene
    }

    /// Runs one attack, and checks that nobody but the attacker is harmed by it.
    fn attack(&self, name: &str) -> Attack {
        let host = &self.host;
        std::fs::write(host.folder().join("attacker.img"), vec![0x5a; 1 << 20]).unwrap();
        let before = self.promised();
        let calls = self.calls();
        // Its status says whether the tenant runs; an attacker may be quicker.
        let launched = host.try_launch(&attacker(name));
        assert!(matches!(launched.status.code(), Some(0 | 1)), "{name}: {}", said(&launched));
        let pid = host.json(&["show", "attacker"])["pid"].as_u64();
        let mut view = Value::Null;
        let (mut console, mut report) = (String::new(), Value::Null);
        let endless = (name == "exceptions").then(Instant::now);
        wait_for(&format!("the attack {name:?} is over\n{}", host.log()), || {
            view = host.json(&["show", "attacker"]);
            console = host.console("attacker");
            report = attacked(&console);
            !report.is_null()
                || view["phase"] == "ended"
                || endless.is_some_and(|begin| begin.elapsed() > ENDLESS)
        });
        view = host.json(&["show", "attacker"]);
        calls.all_answered(name);
        let share = self.share(before);
        assert!((260..=330).contains(&share), "{name}: {share} per mille of a contract for 300");
        let failed = failures(&view);
        eprintln!("{name}: {report} {failed:?} {}", view["end"]);
        let stopped = host.json(&["stop", "attacker"]);
        assert_eq!(stopped["phase"], "ended", "{name}: {stopped}");
        self.is_unharmed(name, pid);
        Attack { report, end: view["end"].clone(), failed, console }
    }

    fn is_unharmed(&self, name: &str, attacker: Option<u64>) {
        let log = self.host.log();
        // What a panic of ours says; that a guest ended with one is no fault.
        assert!(!log.contains("panicked"), "{name}: {log}");
        let mut errors = log.lines().filter(|line| line.contains("ERROR"));
        assert!(errors.all(|line| line.contains("attacker")), "{name}: {log}");
        let pid = attacker.and_then(|pid| u32::try_from(pid).ok());
        assert!(!pid.is_some_and(lives), "{name}: the process of the attacker lives");
        assert_eq!(self.reserved(), self.free, "{name}: reservations are given back");
        // Answered requests are cheap, but their connections close a moment later.
        wait_for(&format!("descriptors and threads are given back after {name}"), || {
            self.held("fd") <= self.files + 1 && self.held("task") <= self.threads
        });
        for victim in ["promised", "echo"] {
            assert_eq!(self.host.json(&["show", victim])["phase"], "running", "{name}");
        }
    }

    /// Calls the victim in the background: a datagram to it and one to everybody, again and again.
    fn calls(&self) -> Calls {
        let socket = in_netns(&self.host.netns, || UdpSocket::bind("0.0.0.0:0"));
        let socket = socket.unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.set_broadcast(true).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let (mut sent, mut answered) = (0u32, 0u32);
            while sent < CALLS || !seen.load(Ordering::Relaxed) {
                let (call, mut answer) = (sent.to_le_bytes(), [0; 64]);
                socket.send_to(&call, "10.77.0.255:9").unwrap();
                socket.send_to(&call, "10.77.0.2:7").unwrap();
                let came = socket.recv(&mut answer).is_ok_and(|length| answer[..length] == call);
                (sent, answered) = (sent + 1, answered + u32::from(came));
                std::thread::sleep(CALL_EVERY);
            }
            (sent, answered)
        });
        Calls { over, thread }
    }

    /// Guaranteed time of the promised tenant, and the time.
    fn promised(&self) -> (u64, u64) {
        let stats = self.host.stats();
        let tenants = stats["tenants"].as_array().unwrap();
        let promised = tenants.iter().find(|tenant| tenant["name"] == "promised").unwrap();
        let part = &promised["parts"][0];
        (part["guaranteed_ns"].as_u64().unwrap(), stats["now_ns"].as_u64().unwrap())
    }

    /// Thousandths of the core that the promised tenant got since then.
    fn share(&self, (served, since): (u64, u64)) -> u64 {
        let (served_now, now) = self.promised();
        (served_now - served) * 1000 / (now - since)
    }

    fn reserved(&self) -> Vec<Value> {
        let stats = self.host.stats();
        let resources = stats["resources"].as_array().unwrap();
        resources.iter().map(|resource| resource["reserved"].clone()).collect()
    }

    /// Open files (`fd`) or threads (`task`) of the host service.
    fn held(&self, what: &str) -> usize {
        std::fs::read_dir(format!("/proc/{}/{what}", self.host.pid())).unwrap().count()
    }
}

impl Calls {
    fn all_answered(self, during: &str) {
        self.over.store(true, Ordering::Relaxed);
        let (sent, answered) = self.thread.join().unwrap();
        assert_eq!(answered, sent, "calls answered by the victim during {during}");
    }
}

/// The report of the attacker, once all of it is on the console.
fn attacked(console: &str) -> Value {
    let mut reports = console.lines().filter_map(|line| serde_json::from_str(line.trim()).ok());
    reports.rfind(|it: &Value| it["event"] == "attacked").unwrap_or_default()
}

/// Why devices failed, as `moirai show` has it.
fn failures(view: &Value) -> Vec<String> {
    let devices = ["disk", "net"].into_iter().flat_map(|kind| view[kind].as_array().unwrap());
    devices.filter_map(|device| device["failed"].as_str().map(str::to_owned)).collect()
}

fn attacker(name: &str) -> String {
    format!(
        r#"
[[tenant]]
name = "attacker"
image = "hostile"
args = "attack={name}"
memory = "16M"
core = {}
cpu = {{ period = "20ms", slice = "4ms", extra = true }}

[[tenant.disk]]
disk = "disk"
volume = "attacker.img"
extra = true

[[tenant.net]]
link = "link"
extra = true
"#,
        core()
    )
}

fn count(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("no {key} in {report}"))
}

#[test]
fn chains_that_are_broken_fail_their_device_until_it_is_reset() {
    let scene = Scene::set();
    for name in ["loop", "next-outside", "head-outside", "indirect", "index-jump", "receive"] {
        let Attack { report, failed, .. } = scene.attack(name);
        assert_eq!(count(&report, "failed"), count(&report, "rounds"), "{name}: {report}");
        assert_eq!(count(&report, "recovered"), 10, "{name}: {report}");
        // The disk and the link were both left broken.
        assert_eq!(failed.len(), 2, "{name}: {failed:?}");
        let reason = |why: &String| why.contains("chain") || why.contains("ring");
        assert!(failed.iter().all(reason), "{name}: {failed:?}");
    }
}

#[test]
fn requests_that_break_a_rule_are_refused_and_their_device_goes_on() {
    let scene = Scene::set();
    for name in ["outside", "mixed"] {
        let Attack { report, failed, .. } = scene.attack(name);
        assert_eq!(count(&report, "answered"), count(&report, "rounds"), "{name}: {report}");
        assert_eq!(count(&report, "recovered"), 10, "{name}: {report}");
        assert!(failed.is_empty(), "{name}: {failed:?}");
    }
}

#[test]
fn rings_that_contradict_themselves_harm_their_own_device_only() {
    let scene = Scene::set();
    // Whether one fails or serves nonsense is its own affair; a reset makes it good again.
    for name in ["overflow", "same-head", "overlap"] {
        let Attack { report, .. } = scene.attack(name);
        assert_eq!(count(&report, "recovered"), 10, "{name}: {report}");
    }
    let Attack { report, .. } = scene.attack("sizes");
    assert_eq!(count(&report, "failed"), 24, "no impossible queue is started: {report}");
    assert_eq!(count(&report, "recovered"), 24, "{report}");
}

#[test]
fn registers_take_anything_in_any_order() {
    let scene = Scene::set();
    for name in ["early-kick", "registers", "ports"] {
        let Attack { report, .. } = scene.attack(name);
        assert!(count(&report, "rounds") > 0, "{name}: {report}");
        let devices = if name == "ports" { 0 } else { 2 };
        assert_eq!(count(&report, "recovered"), devices, "{name}: {report}");
    }
}

#[test]
fn storms_of_resets_failures_and_refusals_cost_the_others_nothing() {
    let scene = Scene::set();
    for name in ["reset-midway", "restart", "spam"] {
        let Attack { report, .. } = scene.attack(name);
        assert!(count(&report, "rounds") > 10, "{name}: {report}");
        assert_eq!(count(&report, "recovered"), 2, "{name}: {report}");
    }
    let log = scene.host.log();
    let lines = log.lines().filter(|line| line.contains("device failed")).count();
    assert!((1..40).contains(&lines), "{lines} lines of hundreds of failures reach the log");
}

#[test]
fn a_console_flood_is_bounded_in_memory_and_in_the_log() {
    let scene = Scene::set();
    let Attack { report, console, .. } = scene.attack("console");
    assert!(count(&report, "rounds") > 100, "{report}");
    assert!(console.len() <= 3 * (256 << 10), "{} bytes are kept", console.len());
    let log = scene.host.log();
    let lines = log.lines().filter(|line| line.contains("attacker")).count();
    // 200 lines a second reach it, for a second and a half and the time around.
    assert!(lines < 1000, "{lines} lines reach the log");
    assert!(!log.contains('\u{1b}'), "no control character reaches the log");
}

#[test]
fn machines_that_break_themselves_end_alone_and_say_why() {
    let scene = Scene::set();
    for name in ["triple-fault", "no-handlers", "overwrite"] {
        let Attack { end, .. } = scene.attack(name);
        let reason = end["reason"].as_str().unwrap_or_default();
        assert_eq!(end["ok"], false, "{name}: {end}");
        assert!(reason.contains("triple fault; rip="), "{name}: {reason}");
    }
    let Attack { end, console, .. } = scene.attack("garbage");
    assert!(console.contains("page fault"), "{console}");
    assert_eq!(end["ok"], false, "the library OS reports it and ends with a status: {end}");
    assert!(end["reason"].as_str().is_some_and(|reason| reason.contains("panic")), "{end}");
    let Attack { end, .. } = scene.attack("exceptions");
    assert_eq!(end, Value::Null, "an exception for ever goes on until the tenant is stopped");
}
