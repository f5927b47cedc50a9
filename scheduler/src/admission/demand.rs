//! Demand against supply, and QPA: the exact test in few steps.
//!
//! Let `g(t)` be the time that the resource needs to supply the demand of `t`:
//! `g(t) = ceil(demand(t) / capacity)`. The set fits if `g(t) <= t` at every deadline `t` below a
//! bound `L`. Because `g` never decreases, `g(t) < t` settles all deadlines in `[g(t), t)` at once;
//! so QPA walks down from `L` in steps of `t = g(t)` and sees few of them.
//!
//! `L`: beyond it nothing can fail. With `U` the utilisation and `c` the capacity, demand is at most
//! `U*t + sum C_i*(p_i - D_i)/p_i + sum cost_j + n*e + B`, so
//! `L = (sum C_i*(p_i - D_i)/p_i + sum cost_j + n*e + B) / (c - U)`.
//! Demand minus supply does not grow from one hyperperiod `H` to the next as long as `U <= c`, so
//! `L = H + max D_i` will do too: the only bound where `U = c`, and the better one close to it.

use alloc::vec::Vec;

use super::{Interrupt, Resource, Violation, WHOLE_PPM};
use crate::contract::{Contract, Nanos};

/// Most steps (clients looked at) of one test; about ten milliseconds.
pub const WORK_MAX: u64 = 2_000_000;

/// Fixed point: fractions have this many binary digits.
const DIGITS: u32 = 60;

/// Bounds beyond so many times the longest deadline are worth computing the hyperperiod for.
const FAR: u128 = 64;

/// All clients with the same period and deadline.
#[derive(Clone, Copy, Debug)]
struct Task {
    period: Nanos,
    deadline: Nanos,
    /// Slices with overheads, summed.
    cost: u128,
    /// How many they are.
    clients: u128,
}

impl Task {
    fn demand(&self, time: Nanos, overrun: u128) -> u128 {
        let Some(rest) = time.checked_sub(self.deadline) else { return 0 };
        let jobs = rest.checked_div(self.period).unwrap_or(0).saturating_add(1);
        u128::from(jobs)
            .saturating_mul(self.cost)
            .saturating_add(overrun.saturating_mul(self.clients))
    }

    /// The last deadline at or before `time`.
    fn last_deadline(&self, time: Nanos) -> Option<Nanos> {
        let since = time.checked_sub(self.deadline)?.checked_rem(self.period)?;
        time.checked_sub(since)
    }
}

/// A point of the demand curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// A deadline, in nanoseconds after all slices were released at once.
    pub time: Nanos,
    /// Service due by then, with all overheads, in nanoseconds.
    pub demand: Nanos,
    /// Service that can be supplied by then, in nanoseconds.
    pub supply: Nanos,
}

/// A set of contracts on a resource, ready to be tested.
#[derive(Clone, Debug)]
pub struct Set {
    tasks: Vec<Task>,
    interrupts: Vec<Interrupt>,
    capacity: u128,
    blocking: u128,
    overrun: u128,
}

/// How far QPA has to look.
enum Bound {
    /// Not even the utilisation fits.
    Overloaded,
    /// Nothing fails after this.
    Until(Nanos),
}

fn to_nanos(amount: u128) -> Nanos {
    Nanos::try_from(amount).unwrap_or(Nanos::MAX)
}

/// `ceil(part / whole)` in fixed point; `part` below 2^64.
fn fraction_up(part: u128, whole: u128) -> u128 {
    (part.min(u128::from(u64::MAX)) << DIGITS).div_ceil(whole.max(1))
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while let Some(rest) = a.checked_rem(b) {
        (a, b) = (b, rest);
    }
    a
}

impl Set {
    /// The set as the resource sees it. Clients without a slice cost nothing.
    pub fn new(resource: &Resource, contracts: impl IntoIterator<Item = Contract>) -> Self {
        let overhead = &resource.overhead;
        let switches = u128::from(overhead.switch).saturating_add(u128::from(overhead.cache));
        let mut tasks: Vec<Task> = contracts
            .into_iter()
            .filter(|contract| contract.slice() > 0)
            .map(|contract| Task {
                period: contract.period(),
                deadline: contract.deadline(),
                cost: u128::from(contract.slice()).saturating_add(switches.saturating_mul(2)),
                clients: 1,
            })
            .collect();
        tasks.sort_unstable_by_key(|task| (task.deadline, task.period));
        tasks.dedup_by(|next, task| {
            let same = (next.period, next.deadline) == (task.period, task.deadline);
            if same {
                task.cost = task.cost.saturating_add(next.cost);
                task.clients = task.clients.saturating_add(next.clients);
            }
            same
        });
        Self {
            tasks,
            interrupts: overhead.interrupts.clone(),
            capacity: u128::from(resource.capacity_ppm.min(WHOLE_PPM)),
            blocking: u128::from(resource.blocking),
            overrun: u128::from(overhead.overrun),
        }
    }

