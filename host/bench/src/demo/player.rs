//! The receiver that is not ours: ffmpeg, which decodes the film and complains if something is
//! missing.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use moirai_runtime::netns::in_netns;

use super::DemoError;
use super::namespace::spawn_within;

/// How long ffmpeg may take to start.
const PATIENCE: Duration = Duration::from_secs(15);

/// What ffmpeg made of the film.
#[derive(Clone, Debug, Default)]
pub(super) struct Played {
    /// Frames of video that were decoded.
    pub(super) frames: u64,
    /// Errors of the decoder and discontinuities of the stream.
    pub(super) errors: u64,
    /// The first of the complaints, word by word.
    pub(super) complaints: Vec<String>,
}

/// A running ffmpeg.
#[derive(Debug)]
pub(super) struct Player {
    child: Child,
    frames: Arc<AtomicU64>,
    progress: Option<JoinHandle<()>>,
    complaints: Option<JoinHandle<Vec<String>>>,
}

impl Player {
    /// Starts to play what comes in at `address` inside the namespace.
    pub(super) fn start(namespace: &str, address: SocketAddr) -> Result<Self, DemoError> {
        let input = format!("rtp://{address}?buffer_size=4194304");
        let mut command = Command::new("ffmpeg");
        command
            .args(["-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+warning"])
            .args(["-threads", "1", "-i", &input, "-f", "null", "-progress", "pipe:1", "-"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn_within(namespace, &mut command)?;
        let frames = Arc::new(AtomicU64::new(0));
        let progress = child.stdout.take().map(|out| {
            let frames = Arc::clone(&frames);
            std::thread::spawn(move || follow(out, &frames))
        });
        let complaints = child.stderr.take().map(|err| std::thread::spawn(move || collect(err)));
        let player = Self { child, frames, progress, complaints };
        player.wait_until_it_listens(namespace, address)
    }

    /// ffmpeg takes its time to start; who joins late misses the first picture that others refer
    /// to.
    fn wait_until_it_listens(
        self,
        namespace: &str,
        address: SocketAddr,
    ) -> Result<Self, DemoError> {
        let begin = moirai_runtime::instant();
        let port = format!(":{:04X} ", address.port());
        while moirai_runtime::since(begin) < PATIENCE {
            let sockets =
                in_netns(namespace, || std::fs::read_to_string("/proc/thread-self/net/udp"));
            if matches!(sockets, Ok(Ok(sockets)) if sockets.contains(&port)) {
                return Ok(self);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let name = namespace.to_owned();
        let source = std::io::Error::other("ffmpeg does not listen");
        Err(DemoError::Namespace { name, source })
    }

    /// Stops ffmpeg and returns what it made of the film.
    pub(super) fn finish(mut self) -> Played {
        // What it says while it dies is not the film's fault: frames and complaints are taken
        // before, and it is killed without a chance to complain.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(thread) = self.progress.take() {
            let _ = thread.join();
        }
        let complaints = self.complaints.take().and_then(|thread| thread.join().ok());
        let complaints = complaints.unwrap_or_default();
        Played {
            frames: self.frames.load(Ordering::Relaxed),
            errors: complaints.len() as u64,
            complaints,
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads ffmpeg's progress report, `key=value` lines.
fn follow(out: impl Read, frames: &AtomicU64) {
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        if let Some(count) = line.strip_prefix("frame=").and_then(|count| count.trim().parse().ok())
        {
            frames.store(count, Ordering::Relaxed);
        }
    }
}

fn collect(err: impl Read) -> Vec<String> {
    let lines = BufReader::new(err).lines().map_while(Result::ok);
    lines.filter(|line| is_complaint(line)).take(10_000).collect()
}

/// Whether a line of ffmpeg's log says that the stream was broken.
fn is_complaint(line: &str) -> bool {
    const BROKEN: [&str; 6] =
        ["missed", "corrupt", "discontinuity", "concealing", "max delay reached", "non monoton"];
    let lower = line.to_ascii_lowercase();
    lower.contains("[error]")
        || lower.contains("[fatal]")
        || BROKEN.iter().any(|b| lower.contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_streams_are_told_from_idle_talk() {
        for broken in [
            "[h264 @ 0x1] [error] error while decoding MB 5 6, bytestream -7",
            "[rtp @ 0x1] [warning] RTP: missed 12 packets",
            "[mpegts @ 0x1] [warning] Packet corrupt (stream = 0, dts = 1).",
            "[mpegts @ 0x1] [warning] timestamp discontinuity (stream id=256): 1",
        ] {
            assert!(is_complaint(broken), "{broken}");
        }
        assert!(!is_complaint("[rtp @ 0x1] [warning] Estimating duration from bitrate"));
    }

    #[test]
    fn the_last_frame_number_counts() {
        let frames = AtomicU64::new(0);
        follow("frame=3\nfps=25\nframe= 17\nprogress=end\n".as_bytes(), &frames);
        assert_eq!(frames.load(Ordering::Relaxed), 17);
    }
}
