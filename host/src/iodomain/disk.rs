//! Whose request goes to a disk next. Owns the policy and the meter of one disk; the requests
//! themselves stay with their devices.

use moirai_scheduler::{Account, ClientId, Contract, Head, Nanos, Policy, PolicyError};

use super::DeviceId;
use super::meter::{Meter, Payer};

/// One disk and the clients that share it.
pub(super) struct Disk {
    pub(super) name: String,
    depth: usize,
    policy: Box<dyn Policy>,
    meter: Meter,
}

impl Disk {
    pub(super) fn new(name: String, depth: usize, policy: Box<dyn Policy>) -> Self {
        let depth = depth.max(1);
        Self { name, depth, policy, meter: Meter::with_depth(depth) }
    }

    pub(super) fn policy(&mut self) -> &mut dyn Policy {
        self.policy.as_mut()
    }

    /// Charges the time up to `now` to whoever is in the disk.
    pub(super) fn settle(&mut self, now: Nanos) {
        let policy = &mut self.policy;
        self.meter.settle(now, &mut |payer, cost| {
            policy.charge(payer.client, payer.service, cost, now);
        });
    }

    /// Chooses whose request is next, if the disk takes another one. Settle first; follow with
    /// [`Disk::begin`] or [`Disk::head`].
    pub(super) fn pick(&mut self, now: Nanos) -> Option<Payer> {
        if self.meter.in_flight() >= self.depth {
            return None;
        }
        let pick = self.policy.pick(now)?;
        Some(Payer { client: pick.client, service: pick.service })
    }

    /// A request goes to the disk.
    pub(super) fn begin(&mut self, payer: Payer) {
        self.meter.begin(payer);
    }

    /// A request came back. Settle first.
    pub(super) fn end(&mut self, payer: Payer) {
        self.meter.end(payer);
    }

    /// A device's first waiting request is this one now, or there is none.
    pub(super) fn head(&mut self, device: DeviceId, head: Option<Head>, now: Nanos) {
        announce(self.policy.as_mut(), device, head, now);
    }

    /// When to pick again although nothing happens.
    pub(super) fn timeout(&self, now: Nanos) -> Option<Nanos> {
        if self.meter.in_flight() < self.depth { self.policy.timeout(now) } else { None }
    }

    pub(super) fn account(&self, device: DeviceId) -> Account {
        self.policy.account(ClientId(device.0)).unwrap_or_default()
    }

    pub(super) fn busy(&self) -> Nanos {
        self.meter.busy()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.meter.in_flight()
    }
}

/// Tells a policy what is at the head of a client's queue.
pub(super) fn announce(policy: &mut dyn Policy, device: DeviceId, head: Option<Head>, now: Nanos) {
    match head {
        Some(head) => policy.wake(ClientId(device.0), head, now),
        None => policy.block(ClientId(device.0), now),
    }
}

/// Lets a device in under its contract.
pub(super) fn admit(
    policy: &mut dyn Policy,
    device: DeviceId,
    contract: Contract,
    now: Nanos,
) -> Result<(), PolicyError> {
    policy.add(ClientId(device.0), contract, now)
}
