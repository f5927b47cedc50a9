//! A tenant's life as an operator sees it: launch, list, show, set, console, top, stop.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use moirai_tests::{Host, core, lives, moirai, said, wait_for};

fn carnage(name: &str, contract: &str) -> String {
    format!(
        "[[tenant]]\nname = \"{name}\"\nimage = \"carnage\"\nmemory = \"16M\"\ncore = {}\ncpu = \
         {{ {contract} }}\n",
        core()
    )
}

#[test]
fn a_tenant_is_launched_shown_changed_and_stopped() {
    let host = Host::start();
    host.launch(&carnage("worker", "period = \"10ms\", slice = \"2ms\""));
    let view = host.json(&["show", "worker"]);
    assert_eq!(view["phase"], "running");
    let pid = u32::try_from(view["pid"].as_u64().unwrap()).unwrap();
    assert!(lives(pid));
    assert_eq!(view["cpu"]["slice_ns"], 2_000_000);
    assert!(said(&host.ask(&["list"])).contains("worker"));
    let _ready = host.report("worker", "ready");

    let changed = host.ask(&["set", "worker", "cpu.slice=3ms"]);
    assert!(changed.status.success(), "{}", said(&changed));
    assert_eq!(host.json(&["show", "worker"])["cpu"]["slice_ns"], 3_000_000);

    let stopped = host.ask(&["stop", "worker"]);
    assert!(stopped.status.success(), "{}", said(&stopped));
    wait_for("the process is gone", || !lives(pid));
    assert!(!host.ask(&["show", "worker"]).status.success());
}

