//! Checks tenants against a host: names, memory, cores, disks, links, contracts.
//!
//! Split from [`super::check`] because tenants also arrive later, through the API.

use std::path::{Component, Path};

use moirai_abi::machine::VIRTIO_MMIO_MAX;
use moirai_vmm::launch::spec::{MAX_CMDLINE_BYTES, MAX_MEMORY_BYTES, MAX_VCPUS, MIN_MEMORY_BYTES};

use super::check::{Problems, numbered, unique};
use super::contract::{Scope, resolve};
use super::document::{NetTable, TenantTable, VolumeTable};
use super::model::{Config, Net, Tenant, Volume};
use super::problem::Problem;
use super::units::Size;

const DEFAULT_MEMORY_BYTES: u64 = 64 << 20;
const PAGE_BYTES: u64 = 4096;

/// Checks tenants that are to join the host of `config`; paths begin with `tenant[N]`.
///
/// # Errors
/// Everything that is wrong with them.
pub fn check_tenants(config: &Config, tables: &[TenantTable]) -> Result<Vec<Tenant>, Vec<Problem>> {
    let mut problems = Problems::default();
    unique("tenant", tables.iter().map(|table| &table.name), &mut problems);
    let tenants = check_all(config, tables, &mut problems);
    match problems.into_inner() {
        found if found.is_empty() => Ok(tenants),
        found => Err(found),
    }
}

/// Checks all tenants but for their names; those with a problem are left out.
pub(super) fn check_all(
    config: &Config,
    tables: &[TenantTable],
    problems: &mut Problems,
) -> Vec<Tenant> {
    numbered("tenant", tables)
        .filter_map(|(at, table)| check_one(config, table, &at, problems))
        .collect()
}

fn check_one(
    config: &Config,
    table: &TenantTable,
    at: &str,
    problems: &mut Problems,
) -> Option<Tenant> {
    let memory = check_memory(table, at, problems);
    let args = check_args(table, at, problems);
    let vcpus = table.vcpus.unwrap_or(1);
    if !(1..=u32::from(MAX_VCPUS)).contains(&vcpus) {
        let message = format!("{vcpus} virtual CPUs are not 1 to {MAX_VCPUS}");
        problems.add(format!("{at}.vcpus"), message, "write how many the guest gets");
    }
    let core = check_core(config, table, at, problems);
    if table.disk.len() + table.net.len() > VIRTIO_MMIO_MAX {
        let message = format!("more than {VIRTIO_MMIO_MAX} devices");
        problems.add(at, message, "a tenant's volumes and interfaces share that many places");
    }
    let cpu = resolve(&table.cpu.unwrap_or_default(), Scope::Core, &format!("{at}.cpu"));
    let cpu = problems.note(cpu);
    let volumes: Vec<_> = numbered("disk", &table.disk)
        .map(|(part, volume)| check_volume(config, volume, &format!("{at}.{part}"), problems))
        .collect();
    let nets: Vec<_> = table
        .net
        .iter()
        .enumerate()
        .map(|(index, net)| check_net(config, &table.name, net, index, at, problems))
        .collect();
    let loads = table.load.unwrap_or_default().resolve(&format!("{at}.load"), problems);
    Some(Tenant {
        name: table.name.clone(),
        image: table.image.clone(),
        args,
        memory,
        prefault: table.prefault.unwrap_or(false),
        vcpus,
        core,
        cpu: cpu?,
        volumes: volumes.into_iter().collect::<Option<_>>()?,
        nets: nets.into_iter().collect::<Option<_>>()?,
        loads,
        table: table.clone(),
    })
}

