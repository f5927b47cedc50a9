//! How often a vCPU has gone to sleep, and how often nobody saw it.

use super::Vcpu;
use crate::kernel::Threads;

/// Sleeps as the kernel counts them, and those of them that rounds saw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sleeps {
    /// As the kernel said when it was asked last.
    counted: u64,
    /// Seen by rounds since then; what was seen before is not paid for.
    seen: u64,
    /// Not seen by anybody, and not paid for.
    unpaid: u64,
}

impl Sleeps {
    /// A round saw it fall asleep, or stopped it at its gate.
    pub(super) fn see(&mut self) {
        self.seen = self.seen.saturating_add(1);
    }

    /// The kernel has counted so many.
    pub(super) fn count(&mut self, counted: u64) {
        let new = counted.saturating_sub(self.counted).saturating_sub(self.seen);
        (self.counted, self.seen) = (counted, 0);
        self.unpaid = self.unpaid.saturating_add(new);
    }

    /// Those that nobody saw.
    pub(super) fn unpaid(self) -> u64 {
        self.unpaid
    }

    /// They are paid for, or forgiven.
    pub(super) fn settle(&mut self) {
        self.unpaid = 0;
    }
}

impl<T: Threads> Vcpu<T> {
    /// Asks the kernel whether it has slept unseen: what an interrupt or the host of this machine
    /// takes looks the same in the accounts of time. How many such sleeps are not paid for.
    pub(crate) fn ask_for_sleeps(&mut self) -> u64 {
        if let Ok(sleeps) = self.watched.thread().sleeps() {
            self.sleeps.count(sleeps);
        }
        self.sleeps.unpaid()
    }

    /// It may have slept unseen so often; how often it has and has to pay for it.
    pub(crate) fn take_naps(&mut self, suspected: u64) -> u64 {
        let naps = if suspected > 0 { suspected.min(self.ask_for_sleeps()) } else { 0 };
        self.sleeps.settle();
        self.slice.note_naps(naps);
        naps
    }
}
