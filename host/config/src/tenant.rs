//! Checks tenants against a host: names, memory, cores, disks, links, contracts.
//!
//! Split from [`super::check`] because tenants also arrive later, through the API.

use moirai_abi::limits::NET_PAIRS_MAX;
use moirai_scheduler::Amount;

use super::check::{Problems, numbered, unique};
use super::contract::{Scope, resolve};
use super::document::{NetTable, TenantTable};
use super::machine_check as machine;
use super::model::{Config, Net, Tenant};
use super::problem::Problem;
use super::volume_check;

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
    let machine = machine::check(config, table, at, problems);
    let vcpus = u32::try_from(machine.cores.len()).unwrap_or(u32::MAX);
    let scope = Scope::Core { vcpus };
    let cpu = resolve(&table.cpu.unwrap_or_default(), scope, &format!("{at}.cpu"));
    let cpu = problems.note(cpu);
    let volumes: Vec<_> = numbered("disk", &table.disk)
        .enumerate()
        .map(|(number, (part, volume))| {
            let at = format!("{at}.{part}");
            volume_check::check(config, &table.name, number, volume, &at, problems)
        })
        .collect();
    volume_check::check_serials(&volumes, at, problems);
    let nets: Vec<_> = table
        .net
        .iter()
        .enumerate()
        .map(|(index, net)| {
            check_net(config, &table.name, net, index, &format!("{at}.net[{index}]"), problems)
        })
        .collect();
    let loads = table.load.unwrap_or_default();
    loads.check(&format!("{at}.load"), problems);
    let volumes = volumes.into_iter().collect::<Option<Vec<_>>>()?;
    let nets = nets.into_iter().collect::<Option<Vec<_>>>()?;
    // A page that is not there when a device wants it is brought by a worker of the kernel, for
    // whose time there is no contract.
    let mut contracts =
        volumes.iter().map(|it| it.contract).chain(nets.iter().map(|it| it.contract));
    let promised = contracts.any(|contract| contract.slice() > Amount::ZERO);
    Some(Tenant {
        name: table.name.clone(),
        image: machine.image?,
        is_kernel: table.kernel.is_some(),
        initrd: table.initrd.clone(),
        args: machine.args,
        memory: machine.memory,
        prefault: table.prefault.unwrap_or(promised),
        cores: machine.cores,
        cpu: cpu?,
        transport: machine.transport,
        own_devices: machine.own_devices,
        restart: table.restart.unwrap_or(table.kernel.is_some()),
        stop_after: machine.stop_after,
        volumes,
        nets,
        loads,
        table: table.clone(),
    })
}

/// Checks an interface whose table is at `at`: number `number` of `owner`.
pub(super) fn check_net(
    config: &Config,
    owner: &str,
    table: &NetTable,
    number: usize,
    at: &str,
    problems: &mut Problems,
) -> Option<Net> {
    let named = config.links.iter().enumerate().find(|(_, link)| link.name == table.link);
    let Some((index, link)) = named else {
        let names = config.links.iter().map(|link| link.name.as_str());
        unknown("link", &table.link, names, &format!("{at}.link"), problems);
        return None;
    };
    let mac = match &table.mac {
        None => derived_mac(owner, number),
        Some(text) => parse_mac(text).or_else(|| {
            let message = format!("{text:?} is not the address of one network card");
            let help = "write for example \"02:00:00:00:00:01\": six bytes, the first one even";
            problems.add(format!("{at}.mac"), message, help);
            None
        })?,
    };
    let queues = table.queues.unwrap_or(1);
    if !(1..=NET_PAIRS_MAX).contains(&queues) {
        let message = format!("{queues} pairs of queues are not 1 to {NET_PAIRS_MAX}");
        let help =
            "write for example 1: how many virtual CPUs are to send and receive at the same time";
        problems.add(format!("{at}.queues"), message, help);
    }
    let contract = resolve(&table.contract(), Scope::Link { rate_bps: link.rate_bps }, at);
    Some(Net { link: index, mac, queues, contract: problems.note(contract)? })
}

pub(super) fn unknown<'a>(
    kind: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
    path: &str,
    problems: &mut Problems,
) {
    let known: Vec<_> = known.collect();
    let help = match known.as_slice() {
        [] => format!("add a [[{kind}]] with that name"),
        [first] => format!("write for example {first:?}, or add a [[{kind}]] with that name"),
        [first, others @ ..] => format!(
            "write for example {first:?}, or {}, or add a [[{kind}]] with that name",
            others.join(", ")
        ),
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
