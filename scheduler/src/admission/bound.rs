//! Utilisation and density of a set, and the time beyond which nothing can fail.
//!
//! With `U` the utilisation and `c` the capacity, demand is at most
//! `U*t + sum C_i*(p_i - D_i)/p_i + sum cost_j + n*e + B`, so nothing fails beyond
//! `L = (sum C_i*(p_i - D_i)/p_i + sum cost_j + n*e + B) / (c - U)`.
//! Demand minus supply does not grow from one hyperperiod `H` to the next as long as `U <= c`, so
//! `L = H + max D_i` will do too: the only bound where `U = c`, and the better one close to it.

use super::WHOLE_PPM;
use super::demand::Set;
use super::load::{DIGITS, Load, fraction_up};
use crate::time::Span;

/// Bounds beyond so many times the longest deadline are worth computing the hyperperiod for.
const FAR: u128 = 64;

/// How far the exact test has to look.
pub(super) enum Bound {
    /// Not even the utilisation fits.
    Overloaded,
    /// Nothing fails after this.
    Until(Span),
}

impl Set {
    /// The quick test: demand never exceeds `density * t`.
    pub(super) fn density_fits(&self) -> bool {
        let first = self.tasks.first().map_or(Span::ONE, |task| task.deadline);
        let interrupts = self
            .interrupts
            .iter()
            .fold(0u128, |sum, source| sum.saturating_add(fraction_up(source.cost, first)));
        let blocking = fraction_up(self.blocking, first);
        let density = self.load.dense.saturating_add(interrupts).saturating_add(blocking);
        density.saturating_mul(u128::from(WHOLE_PPM)) <= self.capacity << DIGITS
    }

    /// Whether `sum C_i/p_i`, with interrupts, is within the capacity.
    pub(super) fn utilisation_fits(&self) -> bool {
        !matches!(self.bound(), Bound::Overloaded)
    }

    /// `sum C_i/p_i` in parts per million, rounded up.
    pub(super) fn utilisation(&self) -> u128 {
        // Each task was rounded up by less than 2^-60; that is not worth a millionth.
        let used = self.load.used.saturating_sub(self.load.tasks);
        used.saturating_mul(u128::from(WHOLE_PPM)).div_ceil(1 << DIGITS)
    }

    /// How far to look.
    pub(super) fn bound(&self) -> Bound {
        let Load { used, constant, longest, .. } = self.load;
        let longest = longest.wide();
        // Millionths of fixed-point units. `used` is too large by less than one unit each.
        let used = used.saturating_mul(u128::from(WHOLE_PPM));
        let capacity = self.capacity << DIGITS;
        if let Some(free) = capacity.checked_sub(used)
            && free > 0
        {
            let whole = u128::from(WHOLE_PPM) << DIGITS;
            let until = mul_div_up(constant, whole, free);
            let repeats = match until > longest.saturating_mul(FAR) {
                true => self.hyperperiod(until).unwrap_or(u128::MAX),
                false => u128::MAX,
            };
            return Bound::Until(Span::from_wide(until.min(repeats.saturating_add(longest))));
        }
        match self.hyperperiod(u128::MAX) {
            Some(hyperperiod) if self.is_served_in(hyperperiod) => Bound::Until(match constant {
                0 => Span::ZERO,
                _ => Span::from_wide(hyperperiod.saturating_add(longest)),
            }),
            _ => Bound::Overloaded,
        }
    }

    /// The hyperperiod; `None` if it is longer than `most`, or too long to be computed with.
    fn hyperperiod(&self, most: u128) -> Option<u128> {
        let tasks = self.tasks.iter().map(|task| task.period);
        let sources = self.interrupts.iter().map(|source| source.period.max(Span::ONE));
        let mut hyperperiod = 1u128;
        for period in tasks.chain(sources) {
            let common = gcd(period.wide(), hyperperiod);
            hyperperiod = hyperperiod.checked_mul(period.wide().checked_div(common)?)?;
            if hyperperiod > most {
                return None;
            }
        }
        Some(hyperperiod)
    }

    /// Whether the exact utilisation fits. Only asked where rounding cannot tell.
    fn is_served_in(&self, hyperperiod: u128) -> bool {
        let tasks = self.tasks.iter().map(|task| (task.period, task.cost));
        let sources =
            self.interrupts.iter().map(|source| (source.period.max(Span::ONE), source.cost));
        let work = tasks.chain(sources).try_fold(0u128, |sum, (period, cost)| {
            let jobs = hyperperiod.checked_div(period.wide())?;
            sum.checked_add(jobs.checked_mul(cost.wide())?)
        });
        let needed = work.and_then(|work| work.checked_mul(u128::from(WHOLE_PPM)));
        let supplied = self.capacity.checked_mul(hyperperiod);
        matches!((needed, supplied), (Some(needed), Some(supplied)) if needed <= supplied)
    }
}

/// `a` below 2^64: after the first step both are.
fn gcd(a: u128, mut b: u128) -> u128 {
    let mut a = a;
    while let Some(rest) = b.checked_rem(a) {
        (a, b) = (rest, a);
        if let (Ok(mut x), Ok(mut y)) = (u64::try_from(a), u64::try_from(b)) {
            while let Some(rest) = y.checked_rem(x) {
                (x, y) = (rest, x);
            }
            return u128::from(y);
        }
    }
    b
}

/// `ceil(a * b / c)`, saturating; exact where the product fits, else too large by a little.
fn mul_div_up(a: u128, b: u128, c: u128) -> u128 {
    let c = c.max(1);
    a.checked_mul(b).map_or_else(
        || a.div_ceil(c).saturating_mul(b).min(a.saturating_mul(b.div_ceil(c))),
        |product| product.div_ceil(c),
    )
}
