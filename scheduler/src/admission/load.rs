//! Tasks, and sums over them: what both the curve (`demand.rs`) and its bound (`bound.rs`) are made
//! of.

use super::Resource;
use crate::contract::Contract;
use crate::time::{Amount, Span};

/// Fixed point: fractions have this many binary digits.
pub(super) const DIGITS: u32 = 60;

/// All clients with the same period and deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) period: Span,
    pub(super) deadline: Span,
    /// Slices with overheads, summed.
    pub(super) cost: Amount,
    /// How many they are.
    pub(super) clients: u64,
}

/// What one look at a time shows of one task.
pub(super) struct Seen {
    pub(super) jobs: u64,
    /// The last deadline at or before that time.
    pub(super) last: Span,
}

impl Task {
    pub(super) fn new(contract: &Contract, switches: Amount) -> Self {
        let cost = contract.slice().saturating_add(switches);
        Self { period: contract.period(), deadline: contract.deadline(), cost, clients: 1 }
    }

    pub(super) fn key(&self) -> (Span, Span) {
        (self.deadline, self.period)
    }

    pub(super) fn join(&mut self, other: &Self) {
        self.cost = self.cost.saturating_add(other.cost);
        self.clients = self.clients.saturating_add(other.clients);
    }

    /// `None` before the first deadline.
    pub(super) fn seen(&self, time: Span) -> Option<Seen> {
        let rest = time.checked_sub(self.deadline)?;
        let before = rest.checked_div(self.period)?;
        let last = self.deadline.saturating_add(self.period.saturating_mul(before));
        Some(Seen { jobs: before.saturating_add(1), last })
    }

    /// What its clients overdraw, once each.
    pub(super) fn overrun(&self, each: Amount) -> u128 {
        each.wide().saturating_mul(u128::from(self.clients))
    }
}

/// Sums over a set, for the tests that look at no single time. Fractions of the resource are
/// rounded up by less than 2^-60 each.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// `sum C_i/p_i`, with interrupts.
    pub(super) used: u128,
    /// `sum (C_i + e)/D_i`, with the rates of interrupts.
    pub(super) dense: u128,
    /// What demand may be ahead of `U*t`, in nanoseconds.
    pub(super) constant: u128,
    pub(super) longest: Span,
    /// How many slices there are.
    pub(super) tasks: u128,
}

impl Load {
    /// What there is without any client.
    pub(super) fn of_resource(resource: &Resource) -> Self {
        let constant = resource.blocking.wide();
        let mut load = Self { used: 0, dense: 0, constant, longest: Span::ZERO, tasks: 0 };
        for source in &resource.overhead.interrupts {
            let rate = fraction_up(source.cost, source.period);
            load.used = load.used.saturating_add(rate);
            load.dense = load.dense.saturating_add(rate);
            load.constant = load.constant.saturating_add(source.cost.wide());
        }
        load
    }

    /// One more task.
    pub(super) fn add(&mut self, task: &Task, overrun: Amount) {
        let overrun = task.overrun(overrun);
        let cost = task.cost.wide().saturating_add(overrun);
        self.used = self.used.saturating_add(fraction_up(task.cost, task.period));
        self.dense = self.dense.saturating_add(fraction_up(Amount::from_wide(cost), task.deadline));
        let early = task.period.saturating_sub(task.deadline).wide();
        let early = task.cost.wide().saturating_mul(early);
        let ahead = early.div_ceil(task.period.wide().max(1));
        self.constant = self.constant.saturating_add(ahead).saturating_add(overrun);
        self.longest = self.longest.max(task.deadline);
        self.tasks = self.tasks.saturating_add(1);
    }
}

/// `ceil(part / whole)` in fixed point.
pub(super) fn fraction_up(part: Amount, whole: Span) -> u128 {
    (part.wide() << DIGITS).div_ceil(whole.wide().max(1))
}
