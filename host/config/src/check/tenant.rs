//! Checks tenants against a host: names, memory, cores, disks, links, contracts.
//!
//! Apart from the host because tenants also arrive later, through the API.

use super::contract::{Scope, resolve};
use super::names::{numbered, unique};
use super::net::check_net;
use super::{load, machine, volume};
use crate::document::TenantTable;
use crate::holder::Holder;
use crate::model::{Config, Tenant};
use crate::problem::{Problem, Problems};
use moirai_scheduler::Amount;

/// Checks tenants that are to join the host of `config`; paths begin with `tenant[N]`.
///
/// # Errors
/// Everything that is wrong with them.
pub fn check_tenants(config: &Config, tables: &[TenantTable]) -> Result<Vec<Tenant>, Vec<Problem>> {
    let mut problems = Problems::default();
    unique("tenant", tables.iter().map(|table| &table.name), &mut problems);
    let tenants = check_all(config, tables, &mut problems);
    problems.unless_any(tenants)
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
    let owner = Holder::Tenant(table.name.clone());
    let volumes: Vec<_> = numbered("disk", &table.disk)
        .enumerate()
        .map(|(number, (part, volume))| {
            let at = format!("{at}.{part}");
            volume::check(config, &owner, number, volume, &at, problems)
        })
        .collect();
    volume::check_serials(&volumes, at, problems);
    let nets: Vec<_> = table
        .net
        .iter()
        .enumerate()
        .map(|(index, net)| {
            check_net(config, &owner, net, index, &format!("{at}.net[{index}]"), problems)
        })
        .collect();
    let loads = table.load.unwrap_or_default();
    load::check(&loads, &format!("{at}.load"), problems);
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
