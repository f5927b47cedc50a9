//! Checks what makes a tenant's virtual machine: what boots, memory, virtual CPUs, devices.

use std::path::PathBuf;
use std::time::Duration;

use moirai_abi::machine::VIRTIO_MMIO_MAX;
use moirai_launch::spec::{
    MAX_CID, MAX_CMDLINE_BYTES, MAX_MEMORY_BYTES, MAX_VCPUS, MIN_CID, MIN_MEMORY_BYTES,
};
use moirai_launch::{OwnDevice, Transport};

use super::path;
use crate::document::{Args, TenantTable, TransportName};
use crate::model::Config;
use crate::problem::Problems;
use crate::units::{Size, Time};

const DEFAULT_MEMORY_BYTES: u64 = 64 << 20;
const DEFAULT_KERNEL_MEMORY_BYTES: u64 = 512 << 20;
const PAGE_BYTES: u64 = 4096;
/// How long a kernel gets to power off.
const DEFAULT_STOP_AFTER: Duration = Duration::from_secs(30);
/// Longest that anybody should wait for a guest.
pub const MAX_STOP_AFTER: Duration = Duration::from_secs(300);

/// The virtual machine of a tenant.
pub(super) struct Machine {
    /// `None` if nothing boots.
    pub(super) image: Option<PathBuf>,
    pub(super) args: String,
    pub(super) memory: u64,
    /// Core of each virtual CPU; at least one.
    pub(super) cores: Vec<usize>,
    pub(super) transport: Transport,
    pub(super) own_devices: Vec<OwnDevice>,
    pub(super) stop_after: Duration,
}

pub(super) fn check(
    config: &Config,
    table: &TenantTable,
    at: &str,
    problems: &mut Problems,
) -> Machine {
    let own_devices = check_own_devices(table, at, problems);
    if table.disk.len() + table.net.len() + own_devices.len() > VIRTIO_MMIO_MAX {
        let message = format!("more than {VIRTIO_MMIO_MAX} devices");
        problems.add(at, message, "a tenant's devices share that many places");
    }
    let kernel = table.kernel.is_some();
    let usual = if kernel { DEFAULT_KERNEL_MEMORY_BYTES } else { DEFAULT_MEMORY_BYTES };
    Machine {
        image: check_boots(table, at, problems),
        args: check_args(table, at, problems),
        memory: check_memory(table.memory, usual, at, problems),
        cores: check_cores(config, table, at, problems),
        transport: check_transport(table, at, problems),
        own_devices,
        stop_after: check_stop_after(table, at, problems),
    }
}

fn check_boots(table: &TenantTable, at: &str, problems: &mut Problems) -> Option<PathBuf> {
    if table.initrd.is_some() && table.kernel.is_none() {
        let message = "an `initrd` without a `kernel`";
        problems.add(format!("{at}.initrd"), message, "only Linux kernels take one");
    }
    for (key, path, example) in [
        ("image", &table.image, "streamer"),
        ("kernel", &table.kernel, "/srv/vmlinux"),
        ("initrd", &table.initrd, "/srv/initrd"),
    ] {
        if let Some(path) = path {
            path::check(path, &format!("{at}.{key}"), example, problems);
        }
    }
    match (&table.image, &table.kernel) {
        (Some(boots), None) | (None, Some(boots)) => Some(boots.clone()),
        (Some(_), Some(_)) => {
            let message = "`image` and `kernel` are both given";
            problems.add(format!("{at}.kernel"), message, "keep one: a machine boots one of them");
            None
        }
        (None, None) => {
            let help = "add image = \"NAME\" for a library OS, or kernel = \"PATH\" for Linux";
            problems.add(at, "neither `image` nor `kernel` is given", help);
            None
        }
    }
}

fn check_transport(table: &TenantTable, at: &str, problems: &mut Problems) -> Transport {
    match table.transport.unwrap_or_default() {
        TransportName::Mmio => Transport::Mmio,
        TransportName::Pci if table.kernel.is_some() => Transport::Pci,
        TransportName::Pci => {
            let message = "images of the library OS do not look for devices on PCI";
            problems.add(
                format!("{at}.transport"),
                message,
                "write for example \"mmio\", or leave it out",
            );
            Transport::Mmio
        }
    }
}

fn check_own_devices(table: &TenantTable, at: &str, problems: &mut Problems) -> Vec<OwnDevice> {
    let mut devices = Vec::new();
    if table.rng.unwrap_or(table.kernel.is_some()) {
        devices.push(OwnDevice::Rng);
    }
    if table.balloon.unwrap_or(false) {
        devices.push(OwnDevice::Balloon);
    }
    if table.console.unwrap_or(false) {
        devices.push(OwnDevice::Console);
    }
    if let Some(vsock) = table.vsock {
        let cid = vsock.cid.unwrap_or(MIN_CID);
        if !(MIN_CID..=MAX_CID).contains(&cid) {
            let message = format!("context id {cid} is not {MIN_CID} to {MAX_CID}");
            problems.add(
                format!("{at}.vsock.cid"),
                message,
                "write for example 3, or leave it out",
            );
        }
        devices.push(OwnDevice::Vsock { cid });
    }
    devices
}

