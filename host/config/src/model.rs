//! The configuration as the host uses it: every default filled in, every name resolved, every
//! contract well-formed. Only [`crate::check()`] makes these values.

mod export;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use moirai_abi::wire;
use moirai_launch::{OwnDevice, Transport};
use moirai_scheduler::{Amount, Contract, PolicyKind};

pub use export::{Export, ExportDevice};

use crate::costs::CoreCosts;
use crate::document::load::LoadsTable;
use crate::document::{OffloadName, Profile, RealtimeLimit, TenantTable};
use crate::holder::Holder;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The machine.
    pub host: Host,
    /// Disks, in the order of the file.
    pub disks: Vec<Disk>,
    /// Links, in the order of the file.
    pub links: Vec<Link>,
    /// Tenants, in the order of the file.
    pub tenants: Vec<Tenant>,
    /// Exports, in the order of the file.
    pub exports: Vec<Export>,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// Cores that run tenants; never empty.
    pub cores: Vec<usize>,
    /// What contracts may reserve of a core, in millionths.
    pub cpu_capacity_ppm: u32,
    /// What to do if the kernel's limit for real-time threads is below that.
    pub realtime_limit: RealtimeLimit,
    /// Overhead terms of admission.
    pub profile: Profile,
    /// What tenants may have of the memory, in bytes; `u64::MAX` if nobody knows.
    pub memory: u64,
    /// What switches and rounds cost, where the profile is the default one.
    pub costs: CoreCosts,
    /// Who decides about the cores.
    pub cpu_policy: PolicyKind,
    /// Core of the I/O domain; `None` leaves it to the kernel.
    pub io_core: Option<usize>,
    /// API socket.
    pub socket: PathBuf,
    /// Where the counters are served over TCP.
    pub metrics: Option<std::net::SocketAddr>,
    /// What a later start must know lies here.
    pub state_dir: PathBuf,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Name, unique among disks.
    pub name: String,
    /// Directory of the volumes, or a block device.
    pub path: PathBuf,
    /// Requests in the device at a time.
    pub depth: u32,
    /// What one request takes of it at most.
    pub max_unit: Amount,
    /// Bytes per second, where declared.
    pub bandwidth: Option<u64>,
    /// Who decides.
    pub policy: PolicyKind,
    /// Event loop that serves it.
    pub group: String,
}

/// A link.
#[derive(Clone, Debug)]
pub struct Link {
    /// Name, unique among links.
    pub name: String,
    /// Bits per second; never zero.
    pub rate_bps: u64,
    /// TAP device to create.
    pub tap: String,
    /// Bridge that the TAP joins.
    pub bridge: Option<String>,
    /// Network namespace of both.
    pub netns: Option<String>,
    /// Address of the host on the TAP.
    pub address: Option<Cidr>,
    /// Addresses that no guest may have: the host's, and what was reserved.
    pub reserved: Vec<IpAddr>,
    /// What packets for all and for nobody may take of the loop's time, in thousandths.
    pub broadcast: u32,
    /// Largest packet without the Ethernet header, in bytes.
    pub mtu: u16,
    /// What guests may leave to the link.
    pub offload: OffloadName,
    /// Who decides.
    pub policy: PolicyKind,
    /// Event loop that serves it.
    pub group: String,
}

/// An address with the length of its network prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub address: std::net::Ipv4Addr,
    /// Bits of the network, at most 32.
    pub prefix: u8,
}

/// A tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Name, unique among tenants.
    pub name: String,
    /// Image or kernel: a path, or a bare name of an image of Moirai.
    pub image: PathBuf,
    /// Whether it is a kernel: a guest that finds its devices through ACPI and has a power button.
    pub is_kernel: bool,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Command line for the guest.
    pub args: String,
    /// Guest memory in bytes, a multiple of a page.
    pub memory: u64,
    /// Touch all memory at the start.
    pub prefault: bool,
    /// Core of each virtual CPU; at least one.
    pub cores: Vec<usize>,
    /// Contract of each virtual CPU on its core.
    pub cpu: Contract,
    /// How the guest finds its devices.
    pub transport: Transport,
    /// Devices that the tenant process serves itself.
    pub own_devices: Vec<OwnDevice>,
    /// Start it again when the guest resets itself.
    pub restart: bool,
    /// How long it may take to power off when it was asked.
    pub stop_after: Duration,
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// Network interfaces.
    pub nets: Vec<Net>,
    /// What it does in a simulation.
    pub loads: LoadsTable,
    /// What was written, for showing and for changing it.
    pub table: TenantTable,
}

