//! The requests that are in disks: a table by number, and a list of those that have to try again.

use moirai_devices::backend::{Deferred, Job};
use moirai_devices::blk::TakenChain;
use moirai_scheduler::{ClientId, Moment};

use crate::DeviceId;
use crate::disk::Unit;
use crate::later::Later;

/// A disk request in flight.
pub(crate) struct InFlight {
    pub(crate) device: DeviceId,
    /// Whose slice pays for it.
    pub(crate) client: ClientId,
    pub(crate) disk: usize,
    pub(crate) queue: u16,
    /// Its parts in the disk, by their number; the first one also while it waits there for other
    /// requests of its volume.
    pub(crate) units: Vec<(usize, Unit)>,
    /// Parts that were allowed so far.
    pub(crate) begun: usize,
    pub(crate) arrival: Moment,
    /// By which its driver is answered.
    pub(crate) chain: TakenChain,
    pub(crate) job: Job,
    /// Whether it is among its device's unfinished requests.
    pub(crate) listed: bool,
}

/// The table. Jobs are bounded by the depths of the disks.
#[derive(Default)]
pub(crate) struct Jobs {
    slots: Vec<Option<InFlight>>,
    free: Vec<u32>,
    /// Jobs that could not go on, and why.
    deferred: Later<(u32, Deferred)>,
    /// Something has happened that may let one of them go on.
    stirred: bool,
}

impl Jobs {
    /// A number for a new job.
    pub(crate) fn place(&mut self, job: InFlight) -> Option<u32> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(None);
                slot
            }
        };
        self.put_back(slot, job);
        Some(slot)
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&InFlight> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut InFlight> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Takes a job out to work on it; follow with [`Jobs::put_back`] or [`Jobs::release`].
    pub(crate) fn take(&mut self, slot: u32) -> Option<InFlight> {
        self.slots.get_mut(slot as usize)?.take()
    }

    pub(crate) fn put_back(&mut self, slot: u32, job: InFlight) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(job);
        }
    }

    /// The job is over, its number free.
    pub(crate) fn release(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// A job could not go on.
    pub(crate) fn defer(&mut self, slot: u32, why: Deferred, now: Moment) {
        self.deferred.push((slot, why), now);
    }

    /// Something completed, or was given up: who waits may look again.
    pub(crate) fn stir(&mut self) {
        self.stirred = true;
    }

    /// The jobs that are to try again now.
    pub(crate) fn due(&mut self, now: Moment) -> Vec<(u32, Deferred)> {
        if std::mem::take(&mut self.stirred) {
            self.deferred.take()
        } else {
            self.deferred.due(now)
        }
    }

    /// When somebody is to try again although nothing happens.
    pub(crate) fn timeout(&self) -> Option<Moment> {
        let untold = self.stirred || self.deferred.iter().any(|(_, why)| !why.is_announced());
        self.deferred.at().filter(|_| untold)
    }

    /// Jobs that wait to try again.
    #[cfg(test)]
    pub(crate) fn deferred(&self) -> u64 {
        self.deferred.iter().count() as u64
    }

    /// Jobs in disks.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let in_flight = self.slots.iter().flatten().count();
        let mut shown = f.debug_struct("Jobs");
        shown
            .field("in_flight", &in_flight)
            .field("deferred", &self.deferred)
            .finish_non_exhaustive()
    }
}
