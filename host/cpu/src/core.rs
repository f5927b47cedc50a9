//! One round of the dispatcher: charge what was used, ask the policy who is owed time, tell the
//! kernel. No thread and no clock in here: time is an argument, the kernel is behind [`Threads`].
//!
//! What a round sees of the vCPUs is in `core/observe.rs`.

mod observe;
mod waiters;

use std::collections::HashMap;

use moirai_scheduler::{ClientId, Contract, Nanos, PolicyError, Rank, Ranked};

use super::judge::{Backlog, judge_late, judge_served};
use super::kernel::{Class, Threads, nice};
use super::slack::LEAD;
use super::vcpu::Vcpu;
use super::{StallLog, VcpuId, VcpuSnapshot};
use observe::{Turn, promise};

/// Priority of the vCPU that is first in EDF order. The dispatcher itself stands above.
pub(super) const FIRST_PRIORITY: i32 = 90;
/// Priority of the last ones in order, should there be more vCPUs than priorities.
const LAST_PRIORITY: i32 = 2;

/// The shortest time after which the round is repeated because a budget may have run out: for the
/// vCPU that runs now, and for those that can only run when all before them sleep. What they
/// overrun in that time is carried as debt.
const GRAIN_FIRST: Nanos = 20_000;
const GRAIN_OTHERS: Nanos = 100_000;
/// The same for those that sleep, and for those that wait behind one that has not let go of the
/// core since the last round, and so will hardly do it now: a rest of some microseconds must not
/// cost a round every 100 us.
const GRAIN_BEHIND: Nanos = 500_000;
/// The same for those that sleep behind one that has not let go of the core: they overrun by no
/// more if it does.
const GRAIN_HIDDEN: Nanos = 2_000_000;

/// A vCPU that is owed time but asleep is looked at this often in every deadline.
const LOOKS_PER_DEADLINE: Nanos = 4;

/// When the next round is due: the earlier of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// At this time.
    pub(super) at: Option<Nanos>,
    /// When the vCPUs have run for this long, counted from the end of the round.
    pub(super) after: Option<Nanos>,
}

/// All vCPUs of one core and the policy that rules them.
pub(super) struct Core<T> {
    policy: Box<dyn Ranked>,
    vcpus: Vec<Vcpu<T>>,
    /// Where in `vcpus` they are, by id.
    places: HashMap<u32, usize>,
    /// Who woke and who fell asleep since the last round; empty between rounds.
    turns: Vec<Turn>,
    order: Vec<Rank>,
    /// Deadlines of those that are awake; of use within a round only.
    fixed: Vec<Nanos>,
    /// What a wake-up within a slice costs.
    wake_cost: Nanos,
    scheduling: bool,
    stalls: StallLog,
    backlog: Backlog,
    next_id: u32,
    last: Nanos,
    /// The next slice of those who were sent to their gates after they were ranked.
    refill: Option<Nanos>,
    /// Somebody yields; look again after so much time.
    lead: Option<Nanos>,
    pub(super) rounds: u64,
}

impl<T: Threads> Core<T> {
    pub(super) fn new(policy: Box<dyn Ranked>, scheduling: bool, stalls: StallLog) -> Self {
        Self {
            policy,
            vcpus: Vec::new(),
            places: HashMap::new(),
            turns: Vec::new(),
            order: Vec::new(),
            fixed: Vec::new(),
            wake_cost: 0,
            scheduling,
            stalls,
            backlog: Backlog::default(),
            next_id: 0,
            last: 0,
            refill: None,
            lead: None,
            rounds: 0,
        }
    }

    /// What a wake-up within a slice costs from now on.
    pub(super) fn set_wake_cost(&mut self, cost: Nanos) {
        self.wake_cost = cost;
        self.policy.set_wake_cost(cost);
    }

    fn place(&self, client: ClientId) -> Option<usize> {
        self.places.get(&client.0).copied()
    }

    pub(super) fn attach(
        &mut self,
        tenant: String,
        contract: Contract,
        mut thread: T,
        now: Nanos,
    ) -> Result<VcpuId, PolicyError> {
        let id = VcpuId(self.next_id);
        self.policy.add(ClientId(id.0), contract, now)?;
        self.next_id = self.next_id.wrapping_add(1);
        let time = thread.cpu_time().unwrap_or_default();
        self.places.insert(id.0, self.vcpus.len());
        let mut vcpu = Vcpu::new(id, tenant, contract, thread, time, now);
        vcpu.ask_for_sleeps();
        vcpu.unpaid_sleeps = 0;
        self.vcpus.push(vcpu);
        Ok(id)
    }

