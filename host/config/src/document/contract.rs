//! The keys of a contract, which are the same for cores, disks and links.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::units::{Rate, Time};

/// Whether the tenant shares the slack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(untagged)]
pub enum Extra {
    /// With weight 1, or not at all.
    Shares(bool),
    /// With this weight; 0 is the same as false.
    Weight(u32),
}

/// A contract as it is written. Without `slice` and `rate` it is best effort: nothing guaranteed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct ContractTable {
    /// Every so often the slice is released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Time>,
    /// Service in every period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Time>,
    /// Instead of a slice: a share of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The slice is delivered within this time of its release. Default: the period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Whether the tenant also shares the slack. Default: only if nothing is guaranteed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Extra>,
}

impl ContractTable {
    /// Whether `key` is written in the table.
    pub(crate) fn has(&self, key: &str) -> bool {
        match key {
            "period" => self.period.is_some(),
            "slice" => self.slice.is_some(),
            "rate" => self.rate.is_some(),
            "deadline" => self.deadline.is_some(),
            "extra" => self.extra.is_some(),
            _ => false,
        }
    }

    /// The table with the keys of `change` put over its own. A new slice replaces a rate and the
    /// other way round.
    #[must_use]
    pub fn changed(self, change: Self) -> Self {
        let (slice, rate) = match (change.slice, change.rate) {
            (None, None) => (self.slice, self.rate),
            new => new,
        };
        Self {
            period: change.period.or(self.period),
            slice,
            rate,
            deadline: change.deadline.or(self.deadline),
            extra: change.extra.or(self.extra),
        }
    }
}
