//! The thread that waits at an export's socket: one peer at a time.
//!
//! While a peer is served, further ones wait in the socket's queue. That a peer has gone is seen on
//! a copy of its connection: it hung up, or whoever serves it hung up on it because it broke the
//! protocol.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use moirai_confine::Role;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::sockopt::socket_peercred;

use super::ExportSocket;

/// After a peer has gone: one that comes and goes costs ten greetings a second.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket with its thread; both end with the value.
#[derive(Debug)]
pub(crate) struct Listener {
    _socket: ExportSocket,
    end: Arc<OwnedFd>,
    peer: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Waits for peers at `socket` and hands each to `serve`, which must not wait for it.
    ///
    /// # Errors
    /// No descriptor or no thread left.
    pub(crate) fn start(
        name: &str,
        socket: ExportSocket,
        serve: impl Fn(UnixStream) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let end = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let peer = Arc::new(AtomicU32::new(NOBODY));
        let visits = Visits {
            listener: socket.listener.try_clone()?,
            end: Arc::clone(&end),
            peer: Arc::clone(&peer),
            serve: Box::new(serve),
        };
        let thread =
            std::thread::Builder::new().name(format!("export-{name}")).spawn(move || {
                Role::Export.enter_or_say();
                visits.receive_all();
            })?;
        Ok(Self { _socket: socket, end, peer, thread: Some(thread) })
    }

    /// Process of the peer that is connected now. 0 is one of another process namespace.
    pub(crate) fn peer(&self) -> Option<u32> {
        match self.peer.load(Ordering::Relaxed) {
            NOBODY => None,
            pid => Some(pid),
        }
    }
}

/// No process has this number.
const NOBODY: u32 = u32::MAX;

impl Drop for Listener {
    fn drop(&mut self) {
        // An eventfd that is full wakes the thread just as well.
        let _ = rustix::io::write(&*self.end, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Visits {
    listener: UnixListener,
    end: Arc<OwnedFd>,
    peer: Arc<AtomicU32>,
    serve: Box<dyn Fn(UnixStream) -> bool + Send>,
}

impl Visits {
    fn receive_all(self) {
        while self.wait(&self.listener, PollFlags::IN, None) {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if !self.visit(stream) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => tracing::warn!(%error, "an export cannot take a connection"),
            }
            self.peer.store(NOBODY, Ordering::Relaxed);
            if !self.pause() {
                return;
            }
        }
    }

    /// Has a peer served until it has gone. False if it is time to end.
    fn visit(&self, stream: UnixStream) -> bool {
        let pid = socket_peercred(&stream).map_or(0, |peer| peer.pid.as_raw_pid().unsigned_abs());
        let copy = match stream.try_clone() {
            Ok(copy) => copy,
            Err(error) => {
                tracing::warn!(%error, "an export cannot serve a peer");
                return true;
            }
        };
        self.peer.store(pid, Ordering::Relaxed);
        (self.serve)(stream) && self.wait(&copy, PollFlags::RDHUP, None)
    }

    /// Waits for something on `fd`; false if it is time to end.
    fn wait(&self, fd: impl AsFd, what: PollFlags, patience: Option<&Timespec>) -> bool {
        loop {
            let mut fds = [PollFd::new(&*self.end, PollFlags::IN), PollFd::new(&fd, what)];
            let found = poll(&mut fds, patience);
            let [end, other] = fds.map(|fd| fd.revents());
            match found {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
                Ok(_) if !end.is_empty() => return false,
                Ok(_) if !other.is_empty() || patience.is_some() => return true,
                Ok(_) => {}
            }
        }
    }

    fn pause(&self) -> bool {
        let nanos = i64::from(PAUSE.subsec_nanos());
        let pause = Timespec { tv_sec: 0, tv_nsec: nanos };
        self.wait(&*self.end, PollFlags::IN, Some(&pause))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn listen(folder: &tempfile::TempDir) -> (Listener, Receiver<UnixStream>) {
        let socket = ExportSocket::bind(&folder.path().join("s")).expect("bound");
        let (sender, received) = channel();
        let listener = Listener::start("t", socket, move |peer| sender.send(peer).is_ok());
        (listener.expect("started"), received)
    }

    #[test]
    fn a_second_peer_waits_until_the_first_has_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (listener, received) = listen(&folder);
        let connect = || UnixStream::connect(folder.path().join("s")).expect("connected");
        let first = connect();
        let _served = received.recv_timeout(PATIENCE).expect("the first");
        assert_eq!(listener.peer(), Some(std::process::id()));
        let _second = connect();
        assert!(received.recv_timeout(Duration::from_millis(50)).is_err(), "one at a time");
        drop(first);
        received.recv_timeout(PATIENCE).expect("the second");
    }

    #[test]
    fn a_peer_that_was_hung_up_on_makes_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let (listener, received) = listen(&folder);
        let connect = || UnixStream::connect(folder.path().join("s")).expect("connected");
        let _first = connect();
        let served = received.recv_timeout(PATIENCE).expect("the first");
        let _second = connect();
        served.shutdown(std::net::Shutdown::Both).expect("hung up");
        received.recv_timeout(PATIENCE).expect("the second");
        drop(listener);
        assert!(UnixStream::connect(folder.path().join("s")).is_err(), "it ends with the value");
    }
}
