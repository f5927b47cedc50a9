//! The way to the image process and back: one task at a time, each answer checked.
//!
//! Whatever is wrong with an answer, or if there is none in time, the image has failed for good:
//! its process is ended, and nothing is asked of it any more. That this task failed is something
//! else, and the process says so itself.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moirai_image_wire::channel::{receive, send_message, send_with};
use moirai_image_wire::{
    ARENA_BYTES, Answer, DATA_BYTES, Layer, MAX_WINDOWS, MAX_WORDS, Outcome as Told, Start, Task,
    WINDOW_BYTES, WINDOWS_AT, What, Window,
};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use vm_memory::{FileOffset, GuestAddress};

use super::check::{self, Lie, Shape};
use super::process::{ImageProcess, ImageProcesses, StartedImage};
use super::tables::MAX_TABLES_BYTES;
use crate::backend::error::ImageError;
use crate::backend::probe;
use crate::blk::Outcome;
use crate::memory::{Buffers, GuestMemory};

/// The most that a process may have: what tables may take, and what it takes itself.
const MEMORY_BYTES: u64 = MAX_TABLES_BYTES + (64 << 20);

/// Why an image has failed, once it has.
pub(super) type Failure = Arc<OnceLock<String>>;

/// What a process is given, and what stays here.
#[derive(Default)]
pub(super) struct Luggage {
    /// From the deepest up, with the names of their files.
    pub(super) layers: Vec<Layer>,
    pub(super) names: Vec<String>,
    /// The files as the process gets them.
    pub(super) passed: Vec<OwnedFd>,
    /// The same files, to see where they end.
    pub(super) looked_at: Vec<File>,
    /// The locked files; kept until the process has ended.
    pub(super) locks: Vec<File>,
    /// Those of them that the process keeps, too, because it writes: its end and not ours ends the
    /// lock.
    pub(super) written: usize,
    /// Where the level-1 table of the top layer is, from and to.
    pub(super) l1: (u64, u64),
    /// Where a file may end that it writes.
    pub(super) file_bytes: u64,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The task failed.
    Task(Outcome),
    /// The image has failed.
    Image,
}

/// The host's end of the socket, and what it takes to talk.
pub(super) struct Courier {
    socket: OwnedFd,
    /// The arena, of which there is no Rust slice: the other end may write it at any time.
    arena: Buffers,
    process: Box<dyn ImageProcess>,
    name: String,
    patience: Duration,
    token: u64,
    pub(super) shape: Shape,
    files: Vec<File>,
    failure: Failure,
    /// Dropped last of all.
    _locks: Vec<File>,
}