    /// Service due within `time`, with all overheads; without clients due, nothing is.
    fn demand(&self, time: Nanos) -> u128 {
        let due = self.tasks.iter().take_while(|task| task.deadline <= time);
        let due = due.fold(0u128, |sum, task| sum.saturating_add(task.demand(time, self.overrun)));
        if due == 0 {
            return 0;
        }
        let interrupts = self.interrupts.iter().fold(0u128, |sum, source| {
            let times = u128::from(time.div_ceil(source.period.max(1)));
            sum.saturating_add(times.saturating_mul(u128::from(source.cost)))
        });
        due.saturating_add(interrupts).saturating_add(self.blocking)
    }

    fn supply(&self, time: Nanos) -> Nanos {
        let parts = self.capacity.saturating_mul(u128::from(time));
        to_nanos(parts.checked_div(u128::from(WHOLE_PPM)).unwrap_or(0))
    }

    /// `g(t)`: the time in which the demand of `time` can be supplied.
    fn needed(&self, time: Nanos) -> Nanos {
        let parts = self.demand(time).saturating_mul(u128::from(WHOLE_PPM));
        if parts == 0 {
            return 0;
        }
        match self.capacity {
            0 => Nanos::MAX,
            capacity => to_nanos(parts.div_ceil(capacity)),
        }
    }

    /// Demand and supply at one time.
    #[must_use]
    pub fn point(&self, time: Nanos) -> Point {
        Point { time, demand: to_nanos(self.demand(time)), supply: self.supply(time) }
    }

    fn violation(&self, time: Nanos) -> Violation {
        let Point { time, demand, supply } = self.point(time);
        Violation { time, demand, supply }
    }

    /// Whether the set fits. See the module for how.
    ///
    /// # Errors
    /// A deadline at which it does not, or at which the test gave up (then demand is not above
    /// supply there).
    pub fn check(&self) -> Result<(), Violation> {
        let Some(first) = self.tasks.first().map(|task| task.deadline) else { return Ok(()) };
        if self.density_fits() {
            return Ok(());
        }
        let until = match self.bound() {
            Bound::Until(until) => until,
            Bound::Overloaded => return Err(self.overload()),
        };
        let size = u64::try_from(self.tasks.len()).unwrap_or(u64::MAX);
        let mut work = 0u64;
        let Some(mut time) = self.last_deadline(until) else { return Ok(()) };
        while time >= first {
            work = work.saturating_add(size);
            let needed = self.needed(time);
            if needed < time && work < WORK_MAX {
                time = needed;
                continue;
            }
            // Between deadlines only interrupts add to the demand, and nothing is due.
            let Some(deadline) = self.last_deadline(time) else { return Ok(()) };
            if self.needed(deadline) > deadline || work >= WORK_MAX {
                return Err(self.violation(deadline));
            }
            let Some(before) = self.last_deadline(deadline.saturating_sub(1)) else {
                return Ok(());
            };
            time = before.min(self.needed(deadline));
        }
        Ok(())
    }

    /// The quick test: demand never exceeds `density * t`.
    pub(super) fn density_fits(&self) -> bool {
        let first = self.tasks.first().map_or(1, |task| u128::from(task.deadline));
        let tasks = self.tasks.iter().fold(0u128, |sum, task| {
            let cost = task.cost.saturating_add(self.overrun.saturating_mul(task.clients));
            sum.saturating_add(fraction_up(cost, u128::from(task.deadline)))
        });
        let interrupts = self.interrupts.iter().fold(0u128, |sum, source| {
            let cost = u128::from(source.cost);
            sum.saturating_add(fraction_up(cost, u128::from(source.period)))
                .saturating_add(fraction_up(cost, first))
        });
        let density =
            tasks.saturating_add(interrupts).saturating_add(fraction_up(self.blocking, first));
        density.saturating_mul(u128::from(WHOLE_PPM)) <= self.capacity << DIGITS
    }

    /// Whether `sum C_i/p_i`, with interrupts, is within the capacity.
    pub(super) fn utilisation_fits(&self) -> bool {
        !matches!(self.bound(), Bound::Overloaded)
    }

    /// `sum C_i/p_i` in parts per million, rounded up.
    pub(super) fn utilisation(&self) -> u128 {
        let tasks = self.tasks.iter();
        let used = tasks.fold(0u128, |sum, task| {
            sum.saturating_add(fraction_up(task.cost, u128::from(task.period)))
        });
        // Each task was rounded up by less than 2^-60; that is not worth a millionth.
        let rounding = u128::try_from(self.tasks.len()).unwrap_or(u128::MAX);
        let used = used.saturating_sub(rounding).saturating_mul(u128::from(WHOLE_PPM));
        used.div_ceil(1 << DIGITS)
    }

