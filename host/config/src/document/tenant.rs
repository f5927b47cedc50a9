//! `[[tenant]]` as it is written: the virtual machine of a tenant, with the tables of its devices.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::contract::ContractTable;
use super::device::{NetTable, VolumeTable};
use super::load::LoadsTable;
use crate::units::{Size, Time};

/// `[[tenant]]`: one virtual machine with its contracts. It boots an `image` of Moirai or a
/// `kernel`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantTable {
    /// Name, unique among tenants.
    pub name: String,
    /// Library OS image: a path, or the name of an image of Moirai.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub image: Option<PathBuf>,
    /// Linux kernel instead of an image: an ELF file with a PVH note (`vmlinux`) or a bzImage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub initrd: Option<PathBuf>,
    /// Command line for an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Args>,
    /// Command line for a kernel; the same as `args`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<Args>,
    /// Guest memory. Default 64M, for kernels 512M.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Touch all memory at the start, so that no page fault costs time later. Default: whether a
    /// disk or a link guarantees it something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefault: Option<bool>,
    /// Number of virtual CPUs; each gets an equal share of the contract of `[tenant.cpu]`.
    /// Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 8))]
    pub vcpus: Option<u32>,
    /// Core of all virtual CPUs, one of `host.cores`. Default: the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<usize>,
    /// Cores of the virtual CPUs instead of `core`, taken in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<Vec<usize>>,
    /// How the guest finds its devices. Default `mmio`; images know no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<TransportName>,
    /// A virtio entropy source. Default: kernels have one, images none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rng: Option<bool>,
    /// A virtio balloon, through which memory can be taken back. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<bool>,
    /// A virtio console beside the serial port: `moirai console` shows both and types there.
    /// Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<bool>,
    /// Sockets between host and guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockTable>,
    /// Start the machine again when the guest resets it. Default: kernels yes, images no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<bool>,
    /// How long `moirai stop` waits after the power button before it ends the machine. Default 30s
    /// for kernels; images have no power button and end at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_after: Option<Time>,
    /// Contract on the cores, of all virtual CPUs together. Default: best effort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<ContractTable>,
    /// Volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk: Vec<VolumeTable>,
    /// Network interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub net: Vec<NetTable>,
    /// What `moirai simulate` has it do. Nothing else looks at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadsTable>,
}

/// How a guest finds its devices.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TransportName {
    /// Register windows.
    #[default]
    Mmio,
    /// A PCI Express bus with an MSI-X vector for each queue.
    Pci,
}

/// `[tenant.vsock]`: stream sockets between host and guest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct VsockTable {
    /// Context id of the guest, at least 3. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 3, "maximum" = 4294967294_u32))]
    pub cid: Option<u32>,
}

/// Words for the guest, as one text or one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(untagged)]
pub enum Args {
    /// One text.
    Line(String),
    /// Words that are joined with blanks.
    Words(Vec<String>),
}

impl Args {
    /// The words as one text.
    #[must_use]
    pub fn joined(&self) -> String {
        match self {
            Self::Line(line) => line.clone(),
            Self::Words(words) => words.join(" "),
        }
    }
}

impl TenantTable {
    /// What boots: the image or the kernel, as it was written.
    #[must_use]
    pub fn boots(&self) -> Option<&PathBuf> {
        self.image.as_ref().or(self.kernel.as_ref())
    }
}
