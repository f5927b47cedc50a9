//! A thread that must never wait and is stuck all the same keeps nobody from hearing of the others.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]
#![allow(unsafe_code, reason = "stops one thread of another process: ptrace")]

use std::process::Output;
use std::time::{Duration, Instant};

use moirai_tests::{Host, core, said, wait_for};
use serde_json::Value;

/// Answers come within this, also if nobody answers us.
const SOON: Duration = Duration::from_secs(1);

/// A thread that stands still where it is, as in a call of the kernel that does not return; it goes
/// on when the value is dropped.
struct Stuck(libc::pid_t);

impl Stuck {
    /// Stops the thread of `process` whose name begins with `name`.
    fn make(process: u32, name: &str) -> Self {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let named = threads.flatten().find(|thread| {
            let comm = std::fs::read_to_string(thread.path().join("comm"));
            comm.is_ok_and(|comm| comm.starts_with(name))
        });
        let thread: libc::pid_t =
            named.expect("the thread").file_name().to_str().unwrap().parse().unwrap();
        ptrace(libc::PTRACE_SEIZE, thread);
        ptrace(libc::PTRACE_INTERRUPT, thread);
        let mut status = 0;
        // SAFETY: it writes an integer that lives.
        let stopped = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
        assert_eq!(stopped, thread, "{}", std::io::Error::last_os_error());
        Self(thread)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        ptrace(libc::PTRACE_DETACH, self.0);
    }
}

fn ptrace(request: libc::c_uint, thread: libc::pid_t) {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests read and write no memory of ours.
    let done = unsafe { libc::ptrace(request, thread, nothing, nothing) };
    assert_eq!(done, 0, "{request}: {}", std::io::Error::last_os_error());
}

fn soon(host: &Host, words: &[&str]) -> Output {
    let begin = Instant::now();
    let output = host.ask(words);
    assert!(begin.elapsed() < SOON, "{words:?} took {:?}\n{}", begin.elapsed(), host.log());
    assert!(output.status.success(), "{words:?}: {}\n{}", said(&output), host.log());
    output
}

fn stale(host: &Host) -> Value {
    let begin = Instant::now();
    let stats = host.stats();
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    let stale = |of: &str| stats[of].as_array().unwrap().iter().all(|it| it["stale"] == true);
    Value::from(vec![stale("domains"), stale("cores")])
}

#[test]
fn who_asks_is_answered_while_an_event_loop_or_a_dispatcher_is_stuck() {
    let host = Host::start();
    let tenant = |name: &str, more: &str| {
        let core = core();
        let head = format!("[[tenant]]\nname = \"{name}\"\nimage = \"carnage\"\n");
        let cpu = "cpu = { period = \"10ms\", slice = \"1ms\" }";
        format!("{head}memory = \"16M\"\ncore = {core}\n{cpu}\n{more}\n")
    };
    std::fs::write(host.folder().join("a.img"), vec![0; 1 << 20]).unwrap();
    let disk = "[[tenant.disk]]\ndisk = \"disk\"\nvolume = \"a.img\"";
    host.launch(&tenant("served", disk));
    host.launch(&tenant("other", ""));
    host.launch(&tenant("third", ""));
    assert_eq!(stale(&host), Value::from(vec![false, false]));
    let part = host.part("served", "disk");

    let stuck = Stuck::make(host.pid(), "io-");
    for _ in 0..5 {
        let list = said(&soon(&host, &["list"]));
        assert!(list.contains("served") && list.contains("other"), "{list}");
        soon(&host, &["show", "served"]);
        soon(&host, &["exports"]);
        assert_eq!(stale(&host), Value::from(vec![true, false]));
    }
    let now = host.part("served", "disk");
    assert_eq!(now["stale"], true);
    assert_eq!(now["reserved"], part["reserved"]);
    soon(&host, &["stop", "other"]);
    // Whoever waits for the event loop keeps nobody else waiting.
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| host.ask(&["stop", "served", "--now"]));
        std::thread::sleep(Duration::from_millis(200));
        soon(&host, &["list"]);
        assert_eq!(stale(&host), Value::from(vec![true, false]));
        drop(stuck);
        let stopped = stop.join().unwrap();
        assert!(stopped.status.success(), "{}", said(&stopped));
    });
    wait_for("all are heard again", || stale(&host) == Value::from(vec![false, false]));

    let stuck = Stuck::make(host.pid(), "cpu-");
    for _ in 0..5 {
        soon(&host, &["list"]);
        soon(&host, &["show", "third"]);
    }
    assert_eq!(stale(&host), Value::from(vec![false, true]));
    drop(stuck);
    wait_for("all are heard again", || stale(&host) == Value::from(vec![false, false]));
}
