//! The `moirai` command as a user meets it: output, errors, exit statuses, links. No tenant is
//! started.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod crowd;
mod ends;
mod link;
mod owners;
mod reports;
mod screen;
mod simulate;
mod strangers;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tempfile::TempDir;

const HEAD: &str = "[host]\ncores = [1]\nmemory = \"4G\"\nprofile = \"none\"\n";

/// One test at a time has the cores: each has one owner.
static CORES: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    CORES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn moirai(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moirai")).args(words).output().unwrap()
}

fn file(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("moirai.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Plans `text`; returns exit status, standard output and standard error.
fn plan(text: &str, words: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, text);
    let path = path.to_str().unwrap();
    let output = moirai(&[&["plan", path], words].concat());
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(path, "FILE");
    (output.status.code().unwrap(), said(&output.stdout), said(&output.stderr))
}

fn tenant(name: &str, slice: &str) -> String {
    // Any file: plans only look whether there is one.
    let image = env!("CARGO_BIN_EXE_moirai");
    format!(
        "[[tenant]]\nname = \"{name}\"\nimage = \"{image}\"\n\
         [tenant.cpu]\nperiod = \"10ms\"\nslice = \"{slice}\"\n"
    )
}

#[test]
fn a_plan_that_fits_ends_with_zero() {
    let (status, out, err) = plan(&format!("{HEAD}{}", tenant("a", "9500us")), &["--json"]);
    let plan: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(plan["admitted"], true);
    assert_eq!(plan["tenants"][0]["refusals"], Value::Array(vec![]));
    assert_eq!(plan["resources"][0]["name"], "cpu/1");
    assert_eq!(plan["resources"][0]["reserved"], plan["resources"][0]["capacity"]);
}

#[test]
fn a_plan_that_does_not_fit_ends_with_three_and_offers_what_would() {
    let text = format!("{HEAD}{}{}", tenant("a", "6ms"), tenant("b", "5ms"));
    let (status, out, _) = plan(&text, &["--json"]);
    let plan: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &plan["admitted"]), (3, &Value::from(false)));
    let refusal = &plan["tenants"][1]["refusals"][0];
    assert_eq!(refusal["resource"], "cpu/1");
    assert_eq!(refusal["requested"], 500_000_000);
    assert_eq!(refusal["available"], 350_000_000);
    assert_eq!(refusal["nearest"]["period_ns"], 10_000_000);
    assert_eq!(refusal["nearest"]["slice_ns"], 3_500_000);
}

#[test]
fn a_plan_in_text_says_what_is_asked_and_what_is_left() {
    let text = format!("{HEAD}{}{}", tenant("a", "6ms"), tenant("b", "5ms"));
    insta::assert_snapshot!(plan(&text, &[]).1, @r#"
    a                        admitted
    b                        refused
        cpu/1: 50.00% asked, 35.00% not reserved; in 10000000 ns up to 11000000 ns are due, but only 9500000 ns can be supplied; 3500us every 10ms would fit: write slice = "3500us"

    resource                  reserved  capacity
    cpu/1                       60.00%    95.00%
    memory                         64M     4096M
    "#);
}

#[test]
fn a_plan_warns_of_what_is_not_there_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("file"), "").unwrap();
    let disk = format!("[[disk]]\nname = \"ssd\"\npath = {:?}\n", folder.path());
    let volume = |name| {
        format!(
            "{disk}{}[[tenant.disk]]\ndisk = \"ssd\"\nvolume = \"{name}\"\n",
            tenant("a", "1ms")
        )
    };
    let head = |key: &str, value: &str| format!("{HEAD}{key} = {value:?}\n{}", tenant("a", "1ms"));
    let image = |key| format!("{HEAD}[[tenant]]\nname = \"a\"\n{key} = {:?}\n", at("none"));
    let machine = std::thread::available_parallelism().unwrap().get();
    let both = format!("[host]\ncores = [{0}]\nio_core = {0}\n", machine - 1);
    for (text, line, said) in [
        (format!("{HEAD}{}", volume("none")), 16, "does not exist"),
        (format!("{HEAD}{}", volume("file")), 16, "is empty"),
        (image("image"), 7, "the image"),
        (image("kernel"), 7, "the kernel"),
        (HEAD.replace("4G", "4000000G"), 3, "of this machine"),
        (head("state_dir", &at("file")), 5, "is no folder"),
        (head("state_dir", &at("file/state")), 5, "is no folder"),
        (head("socket", &at("file")), 5, "is no socket"),
        (head("socket", &at("")), 5, "is no socket"),
        (both, 3, "requests wait"),
    ] {
        let (status, out, err) = plan(&text, &[]);
        assert_eq!(status, 0, "{text}\n{out}{err}");
        assert!(err.contains(said) && err.contains(&format!("FILE:{line}:")), "{text}\n{err}");
    }
    let good = format!("{HEAD}{}", tenant("a", "1ms"));
    assert_eq!(plan(&good, &[]).2, "");
}