#[test]
fn a_change_that_does_not_fit_is_refused_and_the_old_contract_stays() {
    let host = Host::start();
    host.launch(&carnage("one", "period = \"10ms\", slice = \"4ms\""));
    host.launch(&carnage("two", "period = \"10ms\", slice = \"4ms\""));
    let refused = host.ask(&["set", "two", "cpu.slice=7ms"]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    let text = said(&refused);
    assert!(text.contains("cpu/"), "the refusal names the resource: {text}");
    assert_eq!(host.json(&["show", "two"])["cpu"]["slice_ns"], 4_000_000);
}

#[test]
fn a_change_of_which_one_part_cannot_be_made_changes_nothing() {
    let host = Host::start();
    host.launch(&carnage("worker", "period = \"10ms\", slice = \"2ms\""));
    let refused = host.ask(&["set", "worker", "cpu.slice=3ms", "memory=8M"]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("no balloon"), "{}", said(&refused));
    assert_eq!(host.json(&["show", "worker"])["cpu"]["slice_ns"], 2_000_000);
}

#[test]
fn a_tenant_that_does_not_fit_is_not_started() {
    let host = Host::start();
    host.launch(&carnage("one", "period = \"10ms\", slice = \"6ms\""));
    let refused = host.try_launch(&carnage("two", "period = \"10ms\", slice = \"6ms\""));
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(!host.ask(&["show", "two"]).status.success());
    // What was not reserved can still be had.
    host.launch(&carnage("three", "period = \"10ms\", slice = \"2ms\""));
}

#[test]
fn more_memory_than_there_is_is_refused_and_nothing_is_started() {
    let host = Host::start();
    let huge = carnage("huge", "extra = true").replace("16M", "900G");
    for prefault in ["", "prefault = true\n"] {
        let text = huge.replace("core =", &format!("{prefault}core ="));
        let refused = host.try_launch(&text);
        assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
        assert!(said(&refused).contains("memory: "), "{}", said(&refused));
    }
    assert!(!host.ask(&["show", "huge"]).status.success());
    host.launch(&carnage("small", "extra = true"));
    let reserved = |host: &Host| {
        let stats = host.stats();
        let resources = stats["resources"].as_array().cloned().unwrap();
        let memory = resources.iter().find(|resource| resource["name"] == "memory").cloned();
        memory.unwrap()["reserved"].as_u64().unwrap()
    };
    assert!(reserved(&host) > 16 << 20, "the guest's and what it costs");
    assert!(host.ask(&["stop", "small"]).status.success());
    assert_eq!(reserved(&host), 0);
}

#[test]
fn a_tenant_is_told_what_it_is_promised_and_whether_that_is_kept() {
    let host = Host::start();
    host.launch(&carnage("worker", "period = \"20ms\", slice = \"3ms\", deadline = \"10ms\""));
    let _ready = host.report("worker", "ready");
    let list = host.json(&["list"]);
    assert_eq!((&list[0]["kept"], &list[0]["because"]), (&true.into(), &"".into()));
    let part = &host.json(&["explain", "worker"])["parts"][0];
    assert_eq!(part["from"], "wake-up");
    assert_eq!(part["blackout_ns"], 24_000_000);
    assert_eq!(part["got"]["kept"], true);
    wait_for("it got something", || {
        let part = &host.json(&["explain", "worker"])["parts"][0];
        part["got"]["guaranteed_ns"].as_u64().unwrap() > 0
    });
    let text = said(&host.ask(&["explain", "worker"]));
    assert!(text.contains("3ms in every 20ms by 10ms") && text.contains("A miss:"), "{text}");
    assert!(said(&host.ask(&["top", "--once"])).contains("KEPT"));
}

#[test]
fn a_capacity_above_the_kernels_limit_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let config = folder.path().join("host.toml");
    let text = format!(
        "[host]\ncores = [{}]\ncpu_capacity = 1.0\nsocket = \"{path}/host.sock\"\n\
         state_dir = \"{path}/state\"\n",
        core()
    );
    std::fs::write(&config, text).unwrap();
    let limit = std::fs::read_to_string("/proc/sys/kernel/sched_rt_runtime_us").unwrap();
    if limit.trim() == "-1" {
        assert!(std::env::var_os("MOIRAI_REQUIRE_KERNEL").is_none(), "no limit");
        eprintln!("NOT TESTED HERE: this machine has no limit for real-time threads");
        return;
    }
    let refused = moirai(&["host", "--config", &config.to_string_lossy()]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    let text = said(&refused);
    assert!(text.contains("host.toml:3:16") && text.contains("realtime_limit"), "{text}");
}

#[test]
fn cpu_contracts_are_delivered_and_slack_goes_to_who_asked_for_it() {
    let host = Host::start();
    host.launch(&carnage("promised", "period = \"10ms\", slice = \"3ms\""));
    host.launch(&carnage("greedy", "period = \"20ms\", slice = \"1ms\", extra = true"));
    let _ready = host.report("greedy", "ready");
    let share = |before: &serde_json::Value, after: &serde_json::Value, key: &str, elapsed: u64| {
        let count = |part: &serde_json::Value| part[key].as_u64().unwrap();
        (count(after) - count(before)) * 1000 / elapsed
    };
    let begin = host.stats()["now_ns"].as_u64().unwrap();
    let before = (host.part("promised", "cpu"), host.part("greedy", "cpu"));
    std::thread::sleep(std::time::Duration::from_secs(3));
    let after = (host.part("promised", "cpu"), host.part("greedy", "cpu"));
    let elapsed = host.stats()["now_ns"].as_u64().unwrap() - begin;
    // Shares, not times; the readings are some milliseconds apart.
    let promised = share(&before.0, &after.0, "guaranteed_ns", elapsed);
    assert!((270..=310).contains(&promised), "{promised} per mille of a contract for 300");
    assert_eq!(after.0["extra_ns"], 0);
    let extra = share(&before.1, &after.1, "extra_ns", elapsed);
    assert!(extra > 300, "{extra} per mille of slack");
}

#[test]
fn an_echo_server_answers_through_the_link() {
    let host = Host::start();
    host.launch(
        "[[tenant]]\nname = \"echo\"\nimage = \"echo\"\nargs = \"ip=10.77.0.2/24 port=7\"\n\
         memory = \"32M\"\n[[tenant.net]]\nlink = \"link\"\n",
    );
    let _ready = host.report("echo", "ready");
    let ping = std::process::Command::new("ip")
        .args([
            "netns",
            "exec",
            &host.netns,
            "ping",
            "-c",
            "5",
            "-i",
            "0.2",
            "-W",
            "2",
            "10.77.0.2",
        ])
        .output()
        .unwrap();
    assert!(said(&ping).contains(" 0% packet loss"), "{}", said(&ping));
}

#[test]
fn a_tenant_process_has_limits_of_its_own_and_goes_before_the_host_service() {
    let host = Host::start();
    host.launch(&carnage("worker", "period = \"10ms\", slice = \"2ms\""));
    let pid = host.json(&["show", "worker"])["pid"].as_u64().unwrap();
    let read = |path: String| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(format!("/proc/{pid}/oom_score_adj")).trim(), "500");
    let groups = read(format!("/proc/{pid}/cgroup"));
    if host.log().contains("no control groups here") {
        eprintln!("NOT TESTED HERE: no control groups");
        assert!(std::env::var_os("MOIRAI_REQUIRE_CGROUPS").is_none());
        return;
    }
    let own = format!("moirai-{}/worker", host.pid());
    let named: Vec<_> = groups.lines().filter(|line| line.ends_with(&own)).collect();
    assert!(!named.is_empty(), "{groups}");
    assert!(host.ask(&["stop", "worker"]).status.success());
    let left = |controller: &str| {
        let folder = std::path::Path::new("/sys/fs/cgroup").join(controller);
        let path = named.iter().find(|line| line.contains(controller));
        let path = path.and_then(|line| line.rsplit(':').next()).unwrap_or_default();
        !path.is_empty() && folder.join(path.trim_start_matches('/')).exists()
    };
    wait_for("its groups are gone", || !left("memory") && !left("pids"));
}
