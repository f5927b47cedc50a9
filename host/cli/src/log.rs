//! The log of the host service on standard error, which nobody may be reading.
//!
//! A pipe whose reader stands still takes 64 KiB and then blocks whoever writes: a supervisor, the
//! API, at last everything. So whoever logs hands a line over without waiting, and one thread waits
//! for the reader in the place of all. It loses the lines that it cannot hand on, and says so when
//! it can.
//!
//! Where standard error leads to the journal each line begins with its level, as sd-daemon(3) has
//! it, and without a time, which the journal notes itself.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use moirai_confine::Role;
use tracing::{Level, Metadata};
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
    /// Lines begin with their level.
    levels: bool,
}

impl Log {
    /// The same log, whose lines begin with their level.
    pub(super) fn with_levels(self) -> Self {
        Self { levels: true, ..self }
    }

    /// Starts the thread that writes to `output`.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub(super) fn to(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, received) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&lost);
        let write = move || {
            Role::Log.enter_or_say();
            write_all(output, &received, &seen);
        };
        thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok(Self { lines, lost, levels: false })
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
pub(super) struct Line<'a> {
    log: &'a Log,
    prefix: &'static str,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = [self.prefix.as_bytes(), bytes].concat();
        if self.log.lines.try_send(Message::Line(line)).is_err() {
            self.log.lost.fetch_add(1, Ordering::Relaxed);
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
        Line { log: self, prefix: "" }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line { log: self, prefix: if self.levels { level(*meta.level()) } else { "" } }
    }
}

/// How syslog(3) counts levels, and the journal after it.
fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Whether standard error leads to the journal: systemd names device and inode of that stream.
pub(super) fn leads_to_journal() -> bool {
    let Some(named) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    named == format!("{}:{}", stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn lines_for_the_journal_begin_with_their_level() {
        use tracing_subscriber::fmt;
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let log = Log::to(writer).expect("a thread").with_levels();
        let subscriber = fmt().with_writer(log.clone()).without_time().with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("one");
            tracing::warn!("two");
        });
        log.flush();
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        let begins: Vec<_> = text.lines().map(|line| &line[..3]).collect();
        assert_eq!(begins, ["<6>", "<4>"], "{text}");
    }

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
