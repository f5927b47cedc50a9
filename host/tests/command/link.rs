//! Links of a real host service: TAPs, bridges and namespaces, taken, missing and given back. All of
//! it happens in network namespaces of these tests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// A network namespace that goes with the value.
struct Namespace(String);

impl Namespace {
    fn named(purpose: &str) -> Self {
        Self(format!("moirai-{purpose}-{}", std::process::id()))
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    /// Runs `ip` in the namespace and returns what it prints.
    fn ip(&self, words: &[&str]) -> String {
        let output = Command::new("ip").args(["-n", &self.0]).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Gone already if all went well.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).stderr(Stdio::null()).status();
    }
}

/// A host service with one link; killed with the value if it still runs.
struct Host {
    child: Child,
    folder: TempDir,
}

impl Host {
    /// Starts it; `lines` complete the link.
    fn start(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let core = std::thread::available_parallelism().unwrap().get() - 1;
        let text = format!(
            "[host]\ncores = [{core}]\nsocket = \"{path}/host.sock\"\nstate_dir = \"{path}/state\"\n\
             [[link]]\nname = \"up\"\nrate = \"10Mbit/s\"\ntap = \"tap0\"\n{lines}"
        );
        let config = super::file(&folder, &text);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_moirai"))
            .arg("host")
            .arg("--config")
            .arg(config)
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn serves(&mut self) {
        let begin = Instant::now();
        while !self.said().contains("serves") {
            assert_eq!(self.child.try_wait().unwrap(), None, "{}", self.said());
            assert!(begin.elapsed() < PATIENCE, "{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The exit status, after a request to end if it is `asked`.
    fn ends(&mut self, asked: bool) -> i32 {
        if asked {
            let pid = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(begin.elapsed() < PATIENCE, "{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_namespace_and_its_tap_are_made_and_taken_away() {
    let _turn = super::turn();
    let netns = Namespace::named("made");
    let mut host = Host::start(&format!("netns = \"{}\"\naddress = \"10.9.8.1/24\"\n", netns.0));
    host.serves();
    let shown = netns.ip(&["address", "show", "dev", "tap0"]);
    assert!(shown.contains("10.9.8.1/24") && shown.contains("mtu 1500"), "{shown}");
    assert_eq!(host.ends(true), 0);
    assert!(!netns.path().exists());
}

#[test]
fn a_tap_that_is_taken_is_said_and_its_owner_is_left_alone() {
    let _turn = super::turn();
    let netns = Namespace::named("taken");
    let link = format!("netns = \"{}\"\n", netns.0);
    let mut owner = Host::start(&link);
    owner.serves();
    let mut other = Host::start(&link);
    assert_eq!(other.ends(false), 2);
    let line = format!("the TAP tap0 is served by process {} (moirai host, ", owner.child.id());
    assert!(other.said().contains(&line), "{}", other.said());
    assert!(netns.ip(&["link", "show", "dev", "tap0"]).contains("LOWER_UP"));
    assert_eq!(owner.ends(true), 0);
}

#[test]
fn a_bridge_that_is_missing_is_said_and_nothing_is_left() {
    let _turn = super::turn();
    let netns = Namespace::named("bridgeless");
    let mut host = Host::start(&format!("netns = \"{}\"\nbridge = \"br0\"\n", netns.0));
    assert_eq!(host.ends(false), 1);
    assert!(host.said().contains("ip link add br0 type bridge"), "{}", host.said());
    assert!(!netns.path().exists());
}

#[test]
fn a_tap_joins_a_bridge_and_a_namespace_of_somebody_else_stays() {
    let _turn = super::turn();
    let netns = Namespace::named("bridged");
    assert!(Command::new("ip").args(["netns", "add", &netns.0]).status().unwrap().success());
    netns.ip(&["link", "add", "br0", "type", "bridge"]);
    let mut host = Host::start(&format!("netns = \"{}\"\nbridge = \"br0\"\n", netns.0));
    host.serves();
    assert!(netns.ip(&["link", "show", "master", "br0"]).contains("tap0"));
    assert_eq!(host.ends(true), 0);
    assert!(netns.path().exists());
}
