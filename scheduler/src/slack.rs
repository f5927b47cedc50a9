//! Who gets the time that nobody is owed: weighted fair sharing by virtual time.
//!
//! 1. A client's virtual time grows by `cost / weight` with every slack service.
//! 2. The next one is the client with the least virtual time; ties fall to the lower id.
//! 3. A client that comes back from sleep continues at the virtual time at which service was last
//!    given, if its own lies before: sleeping earns nothing.
//!
//! So two clients that want slack all the time differ by `|x_i/w_i - x_j/w_j| <= Q/w_i + Q/w_j`,
//! `Q` the longest service between two picks (start-time fair queueing; Goyal, Vin and Cheng 1996).
//! Virtual time has 32 binary digits after the point, so that rounding cannot add up to anything.

use crate::contract::Weight;
use crate::heap::Heap;
use crate::policy::ClientId;
use crate::time::Amount;

/// Nanoseconds per unit of weight, times 2^32.
pub(crate) type Virtual = u128;

/// The clients that want slack now.
#[derive(Debug)]
pub(crate) struct Slack {
    queue: Heap<(Virtual, ClientId)>,
    /// Virtual time of the latest pick.
    clock: Virtual,
}

impl Slack {
    pub(crate) const fn new() -> Self {
        Self { queue: Heap::new(), clock: 0 }
    }

    pub(crate) fn grow(&mut self, slots: usize) {
        self.queue.grow(slots);
    }

    /// The virtual time at which a client continues that slept at `own`.
    pub(crate) fn resume(&self, own: Virtual) -> Virtual {
        own.max(self.clock)
    }

    /// The virtual time after a service of `cost`.
    pub(crate) fn after(own: Virtual, cost: Amount, weight: Weight) -> Virtual {
        let cost = cost.wide() << 32;
        own.saturating_add(cost.checked_div(u128::from(weight.get())).unwrap_or(cost))
    }

    /// The virtual time when a unit that had advanced it by `estimate` has cost `cost`.
    pub(crate) fn settle(own: Virtual, estimate: Amount, cost: Amount, weight: Weight) -> Virtual {
        let reckoned = Self::after(0, estimate, weight);
        let (own, actual) = (own.saturating_sub(reckoned), Self::after(0, cost, weight));
        own.saturating_add(actual)
    }

    /// Queues a client at its virtual time, or moves it there.
    pub(crate) fn set(&mut self, slot: usize, id: ClientId, own: Virtual) {
        self.queue.set(slot, (own, id));
    }

    pub(crate) fn remove(&mut self, slot: usize) {
        self.queue.remove(slot);
    }

    /// Chooses the next client, which stays queued.
    pub(crate) fn pick(&mut self) -> Option<(ClientId, usize)> {
        let ((own, id), slot) = self.queue.first()?;
        self.clock = self.clock.max(own);
        Some((id, slot))
    }
}
