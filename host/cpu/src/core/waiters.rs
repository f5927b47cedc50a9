//! Who woke and waits for the core behind others: that is in no account before it has run.
//!
//! A sleeper's deadline moves on with the time, that of a waiter does not, so one that waits unseen
//! would fall behind others that are due after it. To ask the kernel for its state is dear. It is
//! asked only when the answer can change the order:
//!
//! 1. It can wait only if somebody above it ran since the last round, and nobody below.
//! 2. If it does, it woke after the last time at which it is known to have slept. So its deadline
//!    matters only if another, fixed one lies between that time and now, both plus `D`.
//! 3. Before its refill its deadline is fixed, but what is left to it falls as long as it seems to
//!    sleep.
//!
//! One that is found waiting keeps the earliest deadline it can have, until it has run and the
//! accounts tell.

use moirai_scheduler::{Amount, Moment, Rank};

use super::Core;
use super::observe::{Turn, What};
use crate::kernel::Threads;
use crate::vcpu::Wait;

impl<T: Threads> Core<T> {
    /// Looks for those that wait. The order is still that of the last round.
    pub(super) fn find_waiters(&mut self, now: Moment) {
        self.note_fixed(now);
        let ran = |core: &Self, rank: &Rank| {
            core.place(rank.client).is_some_and(|place| core.vcpus[place].used() > Amount::ZERO)
        };
        let mut above = self.order.iter().filter(|rank| ran(self, rank)).count();
        let mut below =
            self.vcpus.iter().any(|vcpu| vcpu.used() > Amount::ZERO && vcpu.rank().is_none());
        for index in (0..self.order.len()).rev() {
            let Rank { client, floats, .. } = self.order[index];
            let Some(place) = self.place(client) else { continue };
            let (last, vcpu) = (self.last, &mut self.vcpus[place]);
            if vcpu.used() > Amount::ZERO {
                (above, below) = (above - 1, true);
                continue;
            }
            let Some(since) = vcpu.slept_at().filter(|_| !vcpu.is_gone() && !vcpu.is_gated())
            else {
                continue;
            };
            let deadline = vcpu.contract().deadline();
            if let Some(wait) = vcpu.wait() {
                if now >= wait.seen().saturating_add(deadline) {
                    let since = wait.slice_since();
                    self.turns.push(Turn {
                        at: last,
                        place,
                        what: What::Woke { since, at: since },
                    });
                }
                continue;
            }
            if below || above == 0 {
                vcpu.slept_until(last);
                continue;
            }
            let next = self.fixed.partition_point(|&fixed| fixed <= since + deadline);
            let matters = self.fixed.get(next).is_some_and(|&fixed| fixed <= now + deadline);
            if floats && !matters {
                continue;
            }
            if !vcpu.is_runnable(now).unwrap_or(false) {
                vcpu.sleeps_on(now);
            } else if floats {
                vcpu.note_wait(Wait::Seen { since, seen: now });
            } else {
                self.turns.push(Turn {
                    at: since.max(last),
                    place,
                    what: What::Woke { since, at: since },
                });
            }
        }
    }

    /// Collects the deadlines of those that are awake, in order.
    fn note_fixed(&mut self, now: Moment) {
        self.fixed.clear();
        for vcpu in self.vcpus.iter().filter(|vcpu| !vcpu.is_gone()) {
            let deadline = vcpu.contract().deadline();
            if vcpu.is_asleep() {
                self.fixed.extend(vcpu.wait().map(|wait| wait.since() + deadline));
                continue;
            }
            let Some(state) = self.policy.state(vcpu.client()) else { continue };
            if state.left > 0 {
                self.fixed.push(state.deadline);
            }
            if state.refill <= now {
                self.fixed.push(state.refill.saturating_add(deadline));
            }
        }
        self.fixed.sort_unstable();
    }

    /// Gives those that wait the deadlines they have, and those whose gates are about to be opened.
    pub(super) fn place_waiters(&mut self, now: Moment) {
        let mut moved = false;
        for rank in self.order.iter_mut().filter(|rank| rank.floats) {
            let Some(&place) = self.places.get(&rank.client.0) else { continue };
            let Some(vcpu) = self.vcpus.get_mut(place) else { continue };
            if vcpu.is_gated() {
                let state = self.policy.state(rank.client);
                let due = state.map_or(now, |state| state.refill);
                let length = vcpu.contract().period();
                let period = due + now.since(due) / length * length;
                vcpu.note_wait(Wait::Gate { due, period });
            }
            if let Some(wait) = vcpu.wait() {
                rank.deadline = rank.deadline.saturating_sub(now.since(wait.since()));
                (rank.floats, moved) = (false, true);
            }
        }
        if moved {
            self.order.sort_unstable_by_key(|rank| (rank.deadline, rank.client));
        }
    }
}
