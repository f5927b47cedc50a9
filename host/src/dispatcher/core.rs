//! One round of the dispatcher: charge what was used, ask the policy who is owed time, tell the
//! kernel. No thread and no clock in here: time is an argument, the kernel is behind [`Threads`].
//!
//! What a round sees of the vCPUs is in `core/observe.rs`.

mod observe;

use moirai_scheduler::{ClientId, Contract, Head, Nanos, Policy, PolicyError, Rank};

use super::judge::{Watch, judge_late, judge_served};
use super::kernel::{Class, Threads, nice};
use super::slack::LEAD;
use super::vcpu::Vcpu;
use super::{StallLog, VcpuId, VcpuSnapshot};
use observe::Turn;

/// Priority of the vCPU that is first in EDF order. The dispatcher itself stands above.
pub(super) const FIRST_PRIORITY: i32 = 90;
/// Priority of the last ones in order, should there be more vCPUs than priorities.
const LAST_PRIORITY: i32 = 2;

/// The shortest time after which the round is repeated because a budget may have run out: for the
/// vCPU that runs now, and for those that can only run when all before them sleep. What they
/// overrun in that time is carried as debt.
const GRAIN_FIRST: Nanos = 20_000;
const GRAIN_OTHERS: Nanos = 100_000;
/// The same for those that sleep, and for those that wait behind one that has not let go of the core since
/// the last round, and so will hardly do it now: a rest of some microseconds must not cost a round every
/// 100 us.
const GRAIN_BEHIND: Nanos = 500_000;

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
    policy: Box<dyn Policy>,
    vcpus: Vec<Vcpu<T>>,
    /// Who woke and who fell asleep since the last round; empty between rounds.
    turns: Vec<Turn>,
    order: Vec<Rank>,
    scheduling: bool,
    stalls: StallLog,
    next_id: u32,
    last: Nanos,
    /// Somebody yields; look again after so much time.
    lead: Option<Nanos>,
    pub(super) rounds: u64,
}

impl<T: Threads> Core<T> {
    pub(super) fn new(policy: Box<dyn Policy>, scheduling: bool, stalls: StallLog) -> Self {
        Self {
            policy,
            vcpus: Vec::new(),
            turns: Vec::new(),
            order: Vec::new(),
            scheduling,
            stalls,
            next_id: 0,
            last: 0,
            lead: None,
            rounds: 0,
        }
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
        self.policy.wake(ClientId(id.0), Head::default(), now);
        self.next_id = self.next_id.wrapping_add(1);
        let time = thread.cpu_time().unwrap_or_default();
        self.vcpus.push(Vcpu::new(id, tenant, contract, thread, time, now));
        Ok(id)
    }

    pub(super) fn change(
        &mut self,
        id: VcpuId,
        contract: Contract,
        now: Nanos,
    ) -> Result<(), PolicyError> {
        self.policy.change(ClientId(id.0), contract, now)?;
        if let Some(vcpu) = self.vcpus.iter_mut().find(|vcpu| vcpu.id == id) {
            vcpu.contract = contract;
            // The period under way mixes two contracts; judge from the next one on.
            vcpu.watch.judged = true;
            vcpu.tally.least_slice = None;
        }
        Ok(())
    }

    pub(super) fn detach(&mut self, id: VcpuId, now: Nanos) -> Result<VcpuSnapshot, PolicyError> {
        let account = self.policy.remove(ClientId(id.0), now)?;
        let place = self.vcpus.iter().position(|vcpu| vcpu.id == id);
        let place = place.ok_or(PolicyError::Unknown(ClientId(id.0)))?;
        let vcpu = self.vcpus.swap_remove(place);
        Ok(VcpuSnapshot::new(id, &vcpu.tenant, account, vcpu.tally))
    }

    pub(super) fn snapshot(&self) -> Vec<VcpuSnapshot> {
        self.vcpus
            .iter()
            .map(|vcpu| {
                let account = self.policy.account(ClientId(vcpu.id.0)).unwrap_or_default();
                VcpuSnapshot::new(vcpu.id, &vcpu.tenant, account, vcpu.tally)
            })
            .collect()
    }

