//! What passes between an image's event loop and its worker: tasks there, answers back, and a bell
//! that the loop's ring waits for like for any other operation.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::map::{Extent, Window};
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
