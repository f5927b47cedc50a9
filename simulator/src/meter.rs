//! What is measured of one client on one resource.

use hdrhistogram::Histogram;
use moirai_scheduler::{Account, Nanos, Service};

use crate::report::{Bucket, Usage, Window};

/// Longest time that a histogram tells apart.
const LONGEST: u64 = 1 << 42;

/// Counts service, latencies and gaps.
#[derive(Debug)]
pub(crate) struct Meter {
    /// At least a millisecond.
    window: Nanos,
    windows: Vec<Window>,
    guaranteed: Nanos,
    extra: Nanos,
    wake: Histogram<u64>,
    lateness: Histogram<u64>,
    max_lateness: Nanos,
    /// Since when it wants service and gets none.
    dark_since: Option<Nanos>,
    blackout: Nanos,
    /// It woke then and was not served since.
    woke: Option<Nanos>,
    /// Since when it has wanted service, and for how long before.
    wanting_since: Option<Nanos>,
    wanting: Nanos,
    jobs: u64,
    /// Misses that a stall can have caused.
    pub(crate) misses_in_stall: u64,
    undone: u64,
    oldest_undone: Nanos,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 2).expect("constant bounds are in order")
}

impl Meter {
    pub(crate) fn new(window: Nanos) -> Self {
        Self {
            window: window.max(1_000_000),
            windows: Vec::new(),
            guaranteed: 0,
            extra: 0,
            wake: histogram(),
            lateness: histogram(),
            max_lateness: 0,
            dark_since: None,
            blackout: 0,
            woke: None,
            wanting_since: None,
            wanting: 0,
            jobs: 0,
            misses_in_stall: 0,
            undone: 0,
            oldest_undone: 0,
        }
    }

    /// The client has work again.
    pub(crate) fn wakes(&mut self, now: Nanos) {
        self.woke = Some(now);
        self.dark_since.get_or_insert(now);
        self.wanting_since.get_or_insert(now);
    }

    /// The client wants nothing more.
    pub(crate) fn sleeps(&mut self, now: Nanos) {
        self.dark_since = None;
        self.woke = None;
        if let Some(since) = self.wanting_since.take() {
            self.wanting += now.saturating_sub(since);
        }
    }

    /// The client was served from `start` to `end`, and still wants more or not.
    pub(crate) fn served(&mut self, service: Service, start: Nanos, end: Nanos) {
        if let Some(woke) = self.woke.take() {
            self.wake.saturating_record(start.saturating_sub(woke));
        }
        if let Some(dark) = self.dark_since {
            self.blackout = self.blackout.max(start.saturating_sub(dark));
            self.dark_since = Some(end);
        }
        self.count(service, start, end);
    }

    /// A job ended.
    pub(crate) fn done(&mut self, due: Option<Nanos>, now: Nanos) {
        self.jobs += 1;
        if let Some(due) = due {
            let late = now.saturating_sub(due);
            self.max_lateness = self.max_lateness.max(late);
            self.lateness.saturating_record(late);
        }
    }

    /// The simulation ends with this job undone, which arrived then and was due then.
    pub(crate) fn not_done(&mut self, arrival: Nanos, due: Option<Nanos>, end: Nanos) {
        self.undone += 1;
        self.oldest_undone = self.oldest_undone.max(end.saturating_sub(arrival));
        if let Some(due) = due.filter(|due| *due < end) {
            self.lateness.saturating_record(end - due);
            self.max_lateness = self.max_lateness.max(end - due);
        }
    }

    /// The simulation ends; who woke and was not served has waited until now.
    pub(crate) fn ends(&mut self, now: Nanos) {
        if let Some(woke) = self.woke.take() {
            self.wake.saturating_record(now.saturating_sub(woke));
        }
    }

    /// How long the client wanted service in all.
    pub(crate) fn wanting(&self, now: Nanos) -> Nanos {
        self.wanting + self.wanting_since.map_or(0, |since| now.saturating_sub(since))
    }

    pub(crate) const fn extra(&self) -> Nanos {
        self.extra
    }

    pub(crate) const fn total(&self) -> Nanos {
        self.guaranteed + self.extra
    }

    fn count(&mut self, service: Service, mut start: Nanos, end: Nanos) {
        let cost = end - start;
        match service {
            Service::Guaranteed => self.guaranteed += cost,
            Service::Extra => self.extra += cost,
        }
        while start < end {
            let index = start / self.window;
            let until = end.min((index + 1).saturating_mul(self.window));
            let Ok(at) = usize::try_from(index) else { return };
            if self.windows.len() <= at {
                self.windows.resize(at + 1, Window::default());
            }
            match service {
                Service::Guaranteed => self.windows[at].guaranteed_ns += until - start,
                Service::Extra => self.windows[at].extra_ns += until - start,
            }
            start = until;
        }
    }

    /// What was measured until `now`.
    pub(crate) fn usage(&self, account: Account, dropped: u64, now: Nanos) -> Usage {
        let dark = self.dark_since.map_or(0, |since| now.saturating_sub(since));
        Usage {
            guaranteed_ns: self.guaranteed,
            extra_ns: self.extra,
            misses: account.misses.saturating_sub(self.misses_in_stall),
            misses_in_stall: self.misses_in_stall,
            max_lateness_ns: self.max_lateness,
            max_blackout_ns: self.blackout.max(dark),
            wake_p99_ns: if self.wake.is_empty() { 0 } else { self.wake.value_at_quantile(0.99) },
            stall_loss_ns: account.stall_loss,
            jobs: self.jobs,
            undone: self.undone,
            oldest_undone_ns: self.oldest_undone,
            dropped,
            wake: buckets(&self.wake),
            lateness: buckets(&self.lateness),
            windows: self.windows.clone(),
        }
    }
}

/// A histogram in powers of two.
fn buckets(histogram: &Histogram<u64>) -> Vec<Bucket> {
    let buckets = histogram.iter_log(1_000, 2.0);
    buckets
        .map(|step| Bucket {
            below_ns: step.value_iterated_to().saturating_add(1),
            count: step.count_since_last_iteration(),
        })
        .filter(|bucket| bucket.count > 0)
        .collect()
}
