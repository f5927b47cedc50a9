//! `[[export]]` as it is written: a volume or a link port for a VMM that is not ours, behind a
//! vhost-user socket.
//!
//! The tables of its device are those of a tenant, and so are the contracts.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::device::{NetTable, VolumeTable};
use crate::holder::Holder;
use crate::units::Size;

/// `[[export]]`: a device for a foreign VMM. It has either `[export.disk]` or `[export.net]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportTable {
    /// Name, unique among exports.
    pub name: String,
    /// Path of the vhost-user socket to make.
    #[schema(value_type = String)]
    pub socket: PathBuf,
    /// The most guest memory that its VMM may hand over; counted as promised, as a tenant's is.
    /// Whole pages of 4K; default 1G.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Take guest memory that its VMM has not sealed against shrinking. A VMM that then shrinks it
    /// kills the host service: only for VMMs that are trusted and cannot seal. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsealed_memory: Option<bool>,
    /// A volume, with the keys of `[[tenant.disk]]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<VolumeTable>,
    /// A port of a link, with the keys of `[[tenant.net]]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<NetTable>,
}

impl ExportTable {
    /// It, as one that holds promises.
    #[must_use]
    pub fn holder(&self) -> Holder {
        Holder::Export(self.name.clone())
    }
}
