//! A host service under test: a process of its own, started as anybody would start it, asked as
//! everybody else asks, and gone with the value.
//!
//! The demo, the end-to-end tests and the benchmarks drive theirs by this. It knows how such a
//! process begins and ends; what it is to serve is in the configuration that its owner writes.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use moirai_api::client::{Client, ClientError};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::de::{DeserializeOwned, IgnoredAny};

/// How long a host service may take to answer for the first time, and to end.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);
/// So many lines of its log say why it failed.
const LAST_LINES: usize = 12;

/// Why a host service is not there.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Its log cannot be written.
    #[error("{path}: {source}")]
    Log {
        /// Where it should be.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The program cannot be run.
    #[error("{program} cannot be run: {source}")]
    Program {
        /// Which.
        program: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It ended, or does not answer or end in time.
    #[error("the host service {what}:\n{said}")]
    Host {
        /// What it did.
        what: &'static str,
        /// The end of its log.
        said: String,
    },
    /// It did not answer a question.
    #[error(transparent)]
    Answer(#[from] ClientError),
}

/// A host service that is to be started.
#[derive(Debug)]
pub struct Start {
    binary: PathBuf,
    command: Command,
    socket: PathBuf,
    log: PathBuf,
    stderr: Option<Stdio>,
}

impl Start {
    /// `moirai host`, with this configuration. Its log goes to `host.log` beside the socket.
    #[must_use]
    pub fn new(binary: &Path, config: &Path, socket: &Path) -> Self {
        let mut command = Command::new(binary);
        command.arg("host").arg("--config").arg(config);
        let (binary, socket) = (binary.to_owned(), socket.to_owned());
        let log = socket.with_file_name("host.log");
        Self { binary, command, socket, log, stderr: None }
    }

    /// Further words for `moirai host`.
    #[must_use]
    pub fn words(mut self, words: &[&str]) -> Self {
        self.command.args(words);
        self
    }

    /// Another place for its log, which is emptied.
    #[must_use]
    pub fn log(mut self, path: PathBuf) -> Self {
        self.log = path;
        self
    }

    /// Its log goes there, and nobody reads the end of it when it fails.
    #[must_use]
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// Whoever is killed leaves no host service behind: it is told to end when the calling thread
    /// does, and cleans up.
    #[must_use]
    #[allow(unsafe_code, reason = "what runs between fork and exec is unsafe by nature")]
    pub fn ends_with_this_thread(mut self) -> Self {
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
        unsafe {
            self.command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        self
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// [`DriverError`]. What was started is ended.
    pub fn serve(self) -> Result<Driver, DriverError> {
        let mut driver = self.spawn()?;
        driver.wait_until_it_answers()?;
        Ok(driver)
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// If its log cannot be made or the program not be run.
    pub fn spawn(mut self) -> Result<Driver, DriverError> {
        let failed = |source| DriverError::Log { path: self.log.clone(), source };
        let stderr = match self.stderr.take() {
            Some(stderr) => stderr,
            None => File::create(&self.log).map_err(failed)?.into(),
        };
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let failed = |source| DriverError::Program { program: self.binary.clone(), source };
        let child = self.command.spawn().map_err(failed)?;
        let Self { binary, socket, log, .. } = self;
        Ok(Driver { child, binary, socket, log })
    }
}

/// A host service that was started; ends with the value.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    binary: PathBuf,
    socket: PathBuf,
    log: PathBuf,
}

impl Driver {
    /// Waits until it answers.
    ///
    /// # Errors
    /// [`DriverError::Host`]: it has ended, or does not answer within [`PATIENCE`].
    pub fn wait_until_it_answers(&mut self) -> Result<(), DriverError> {
        let begin = moirai_runtime::instant();
        while self.get::<IgnoredAny>("/v1/host").is_err() {
            if self.has_ended() {
                return Err(self.failed("ended before it answered"));
            }
            if moirai_runtime::since(begin) > PATIENCE {
                return Err(self.failed("does not answer"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it answers.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What is at a path of its API.
    ///
    /// # Errors
    /// [`DriverError::Answer`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, DriverError> {
        let unsent = |error: io::Error| ClientError::Unsent { why: error.to_string() };
        Ok(Client::new(&self.socket).map_err(unsent)?.get(path)?)
    }

    /// What `moirai WORDS` says, asked at its socket.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn ask(&self, words: &[&str]) -> Result<Output, DriverError> {
        let mut command = Command::new(&self.binary);
        command.arg("--socket").arg(&self.socket).args(words).stdin(Stdio::null());
        let failed = |source| DriverError::Program { program: self.binary.clone(), source };
        command.output().map_err(failed)
    }

    /// Everything that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end; it ends its tenants first.
    pub fn ask_to_end(&self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// [`DriverError::Host`]: it has not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, DriverError> {
        let begin = moirai_runtime::instant();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if moirai_runtime::since(begin) < limit => std::thread::sleep(LOOK),
                Ok(None) | Err(_) => return Err(self.failed("does not end")),
            }
        }
    }

    /// Ends it, and with it its tenants.
    ///
    /// # Errors
    /// [`DriverError::Host`]: it does not end within [`PATIENCE`], or not well.
    pub fn end(mut self) -> Result<(), DriverError> {
        self.ask_to_end();
        if self.wait(PATIENCE)?.success() { Ok(()) } else { Err(self.failed("did not end well")) }
    }

    /// Kills it without a chance to clean up.
    pub fn kill(mut self) {
        self.kill_now();
    }

    fn kill_now(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn failed(&self, what: &'static str) -> DriverError {
        DriverError::Host { what, said: self.last_words() }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        self.ask_to_end();
        if self.wait(PATIENCE).is_err() {
            self.kill_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a shell's line in place of a host service.
    fn of(folder: &Path, line: &str) -> Start {
        let (program, socket) = (folder.join("program"), folder.join("host.sock"));
        std::fs::write(&program, line).unwrap();
        let mut start = Start::new(Path::new("sh"), &folder.join("host.toml"), &socket);
        start.command = Command::new("sh");
        start.command.arg(program);
        start
    }

    #[test]
    fn one_that_ends_before_it_answers_is_told_with_the_end_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let start = of(folder.path(), "seq 100 >&2; echo no core for me >&2; exit 2");
        let said = start.serve().unwrap_err().to_string();
        assert!(said.contains("ended before it answered:\n90\n91\n"), "{said}");
        assert!(said.ends_with("100\nno core for me"), "{said}");
    }

    #[test]
    fn a_driver_takes_its_process_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut driver = of(folder.path(), "exec sleep 600").spawn().unwrap();
        let pid = driver.pid();
        assert!(!driver.has_ended());
        drop(driver);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn how_it_ends_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let line = "trap 'echo bye >&2; exit 3' TERM; echo ready >&2; while :; do sleep 0.01; done";
        let driver = of(folder.path(), line).spawn().unwrap();
        while driver.log().is_empty() {
            std::thread::sleep(LOOK);
        }
        let said = driver.end().unwrap_err().to_string();
        assert!(said.contains("did not end well:\nready\nbye"), "{said}");
    }
}
