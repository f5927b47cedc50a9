//! The seam to whoever starts image processes: this crate knows the protocol, and the host service
//! who they are and where they run.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long a process may take for a task. The slowest is a flush.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts image processes.
pub trait ImageProcesses {
    /// Starts one for the image of that name.
    ///
    /// # Errors
    /// It cannot be started; the error says what to do.
    fn start(&self, image: &str) -> io::Result<StartedImage>;

    /// How long each may take for a task.
    fn patience(&self) -> Duration {
        PATIENCE
    }
}

/// A process that waits for its start.
pub struct StartedImage {
    /// Our end of its socket, of which nobody else has a copy. It is at its end when the process
    /// is.
    pub socket: OwnedFd,
    /// The user that it is to become, if it is to change.
    pub user: Option<u32>,
    /// The process.
    pub process: Box<dyn ImageProcess>,
}

/// An image process, for whoever talks to it. It ends with the value.
pub trait ImageProcess: Send {
    /// Its number, if it is one that the kernel schedules by itself.
    fn id(&self) -> Option<u32>;

    /// Ends it, if it has not ended by itself, and waits for that. How it ended, for "it ...".
    fn end(&mut self) -> String;

    /// The image has failed, and why. Said once.
    fn failed(&mut self, why: &str) {
        let _ = why;
    }
}
