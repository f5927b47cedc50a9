//! The invariants of docs/scheduling.md, checked on every call to a policy.
//!
//! [`Checked`] stands between an engine and a policy and sees every call. It owns a record of its
//! own of what each client was given and when. Invariants 9 and 11 concern whole runs; they, and
//! the deadlines of admitted sets, are checked in [`crate::world`].

use std::sync::{Arc, Mutex, PoisonError};

use moirai_scheduler::{
    Account, ClientId, ClientState, Contract, Head, Mode, Nanos, Pick, Policy, PolicyError, Service,
};
use serde::{Deserialize, Serialize};

use crate::supply::Supply;

/// What is checked: the invariants by number, and as 12 that admitted sets miss no deadline.
pub const INVARIANTS: [&str; 12] = [
    "one state; d never decreases; one refill a period",
    "-e <= r <= s",
    "the pick is the earliest deadline; no slack meanwhile",
    "a wake-up leaves r*D <= (d-t)*s, or costs its sleep",
    "slack changes neither r nor d",
    "supply >= sbf(W) - B - e in every window",
    "idle only if nobody may be served",
    "slack fairness <= Q(1/w_i + 1/w_j)",
    "others change guaranteed service by <= B + e",
    "timeouts are never late",
    "guaranteed + slack + overhead + idle = elapsed",
    "admitted sets miss no deadline",
];

/// Numbers of the invariants, counted from 1, that a policy claims.
#[must_use]
pub fn claims(policy: &str) -> &'static [usize] {
    match policy {
        "atropos" => &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        "nemesis" => &[1, 2, 3, 5, 7, 8, 10, 11],
        "xen" => &[1, 3, 5, 7, 8, 10, 11],
        "usd" => &[1, 5, 11],
        "drr" | "fifo" => &[7, 11],
        _ => &[11],
    }
}

/// How often each invariant was checked and broken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Decisions taken.
    pub decisions: u64,
    /// Checks of invariant `i + 1`.
    pub checks: [u64; 12],
    /// How many of them failed.
    pub violations: [u64; 12],
    /// What failed first.
    pub first: Option<String>,
}

impl Tally {
    /// Counts a check of an invariant, numbered from 1.
    pub fn check(&mut self, number: usize, holds: bool, what: impl FnOnce() -> String) {
        self.checks[number - 1] += 1;
        if !holds {
            self.violations[number - 1] += 1;
            self.first.get_or_insert_with(|| format!("invariant {number}: {}", what()));
        }
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.decisions += other.decisions;
        for i in 0..12 {
            self.checks[i] += other.checks[i];
            self.violations[i] += other.violations[i];
        }
        if self.first.is_none() {
            self.first.clone_from(&other.first);
        }
    }

    /// Whether one of the invariants that a policy claims was broken.
    #[must_use]
    pub fn broken(&self, claims: &[usize]) -> bool {
        claims.iter().any(|number| self.violations[number - 1] > 0)
    }
}

/// What a checker has to know about the resource.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `e`: by how much a slice can be overdrawn.
    pub overrun: Nanos,
    /// `B`: the blocking term.
    pub blocking: Nanos,
    /// `Q`: the longest slack service between two picks.
    pub quantum: Nanos,
    /// Whether the set passed admission, so that supply is promised.
    pub admitted: bool,
    /// Whether the policy is asked for ranks before each pick, as the CPU dispatcher does.
    pub ranked: bool,
}

/// What the checker knows of a client.
#[derive(Debug)]
struct Record {
    id: ClientId,
    contract: Contract,
    awake: bool,
    asleep_since: Nanos,
    last: Option<(ClientState, u64)>,
    supply: Supply,
}

/// `x_i*w_j - x_j*w_i` of two clients since both are awake: now, least, most.
type Lead = (i128, i128, i128);

/// A policy under observation.
pub struct Checked {
    policy: Box<dyn Policy>,
    limits: Limits,
    claims: &'static [usize],
    records: Vec<Record>,
    leads: Vec<Vec<Lead>>,
    tally: Tally,
    sum: Arc<Mutex<Tally>>,
    now: Nanos,
}

impl Checked {
    /// Observes a policy that claims these invariants; what was seen is added to `sum` at the end.
    #[must_use]
    pub fn new(
        policy: Box<dyn Policy>,
        claims: &'static [usize],
        limits: Limits,
        sum: Arc<Mutex<Tally>>,
    ) -> Self {
        let (records, leads) = (Vec::new(), Vec::new());
        Self { policy, limits, claims, records, leads, tally: Tally::default(), sum, now: 0 }
    }

    fn check(&mut self, number: usize, holds: bool, what: impl FnOnce() -> String) {
        if self.claims.contains(&number) {
            let now = self.now;
            self.tally.check(number, holds, || format!("at {now}: {}", what()));
        }
    }

