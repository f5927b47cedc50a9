//! A minute of faults at random, and some hundred power losses. `make chaos` takes an hour.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::process::Command;

/// Runs `chaos` to its end, which shows all that it prints.
fn chaos(words: &[&str]) {
    let systems = std::fs::read_to_string("/proc/filesystems").unwrap();
    if !systems.split_whitespace().any(|system| system == "fuse") {
        eprintln!("NOT TESTED HERE: the kernel has no FUSE, so no disk can fail");
        assert!(std::env::var_os("MOIRAI_REQUIRE_FUSE").is_none());
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_chaos")).args(words).output().unwrap();
    let said = moirai_tests::said(&output);
    println!("{said}");
    assert!(output.status.success(), "chaos {words:?}: {:?}\n{said}", output.status);
}

#[test]
fn a_minute_of_faults_loses_no_write_and_leaves_nothing_behind() {
    chaos(&["--seconds", "60"]);
}

#[test]
fn what_was_flushed_is_there_wherever_the_power_is_cut() {
    chaos(&["power", "--points", "60"]);
}
