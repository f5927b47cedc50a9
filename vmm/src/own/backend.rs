//! The side of a device that its transport sees: configuration space, start, stop. All calls come
//! from vCPU threads. Calls about queues become commands for the thread that serves them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use moirai_devices::balloon::Size;
use moirai_devices::console::{CONFIG, EMERGENCY_WRITE};
use vmm_sys_util::eventfd::EventFd;

use crate::virtio::backend::copy_config;
use crate::virtio::queue::QueueAreas;
use crate::virtio::{Backend, BackendError};

/// How long a driver waits for the thread, which is of the fair class, to start or stop its device.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Serve these rings with these features.
    Start { device: usize, features: u64, rings: Vec<Option<QueueAreas>>, done: Done },
    /// Serve none, and leave guest memory alone.
    Stop { device: usize, done: Done },
    /// Something about a device that is served or not.
    Tell { device: usize, note: Note },
}

/// Gets the outcome of a command.
pub(super) type Done = SyncSender<io::Result<()>>;

/// What a device can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A byte for the console, past its queues.
    Emergency(u8),
    /// Ask the guest for fresh figures about its memory.
    AskStats,
}

/// The way to the thread.
#[derive(Clone, Debug)]
pub(super) struct Mailbox {
    pub(super) commands: SyncSender<Command>,
    pub(super) wake: Arc<EventFd>,
}

impl Mailbox {
    /// Tells a device something, unless too much waits already.
    pub(super) fn tell(&self, device: usize, note: Note) {
        if self.commands.try_send(Command::Tell { device, note }).is_ok() {
            // Cannot fail: the thread empties the counter.
            let _ = self.wake.write(1);
        }
    }

    fn ask(&self, command: impl FnOnce(Done) -> Command) -> Result<(), BackendError> {
        let gone = || io::Error::other("the thread that serves it is gone");
        let (done, outcome) = sync_channel(1);
        self.commands.send(command(done)).map_err(|_| gone())?;
        let _ = self.wake.write(1);
        let outcome = outcome.recv_timeout(TIMEOUT).map_err(|_| {
            io::Error::other(format!("the thread that serves it has not answered for {TIMEOUT:?}"))
        })?;
        Ok(outcome?)
    }
}

/// The configuration space of a device.
#[derive(Debug)]
pub(super) enum Space {
    /// It never changes.
    Bytes(Vec<u8>),
    /// Zeros, and a register to print with.
    Console,
    /// A target and what became of it.
    Balloon(Arc<Size>),
}

/// A device as its transport sees it.
#[derive(Debug)]
pub(super) struct OwnBackend {
    pub(super) index: usize,
    pub(super) features: u64,
    pub(super) space: Space,
    pub(super) mailbox: Mailbox,
}

impl Backend for OwnBackend {
    fn features(&self) -> u64 {
        self.features
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        match &self.space {
            Space::Bytes(bytes) => copy_config(bytes, offset, data),
            Space::Console => copy_config(&CONFIG, offset, data),
            Space::Balloon(size) => copy_config(&size.config_space(), offset, data),
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        match (&self.space, data) {
            (Space::Console, [byte, ..]) if offset == EMERGENCY_WRITE => {
                self.mailbox.tell(self.index, Note::Emergency(*byte));
            }
            (Space::Balloon(size), _) => size.write_config(offset, data),
            _ => {}
        }
    }

    fn start(&mut self, features: u64, queues: &[Option<QueueAreas>]) -> Result<(), BackendError> {
        let (device, rings) = (self.index, queues.to_vec());
        self.mailbox.ask(|done| Command::Start { device, features, rings, done })
    }

    fn stop(&mut self) -> Result<(), BackendError> {
        let device = self.index;
        self.mailbox.ask(|done| Command::Stop { device, done })
    }
}
