//! What a round of the dispatcher finds out about its vCPUs: who ran, who woke, who fell asleep,
//! and when.
//!
//! The policy has to be told of sleeps and wake-ups. The kernel does not report them: it reports,
//! for each vCPU, how long it ran (`run`) and how long it was runnable and waited for the core
//! (`wait`). A round takes both since the round before and concludes:
//!
//! - The vCPU slept for the rest: `slept = elapsed - run - wait`.
//! - If it slept and is runnable now, or has run, it woke at `wake = now - run - wait`.
//! - If it is owed time and is not runnable now, it fell asleep when it had run: at `last + run`.
//!
//! The round tells the policy of these events in the order of their times. With each event it first
//! charges what was used before it. So a slice begins when its owner woke, and the wake-up rule
//! cuts the slice of a sleeper to what the sleeper could have used anyway.
//!
//! A vCPU that stands at its gate counts as asleep, because nobody can see whether it wants to run.
//! When the dispatcher opens the gate for the next slice, it assumes that the vCPU has wanted to
//! run since that slice was due; if the vCPU falls asleep at once, the dispatcher takes that back.
//!
//! vCPUs that wait and have not run since they woke are in `waiters.rs`.

use moirai_scheduler::{Amount, Head, Moment, Policy, Span};

use super::Core;
use crate::judge::{Backlog, Promise};
use crate::kernel::{CpuTime, Threads};
use crate::vcpu::{Accounts, DOZE, Seen, Vcpu, Wait};

/// What a vCPU runs at most between its gate and its next sleep.
const BRIEF: Amount = Amount::from_micros(200);
/// Switches to a vCPU in the time of one look that are no naps: after the round or a wake-up, and
/// after a thread of the kernel.
const EXPLAINED: u64 = 2;
/// No nap is shorter: the way out of the guest and back.
const NAP_LEAST: Span = Span::from_micros(4);

/// What a vCPU did since the last round.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// It woke no earlier than `since`, which may be before the last round, and probably at `at`.
    Woke {
        since: Moment,
        at: Moment,
    },
    /// It fell asleep.
    Slept,
    /// It slept in the meantime, in naps that are put together to one.
    NapBegan,
    NapEnded,
}

/// It woke or fell asleep at a time before this round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// No earlier than the last round.
    pub(super) at: Moment,
    pub(super) place: usize,
    pub(super) what: What,
}

impl<T: Threads> Core<T> {
    /// Reads the CPU times. A thread that has none any more is gone. Whoever stands at its gate is
    /// left there until its next slice: one that has slipped through pays then. Returns what was
    /// used by those who are owed time.
    pub(super) fn measure(&mut self, now: Moment) -> Amount {
        let mut owed = Amount::ZERO;
        for vcpu in self.vcpus.iter_mut().filter(|vcpu| !vcpu.is_gone()) {
            match vcpu.measure(now, self.last) {
                Seen::Used(used) if vcpu.rank().is_some() => owed = owed.saturating_add(used),
                Seen::Used(_) | Seen::Stands => {}
                Seen::ReachedGate => {
                    let state = self.policy.state(vcpu.client());
                    vcpu.stand_until(state.map_or(Moment::ZERO, |state| state.refill));
                }
                Seen::Ended => self.policy.block(vcpu.client(), now),
            }
        }
        owed
    }

