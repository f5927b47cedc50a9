//! Commands that end with whoever started them, however that ends.
//!
//! A [`Group`] is a process group whose leader is a guard: a shell that reads from a pipe of ours.
//! When we end, by whatever signal, the kernel closes the pipe and the guard kills its group. The
//! guard starts first, so no command runs without it. Nobody waits for the guard before the end, so
//! nobody else can get the group's number.
//!
//! The group is not the terminal's, so nobody in it may read from the terminal; what a command is
//! to read from our standard input is copied to it.

use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Between the request to end and the end by force.
const GRACE: Duration = Duration::from_secs(10);
/// Between two looks whether a command has ended.
const LOOK: Duration = Duration::from_millis(20);

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, or by a signal of somebody else's.
    Exited(ExitStatus),
    /// It was ended by whoever watched it, at its time limit for instance.
    Stopped,
}

impl Ending {
    /// Whether it did what it was asked to do.
    #[must_use]
    pub fn success(self) -> bool {
        matches!(self, Self::Exited(status) if status.success())
    }
}

/// A process group that ends when this value is dropped, or its owner dies.
#[derive(Debug)]
pub struct Group {
    guard: Child,
    /// Held open; the guard waits for its end.
    _life: ChildStdin,
    group: Pid,
}

impl Group {
    /// A group with its guard and nobody else. `last_words` is a shell command that the guard runs
    /// if we die, before it kills the group; `:` does nothing.
    ///
    /// # Errors
    /// If the guard cannot be started.
    pub fn new(last_words: &str) -> io::Result<Self> {
        // The guard survives a polite signal to the group.
        let script = format!("trap '' TERM INT HUP; read -r _; {last_words}; kill -KILL 0");
        let mut guard = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        let life = guard.stdin.take().ok_or_else(|| io::Error::other("the guard has no pipe"))?;
        let number = i32::try_from(guard.id()).map_err(io::Error::other)?;
        let group = Pid::from_raw(number).ok_or_else(|| io::Error::other("no process"))?;
        Ok(Self { guard, _life: life, group })
    }

    /// Starts a command in the group.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, command: &mut Command) -> io::Result<Child> {
        command.process_group(self.group.as_raw_nonzero().get()).spawn().map_err(|error| {
            let program = command.get_program().display();
            io::Error::new(error.kind(), format!("cannot start {program}: {error}"))
        })
    }

    /// Asks everybody in the group to end, and ends who has not done so 10 s later.
    pub fn stop(&self, child: &mut Child) {
        let _ = kill_process_group(self.group, Signal::TERM);
        if !matches!(wait_until(child, Instant::now() + GRACE), Ok(None)) {
            return;
        }
        self.kill();
        let _ = child.wait();
    }

    /// Ends everybody in the group, the guard too.
    pub fn kill(&self) {
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        let _ = self.guard.wait();
    }
}

/// Waits for a command until `end`: none if it still runs by then.
///
/// # Errors
/// If it cannot be waited for.
pub fn wait_until(child: &mut Child, end: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() >= end {
            return Ok(ended);
        }
        std::thread::sleep(LOOK);
    }
}

/// Runs a command to its end, or until `stop` says so, which gets the time since its start every 20
/// ms.
///
/// `output` gets the read end of a pipe with all that it writes to its standard output, in a thread
/// of its own, and returns when there is no more. If its standard input is a pipe, it gets ours.
/// `last_words`: see [`Group::new`].
///
/// # Errors
/// If the command cannot be run.
pub fn watch<T: Send>(
    command: &mut Command,
    last_words: &str,
    stop: impl FnMut(Duration) -> bool,
    output: impl FnOnce(PipeReader) -> T + Send,
) -> io::Result<(Ending, T)> {
    piped(command, false, last_words, stop, output)
}

fn piped<T: Send>(
    command: &mut Command,
    errors_too: bool,
    last_words: &str,
    mut stop: impl FnMut(Duration) -> bool,
    output: impl FnOnce(PipeReader) -> T + Send,
) -> io::Result<(Ending, T)> {
    let group = Group::new(last_words)?;
    let (reader, writer) = io::pipe()?;
    if errors_too {
        command.stderr(writer.try_clone()?);
    }
    let mut child = group.start(command.stdout(writer))?;
    // Our own ends of the pipe: while one is open, the output has no end.
    command.stdout(Stdio::null());
    if errors_too {
        command.stderr(Stdio::null());
    }
    if let Some(mut input) = child.stdin.take() {
        // Ends with us: nothing interrupts a read from a terminal.
        std::thread::spawn(move || io::copy(&mut io::stdin(), &mut input));
    }
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || output(reader));
        let begin = Instant::now();
        let ending = loop {
            match wait_until(&mut child, Instant::now() + LOOK) {
                Ok(Some(status)) => break Ok(Ending::Exited(status)),
                Ok(None) if stop(begin.elapsed()) => {
                    group.stop(&mut child);
                    break Ok(Ending::Stopped);
                }
                Ok(None) => {}
                Err(error) => break Err(error),
            }
        };
        drop(group); // who is left of the group may hold the pipe
        let said = reading.join().map_err(|_| io::Error::other("the reader has failed"))?;
        Ok((ending?, said))
    })
}

/// Runs a command to its end or its time limit; `output` gets what it writes to both of its
/// outputs.
///
/// # Errors
/// If the command cannot be run.
pub fn run<T: Send>(
    command: &mut Command,
    limit: Duration,
    output: impl FnOnce(PipeReader) -> T + Send,
) -> io::Result<(Ending, T)> {
    piped(command, true, ":", |elapsed| elapsed >= limit, output)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::{lives, wait_for};

    fn all(mut pipe: PipeReader) -> String {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    #[test]
    fn a_command_that_ends_by_itself_gives_its_status_and_both_of_its_outputs_in_order() {
        let limit = Duration::from_secs(20);
        let (ending, said) =
            run(&mut shell("echo a; echo b >&2; echo c; exit 3"), limit, all).unwrap();
        assert_eq!(said, "a\nb\nc\n");
        assert!(matches!(ending, Ending::Exited(status) if status.code() == Some(3)));
    }

    #[test]
    fn a_command_at_its_time_limit_ends_with_all_that_it_has_started() {
        let begin = Instant::now();
        let script = "sleep 600 & echo $!; sleep 600";
        let (ending, said) = run(&mut shell(script), Duration::from_millis(300), all).unwrap();
        assert_eq!(ending, Ending::Stopped);
        let child = said.trim().parse().unwrap();
        wait_for("what it has started is gone", || !lives(child));
        assert!(begin.elapsed() < GRACE, "{:?}", begin.elapsed());
    }

    #[test]
    fn what_a_command_leaves_behind_is_ended_and_its_output_not_waited_for() {
        let begin = Instant::now();
        let script = "sleep 600 & echo $!";
        let (ending, said) = run(&mut shell(script), Duration::from_secs(60), all).unwrap();
        assert!(ending.success());
        let child = said.trim().parse().unwrap();
        wait_for("what it has left is gone", || !lives(child));
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    }

    #[test]
    fn a_command_that_does_not_exist_is_named() {
        let group = Group::new(":").unwrap();
        let error = group.start(&mut Command::new("no-such-program")).unwrap_err();
        assert!(error.to_string().starts_with("cannot start no-such-program: "), "{error}");
    }
}
