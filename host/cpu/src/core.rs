//! One round of the dispatcher: charge what was used, ask the policy who is owed time, tell the
//! kernel. No thread and no clock in here: time is an argument, the kernel is behind [`Threads`].
//!
//! What a round sees of the vCPUs is in `core/observe.rs`.

mod observe;
mod waiters;

use std::collections::HashMap;

use moirai_scheduler::{Amount, ClientId, Contract, Moment, PolicyError, Rank, Ranked, Span};

use super::judge::Backlog;
use super::kernel::Threads;
use super::slack::LEAD;
use super::vcpu::{Rest, Vcpu};
use super::{StallLog, VcpuId, VcpuSnapshot};
use observe::{Turn, promise};

/// Priority of the vCPU that is first in EDF order. The dispatcher itself stands above.
pub(super) const FIRST_PRIORITY: i32 = 90;
/// Priority of the last ones in order, should there be more vCPUs than priorities.
const LAST_PRIORITY: i32 = 2;

/// The shortest time after which the round is repeated because a budget may have run out: for the
/// vCPU that runs now, and for those that can only run when all before them sleep. What they
/// overrun in that time is carried as debt.
const GRAIN_FIRST: Span = Span::from_micros(20);
const GRAIN_OTHERS: Span = Span::from_micros(100);
/// The same for those that sleep, and for those that wait behind one that has not let go of the
/// core since the last round, and so will hardly do it now: a rest of some microseconds must not
/// cost a round every 100 us.
const GRAIN_BEHIND: Span = Span::from_micros(500);
/// The same for those that sleep behind one that has not let go of the core: they overrun by no
/// more if it does.
const GRAIN_HIDDEN: Span = Span::from_millis(2);

/// A vCPU that is owed time but asleep is looked at this often in every deadline.
const LOOKS_PER_DEADLINE: u64 = 4;

