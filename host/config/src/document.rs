//! The configuration as it is written: one struct per TOML table, one field per key.
//!
//! The same types read the TOML file and the JSON bodies of the API, so that both mean the same.
//! Reading a document checks the names of keys and the kinds of values only. What the values must
//! fulfil together, [`crate::check()`] says.

mod contract;
mod device;
pub mod export;
pub mod load;
mod policy;
mod tenant;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use contract::{ContractTable, Extra};
pub use device::{FormatName, NetTable, SpoofingName, StripeTable, VolumeTable};
pub use export::ExportTable;
pub use policy::PolicyName;
pub use tenant::{Args, TenantTable, TransportName, VsockTable};

use crate::units::{Rate, Size, Time};

/// A whole configuration of a Moirai host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The host itself.
    #[serde(default)]
    pub host: HostTable,
    /// Disks that tenants share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk: Vec<DiskTable>,
    /// Links that tenants share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link: Vec<LinkTable>,
    /// Tenants to start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenant: Vec<TenantTable>,
    /// Devices for VMMs that are not ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export: Vec<ExportTable>,
}

/// How admission accounts for the machine's own costs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Conservative figures for switching costs, device requests and frames.
    #[default]
    Default,
    /// An ideal machine: all overhead and blocking terms are zero.
    None,
}

/// What a link does for its guests. It decides how large a packet may be, and so how long it may
/// hold up others.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum OffloadName {
    /// Nothing.
    None,
    /// Checksums.
    #[default]
    Checksum,
    /// Checksums, and cutting packets of up to 64 KiB into segments.
    Segmentation,
}

/// What to do if contracts may reserve more of a core than the kernel lets real-time threads have.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum RealtimeLimit {
    /// Do not start.
    #[default]
    Refuse,
    /// Lift the kernel's limit as long as the host service runs.
    Set,
}

/// `[host]`: the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostTable {
    /// The cores that run tenants. Default: the last core.
    pub cores: Option<Vec<usize>>,
    /// The share of each core that contracts may reserve, above 0 and at most 1. Default 0.95; the
    /// kernel keeps the rest for threads that are not real-time.
    pub cpu_capacity: Option<f64>,
    /// What to do if the kernel lets real-time threads have less than `cpu_capacity`. Default
    /// `refuse`.
    pub realtime_limit: Option<RealtimeLimit>,
    /// What tenants may have of the machine's memory, all together. Default: all but
    /// `memory_reserve`.
    pub memory: Option<Size>,
    /// What the host keeps of the machine's memory, or of what its control group leaves it. Default
    /// 5%, at least 512M.
    pub memory_reserve: Option<Size>,
    /// Overhead terms of admission.
    pub profile: Option<Profile>,
    /// Who decides about the cores; not `drr` nor `edf-channel`. Default `atropos`.
    pub cpu_policy: Option<PolicyName>,
    /// The core of the I/O domain. Default: a core that is not in `cores`, if there is one.
    pub io_core: Option<usize>,
    /// Path of the API socket. Default `/run/moirai/host.sock`.
    #[schema(value_type = Option<String>)]
    pub socket: Option<PathBuf>,
    /// Where `GET /metrics` is answered over TCP for Prometheus, as `127.0.0.1:9100`; a port alone
    /// is one of 127.0.0.1. Default: nowhere but at `socket`.
    pub metrics: Option<String>,
    /// Directory for what a later start must know. Default `/run/moirai`.
    #[schema(value_type = Option<String>)]
    pub state_dir: Option<PathBuf>,
}

/// `[[disk]]`: a disk whose time tenants share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskTable {
    /// Name, unique among disks.
    pub name: String,
    /// Directory in which the volumes lie, or a block device.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// How many requests the device gets at a time. Default 4.
    #[schemars(extend("minimum" = 1, "maximum" = 1024))]
    pub depth: Option<u32>,
    /// The longest time one request takes: the blocking term of admission. Longer requests are cut.
    /// Default 1 ms.
    pub max_unit: Option<Time>,
    /// What the disk delivers when it is busy all the time; needed for contracts in bytes per
    /// second.
    pub bandwidth: Option<Rate>,
    /// Who decides. Default `atropos`.
    pub policy: Option<PolicyName>,
    /// Disks and links of one group are served by one event loop. Default "main".
    pub group: Option<String>,
}

/// `[[link]]`: a network link whose transmission time tenants share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkTable {
    /// Name, unique among links.
    pub name: String,
    /// Bits or bytes per second; the link is paced to it.
    pub rate: Rate,
    /// Name of the TAP device to create. Default `mo-` and the link's name.
    pub tap: Option<String>,
    /// Bridge that the TAP joins; it must exist.
    pub bridge: Option<String>,
    /// Network namespace (a name below /run/netns) in which the TAP and the bridge are. Created if
    /// it is not there.
    pub netns: Option<String>,
    /// Address of the host on the TAP, as `10.0.0.1/24`.
    pub address: Option<String>,
    /// Addresses of others on this link that no guest may have, as `["10.0.0.254", "fe80::1"]`: a
    /// router behind the bridge. The host's own `address` is among them anyway.
    pub reserved: Option<Vec<String>>,
    /// What packets that came in for all guests or for none of them may take of the event loop's
    /// time, 0.1% to 100%. What is more is dropped. Default `"2%"`.
    pub broadcast: Option<Rate>,
    /// Largest packet in bytes, without the Ethernet header. Default 1500.
    #[schemars(extend("minimum" = 68, "maximum" = 65521))]
    pub mtu: Option<u32>,
    /// What guests may leave to the link. Default `checksum`.
    pub offload: Option<OffloadName>,
    /// Who decides. Default `atropos`.
    pub policy: Option<PolicyName>,
    /// Disks and links of one group are served by one event loop. Default "main".
    pub group: Option<String>,
}
