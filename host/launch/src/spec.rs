//! What a tenant process is launched with, and what makes a launch valid.

use std::os::fd::OwnedFd;

use moirai_abi::limits::QUEUES_MAX;
use moirai_abi::machine::VIRTIO_MMIO_MAX;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most vCPUs of a tenant.
pub const MAX_VCPUS: u8 = 8;
/// Least guest memory: the image, the start information and room to run.
pub const MIN_MEMORY_BYTES: u64 = 2 << 20;
/// Most guest memory.
pub const MAX_MEMORY_BYTES: u64 = 1 << 40;
/// Longest command line that a host may ask for (the device words come on top).
pub const MAX_CMDLINE_BYTES: usize = 2048;
/// Most descriptors of one queue (virtio 1.2, section 2.7).
pub const MAX_QUEUE_SIZE: u16 = 32768;

/// Least and most context id of a guest (virtio 1.2, section 5.10.4): 0 to 2 are reserved, and so
/// is the last one.
pub const MIN_CID: u32 = 3;
/// See [`MIN_CID`].
pub const MAX_CID: u32 = u32::MAX - 1;

/// How the first vCPU enters the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// Straight into ring 3 if the image has the ring-3 note, else by PVH; a bzImage by the 64-bit
    /// Linux boot protocol.
    #[default]
    Auto,
    /// The PVH entry point (32-bit protected mode, ring 0).
    Pvh,
    /// The ring-3 note; an image without it is refused.
    Ring3,
}

/// How a guest finds and drives its virtio devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Register windows, announced on the command line (ring 3) or by ACPI (virtio 1.2, 4.2).
    #[default]
    Mmio,
    /// Functions on a PCI Express bus, one MSI-X vector per queue (virtio 1.2, 4.1).
    Pci,
}

/// A virtio device that this process serves itself, because nobody shares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OwnDevice {
    /// Entropy from the kernel's generator. No descriptor.
    Rng,
    /// A second console. Descriptor: a stream socket, guest output out, input in.
    Console,
    /// Memory that the guest gives back. No descriptor.
    Balloon,
    /// Stream sockets between host and guest. Descriptor: a `SOCK_SEQPACKET` on which both sides
    /// hand over connected stream sockets (`docs/design/0007-linux-tenants.md`).
    Vsock {
        /// Context id of the guest, at least 3.
        cid: u32,
    },
}

impl OwnDevice {
    /// Whether a descriptor comes with it.
    #[must_use]
    pub fn has_descriptor(self) -> bool {
        matches!(self, Self::Console | Self::Vsock { .. })
    }
}

/// One virtio device; what it does is the business of the backend behind its socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSpec {
    /// Virtio device id (1 network card, 2 block device).
    pub device_id: u32,
    /// Number of virtqueues.
    pub queues: u16,
    /// Most descriptors of each queue, a power of two.
    pub queue_size: u16,
}

/// How far the process shuts itself in before it touches the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    /// `false` only for debugging: no name spaces, no change of user, no seccomp filter.
    pub enabled: bool,
    /// User to become; `None` keeps the present one. Needs privilege.
    pub uid: Option<u32>,
    /// Group to become; `None` keeps the present one. Needs privilege.
    pub gid: Option<u32>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self { enabled: true, uid: None, gid: None }
    }
}

/// What a tenant process needs to know; its descriptors come beside it as [`LaunchFds`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchSpec {
    /// Name of the tenant, for thread names and error texts.
    pub name: String,
    /// Guest memory, a multiple of 4096.
    pub memory_bytes: u64,
    /// Allocate all guest memory before the guest runs.
    pub prefault: bool,
    /// Advise huge pages for guest memory.
    pub huge_pages: bool,
    /// Number of vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: u8,
    /// Command line of the guest, without the words for its devices: those are appended.
    pub cmdline: String,
    /// How to enter the image.
    pub boot: Boot,
    /// Whether an initrd comes with the image.
    pub initrd: bool,
    /// How the guest finds its devices.
    pub transport: Transport,
    /// The devices that others serve, in the order of [`LaunchFds::devices`].
    pub devices: Vec<DeviceSpec>,
    /// The devices that this process serves; they come after `devices`.
    pub own_devices: Vec<OwnDevice>,
    /// Isolation of the process.
    pub sandbox: Sandbox,
}

