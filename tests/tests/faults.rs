//! Kills and crashes: one tenant is lost, nobody else is harmed, nothing is left behind.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::time::Duration;

use moirai_tests::{Host, core, kill, lives, said, wait_for};

/// A tenant that keeps disk and link busy, and one that was promised CPU time.
fn load(host: &Host) {
    let film = vec![0x5a; 8 << 20];
    std::fs::write(host.folder().join("volume.img"), film).unwrap();
    let core = core();
    host.launch(&format!(
        r#"
[[tenant]]
name = "thrash"
image = "thrash"
args = "mode=read depth=16 size=65536"
memory = "64M"
core = {core}
cpu = {{ period = "20ms", slice = "2ms", extra = true }}

[[tenant.disk]]
disk = "disk"
volume = "volume.img"
readonly = true
extra = true

[[tenant]]
name = "flood"
image = "flood"
args = "ip=10.77.0.3/24 to=10.77.0.1:9 size=1400"
memory = "32M"
core = {core}
cpu = {{ period = "20ms", slice = "2ms", extra = true }}

[[tenant.net]]
link = "link"
extra = true

[[tenant]]
name = "promised"
image = "carnage"
memory = "16M"
core = {core}
cpu = {{ period = "10ms", slice = "3ms" }}
"#
    ));
    let _ = host.report("thrash", "report");
    let _ = host.report("flood", "report");
}

fn pid(host: &Host, tenant: &str) -> u32 {
    u32::try_from(host.json(&["show", tenant])["pid"].as_u64().unwrap()).unwrap()
}

fn reserved(host: &Host) -> Vec<(String, u64)> {
    let stats = host.stats();
    let resources = stats["resources"].as_array().cloned().unwrap();
    let entry = |resource: &serde_json::Value| {
        (resource["name"].as_str().unwrap().to_owned(), resource["reserved"].as_u64().unwrap())
    };
    resources.iter().map(entry).collect()
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn tenants_killed_under_load_harm_nobody_and_leak_nothing() {
    let host = Host::start();
    let (free, files) = (reserved(&host), open_files(host.pid()));
    load(&host);
    for victim in ["thrash", "flood"] {
        let victim_pid = pid(&host, victim);
        kill(victim_pid);
        wait_for("the victim has ended", || host.json(&["show", victim])["phase"] == "ended");
        assert!(!lives(victim_pid));
    }
    let before = host.part("promised", "cpu")["guaranteed_ns"].as_u64().unwrap();
    let begin = host.stats()["now_ns"].as_u64().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let served = host.part("promised", "cpu")["guaranteed_ns"].as_u64().unwrap() - before;
    let elapsed = host.stats()["now_ns"].as_u64().unwrap() - begin;
    let share = served * 1000 / elapsed;
    assert!((260..=310).contains(&share), "{share} per mille of a contract for 300");

    host.stop_failed("thrash");
    host.stop_failed("flood");
    let stopped = host.ask(&["stop", "promised"]);
    assert!(stopped.status.success(), "{}", said(&stopped));
    assert_eq!(reserved(&host), free, "reservations are given back");
    wait_for("all descriptors are closed", || open_files(host.pid()) <= files + 1);
}

#[test]
fn a_host_service_that_was_killed_leaves_nothing_that_a_new_start_does_not_clean_up() {
    let host = Host::start();
    load(&host);
    let pids = ["thrash", "flood", "promised"].map(|tenant| pid(&host, tenant));
    let (folder, netns) = host.kill();
    wait_for("the tenants die with their host", || pids.iter().all(|&pid| !lives(pid)));

    let again = Host::start_in(folder, netns.clone(), &[]);
    assert_eq!(again.json(&["list"]).as_array().map(Vec::len), Some(0));
    load(&again);
    drop(again);
    assert!(!moirai_runtime::netns::path(&netns).exists(), "the namespace is removed");
}

#[test]
fn a_host_service_that_ends_takes_everything_with_it() {
    let host = Host::start();
    load(&host);
    let pids = ["thrash", "flood", "promised"].map(|tenant| pid(&host, tenant));
    let socket = host.folder().join("host.sock");
    let netns = moirai_runtime::netns::path(&host.netns);
    assert!(socket.exists() && netns.exists());
    drop(host);
    assert!(pids.iter().all(|&pid| !lives(pid)));
    assert!(!socket.exists() && !netns.exists());
}

#[test]
fn an_image_that_is_no_kernel_ends_as_a_clear_error_and_the_host_lives() {
    let host = Host::start();
    let long = vec![0x7f; 100_000];
    let mut truncated = std::fs::read(moirai_tests::root().join("target/images/carnage")).unwrap();
    truncated.truncate(5_000);
    for (name, bytes) in [("text", b"not a kernel".to_vec()), ("noise", long), ("half", truncated)]
    {
        let path = host.folder().join(name);
        std::fs::write(&path, bytes).unwrap();
        let launched = host.try_launch(&format!(
            "[[tenant]]\nname = \"{name}\"\nimage = \"{}\"\nmemory = \"16M\"\n",
            path.display()
        ));
        let text = said(&launched);
        assert!(!launched.status.success(), "{text}");
        assert!(text.contains("image"), "the error names the image: {text}");
        assert!(!text.contains("panic"), "{text}");
    }
    assert!(host.ask(&["list"]).status.success());
}
