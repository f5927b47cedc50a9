//! What people get wrong at the command line: what `moirai` says, and where, and that a running
//! host service and its tenants are not disturbed. docs/faults.md says where the rest is tested.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use moirai_tests::{Host, core, moirai_binary, root, said, wait_for};

const FAILED: Option<i32> = Some(1);
const BAD: Option<i32> = Some(2);

/// A file system in memory, gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Self {
        std::fs::create_dir(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(at)
            .status();
        assert!(mounted.unwrap().success(), "mounting needs root");
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn pipe(at: &Path) {
    assert!(Command::new("mkfifo").arg(at).status().unwrap().success());
}

/// A tenant of two lines; what follows begins at line 3.
fn tenant(name: &str, rest: &str) -> String {
    format!("[[tenant]]\nname = \"{name}\"\n{rest}")
}

fn reader(name: &str, volume: &str, words: &str) -> String {
    let core = core();
    let rest = format!(
        "image = \"thrash\"\nmemory = \"16M\"\ncore = {core}\nargs = \"report_ms=200 {words}\"\n\
         cpu = {{ period = \"20ms\", slice = \"2ms\", extra = true }}\n\
         [[tenant.disk]]\ndisk = \"disk\"\nvolume = \"{volume}\"\nextra = true\n"
    );
    tenant(name, &rest)
}

#[test]
fn a_machine_without_kvm_is_told_what_to_load() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("host.toml");
    let path = folder.path().display();
    let text = format!(
        "[host]\ncores = [{}]\nsocket = \"{path}/host.sock\"\nstate_dir = \"{path}/state\"\n",
        core()
    );
    std::fs::write(&config, text).unwrap();
    // In a mount namespace of its own /dev is empty.
    let script = "mount -t tmpfs none /dev && exec \"$0\" host --config \"$1\"";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .args([&moirai_binary(), &config])
        .output()
        .unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), FAILED, "{text}");
    for part in ["no tenant can run", "/dev/kvm does not exist", "modprobe"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(Path::new("/dev/kvm").exists(), "the machine keeps its devices");
}

#[test]
fn contracts_that_make_no_sense_are_refused_at_their_line_and_nothing_is_started() {
    let host = Host::start();
    for (contract, line, words) in [
        ("period = \"10ms\"\nslice = \"12ms\"", 6, "longer than its period"),
        ("period = \"0ms\"\nslice = \"0ms\"", 5, "zero"),
        ("period = \"-10ms\"\nslice = \"1ms\"", 5, "negative"),
        ("period = \"10ms\"\nslice = \"99999999999999s\"", 6, ""),
        ("period = \"10 parsecs\"\nslice = \"1ms\"", 5, ""),
        ("period = \"10ms\"\nslice = \"1ms\"\ndeadline = \"11ms\"", 7, ""),
        ("period = \"10ms\"\nslice = \"1ms\"\nbudget = \"1ms\"", 7, "budget"),
    ] {
        let rest = format!("image = \"carnage\"\n[tenant.cpu]\n{contract}\n");
        let refused = host.try_launch(&tenant("a", &rest));
        let text = said(&refused);
        assert_eq!(refused.status.code(), BAD, "{contract}: {text}");
        assert!(text.contains(&format!("launch.toml:{line}:")), "{contract}: {text}");
        assert!(text.contains(words), "{contract}: {text}");
        assert!(text.contains("help:"), "{contract}: says what to do: {text}");
    }
    assert_eq!(host.json(&["list"]).as_array().map(Vec::len), Some(0));
}

#[test]
fn names_that_are_taken_or_unknown_are_refused_at_their_line() {
    let host = Host::start();
    let one = tenant("one", "image = \"carnage\"\nmemory = \"16M\"\n");
    host.launch(&one);
    let wrong = [
        (one.clone(), 2, "stop one"),
        (format!("{}{}", one.replace("one", "two"), one.replace("one", "two")), 6, "two"),
        (tenant("two", "image = \"nothing\"\n"), 3, "MOIRAI_IMAGES"),
        (tenant("two", "image = \"carnage\"\ncore = 4000\n"), 4, "4000"),
        (tenant("two", "image = \"echo\"\n[[tenant.net]]\nlink = \"moon\"\n"), 5, "link"),
        (reader("two", "v", "").replace("\"disk\"\nvolume", "\"moon\"\nvolume"), 9, "disk"),
    ];
    for (text, line, words) in wrong {
        let refused = host.try_launch(&text);
        let report = said(&refused);
        assert_eq!(refused.status.code(), BAD, "{report}");
        assert!(report.contains(&format!("launch.toml:{line}:")), "line {line}: {report}");
        assert!(report.contains(words) && report.contains("help:"), "{words}: {report}");
    }
    assert_eq!(host.json(&["list"]).as_array().map(Vec::len), Some(1));
    assert_eq!(host.json(&["show", "one"])["phase"], "running");
}

