//! Where a tenant is in its life.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a tenant is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The process is there, the VM is being built.
    Starting,
    /// The guest runs under its contracts.
    Running,
    /// The process is about to end.
    Stopping,
    /// The process is gone and all it held is given back.
    Ended,
}
