//! The life of an image process: take the start, be shut in, open the image, then do one task after
//! the other until the host service hangs up.

use std::io;
use std::os::fd::OwnedFd;

use moirai_image_wire::channel::{receive, receive_with, send_message};
use moirai_image_wire::{Answer, MAX_WORDS, Outcome, Start, Task, Wrong};
use moirai_sandbox::SandboxError;
use thiserror::Error;

use crate::arena::Arena;
use crate::core::{Core, Done};
use crate::layers::{self, Refusal};

/// Why the process could not do its work.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The host service is gone, or does not do what it should.
    #[error("the host service: {0}")]
    Host(#[from] io::Error),
    /// It sent what is no message.
    #[error("the host service sent {0}")]
    Message(#[from] Wrong),
    /// The process cannot be shut in.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// Serves the image that comes over `socket`. `confine` shuts the process in when all descriptors
/// are there, and before a byte of the image is read.
///
/// # Errors
/// [`ServeError`]. That an image cannot be opened is none: the host service is told.
pub fn serve(
    socket: OwnedFd,
    confine: impl FnOnce(&Start) -> Result<(), SandboxError>,
) -> Result<(), ServeError> {
    let mut message = [0; Start::BYTES];
    let (len, fds) = receive_with(&socket, &mut message)?;
    let start = Start::decode(message.get(..len).unwrap_or_default())?;
    confine(&start)?;
    let mut fds = fds.into_iter();
    let missing = || io::Error::other("it sent no arena");
    let mut arena = Arena::map(fds.next().ok_or_else(missing)?)?;
    let image = layers::open(&start.layers, start.l1, fds.by_ref().take(start.files()));
    let mut answer = Answer { token: 0, outcome: Outcome::Done, bytes: 0, count: 0 };
    let access = match image {
        Ok(access) => access,
        Err(Refusal { layer, error }) => {
            let words = error.to_string();
            let bytes = words.len().min(MAX_WORDS);
            arena.data(bytes as u64).copy_from_slice(words.as_bytes().get(..bytes).unwrap_or(&[]));
            answer.outcome = Outcome::Refused;
            (answer.bytes, answer.count) = (u32::try_from(bytes).unwrap_or(0), layer);
            send_message(&socket, &answer.encode())?;
            return Ok(());
        }
    };
    send_message(&socket, &answer.encode())?;
    // What is left of the descriptors is only kept open.
    let _locks: Vec<OwnedFd> = fds.collect();
    serve_tasks(&socket, &mut Core::new(access, arena, start))
}

/// Does what it is asked, until the other end is closed.
fn serve_tasks(socket: &OwnedFd, core: &mut Core) -> Result<(), ServeError> {
    let mut message = [0; Task::BYTES];
    loop {
        let len = receive(socket, &mut message)?;
        if len == 0 {
            return Ok(());
        }
        let task = Task::decode(message.get(..len).unwrap_or_default())?;
        let (outcome, Done { bytes, windows }) = match core.serve(&task) {
            Ok(done) => (Outcome::Done, done),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                (Outcome::Unsupported, Done::default())
            }
            Err(_) => (Outcome::Failed, Done::default()),
        };
        let answer = Answer { token: task.token, outcome, bytes, count: windows };
        send_message(socket, &answer.encode())?;
    }
}
