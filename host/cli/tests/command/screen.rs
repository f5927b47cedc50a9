//! The screen of `moirai top` on a terminal: who gets the terminal when a signal comes.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::ends::{PATIENCE, host_and, wait};

/// `moirai top` on a terminal of its own.
struct Screen {
    user: OwnedFd,
    program: File,
    child: Child,
    shown: Vec<u8>,
}

impl Screen {
    /// Starts it and waits for its first picture.
    fn start(command: &mut Command, rows: u16, columns: u16) -> Self {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&user, size).unwrap();
        let name = ptsname(&user, Vec::new()).unwrap();
        let program = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let stdio = || Stdio::from(program.try_clone().unwrap());
        // A group of its own, as a shell with job control gives it: who is alone cannot be stopped.
        let child = command.process_group(0).stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn();
        Self { user, program, child: child.unwrap(), shown: Vec::new() }
    }

    /// Reads until all of this has been shown, in any order, since the last call.
    fn shows(&mut self, wanted: &[&str]) {
        loop {
            let text = String::from_utf8_lossy(&self.shown);
            if wanted.iter().all(|wanted| text.contains(wanted)) {
                return self.shown.clear();
            }
            let mut fds = [PollFd::new(&self.user, PollFlags::IN)];
            let patience = Timespec::try_from(PATIENCE).unwrap();
            assert_eq!(poll(&mut fds, Some(&patience)), Ok(1), "{wanted:?} in {text:?}");
            let mut buffer = [0; 4096];
            let length = rustix::io::read(&self.user, &mut buffer).unwrap();
            self.shown.extend_from_slice(&buffer[..length]);
        }
    }

    /// Whether the terminal collects lines, as it does for a shell.
    fn is_given_back(&self) -> bool {
        tcgetattr(&self.program).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    fn send(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // Also of signals that have no name.
        let sent = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until the process has stopped.
    fn stops(&self) {
        let pid = Pid::from_child(&self.child);
        let begin = moirai_runtime::instant();
        while waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG)
            .unwrap()
            .is_none()
        {
            assert!(moirai_runtime::since(begin) < PATIENCE, "it does not stop");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

const LEFT: &str = "\x1b[?1049l";
const ENTERED: &str = "\x1b[?1049h";
const CURSOR: &str = "\x1b[?25h";

#[test]
fn a_screen_gives_the_terminal_back_whatever_signal_ends_it() {
    let _turn = super::turn();
    let (mut host, mut command) = host_and(&["top", "--interval", "0.1"]);
    // signal(7), those of the action "Term" and "Core" but SIGKILL; real-time signals are all
    // alike.
    let named = [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31];
    for signal in named.into_iter().chain([34, 50, 64]) {
        let mut top = Screen::start(&mut command, 30, 120);
        top.shows(&[ENTERED, "leaves"]);
        assert!(!top.is_given_back());
        println!("signal {signal}");
        top.send(signal);
        assert_eq!(wait(&mut top.child).signal(), Some(signal));
        assert!(top.is_given_back(), "signal {signal}");
        top.shows(&[LEFT, CURSOR]);
    }
    assert_eq!(host.ends(true), 0);
}

#[test]
fn a_screen_that_is_stopped_gives_the_terminal_back_and_takes_it_again() {
    let _turn = super::turn();
    let (mut host, mut command) = host_and(&["top", "--interval", "3600"]);
    let mut top = Screen::start(&mut command, 30, 120);
    top.shows(&[ENTERED, "leaves"]);
    for by_key in [true, false, true] {
        if by_key {
            rustix::io::write(&top.user, b"\x1a").unwrap();
        } else {
            top.send(libc::SIGTSTP);
        }
        top.stops();
        assert!(top.is_given_back());
        top.shows(&[LEFT, CURSOR]);
        top.send(libc::SIGCONT);
        // All of it is drawn again, long before the next look.
        top.shows(&[ENTERED, "TENANT", "leaves"]);
        assert!(!top.is_given_back());
    }
    // Nobody gives it back before a SIGSTOP, but it is taken again after it.
    top.send(libc::SIGSTOP);
    top.stops();
    let stdin = Stdio::from(top.program.try_clone().unwrap());
    assert!(Command::new("stty").arg("sane").stdin(stdin).status().unwrap().success());
    assert!(top.is_given_back());
    top.send(libc::SIGCONT);
    top.shows(&[ENTERED, "leaves"]);
    assert!(!top.is_given_back());
    // One that is stopped can be ended, and leaves what is not its own any more.
    top.send(libc::SIGTSTP);
    top.stops();
    top.send(libc::SIGTERM);
    top.send(libc::SIGCONT);
    assert_eq!(wait(&mut top.child).signal(), Some(libc::SIGTERM));
    assert!(top.is_given_back());
    assert_eq!(host.ends(true), 0);
}

#[test]
fn a_screen_whose_terminal_takes_nothing_or_goes_away_ends_all_the_same() {
    let _turn = super::turn();
    let (mut host, mut command) = host_and(&["top", "--interval", "0.1"]);
    let mut top = Screen::start(&mut command, 30, 120);
    top.shows(&[ENTERED, "leaves"]);
    rustix::termios::tcflow(&top.program, rustix::termios::Action::OOff).unwrap();
    // Long enough for a picture that cannot be drawn.
    std::thread::sleep(std::time::Duration::from_millis(300));
    top.send(libc::SIGTERM);
    assert_eq!(wait(&mut top.child).signal(), Some(libc::SIGTERM));
    assert!(top.is_given_back());
    for interval in ["0.1", "3600"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moirai"));
        command.arg("--socket").arg(host.socket()).args(["top", "--interval", interval]);
        let mut top = Screen::start(&mut command, 30, 120);
        top.shows(&[ENTERED, "leaves"]);
        let Screen { user, mut child, .. } = top;
        drop(user);
        assert!(!wait(&mut child).success(), "{interval}");
    }
    assert_eq!(host.ends(true), 0);
}

#[test]
fn a_screen_ignores_a_signal_that_it_was_started_to_ignore() {
    let _turn = super::turn();
    let (mut host, _) = host_and(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" --socket \"$1\" top --interval 0.1"]);
    command.arg(env!("CARGO_BIN_EXE_moirai")).arg(host.socket());
    let mut top = Screen::start(&mut command, 30, 120);
    top.shows(&[ENTERED, "leaves"]);
    top.send(libc::SIGHUP);
    // It goes on drawing, and ends as it would without.
    rustix::io::write(&top.user, b"q").unwrap();
    assert_eq!(wait(&mut top.child).code(), Some(0));
    assert!(top.is_given_back());
    assert_eq!(host.ends(true), 0);
}

#[test]
fn a_screen_without_room_is_no_reason_to_break() {
    let _turn = super::turn();
    let (mut host, mut command) = host_and(&["top", "--interval", "0.1"]);
    for (rows, columns) in [(0, 0), (1, 1), (2, 3), (1, 500), (500, 1)] {
        let mut top = Screen::start(&mut command, rows, columns);
        top.shows(&[ENTERED]);
        std::thread::sleep(std::time::Duration::from_millis(300));
        rustix::io::write(&top.user, b"q").unwrap();
        let status = wait(&mut top.child);
        assert_eq!(status.code(), Some(0), "{rows} {columns}");
        assert!(top.is_given_back());
    }
    assert_eq!(host.ends(true), 0);
}
