//! The result of a simulation, as JSON: its times and amounts are plain nanoseconds.

use moirai_scheduler::Moment;
use serde::Serialize;

use crate::scenario::Kind;

/// Service in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Owed by the contract, in nanoseconds.
    pub guaranteed_ns: u64,
    /// From the slack, in nanoseconds.
    pub extra_ns: u64,
}

/// One bar of a histogram: values below a bound that are in no bar before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// The bound, in nanoseconds.
    pub below_ns: u64,
    /// How many values.
    pub count: u64,
}

/// What a tenant got of one kind of resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Service owed by the contract.
    pub guaranteed_ns: u64,
    /// Service from the slack.
    pub extra_ns: u64,
    /// Promises that were not kept: what was left of a slice at a wake-up or a refill, wanted until
    /// its deadline and not given by then; a unit of it that came back late. Without those that
    /// stalls can have caused.
    pub misses: u64,
    /// The others.
    pub misses_in_stall: u64,
    /// By how much a job of a periodic load was late at most, also one that is not done; jobs
    /// larger than the slice have no deadline.
    pub max_lateness_ns: u64,
    /// The longest time that the tenant wanted service and got none.
    pub max_blackout_ns: u64,
    /// From having work to getting service, 99th percentile; who was never served has waited until
    /// the end.
    pub wake_p99_ns: u64,
    /// Guaranteed service that stalls of the host destroyed.
    pub stall_loss_ns: u64,
    /// Jobs done.
    pub jobs: u64,
    /// Jobs that were not done at the end.
    pub undone: u64,
    /// How long the oldest of them has waited by then.
    pub oldest_undone_ns: u64,
    /// Jobs that found the queue full.
    pub dropped: u64,
    /// Wake-up latencies.
    pub wake: Vec<Bucket>,
    /// Lateness of jobs.
    pub lateness: Vec<Bucket>,
    /// Service in each window.
    pub windows: Vec<Window>,
}

/// What a tenant got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TenantReport {
    /// Its name.
    pub name: String,
    /// Of cores.
    pub cpu: Option<Usage>,
    /// Of disks.
    pub disk: Option<Usage>,
    /// Of links.
    pub link: Option<Usage>,
}

/// What happened on one resource.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResourceReport {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Decisions taken.
    pub decisions: u64,
    /// Time in which nobody was served.
    pub idle_ns: u64,
    /// Time spent on switches.
    pub overhead_ns: u64,
    /// Time in which the host stood still.
    pub stalled_ns: u64,
    /// Service given, in parts per million of the time.
    pub utilisation_ppm: u64,
    /// Weighted fairness of the slack among those who always wanted it (Jain's index), 1 if fewer
    /// than two did.
    pub jain: f64,
}

/// A stretch of service, for charts and traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of the resource in the scenario.
    pub resource: usize,
    /// Index of the tenant.
    pub tenant: usize,
    /// From when.
    pub start: Moment,
    /// Until when.
    pub end: Moment,
    /// Whether it was owed.
    pub guaranteed: bool,
}

/// The result of a simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Decisions taken on all resources.
    pub decisions: u64,
    /// All tenants, in the order of the scenario.
    pub tenants: Vec<TenantReport>,
    /// All resources, in the order of the scenario.
    pub resources: Vec<ResourceReport>,
    /// Idle time of all resources together.
    pub idle_ns: u64,
    /// Time spent on switches, of all resources together.
    pub overhead_ns: u64,
    /// The worst fairness of any resource.
    pub jain: f64,
    /// Stretches of service from the start on, as many as the scenario keeps.
    #[serde(skip)]
    pub segments: Vec<Segment>,
}

impl Report {
    /// The report as one JSON object on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a report has only string keys and finite numbers")
    }
}

impl Usage {
    /// Adds what the tenant got of another resource of the same kind.
    pub(crate) fn merge(&mut self, other: Self) {
        self.guaranteed_ns += other.guaranteed_ns;
        self.extra_ns += other.extra_ns;
        self.misses += other.misses;
        self.misses_in_stall += other.misses_in_stall;
        self.undone += other.undone;
        self.oldest_undone_ns = self.oldest_undone_ns.max(other.oldest_undone_ns);
        self.max_lateness_ns = self.max_lateness_ns.max(other.max_lateness_ns);
        self.max_blackout_ns = self.max_blackout_ns.max(other.max_blackout_ns);
        self.wake_p99_ns = self.wake_p99_ns.max(other.wake_p99_ns);
        self.stall_loss_ns += other.stall_loss_ns;
        self.jobs += other.jobs;
        self.dropped += other.dropped;
        self.wake.extend(other.wake);
        self.lateness.extend(other.lateness);
        for (i, window) in other.windows.into_iter().enumerate() {
            match self.windows.get_mut(i) {
                Some(own) => {
                    own.guaranteed_ns += window.guaranteed_ns;
                    own.extra_ns += window.extra_ns;
                }
                None => self.windows.push(window),
            }
        }
    }
}

/// Jain's index of shares that should be equal: `(sum x)^2 / (n * sum x^2)`.
pub(crate) fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|x| x * x).sum();
    if shares.len() < 2 || squares <= 0.0 {
        return 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "few clients")]
    let n = shares.len() as f64;
    sum * sum / (n * squares)
}