impl LaunchSpec {
    /// Checks every limit that does not depend on the image.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn validate(&self) -> Result<(), SpecError> {
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            return Err(SpecError::Vcpus(self.vcpus));
        }
        let size = self.memory_bytes;
        if !(MIN_MEMORY_BYTES..=MAX_MEMORY_BYTES).contains(&size) || !size.is_multiple_of(4096) {
            return Err(SpecError::Memory(size));
        }
        if self.cmdline.len() > MAX_CMDLINE_BYTES {
            return Err(SpecError::CmdlineTooLong(self.cmdline.len()));
        }
        if self.cmdline.bytes().any(|b| b == 0 || !b.is_ascii()) {
            return Err(SpecError::CmdlineNotAscii);
        }
        let count = self.devices.len() + self.own_devices.len();
        if count > VIRTIO_MMIO_MAX {
            return Err(SpecError::TooManyDevices(count));
        }
        for (index, device) in self.devices.iter().enumerate() {
            if !(1..=QUEUES_MAX).contains(&device.queues) {
                return Err(SpecError::Queues { index, queues: device.queues });
            }
            let size = device.queue_size;
            if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
                return Err(SpecError::QueueSize { index, size });
            }
        }
        let cids = self.own_devices.iter().filter_map(|own| match own {
            OwnDevice::Vsock { cid } => Some(*cid),
            _ => None,
        });
        match cids.collect::<Vec<_>>().as_slice() {
            [] | [MIN_CID..=MAX_CID] => Ok(()),
            [cid, ..] => Err(SpecError::Cid(*cid)),
        }
    }

    /// How many descriptors come with the message.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        let own = self.own_devices.iter().filter(|own| own.has_descriptor()).count();
        4 + usize::from(self.initrd) + self.devices.len() + own
    }
}

/// A launch that cannot be, whatever the image.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SpecError {
    /// Number of vCPUs out of range.
    #[error("{0} vCPUs: a tenant has 1 to {MAX_VCPUS}")]
    Vcpus(u8),
    /// Memory size out of range or not whole pages.
    #[error(
        "{0} bytes of memory: must be a multiple of 4096 from {MIN_MEMORY_BYTES} to \
         {MAX_MEMORY_BYTES}"
    )]
    Memory(u64),
    /// Command line too long.
    #[error("command line of {0} bytes: at most {MAX_CMDLINE_BYTES}")]
    CmdlineTooLong(usize),
    /// The command line has a zero byte or a character outside ASCII.
    #[error("the command line must be ASCII without zero bytes")]
    CmdlineNotAscii,
    /// More devices than the machine has windows for.
    #[error("{0} devices: a tenant has at most {VIRTIO_MMIO_MAX}")]
    TooManyDevices(usize),
    /// A device with no queue or too many.
    #[error("device {index} has {queues} queues: must be 1 to {QUEUES_MAX}")]
    Queues {
        /// Position in [`LaunchSpec::devices`].
        index: usize,
        /// What was asked.
        queues: u16,
    },
    /// A queue size that virtio does not allow.
    #[error("device {index} has queues of {size}: must be a power of two up to {MAX_QUEUE_SIZE}")]
    QueueSize {
        /// Position in [`LaunchSpec::devices`].
        index: usize,
        /// What was asked.
        size: u16,
    },
    /// A context id that belongs to somebody else, or a second vsock device.
    #[error("vsock context id {0}: one device with an id from {MIN_CID} to {MAX_CID}")]
    Cid(u32),
    /// The descriptors beside the message do not match it.
    #[error("{got} descriptors came with a launch that needs {needed}")]
    Descriptors {
        /// What came.
        got: usize,
        /// What the specification asks for.
        needed: usize,
    },
}

/// The descriptors of a launch, in the order in which they travel.
#[derive(Debug)]
pub struct LaunchFds {
    /// `/dev/kvm`, open for reading and writing.
    pub kvm: OwnedFd,
    /// The kernel image, a regular file open for reading.
    pub image: OwnedFd,
    /// The console, a stream socket: guest output out, input in.
    pub console: OwnedFd,
    /// The gate page: a memfd of one page, `u32` word `n` for vCPU `n`, 1 open, 0 closed.
    pub gate: OwnedFd,
    /// The initrd, a regular file open for reading.
    pub initrd: Option<OwnedFd>,
    /// One vhost-user stream socket per device.
    pub devices: Vec<OwnedFd>,
    /// The descriptors of [`LaunchSpec::own_devices`], of those that have one.
    pub own_devices: Vec<OwnedFd>,
}

impl LaunchFds {
    /// Sorts received descriptors into their places.
    ///
    /// # Errors
    /// [`SpecError::Descriptors`] if their number does not fit `spec`.
    pub fn from_vec(fds: Vec<OwnedFd>, spec: &LaunchSpec) -> Result<Self, SpecError> {
        let wrong = SpecError::Descriptors { got: fds.len(), needed: spec.descriptors() };
        if fds.len() != spec.descriptors() {
            return Err(wrong);
        }
        let mut fds = fds.into_iter();
        match (fds.next(), fds.next(), fds.next(), fds.next()) {
            (Some(kvm), Some(image), Some(console), Some(gate)) => {
                let initrd = if spec.initrd { fds.next() } else { None };
                let devices = fds.by_ref().take(spec.devices.len()).collect();
                Ok(Self { kvm, image, console, gate, initrd, devices, own_devices: fds.collect() })
            }
            _ => Err(wrong),
        }
    }

    /// All of them, in the order in which they travel.
    #[must_use]
    pub fn in_order(&self) -> Vec<&OwnedFd> {
        let head = [&self.kvm, &self.image, &self.console, &self.gate];
        let tail = self.initrd.iter().chain(&self.devices).chain(&self.own_devices);
        head.into_iter().chain(tail).collect()
    }
}
