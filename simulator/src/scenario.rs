//! What is simulated: resources, and tenants with contracts and loads on them.

use moirai_scheduler::{Amount, Contract, PolicyKind, Span};
use serde::Serialize;

use crate::load::Load;

/// What a resource is; decides whether it can be preempted and where a report shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A core: preemptible.
    Cpu,
    /// A disk: serves whole requests.
    Disk,
    /// A link: serves whole packets.
    Link,
}

/// One core, disk or link.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its name; tenants refer to it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Who decides about it.
    pub policy: PolicyKind,
    /// Units handed to the device at once; at least 1; without meaning for a core.
    pub depth: u32,
    /// Cost of the largest unit, in nanoseconds; without meaning for a core.
    pub unit: Amount,
    /// What a switch to another client costs on a core, in nanoseconds.
    pub switch: Span,
}

impl Resource {
    /// A core under a policy, with free switches.
    #[must_use]
    pub fn cpu(name: &str, policy: PolicyKind) -> Self {
        Self {
            name: name.into(),
            kind: Kind::Cpu,
            policy,
            depth: 1,
            unit: Amount::ZERO,
            switch: Span::ZERO,
        }
    }

    /// A disk under a policy, with units of at most `unit` and this device depth.
    #[must_use]
    pub fn disk(name: &str, policy: PolicyKind, unit: Amount, depth: u32) -> Self {
        Self { kind: Kind::Disk, depth, unit, ..Self::cpu(name, policy) }
    }

    /// A link under a policy, with packets of at most `unit`.
    #[must_use]
    pub fn link(name: &str, policy: PolicyKind, unit: Amount) -> Self {
        Self { kind: Kind::Link, unit, ..Self::cpu(name, policy) }
    }
}

/// What a tenant does with a resource, and what it is promised.
#[derive(Clone, Debug)]
pub struct Use {
    /// Name of the resource.
    pub resource: String,
    /// The promise.
    pub contract: Contract,
    /// The load.
    pub load: Load,
}

/// A tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Its resources.
    pub uses: Vec<Use>,
}

/// All that is simulated. Resources do not influence each other.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The resources; names are unique.
    pub resources: Vec<Resource>,
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// Length of a window of the report, in nanoseconds.
    pub window: Span,
    /// How many segments of service are kept for charts and traces.
    pub segments: usize,
}

impl Scenario {
    /// One window each second, and enough segments for a chart.
    #[must_use]
    pub const fn new(resources: Vec<Resource>, tenants: Vec<Tenant>) -> Self {
        Self { resources, tenants, window: Span::from_secs(1), segments: 20_000 }
    }

    /// The same under another policy on every resource: `simulate --policy`.
    #[must_use]
    pub fn with_policy(mut self, policy: PolicyKind) -> Self {
        for resource in &mut self.resources {
            resource.policy = policy;
        }
        self
    }
}
