//! A tenant's console: the last output in memory, whole lines to the host's log, and a way to wait
//! for more.
//!
//! Owned by the tenant's entry; the supervisor writes, any number of readers follow. What a guest
//! prints is hostile: memory is bounded, lines are cut and cleaned before they reach the log, and a
//! guest that floods its console costs the log no more than [`LINES_PER_SECOND`].

use std::collections::VecDeque;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How much output is kept.
const KEPT_BYTES: usize = 256 << 10;
/// How much of a line reaches the log.
const LINE_BYTES: usize = 1024;
/// How many lines of one tenant reach the log in a second.
const LINES_PER_SECOND: u32 = 200;
/// How far back the last word of a guest is looked for, and how much of it is told.
const LAST_BYTES: usize = 8 << 10;
const WORD_LETTERS: usize = 300;

/// A console.
#[derive(Debug)]
pub struct Console {
    tenant: String,
    state: Mutex<State>,
    /// Bytes written so far.
    end: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    kept: VecDeque<u8>,
    line: Vec<u8>,
    second: Instant,
    lines: u32,
    closed: bool,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where the next piece begins.
    pub next: u64,
    /// Nothing will follow.
    pub closed: bool,
}

impl Console {
    /// An empty console.
    #[must_use]
    pub fn new(tenant: &str) -> Self {
        let state = State {
            kept: VecDeque::new(),
            line: Vec::new(),
            second: moirai_runtime::instant(),
            lines: 0,
            closed: false,
        };
        Self { tenant: tenant.to_owned(), state: Mutex::new(state), end: watch::Sender::new(0) }
    }

    /// Takes output of the guest.
    pub fn write(&self, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.kept.extend(bytes);
        let excess = state.kept.len().saturating_sub(KEPT_BYTES);
        state.kept.drain(..excess);
        for byte in bytes {
            if *byte == b'\n' {
                state.log(&self.tenant);
            } else if state.line.len() < LINE_BYTES {
                state.line.push(*byte);
            }
        }
        // Under the lock of `state`: a reader counts back from the end to what it has not seen.
        self.end.send_modify(|end| *end += bytes.len() as u64);
    }

    /// Takes what was said on a stream that does not block; false if nothing more will be.
    pub(super) fn hear(&self, stream: &mut UnixStream) -> bool {
        let mut buffer = [0u8; 4096];
        // One turn takes a bounded amount: a guest that floods its console delays only itself.
        for _ in 0..16 {
            match stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => self.write(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// Says that nothing will follow.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.line.is_empty() {
            state.log(&self.tenant);
        }
        state.closed = true;
        drop(state);
        self.end.send_modify(|_| ());
    }

    /// What was written from byte `from` of all output on; begins later if that is gone.
    #[must_use]
    pub fn read(&self, from: u64) -> Piece {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Read and written under the lock of `state`: it is the end of what is kept.
        let next = *self.end.borrow();
        let wanted = next.saturating_sub(from);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let skipped = state.kept.len().saturating_sub(wanted);
        let bytes = state.kept.iter().skip(skipped).copied().collect();
        Piece { bytes, next, closed: state.closed }
    }

    /// The last error that a guest of the library OS reported, or else its last line; cut and
    /// cleaned.
    #[must_use]
    pub fn last_word(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = state.kept.len().saturating_sub(LAST_BYTES);
        let bytes: Vec<u8> = state.kept.iter().skip(skipped).copied().collect();
        drop(state);
        let text = String::from_utf8_lossy(&bytes);
        let lines = || text.lines().rev().filter(|line| !line.trim().is_empty());
        let error = lines().find(|line| line.contains("\"event\":\"error\""));
        let line = error.or_else(|| lines().next())?;
        Some(line.chars().filter(|c| !c.is_control()).take(WORD_LETTERS).collect())
    }

    /// Changes whenever there is more to read.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }
}

impl State {
    /// Gives the current line to the log.
    fn log(&mut self, tenant: &str) {
        if moirai_runtime::since(self.second) >= Duration::from_secs(1) {
            let dropped = self.lines.saturating_sub(LINES_PER_SECOND);
            if dropped > 0 {
                tracing::warn!(tenant, dropped, "console lines did not reach the log");
            }
            (self.second, self.lines) = (moirai_runtime::instant(), 0);
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines <= LINES_PER_SECOND {
            let text = String::from_utf8_lossy(&self.line);
            let text: String = text.trim_end().chars().filter(|c| !c.is_control()).collect();
            tracing::info!(target: "console", tenant, "{text}");
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_everything_once() {
        let console = Console::new("a");
        console.write(b"one\ntw");
        let first = console.read(0);
        assert_eq!(first.bytes, b"one\ntw");
        console.write(b"o\n");
        let second = console.read(first.next);
        assert_eq!((second.bytes.as_slice(), second.closed), (b"o\n".as_slice(), false));
        console.close();
        assert_eq!(console.read(second.next), Piece { bytes: vec![], next: 8, closed: true });
    }

    #[test]
    fn a_reader_beside_a_writer_gets_every_byte_in_order() {
        let console = Console::new("a");
        let text: Vec<u8> = (0..200_000u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
        let read = std::thread::scope(|scope| {
            scope.spawn(|| {
                for byte in &text {
                    console.write(std::slice::from_ref(byte));
                }
                console.close();
            });
            let (mut read, mut from) = (Vec::new(), 0);
            loop {
                let piece = console.read(from);
                read.extend(piece.bytes);
                from = piece.next;
                if piece.closed {
                    return read;
                }
            }
        });
        assert!(read == text, "{} of {} bytes", read.len(), text.len());
    }

    #[test]
    fn a_flood_is_cut_to_the_latest_output() {
        let console = Console::new("a");
        for _ in 0..3 {
            console.write(&vec![b'x'; KEPT_BYTES / 2]);
        }
        console.write(b"end");
        let piece = console.read(0);
        assert_eq!(piece.bytes.len(), KEPT_BYTES);
        assert!(piece.bytes.ends_with(b"xend"));
    }

    #[test]
    fn a_reader_ahead_of_the_end_gets_nothing() {
        let console = Console::new("a");
        console.write(b"abc");
        assert!(console.read(100).bytes.is_empty());
    }

    #[test]
    fn the_last_word_is_the_last_error_or_else_the_last_line() {
        let console = Console::new("a");
        assert_eq!(console.last_word(), None);
        console.write(b"{\"event\":\"error\",\"message\":\"no\x07\"}\nbye\n\n");
        let error = "{\"event\":\"error\",\"message\":\"no\"}";
        assert_eq!(console.last_word().as_deref(), Some(error));
        let linux = Console::new("b");
        linux.write(format!("one\r\n{}", "x".repeat(1000)).as_bytes());
        assert_eq!(linux.last_word().map(|line| line.len()), Some(WORD_LETTERS));
    }
}