    /// One round at `now`; says when the next one is due.
    pub(super) fn round(&mut self, now: Nanos) -> Due {
        self.rounds += 1;
        self.measure(now);
        self.report(now);
        self.charge(now);
        for vcpu in self.vcpus.iter_mut().filter(|vcpu| !vcpu.gone) {
            judge_late(vcpu, &self.stalls, now);
        }
        self.last = now;
        self.rank(now);
        for vcpu in self.vcpus.iter_mut().filter(|vcpu| !vcpu.gone) {
            let account = self.policy.account(ClientId(vcpu.id.0)).unwrap_or_default();
            if account.refills == vcpu.watch.refills {
                judge_served(vcpu);
            } else {
                let (refills, time) = (account.refills, vcpu.time);
                let judged = vcpu.asleep;
                vcpu.watch = Watch { begin: now, refills, time, judged };
                vcpu.share.begin_period();
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
            vcpu.wants_slack = vcpu.asks_for_slack();
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
        for vcpu in &mut self.vcpus {
            vcpu.rank = order.iter().find(|rank| rank.client.0 == vcpu.id.0).copied();
        }
    }

    /// Brings the kernel's classes in line: first down, then up, so that nobody stands above
    /// somebody who is owed time before.
    fn apply(&mut self) {
        for vcpu in self.vcpus.iter_mut().filter(|vcpu| !vcpu.gone && !vcpu.may_run()) {
            let class = match vcpu.contract.extra() {
                _ if !self.scheduling => Class::Fair(0),
                Some(_) if vcpu.share.yields() => Class::Gated,
                Some(weight) => Class::Fair(nice(weight)),
                None => Class::Gated,
            };
            if class == Class::Gated && vcpu.ends_at_gate() && vcpu.class != Some(class) {
                let state = self.policy.state(ClientId(vcpu.id.0));
                vcpu.way.close(state.map_or(0, |state| state.left));
            }
            vcpu.set_class(class);
        }
        for (place, rank) in self.order.iter().enumerate() {
            let vcpu = self.vcpus.iter_mut().find(|vcpu| vcpu.id.0 == rank.client.0);
            if let Some(vcpu) = vcpu.filter(|vcpu| !vcpu.gone && vcpu.may_run()) {
                vcpu.way.open();
                vcpu.stands_until = 0;
                vcpu.set_class(Class::Guaranteed(priority(place)));
            }
        }
    }

    fn due(&self, now: Nanos) -> Due {
        let mut at = self.policy.timeout(now);
        let mut after = self.lead;
        let mut others = None;
        for rank in &self.order {
            let vcpu = self.vcpus.iter().find(|vcpu| vcpu.id.0 == rank.client.0);
            let Some(vcpu) = vcpu.filter(|vcpu| !vcpu.gone && vcpu.may_run()) else { continue };
            let grain = match others {
                _ if vcpu.asleep => GRAIN_BEHIND,
                Some(others) => others,
                None => {
                    let let_go =
                        self.vcpus.iter().any(|other| other.used > 0 && other.id != vcpu.id);
                    let held = vcpu.used > 0 && !let_go;
                    others = Some(if held { GRAIN_BEHIND } else { GRAIN_OTHERS });
                    GRAIN_FIRST
                }
            };
            let budget = rank.budget.saturating_sub(vcpu.lead()).max(grain);
            after = Some(after.map_or(budget, |least: Nanos| least.min(budget)));
        }
        for vcpu in self.vcpus.iter().filter(|vcpu| vcpu.may_run() && vcpu.used == 0) {
            let look = now + (vcpu.contract.deadline() / LOOKS_PER_DEADLINE).max(GRAIN_OTHERS);
            at = Some(at.map_or(look, |earliest| earliest.min(look)));
        }
        Due { at, after }
    }
}

fn priority(place: usize) -> i32 {
    let place = i32::try_from(place).unwrap_or(i32::MAX);
    FIRST_PRIORITY.saturating_sub(place).max(LAST_PRIORITY)
}