fn check_stop_after(table: &TenantTable, at: &str, problems: &mut Problems) -> Duration {
    let Some(Time(nanos)) = table.stop_after else { return DEFAULT_STOP_AFTER };
    let time = Duration::from_nanos(nanos);
    if time > MAX_STOP_AFTER {
        let message = format!("{} is more than 5 minutes", Time(nanos));
        problems.add(format!("{at}.stop_after"), message, "write for example \"30s\"");
    }
    time.min(MAX_STOP_AFTER)
}

/// The memory of a guest, in bytes.
pub(super) fn check_memory(
    asked: Option<Size>,
    default: u64,
    at: &str,
    problems: &mut Problems,
) -> u64 {
    let memory = asked.map_or(default, |Size(bytes)| bytes);
    if !(MIN_MEMORY_BYTES..=MAX_MEMORY_BYTES).contains(&memory) {
        let (least, most) = (Size(MIN_MEMORY_BYTES), Size(MAX_MEMORY_BYTES));
        let message = format!("{} of memory are not {least} to {most}", Size(memory));
        problems.add(format!("{at}.memory"), message, "write for example \"64M\"");
    } else if !memory.is_multiple_of(PAGE_BYTES) {
        let message = format!("{} of memory are not whole pages of 4K", Size(memory));
        problems.add(format!("{at}.memory"), message, "write for example \"64M\"");
    }
    memory
}

fn check_args(table: &TenantTable, at: &str, problems: &mut Problems) -> String {
    if table.args.is_some() && table.cmdline.is_some() {
        let message = "`args` and `cmdline` are both given";
        problems.add(format!("{at}.cmdline"), message, "keep one of them: they say the same thing");
    }
    let args = table.args.as_ref().or(table.cmdline.as_ref());
    let args = args.map(Args::joined).unwrap_or_default();
    if args.len() > MAX_CMDLINE_BYTES {
        let message =
            format!("{} bytes of arguments are more than {MAX_CMDLINE_BYTES}", args.len());
        problems.add(format!("{at}.args"), message, "shorten them");
    }
    if args.bytes().any(|c| !(c.is_ascii_graphic() || c == b' ')) {
        let message = "the arguments have characters that a guest's command line cannot have";
        problems.add(
            format!("{at}.args"),
            message,
            "write for example \"ip=10.0.0.2/24\": printable ASCII and blanks",
        );
    }
    args
}

/// The core of each virtual CPU.
fn check_cores(
    config: &Config,
    table: &TenantTable,
    at: &str,
    problems: &mut Problems,
) -> Vec<usize> {
    let vcpus = table.vcpus.unwrap_or(1);
    if !(1..=u32::from(MAX_VCPUS)).contains(&vcpus) {
        let message = format!("{vcpus} virtual CPUs are not 1 to {MAX_VCPUS}");
        problems.add(
            format!("{at}.vcpus"),
            message,
            "write for example 2: how many the guest gets",
        );
    }
    if table.core.is_some() && table.cores.is_some() {
        let message = "`core` and `cores` are both given";
        problems.add(format!("{at}.cores"), message, "keep one of them");
    }
    let (key, wanted) = match (&table.cores, table.core) {
        (Some(cores), _) => ("cores", cores.clone()),
        (None, Some(core)) => ("core", vec![core]),
        (None, None) => ("core", config.host.cores.first().copied().into_iter().collect()),
    };
    let known = &config.host.cores;
    let right = known.first().copied().unwrap_or(1);
    let right = if key == "core" { format!("{right}") } else { format!("[{right}]") };
    if let Some(core) = wanted.iter().find(|core| !known.is_empty() && !known.contains(core)) {
        let message = format!("core {core} is not one of host.cores {known:?}");
        let help = format!("write for example {right}, or add it there");
        problems.add(format!("{at}.{key}"), message, &help);
    }
    if wanted.is_empty() && table.cores.is_some() {
        let help = format!("write for example {right}");
        problems.add(format!("{at}.cores"), "no core is named", &help);
    }
    let count = usize::try_from(vcpus.clamp(1, MAX_VCPUS.into())).unwrap_or(1);
    let wanted = if wanted.is_empty() { vec![0] } else { wanted };
    wanted.iter().copied().cycle().take(count).collect()
}
