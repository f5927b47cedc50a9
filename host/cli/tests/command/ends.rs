//! How commands end whose output is not read, or not taken.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use moirai_bench::driver::Start;

use super::link::Host;

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn wait(child: &mut Child) -> ExitStatus {
    let begin = moirai_runtime::instant();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if moirai_runtime::since(begin) > PATIENCE {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A host service without tenants, and `moirai WORDS` that talks to it.
pub(super) fn host_and(words: &[&str]) -> (Host, Command) {
    let mut host = Host::serving("");
    host.serves();
    let mut command = Command::new(env!("CARGO_BIN_EXE_moirai"));
    command.arg("--socket").arg(host.socket()).args(words);
    (host, command)
}

#[test]
fn counters_without_end_end_with_their_reader_also_while_they_have_nothing_to_say() {
    let _turn = super::turn();
    for interval in ["0.1", "3600"] {
        let (mut host, mut command) = host_and(&["top", "--json", "--interval", interval]);
        let mut top = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(top.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with('{') && line.ends_with("}\n"), "{line}");
        assert_eq!(wait(&mut top).code(), Some(141));
        let mut said = String::new();
        top.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
        assert_eq!(host.ends(true), 0);
    }
}

#[test]
fn a_host_service_outlives_the_reader_of_its_log_and_its_terminal() {
    let _turn = super::turn();
    let folder = tempfile::tempdir().unwrap();
    let core = std::thread::available_parallelism().unwrap().get() - 1;
    let path = folder.path().display();
    let text =
        format!("[host]\ncores = [{core}]\nsocket = \"{path}/s\"\nstate_dir = \"{path}/state\"\n");
    let config = super::file(&folder, &text);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let moirai = Path::new(env!("CARGO_BIN_EXE_moirai"));
    let start = Start::new(moirai, &config, &folder.path().join("s")).stderr(writer);
    let mut host = start.serve().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(host.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(!host.has_ended(), "SIGHUP has ended it");
    host.ask_to_end();
    assert_eq!(host.wait(PATIENCE).unwrap().code(), Some(0));
}

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

#[test]
fn an_export_that_is_taken_for_a_tenant_is_named_with_its_own_commands() {
    for words in
        [&["show", "export/zero"][..], &["stop", "export/zero"], &["console", "export/zero"]]
    {
        let output = super::moirai(&[&["--socket", "/nowhere"], words].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        for command in ["moirai exports", "moirai unexport zero", "moirai set export/zero"] {
            assert!(said.contains(command), "{words:?}: {said}");
        }
    }
}

#[test]
fn output_that_nobody_has_opened_is_a_failure_whatever_was_asked() {
    let _turn = super::turn();
    let (mut host, command) = host_and(&[]);
    let socket = host.socket().display().to_string();
    drop(command);
    for words in [
        "--help",
        "--version",
        "plan --help",
        "schema",
        "completions bash",
        "list",
        "top --once --interval 0.1",
        "top --json",
        "exports --json",
    ] {
        let line = format!("exec \"$0\" --socket \"$1\" {words} >&-");
        let mut shell = Command::new("sh");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_moirai"), &socket]);
        let output = shell.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words}: {said}");
        assert!(said.contains("cannot write to standard output: it is closed"), "{words}: {said}");
    }
    assert_eq!(host.ends(true), 0);
}
