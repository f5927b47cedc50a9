//! What the thread needs of each device that it serves.

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use moirai_devices::fault::Fault;
use moirai_devices::memory::GuestMemory;
use rustix::event::epoll::{self, EventData, EventFlags};
use virtio_queue::Queue;

use super::backend::Note;

/// Most chains of one queue that are served before other devices have their turn.
pub(super) const BATCH: usize = 64;

/// A device without its queues.
pub(super) trait Model: Debug + Send {
    /// Watches the descriptors that the device has from the beginning.
    ///
    /// # Errors
    /// The kernel refuses.
    fn watch(&self, _watcher: &Watcher<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Serves its queues, at most [`BATCH`] chains each.
    ///
    /// # Errors
    /// The driver has broken a rule; the device is not served until it is reset.
    fn serve(&mut self, queues: &mut Queues) -> Result<(), Fault>;

    /// A watched descriptor has changed. The device is served afterwards.
    fn changed(&mut self, _id: u64, _hung_up: bool, _watcher: &Watcher<'_>) {}

    /// Somebody tells it something. The device is served afterwards.
    fn tell(&mut self, _note: Note) {}

    /// A driver has negotiated features, and its queues are about to be served.
    fn start(&mut self, _features: u64) {}

    /// A driver has reset it.
    fn reset(&mut self) {}
}

/// The queues of a device that is served.
#[derive(Debug)]
pub(super) struct Queues {
    pub(super) mem: Arc<GuestMemory>,
    pub(super) queues: Vec<Option<Queue>>,
}

impl Queues {
    /// Calls `step` on a queue, if the driver uses it, until it returns `false` or a batch is done.
    pub(super) fn each(
        &mut self,
        index: usize,
        mut step: impl FnMut(&Arc<GuestMemory>, &mut Queue) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let Some(Some(queue)) = self.queues.get_mut(index) else { return Ok(()) };
        for _ in 0..BATCH {
            if !step(&self.mem, queue)? {
                break;
            }
        }
        Ok(())
    }
}

/// Watches descriptors for one device, each under an id of the device's choice.
#[derive(Debug)]
pub(super) struct Watcher<'a> {
    pub(super) epoll: BorrowedFd<'a>,
    pub(super) device: usize,
}

impl Watcher<'_> {
    /// Watches a descriptor for changes: [`Model::changed`] is called once for each, not as long as
    /// there is something to do. `id` has at most 48 bits.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn watch(&self, fd: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let source = Source::Changed { device: self.device, id }.pack();
        Ok(epoll::add(self.epoll, fd, EventData::new_u64(source), flags)?)
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Commands wait.
    Wake,
    /// A driver has kicked a queue.
    Kick { device: usize, queue: usize },
    /// A descriptor of a device has changed.
    Changed { device: usize, id: u64 },
}

const ID_BITS: u32 = 48;

impl Source {
    /// Devices and queues are few (`LaunchSpec::validate`): a byte does for the one, 48 bits for
    /// the other.
    pub(super) fn pack(self) -> u64 {
        let (kind, device, id) = match self {
            Self::Wake => (0, 0, 0),
            Self::Kick { device, queue } => (1, device, queue as u64),
            Self::Changed { device, id } => (2, device, id),
        };
        kind << 56 | (device as u64 & 0xff) << ID_BITS | id & ((1 << ID_BITS) - 1)
    }

    pub(super) fn unpack(packed: u64) -> Self {
        let device = usize::try_from(packed >> ID_BITS & 0xff).unwrap_or(0);
        let id = packed & ((1 << ID_BITS) - 1);
        match packed >> 56 {
            1 => Self::Kick { device, queue: usize::try_from(id).unwrap_or(usize::MAX) },
            2 => Self::Changed { device, id },
            _ => Self::Wake,
        }
    }
}
