//! Why a request has no answer, in words for whoever typed a command.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::ErrorBody;

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
    /// Somebody listens and says too little.
    #[error(
        "what listens at {} has not given its answer within {patience:?}; look at the log of the \
         host service, or name another socket with --socket",
        .socket.display()
    )]
    Late {
        /// Where.
        socket: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// Something else answers there.
    #[error(
        "what answers at {} is no Moirai host service of version {}: {why}; name the socket of \
         one with --socket, or start the host service anew if `moirai` has changed since",
        .socket.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Stranger {
        /// Where.
        socket: PathBuf,
        /// What shows it.
        why: String,
    },
    /// The host service has ended, or has dropped the connection.
    #[error(
        "the connection to {} ended before the answer did; has the host service ended? Its log \
         says why",
        .socket.display()
    )]
    BrokenOff {
        /// Where.
        socket: PathBuf,
    },
    /// The host service refused.
    #[error("{}", .0.error)]
    Refused(Box<ErrorBody>),
    /// The request cannot be written.
    #[error("the request cannot be sent: {why}")]
    Unsent {
        /// Why.
        why: String,
    },
}
