//! Image processes that are threads of the test.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use moirai_image_wire::channel::pair;
use rustix::net::{Shutdown, shutdown};

use crate::backend::qcow2::{ImageProcess, ImageProcesses, StartedImage};

/// Runs what an image process does, or what a liar would, on a thread with the other end of the
/// socket.
#[derive(Clone)]
pub struct ImageThreads {
    run: Arc<dyn Fn(OwnedFd) + Send + Sync>,
    patience: Duration,
}

impl ImageThreads {
    /// Threads that do this.
    pub fn new(run: impl Fn(OwnedFd) + Send + Sync + 'static) -> Self {
        Self { run: Arc::new(run), patience: Duration::from_secs(30) }
    }

    /// The same, of which each task may take so long.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

impl ImageProcesses for ImageThreads {
    fn start(&self, _: &str) -> io::Result<StartedImage> {
        let (socket, theirs) = pair()?;
        let run = Arc::clone(&self.run);
        let thread = std::thread::Builder::new().spawn(move || run(theirs))?;
        let process = ImageThread { socket: socket.try_clone()?, thread: Some(thread) };
        Ok(StartedImage { socket, user: None, process: Box::new(process) })
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

struct ImageThread {
    socket: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl ImageProcess for ImageThread {
    fn id(&self) -> Option<u32> {
        None
    }

    fn end(&mut self) -> String {
        let _ = shutdown(&self.socket, Shutdown::Both);
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => "panicked".to_owned(),
            Some(Ok(())) | None => "ended".to_owned(),
        }
    }
}

impl Drop for ImageThread {
    fn drop(&mut self) {
        self.end();
    }
}
