//! A device and its queues, from start to stop.
//!
//! No kick is lost: a queue asks for kicks from its current position *before* it is served. If the
//! device then takes nothing, a later chain is past that position and its driver kicks. If the
//! device takes something, it is served again.

use std::io;
use std::sync::Arc;

use moirai_devices::fault::Fault;
use moirai_devices::memory::GuestMemory;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::backend::Note;
use super::model::{Model, Queues, Watcher};
use crate::virtio::DeviceEvents;
use crate::virtio::queue::QueueAreas;

const VIRTIO_F_EVENT_IDX: u32 = 29;

/// A device.
#[derive(Debug)]
pub(super) struct Served {
    index: usize,
    pub(super) model: Box<dyn Model>,
    memory: Arc<GuestMemory>,
    pub(super) events: Arc<DeviceEvents>,
    /// There while a driver has it running and has not broken it.
    live: Option<Queues>,
    /// A fault was reported: a driver that repeats it does not fill the log.
    reported: bool,
}

impl Served {
    pub(super) fn new(
        index: usize,
        model: Box<dyn Model>,
        memory: Arc<GuestMemory>,
        events: Arc<DeviceEvents>,
    ) -> Self {
        Self { index, model, memory, events, live: None, reported: false }
    }

    /// Begins to serve these rings.
    pub(super) fn start(&mut self, features: u64, rings: &[Option<QueueAreas>]) -> io::Result<()> {
        for kick in &self.events.kicks {
            // Those from before mean nothing; there may be none.
            let _ = kick.read();
        }
        let open = |ring: &Option<QueueAreas>| ring.map(|ring| open(features, ring)).transpose();
        let queues = rings.iter().map(open).collect::<Result<_, _>>().map_err(io::Error::other)?;
        self.model.start(features);
        self.live = Some(Queues { mem: Arc::clone(&self.memory), queues });
        Ok(())
    }

    /// Leaves guest memory alone from now on.
    pub(super) fn stop(&mut self) {
        self.live = None;
        self.model.reset();
    }

    pub(super) fn tell(&mut self, note: Note) {
        self.model.tell(note);
    }

    pub(super) fn changed(&mut self, id: u64, hung_up: bool, watcher: &Watcher<'_>) {
        self.model.changed(id, hung_up, watcher);
    }

    /// A turn of service. Returns whether there may be more to do at once.
    pub(super) fn serve(&mut self) -> bool {
        let Some(live) = &mut self.live else { return false };
        match turn(live, self.model.as_mut(), &self.events) {
            Ok(again) => again,
            Err(fault) => {
                self.live = None;
                if !std::mem::replace(&mut self.reported, true) {
                    eprintln!("moirai-tenant: own device {}: {fault}", self.index);
                }
                // Cannot fail: the main thread empties the counter.
                let _ = self.events.error.write(1);
                false
            }
        }
    }
}

fn turn(live: &mut Queues, model: &mut dyn Model, events: &DeviceEvents) -> Result<bool, Fault> {
    let before = positions(live);
    for queue in live.queues.iter_mut().flatten() {
        queue.enable_notification(&*live.mem).map_err(broken)?;
    }
    let served = model.serve(live);
    let after = positions(live);
    let queues = live.queues.iter_mut().zip(&events.calls).zip(before.iter().zip(&after));
    for ((queue, call), ((_, used_before), (_, used_after))) in queues {
        if let Some(queue) = queue
            && used_before != used_after
            && queue.needs_notification(&*live.mem).map_err(broken)?
        {
            // Cannot fail: KVM empties the counter.
            let _ = call.write(1);
        }
    }
    served.map(|()| before != after)
}

/// How far each queue has got: chains taken, chains returned.
fn positions(live: &Queues) -> Vec<(u16, u16)> {
    let position = |queue: &Queue| (queue.next_avail(), queue.next_used());
    live.queues.iter().map(|queue| queue.as_ref().map_or((0, 0), position)).collect()
}

fn broken(error: virtio_queue::Error) -> Fault {
    moirai_devices::virtqueue::QueueError::from(error).into()
}

/// A ring that the transport has checked: it lies in guest memory.
fn open(features: u64, ring: QueueAreas) -> Result<Queue, virtio_queue::Error> {
    let mut queue = Queue::new(ring.size)?;
    queue.try_set_desc_table_address(GuestAddress(ring.descriptors))?;
    queue.try_set_avail_ring_address(GuestAddress(ring.driver))?;
    queue.try_set_used_ring_address(GuestAddress(ring.device))?;
    queue.set_event_idx(features >> VIRTIO_F_EVENT_IDX & 1 == 1);
    queue.set_ready(true);
    Ok(queue)
}