    fn find(&self, id: ClientId) -> Option<usize> {
        self.records.iter().position(|record| record.id == id)
    }

    /// Invariants 1 and 2, on what changed since the last look.
    fn observe(&mut self, index: usize) -> Option<ClientState> {
        let Record { id, contract, awake, last, .. } = &self.records[index];
        let (id, awake, last, contract) = (*id, *awake, *last, *contract);
        let state = self.policy.state(id)?;
        let refills = self.policy.account(id).unwrap_or_default().refills;
        let mode = match awake {
            true if state.left > 0 => Mode::Running,
            true => Mode::Waiting,
            false => Mode::Idle,
        };
        let ordered = last.is_none_or(|(old, before)| {
            let passed = contract.period().saturating_mul(refills - before);
            let once = before == 0 || state.refill >= old.refill.saturating_add(passed);
            state.deadline >= old.deadline && once
        });
        // Policies that scale contracts promise no fixed distance between refills.
        let ordered = ordered || !self.claims.contains(&4);
        self.check(1, state.mode == mode && ordered, || format!("{id:?} {last:?} -> {state:?}"));
        let slice = i64::try_from(contract.slice()).unwrap_or(i64::MAX);
        // Equal to -e where a wake-up cut the rest to nothing while a unit was in service.
        let least = -i64::try_from(self.limits.overrun).unwrap_or(i64::MAX);
        let within = state.left <= slice && state.left >= least;
        self.check(2, within, || format!("{id:?} r = {}", state.left));
        self.records[index].last = Some((state, refills));
        Some(state)
    }

    /// Invariant 3 as the CPU dispatcher sees it: all that are owed time, earliest deadline first.
    fn check_ranks(&mut self) {
        let mut last = None;
        let mut ordered = true;
        let mut ranked = Vec::new();
        self.policy.ranks(self.now, &mut |rank| {
            let key = (rank.deadline, rank.client);
            ordered &= last.is_none_or(|last| last < key) && rank.budget > 0;
            last = Some(key);
            ranked.push(rank.client);
        });
        for index in 0..self.records.len() {
            let id = self.records[index].id;
            let running = self.policy.state(id).is_some_and(|state| state.mode == Mode::Running);
            ordered &= !running || ranked.contains(&id);
        }
        self.check(3, ordered, || format!("ranks {ranked:?}"));
    }

    /// Invariants 3, 7 and 10.
    fn check_pick(&mut self, pick: Option<Pick>) {
        let mut earliest: Option<(Nanos, ClientId)> = None;
        let mut refill = Nanos::MAX;
        let mut wants_slack = false;
        for index in 0..self.records.len() {
            let state = self.observe(index);
            let Record { id, contract, awake, .. } = &self.records[index];
            let (id, awake, slice) = (*id, *awake, contract.slice());
            wants_slack |= awake && contract.extra().is_some();
            let Some(state) = state else { continue };
            if state.mode == Mode::Running {
                let own = (state.deadline, id);
                earliest = Some(earliest.map_or(own, |other| other.min(own)));
            }
            if awake && slice > 0 {
                refill = refill.min(state.refill);
            }
        }
        let due = earliest.map(|(_, id)| id);
        let Some(pick) = pick else {
            self.check(7, due.is_none() && !wants_slack, || format!("idle beside {due:?}"));
            let timeout = self.policy.timeout(self.now).unwrap_or(Nanos::MAX);
            self.check(10, timeout <= refill, || format!("timeout {timeout} after {refill}"));
            return;
        };
        let right = match pick.service {
            Service::Guaranteed => due == Some(pick.client),
            Service::Extra => due.is_none(),
        };
        self.check(3, right, || format!("{pick:?} instead of {due:?}"));
        let left = self.find(pick.client).and_then(|index| self.records[index].last);
        let left = left.map_or(0, |(state, _)| state.left);
        let end = match pick.service {
            Service::Guaranteed => self.now.saturating_add_signed(left),
            Service::Extra => Nanos::MAX,
        };
        self.check(10, pick.until <= end.min(refill), || format!("{pick:?} {end} {refill}"));
    }

    /// Invariant 8: slack of `index` against all others that are awake since it woke.
    fn share(&mut self, index: usize, cost: Nanos) {
        let weight = |record: &Record| record.contract.extra().map(|w| i128::from(w.get()));
        let Some(own) = weight(&self.records[index]) else { return };
        for other in 0..self.records.len() {
            if other == index || !self.records[other].awake {
                continue;
            }
            let Some(others) = weight(&self.records[other]) else { continue };
            let gain = i128::from(cost) * others;
            let (row, column, gain) =
                if index < other { (index, other, gain) } else { (other, index, -gain) };
            let (now, least, most) = &mut self.leads[row][column];
            *now += gain;
            (*least, *most) = ((*least).min(*now), (*most).max(*now));
            let spread = *most - *least;
            let bound = i128::from(self.limits.quantum) * (own + others);
            let ids = (self.records[index].id, self.records[other].id);
            self.check(8, spread <= bound, || format!("{ids:?} {spread} > {bound}"));
        }
    }

