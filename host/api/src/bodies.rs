//! Bodies of requests.

use moirai_config::document::TenantTable;
use moirai_config::export::ExportTable;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Tenants to start, as in a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// All are admitted, or none.
    pub tenant: Vec<TenantTable>,
}

/// Devices to export, as in a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exports {
    /// All are admitted, or none.
    pub export: Vec<ExportTable>,
}
