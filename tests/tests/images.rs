//! qcow2 images behind a real host service: each has a process of its own, which is shut in, and
//! dies alone.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use moirai_tests::{Host, core, program, wait_for};
use serde_json::Value;

/// A tenant that reads and writes all over its image.
fn tenant(name: &str, image: &str) -> String {
    format!(
        "[[tenant]]\nname = \"{name}\"\nimage = \"thrash\"\nmemory = \"32M\"\ncore = {}\nargs = \
         \"mode=mixed depth=4 size=65536 report_ms=200\"\ncpu = {{ period = \"20ms\", slice = \
         \"4ms\", extra = true }}\n[[tenant.disk]]\ndisk = \"disk\"\nvolume = \"{image}\"\nformat \
         = \"qcow2\"\nextra = true\n",
        core()
    )
}

fn create(host: &Host, image: &str, size: &str) {
    let path = host.folder().join(image);
    program(&["qemu-img", "create", "-q", "-f", "qcow2", &path.to_string_lossy(), size]);
}

/// Whether QEMU finds nothing in an image but clusters that nobody uses.
fn is_sound(host: &Host, image: &str) -> bool {
    let path = host.folder().join(image);
    let checked = Command::new("qemu-img").args(["check", "-q"]).arg(path).output().unwrap();
    matches!(checked.status.code(), Some(0 | 3))
}

/// The image process that has this image open.
fn process_of(host: &Host, image: &str) -> Option<u32> {
    let path = host.folder().join(image);
    let children = format!("/proc/{0}/task/", host.pid());
    let mut all = Vec::new();
    for thread in fs::read_dir(children).unwrap().flatten() {
        let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        all.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    all.into_iter().find(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut open = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        name.trim() == "moirai-image" && open.any(|file| file == path)
    })
}

fn signal(name: &str, pid: u32) {
    program(&["kill", name, &pid.to_string()]);
}

/// Why the tenant's disk has failed, if so.
fn failure(host: &Host, name: &str) -> Option<String> {
    host.part(name, "disk")["failed"].as_str().map(str::to_owned)
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

/// Waits until the tenant's disk has failed with these words, not longer than `most`.
fn fails(host: &Host, name: &str, said: &str, most: Duration) {
    let begin = Instant::now();
    let why = loop {
        if let Some(why) = failure(host, name) {
            break why;
        }
        assert!(begin.elapsed() < most, "{name} does not fail: {said}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(why.contains(said) && why.contains("the process of image"), "{said}: {why}");
    let shown = String::from_utf8_lossy(&host.ask(&["show", name]).stdout).into_owned();
    assert!(shown.contains("running") && shown.contains(said), "{shown}");
}

/// Whether a tenant's requests are done without errors at this moment.
fn works(host: &Host, name: &str) -> bool {
    let before = host.part(name, "disk");
    std::thread::sleep(Duration::from_millis(500));
    let after = host.part(name, "disk");
    number(&after, "completed") > number(&before, "completed")
        && number(&after, "errors") == number(&before, "errors")
}

#[test]
fn an_image_process_is_shut_in() {
    let host = Host::start();
    create(&host, "image", "64M");
    host.launch(&tenant("t", "image"));
    let pid = process_of(&host, "image").unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    let uid: u32 = field("Uid:").split(' ').next().unwrap().parse().unwrap();
    assert!(uid >= 300_000 && field("Groups:").is_empty(), "{uid}");
    for set in ["CapPrm:", "CapEff:", "CapInh:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs:").as_str(), field("Seccomp:").as_str()), ("1", "2"));
    assert_eq!(field("Threads:"), "1");
    let root = fs::read_dir(format!("/proc/{pid}/root")).unwrap();
    assert_eq!(root.count(), 0, "an empty file system");
    for space in ["mnt", "net", "ipc", "uts"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{space}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{space}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for (limit, most) in [
        ("Max address space", "603979776"),
        ("Max processes", "0"),
        ("Max open files", "64"),
        ("Max core file size", "0"),
    ] {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit)).unwrap();
        assert!(
            line.split_whitespace().all(|it| it == most || it.parse::<u64>().is_err()),
            "{line}"
        );
    }
    let last = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(last.trim(), "1000");
    assert!(works(&host, "t"));
    let _ = host.ask(&["stop", "t"]);
    wait_for("the process has ended", || !Path::new(&format!("/proc/{pid}")).exists());
    assert!(is_sound(&host, "image"));
}

#[test]
fn an_image_process_that_dies_under_load_costs_its_volume_alone_and_the_next_launch_has_another() {
    let host = Host::start();
    create(&host, "other", "64M");
    host.launch(&tenant("other", "other"));
    for (name, said) in
        [("-KILL", "was ended by signal 9 (SIGKILL)"), ("-ABRT", "was ended by signal 6 (SIGABRT")]
    {
        create(&host, "image", "256M");
        host.launch(&tenant("t", "image"));
        wait_for("it works", || number(&host.part("t", "disk"), "completed") > 100);
        let first = process_of(&host, "image").unwrap();
        signal(name, first);
        fails(&host, "t", said, Duration::from_secs(5));
        wait_for("errors", || number(&host.part("t", "disk"), "errors") > 0);
        assert!(works(&host, "other"), "{name}: the other one goes on");
        assert_eq!(failure(&host, "other"), None);
        assert!(host.log().contains("an image has failed"), "{}", host.log());
        let _ = host.ask(&["stop", "t"]);
        assert!(is_sound(&host, "image"), "{name}");
        host.launch(&tenant("t", "image"));
        let second = process_of(&host, "image").unwrap();
        assert!(second != first && works(&host, "t") && failure(&host, "t").is_none());
        let _ = host.ask(&["stop", "t"]);
        assert!(is_sound(&host, "image"), "{name}, once more");
    }
}

#[test]
fn an_image_process_that_stops_has_half_a_minute() {
    let host = Host::start();
    create(&host, "image", "4G");
    host.launch(&tenant("t", "image"));
    let pid = process_of(&host, "image").unwrap();
    signal("-STOP", pid);
    fails(&host, "t", "did not answer within 30s and was killed", Duration::from_secs(45));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_full_disk_is_an_error_of_requests_and_the_process_lives() {
    let host = Host::start();
    let small = host.folder().join("small");
    fs::create_dir(&small).unwrap();
    let backing = host.folder().join("fs.img");
    let (at, backing) = (small.to_string_lossy(), backing.to_string_lossy());
    program(&["truncate", "-s", "24M", &backing]);
    program(&["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", &backing]);
    program(&["mount", "-o", "loop", &backing, &at]);
    let mounted = Mounted(small.clone());
    create(&host, "small/image", "64M");
    host.launch(&tenant("t", "small/image"));
    wait_for("errors", || number(&host.part("t", "disk"), "errors") > 10);
    let pid = process_of(&host, "small/image").unwrap();
    assert_eq!(failure(&host, "t"), None);
    // What is there can be read and written all the same.
    let before = number(&host.part("t", "disk"), "bytes");
    wait_for("reads", || number(&host.part("t", "disk"), "bytes") > before);
    assert_eq!(process_of(&host, "small/image"), Some(pid));
    let _ = host.ask(&["stop", "t"]);
    wait_for("the process has ended", || !Path::new(&format!("/proc/{pid}")).exists());
    assert!(is_sound(&host, "small/image"));
    drop(mounted);
}

/// A file system that is taken away with the value.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
