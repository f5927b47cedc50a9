//! Whose misses were the machine's: a promise that was broken while the machine stood still is
//! counted apart from one that was broken while it ran.
//!
//! The schedulers report misses; they know no stalls. Every few milliseconds the loop takes their
//! new ones and holds each against the *outages* of the machine: the log of stalls, and its own
//! list of *hiccups*, times in which its timer was late although nothing of Moirai stands above it
//! on its core. A link of 100 Mbit/s sends a packet in 0.1 ms; a hiccup of one millisecond is no
//! stall, but enough to make a packet late.
//!
//! What an outage excuses is in [`moirai_scheduler::excuse`].

use moirai_scheduler::excuse::excuse;
use moirai_scheduler::{Miss, Moment};

use crate::domain::Domain;
use crate::schedule::{Owner, Schedule};
use crate::seams::Seams;
use crate::snapshot::Excuse;

impl<S: Seams> Domain<S> {
    /// Attributes the misses since the last time.
    pub(crate) fn audit(&mut self, now: Moment) {
        if !self.outages.is_due(now) {
            return;
        }
        let mut misses = Vec::new();
        self.disks.iter_mut().for_each(|disk| disk.find_overdue(now));
        let disks = self.disks.iter_mut().map(|disk| &mut disk.schedule);
        let links = self.links.iter_mut().map(|link| link.schedule());
        disks.chain(links).for_each(|schedule| take_misses(schedule, &mut misses));
        if misses.is_empty() {
            return;
        }
        let outages = self.outages.all();
        for (Owner::Device(id), miss, spare_ppm) in misses {
            let Some(device) = self.devices.get_mut(id) else { continue };
            let (at_ns, late_ns) = (miss.deadline.as_nanos(), miss.late.as_nanos());
            match excuse(&miss, &outages, spare_ppm) {
                Some(hiccup) => {
                    let hiccup_ns = hiccup.as_nanos();
                    device.record.excuse(Excuse { at_ns, late_ns, hiccup_ns });
                }
                None => device.record.miss(miss.late, now),
            }
        }
    }
}

/// The misses of a resource's clients, each with what the others leave of it.
fn take_misses(schedule: &mut Schedule, into: &mut Vec<(Owner, Miss, u32)>) {
    let mut misses = Vec::new();
    schedule.policy().take_misses(&mut |miss| misses.push(miss));
    let known = misses.into_iter().filter_map(|miss| {
        Some((schedule.owner(miss.client)?, miss, schedule.spare_ppm_beside(miss.client)))
    });
    into.extend(known);
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
