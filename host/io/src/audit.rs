//! Whose misses were the machine's: a promise that was broken while the machine stood still is counted
//! apart from one that was broken while it ran.
//!
//! The schedulers report misses; they know no stalls. Every few milliseconds the loop takes their new
//! ones and holds each against the *outages* of the machine: the log of stalls, and its own list of
//! *hiccups*, times in which its timer was late although nothing of Moirai stands above it on its
//! core. A link of 100 Mbit/s sends a packet in 0.1 ms; a hiccup of one millisecond is no stall, but
//! enough to make a packet late.
//!
//! What an outage excuses is in [`moirai_scheduler::excuse`].

use std::collections::VecDeque;

use moirai_scheduler::admission::{WHOLE_PPM, reserved_ppm};
use moirai_scheduler::excuse::{Outage, excuse, union};
use moirai_scheduler::{Account, ClientId, Miss, Nanos};

use super::DeviceId;
use super::device::{Body, Device};
use super::disk::Disk;
use super::event_loop::EventLoop;
use super::link::Link;
use super::snapshot::Excuse;

/// How often misses are attributed.
pub(super) const INTERVAL: Nanos = 10_000_000;

/// A timer that is later than this was held up by the machine.
const HICCUP: Nanos = 250_000;
/// How many hiccups are remembered.
const REMEMBERED: usize = 256;

/// Times in which the loop's own timer was late.
#[derive(Debug, Default)]
pub(super) struct Hiccups(VecDeque<Outage>);

impl Hiccups {
    /// A timer planned for `planned` came at `woke`.
    pub(super) fn note(&mut self, planned: Nanos, woke: Nanos) {
        if woke.saturating_sub(planned) <= HICCUP {
            return;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Outage { begin: planned, end: woke });
    }

    /// Whether one of them ended after `begin`. They are noted in the order of their ends.
    pub(super) fn since(&self, begin: Nanos) -> bool {
        self.0.back().is_some_and(|hiccup| begin < hiccup.end)
    }
}

impl EventLoop {
    /// Attributes the misses since the last time.
    pub(super) fn audit(&mut self, now: Nanos) {
        if now.saturating_sub(self.audited_at) < INTERVAL {
            return;
        }
        self.audited_at = now;
        let mut misses = Vec::new();
        self.disks.iter_mut().for_each(|disk| disk.find_overdue(now));
        self.disks.iter_mut().for_each(|disk| disk.policy().take_misses(&mut |it| misses.push(it)));
        self.links.iter_mut().for_each(|link| link.policy().take_misses(&mut |it| misses.push(it)));
        if misses.is_empty() {
            return;
        }
        let stalls = self.stalls.all().into_iter();
        let stalls = stalls.map(|stall| Outage { begin: stall.begin, end: stall.end });
        let outages = union(stalls.chain(self.hiccups.0.iter().copied()).collect());
        for miss in misses {
            self.attribute(&miss, &outages, now);
        }
    }

    fn attribute(&mut self, miss: &Miss, outages: &[Outage], now: Nanos) {
        let ClientId(number) = miss.client;
        let id = DeviceId(number);
        let Some(place) = self.devices.get(&id).map(|device| resource(&device.body)) else {
            return;
        };
        let others = self.devices.values().filter(|it| it.id != id && resource(&it.body) == place);
        let others: Vec<_> = others.map(|device| device.contract).collect();
        let spare_ppm = WHOLE_PPM.saturating_sub(reserved_ppm(&others));
        let Some(device) = self.devices.get_mut(&id) else { return };
        match excuse(miss, outages, spare_ppm) {
            Some(hiccup_ns) => {
                device.record.excuse(Excuse {
                    at_ns: miss.deadline,
                    late_ns: miss.late,
                    hiccup_ns,
                });
            }
            None => device.record.miss(miss.late, now),
        }
    }
}

/// Which resource a device uses: a number that differs between disks and links.
pub(super) fn resource(body: &Body) -> (bool, usize) {
    match body {
        Body::Blk(blk) => (true, blk.disk),
        Body::Net(net) => (false, net.link),
    }
}

/// A device's account with its scheduler.
pub(super) fn account(disks: &[Disk], links: &[Link], device: &Device) -> Account {
    let account = match &device.body {
        Body::Blk(blk) => disks.get(blk.disk).map(|disk| disk.account(device.id)),
        Body::Net(net) => links.get(net.link).map(|link| link.account(device.id)),
    };
    account.unwrap_or_default()
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
