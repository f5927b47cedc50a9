//! The other end of the API: what the command line and the demo use to talk to a host service.
//!
//! Whoever answers at the socket may be anything. An answer may take [`PATIENCE`] and
//! [`ANSWER_BYTES`]; a console alone goes on without end, after a head that arrived in time.

mod error;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::ErrorBody;
pub use error::ClientError;

/// Longer than a host service takes to say something.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than it takes to start or change something.
const LONG_PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before another try where too many others wait.
const PAUSE: Duration = Duration::from_millis(50);
/// The largest answer that makes sense: all tenants of a full host, many times over.
const ANSWER_BYTES: usize = 64 << 20;
/// What is wrong with a path that the kernel is not even asked about.
const NO_PATH: &str = "the path of a socket has at most 107 bytes";
/// The largest head of an answer.
const HEAD_BYTES: usize = 64 << 10;

/// Talks to one host service, one request at a time.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
    more: Duration,
}

impl Client {
    /// A client for the host service at `socket`. Connects with each request.
    ///
    /// # Errors
    /// The kernel refuses a descriptor.
    pub fn new(socket: &Path) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket: socket.to_owned(), runtime, more: Duration::ZERO })
    }

    /// The same client, but it waits so much longer for each answer.
    #[must_use]
    pub fn with_more_patience(mut self, longer: Duration) -> Self {
        self.more += longer;
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
        let body = serde_json::to_vec(body)
            .map_err(|error| ClientError::Unsent { why: error.to_string() })?;
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
        let patience = if method == Method::GET { PATIENCE } else { LONG_PATIENCE };
        let what = format!("{method} {path}");
        self.within(patience, async {
            let response = self.request(method, path, body).await?;
            let bytes = self.whole(response.into_body()).await?;
            serde_json::from_slice(&bytes).map_err(|_| self.not_understood(what))
        })
    }

    /// Reads a body piece by piece until it ends or `each` says false. Only its head must come in
    /// time.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn stream(
        &self,
        path: &str,
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), ClientError> {
        let head = self.request(Method::GET, path, Bytes::new());
        let mut body = self.within(PATIENCE, head)?.into_body();
        self.runtime.block_on(async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.broken_off(&error))?;
                if frame.data_ref().is_some_and(|data| !each(data)) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn within<T>(
        &self,
        patience: Duration,
        future: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let patience = patience + self.more;
        let late = || ClientError::Late { socket: self.socket.clone(), patience };
        self.runtime
            .block_on(async { tokio::time::timeout(patience, future).await.map_err(|_| late())? })
    }

    /// Connects; where more wait than the socket has places for, until there is one.
    async fn connect(&self) -> Result<UnixStream, ClientError> {
        loop {
            match UnixStream::connect(&self.socket).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    let source = match error.kind() {
                        io::ErrorKind::InvalidInput => io::Error::other(NO_PATH),
                        _ => error,
                    };
                    return Err(ClientError::NoService { socket: self.socket.clone(), source });
                }
                Ok(stream) => return Ok(stream),
            }
        }
    }

    /// Sends a request; an answer that is a refusal becomes an error.
    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = TokioIo::new(self.connect().await?);
        let broken = |error: hyper::Error| self.broken_off(&error);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(stream)
            .await
            .map_err(broken)?;
        self.runtime.spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "moirai")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| ClientError::Unsent { why: error.to_string() })?;
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = self.whole(response.into_body()).await?;
        Err(self.refused(status, &bytes))
    }

    /// All of a body, if it is not larger than any answer.
    async fn whole(&self, mut body: Incoming) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken_off(&error))?;
            bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            if bytes.len() > ANSWER_BYTES {
                return Err(
                    self.stranger(format!("its answer is larger than {ANSWER_BYTES} bytes"))
                );
            }
        }
        Ok(bytes)
    }

    fn refused(&self, status: StatusCode, bytes: &[u8]) -> ClientError {
        match serde_json::from_slice::<ErrorBody>(bytes) {
            Ok(body) => ClientError::Refused(Box::new(body)),
            Err(_) => self.not_understood(format!("with status {}", status.as_u16())),
        }
    }

    /// Why an answer did not come to its end.
    fn broken_off(&self, error: &hyper::Error) -> ClientError {
        if error.is_parse() {
            self.stranger("what it says is no HTTP".to_owned())
        } else {
            ClientError::BrokenOff { socket: self.socket.clone() }
        }
    }

    /// `what` was answered with something else than a host service says.
    fn not_understood(&self, what: String) -> ClientError {
        self.stranger(format!("its answer ({what}) is none that this version knows"))
    }

    fn stranger(&self, why: String) -> ClientError {
        ClientError::Stranger { socket: self.socket.clone(), why }
    }
}
