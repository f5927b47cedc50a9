//! Whose misses were the machine's: a slice that was missed while the machine stood still is counted
//! apart from one that was missed while it ran.
//!
//! The schedulers count misses; they know no stalls. Every few milliseconds the loop compares their
//! counts with what it has seen before and, if there is a new one, looks into the log of stalls and
//! into its own list of *hiccups*: times in which its timer was late, although nothing of Moirai
//! stands above it on its core. A link of 100 Mbit/s sends a packet in 0.1 ms; a hiccup of one
//! millisecond is no stall, but enough to make the rest of a slice miss its deadline.

use std::collections::VecDeque;

use moirai_scheduler::{Account, Nanos};

use super::device::{Body, Device};
use super::disk::Disk;
use super::event_loop::EventLoop;
use super::link::Link;

/// How often misses are attributed.
pub(super) const INTERVAL: Nanos = 10_000_000;

/// A timer that is later than this was held up by the machine.
const HICCUP: Nanos = 250_000;
/// How many hiccups are remembered.
const REMEMBERED: usize = 256;

/// Times in which the loop's own timer was late.
#[derive(Debug, Default)]
pub(super) struct Hiccups(VecDeque<(Nanos, Nanos)>);

impl Hiccups {
    /// A timer planned for `planned` came at `woke`.
    pub(super) fn note(&mut self, planned: Nanos, woke: Nanos) {
        if woke.saturating_sub(planned) <= HICCUP {
            return;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((planned, woke));
    }

    fn overlap(&self, begin: Nanos, end: Nanos) -> bool {
        self.0.iter().any(|&(planned, woke)| planned < end && begin < woke)
    }
}

impl EventLoop {
    /// Attributes the misses since the last time.
    pub(super) fn audit(&mut self, now: Nanos) {
        if now.saturating_sub(self.audited_at) < INTERVAL {
            return;
        }
        for device in self.devices.values_mut() {
            let misses = account(&self.disks, &self.links, device).misses;
            let new = misses.saturating_sub(device.usage.misses_seen);
            if new == 0 {
                continue;
            }
            device.usage.misses_seen = misses;
            // The slice was released at most one period before it was missed.
            let begin = self.audited_at.saturating_sub(device.contract.period());
            if self.hiccups.overlap(begin, now) || self.stalls.overlaps(begin, now) {
                device.usage.misses_in_stall += new;
            }
        }
        self.audited_at = now;
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
mod tests {
    use super::*;

    #[test]
    fn only_a_late_timer_is_a_hiccup_and_the_list_stays_short() {
        let mut hiccups = Hiccups::default();
        hiccups.note(1_000_000, 1_000_000 + HICCUP);
        assert!(!hiccups.overlap(0, u64::MAX));
        for n in 1..=1_000 {
            hiccups.note(n * 10_000_000, n * 10_000_000 + HICCUP + 1);
        }
        assert_eq!(hiccups.0.len(), REMEMBERED);
        assert!(hiccups.overlap(10_000_000_000, 10_000_000_001));
        assert!(!hiccups.overlap(9_995_000_000, 10_000_000_000), "before the timer was due");
    }
}
