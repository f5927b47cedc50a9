//! The log of the host service on standard error, which nobody may be reading.
//!
//! A pipe whose reader stands still takes 64 KiB and then blocks whoever writes: a supervisor, the
//! API, at last everything. So whoever logs hands a line over without waiting, and one thread waits
//! for the reader in the place of all. It loses the lines that it cannot hand on, and says so when
//! it can.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written; more are lost.
const WAITING: usize = 4096;
/// How long the end of the host service waits for its last lines to be written.
const PATIENCE: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Answered when all before it are written.
    Flush(SyncSender<()>),
}

/// Where lines are handed over.
#[derive(Clone)]
pub(super) struct Log {
    lines: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Starts the thread that writes to `output`.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub(super) fn to(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, received) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&lost);
        let write = move || write_all(output, &received, &seen);
        thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok(Self { lines, lost })
    }

    /// Waits until what was handed over is written, but not long.
    pub(super) fn flush(&self) {
        let (written, wait) = sync_channel(1);
        if self.lines.try_send(Message::Flush(written)).is_ok() {
            // Whoever reads nothing gets nothing.
            let _ = wait.recv_timeout(PATIENCE);
        }
    }
}

fn write_all(mut output: impl Write, lines: &Receiver<Message>, lost: &AtomicU64) {
    for message in lines {
        // What nobody reads any more is written for nobody: the host service goes on.
        let _ = match message {
            Message::Line(line) => output.write_all(&line),
            Message::Flush(written) => written.send(()).map_err(io::Error::other),
        };
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            let _ = writeln!(output, "{count} lines of the log are lost: nobody read them in time");
        }
    }
}

/// One line; whole in a single call, as `tracing` writes it.
pub(super) struct Line<'a>(&'a Log);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.lines.try_send(Message::Line(bytes.to_vec())).is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_log_that_nobody_reads_holds_up_nobody_and_says_later_what_is_lost() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let log = Log::to(writer).expect("a thread");
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        let handed = 3 * WAITING;
        for _ in 0..handed {
            log.make_writer().write_all(&line).expect("never an error");
        }
        log.flush();
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        // Until it has been seen that somebody reads again.
        while log.lines.try_send(Message::Line(b"last\n".to_vec())).is_err() {
            thread::yield_now();
        }
        log.flush();
        drop(log);
        let text = reading.join().expect("read").expect("text");
        let written = text.lines().filter(|line| line.starts_with('x')).count();
        let lost = text.lines().find_map(|line| {
            line.strip_suffix(" lines of the log are lost: nobody read them in time")
        });
        let lost: usize = lost.and_then(|count| count.parse().ok()).expect("said");
        assert_eq!(written + lost, handed);
        assert!(written > 512 && lost > WAITING, "{written} {lost}");
        assert!(text.ends_with("last\n") || text.contains("last\n"), "{text}");
    }
}