    /// Finds out who woke and who fell asleep since the last round.
    pub(super) fn observe(&mut self, now: Moment) {
        for (place, vcpu) in self.vcpus.iter_mut().enumerate() {
            if vcpu.is_gone() || vcpu.is_gated() {
                continue;
            }
            let busy = vcpu.accounts().busy();
            let elapsed = now.since(self.last);
            // A wait that is over may have begun before the last round, and looked like sleep then.
            let before = if vcpu.is_asleep() { Span::ZERO } else { vcpu.slice().unseen() };
            let slept = (before + elapsed).saturating_sub(busy).min(elapsed);
            // Its slice is not released to one that sleeps.
            let refill = if vcpu.is_asleep() || vcpu.rank().is_some() {
                None
            } else {
                let state = self.policy.state(vcpu.client());
                state.map(|state| state.refill).filter(|&refill| refill <= now)
            };
            let sleeps = falls_asleep(vcpu, slept, refill.is_some(), now);
            if let Some(slept_at) = vcpu.slept_at().filter(|_| vcpu.used() > Amount::ZERO) {
                let opened = match vcpu.end_wait() {
                    Some(Wait::Gate { due, .. }) => Some(due),
                    Some(Wait::Seen { .. }) | None => None,
                };
                if opened.is_some() && sleeps && vcpu.used() <= BRIEF {
                    vcpu.sleeps_on(now - slept);
                    continue;
                }
                if sleeps {
                    vcpu.blur(slept);
                }
                // It woke, waited, ran and maybe sleeps again: that took it `busy`.
                let ended = if sleeps { now - slept } else { now };
                let woke = opened.unwrap_or(ended.saturating_sub(busy).max(slept_at));
                // To the policy the earliest time is told that it can have been. A slice that seems
                // to begin later than it did ends its period later, and a task whose period is the
                // contract's would wake before that for ever after.
                let earliest = self.last.saturating_sub(vcpu.accounts().waited()).max(slept_at);
                let since = opened.unwrap_or(earliest.min(woke));
                let what = What::Woke { since, at: woke };
                self.turns.push(Turn { at: since.max(self.last), place, what });
            }
            let nap = vcpu.unseen_sleep(elapsed, if sleeps { slept } else { Span::ZERO });
            let nap = nap.filter(|_| vcpu.ask_for_sleeps() > 0);
            if sleeps {
                let at = (now - slept)
                    .min(refill.map_or(now, |refill| refill.saturating_sub(Span::ONE)));
                self.turns.push(Turn { at, place, what: What::Slept });
            } else if let Some(nap) = nap {
                self.turns.push(Turn { at: now - nap, place, what: What::NapBegan });
                self.turns.push(Turn { at: now, place, what: What::NapEnded });
            }
        }
    }

    /// Tells the policy who woke and who fell asleep since the last round, in the order of time.
    pub(super) fn report(&mut self) {
        let mut turns = std::mem::take(&mut self.turns);
        turns.sort_by_key(|turn| turn.at);
        for Turn { at, place, what } in turns.drain(..) {
            match what {
                What::Woke { since, at: woke } => self.woke(place, since, woke, at),
                What::Slept => self.fell_asleep(place, at),
                What::NapBegan => self.nap_began(place, at),
                What::NapEnded => self.nap_ended(place, at),
            }
        }
        self.turns = turns;
    }

    fn woke(&mut self, place: usize, since: Moment, woke: Moment, at: Moment) {
        let Some(vcpu) = self.vcpus.get_mut(place) else { return };
        vcpu.wake();
        self.policy.wake(vcpu.client(), Head { arrival: since, ..Head::default() }, at);
        let before = vcpu.accounts().before();
        promise(vcpu, self.policy.as_ref(), woke, before, self.backlog);
    }

    fn fell_asleep(&mut self, place: usize, at: Moment) {
        let Some(vcpu) = self.vcpus.get_mut(place) else { return };
        vcpu.judge_late(&self.stalls, at, true);
        book(vcpu, self.policy.as_mut(), self.scheduling, at);
        self.policy.block(vcpu.client(), at);
        vcpu.fall_asleep(at);
    }

    fn nap_began(&mut self, place: usize, at: Moment) {
        let Some(vcpu) = self.vcpus.get_mut(place) else { return };
        vcpu.judge_late(&self.stalls, at, false);
        book(vcpu, self.policy.as_mut(), self.scheduling, at);
        self.policy.block(vcpu.client(), at);
    }

