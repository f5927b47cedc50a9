//! Links of a real host service: TAPs, bridges and namespaces, taken, missing and given back. All
//! of it happens in network namespaces of these tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use moirai_bench::driver::{Driver, Start};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// A network namespace that goes with the value.
struct Namespace(String);

impl Namespace {
    fn named(purpose: &str) -> Self {
        Self(format!("moirai-{purpose}-{}", std::process::id()))
    }

    /// One that is there already.
    fn made(purpose: &str) -> Self {
        let netns = Self::named(purpose);
        assert!(Command::new("ip").args(["netns", "add", &netns.0]).status().unwrap().success());
        netns
    }

    fn path(&self) -> PathBuf {
        moirai_runtime::netns::path(&self.0)
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

/// A host service with one link; ends with the value if it still runs.
pub(super) struct Host {
    driver: Driver,
    _folder: TempDir,
}

impl Host {
    /// Starts it; `lines` complete the link.
    fn start(lines: &str) -> Self {
        Self::serving(&format!(
            "[[link]]\nname = \"up\"\nrate = \"10Mbit/s\"\ntap = \"tap0\"\n{lines}"
        ))
    }

    /// Starts it with these keys of `[host]` and tables.
    pub(super) fn serving(tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let core = std::thread::available_parallelism().unwrap().get() - 1;
        let text = format!(
            "[host]\ncores = [{core}]\nsocket = \"{path}/host.sock\"\nstate_dir \
             = \"{path}/state\"\n{tables}"
        );
        let config = super::file(&folder, &text);
        let socket = folder.path().join("host.sock");
        let start = Start::new(Path::new(env!("CARGO_BIN_EXE_moirai")), &config, &socket);
        Self { driver: start.spawn().unwrap(), _folder: folder }
    }

    pub(super) fn socket(&self) -> &Path {
        self.driver.socket()
    }

    pub(super) fn said(&self) -> String {
        self.driver.log()
    }

    pub(super) fn serves(&mut self) {
        self.driver.wait_until_it_answers().unwrap_or_else(|error| panic!("{error}"));
        assert!(self.said().contains("serves"), "{}", self.said());
    }

    /// The exit status, after a request to end if it is `asked`.
    pub(super) fn ends(&mut self, asked: bool) -> i32 {
        if asked {
            self.driver.ask_to_end();
        }
        let ended = self.driver.wait(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        ended.code().unwrap()
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
    let line = format!("the TAP tap0 is served by process {} (moirai host, ", owner.driver.pid());
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
    let said = host.said();
    assert!(said.contains("moirai.toml:10:10"), "{said}");
    assert_eq!(pasted(&said), "");
    netns.ip(&["link", "show", "dev", "br0"]);
    let _ = Command::new("ip").args(["netns", "del", &netns.0]).status();
}

/// Runs the commands that `said` advises, each on a line of its own; returns what they complain of.
fn pasted(said: &str) -> String {
    let commands: Vec<_> = said
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("ip ") || line.starts_with("rmdir "))
        .collect();
    assert!(!commands.is_empty(), "{said}");
    let output = Command::new("sh").args(["-c", &commands.join("\n")]).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

/// Starts a host that has to end with a refusal, pastes its advice, and starts it once more.
fn refused_then_mended(netns: &Namespace, lines: &str, place: &str, words: &[&str]) {
    let lines = format!("netns = \"{}\"\n{lines}", netns.0);
    let mut host = Host::start(&lines);
    assert_eq!(host.ends(false), 1, "{}", host.said());
    let said = host.said();
    for word in words.iter().chain([&place]) {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(pasted(&said), "", "{said}");
    let mut again = Host::start(&lines);
    again.serves();
    assert_eq!(again.ends(true), 0);
}

#[test]
fn a_persistent_tap_is_taken_as_it_is_and_a_second_start_finds_its_place() {
    let _turn = super::turn();
    let netns = Namespace::made("kept");
    // As people make it: without the header that we ask for.
    netns.ip(&["tuntap", "add", "tap0", "mode", "tap"]);
    netns.ip(&["link", "add", "br0", "type", "bridge"]);
    let lines = format!("netns = \"{}\"\naddress = \"10.9.8.1/24\"\n", netns.0);
    for _ in 0..2 {
        let mut host = Host::start(&lines);
        host.serves();
        let shown = netns.ip(&["-4", "address", "show", "dev", "tap0"]);
        assert_eq!(shown.matches("10.9.8.1/24").count(), 1, "{shown}");
        assert_eq!(host.ends(true), 0);
    }
    let bridged = format!("{lines}bridge = \"br0\"\n");
    for _ in 0..2 {
        let mut host = Host::start(&bridged);
        host.serves();
        assert_eq!(host.ends(true), 0);
    }
}

#[test]
fn what_is_there_and_is_not_as_wanted_is_refused_by_name_with_what_mends_it() {
    let _turn = super::turn();
    let netns = Namespace::made("other");
    netns.ip(&["tuntap", "add", "tap0", "mode", "tap", "vnet_hdr"]);
    netns.ip(&["address", "add", "10.1.1.1/24", "dev", "tap0"]);
    // One of several that it has: nothing is to be added or taken away.
    netns.ip(&["address", "add", "10.2.2.2/24", "dev", "tap0"]);
    let second = format!("netns = \"{}\"\naddress = \"10.2.2.2/24\"\n", netns.0);
    let mut host = Host::start(&second);
    host.serves();
    assert_eq!(host.ends(true), 0);
    let kept = netns.ip(&["-4", "address", "show", "dev", "tap0"]);
    assert!(kept.contains("10.1.1.1/24") && kept.contains("10.2.2.2/24"), "{kept}");
    netns.ip(&["address", "delete", "10.2.2.2/24", "dev", "tap0"]);
    let lines = "address = \"10.9.8.1/24\"\n";
    refused_then_mended(&netns, lines, "moirai.toml:10:11", &["has the address 10.1.1.1/24"]);
    for bridge in ["br0", "br1"] {
        netns.ip(&["link", "add", bridge, "type", "bridge"]);
    }
    netns.ip(&["link", "set", "tap0", "master", "br1"]);
    refused_then_mended(&netns, "bridge = \"br0\"\n", "moirai.toml:10:10", &["is in \"br1\""]);
    let lines = "bridge = \"br1\"\nmtu = 9000\n";
    netns.ip(&["link", "set", "tap0", "nomaster"]);
    netns.ip(&["link", "set", "br1", "mtu", "1500"]);
    netns.ip(&["link", "set", "tap0", "mtu", "9000"]);
    refused_then_mended(&netns, lines, "moirai.toml:11:7", &["the 1500 of bridge \"br1\""]);
}

/// What somebody has set on his interface is not changed, and no address is given twice.
#[test]
fn a_persistent_tap_keeps_its_mtu_and_an_address_has_one_interface() {
    let _turn = super::turn();
    let netns = Namespace::made("theirs");
    netns.ip(&["tuntap", "add", "tap0", "mode", "tap"]);
    netns.ip(&["link", "set", "tap0", "mtu", "9000"]);
    let mtu = || netns.ip(&["-o", "link", "show", "dev", "tap0"]);
    let words = ["TAP \"tap0\" has an MTU of 9000, not 1400", "write mtu = 9000"];
    let lines = format!("netns = \"{}\"\nmtu = 1400\n", netns.0);
    let mut host = Host::start(&lines);
    assert_eq!(host.ends(false), 1, "{}", host.said());
    assert!(mtu().contains("mtu 9000"), "{}", mtu());
    refused_then_mended(&netns, "mtu = 1400\n", "moirai.toml:10:7", &words);
    assert!(mtu().contains("mtu 1400"), "{}", mtu());
    // The default is wanted like any other value.
    refused_then_mended(&netns, "", "moirai.toml:5:1", &["has an MTU of 1400, not 1500"]);

    netns.ip(&["link", "add", "other0", "type", "veth", "peer", "name", "other1"]);
    netns.ip(&["address", "add", "10.9.8.1/16", "dev", "other0"]);
    let words = ["the address 10.9.8.1 is on interface \"other0\" already"];
    refused_then_mended(&netns, "address = \"10.9.8.1/24\"\n", "moirai.toml:10:11", &words);
}

/// What a report says and advises, and the line and column, without the text.
fn in_words(report: &str) -> Vec<String> {
    let (_, report) = report.split_once(" × ").unwrap();
    let (message, rest) = report.split_once("╭─[").unwrap();
    let (place, rest) = rest.split_once("]\n").unwrap();
    let (_, help) = rest.split_once("╰────").unwrap();
    let (_, place) = place.split_once(':').unwrap();
    [message, place, help].map(|part| part.trim().to_owned()).into()
}

/// Everything that a host service would refuse of a link is a warning of the plan, with the same
/// words at the same place, and changes nothing: the plan may be for another machine.
#[test]
fn a_plan_says_of_links_what_a_host_service_would_say() {
    let _turn = super::turn();
    let netns = Namespace::made("planned");
    let made: &[&[&str]] = &[
        &["tuntap", "add", "big0", "mode", "tap"],
        &["link", "set", "big0", "mtu", "9000"],
        &["tuntap", "add", "tun0", "mode", "tun"],
        &["tuntap", "add", "many0", "mode", "tap", "multi_queue"],
        &["link", "add", "eth0", "type", "veth", "peer", "name", "eth1"],
        &["address", "add", "10.9.8.1/24", "dev", "eth0"],
        &["link", "add", "small0", "mtu", "1000", "type", "bridge"],
        &["link", "add", "br0", "type", "bridge"],
        &["link", "add", "br1", "type", "bridge"],
        &["tuntap", "add", "in0", "mode", "tap"],
        &["link", "set", "in0", "master", "br1"],
    ];
    made.iter().for_each(|words| drop(netns.ip(words)));
    let here = format!("netns = \"{}\"", netns.0);
    for (lines, said) in [
        ("tap = \"lo\"", "interface lo exists and is no single-queue TAP"),
        ("tap = \"eth0\"", "interface eth0 exists and is no single-queue TAP"),
        ("tap = \"tun0\"", "interface tun0 exists and is no single-queue TAP"),
        ("tap = \"many0\"", "interface many0 exists and is no single-queue TAP"),
        ("bridge = \"lo\"", "the interface \"lo\" is no bridge"),
        ("bridge = \"none0\"", "there is no bridge \"none0\""),
        ("bridge = \"small0\"", "an MTU of 1500 is more than the 1000 of bridge \"small0\""),
        ("tap = \"big0\"", "TAP \"big0\" has an MTU of 9000, not 1500"),
        ("tap = \"in0\"\nbridge = \"br0\"", "TAP \"in0\" is in \"br1\", not in \"br0\""),
        ("address = \"10.9.8.1/24\"", "the address 10.9.8.1 is on interface \"eth0\" already"),
    ] {
        let lines = format!("[[link]]\nname = \"up\"\nrate = \"10Mbit/s\"\n{here}\n{lines}\n");
        let before = netns.ip(&["address"]);
        let (status, _, warned) = super::plan(&format!("{}{lines}", super::HEAD), &[]);
        assert_eq!(status, 0, "{warned}");
        assert!(warned.contains("on this machine `moirai host` refuses this"), "{warned}");
        assert!(warned.contains(said), "{said}: {warned}");
        let mut host = Host::serving(&lines);
        assert_eq!(host.ends(false), 1, "{lines}: {}", host.said());
        let refused = host.said();
        assert_eq!(in_words(&warned), in_words(&refused));
        assert_eq!(netns.ip(&["address"]), before);
    }
    let fine = format!("{}[[link]]\nname = \"up\"\nrate = \"10Mbit/s\"\n{here}\n", super::HEAD);
    let (status, _, warned) = super::plan(&format!("{fine}bridge = \"br0\"\n"), &[]);
    assert_eq!((status, warned.as_str()), (0, ""));
    // A namespace that is not there yet has no bridge.
    let (_, _, warned) =
        super::plan(&format!("{fine}bridge = \"br0\"\n").replace("planned", "gone"), &[]);
    assert!(warned.contains("there is no bridge \"br0\""), "{warned}");
}

#[test]
fn an_interface_of_another_kind_is_refused_at_the_key_that_named_it() {
    let _turn = super::turn();
    let netns = Namespace::made("kind");
    netns.ip(&["link", "add", "tap0", "type", "veth", "peer", "name", "other"]);
    let lines = format!("netns = \"{}\"\n", netns.0);
    let mut host = Host::start(&lines);
    assert_eq!(host.ends(false), 1);
    let said = host.said();
    assert!(said.contains("moirai.toml:8:7") && said.contains("is no single-queue TAP"), "{said}");
    netns.ip(&["link", "del", "tap0"]);
    let mut host = Host::start(&format!("{lines}bridge = \"lo\"\n"));
    assert_eq!(host.ends(false), 1);
    let said = host.said();
    assert!(said.contains("moirai.toml:10:10") && said.contains("is no bridge"), "{said}");
}

#[test]
fn what_lies_at_the_place_of_a_namespace_is_named_with_a_command_that_removes_it() {
    let _turn = super::turn();
    let netns = Namespace::named("stale");
    std::fs::create_dir_all(netns.path().parent().unwrap()).unwrap();
    let words = ["on which no namespace is mounted"];
    std::fs::write(netns.path(), "").unwrap();
    refused_then_mended(&netns, "", "moirai.toml:9:9", &words);
    std::os::unix::fs::symlink("/proc/0/ns/net", netns.path()).unwrap();
    refused_then_mended(&netns, "", "moirai.toml:9:9", &["a link to nothing"]);
    std::fs::create_dir(netns.path()).unwrap();
    refused_then_mended(&netns, "", "moirai.toml:9:9", &["a folder"]);
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