impl Courier {
    /// Starts a process and has it open the image of that name.
    pub(super) fn start(
        processes: &dyn ImageProcesses,
        name: &str,
        shape: Shape,
        luggage: Luggage,
    ) -> Result<Self, ImageError> {
        let none = |source| ImageError::NoProcess { image: name.to_owned(), source };
        let (arena, shared) = arena().map_err(none)?;
        let StartedImage { socket, user, process } = processes.start(name).map_err(none)?;
        let patience = processes.patience();
        for way in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, way, Some(patience)).map_err(|e| none(e.into()))?;
        }
        let Luggage { layers, names, passed, looked_at, locks, written, l1, file_bytes } = luggage;
        let start = Start {
            layers,
            size_bytes: shape.size_bytes,
            cluster_bytes: shape.cluster_bytes,
            align: shape.align,
            reserved: shape.reserved,
            l1,
            user,
            memory_bytes: MEMORY_BYTES,
            file_bytes,
        };
        let kept = locks.get(locks.len().saturating_sub(written)..).unwrap_or_default();
        let fds = std::iter::once(shared.as_fd()).chain(passed.iter().map(AsFd::as_fd));
        let fds: Vec<BorrowedFd<'_>> = fds.chain(kept.iter().map(AsFd::as_fd)).collect();
        // If it cannot be sent, there is no answer either, and then it is said how it ended.
        let _ = send_with(&socket, &start.encode(), &fds);
        let mut courier = Self {
            socket,
            arena,
            process,
            name: name.to_owned(),
            patience,
            token: 0,
            shape,
            files: looked_at,
            failure: Failure::default(),
            _locks: locks,
        };
        courier.opened(&names)?;
        Ok(courier)
    }

    /// Waits until the image is open.
    fn opened(&mut self, names: &[String]) -> Result<(), ImageError> {
        let Some(answer) = self.receive(0) else {
            let how = self.failure.get().cloned().unwrap_or_default();
            return Err(ImageError::Broke { image: self.name.clone(), how });
        };
        if answer.outcome == Told::Done {
            return Ok(());
        }
        let len = usize::try_from(answer.bytes).unwrap_or(usize::MAX).min(MAX_WORDS);
        let mut words = vec![0; len];
        self.arena.copy_to(&mut words);
        // They may come from whoever made the image.
        let words = String::from_utf8_lossy(&words).replace(char::is_control, " ");
        let layer = names.get(usize::try_from(answer.count).unwrap_or(usize::MAX));
        let image = layer.unwrap_or(&self.name).clone();
        self.process.end();
        Err(ImageError::Library { image, source: io::Error::other(words) })
    }

    /// Why the image has failed, once it has.
    pub(super) fn failure(&self) -> Failure {
        Arc::clone(&self.failure)
    }

    /// The number of the process.
    pub(super) fn process_id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Whether there still is something to listen to.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.failure.get().is_none().then(|| self.socket.as_fd())
    }

    /// The half of the arena for data, as far as a task of so many bytes needs it.
    pub(super) fn data(&self, len: u64) -> Buffers {
        self.arena.slice(0, len.min(DATA_BYTES as u64))
    }

    /// Has something done.
    pub(super) fn ask(&mut self, what: What, offset: u64, len: u64) -> Result<(), Trouble> {
        let answer = self.call(what, offset, len)?;
        let brought = if what == What::Read { len } else { 0 };
        self.believe(check::amount(&answer, brought, 0))
    }

    /// Looks up `count` windows from number `first` on.
    pub(super) fn find(
        &mut self,
        first: u64,
        count: u64,
    ) -> Result<Vec<(u64, Box<Window>)>, Trouble> {
        let mut found = Vec::new();
        let end = first.saturating_add(count);
        let mut next = first;
        while next < end {
            let some = (end - next).min(MAX_WINDOWS);
            let answer = self.call(What::Find, next, some)?;
            self.believe(check::amount(&answer, 0, some))?;
            let ends = self.ends().map_err(|_| Trouble::Task(Outcome::IoError))?;
            for index in 0..some {
                let at = WINDOWS_AT as u64 + index * WINDOW_BYTES as u64;
                let mut bytes = [0; WINDOW_BYTES];
                self.arena.slice(at, WINDOW_BYTES as u64).copy_to(&mut bytes);
                let window = check::window(&self.shape, &ends, next + index, &bytes);
                let window = self.believe(window)?;
                found.push((next + index, window));
            }
            next += some;
        }
        Ok(found)
    }

    /// Where each file ends now.
    fn ends(&self) -> io::Result<Vec<u64>> {
        let end = |file| Ok(probe::size(file)?.unwrap_or(0));
        self.files.iter().map(end).collect()
    }

    fn call(&mut self, what: What, offset: u64, len: u64) -> Result<Answer, Trouble> {
        if self.failure.get().is_some() {
            return Err(Trouble::Image);
        }
        self.token += 1;
        let task = Task { token: self.token, what, offset, len };
        // If it cannot be sent, there is no answer either.
        let _ = send_message(&self.socket, &task.encode());
        let answer = self.receive(self.token).ok_or(Trouble::Image)?;
        match answer.outcome {
            Told::Done => Ok(answer),
            Told::Failed => Err(Trouble::Task(Outcome::IoError)),
            Told::Unsupported => Err(Trouble::Task(Outcome::Unsupported)),
            Told::Refused => self.believe(Err(Lie::Refused)),
        }
    }

    /// Waits for the answer to the task of that number; `None` if the image has failed.
    fn receive(&mut self, token: u64) -> Option<Answer> {
        let mut message = [0; Answer::BYTES + 1];
        let len = match receive(&self.socket, &mut message) {
            Ok(0) => return self.gone(),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.silent(),
            Err(_) => return self.gone(),
        };
        let answer = Answer::decode(message.get(..len).unwrap_or(&message)).map_err(Lie::from);
        let answer = answer.and_then(|answer| match answer.token {
            got if got == token => Ok(answer),
            got => Err(Lie::Token { asked: token, got }),
        });
        self.believe(answer).ok()
    }

    /// Looks what there is without a task: the process has ended, or talks out of turn.
    pub(super) fn unasked(&mut self) {
        match receive(&self.socket, &mut [0; 1]) {
            Ok(0) | Err(_) => drop(self.gone::<()>()),
            Ok(_) => drop(self.believe::<()>(Err(Lie::Unasked))),
        }
    }

    fn gone<T>(&mut self) -> Option<T> {
        let how = self.process.end();
        self.fail(&how);
        None
    }

    fn silent<T>(&mut self) -> Option<T> {
        self.process.end();
        self.fail(&format!("did not answer within {:?} and was killed", self.patience));
        None
    }

    /// What is true goes on; after a lie there is no image any more.
    fn believe<T>(&mut self, answer: Result<T, Lie>) -> Result<T, Trouble> {
        answer.map_err(|lie| {
            self.process.end();
            self.fail(&format!("was killed because it lies: {lie}"));
            Trouble::Image
        })
    }

    fn fail(&mut self, how: &str) {
        let why = format!("the process of image {} {how}", self.name);
        if self.failure.set(why.clone()).is_ok() {
            self.process.failed(&why);
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        // What was to be written has been flushed or has failed; the locks go only after it.
        self.process.end();
    }
}

/// Memory for two, mapped here, and its file.
fn arena() -> io::Result<(Buffers, OwnedFd)> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("image-arena", flags)?);
    file.set_len(ARENA_BYTES as u64)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let start = GuestAddress(0);
    let range = (start, ARENA_BYTES, Some(FileOffset::new(file.try_clone()?, 0)));
    let memory = GuestMemory::from_ranges_with_files([range]).map_err(io::Error::other)?;
    let mut arena = Buffers::new(Arc::new(memory));
    let len = u32::try_from(ARENA_BYTES).map_err(io::Error::other)?;
    arena.push(start, len).map_err(io::Error::other)?;
    Ok((arena, file.into()))
}