    pub(super) fn change(
        &mut self,
        id: VcpuId,
        contract: Contract,
        now: Nanos,
    ) -> Result<(), PolicyError> {
        self.policy.change(ClientId(id.0), contract, now)?;
        let place = self.place(ClientId(id.0));
        if let Some(vcpu) = place.and_then(|place| self.vcpus.get_mut(place)) {
            vcpu.contract = contract;
            // The period under way mixes two contracts; judge from the next one on.
            vcpu.promise = None;
            vcpu.tally.least_slice = None;
        }
        Ok(())
    }

    pub(super) fn detach(&mut self, id: VcpuId, now: Nanos) -> Result<VcpuSnapshot, PolicyError> {
        let account = self.policy.remove(ClientId(id.0), now)?;
        let place = self.places.remove(&id.0).ok_or(PolicyError::Unknown(ClientId(id.0)))?;
        let vcpu = self.vcpus.swap_remove(place);
        if let Some(moved) = self.vcpus.get(place) {
            self.places.insert(moved.id.0, place);
        }
        self.order.retain(|rank| rank.client.0 != id.0);
        Ok(VcpuSnapshot::new(id, &vcpu.tenant, account, &vcpu.tally, vcpu.contract.slice(), now))
    }

    pub(super) fn snapshot(&self) -> Vec<VcpuSnapshot> {
        self.vcpus
            .iter()
            .map(|vcpu| {
                let account = self.policy.account(ClientId(vcpu.id.0)).unwrap_or_default();
                VcpuSnapshot::new(
                    vcpu.id,
                    &vcpu.tenant,
                    account,
                    &vcpu.tally,
                    vcpu.contract.slice(),
                    self.last,
                )
            })
            .collect()
    }

    /// What is promised of the core, in millionths.
    pub(super) fn promised_ppm(&self) -> u64 {
        let share = |vcpu: &Vcpu<T>| {
            vcpu.contract.slice().saturating_mul(1_000_000) / vcpu.contract.period()
        };
        self.vcpus.iter().map(share).sum()
    }

    /// One round at `now`; says when the next one is due.
    pub(super) fn round(&mut self, now: Nanos) -> Due {
        self.rounds += 1;
        let owed = self.measure(now);
        self.backlog.note(&self.stalls, now, now.saturating_sub(self.last), owed);
        self.find_waiters(now);
        self.observe(now);
        self.report();
        self.charge(now);
        for vcpu in self.vcpus.iter_mut().filter(|vcpu| !vcpu.gone) {
            judge_late(vcpu, &self.stalls, now, false);
        }
        self.last = now;
        self.rank(now);
        for vcpu in self.vcpus.iter_mut().filter(|vcpu| !vcpu.gone) {
            let account = self.policy.account(ClientId(vcpu.id.0)).unwrap_or_default();
            if account.refills == vcpu.refills || vcpu.asleep {
                vcpu.refills = account.refills;
                judge_served(vcpu);
            } else {
                let time = vcpu.time;
                promise(vcpu, self.policy.as_ref(), now, time, self.backlog);
            }
        }
        self.share_slack();
        self.apply();
        self.due(now)
    }

    /// Finds out who has had more than its share of the slack, and when to look again.
    fn share_slack(&mut self) {
        self.lead = None;
        let sharers = |vcpu: &&mut Vcpu<T>| !vcpu.gone && vcpu.contract.extra().is_some();
        if !self.scheduling {
            return;
        }
        let mut floor = None;
        for vcpu in self.vcpus.iter_mut().filter(sharers) {
            vcpu.wants_slack = vcpu.asks_for_slack(self.last);
            if vcpu.wants_slack {
                let own = vcpu.share.virtual_time();
                floor = Some(floor.map_or(own, |least: Nanos| least.min(own)));
            }
        }
        let Some(floor) = floor else { return };
        for vcpu in self.vcpus.iter_mut().filter(sharers) {
            vcpu.share.settle(vcpu.wants_slack, floor);
            if vcpu.share.yields() {
                let lead = vcpu.share.lead(floor).max(LEAD);
                self.lead = Some(self.lead.map_or(lead, |least| least.min(lead)));
            }
        }
    }

