//! What is measured of one client on one resource.

use hdrhistogram::Histogram;
use moirai_scheduler::{Account, Amount, Moment, Service, Span};

use crate::report::{Bucket, Usage, Window};

/// Longest time that a histogram tells apart.
const LONGEST: u64 = 1 << 42;

/// Counts service, latencies and gaps.
#[derive(Debug)]
pub(crate) struct Meter {
    /// At least a millisecond.
    window: Span,
    windows: Vec<Window>,
    guaranteed: Amount,
    extra: Amount,
    wake: Histogram<u64>,
    lateness: Histogram<u64>,
    max_lateness: Span,
    /// Since when it wants service and gets none.
    dark_since: Option<Moment>,
    blackout: Span,
    /// It woke then and was not served since.
    woke: Option<Moment>,
    /// Since when it has wanted service, and for how long before.
    wanting_since: Option<Moment>,
    wanting: Span,
    jobs: u64,
    /// Misses that a stall can have caused.
    pub(crate) misses_in_stall: u64,
    undone: u64,
    oldest_undone: Span,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 2).expect("constant bounds are in order")
}

impl Meter {
    pub(crate) fn new(window: Span) -> Self {
        Self {
            window: window.max(Span::from_millis(1)),
            windows: Vec::new(),
            guaranteed: Amount::ZERO,
            extra: Amount::ZERO,
            wake: histogram(),
            lateness: histogram(),
            max_lateness: Span::ZERO,
            dark_since: None,
            blackout: Span::ZERO,
            woke: None,
            wanting_since: None,
            wanting: Span::ZERO,
            jobs: 0,
            misses_in_stall: 0,
            undone: 0,
            oldest_undone: Span::ZERO,
        }
    }

    /// The client has work again.
    pub(crate) fn wakes(&mut self, now: Moment) {
        self.woke = Some(now);
        self.dark_since.get_or_insert(now);
        self.wanting_since.get_or_insert(now);
    }

    /// The client wants nothing more.
    pub(crate) fn sleeps(&mut self, now: Moment) {
        self.dark_since = None;
        self.woke = None;
        if let Some(since) = self.wanting_since.take() {
            self.wanting += now.since(since);
        }
    }

    /// The client was served from `start` to `end`, and still wants more or not.
    pub(crate) fn served(&mut self, service: Service, start: Moment, end: Moment) {
        if let Some(woke) = self.woke.take() {
            self.wake.saturating_record(start.since(woke).as_nanos());
        }
        if let Some(dark) = self.dark_since {
            self.blackout = self.blackout.max(start.since(dark));
            self.dark_since = Some(end);
        }
        self.count(service, start, end);
    }

    /// A job ended.
    pub(crate) fn done(&mut self, due: Option<Moment>, now: Moment) {
        self.jobs += 1;
        if let Some(due) = due {
            let late = now.since(due);
            self.max_lateness = self.max_lateness.max(late);
            self.lateness.saturating_record(late.as_nanos());
        }
    }

    /// The simulation ends with this job undone, which arrived then and was due then.
    pub(crate) fn not_done(&mut self, arrival: Moment, due: Option<Moment>, end: Moment) {
        self.undone += 1;
        self.oldest_undone = self.oldest_undone.max(end.since(arrival));
        if let Some(due) = due.filter(|due| *due < end) {
            self.lateness.saturating_record((end - due).as_nanos());
            self.max_lateness = self.max_lateness.max(end - due);
        }
    }

    /// The simulation ends; who woke and was not served has waited until now.
    pub(crate) fn ends(&mut self, now: Moment) {
        if let Some(woke) = self.woke.take() {
            self.wake.saturating_record(now.since(woke).as_nanos());
        }
    }

    /// How long the client wanted service in all.
    pub(crate) fn wanting(&self, now: Moment) -> Span {
        self.wanting + self.wanting_since.map_or(Span::ZERO, |since| now.since(since))
    }

    pub(crate) const fn extra(&self) -> Amount {
        self.extra
    }

    pub(crate) fn total(&self) -> Amount {
        self.guaranteed + self.extra
    }

    fn count(&mut self, service: Service, mut start: Moment, end: Moment) {
        let cost = (end - start).service();
        match service {
            Service::Guaranteed => self.guaranteed += cost,
            Service::Extra => self.extra += cost,
        }
        while start < end {
            let index = start.since(Moment::ZERO) / self.window;
            let next = self.window.saturating_mul(index + 1);
            let until = end.min(Moment::ZERO.saturating_add(next));
            let part = (until - start).service().as_nanos();
            let Ok(at) = usize::try_from(index) else { return };
            if self.windows.len() <= at {
                self.windows.resize(at + 1, Window::default());
            }
            match service {
                Service::Guaranteed => self.windows[at].guaranteed_ns += part,
                Service::Extra => self.windows[at].extra_ns += part,
            }
            start = until;
        }
    }

    /// What was measured until `now`.
    pub(crate) fn usage(&self, account: Account, dropped: u64, now: Moment) -> Usage {
        let dark = self.dark_since.map_or(Span::ZERO, |since| now.since(since));
        Usage {
            guaranteed_ns: self.guaranteed.as_nanos(),
            extra_ns: self.extra.as_nanos(),
            misses: account.misses.saturating_sub(self.misses_in_stall),
            misses_in_stall: self.misses_in_stall,
            max_lateness_ns: self.max_lateness.as_nanos(),
            max_blackout_ns: self.blackout.max(dark).as_nanos(),
            wake_p99_ns: if self.wake.is_empty() { 0 } else { self.wake.value_at_quantile(0.99) },
            stall_loss_ns: account.stall_loss.as_nanos(),
            jobs: self.jobs,
            undone: self.undone,
            oldest_undone_ns: self.oldest_undone.as_nanos(),
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
