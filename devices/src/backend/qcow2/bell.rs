//! What passes between an image's event loop and its worker: tasks there over a desk, answers back,
//! and a bell that the loop's ring waits for like for any other operation.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use moirai_image_wire::Window;

use super::map::Extent;
use crate::blk::{Op, Outcome};
use crate::memory::Buffers;

/// What the worker says of a task.
#[derive(Debug)]
pub(super) enum Answer {
    /// The request's data lies here; go on without the worker.
    Located { extents: Vec<Extent>, windows: Vec<(u64, Box<Window>)> },
    /// It is done.
    Done { outcome: Outcome, copied_bytes: u64, windows: Vec<(u64, Box<Window>)> },
}

/// Rings when a task is over. Used again and again.
#[derive(Debug)]
pub(super) struct Bell {
    event: Arc<File>,
    answer: Mutex<Option<Answer>>,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event: Arc::new(event.into()), answer: Mutex::new(None) })
    }

    /// Becomes readable when the bell rings.
    pub(super) fn event(&self) -> &Arc<File> {
        &self.event
    }

    /// Silences the bell and takes the answer. `None`: the task was given up.
    pub(super) fn take(&self) -> Option<Answer> {
        let _ = rustix::io::read(&*self.event, &mut [0_u8; 8]);
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Something for the worker to do. However it ends, its bell rings.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) op: Op,
    /// `Some` until it is over: whoever hears the bell may rely on it that the memory is free.
    buffers: Option<Buffers>,
    bell: Arc<Bell>,
}

impl Task {
    pub(super) fn new(op: Op, buffers: Buffers, bell: Arc<Bell>) -> Self {
        Self { op, buffers: Some(buffers), bell }
    }

    pub(super) fn buffers(&self) -> Option<&Buffers> {
        self.buffers.as_ref()
    }

    /// The task is over with this answer.
    pub(super) fn finish(&mut self, answer: Answer) {
        *self.bell.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.buffers = None;
        // A counter that is full rings just as well.
        let _ = rustix::io::write(&*self.bell.event, &1_u64.to_ne_bytes());
    }
}

/// Becomes readable when there are tasks, or nobody is left to give one.
#[derive(Clone, Debug)]
pub(super) struct Desk(Arc<OwnedFd>);

impl Desk {
    fn ring(&self) {
        // A counter that is full is readable just as well.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// To be called before tasks are looked for.
    pub(super) fn quiet(&self) {
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for Desk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The loop's side of the desk.
#[derive(Debug)]
pub(super) struct Tasks {
    sender: Option<SyncSender<Task>>,
    desk: Desk,
}

impl Tasks {
    /// Room for so many, and the worker's side.
    pub(super) fn new(most: usize) -> io::Result<(Self, Receiver<Task>, Desk)> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (sender, receiver) = sync_channel(most);
        let desk = Desk(Arc::new(event));
        Ok((Self { sender: Some(sender), desk: desk.clone() }, receiver, desk))
    }

    /// Gives the worker a task. If there is none, the task is dropped, and that rings its bell.
    pub(super) fn give(&self, task: Task) {
        if let Some(sender) = &self.sender {
            drop(sender.try_send(task));
            self.desk.ring();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.sender = None;
        self.desk.ring();
    }
}
