//! Invariant 6: a backlogged client gets its supply in every window.
//!
//! A contract `(p, s, D)` promises in any window of length `W` at least
//! `sbf(W) = n*s + min(x - n*p, s)` with `x = W - (p + D - 2s)` and `n = floor(x/p)`, and nothing
//! for `x <= 0`: the longest blackout lies between a slice given at once and one given at the last
//! moment. Only windows that start when a service ends and end when one starts can be the worst.
//! The latest 48 starts are checked exactly, older ones against the line below `sbf`.

use std::collections::VecDeque;

use moirai_scheduler::{Amount, Contract, Moment, Span};

const HISTORY: usize = 48;

/// The service of one client while it has work.
#[derive(Debug)]
pub(crate) struct Supply {
    contract: Contract,
    /// `B + e`: what blocking and overrun may take away.
    tolerance: Amount,
    backlogged: bool,
    served: Amount,
    /// Starts of windows: time and service until then.
    starts: VecDeque<(Moment, Amount)>,
    /// The largest `s*t - p*served` of all older starts.
    line: Option<i128>,
}

/// The supply bound function.
#[must_use]
pub fn sbf(contract: &Contract, window: Span) -> Amount {
    let (p, s, d) = (contract.period(), contract.slice(), contract.deadline());
    let Some(x) = (window + 2 * s.time()).checked_sub(p + d) else { return Amount::ZERO };
    (x / p) * s + (x % p).service().min(s)
}

impl Supply {
    pub(crate) fn new(contract: Contract, tolerance: Amount) -> Self {
        let (starts, line) = (VecDeque::new(), None);
        Self { contract, tolerance, backlogged: false, served: Amount::ZERO, starts, line }
    }

    /// The client has work from now on.
    pub(crate) fn wakes(&mut self, now: Moment) {
        self.backlogged = true;
        self.line = None;
        self.starts.clear();
        self.starts.push_back((now, self.served));
    }

    /// The client has none. Returns whether it had its supply so far.
    pub(crate) fn sleeps(&mut self, now: Moment) -> bool {
        let kept = self.kept(now);
        self.backlogged = false;
        kept
    }

    /// The client was given service on its contract. Returns whether it came soon enough.
    pub(crate) fn served(&mut self, start: Moment, end: Moment) -> bool {
        let kept = self.kept(start);
        self.served += (end - start).service();
        if self.starts.len() == HISTORY
            && let Some((time, served)) = self.starts.pop_front()
        {
            let line = self.above(time, served);
            self.line = Some(self.line.map_or(line, |old| old.max(line)));
        }
        self.starts.push_back((end, self.served));
        kept
    }

    /// Whether all windows that end at `now` had their supply.
    pub(crate) fn kept(&self, now: Moment) -> bool {
        if !self.backlogged || self.contract.slice().is_zero() {
            return true;
        }
        let (p, s, d) = (self.contract.period(), self.contract.slice(), self.contract.deadline());
        let recent = self.starts.iter().all(|&(time, served)| {
            let due = sbf(&self.contract, now.since(time));
            self.served - served + self.tolerance >= due
        });
        let [p, s, d, tolerance] =
            [p.as_nanos(), s.as_nanos(), d.as_nanos(), self.tolerance.as_nanos()];
        let slope = i128::from(s) * (i128::from(2 * p + d) - 3 * i128::from(s));
        let tolerance = i128::from(p) * i128::from(tolerance);
        recent
            && self.line.is_none_or(|line| self.above(now, self.served) - line <= slope + tolerance)
    }

    /// By how much service lags behind the bandwidth, times `p`.
    fn above(&self, time: Moment, served: Amount) -> i128 {
        let (slice, period) = (self.contract.slice().as_nanos(), self.contract.period().as_nanos());
        i128::from(slice) * i128::from(time.as_nanos())
            - i128::from(period) * i128::from(served.as_nanos())
    }
}
