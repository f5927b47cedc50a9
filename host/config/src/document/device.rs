//! `[[tenant.disk]]` and `[[tenant.net]]` as they are written: a device and its contract. Exports
//! have the same tables.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::contract::{ContractTable, Extra};
use crate::units::{Rate, Size, Time};

/// `[[tenant.disk]]`: a volume and its contract on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeTable {
    /// Name of the disk.
    pub disk: String,
    /// File below the disk's path. Default: the disk's path itself, a block device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub volume: Option<PathBuf>,
    /// Instead of `volume`: several files in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripe: Option<StripeTable>,
    /// What the file is. Default `raw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatName>,
    /// Refuse writes. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
    /// Request queues, 1 to 16; as many as virtual CPUs are of use. Default 1.
    #[schemars(extend("minimum" = 1, "maximum" = 16))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// The logical blocks that the guest is told, in bytes: what its partitions and file systems
    /// were made for. 512, 1024, 2048 or 4096; default 512, whatever the device below has. Smaller
    /// ones than that has are read, changed and written back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<Size>,
    /// Serial number, up to 20 printable ASCII characters, different for each volume of a tenant.
    /// Default: the tenant's name and the volume's number; if that is longer, its beginning and a
    /// hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// See `[tenant.cpu]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Time>,
    /// See `[tenant.cpu]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Time>,
    /// A share of the disk's time, or bytes per second of the disk's `bandwidth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// See `[tenant.cpu]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// See `[tenant.cpu]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Extra>,
}

/// How a volume's file is to be read. Never guessed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum FormatName {
    /// The file is the disk.
    #[default]
    Raw,
    /// A qcow2 image, with the backing files that it names.
    Qcow2,
}

/// `stripe`: several files that together are one volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StripeTable {
    /// Files below the disk's path, 2 to 64, all of the same size.
    #[schema(value_type = Vec<String>)]
    pub files: Vec<PathBuf>,
    /// How much lies on one file before it is the next one's turn: 4K to 64M, a multiple of 4K.
    /// Default 64K.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Size>,
}

/// What becomes of packets that a guest sends and that are not its own to send.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum SpoofingName {
    /// They are dropped, and counted by what is wrong with them.
    #[default]
    Refuse,
    /// They are sent, if their hardware address is the guest's: for routers, servers of DHCP, and
    /// guests with addresses of others behind them.
    Allow,
}

/// `[[tenant.net]]`: a network interface and its contract on the link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetTable {
    /// Name of the link.
    pub link: String,
    /// Hardware address, as `02:00:00:00:00:01`. Default: derived from the tenant's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// IP addresses that the guest has, as `["10.0.0.2", "2001:db8::2"]`; beside them only the
    /// link-local one that is made of its hardware address. Default: those that it is the first on
    /// its link to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
    /// What becomes of packets from addresses that are not the guest's. Default `refuse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoofing: Option<SpoofingName>,
    /// What receiving may take of the event loop's time, 0.1% to 100%. What is more is dropped.
    /// Default: `"25%"` times the share of the link that is guaranteed, at least `"10%"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<Rate>,
    /// Pairs of a receive and a transmit queue, 1 to 7. Default 1.
    #[schemars(extend("minimum" = 1, "maximum" = 7))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// See `[tenant.cpu]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Time>,
    /// See `[tenant.cpu]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Time>,
    /// A share of the link's time, or bits per second of its rate, counted on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// See `[tenant.cpu]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// See `[tenant.cpu]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Extra>,
}

impl VolumeTable {
    /// The keys that make the contract.
    #[must_use]
    pub fn contract(&self) -> ContractTable {
        let Self { period, slice, rate, deadline, extra, .. } = *self;
        ContractTable { period, slice, rate, deadline, extra }
    }
}

impl NetTable {
    /// The keys that make the contract.
    #[must_use]
    pub fn contract(&self) -> ContractTable {
        let Self { period, slice, rate, deadline, extra, .. } = *self;
        ContractTable { period, slice, rate, deadline, extra }
    }
}
