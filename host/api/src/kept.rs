//! What the host service tells when it does not keep a contract any more, or keeps it again.

use moirai_config::Holder;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A contract that is not kept any more, or is again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptEvent {
    /// When it was seen, in nanoseconds on CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// The tenant, or `export/NAME`.
    #[schema(value_type = String)]
    pub tenant: Holder,
    /// `cpu/1`, `disk/ssd`, `link/uplink`.
    pub resource: String,
    /// Whether the contract is kept from now on.
    pub kept: bool,
    /// Why it is not; empty if it is.
    pub because: String,
}
