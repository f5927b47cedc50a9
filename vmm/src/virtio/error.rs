//! Why a device has no backend that serves it.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// Why a backend does not serve.
#[derive(Debug, Error)]
pub enum BackendError {
    /// The one in another process.
    #[error(transparent)]
    Vhost(#[from] VhostError),
    /// The one in this process: the kernel refused it something.
    #[error("the device cannot be served: {0}")]
    System(#[from] io::Error),
}

/// Why a backend cannot be used.
#[derive(Debug, Error)]
pub enum VhostError {
    /// It hung up.
    #[error("the backend of the device has closed its connection")]
    Closed,
    /// It does not answer.
    #[error("the backend of the device has not answered for {0:?}")]
    Timeout(Duration),
    /// Its answer is none.
    #[error("the backend of the device broke the vhost-user protocol in request {0}")]
    Protocol(u32),
    /// It refused.
    #[error("the backend of the device refused request {0}")]
    Refused(u32),
    /// It cannot do what this frontend needs.
    #[error("the backend of the device lacks {0}")]
    Lacks(&'static str),
    /// It has fewer queues than the device is to have.
    #[error("the backend of the device has {has} queues, {needed} are needed")]
    Queues {
        /// What it has.
        has: u64,
        /// What the launch asks for.
        needed: usize,
    },
    /// The socket.
    #[error("connection to the backend of the device: {0}")]
    Io(#[from] io::Error),
}
