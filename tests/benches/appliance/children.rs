//! Programs that the benchmarks start: each has a time limit and dies with its value.

use std::process::{Child, Command, ExitStatus, Output};
use std::time::{Duration, Instant};

/// A program; killed when dropped.
#[derive(Debug)]
pub(crate) struct Program(pub(crate) Child);

impl Program {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.spawn();
        Self(child.unwrap_or_else(|e| panic!("cannot run {:?}: {e}", command.get_program())))
    }

    /// Waits until it has ended by itself; `None`: it did not within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if let Ok(Some(status)) = self.0.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end; it is killed after `limit`.
pub(crate) fn run(limit: Duration, program: &str, words: &[&str]) -> Output {
    let limit = format!("{}", limit.as_secs());
    let output = Command::new("timeout").args(["-s", "KILL", &limit, program]).args(words).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
    let said = moirai_tests::said(&output);
    assert!(output.status.success(), "{program} {}: {}\n{said}", words.join(" "), output.status);
    output
}