/// When the next round is due: the earlier of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// At this time.
    pub(super) at: Option<Moment>,
    /// When the vCPUs have run for this long, counted from the end of the round.
    pub(super) after: Option<Span>,
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
    fixed: Vec<Moment>,
    /// What a wake-up within a slice costs.
    wake_cost: Amount,
    scheduling: bool,
    stalls: StallLog,
    backlog: Backlog,
    next_id: u32,
    last: Moment,
    /// The next slice of those who were sent to their gates after they were ranked.
    refill: Option<Moment>,
    /// Somebody yields; look again after so much time.
    lead: Option<Span>,
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
            wake_cost: Amount::ZERO,
            scheduling,
            stalls,
            backlog: Backlog::default(),
            next_id: 0,
            last: Moment::ZERO,
            refill: None,
            lead: None,
            rounds: 0,
        }
    }

    /// What a wake-up within a slice costs from now on.
    pub(super) fn set_wake_cost(&mut self, cost: Amount) {
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
        thread: T,
        now: Moment,
    ) -> Result<VcpuId, PolicyError> {
        let id = VcpuId(self.next_id);
        self.policy.add(ClientId(id.0), contract, now)?;
        self.next_id = self.next_id.wrapping_add(1);
        self.places.insert(id.0, self.vcpus.len());
        self.vcpus.push(Vcpu::new(id, tenant, contract, thread, now));
        Ok(id)
    }

    pub(super) fn change(
        &mut self,
        id: VcpuId,
        contract: Contract,
        now: Moment,
    ) -> Result<(), PolicyError> {
        self.policy.change(ClientId(id.0), contract, now)?;
        let place = self.place(ClientId(id.0));
        if let Some(vcpu) = place.and_then(|place| self.vcpus.get_mut(place)) {
            vcpu.change(contract);
        }
        Ok(())
    }

    pub(super) fn detach(&mut self, id: VcpuId, now: Moment) -> Result<VcpuSnapshot, PolicyError> {
        let account = self.policy.remove(ClientId(id.0), now)?;
        let place = self.places.remove(&id.0).ok_or(PolicyError::Unknown(ClientId(id.0)))?;
        let vcpu = self.vcpus.swap_remove(place);
        if let Some(moved) = self.vcpus.get(place) {
            self.places.insert(moved.client().0, place);
        }
        self.order.retain(|rank| rank.client.0 != id.0);
        Ok(vcpu.snapshot(account, now))
    }

    pub(super) fn snapshot(&self) -> Vec<VcpuSnapshot> {
        let account = |vcpu: &Vcpu<T>| self.policy.account(vcpu.client()).unwrap_or_default();
        self.vcpus.iter().map(|vcpu| vcpu.snapshot(account(vcpu), self.last)).collect()
    }

    /// What is promised of the core, in millionths.
    pub(super) fn promised_ppm(&self) -> u64 {
        let share = |vcpu: &Vcpu<T>| {
            vcpu.contract().slice().time().saturating_mul(1_000_000) / vcpu.contract().period()
        };
        self.vcpus.iter().map(share).sum()
    }

    /// One round at `now`; says when the next one is due.
    pub(super) fn round(&mut self, now: Moment) -> Due {
        self.rounds += 1;
        let owed = self.measure(now);
        self.backlog.note(&self.stalls, now, now.since(self.last), owed);
        self.find_waiters(now);
        self.observe(now);
        self.report();
        self.charge(now);
        for vcpu in self.vcpus.iter_mut().filter(|vcpu| !vcpu.is_gone()) {
            vcpu.judge_late(&self.stalls, now, false);
        }
        self.last = now;
        self.rank(now);
        for vcpu in self.vcpus.iter_mut().filter(|vcpu| !vcpu.is_gone()) {
            let refills = self.policy.account(vcpu.client()).unwrap_or_default().refills;
            if vcpu.slice().is_the_one(refills) || vcpu.is_asleep() {
                vcpu.pass_over(refills);
            } else {
                let time = vcpu.accounts().time();
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
        let sharers = |vcpu: &&mut Vcpu<T>| !vcpu.is_gone() && vcpu.contract().extra().is_some();
        if !self.scheduling {
            return;
        }
        let mut floor = None;
        for vcpu in self.vcpus.iter_mut().filter(sharers) {
            if let Some(own) = vcpu.ask_for_slack(self.last) {
                floor = Some(floor.map_or(own, |least: Amount| least.min(own)));
            }
        }
        let Some(floor) = floor else { return };
        for vcpu in self.vcpus.iter_mut().filter(sharers) {
            if let Some(lead) = vcpu.settle_share(floor) {
                let lead = lead.max(LEAD).time();
                self.lead = Some(self.lead.map_or(lead, |least| least.min(lead)));
            }
        }
    }

    fn rank(&mut self, now: Moment) {
        self.order.clear();
        let order = &mut self.order;
        self.policy.ranks(now, &mut |rank| order.push(rank));
        self.place_waiters(now);
        for vcpu in &mut self.vcpus {
            vcpu.begin_ranking();
        }
        for rank in &self.order {
            let place = self.places.get(&rank.client.0);
            if let Some(vcpu) = place.and_then(|&place| self.vcpus.get_mut(place))
                && vcpu.rank_as(*rank)
            {
                // What it waited for before its refill was not its slice.
                let state = self.policy.state(rank.client);
                vcpu.slept_until(state.map_or(Moment::ZERO, |state| state.refill));
            }
        }
    }

    /// Brings the kernel's classes in line: first down, then up, so that nobody stands above
    /// somebody who is owed time before.
    fn apply(&mut self) {
        self.refill = None;
        for vcpu in self.vcpus.iter_mut().filter(|vcpu| !vcpu.is_gone() && !vcpu.may_run()) {
            match vcpu.place_of_rest(self.scheduling) {
                Rest::Fair(nice) => vcpu.go_to_slack(nice),
                Rest::Gate if vcpu.is_gated() => {}
                Rest::Gate => {
                    let state = self.policy.state(vcpu.client());
                    vcpu.stop(state.map_or(0, |state| state.left), self.last);
                    self.policy.block(vcpu.client(), self.last);
                    if let Some(state) = state.filter(|state| state.refill > self.last) {
                        let refill = self.refill.unwrap_or(state.refill);
                        self.refill = Some(refill.min(state.refill));
                    }
                }
            }
        }
        for (nth, rank) in self.order.iter().enumerate() {
            let place = self.places.get(&rank.client.0);
            let vcpu = place.and_then(|&place| self.vcpus.get_mut(place));
            if let Some(vcpu) = vcpu.filter(|vcpu| !vcpu.is_gone() && vcpu.may_run()) {
                vcpu.let_run(priority(nth));
            }
        }
    }

    fn due(&self, now: Moment) -> Due {
        let mut at = self.policy.timeout(now).into_iter().chain(self.refill).min();
        let mut sooner = |time: Moment| at = Some(at.map_or(time, |earliest| earliest.min(time)));
        let mut after = self.lead;
        let mut others = None;
        let mut held = false;
        let ran = self.vcpus.iter().filter(|vcpu| vcpu.used() > Amount::ZERO).count();
        for rank in &self.order {
            let Some(vcpu) = self.place(rank.client).and_then(|place| self.vcpus.get(place)) else {
                continue;
            };
            if vcpu.is_gone() || !vcpu.may_run() {
                continue;
            }
            let grain = match others {
                _ if vcpu.is_asleep() && held => GRAIN_HIDDEN,
                _ if vcpu.is_asleep() => GRAIN_BEHIND,
                Some(others) => others,
                None => {
                    held = vcpu.used() > Amount::ZERO && ran == 1;
                    others = Some(if held { GRAIN_BEHIND } else { GRAIN_OTHERS });
                    GRAIN_FIRST
                }
            };
            let budget = rank.budget.saturating_sub(vcpu.lead()).time().max(grain);
            after = Some(after.map_or(budget, |least: Span| least.min(budget)));
            if let Some(deadline) = vcpu.promised_by() {
                sooner(deadline.max(now));
            }
            let deadline = vcpu.contract().deadline();
            if let Some(wait) = vcpu.wait() {
                sooner(wait.seen().saturating_add(deadline).max(now));
            } else if vcpu.used().is_zero() && !rank.floats {
                sooner(now + (deadline / LOOKS_PER_DEADLINE).max(GRAIN_OTHERS));
            }
        }
        Due { at, after }
    }
}

fn priority(place: usize) -> i32 {
    let place = i32::try_from(place).unwrap_or(i32::MAX);
    FIRST_PRIORITY.saturating_sub(place).max(LAST_PRIORITY)
}
