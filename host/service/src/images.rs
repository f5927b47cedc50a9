//! Image processes: one for each qcow2 image that is served, with a user of its own. It dies alone,
//! and what it said last is in the log.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use moirai_devices::backend::qcow2::{ImageProcess, ImageProcesses, StartedImage, socket_pair};
use moirai_launch::{Ended, Process};

use super::lock;

/// First user id of image processes.
const FIRST_UID: u32 = 300_000;
/// When the machine has no memory left, they go before anybody else.
const FIRST: &str = "1000";
/// How much of its last words is read.
const LAST_WORDS: usize = 4096;
/// And told.
const TOLD: usize = 300;

/// Starts image processes.
#[derive(Debug)]
pub(super) struct Images {
    binary: PathBuf,
    uids: Arc<Mutex<BTreeSet<u32>>>,
}

impl Images {
    pub(super) fn new(binary: PathBuf) -> Self {
        Self { binary, uids: Arc::default() }
    }

    /// A user that no other process of ours has, if we may give one.
    fn take_uid(&self) -> Option<Uid> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let mut taken = lock(&self.uids);
        let free = (FIRST_UID..).find(|uid| !taken.contains(uid)).unwrap_or(FIRST_UID);
        taken.insert(free);
        Some(Uid { uid: free, uids: Arc::clone(&self.uids) })
    }
}

impl ImageProcesses for Images {
    fn start(&self, image: &str) -> io::Result<StartedImage> {
        let (socket, theirs) = socket_pair()?;
        let (words, stderr) = UnixStream::pair()?;
        // Nobody reads them while it lives: it must neither wait for that nor fill our log.
        words.set_nonblocking(true)?;
        stderr.set_nonblocking(true)?;
        let stderr = Some(OwnedFd::from(stderr));
        let process = Process::start(&self.binary, c"moirai-image", theirs, stderr);
        let process = process.map_err(|error| {
            let binary = self.binary.display();
            io::Error::other(format!(
                "cannot run the image binary {binary}: {error}; it belongs beside `moirai`, or \
                 set MOIRAI_IMAGE to its path"
            ))
        })?;
        // If it has ended already, its socket tells that.
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", process.pid()), FIRST);
        let uid = self.take_uid();
        tracing::debug!(image, pid = process.pid(), "an image process was started");
        Ok(StartedImage {
            socket,
            user: uid.as_ref().map(|it| it.uid),
            process: Box::new(Running { image: image.to_owned(), words, process, _uid: uid }),
        })
    }
}

/// A user id that is given back with the value.
struct Uid {
    uid: u32,
    uids: Arc<Mutex<BTreeSet<u32>>>,
}

impl Drop for Uid {
    fn drop(&mut self) {
        lock(&self.uids).remove(&self.uid);
    }
}

/// A process, and the user that it is; the process goes first.
struct Running {
    image: String,
    words: UnixStream,
    process: Process,
    _uid: Option<Uid>,
}

impl ImageProcess for Running {
    fn id(&self) -> Option<u32> {
        Some(self.process.pid())
    }

    fn end(&mut self) -> String {
        self.process.kill();
        let how = match self.process.wait() {
            Ok(Ended::Exited(status)) => format!("ended with status {status}"),
            Ok(Ended::Signalled(signal)) => format!("was ended by signal {signal}{}", name(signal)),
            Err(error) => format!("ended, and nobody knows how: {error}"),
        };
        let mut words = [0; LAST_WORDS];
        let read = (&self.words).read(&mut words).unwrap_or(0);
        let said = String::from_utf8_lossy(words.get(..read).unwrap_or_default());
        let said = said.split(char::is_control).map(str::trim).filter(|line| !line.is_empty());
        let said: String = said.collect::<Vec<_>>().join(" ").chars().take(TOLD).collect();
        if said.is_empty() { how } else { format!("{how}; it said: {said}") }
    }

    fn failed(&mut self, why: &str) {
        let pid = self.process.pid();
        tracing::error!(image = self.image, pid, why, "an image has failed; its device says so");
    }
}

/// Signals that say what has happened.
fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGABRT => " (SIGABRT: it broke on the image, or had no memory left)",
        libc::SIGSEGV => " (SIGSEGV: its stack has overflowed, or worse)",
        libc::SIGKILL => " (SIGKILL)",
        libc::SIGSYS => " (SIGSYS: it did what it may not do)",
        _ => "",
    }
}