#[test]
fn an_explained_plan_shows_what_is_due_and_what_can_be_supplied() {
    let text = format!("{HEAD}{}{}", tenant("a", "6ms"), tenant("b", "5ms"));
    let (status, out, _) = plan(&text, &["--explain", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status, 3);
    let explain = &answer["tenants"][1]["refusals"][0]["explain"];
    assert_eq!(explain["time_ns"], 10_000_000);
    assert_eq!(explain["demand_ns"], 11_000_000);
    assert_eq!(explain["supply_ns"], 9_500_000);
    assert_eq!(explain["due"][1]["tenant"], "b");
    assert_eq!(explain["overhead_ns"], 0);
    insta::assert_snapshot!(plan(&text, &["--explain"]).1, @r#"
    a                        admitted
    b                        refused
        cpu/1: 50.00% asked, 35.00% not reserved; in 10000000 ns up to 11000000 ns are due, but only 9500000 ns can be supplied; 3500us every 10ms would fit: write slice = "3500us"
            10ms after all slices are released at once
            a                                         1 x 6ms              6ms
            b                                         1 x 5ms              5ms
            demand                                                        11ms
            supply                                                      9500us

    resource                  reserved  capacity
    cpu/1                       60.00%    95.00%
    memory                         64M     4096M
    "#);
    let (_, out, _) = plan(&text, &["--json"]);
    assert!(!out.contains("explain"), "{out}");
}

#[test]
fn overheads_are_part_of_an_explained_demand() {
    // A state directory in which no host has stored what it measured.
    let text = format!("{HEAD}{}", tenant("a", "9400us"));
    let text = text.replace("profile = \"none\"\n", "state_dir = \"/nowhere\"\n");
    let (_, out, _) = plan(&text, &["--explain", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    let explain = &answer["tenants"][0]["refusals"][0]["explain"];
    assert_eq!(
        (&explain["demand_ns"], &explain["overhead_ns"]),
        (&9_520_000.into(), &120_000.into())
    );
}

#[test]
fn demand_is_drawn_against_supply_whether_a_plan_fits_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("plan.svg");
    for (slice, status, title) in [("2ms", 0, "all that is admitted"), ("5ms", 3, "with b")] {
        let text = format!("{HEAD}{}{}", tenant("a", "6ms"), tenant("b", slice));
        let (ended, _, err) = plan(&text, &["--svg", picture.to_str().unwrap()]);
        assert_eq!((ended, err.as_str()), (status, ""));
        let svg = std::fs::read_to_string(&picture).unwrap();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(svg.contains(title), "{svg}");
    }
    assert_eq!(plan(HEAD, &["--svg", "/nowhere/plan.svg"]).0, 1);
}

#[test]
fn a_policy_that_is_not_known_or_not_for_a_core_is_refused_with_those_that_are() {
    let (status, _, err) = plan("[host]\ncores = [1]\ncpu_policy = \"edf\"\n", &[]);
    assert_eq!(status, 2);
    assert!(err.contains("FILE:3:14"), "{err}");
    for name in moirai_scheduler::POLICIES {
        assert!(err.contains(name), "{name}: {err}");
    }
    let (status, _, err) = plan("[host]\ncores = [1]\ncpu_policy = \"drr\"\n", &[]);
    assert_eq!(status, 2);
    assert!(
        err.contains("FILE:3:14") && err.contains("write for example \"atropos\"; nemesis, xen"),
        "{err}"
    );
}

#[test]
fn a_bad_configuration_ends_with_two_and_points_at_the_line() {
    let (status, out, err) = plan(&format!("{HEAD}{}", tenant("a", "12ms")), &["--json"]);
    assert_eq!((status, out.as_str()), (2, ""));
    insta::assert_snapshot!(err, @r#"
    moirai: the configuration is bad
      × a slice of 12ms is longer than its period of 10ms
        ╭─[FILE:10:9]
      9 │ period = "10ms"
     10 │ slice = "12ms"
        ·         ──────
        ╰────
      help: a slice is what is served in every period: shorten it
    "#);
}

#[test]
fn a_file_that_is_not_there_ends_with_two() {
    let output = moirai(&["plan", "/nowhere/moirai.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read /nowhere/moirai.toml"));
}

#[test]
fn commands_without_a_host_service_end_with_four_and_say_how_to_start_one() {
    for words in [["list", "--json"], ["show", "a"], ["stop", "a"], ["top", "--once"]] {
        let output = moirai(&[&["--socket", "/nowhere/host.sock"], words.as_slice()].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{words:?}: {said}");
        assert!(said.contains("moirai host --config"), "{said}");
    }
}

#[test]
fn a_change_that_cannot_be_understood_ends_with_two() {
    let output = moirai(&["set", "a", "cpu.slice=fast"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not begin with a number"));
}

#[test]
fn a_host_whose_tenants_do_not_fit_does_not_start() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let text = format!(
        "[host]\ncores = [0]\nsocket = \"{path}/host.sock\"\nstate_dir = \"{path}/state\"\n{}",
        tenant("a", "9900us").replace("streamer", "/proc/version")
    );
    let config = file(&folder, &text);
    let output = moirai(&["host", "--config", config.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("a: not admitted: cpu/0"), "{said}");
}

#[test]
fn a_host_without_privilege_says_which_promises_fall_and_what_to_grant() {
    if !rustix::process::geteuid().is_root() {
        // Then this process has no privilege to give up; the message is the same.
        eprintln!("runs without root: nothing is dropped");
    }
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{HEAD}[[link]]\nname = \"up\"\nrate = \"1Mbit/s\"\n");
    let config = file(&folder, &text);
    std::process::Command::new("chmod").arg("-R").arg("a+rX").arg(folder.path()).status().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_moirai"));
    command.arg("host").arg("--config").arg(&config);
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["/dev/kvm", "CAP_SYS_NICE", "CAP_NET_ADMIN", "links up"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn completions_and_man_pages_are_generated() {
    for shell in ["bash", "zsh", "fish"] {
        let output = moirai(&["completions", shell]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("moirai"));
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(moirai(&["man", folder.path().to_str().unwrap()]).status.success());
    assert!(folder.path().join("moirai-plan.1").exists());
    assert_eq!(moirai(&["man", "/nowhere"]).status.code(), Some(1));
}

#[test]
fn a_promise_of_a_configuration_is_explained_without_a_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, &format!("{HEAD}{}", tenant("a", "3ms")));
    let path = path.to_str().unwrap();
    let output = moirai(&["explain", "a", "--config", path]);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stdout), @r#"
    a: 64M of memory are reserved

    cpu/1, virtual CPU 0: 3ms in every 10ms by 10ms (30.00%)
        from       its wake-up: 3ms within 10ms of it, if 10ms have passed
                   since the last slice; while it wants more, again every 10ms
        at worst   14ms without any service while it wants some
        admitted   nothing is counted beside it

    A miss: a slice that was promised from a wake-up or a refill on, was wanted until its deadline
    and was not given by then. On a disk or a link also a request or packet that was begun out of a
    promised slice and ended after its deadline. A slice is missed at most once.
    An excuse: the machine itself stood still between the promise and the deadline, for long enough
    to have caused the lateness. Such a slice counts as excused, not as missed.
    "#);
    let output = moirai(&["explain", "a", "--config", path, "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["parts"][0]["blackout_ns"], 14_000_000);
    assert_eq!((&answer["parts"][0]["got"], &answer["memory"]), (&Value::Null, &(64 << 20).into()));
    let output = moirai(&["explain", "b", "--config", path]);
    assert_eq!(output.status.code(), Some(2));
}

/// As shared/cases/promise/vc3.toml: both virtual CPUs are to have 60% of one core.
#[test]
fn what_a_plan_refuses_is_not_explained_as_promised() {
    let folder = tempfile::tempdir().unwrap();
    let text = tenant("a", "12ms").replace("[tenant.cpu]", "vcpus = 2\ncore = 1\n[tenant.cpu]");
    let text = format!("{HEAD}{text}{}", tenant("b", "1ms"));
    let path = file(&folder, &text);
    let path = path.to_str().unwrap();
    let (status, planned, _) = plan(&text, &["--json"]);
    let planned: Value = serde_json::from_str(&planned).unwrap();
    let reason = planned["tenants"][0]["refusals"][0]["reason"].as_str().unwrap();
    let output = moirai(&["explain", "a", "--config", path, "--json"]);
    assert_eq!((output.status.code(), status), (Some(3), 3));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["kept"], &answer["refused"]), (&false.into(), &true.into()));
    assert_eq!(answer["parts"].as_array().unwrap().len(), 2);
    for said in [&answer["because"], &answer["parts"][0]["got"]["because"]] {
        let said = said.as_str().unwrap();
        assert!(said.contains(reason) && said.contains("write slice = \"9500us\""), "{said}");
    }
    let output = moirai(&["explain", "a", "--config", path]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        text.starts_with("a: refused, so that nothing is promised to it\n    cpu/1: "),
        "{text}"
    );
    assert!(text.contains("kept       NO: cpu/1: 120.00% asked"), "{text}");
    let output = moirai(&["explain", "b", "--config", path, "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &answer["kept"]), (Some(0), &true.into()));
}

#[test]
fn a_core_that_is_not_there_is_refused_at_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (line, place) in [("cores = [4000]", "2:10"), ("cores = [0]\nio_core = 4000", "3:11")] {
        let config = file(&folder, &format!("[host]\n{line}\n"));
        let output = moirai(&["host", "--config", config.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(place) && said.contains("there is no core 4000"), "{said}");
        // A plan may be for another machine.
        let output = moirai(&["plan", config.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("warning: on this machine `moirai host` refuses this"), "{said}");
        assert!(said.contains(place) && said.contains("there is no core 4000"), "{said}");
    }
}

#[test]
fn a_plan_warns_of_addresses_and_folders_that_this_machine_lacks() {
    let folder = tempfile::tempdir().unwrap();
    for (text, said) in [
        ("[host]\nmetrics = \"192.0.2.7:9100\"\n", "2:11"),
        (
            "[[link]]\nname = \"l\"\nrate = \"1Gbit/s\"\n[[export]]\nname = \"e\"\nsocket = \
             \"/no where/e.sock\"\n[export.net]\nlink = \"l\"\n",
            "`mkdir -p '/no where'`",
        ),
    ] {
        let config = file(&folder, text);
        let output = moirai(&["plan", config.to_str().unwrap()]);
        let warned = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{warned}");
        assert!(warned.contains("warning: on this machine `moirai host` refuses this"), "{warned}");
        assert!(warned.contains(said), "{warned}");
    }
}
