//! The devices of a domain, and the lists of those that need attention. A turn goes through the
//! lists and not through the devices: it costs what there is to do.

use std::collections::BTreeMap;

use moirai_scheduler::{Moment, Span};

use crate::DeviceId;
use crate::device::Device;
use crate::populate::Presence;

/// A queue that was looked at in vain for so long is not looked at any more; its driver kicks.
const IDLE: Span = Span::from_millis(1);

/// A queue that the loop looks at by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Polled {
    pub(crate) device: DeviceId,
    pub(crate) queue: u16,
    /// When something was found in it last.
    pub(crate) found: Moment,
}

/// All devices of a domain.
pub(crate) struct Devices<St> {
    all: BTreeMap<DeviceId, Device<St>>,
    /// Queues that are polled: from a kick on until nothing is found for a while, or the loop
    /// sleeps.
    polled: Vec<Polled>,
    /// Devices with something to do at the end of the turn: a driver to signal, a queue that may
    /// have become empty, a peer that has left.
    touched: Vec<DeviceId>,
    /// Devices whose memory is being made present.
    coming: Vec<DeviceId>,
    /// Sessions with more messages than one turn handles.
    again: Vec<DeviceId>,
    /// Mappings of peers that this process had lost when it was last looked.
    faults: u64,
}

impl<St> Default for Devices<St> {
    fn default() -> Self {
        let all = BTreeMap::new();
        let (polled, touched, coming, again) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let faults = moirai_devices::memory::faults();
        Self { all, polled, touched, coming, again, faults }
    }
}

impl<St> Devices<St> {
    pub(crate) fn insert(&mut self, device: Device<St>) {
        self.all.insert(device.id, device);
    }

    pub(crate) fn remove(&mut self, id: DeviceId) -> Option<Device<St>> {
        self.all.remove(&id)
    }

    pub(crate) fn get(&self, id: DeviceId) -> Option<&Device<St>> {
        self.all.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: DeviceId) -> Option<&mut Device<St>> {
        self.all.get_mut(&id)
    }

    /// All of them; for reports.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Device<St>> {
        self.all.values()
    }

    /// Those whose peer's memory could not be accessed. They are looked for only when somebody's
    /// could not.
    pub(crate) fn lost(&mut self) -> Vec<DeviceId> {
        let faults = moirai_devices::memory::faults();
        if std::mem::replace(&mut self.faults, faults) == faults {
            return Vec::new();
        }
        let lost = |device: &&Device<St>| !device.has_left() && device.session.has_lost_memory();
        self.all.values().filter(lost).map(|device| device.id).collect()
    }

    /// From now on the loop looks at this queue by itself.
    pub(crate) fn poll(&mut self, id: DeviceId, queue: u16, now: Moment) {
        if let Some(device) = self.all.get_mut(&id)
            && device.poll(queue)
            && device.list(queue)
        {
            self.polled.push(Polled { device: id, queue, found: now });
        }
    }

    /// The polled queue at this place of the list; one that is not polled any more leaves it.
    pub(crate) fn polled(&mut self, place: usize) -> Option<(Polled, &mut Device<St>)> {
        while let Some(&polled) = self.polled.get(place) {
            if self.all.get(&polled.device).is_some_and(|device| device.is_polled(polled.queue)) {
                return self.all.get_mut(&polled.device).map(|device| (polled, device));
            }
            self.polled.swap_remove(place);
            if let Some(device) = self.all.get_mut(&polled.device) {
                device.unlist(polled.queue);
            }
        }
        None
    }

    /// Something was found in the polled queue at this place.
    pub(crate) fn found(&mut self, place: usize, now: Moment) {
        if let Some(polled) = self.polled.get_mut(place) {
            polled.found = now;
        }
    }

    /// The device has something to do at the end of the turn.
    pub(crate) fn touch(&mut self, id: DeviceId) {
        if let Some(device) = self.all.get_mut(&id)
            && !std::mem::replace(&mut device.touched, true)
        {
            self.touched.push(id);
        }
    }

    /// Those that were touched since the last call.
    pub(crate) fn take_touched(&mut self) -> Vec<DeviceId> {
        let touched = std::mem::take(&mut self.touched);
        for id in &touched {
            if let Some(device) = self.all.get_mut(id) {
                device.touched = false;
            }
        }
        touched
    }

    /// The device's session is to be read again in the next turn.
    pub(crate) fn read_again(&mut self, id: DeviceId) {
        self.again.push(id);
    }

    pub(crate) fn take_again(&mut self) -> Vec<DeviceId> {
        std::mem::take(&mut self.again)
    }

    pub(crate) fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// The device waits for its memory.
    pub(crate) fn await_memory(&mut self, id: DeviceId) {
        if !self.coming.contains(&id) {
            self.coming.push(id);
        }
    }

    /// Whether a device waits for its memory.
    pub(crate) fn awaits_memory(&mut self) -> bool {
        let all = &self.all;
        let coming = |id: &DeviceId| {
            all.get(id).is_some_and(|device| device.memory.get() == Presence::Coming)
        };
        self.coming.retain(coming);
        !self.coming.is_empty()
    }
}

impl Polled {
    /// Whether it has been looked at in vain for long.
    pub(crate) fn is_idle(self, now: Moment) -> bool {
        now.since(self.found) > IDLE
    }
}