#[test]
fn images_that_cannot_be_loaded_say_why_and_what_to_do() {
    let host = Host::start();
    let folder = host.folder();
    pipe(&folder.join("pipe"));
    for what in [folder.join("pipe"), folder.to_owned(), folder.join("missing")] {
        let rest = format!("image = \"{}\"\n", what.display());
        let refused = host.try_launch(&tenant("a", &rest));
        let text = said(&refused);
        assert_eq!(refused.status.code(), BAD, "{text}");
        assert!(text.contains("launch.toml:3:") && text.contains("help:"), "{text}");
    }
    // A good image in less memory than it wants to lie in. What is no ELF: tests/faults.rs.
    let image = root().join("target/images/carnage");
    let rest = format!("image = \"{}\"\nmemory = \"2M\"\n", image.display());
    let refused = host.try_launch(&tenant("a", &rest));
    let text = said(&refused);
    assert_eq!(refused.status.code(), FAILED, "{text}");
    assert!(text.contains("the image:") && text.contains("memory"), "{text}");
    assert!(said(&host.ask(&["show", "a"])).contains("because"));
}

#[test]
fn volumes_that_cannot_be_used_are_refused_at_their_line() {
    let host = Host::start();
    let folder = host.folder();
    std::fs::create_dir(folder.join("directory")).unwrap();
    std::fs::write(folder.join("hollow"), []).unwrap();
    std::fs::write(folder.join("taken"), [0; 8192]).unwrap();
    pipe(&folder.join("pipe"));
    host.launch(&reader("owner", "taken", "size=512"));
    for (volume, words) in [
        ("missing", "does not exist"),
        ("directory", "neither a file nor a block device"),
        ("pipe", "neither a file nor a block device"),
        ("hollow", "is empty; give it a size"),
        ("taken", "in use by owner"),
        ("../../etc/shadow", "not below"),
    ] {
        let refused = host.try_launch(&reader("a", volume, ""));
        let text = said(&refused);
        assert_eq!(refused.status.code(), BAD, "{volume}: {text}");
        assert!(text.contains("launch.toml:10:") && text.contains("help:"), "{volume}: {text}");
        assert!(text.contains(words), "{volume}: {text}");
    }
}

/// Starts a neighbour with a volume of its own; it has to see no error in the end.
fn neighbour(host: &Host) {
    std::fs::write(host.folder().join("neighbour.img"), vec![1; 1 << 20]).unwrap();
    host.launch(&reader("neighbour", "neighbour.img", "size=4096 depth=4"));
}

fn errors(host: &Host, tenant: &str) -> u64 {
    host.part(tenant, "disk")["errors"].as_u64().unwrap()
}

fn completed(host: &Host, tenant: &str) -> u64 {
    host.part(tenant, "disk")["completed"].as_u64().unwrap()
}

/// Requests that did not fail, of one look: between two looks more would fail than were served.
fn served(host: &Host, tenant: &str) -> u64 {
    let part = host.part(tenant, "disk");
    part["completed"].as_u64().unwrap() - part["errors"].as_u64().unwrap()
}

fn is_unharmed(host: &Host, neighbour: &str) {
    let before = completed(host, neighbour);
    wait_for("the neighbour is served", || completed(host, neighbour) > before + 10);
    assert_eq!(errors(host, neighbour), 0);
    assert_eq!(host.part(neighbour, "disk")["failed"], serde_json::Value::Null);
    assert!(!host.log().contains("panic"), "{}", host.log());
}

#[test]
fn a_volume_that_becomes_shorter_than_its_requests_fails_requests_of_its_tenant_only() {
    let host = Host::start();
    neighbour(&host);
    let path = host.folder().join("volume.img");
    std::fs::write(&path, vec![2; 4 << 20]).unwrap();
    host.launch(&reader("a", "volume.img", "size=65536 depth=8"));
    wait_for("it is read", || completed(&host, "a") > 0);
    assert_eq!(errors(&host, "a"), 0);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100_000).unwrap();
    wait_for("reads fail", || errors(&host, "a") > 10);
    // The guest is told, and lives.
    wait_for("the guest counts errors", || {
        host.report("a", "report")["errors"].as_u64().unwrap() > 0
    });
    assert_eq!(host.json(&["show", "a"])["phase"], "running");
    is_unharmed(&host, "neighbour");
}

#[test]
fn a_disk_that_is_full_fails_writes_of_its_tenant_only() {
    let host = Host::start();
    neighbour(&host);
    let small = SmallDisk::mount(&host.folder().join("small"), "1M");
    let volume = std::fs::File::create(small.0.join("volume.img")).unwrap();
    volume.set_len(16 << 20).unwrap();
    host.launch(&reader("a", "small/volume.img", "mode=write size=65536 depth=8"));
    wait_for("writes fail", || errors(&host, "a") > 10);
    wait_for("the guest counts errors and successes", || {
        let report = host.report("a", "report");
        report["errors"].as_u64().unwrap() > 0 && report["writes"].as_u64().unwrap() > 0
    });
    is_unharmed(&host, "neighbour");
    // Space again: the same tenant goes on.
    let before = served(&host, "a");
    let more = Command::new("mount").args(["-o", "remount,size=32M"]).arg(&small.0).status();
    assert!(more.unwrap().success());
    wait_for("it is written again", || served(&host, "a") > before + 10);
    assert!(host.ask(&["stop", "a"]).status.success());
    std::thread::sleep(Duration::from_millis(100));
}
