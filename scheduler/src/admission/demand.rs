//! Demand against supply: what is due by when in the worst case, and what can be given by then.
//!
//! A [`Set`] is the demand curve of contracts on a resource. `g(t)` is the time that the resource
//! needs to supply the demand of `t`: `g(t) = ceil(demand(t) / capacity)`. The set fits if
//! `g(t) <= t` at every deadline `t`. [`super::qpa`] finds out in few looks; `bound.rs` says how
//! far it has to look.

use alloc::vec::Vec;

use super::load::{Load, Task};
use super::{Interrupt, Resource, Violation, WHOLE_PPM};
use crate::contract::Contract;
use crate::time::{Amount, Span};

/// What a look at one time shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// `g(t)`.
    pub(super) needed: Span,
    /// The last deadline at or before it.
    pub(super) last: Option<Span>,
    /// How many tasks were looked at.
    pub(super) work: u64,
}

/// A point of the demand curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// A deadline, in nanoseconds after all slices were released at once.
    pub time: Span,
    /// Service due by then, with all overheads, in nanoseconds.
    pub demand: Amount,
    /// Service that can be supplied by then, in nanoseconds.
    pub supply: Amount,
}

/// A set of contracts on a resource, ready to be tested.
#[derive(Clone, Debug)]
pub struct Set {
    /// By deadline.
    pub(super) tasks: Vec<Task>,
    pub(super) interrupts: Vec<Interrupt>,
    pub(super) capacity: u128,
    pub(super) blocking: Amount,
    pub(super) overrun: Amount,
    /// What switches add to each slice.
    switches: Amount,
    /// Sums over all tasks.
    pub(super) load: Load,
}

impl Set {
    /// The set as the resource sees it. Clients without a slice cost nothing.
    pub fn new(resource: &Resource, contracts: impl IntoIterator<Item = Contract>) -> Self {
        let overhead = &resource.overhead;
        let switches = overhead.switch.saturating_add(overhead.cache).saturating_mul(2);
        let contracts = contracts.into_iter().filter(|contract| contract.slice() > Amount::ZERO);
        let mut tasks: Vec<Task> = contracts.map(|it| Task::new(&it, switches)).collect();
        tasks.sort_unstable_by_key(Task::key);
        let mut load = Load::of_resource(resource);
        tasks.iter().for_each(|task| load.add(task, overhead.overrun));
        tasks.dedup_by(|next, task| {
            let same = next.key() == task.key();
            if same {
                task.join(next);
            }
            same
        });
        Self {
            tasks,
            interrupts: overhead.interrupts.clone(),
            capacity: u128::from(resource.capacity_ppm.min(WHOLE_PPM)),
            blocking: resource.blocking,
            overrun: overhead.overrun,
            switches,
            load,
        }
    }

    /// The set with one more contract.
    #[must_use]
    pub fn with(&self, contract: &Contract) -> Self {
        let mut set = self.clone();
        if contract.slice() > Amount::ZERO {
            let task = Task::new(contract, self.switches);
            set.load.add(&task, self.overrun);
            match set.tasks.binary_search_by_key(&task.key(), Task::key) {
                Ok(place) => set.tasks.iter_mut().skip(place).take(1).for_each(|it| it.join(&task)),
                Err(place) => set.tasks.insert(place, task),
            }
        }
        set
    }

    /// Service due within `time`, with all overheads, and what else the look shows; without clients
    /// due, nothing is.
    fn demand(&self, time: Span) -> (u128, Option<Span>, u64) {
        let mut due = 0u128;
        let mut last = None;
        let mut work = 0u64;
        for task in self.tasks.iter().take_while(|task| task.deadline <= time) {
            let Some(seen) = task.seen(time) else { break };
            let cost = u128::from(seen.jobs).saturating_mul(task.cost.wide());
            due = due.saturating_add(cost).saturating_add(task.overrun(self.overrun));
            last = last.max(Some(seen.last));
            work = work.saturating_add(1);
        }
        if due > 0 {
            for source in &self.interrupts {
                let times = u128::from(time.div_ceil(source.period.max(Span::ONE)));
                due = due.saturating_add(times.saturating_mul(source.cost.wide()));
            }
            due = due.saturating_add(self.blocking.wide());
        }
        (due, last, work)
    }

    fn supply(&self, time: Span) -> Amount {
        let parts = self.capacity.saturating_mul(time.wide());
        Amount::from_wide(parts.checked_div(u128::from(WHOLE_PPM)).unwrap_or(0))
    }

    /// The time in which so much can be supplied.
    fn time_for(&self, demand: u128) -> Span {
        if self.capacity == u128::from(WHOLE_PPM) || demand == 0 {
            return Span::from_wide(demand);
        }
        let parts = demand.saturating_mul(u128::from(WHOLE_PPM));
        match self.capacity {
            0 => Span::MAX,
            capacity => Span::from_wide(parts.div_ceil(capacity)),
        }
    }

    pub(super) fn look(&self, time: Span) -> Look {
        let (demand, last, work) = self.demand(time);
        Look { needed: self.time_for(demand), last, work }
    }

    /// Demand and supply at one time.
    #[must_use]
    pub fn point(&self, time: Span) -> Point {
        Point { time, demand: Amount::from_wide(self.demand(time).0), supply: self.supply(time) }
    }

    pub(super) fn violation(&self, time: Span, undecided: bool) -> Violation {
        let Point { time, demand, supply } = self.point(time);
        Violation { time, demand, supply, undecided }
    }

    /// The last deadline at or before `time`.
    pub(super) fn last_deadline(&self, time: Span) -> Option<Span> {
        let due = self.tasks.iter().take_while(|task| task.deadline <= time);
        due.filter_map(|task| task.seen(time)).map(|seen| seen.last).max()
    }

    /// The first deadline after `time`.
    fn next_deadline(&self, time: Span) -> Option<Span> {
        let next = |task: &Task| match task.seen(time) {
            Some(seen) => seen.last.saturating_add(task.period),
            None => task.deadline,
        };
        self.tasks.iter().map(next).min()
    }

    /// Demand and supply at every deadline up to `until`, at most `points` of them: what
    /// `plan --explain` and `plan --svg` show.
    #[must_use]
    pub fn curve(&self, until: Span, points: usize) -> Vec<Point> {
        let mut curve = Vec::new();
        let mut time = Span::ZERO;
        while curve.len() < points
            && let Some(next) = self.next_deadline(time)
            && next <= until
            && next > time
        {
            curve.push(self.point(next));
            time = next;
        }
        curve
    }
}
