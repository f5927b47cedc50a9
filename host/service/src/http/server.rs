//! The socket of the API and its connections.
//!
//! A client may cost a bounded amount of memory, time and descriptors: headers and bodies must
//! arrive in time ([`HEAD_PATIENCE`], bodies in `routes`), and only [`CONNECTIONS`] are served at a
//! time, whoever moves least making room for whoever comes (`clients`). The socket is for the user
//! of the host service alone (mode 0600).

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;

use super::call::Served;
use super::clients::{Clients, Seat};
use super::hands::Hands;
use super::own_answer::Answering;
use super::routes;
use crate::HostService;
use crate::sockets::{name_beside, remove_stale};

/// How many connections are served at a time; when more come, others have to go.
const CONNECTIONS: usize = 256;
/// How long a client may take to send the head of a request, and to send nothing.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait after the kernel had no descriptor for a connection.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// How often at most the log says that connections cannot be taken.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How often is looked whether a client that says nothing is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Somebody answers there.
    #[error(
        "a host service answers at {0} already; stop it, or start your tenants there: moirai \
         launch FILE"
    )]
    Taken(PathBuf),
    /// Something else is there.
    #[error("{0} is there and is no socket; remove it, or choose another `socket`")]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen at {path}: {source}; choose a `socket` that this user may create")]
    Listen {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A socket on which nobody is served yet. The file goes with the value.
#[derive(Debug)]
pub struct Bound {
    listener: net::UnixListener,
    path: PathBuf,
}

impl Bound {
    /// Makes the socket, in place of one that nobody listens at.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn new(path: &Path) -> Result<Self, ServerError> {
        if net::UnixStream::connect(path).is_ok() {
            return Err(ServerError::Taken(path.to_owned()));
        }
        let there = fs::symlink_metadata(path);
        if there.is_ok_and(|there| !there.file_type().is_socket()) {
            return Err(ServerError::NoSocket(path.to_owned()));
        }
        let listener =
            listen(path).map_err(|source| ServerError::Listen { path: path.to_owned(), source })?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves the API for as long as the future is polled; `hands` carry out what is asked.
    ///
    /// # Errors
    /// There is no descriptor left, before anybody is served.
    pub fn serve(
        &self,
        service: Arc<HostService>,
        hands: Hands,
    ) -> impl Future<Output = io::Result<Infallible>> + Send + use<> {
        let listener = self.listener.try_clone();
        async move { serve(UnixListener::from_std(listener?)?, Served { service, hands }).await }
    }
}

async fn serve(listener: UnixListener, served: Served) -> io::Result<Infallible> {
    let router = routes::served(served);
    let clients = Clients::new(CONNECTIONS);
    let mut refusals = Refusals::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, router.clone(), clients.seat()));
            }
            Err(error) => {
                if let Some(count) = refusals.count(moirai_runtime::instant()) {
                    tracing::warn!(%error, count, "the API cannot take a connection");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // That it is gone already is what is wanted.
        let _ = fs::remove_file(&self.path);
    }
}

/// Connections that the kernel had no descriptor for: there may be many in a second.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    said: Option<Instant>,
    count: u64,
}

impl Refusals {
    /// Counts one more; how many there were if it is time to say it.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.said.is_some_and(|said| now.duration_since(said) < SAY_EVERY) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

/// Listens under another name first, so that nobody finds the socket before its mode is set.
fn listen(path: &Path) -> io::Result<net::UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = name_beside(path);
    remove_stale(&new).map_err(io::Error::other)?;
    let listener = net::UnixListener::bind(&new)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

/// Serves one client until it or we have enough. A client that has said all it wants to say and has
/// closed its half of the connection is answered; one that is gone is not waited for.
/// Whoever has to make room for another client is not waited for either.
pub(super) async fn converse<S>(stream: S, router: axum::Router, seat: Seat)
where
    S: AsyncRead + AsyncWrite + AsFd + Unpin,
{
    // Another descriptor for the same connection: the first one belongs to hyper.
    let Ok(watched) = stream.as_fd().try_clone_to_owned() else { return };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .half_close(true)
        .serve_connection(
            Answering::new(seat.watch(TokioIo::new(stream))),
            TowerToHyperService::new(router),
        );
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "an API connection ended early");
        },
        () = gone(watched.as_fd()) => {}
        () = seat.is_wanted() => tracing::debug!("a client makes room for another"),
    }
}

/// Waits until the client has closed both halves of the connection: hyper sees only that it says
/// nothing more, which is as well of a client that waits for its answer.
async fn gone(connection: BorrowedFd<'_>) {
    let mut fds = [PollFd::from_borrowed_fd(connection, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        tokio::time::sleep(LOOK).await;
        if let Ok(1..) = poll(&mut fds, Some(&at_once)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_cannot_be_taken_are_said_once_in_a_while_and_all_are_counted() {
        let (mut refusals, begin) = (Refusals::default(), moirai_runtime::instant());
        let said: Vec<_> =
            (0..300).filter_map(|tenth| refusals.count(begin + tenth * PAUSE)).collect();
        assert_eq!(said, [1, 100, 100]);
    }

    #[test]
    fn a_socket_may_have_the_longest_path_that_the_kernel_takes() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let _inside = runtime.enter();
        let folder = tempfile::tempdir().expect("a folder");
        let room = 107 - folder.path().as_os_str().len() - 1;
        for last in ["x", "~"] {
            let path = folder.path().join("x".repeat(room - 1) + last);
            let bound = Bound::new(&path).expect("bound");
            std::os::unix::net::UnixStream::connect(&path).expect("connected");
            drop(bound);
            assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
        }
    }

    #[test]
    fn a_file_at_the_place_of_the_socket_is_left_alone_and_a_stale_socket_is_replaced() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let _inside = runtime.enter();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("precious");
        fs::write(&path, "precious").expect("written");
        let error = Bound::new(&path).expect_err("no socket");
        assert!(error.to_string().contains("is no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
        let stale = folder.path().join("stale");
        drop(UnixListener::bind(&stale).expect("a socket"));
        let first = Bound::new(&stale).expect("in its place");
        assert!(matches!(Bound::new(&stale), Err(ServerError::Taken(_))));
        assert!(stale.exists());
        drop(first);
        assert!(!stale.exists());
    }
}
