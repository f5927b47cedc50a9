//! The keeper of a writer: starts it, starts it again when it has ended, and adds up what it says.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a writer may take to read everything back, whatever has been done to it.
const PATIENCE: Duration = Duration::from_secs(90);

/// What writers have found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Blocks that were read back and were as they may be.
    pub(super) verified: u64,
    /// Blocks that were not.
    pub(super) lost: u64,
    /// Writes that were acknowledged, and requests that were answered with an error.
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    /// What was lost, in words.
    pub(super) what: Vec<String>,
}

/// A writer and what is known of it.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) name: &'static str,
    socket: PathBuf,
    ledger: PathBuf,
    seed: u64,
    running: Option<Running>,
    found: Found,
}

#[derive(Debug)]
struct Running {
    child: Child,
    orders: ChildStdin,
    lines: Receiver<Value>,
}

impl Keeper {
    /// A writer at this socket, with its ledger at that place.
    pub(super) fn new(name: &'static str, socket: PathBuf, ledger: PathBuf, seed: u64) -> Self {
        Self { name, socket, ledger, seed, running: None, found: Found::default() }
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// What was found since the last call.
    pub(super) fn take(&mut self) -> Found {
        std::mem::take(&mut self.found)
    }

    fn start(&mut self) -> io::Result<()> {
        self.seed += 1;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("writer")
            .args([&self.socket, &self.ledger])
            .arg(self.seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("no pipe to the writer");
        let orders = child.stdin.take().ok_or_else(missing)?;
        let output = child.stdout.take().ok_or_else(missing)?;
        let (line, lines) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(output).lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&text) else { continue };
                if line.send(value).is_err() {
                    return;
                }
            }
        });
        self.running = Some(Running { child, orders, lines });
        Ok(())
    }

    /// Has everything read back, by a new process if the old one has ended.
    ///
    /// # Errors
    /// No writer gets that done in time, or one was forgotten by the service.
    pub(super) fn verify(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            self.tell().map_err(|error| format!("{}: {error}", self.name))?;
            if self.listen(begin)? {
                return Ok(());
            }
            self.end();
        }
        Err(format!("the writer of {} did not come to an end of reading back", self.name))
    }

    /// Tells the writer to read back; one that begins does so by itself.
    fn tell(&mut self) -> io::Result<()> {
        let told = self.running.as_mut().is_some_and(|running| {
            while let Ok(line) = running.lines.try_recv() {
                self.found.add(&line);
            }
            running.child.try_wait().is_ok_and(|ended| ended.is_none())
                && running.orders.write_all(b"verify\n").is_ok()
        });
        if told {
            return Ok(());
        }
        self.end();
        self.start()
    }

    /// Whether the writer has read everything back; it has not if it has ended.
    fn listen(&mut self, begin: Instant) -> Result<bool, String> {
        loop {
            let Some(running) = &mut self.running else { return Ok(false) };
            let left = PATIENCE.saturating_sub(begin.elapsed());
            match running.lines.recv_timeout(left) {
                Ok(line) if line["verified"].is_u64() => {
                    self.found.add(&line);
                    return Ok(true);
                }
                Ok(line) => return Err(format!("{}: {line}", self.name)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Ok(false);
                }
            }
        }
    }

    /// Ends the writer.
    pub(super) fn end(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
            while let Ok(line) = running.lines.try_recv() {
                self.found.add(&line);
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}

impl Found {
    fn add(&mut self, line: &Value) {
        let number = |key: &str| line[key].as_u64().unwrap_or(0);
        self.verified += number("verified") - number("lost").min(number("verified"));
        self.lost += number("lost");
        self.acknowledged += number("acknowledged");
        self.refused += number("refused");
        self.what.extend(line["what"].as_str().map(str::to_owned));
    }

    /// Both together.
    pub(super) fn join(&mut self, other: Self) {
        self.verified += other.verified;
        self.lost += other.lost;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.what.extend(other.what);
    }
}
