//! Gives the terminal back when a signal ends the command, whichever that is, and while one has
//! stopped it.
//!
//! The handlers catch all signals that end a process by default, those of a fault or an abort, too;
//! only SIGKILL nobody can catch. So they make only calls that are safe in a handler
//! (signal-safety(7)), with what [`watch`] has laid ready. The command ends by the signal itself,
//! so that whoever waits for it sees it.
//!
//! State: [`TERMINAL`], set once before the first handler is, and whether it is [`HELD`].
#![allow(unsafe_code, reason = "signal handlers have no safe interface")]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::c_int;

/// Signals that do not end a process by default, and the one that Rust ignores for us: a reader
/// that has gone away is noticed by whoever writes, so a SIGPIPE that somebody sends is no reason
/// to end.
const OTHERS: [c_int; 9] = [
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGURG,
    libc::SIGWINCH,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGSTOP,
    libc::SIGPIPE,
];

/// How long a terminal may take until it takes something, in milliseconds.
const WRITE_PATIENCE_MS: c_int = 200;

/// The terminal and how it is given back and taken again.
struct Terminal {
    fd: c_int,
    /// Its modes for others and for the command.
    theirs: libc::termios,
    ours: libc::termios,
    /// What is written to standard output then.
    leave: &'static [u8],
    enter: &'static [u8],
}

static TERMINAL: OnceLock<Terminal> = OnceLock::new();
/// Whether the command has the terminal in its own mode: not while it is stopped, nor at its end.
static HELD: AtomicBool = AtomicBool::new(false);

/// From now on every signal gives the terminal back. To be called before its modes are changed,
/// once; `leave` and `enter` are written to standard output when it is given back and taken again,
/// and the screen is told by SIGWINCH to be drawn anew.
///
/// # Errors
/// There is no terminal.
pub(super) fn watch(leave: &'static [u8], enter: &'static [u8]) -> io::Result<()> {
    let fd = if rustix::termios::isatty(io::stdin()) {
        io::stdin().as_raw_fd()
    } else {
        // Kept open for as long as the process lives.
        File::options().read(true).write(true).open("/dev/tty")?.into_raw_fd()
    };
    // SAFETY: a termios is plain numbers, for which zeros are valid.
    let mut theirs: libc::termios = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a termios that outlives the call.
    if unsafe { libc::tcgetattr(fd, &raw mut theirs) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut ours = theirs;
    // SAFETY: the pointer is to an initialised termios.
    unsafe { libc::cfmakeraw(&raw mut ours) };
    let _ = TERMINAL.set(Terminal { fd, theirs, ours, leave, enter });
    HELD.store(true, Ordering::SeqCst);
    for signal in 1..=libc::SIGRTMAX() {
        if !OTHERS.contains(&signal) {
            catch(signal, end);
        }
    }
    catch(libc::SIGTSTP, stop);
    catch(libc::SIGCONT, go_on);
    Ok(())
}

/// The terminal is given back by whoever calls this: signals leave it alone from now on.
pub(super) fn forget() {
    HELD.store(false, Ordering::SeqCst);
}

/// Stops the command and whatever was started with it, as Ctrl-Z does on a terminal that is not
/// ours.
pub(super) fn suspend() {
    // SAFETY: it takes numbers only.
    unsafe { libc::kill(0, libc::SIGTSTP) };
}

/// Installs a handler, but where the signal is ignored (`nohup`) or cannot be caught.
fn catch(signal: c_int, handler: extern "C" fn(c_int)) {
    // SAFETY: a sigaction is plain numbers and an optional pointer, for which zeros are valid.
    let mut old: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: a null pointer asks only; the other is to a sigaction that outlives the call.
    let known = unsafe { libc::sigaction(signal, ptr::null(), &raw mut old) } == 0;
    if known && (old.sa_sigaction != libc::SIG_IGN || signal == libc::SIGCONT) {
        set(signal, handler as libc::sighandler_t);
    }
}

/// Sets what a signal does. Safe within handlers.
///
/// An end runs on the other stack, because the first one may be what is at its end, and nothing
/// interrupts it: that stack has room for two frames of a kernel with wide registers, not for
/// three. A stop is interrupted by everything, so that it puts no end off, and stays on the first.
fn set(signal: c_int, action: libc::sighandler_t) {
    // SAFETY: as in `catch`; zeros are an empty mask as well.
    let mut new: libc::sigaction = unsafe { mem::zeroed() };
    new.sa_sigaction = action;
    new.sa_flags = libc::SA_RESTART;
    if action == end as extern "C" fn(c_int) as libc::sighandler_t {
        new.sa_flags |= libc::SA_ONSTACK;
        // SAFETY: the pointer is to a set that outlives the call.
        unsafe { libc::sigfillset(&raw mut new.sa_mask) };
    }
    // SAFETY: the handlers of this file make only calls that are safe in handlers.
    unsafe { libc::sigaction(signal, &raw const new, ptr::null_mut()) };
}

/// Gives the terminal back and lets the signal do what it does by default.
extern "C" fn end(signal: c_int) {
    give_back();
    set(signal, libc::SIG_DFL);
    // SAFETY: it takes a number only. The signal is delivered when the handler returns.
    unsafe { libc::raise(signal) };
}

/// Gives the terminal back, stops, and takes it again when somebody says so.
extern "C" fn stop(signal: c_int) {
    let errno = errno();
    give_back();
    set(signal, libc::SIG_DFL);
    // SAFETY: the set is initialised before it is used, and all of it outlives the calls. The
    // process stops in the last of them, unless nobody could continue it: then it goes on at once.
    unsafe {
        libc::raise(signal);
        let mut this: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut this);
        libc::sigaddset(&raw mut this, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const this, ptr::null_mut());
    }
    set(signal, stop as extern "C" fn(c_int) as libc::sighandler_t);
    take_again();
    set_errno(errno);
}

