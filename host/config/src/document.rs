//! The configuration as it is written: one struct per TOML table, one field per key.
//!
//! The same types read the TOML file and the JSON bodies of the API, so that both mean the same.
//! Nothing is checked here but names and kinds of keys; what the values must fulfil together is
//! said in [`super::check`].

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::export::ExportTable;
pub use super::machine::{Args, TenantTable, TransportName, VsockTable};
pub use super::policy_name::PolicyName;
use super::units::{Rate, Size, Time};

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

/// `[[tenant.net]]`: a network interface and its contract on the link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetTable {
    /// Name of the link.
    pub link: String,
    /// Hardware address, as `02:00:00:00:00:01`. Default: derived from the tenant's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
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
