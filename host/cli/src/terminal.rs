//! How a command ends whose terminal or reader is not there any more, or that is told to end.
//!
//! A terminal that was put into another mode is given back whatever ends the command: its return, a
//! panic, a signal. A reader that has gone away (`moirai top --json | head -1`) ends the command
//! with the status that SIGPIPE gives to other programs.

use std::io;
use std::panic;
use std::process::exit;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::{Status, signals};

/// How long a signal may take that comes with the end of a terminal.
const SIGNAL_PATIENCE: Duration = Duration::from_millis(100);

/// Has `give_back` called before a panic is reported, and the terminal given back by signals: see
/// [`signals`]. The return of the command is its caller's job. To be called before the terminal is
/// changed, once.
///
/// # Errors
/// There is no terminal.
pub(super) fn give_back_at_the_end(
    give_back: fn(),
    leave: &'static [u8],
    enter: &'static [u8],
) -> io::Result<()> {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        give_back();
        report(panic);
    }));
    signals::watch(leave, enter)
}

/// Ends the command when the terminal that it is typed on goes away. The kernel says so by a signal
/// only to whom it is the controlling terminal.
///
/// # Errors
/// The kernel refuses a thread.
pub(super) fn end_with_the_terminal() -> io::Result<()> {
    let wait = || {
        let input = io::stdin();
        let mut fds = [PollFd::new(&input, PollFlags::empty())];
        while poll(&mut fds, None).is_err() {}
        // The signal tells more, if there is one.
        thread::sleep(SIGNAL_PATIENCE);
        exit(Status::NoReader as i32);
    };
    if rustix::termios::isatty(io::stdin()) {
        thread::Builder::new().name("terminal".to_owned()).spawn(wait)?;
    }
    Ok(())
}

/// Ends the command when the reader of its standard output goes away, also while there is nothing
/// to write. For commands that go on without end.
///
/// # Errors
/// The kernel refuses a thread.
pub(super) fn end_with_the_reader() -> io::Result<()> {
    let wait = || {
        let output = io::stdout();
        // Nothing is asked for: only errors and the end wake us, which files and terminals never
        // have.
        let mut fds = [PollFd::new(&output, PollFlags::empty())];
        while poll(&mut fds, None).is_err() {}
        if !rustix::termios::isatty(&output) {
            exit(Status::NoReader as i32);
        }
    };
    thread::Builder::new().name("reader".to_owned()).spawn(wait)?;
    Ok(())
}
