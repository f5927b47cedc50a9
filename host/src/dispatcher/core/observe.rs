//! What a round observes: who ran, who woke, who fell asleep, and when.
//!
//! The policy's rules ask for more than accounts, and the kernel does not say when a vCPU halts or wakes. A
//! round sees only how long each ran and how long it waited for the core. The rest of the time it slept: so a vCPU
//! that is owed time and is not runnable now has been asleep since it had run, and one that slept and
//! has run woke as long ago as it ran and waited. The policy is told so in the order of these times and with what was
//! used before each of them. Its wake-up rule then cuts the slice of a sleeper to what it could have used anyway, and
//! it cannot save it up to crowd others out at the end of its period.

use moirai_scheduler::{ClientId, Head, Nanos, Policy, Service};

use super::Core;
use crate::dispatcher::kernel::{Class, Threads};
use crate::dispatcher::vcpu::Vcpu;

/// Who has not slept for longer is not asked. A wait for the core is in the accounts only when it is over: the
/// time of a round itself looks like sleep to whoever it has interrupted.
const DOZE: Nanos = 50_000;

/// It woke or fell asleep at a time before this round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    at: Nanos,
    place: usize,
    awake: bool,
}

impl<T: Threads> Core<T> {
    /// Reads the CPU times. A thread that has none any more is gone. Whoever stands at its gate is left there
    /// until its next slice: one that has slipped through pays then.
    pub(super) fn measure(&mut self, now: Nanos) {
        for vcpu in self.vcpus.iter_mut().filter(|vcpu| !vcpu.gone) {
            (vcpu.used, vcpu.waited, vcpu.unbooked) = (0, 0, 0);
            if now < vcpu.stands_until {
                continue;
            }
            let Ok(time) = vcpu.thread.cpu_time() else {
                vcpu.gone = true;
                self.policy.block(ClientId(vcpu.id.0), now);
                continue;
            };
            vcpu.used = time.run.saturating_sub(vcpu.time.run);
            vcpu.waited = time.wait.saturating_sub(vcpu.time.wait);
            vcpu.unbooked = vcpu.used;
            vcpu.time = time;
            vcpu.way.ran(vcpu.used);
            if vcpu.used > 0 {
                (vcpu.ran_at, vcpu.waits) = (now, false);
            } else if vcpu.ends_at_gate() && vcpu.class == Some(Class::Gated) {
                let state = self.policy.state(ClientId(vcpu.id.0));
                vcpu.stands_until = state.map_or(0, |state| state.refill);
            }
        }
    }

    /// Tells the policy who woke and who fell asleep since the last round.
    pub(super) fn report(&mut self, now: Nanos) {
        let turns = &mut self.turns;
        for (place, vcpu) in self.vcpus.iter_mut().enumerate().filter(|(_, vcpu)| !vcpu.gone) {
            let busy = vcpu.used + vcpu.waited;
            let slept = now.saturating_sub(self.last).saturating_sub(busy);
            let sleeps = falls_asleep(vcpu, slept);
            if vcpu.asleep && vcpu.used > 0 {
                let at = if sleeps { 0 } else { now.saturating_sub(busy) }.max(self.last);
                turns.push(Turn { at, place, awake: true });
            }
            if sleeps {
                turns.push(Turn { at: now - slept, place, awake: false });
            }
        }
        turns.sort_by_key(|turn| turn.at);
        for Turn { at, place, awake } in self.turns.drain(..) {
            let Some(vcpu) = self.vcpus.get_mut(place) else { continue };
            let client = ClientId(vcpu.id.0);
            vcpu.asleep = !awake;
            if awake {
                self.policy.wake(client, Head::default(), at);
            } else {
                // It slept in this period: whatever it does not get of its slice is its own doing.
                vcpu.watch.judged = true;
                book(vcpu, self.policy.as_mut(), self.scheduling, at);
                self.policy.block(client, at);
            }
        }
    }

    /// Books what was used since the last round.
    pub(super) fn charge(&mut self, now: Nanos) {
        for vcpu in &mut self.vcpus {
            book(vcpu, self.policy.as_mut(), self.scheduling, now);
        }
    }
}

/// Whether one that was awake in the meantime is asleep now.
fn falls_asleep<T: Threads>(vcpu: &mut Vcpu<T>, slept: Nanos) -> bool {
    let was_awake = !vcpu.asleep || vcpu.used > 0;
    let may_sleep = vcpu.used == 0 || slept > DOZE;
    was_awake && may_sleep && vcpu.may_run() && vcpu.is_runnable().is_ok_and(|runnable| !runnable)
}

/// Books what one has used until `at`.
fn book<T>(vcpu: &mut Vcpu<T>, policy: &mut dyn Policy, scheduling: bool, at: Nanos) {
    let used = std::mem::take(&mut vcpu.unbooked);
    if used == 0 {
        return;
    }
    // Who has no part in the slack pays for what it took on its way to the gate.
    let owed = vcpu.rank.is_some() || vcpu.ends_at_gate() && scheduling;
    let service = if owed { Service::Guaranteed } else { Service::Extra };
    policy.charge(ClientId(vcpu.id.0), service, used, at);
    if let (Service::Extra, Some(weight)) = (service, vcpu.contract.extra()) {
        vcpu.share.book(used, weight);
    }
}
