//! The socket of the API and its connections.
//!
//! A client may cost a bounded amount of memory, time and descriptors: headers and bodies must
//! arrive in time ([`HEAD_PATIENCE`], bodies in `routes`), and only [`CONNECTIONS`] are served at a
//! time. The socket is for the user of the host service alone (mode 0600).

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::routes;
use crate::service::Service;

/// How many connections are served at a time; more wait.
const CONNECTIONS: usize = 64;
/// How long a client may take to send the head of a request, and to send nothing.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait after the kernel had no descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Somebody answers there.
    #[error(
        "a host service answers at {0} already; stop it, or start your tenants there: moirai launch \
         FILE"
    )]
    Taken(PathBuf),
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
    listener: UnixListener,
    path: PathBuf,
}

impl Bound {
    /// Makes the socket, in place of one that nobody listens at. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn new(path: &Path) -> Result<Self, ServerError> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ServerError::Taken(path.to_owned()));
        }
        let listener =
            listen(path).map_err(|source| ServerError::Listen { path: path.to_owned(), source })?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves the API for as long as the future is polled.
    pub async fn serve(self, service: Arc<Service>) -> Infallible {
        let (router, _) = routes::router().split_for_parts();
        let router = router.with_state(service);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let router = router.clone();
                    tokio::spawn(async move {
                        converse(stream, router).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the API cannot take a connection");
                    tokio::time::sleep(PAUSE).await;
                }
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

/// Listens under another name first, so that nobody finds the socket before its mode is set.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    if new.exists() {
        fs::remove_file(&new)?;
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

async fn converse(stream: UnixStream, router: axum::Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an API connection ended early");
    }
}