/// A volume of a tenant.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Index in [`Config::disks`].
    pub disk: usize,
    /// The file or device itself; of a stripe set, the first one.
    pub path: PathBuf,
    /// The folder that its files lie below, symlinks followed; `None` if the disk itself is the
    /// volume.
    pub root: Option<PathBuf>,
    /// What it is.
    pub kind: VolumeKind,
    /// Writes are refused.
    pub readonly: bool,
    /// Request queues, 1 to 16.
    pub queues: u16,
    /// The logical blocks that the guest is told, in bytes.
    pub block_size: u32,
    /// What the guest reads as its serial number, up to 20 bytes.
    pub serial: String,
    /// Contract on the disk.
    pub contract: Contract,
    /// If it was written in bytes per second: what the disk was said to deliver, in bytes per
    /// second.
    pub bandwidth: Option<u64>,
}

/// What a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeKind {
    /// One file or device.
    Raw,
    /// A qcow2 image.
    Qcow2 {
        /// The folder that all it names has to be below.
        root: PathBuf,
    },
    /// Several files in turn.
    Striped {
        /// All of them.
        files: Vec<PathBuf>,
        /// How much lies on one before it is the next one's turn, in bytes.
        unit: u64,
    },
}

/// A network interface of a tenant.
#[derive(Clone, Debug)]
pub struct Net {
    /// Index in [`Config::links`].
    pub link: usize,
    /// Hardware address: unicast.
    pub mac: [u8; 6],
    /// Its IP addresses; none if it has those that it is the first to use.
    pub addresses: Vec<IpAddr>,
    /// It may send from all addresses.
    pub spoofs: bool,
    /// What receiving may take of the loop's time, in thousandths.
    pub receive: u32,
    /// Pairs of queues, 1 to 7.
    pub queues: u16,
    /// Contract on the link.
    pub contract: Contract,
}

impl Config {
    /// The same configuration without Moirai's scheduling: the control of an experiment.
    #[must_use]
    pub fn without_scheduling(mut self) -> Self {
        self.host.cpu_policy = PolicyKind::Fifo;
        self.disks.iter_mut().for_each(|disk| disk.policy = PolicyKind::Fifo);
        self.links.iter_mut().for_each(|link| link.policy = PolicyKind::Fifo);
        self
    }
}

impl Host {
    /// What a wake-up within a slice costs a core: nothing on an ideal machine.
    #[must_use]
    pub fn wake_cost(&self) -> Amount {
        match self.profile {
            Profile::None => Amount::ZERO,
            Profile::Default => self.costs.wake_up(),
        }
    }
}

impl Disk {
    /// What admission counts as blocking: one largest unit, nothing on an ideal machine.
    #[must_use]
    pub fn blocking(&self, profile: Profile) -> Amount {
        match profile {
            Profile::None => Amount::ZERO,
            Profile::Default => self.max_unit,
        }
    }
}

impl Link {
    /// What one packet takes of the wire at most, rounded up.
    #[must_use]
    pub fn largest_packet_time(&self) -> Amount {
        let segmentation = self.offload == OffloadName::Segmentation;
        let bits = u128::from(wire::largest_packet(self.mtu, segmentation)) * 8;
        let nanos = (bits * 1_000_000_000).div_ceil(u128::from(self.rate_bps.max(1)));
        Amount::from_wide(nanos)
    }
}

impl Tenant {
    /// It, as one that holds promises.
    #[must_use]
    pub fn holder(&self) -> Holder {
        Holder::Tenant(self.name.clone())
    }
}