/// After a SIGSTOP, which cannot be caught, the shell has changed the terminal under us.
extern "C" fn go_on(_: c_int) {
    let errno = errno();
    if HELD.load(Ordering::SeqCst) {
        take_again();
    }
    set_errno(errno);
}

fn give_back() {
    let Some(terminal) = TERMINAL.get() else { return };
    if HELD.swap(false, Ordering::SeqCst) && is_in_front(terminal) {
        write(terminal.leave);
        set_modes(terminal, &terminal.theirs);
    }
}

/// In the background this stops the process, until it is in the foreground.
fn take_again() {
    let Some(terminal) = TERMINAL.get() else { return };
    // First, so that an end that comes in between gives back what was taken by then.
    HELD.store(true, Ordering::SeqCst);
    set_modes(terminal, &terminal.ours);
    write(terminal.enter);
    // SAFETY: it takes a number only.
    unsafe { libc::raise(libc::SIGWINCH) };
}

/// Whether the terminal is not somebody else's now; true as well of one that is in no session of
/// ours.
fn is_in_front(terminal: &Terminal) -> bool {
    // SAFETY: they take numbers only.
    let (front, ours) = unsafe { (libc::tcgetpgrp(terminal.fd), libc::getpgrp()) };
    front < 0 || front == ours
}

fn set_modes(terminal: &Terminal, modes: &libc::termios) {
    // SAFETY: the pointer is to an initialised termios. A terminal that is gone needs no modes.
    while unsafe { libc::tcsetattr(terminal.fd, libc::TCSANOW, modes) } != 0
        && errno() == libc::EINTR
    {}
}

/// Not to a terminal that takes nothing (Ctrl-S, a line that is stuck): the end would wait for it.
fn write(bytes: &[u8]) {
    let mut output = libc::pollfd { fd: libc::STDOUT_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: the pointer is to one pollfd that outlives the call.
    if unsafe { libc::poll(&raw mut output, 1, WRITE_PATIENCE_MS) } != 1 {
        return;
    }
    // SAFETY: the bytes outlive the call. Where nobody reads them, nothing is to be shown.
    unsafe { libc::write(libc::STDOUT_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}

fn errno() -> c_int {
    // SAFETY: the pointer is to this thread's errno.
    unsafe { *libc::__errno_location() }
}

/// What was interrupted must not see another errno.
fn set_errno(value: c_int) {
    // SAFETY: the pointer is to this thread's errno.
    unsafe { *libc::__errno_location() = value };
}