    /// Comparisons with a client start anew.
    fn forget_leads(&mut self, index: usize) {
        for other in 0..self.records.len() {
            let (row, column) = (index.min(other), index.max(other));
            self.leads[row][column] = (0, 0, 0);
        }
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        if self.limits.admitted {
            for index in 0..self.records.len() {
                let kept = self.records[index].supply.kept(self.now);
                self.check(6, kept, || format!("client {index} starves at the end"));
            }
        }
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.merge(&self.tally);
    }
}

impl Policy for Checked {
    fn add(&mut self, id: ClientId, contract: Contract, now: Nanos) -> Result<(), PolicyError> {
        self.policy.add(id, contract, now)?;
        self.policy.set_blocking(self.limits.blocking);
        let supply = Supply::new(contract, self.limits.blocking + self.limits.overrun);
        let (awake, asleep_since, last) = (false, now, None);
        self.records.push(Record { id, contract, awake, asleep_since, last, supply });
        let clients = self.records.len();
        self.leads.push(Vec::new());
        self.leads.iter_mut().for_each(|row| row.resize(clients, (0, 0, 0)));
        Ok(())
    }

    fn remove(&mut self, id: ClientId, now: Nanos) -> Result<Account, PolicyError> {
        self.policy.remove(id, now)
    }

    fn change(&mut self, id: ClientId, contract: Contract, now: Nanos) -> Result<(), PolicyError> {
        self.policy.change(id, contract, now)
    }

    fn wake(&mut self, id: ClientId, head: Head, now: Nanos) {
        self.now = now;
        let before = self.policy.state(id);
        self.policy.wake(id, head, now);
        let Some(index) = self.find(id) else { return };
        if self.records[index].awake {
            return;
        }
        self.records[index].awake = true;
        self.forget_leads(index);
        self.records[index].supply.wakes(now);
        let after = self.observe(index);
        if let (Some(before), Some(after)) = (before, after) {
            let Record { contract, asleep_since, .. } = &self.records[index];
            let (s, d) = (i128::from(contract.slice()), i128::from(contract.deadline()));
            // Where a kernel switches, a wake-up counts from when it was, not from when it is told.
            let told_late = self.limits.ranked && head.arrival > 0;
            let woke = if told_late { head.arrival.max(*asleep_since).min(now) } else { now };
            let slept = i128::from(woke.saturating_sub(*asleep_since));
            let until = i128::from(after.deadline.saturating_sub(woke));
            let r = i128::from(after.left.max(0));
            let holds = r * d <= until * s || r <= i128::from(before.left) - slept;
            self.check(4, holds, || format!("{before:?} -> {after:?} after a sleep of {slept}"));
        }
    }

    fn block(&mut self, id: ClientId, now: Nanos) {
        self.now = now;
        self.policy.block(id, now);
        let Some(index) = self.find(id) else { return };
        if !self.records[index].awake {
            return;
        }
        self.records[index].awake = false;
        self.records[index].asleep_since = now;
        let kept = self.records[index].supply.sleeps(now);
        if self.limits.admitted {
            self.check(6, kept, || format!("{id:?} before its sleep"));
        }
        self.observe(index);
    }

    fn pick(&mut self, now: Nanos) -> Option<Pick> {
        self.now = now;
        self.tally.decisions += 1;
        if self.limits.ranked {
            self.check_ranks();
        }
        let pick = self.policy.pick(now);
        self.check_pick(pick);
        pick
    }

    fn charge(&mut self, id: ClientId, service: Service, cost: Nanos, now: Nanos) {
        self.now = now;
        let before = self.policy.state(id);
        self.policy.charge(id, service, cost, now);
        let Some(index) = self.find(id) else { return };
        let after = self.observe(index);
        let awake = self.records[index].awake;
        if !awake {
            let record = &mut self.records[index];
            record.asleep_since = record.asleep_since.max(now);
        }
        if service == Service::Extra {
            let same = before.map(|b| (b.left, b.deadline)) == after.map(|a| (a.left, a.deadline));
            self.check(5, same, || format!("{before:?} -> {after:?}"));
            if awake {
                self.share(index, cost);
            }
        } else {
            let kept = self.records[index].supply.served(now - cost, now);
            if awake && self.limits.admitted {
                self.check(6, kept, || format!("{id:?} served until {now} for {cost}"));
            }
        }
    }

    fn timeout(&self, now: Nanos) -> Option<Nanos> {
        self.policy.timeout(now)
    }

    fn account(&self, id: ClientId) -> Option<Account> {
        self.policy.account(id)
    }

    fn state(&self, id: ClientId) -> Option<ClientState> {
        self.policy.state(id)
    }
}
