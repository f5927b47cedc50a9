//! How commands end whose output is not read, or not taken.

use std::fs::File;
use std::process::{Command, Stdio};

#[test]
fn a_reader_that_goes_away_ends_a_command_as_sigpipe_would() {
    for words in [&["schema"][..], &["completions", "bash"], &["--help"], &["plan", "--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_moirai"));
        let output = command.args(words).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{words:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure_whatever_was_asked() {
    for words in
        [&["--help"][..], &["--version"], &["plan", "--help"], &["schema"], &["help", "top"]]
    {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_moirai"));
        let output = command.args(words).stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("cannot write to standard output"), "{words:?}: {said}");
    }
}

#[test]
fn a_screen_that_is_no_terminal_is_refused_with_what_is_for_programs() {
    let output = super::moirai(&["--socket", "/nowhere", "top"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--once"), "{output:?}");
}
