//! How commands end whose output is not read, or not taken.

use std::fs::File;
use std::process::{Command, Stdio};

/// The status that a shell sees of `moirai WORDS` whose reader takes one byte and goes.
fn status_without_a_reader(words: &str) -> Option<i32> {
    let moirai = env!("CARGO_BIN_EXE_moirai");
    let script = format!("{moirai} {words} | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}");
    let output = Command::new("bash").arg("-c").arg(script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words}");
    output.status.code()
}

#[test]
fn a_reader_that_goes_away_ends_a_command_as_sigpipe_would() {
    // More than a pipe holds, so that the writer notices for sure.
    for words in ["schema", "completions bash"] {
        assert_eq!(status_without_a_reader(words), Some(141), "{words}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure_whatever_was_asked() {
    for words in [&["--help"][..], &["--version"], &["plan", "--help"], &["schema"], &["help", "top"]] {
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