fn check_memory(table: &TenantTable, at: &str, problems: &mut Problems) -> u64 {
    let memory = table.memory.map_or(DEFAULT_MEMORY_BYTES, |Size(bytes)| bytes);
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
    let args = table.args.as_ref().map(super::document::Args::joined).unwrap_or_default();
    if args.len() > MAX_CMDLINE_BYTES {
        let message =
            format!("{} bytes of arguments are more than {MAX_CMDLINE_BYTES}", args.len());
        problems.add(format!("{at}.args"), message, "shorten them");
    }
    if args.bytes().any(|c| !(c.is_ascii_graphic() || c == b' ')) {
        let message = "the arguments have characters that a guest's command line cannot have";
        problems.add(format!("{at}.args"), message, "use printable ASCII and blanks");
    }
    args
}

fn check_core(config: &Config, table: &TenantTable, at: &str, problems: &mut Problems) -> usize {
    let cores = &config.host.cores;
    let core = table.core.or(cores.first().copied()).unwrap_or(0);
    if !cores.is_empty() && !cores.contains(&core) {
        let message = format!("core {core} is not one of host.cores {cores:?}");
        problems.add(format!("{at}.core"), message, "choose one of them, or add it there");
    }
    core
}

fn check_volume(
    config: &Config,
    table: &VolumeTable,
    at: &str,
    problems: &mut Problems,
) -> Option<Volume> {
    let named = config.disks.iter().enumerate().find(|(_, disk)| disk.name == table.disk);
    let Some((index, disk)) = named else {
        let names = config.disks.iter().map(|disk| disk.name.as_str());
        unknown("disk", &table.disk, names, &format!("{at}.disk"), problems);
        return None;
    };
    let path = match &table.volume {
        None => disk.path.clone(),
        Some(volume) if stays_below(volume) => disk.path.join(volume),
        Some(volume) => {
            let message = format!("the volume {} is not below its disk's path", volume.display());
            let help = "write a path relative to the disk's path, without \"..\"";
            problems.add(format!("{at}.volume"), message, help);
            return None;
        }
    };
    let contract = resolve(&table.contract(), Scope::Disk { bandwidth: disk.bandwidth }, at);
    let contract = problems.note(contract)?;
    Some(Volume { disk: index, path, readonly: table.readonly.unwrap_or(false), contract })
}

fn stays_below(volume: &Path) -> bool {
    volume.components().all(|part| matches!(part, Component::Normal(_)))
        && volume.components().next().is_some()
}

fn check_net(
    config: &Config,
    tenant: &str,
    table: &NetTable,
    number: usize,
    at: &str,
    problems: &mut Problems,
) -> Option<Net> {
    let at = format!("{at}.net[{number}]");
    let named = config.links.iter().enumerate().find(|(_, link)| link.name == table.link);
    let Some((index, link)) = named else {
        let names = config.links.iter().map(|link| link.name.as_str());
        unknown("link", &table.link, names, &format!("{at}.link"), problems);
        return None;
    };
    let mac = match &table.mac {
        None => derived_mac(tenant, number),
        Some(text) => parse_mac(text).or_else(|| {
            let message = format!("{text:?} is not the address of one network card");
            let help = "write six bytes, the first one even, as \"02:00:00:00:00:01\"";
            problems.add(format!("{at}.mac"), message, help);
            None
        })?,
    };
    let contract = resolve(&table.contract(), Scope::Link { rate_bps: link.rate_bps }, &at);
    Some(Net { link: index, mac, contract: problems.note(contract)? })
}

fn unknown<'a>(
    kind: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
    path: &str,
    problems: &mut Problems,
) {
    let known: Vec<_> = known.collect();
    let help = match known.as_slice() {
        [] => format!("add a [[{kind}]] with that name"),
        names => format!("choose one of {}, or add a [[{kind}]] with that name", names.join(", ")),
    };
    problems.add(path, format!("there is no {kind} named {name:?}"), &help);
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0u8; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+'))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let unicast = mac.first().is_some_and(|first| first & 1 == 0) && mac != [0; 6];
    (parts.next().is_none() && unicast).then_some(mac)
}

/// A locally administered address from an FNV-1a hash of name and number.
fn derived_mac(tenant: &str, number: usize) -> [u8; 6] {
    let text = format!("{tenant}/{number}");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    [0x02, a, b, c, d, e]
}
