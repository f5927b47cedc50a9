//! The other end of the API: what the command line and the demo use to talk to a host service.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::api::{ErrorBody, ErrorKind};

/// Longer than any request takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of an answer that is no JSON is shown.
const SHOWN_BYTES: usize = 200;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no host service answers at {}: {source}; start one with `moirai host --config FILE`, or \
         name its socket with --socket",
        .socket.display()
    )]
    NoService {
        /// Where.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The host service refused.
    #[error("{}", .0.error)]
    Refused(Box<ErrorBody>),
    /// Something else answers there, or the host service ended meanwhile.
    #[error("the host service gave no answer: {0}")]
    Broken(String),
}

/// Talks to one host service, one request at a time.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
    patience: Duration,
}

impl Client {
    /// A client for the host service at `socket`. Connects with each request.
    ///
    /// # Errors
    /// The kernel refuses a descriptor.
    pub fn new(socket: &Path) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket: socket.to_owned(), runtime, patience: PATIENCE })
    }

    /// The same client, but it waits so much longer for each answer.
    #[must_use]
    pub fn with_more_patience(mut self, longer: Duration) -> Self {
        self.patience += longer;
        self
    }

    /// Reads what is at `path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// Sends `body` and reads the answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(broken)?;
        self.ask(method, path, body.into())
    }

    /// Sends bytes as they are and reads the answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        self.within(async {
            let response = self.request(method, path, body).await?;
            let bytes = response.into_body().collect().await.map_err(broken)?.to_bytes();
            serde_json::from_slice(&bytes).map_err(broken)
        })
    }

    /// Reads a body piece by piece until it ends or `each` says false.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn stream(
        &self,
        path: &str,
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let mut body = self.request(Method::GET, path, Bytes::new()).await?.into_body();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(broken)?;
                if frame.data_ref().is_some_and(|data| !each(data)) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn within<T>(
        &self,
        future: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let patience = self.patience;
        let late = || broken(format!("nothing came for {patience:?}"));
        self.runtime
            .block_on(async { tokio::time::timeout(patience, future).await.map_err(|_| late())? })
    }

    /// Sends a request; an answer that is a refusal becomes an error.
    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::NoService { socket: self.socket.clone(), source })?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "moirai")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(broken)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(broken)?.to_bytes();
        let refused = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
            let shown = bytes.get(..SHOWN_BYTES).unwrap_or(&bytes);
            let shown = String::from_utf8_lossy(shown);
            ErrorBody::new(ErrorKind::Failed, format!("{status}: {shown}"))
        });
        Err(ClientError::Refused(Box::new(refused)))
    }
}

fn broken(error: impl ToString) -> ClientError {
    ClientError::Broken(error.to_string())
}