    fn rank(&mut self, now: Nanos) {
        self.order.clear();
        let order = &mut self.order;
        self.policy.ranks(now, &mut |rank| order.push(rank));
        self.place_waiters(now);
        for vcpu in &mut self.vcpus {
            vcpu.floated = vcpu.rank.take().is_some_and(|rank| rank.floats);
        }
        for rank in &self.order {
            let place = self.places.get(&rank.client.0);
            if let Some(vcpu) = place.and_then(|&place| self.vcpus.get_mut(place)) {
                vcpu.rank = Some(*rank);
                if rank.floats && !vcpu.floated {
                    // What it waited for before its refill was not its slice.
                    let state = self.policy.state(rank.client);
                    vcpu.slept_at = vcpu.slept_at.max(state.map_or(0, |state| state.refill));
                }
            }
        }
    }

    /// Brings the kernel's classes in line: first down, then up, so that nobody stands above
    /// somebody who is owed time before.
    fn apply(&mut self) {
        self.refill = None;
        for vcpu in self.vcpus.iter_mut().filter(|vcpu| !vcpu.gone && !vcpu.may_run()) {
            let class = match vcpu.contract.extra() {
                _ if !self.scheduling => Class::Fair(0),
                Some(_) if vcpu.share.yields() => Class::Gated,
                Some(weight) => Class::Fair(nice(weight)),
                // To stop a sleeper at its gate is to wake it. It is stopped when it is seen to
                // run.
                None if vcpu.asleep && vcpu.class != Some(Class::Gated) => Class::Fair(0),
                None => Class::Gated,
            };
            if class == Class::Gated && vcpu.class != Some(class) {
                let client = ClientId(vcpu.id.0);
                let state = self.policy.state(client);
                if vcpu.ends_at_gate() {
                    vcpu.stop_latency.close(state.map_or(0, |state| state.left));
                }
                self.policy.block(client, self.last);
                if let Some(state) = state.filter(|state| state.refill > self.last) {
                    let refill = self.refill.unwrap_or(state.refill);
                    self.refill = Some(refill.min(state.refill));
                }
                (vcpu.asleep, vcpu.slept_at) = (true, self.last);
                vcpu.note_sleep();
            }
            vcpu.set_class(class);
        }
        for (nth, rank) in self.order.iter().enumerate() {
            let place = self.places.get(&rank.client.0);
            let vcpu = place.and_then(|&place| self.vcpus.get_mut(place));
            if let Some(vcpu) = vcpu.filter(|vcpu| !vcpu.gone && vcpu.may_run()) {
                vcpu.stop_latency.open();
                vcpu.stands_until = 0;
                vcpu.gate_runs = u64::from(vcpu.class == Some(Class::Gated));
                vcpu.set_class(Class::Guaranteed(priority(nth)));
            }
        }
    }

    fn due(&self, now: Nanos) -> Due {
        let mut at = self.policy.timeout(now).into_iter().chain(self.refill).min();
        let mut sooner = |time: Nanos| at = Some(at.map_or(time, |earliest| earliest.min(time)));
        let mut after = self.lead;
        let mut others = None;
        let mut held = false;
        let ran = self.vcpus.iter().filter(|vcpu| vcpu.used > 0).count();
        for rank in &self.order {
            let Some(vcpu) = self.place(rank.client).and_then(|place| self.vcpus.get(place)) else {
                continue;
            };
            if vcpu.gone || !vcpu.may_run() {
                continue;
            }
            let grain = match others {
                _ if vcpu.asleep && held => GRAIN_HIDDEN,
                _ if vcpu.asleep => GRAIN_BEHIND,
                Some(others) => others,
                None => {
                    held = vcpu.used > 0 && ran == 1;
                    others = Some(if held { GRAIN_BEHIND } else { GRAIN_OTHERS });
                    GRAIN_FIRST
                }
            };
            let budget = rank.budget.saturating_sub(vcpu.lead()).max(grain);
            after = Some(after.map_or(budget, |least: Nanos| least.min(budget)));
            if let Some(promise) = vcpu.promise {
                sooner(promise.deadline.max(now));
            }
            if let Some((_, seen)) = vcpu.hidden {
                sooner(seen.saturating_add(vcpu.contract.deadline()).max(now));
            }
            if vcpu.used == 0 && !rank.floats && vcpu.hidden.is_none() {
                sooner(now + (vcpu.contract.deadline() / LOOKS_PER_DEADLINE).max(GRAIN_OTHERS));
            }
        }
        Due { at, after }
    }
}

fn priority(place: usize) -> i32 {
    let place = i32::try_from(place).unwrap_or(i32::MAX);
    FIRST_PRIORITY.saturating_sub(place).max(LAST_PRIORITY)
}
