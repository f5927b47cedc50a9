//! `[tenant.load]`: what a tenant does in a simulation, as it is written. `moirai simulate`
//! translates it.
//!
//! A load has a kind and the parameters of that kind. All parameters are keys of one flat table, so
//! that a report can point at the key that is wrong. docs/loads.md describes every kind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::units::Time;

/// The longest time of a load, in nanoseconds: a day. Longer ones are slips of the pen.
pub const TIME_MAX: u64 = 86_400_000_000_000;

/// `[tenant.load]`: one load for each kind of resource.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct LoadsTable {
    /// What each virtual CPU does. Default: `busy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<LoadTable>,
    /// What it does with each of its volumes. Default: `busy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<LoadTable>,
    /// What it does with each of its network interfaces. Default: `busy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LoadTable>,
}

/// What a load is. The last six are adversaries.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum LoadKind {
    /// Nothing.
    Idle,
    /// Always more work. Takes `unit`.
    #[default]
    Busy,
    /// `work` every `period`. Takes `phase`, `unit`.
    Periodic,
    /// `count` jobs of `work` at once, at random times `gap` apart in the mean.
    Bursty,
    /// Busy for `on`, idle for `off`. Takes `unit`.
    OnOff,
    /// One request of `work` at a time. Takes `think`.
    Single,
    /// Jobs of random size and at random times with the means `work` and `gap`.
    Random,
    /// Uses its slice, sleeps past its deadline, and again. Takes `work`, `pause`.
    LatencyThief,
    /// Naps for a nanosecond just before its slice is used up. Takes `work`.
    BlockBeforeCharge,
    /// Units that cost more than they announce. Takes `announced`, `unit`.
    Inflate,
    /// As many tiny units as it can. Takes `unit`.
    SmallPackets,
    /// `count` writes of `unit`, then a flush that takes `flush`, without end.
    Writes,
    /// The whole machine stands still for `length`, at random times `gap` apart in the mean.
    HostStall,
}

/// A load as it is written: its kind and the parameters of that kind.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct LoadTable {
    /// What it is.
    pub kind: LoadKind,
    /// Time between arrivals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Time>,
    /// Service that a job asks for, or its mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Time>,
    /// Time of the first arrival. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Time>,
    /// Service of one request or packet. Default: the largest of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Time>,
    /// Mean time between arrivals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Time>,
    /// Jobs in a burst, or writes before a flush (default 8), 1 to 100000.
    #[schemars(extend("minimum" = 1, "maximum" = 100_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// How long it wants service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Time>,
    /// How long it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<Time>,
    /// Time between the end of a request and the next one. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think: Option<Time>,
    /// Length of a sleep. Default: the contract's deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Time>,
    /// What a unit says it costs. Default: a tenth of the unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<Time>,
    /// What a flush takes. Default: the largest unit of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush: Option<Time>,
    /// How long a stall lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<Time>,
}

impl LoadKind {
    /// The name by which configurations know it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Periodic => "periodic",
            Self::Bursty => "bursty",
            Self::OnOff => "on-off",
            Self::Single => "single",
            Self::Random => "random",
            Self::LatencyThief => "latency-thief",
            Self::BlockBeforeCharge => "block-before-charge",
            Self::Inflate => "inflate",
            Self::SmallPackets => "small-packets",
            Self::Writes => "writes",
            Self::HostStall => "host-stall",
        }
    }
}
