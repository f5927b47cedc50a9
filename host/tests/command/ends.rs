//! How commands end whose output is not read, or not taken.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::link::Host;

const PATIENCE: Duration = Duration::from_secs(20);

fn wait(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A host service without tenants, and `moirai WORDS` that talks to it.
fn host_and(words: &[&str]) -> (Host, Command) {
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

/// A terminal: the side of its user and the side of the program.
fn terminal() -> (OwnedFd, File) {
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let size = Winsize { ws_row: 30, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&user, size).unwrap();
    let name = ptsname(&user, Vec::new()).unwrap();
    let program = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (user, program)
}

#[test]
fn a_screen_gives_the_terminal_back_whatever_signal_ends_it() {
    let _turn = super::turn();
    let (mut host, mut command) = host_and(&["top", "--interval", "0.1"]);
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        let (user, program) = terminal();
        let stdio = || Stdio::from(program.try_clone().unwrap());
        let mut top = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let mut shown = Vec::new();
        let mut read = || {
            let mut buffer = [0; 4096];
            let length = rustix::io::read(&user, &mut buffer).unwrap();
            shown.extend_from_slice(&buffer[..length]);
            String::from_utf8_lossy(&shown).into_owned()
        };
        while !read().contains("leaves") {}
        let cooked = || tcgetattr(&program).unwrap().local_modes.contains(LocalModes::ICANON);
        assert!(!cooked());
        let pid = rustix::process::Pid::from_child(&top);
        let signal_of = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal_of).unwrap();
        // The last thing is that the cursor is shown again.
        while !read().contains("\x1b[?25h") {}
        assert!(String::from_utf8_lossy(&shown).contains("\x1b[?1049l"));
        assert_eq!(wait(&mut top).signal(), Some(signal));
        assert!(cooked());
    }
    assert_eq!(host.ends(true), 0);
}

#[test]
fn a_host_service_outlives_the_reader_of_its_log() {
    let _turn = super::turn();
    let folder = tempfile::tempdir().unwrap();
    let core = std::thread::available_parallelism().unwrap().get() - 1;
    let path = folder.path().display();
    let text =
        format!("[host]\ncores = [{core}]\nsocket = \"{path}/s\"\nstate_dir = \"{path}/state\"\n");
    let config = super::file(&folder, &text);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_moirai"));
    let mut child = command.arg("host").arg("--config").arg(config).stderr(writer).spawn().unwrap();
    let begin = Instant::now();
    while !folder.path().join("s").exists() {
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
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
