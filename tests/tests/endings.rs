//! What `lab` and `suite` have started ends with them, also if they are killed without time to end
//! it.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use moirai_tests::{kill, lives, wait_for};

/// A test program that hangs, with a child of its own, and says who they are.
const PROGRAM: &str =
    "#!/bin/sh\nsleep 600 &\necho $$ $! >\"$0.new\" && mv \"$0.new\" \"$0.pids\"\nwait\n";

#[test]
fn a_test_and_its_children_end_with_a_lab_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs::write(&program, PROGRAM).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["each", "--limit", "600", "--of", "1", "--after", "0", "--events"])
        .arg(folder.path().join("events"))
        .arg(&program)
        .arg("a_test")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut pids = String::new();
    wait_for("the test runs", || {
        pids = fs::read_to_string(folder.path().join("program.pids")).unwrap_or_default();
        !pids.is_empty()
    });
    let pids: Vec<u32> = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|&pid| lives(pid)));
    kill(lab.id());
    lab.wait().unwrap();
    wait_for("the test and its child have ended", || !pids.iter().any(|&pid| lives(pid)));
}

#[test]
fn a_name_that_no_suite_has_is_refused_with_those_that_there_are() {
    let output = Command::new(env!("CARGO_BIN_EXE_suite")).arg("hosts").output().unwrap();
    let said = moirai_tests::said(&output);
    assert!(!output.status.success());
    assert!(said.contains(r#"there is no suite "hosts"; there are: format scheduler"#), "{said}");
}
