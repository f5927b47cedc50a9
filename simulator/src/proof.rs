//! The invariants of docs/scheduling.md, checked on every call to a policy.
//!
//! [`Checked`] stands between an engine and a policy and sees every call. It owns a record of its
//! own of what each client was given and when. Invariants 9 and 11 concern whole runs; they, and
//! the deadlines of admitted sets, are checked in [`crate::world`].

mod calls;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use moirai_scheduler::{
    Amount, ClientId, ClientState, Contract, Head, Mode, Moment, Pick, Policy, PolicyKind, Rank,
    Service, Span,
};
use serde::{Deserialize, Serialize};

use crate::judge::Judge;
use crate::supply::Supply;

/// What is checked: the invariants by number, as 12 that admitted sets miss no deadline, and
/// beyond.
pub const INVARIANTS: [&str; COUNT] = [
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
    "the counter of misses is what a judge sees",
    "admitted periodic jobs are on time",
    "who slept through a refill has its slice by wake + D",
];

/// How many invariants there are.
pub const COUNT: usize = 15;

/// Numbers of the invariants, counted from 1, that a policy claims.
#[must_use]
pub fn claims(policy: PolicyKind) -> &'static [usize] {
    match policy {
        PolicyKind::Atropos => &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        PolicyKind::Nemesis => &[1, 2, 3, 5, 7, 8, 10, 11],
        PolicyKind::Xen => &[1, 3, 5, 7, 8, 10, 11],
        PolicyKind::Usd => &[1, 5, 11],
        PolicyKind::Drr | PolicyKind::Fifo => &[7, 11],
        PolicyKind::EdfChannel => &[11],
    }
}

/// How often each invariant was checked and broken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Decisions taken.
    pub decisions: u64,
    /// Checks of invariant `i + 1`.
    pub checks: [u64; COUNT],
    /// How many of them failed.
    pub violations: [u64; COUNT],
    /// What failed first, for each invariant that did.
    pub first: BTreeMap<usize, String>,
}