    /// What the nap costs in switches is paid where naps are counted.
    fn nap_ended(&mut self, place: usize, at: Moment) {
        let Some(vcpu) = self.vcpus.get_mut(place) else { return };
        self.policy.set_wake_cost(Amount::ZERO);
        self.policy.wake(vcpu.client(), Head::default(), at);
        self.policy.set_wake_cost(self.wake_cost);
        let time = vcpu.accounts().time();
        promise(vcpu, self.policy.as_ref(), at, time, self.backlog);
    }

    /// Books what was used since the last round, and lets those pay who slept too shortly to be
    /// seen.
    pub(super) fn charge(&mut self, now: Moment) {
        for vcpu in &mut self.vcpus {
            book(vcpu, self.policy.as_mut(), self.scheduling, now);
        }
        let mut above: u64 = 0;
        for rank in &self.order {
            let Some(&place) = self.places.get(&rank.client.0) else { continue };
            let Some(vcpu) = self.vcpus.get_mut(place) else { continue };
            let suspected = naps(vcpu.accounts(), above, now.since(self.last));
            let naps = vcpu.take_naps(suspected);
            above = above.saturating_add(vcpu.accounts().runs());
            for _ in (0..naps).filter(|_| self.wake_cost > Amount::ZERO) {
                let state = self.policy.state(rank.client);
                if vcpu.is_asleep() || state.is_none_or(|state| state.left <= 0) {
                    break;
                }
                self.policy.block(rank.client, now);
                self.policy.wake(rank.client, Head::default(), now);
                vcpu.pay(self.wake_cost);
            }
        }
    }
}

/// How often a vCPU may have slept and woken since the last round although it counts as awake: it
/// was switched to more often than the last round and those above it explain. Whether it has, the
/// kernel is asked.
fn naps(seen: &Accounts, above: u64, elapsed: Span) -> u64 {
    let slept = elapsed.saturating_sub(seen.busy());
    seen.runs().saturating_sub(above.saturating_add(EXPLAINED)).min(slept / NAP_LEAST)
}

/// Notes what a vCPU is promised from `begin` on.
pub(super) fn promise<T>(
    vcpu: &mut Vcpu<T>,
    policy: &dyn Policy,
    begin: Moment,
    time: CpuTime,
    backlog: Backlog,
) {
    let client = vcpu.client();
    let whole = vcpu.begin_slice(policy.account(client).unwrap_or_default().refills);
    let promise = policy.state(client).and_then(|state| {
        // A whole slice is due so long after it woke, whatever earlier time the policy was told.
        let due = begin.saturating_add(vcpu.contract().deadline()).min(state.refill);
        let deadline = if whole { state.deadline.max(due) } else { state.deadline };

        let left = u64::try_from(state.left).map(Amount::from_nanos).ok()?;
        // Of a slice in which it slept more than was seen, less is left than the policy knows.
        let amount = left.min(deadline.since(begin).service());
        let amount = amount.checked_sub(vcpu.slice().unsure().service());
        let amount = amount.filter(|&amount| amount > Amount::ZERO)?;
        let (noted, backlog) = (backlog.noted, backlog.left);
        Some(Promise { begin, deadline, amount, time, whole, noted, backlog })
    });
    vcpu.promise(promise);
}

/// Whether one that was awake in the meantime is asleep now.
fn falls_asleep<T: Threads>(vcpu: &mut Vcpu<T>, slept: Span, refill: bool, now: Moment) -> bool {
    let was_awake = !vcpu.is_asleep() || vcpu.used() > Amount::ZERO;
    let may_sleep = vcpu.used().is_zero() || slept > DOZE;
    // One that worked a little without a budget is not to be woken at its gate.
    let matters = vcpu.may_run() || refill || vcpu.is_asleep();
    was_awake && may_sleep && matters && vcpu.is_runnable(now).is_ok_and(|runnable| !runnable)
}

/// Books what one has used until `at`.
fn book<T>(vcpu: &mut Vcpu<T>, policy: &mut dyn Policy, scheduling: bool, at: Moment) {
    if let Some((service, used)) = vcpu.book(scheduling) {
        policy.charge(vcpu.client(), service, used, at);
    }
}