    fn bound(&self) -> Bound {
        let mut used = 0u128;
        let mut constant = self.blocking;
        let mut most = 0;
        for task in &self.tasks {
            let period = u128::from(task.period);
            used = used.saturating_add(fraction_up(task.cost, period));
            let early = u128::from(task.period.saturating_sub(task.deadline));
            constant = constant
                .saturating_add(task.cost.saturating_mul(early).div_ceil(period.max(1)))
                .saturating_add(self.overrun.saturating_mul(task.clients));
            most = most.max(task.deadline);
        }
        for source in &self.interrupts {
            let cost = u128::from(source.cost);
            used = used.saturating_add(fraction_up(cost, u128::from(source.period.max(1))));
            constant = constant.saturating_add(cost);
        }
        // Millionths of fixed-point units. `used` is too large by less than one unit each.
        let used = used.saturating_mul(u128::from(WHOLE_PPM));
        let capacity = self.capacity << DIGITS;
        if let Some(free) = capacity.checked_sub(used)
            && free > 0
        {
            let whole = u128::from(WHOLE_PPM) << DIGITS;
            let until = mul_div_up(constant, whole, free);
            let repeats = match until > u128::from(most).saturating_mul(FAR) {
                true => self.hyperperiod().map_or(u128::MAX, |(hyperperiod, _)| hyperperiod),
                false => u128::MAX,
            };
            return Bound::Until(to_nanos(until.min(repeats.saturating_add(u128::from(most)))));
        }
        match self.hyperperiod() {
            Some((hyperperiod, true)) if constant > 0 => {
                Bound::Until(to_nanos(hyperperiod.saturating_add(u128::from(most))))
            }
            Some((_, true)) => Bound::Until(0),
            _ => Bound::Overloaded,
        }
    }

    /// The hyperperiod and whether the exact utilisation fits; `None` where the hyperperiod is too
    /// long to be computed with. Only asked where rounding cannot tell.
    fn hyperperiod(&self) -> Option<(u128, bool)> {
        let tasks = self.tasks.iter().map(|task| (u128::from(task.period), task.cost));
        let sources = self.interrupts.iter();
        let sources = sources.map(|s| (u128::from(s.period.max(1)), u128::from(s.cost)));
        let all = || tasks.clone().chain(sources.clone());
        let mut hyperperiod = 1u128;
        for (period, _) in all() {
            let factor = period.checked_div(gcd(hyperperiod, period))?;
            hyperperiod = hyperperiod.checked_mul(factor)?;
        }
        let mut work = 0u128;
        for (period, cost) in all() {
            work = work.checked_add(hyperperiod.checked_div(period)?.checked_mul(cost)?)?;
        }
        let needed = work.checked_mul(u128::from(WHOLE_PPM))?;
        Some((hyperperiod, needed <= self.capacity.checked_mul(hyperperiod)?))
    }

    /// A time at which an overloaded set is seen to fail: demand outgrows any supply, so doubling
    /// finds one.
    fn overload(&self) -> Violation {
        let mut time = self.tasks.iter().map(|task| task.deadline).max().unwrap_or(1).max(1);
        while let Some(deadline) = self.last_deadline(time) {
            if self.needed(deadline) > deadline || time > Nanos::MAX / 4 {
                return self.violation(deadline);
            }
            time = time.saturating_mul(2);
        }
        self.violation(time)
    }

    /// The last deadline at or before `time`.
    fn last_deadline(&self, time: Nanos) -> Option<Nanos> {
        self.tasks.iter().filter_map(|task| task.last_deadline(time)).max()
    }

    /// The first deadline after `time`.
    fn next_deadline(&self, time: Nanos) -> Option<Nanos> {
        let next = |task: &Task| match task.last_deadline(time) {
            Some(last) => last.saturating_add(task.period),
            None => task.deadline,
        };
        self.tasks.iter().map(next).min()
    }

    /// Demand and supply at every deadline up to `until`, at most `points` of them: what
    /// `plan --explain` and `plan --svg` show.
    #[must_use]
    pub fn curve(&self, until: Nanos, points: usize) -> Vec<Point> {
        let mut curve = Vec::new();
        let mut time = 0;
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

/// `ceil(a * b / c)`, saturating; exact where the product fits, else too large by a little.
fn mul_div_up(a: u128, b: u128, c: u128) -> u128 {
    let c = c.max(1);
    a.checked_mul(b).map_or_else(
        || a.div_ceil(c).saturating_mul(b).min(a.saturating_mul(b.div_ceil(c))),
        |product| product.div_ceil(c),
    )
}