impl Tally {
    /// Counts a check of an invariant, numbered from 1.
    pub fn check(&mut self, number: usize, holds: bool, what: impl FnOnce() -> String) {
        self.checks[number - 1] += 1;
        if !holds {
            self.violations[number - 1] += 1;
            self.first.entry(number).or_insert_with(what);
        }
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.decisions += other.decisions;
        for i in 0..COUNT {
            self.checks[i] += other.checks[i];
            self.violations[i] += other.violations[i];
        }
        for (number, what) in &other.first {
            self.first.entry(*number).or_insert_with(|| what.clone());
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
    pub overrun: Amount,
    /// `B`: the blocking term.
    pub blocking: Amount,
    /// `Q`: the longest slack service between two picks.
    pub quantum: Amount,
    /// Whether the set passed admission, so that supply is promised.
    pub admitted: bool,
    /// Whether the policy is asked for ranks before each pick, as the CPU dispatcher does.
    pub ranked: bool,
    /// What a switch takes on a core, in nanoseconds: then no supply is promised to the nanosecond.
    pub switch: Span,
}

impl Limits {
    /// Whether every window has its supply.
    fn supplies(&self) -> bool {
        self.admitted && self.switch.is_zero()
    }
}

/// What the checker knows of a client.
#[derive(Debug)]
struct Record {
    id: ClientId,
    contract: Contract,
    awake: bool,
    asleep_since: Moment,
    last: Option<(ClientState, u64)>,
    supply: Supply,
    judge: Judge,
    /// Units inside, each with the number of wake-ups before it.
    inside: VecDeque<u64>,
    wakes: u64,
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
    now: Moment,
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
        Self {
            policy,
            limits,
            claims,
            records,
            leads,
            tally: Tally::default(),
            sum,
            now: Moment::ZERO,
        }
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
        let settling = !self.records[index].inside.is_empty() && state.mode == Mode::Settling;
        let mode = match awake {
            true if state.left > 0 => Mode::Running,
            true if settling => Mode::Settling,
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
        let slice = contract.slice().signed();
        // Equal to -e where a wake-up cut the rest to nothing while a unit was in service.
        let least = -self.limits.overrun.signed();
        let within = state.left <= slice && state.left >= least;
        self.check(2, within, || format!("{id:?} r = {}", state.left));
        self.records[index].last = Some((state, refills));
        if awake {
            self.records[index].judge.after(state, refills, false, self.now);
        }
        Some(state)
    }

    /// Lets the judge look at deadlines that have passed, before a call that may change something.
    fn judge_client(&mut self, id: ClientId) -> Option<usize> {
        let index = self.find(id)?;
        let record = &mut self.records[index];
        record.judge.before(record.awake, self.now);
        Some(index)
    }

    fn judge_all(&mut self) {
        for record in &mut self.records {
            record.judge.before(record.awake, self.now);
        }
    }

    fn observe_all(&mut self) {
        for index in 0..self.records.len() {
            self.observe(index);
        }
    }

    /// Invariant 3 as the CPU dispatcher sees it: all that are owed time, earliest deadline first.
    fn check_ranks(&mut self) {
        let mut last = None;
        let mut ordered = true;
        let mut ranked = Vec::new();
        let visit = &mut |rank: Rank| {
            let key = (rank.deadline, rank.client);
            ordered &= last.is_none_or(|last| last < key) && rank.budget > Amount::ZERO;
            last = Some(key);
            ranked.push(rank.client);
        };
        if let Some(policy) = self.policy.ranked() {
            policy.ranks(self.now, visit);
        }
        for index in 0..self.records.len() {
            let id = self.records[index].id;
            let running = self.policy.state(id).is_some_and(|state| state.mode == Mode::Running);
            ordered &= !running || ranked.contains(&id);
        }
        self.check(3, ordered, || format!("ranks {ranked:?}"));
    }

    /// Invariants 3, 7 and 10.
    fn check_pick(&mut self, pick: Option<Pick>) {
        let mut earliest: Option<(Moment, ClientId, bool)> = None;
        let mut refill = Moment::MAX;
        let mut wants_slack = false;
        for index in 0..self.records.len() {
            let state = self.observe(index);
            let Record { id, contract, awake, .. } = &self.records[index];
            let (id, awake, slice) = (*id, *awake, contract.slice());
            wants_slack |= awake && contract.extra().is_some();
            let Some(state) = state else { continue };
            if matches!(state.mode, Mode::Running | Mode::Settling) {
                let own = (state.deadline, id, state.mode == Mode::Settling);
                earliest = Some(earliest.map_or(own, |other| other.min(own)));
            }
            if awake && slice > Amount::ZERO {
                refill = refill.min(state.refill);
            }
        }
        let due = earliest.map(|(_, id, _)| id);
        let settling = earliest.is_some_and(|(_, _, settling)| settling);
        let Some(pick) = pick else {
            if settling {
                return;
            }
            self.check(7, due.is_none() && !wants_slack, || format!("idle beside {due:?}"));
            let timeout = self.policy.timeout(self.now).unwrap_or(Moment::MAX);
            self.check(10, timeout <= refill, || format!("timeout {timeout} after {refill}"));
            return;
        };
        let right = match pick.service {
            Service::Guaranteed => due == Some(pick.client) && !settling,
            Service::Extra => due.is_none(),
        };
        self.check(3, right, || format!("{pick:?} instead of {due:?}"));
        let left = self.find(pick.client).and_then(|index| self.records[index].last);
        let left = left.map_or(0, |(state, _)| state.left);
        let end = match pick.service {
            Service::Guaranteed => {
                Moment::from_nanos(self.now.as_nanos().saturating_add_signed(left))
            }
            Service::Extra => Moment::MAX,
        };
        self.check(10, pick.until <= end.min(refill), || format!("{pick:?} {end} {refill}"));
    }

    /// Invariant 8: slack of `index` against all others that are awake since it woke.
    fn share(&mut self, index: usize, cost: Amount) {
        let weight = |record: &Record| record.contract.extra().map(|w| i128::from(w.get()));
        let Some(own) = weight(&self.records[index]) else { return };
        for other in 0..self.records.len() {
            if other == index || !self.records[other].awake {
                continue;
            }
            let Some(others) = weight(&self.records[other]) else { continue };
            let gain = i128::from(cost.as_nanos()) * others;
            let (row, column, gain) =
                if index < other { (index, other, gain) } else { (other, index, -gain) };
            let (now, least, most) = &mut self.leads[row][column];
            *now += gain;
            (*least, *most) = ((*least).min(*now), (*most).max(*now));
            let spread = *most - *least;
            let bound = i128::from(self.limits.quantum.as_nanos()) * (own + others);
            let ids = (self.records[index].id, self.records[other].id);
            self.check(8, spread <= bound, || format!("{ids:?} {spread} > {bound}"));
        }
    }

    /// Invariants 5, 6 and 8, after service of `cost` until now; `recent`: it was begun since its
    /// client woke, so that it counts for the comparison with others.
    fn check_service(
        &mut self,
        id: ClientId,
        service: Service,
        cost: Amount,
        before: Option<ClientState>,
        recent: bool,
    ) {
        let now = self.now;
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
            if awake && recent {
                self.share(index, cost);
            }
        } else {
            let kept = self.records[index].supply.served(now - cost.time(), now);
            if awake && self.limits.supplies() {
                self.check(6, kept, || format!("{id:?} served until {now} for {cost}"));
            }
        }
    }

    /// Invariant 15, and the judge hears of a wake-up.
    fn note_wake(&mut self, index: usize, before: Option<ClientState>, head: Head) {
        let Record { id, contract, .. } = &self.records[index];
        let (id, contract, now) = (*id, *contract, self.now);
        let Some(after) = self.policy.state(id) else { return };
        let refills = self.policy.account(id).unwrap_or_default().refills;
        self.records[index].judge.after(after, refills, true, now);
        // Who ranks clients is told late of wake-ups, and tells when they were.
        let woke = if self.limits.ranked { head.arrival.min(now) } else { now };
        let Some(before) = before.filter(|it| contract.slice() > Amount::ZERO && woke >= it.refill)
        else {
            return;
        };
        let slice = contract.slice().signed();
        let since = after.deadline.saturating_sub(contract.deadline());
        let whole = (woke..=now).contains(&since)
            && after.left >= (slice + before.left.min(0)).min(slice)
            && (after.promised || after.left <= 0);
        self.check(15, whole, || format!("{id:?} {before:?} -> {after:?}"));
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
        if self.limits.supplies() {
            for index in 0..self.records.len() {
                let kept = self.records[index].supply.kept(self.now);
                self.check(6, kept, || format!("client {index} starves at the end"));
            }
        }
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.merge(&self.tally);
    }
}
