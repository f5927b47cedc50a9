//! A configuration as the simulator takes it: the same resources, contracts and costs that
//! admission counts with, and the loads of `[tenant.load]`.

use moirai_config::load::LoadsTable;
use moirai_scheduler::{Amount, Span};
use moirai_simulator::load::Load;
use moirai_simulator::{Kind, Resource, Scenario, Tenant, Use};

use super::loads;
use moirai_config::Config;
use moirai_config::admission::{Claim, ResourceId, resources};

/// What `moirai simulate` simulates. Every virtual CPU, volume and network interface is a client of
/// its own.
pub(super) fn scenario(config: &Config) -> Scenario {
    let known = resources(config);
    let simulated = known.iter().map(|(id, name, resource)| {
        let switch = resource.overhead.switch.saturating_add(resource.overhead.cache);
        simulated(config, *id, name, switch.time())
    });
    let tenants = config.tenants.iter().map(|tenant| {
        let uses = Claim::all_of(tenant).into_iter().filter_map(|claim| {
            let (id, name, _) = known.iter().find(|(id, ..)| *id == claim.resource)?;
            let load = load(&tenant.loads, *id);
            Some(Use { resource: name.clone(), contract: claim.contract, load })
        });
        Tenant { name: tenant.name.clone(), uses: uses.collect() }
    });
    Scenario::new(simulated.collect(), tenants.collect())
}

fn simulated(config: &Config, id: ResourceId, name: &str, switch: Span) -> Resource {
    let core = Resource { switch, ..Resource::cpu(name, config.host.cpu_policy) };
    match id {
        ResourceId::Core(_) => core,
        ResourceId::Disk(index) => config
            .disks
            .get(index)
            .map_or(core, |disk| Resource::disk(name, disk.policy, disk.max_unit, disk.depth)),
        ResourceId::Link(index) => config
            .links
            .get(index)
            .map_or(core, |link| Resource::link(name, link.policy, link.largest_packet_time())),
    }
}

fn load(loads: &LoadsTable, id: ResourceId) -> Load {
    loads::load(match id {
        ResourceId::Core(_) => loads.cpu,
        ResourceId::Disk(_) => loads.disk,
        ResourceId::Link(_) => loads.link,
    })
}

/// What admission calls `B`: what a device has taken and does not give back, one unit's time at any
/// depth.
pub(super) fn blocking(resource: &Resource) -> Amount {
    match resource.kind {
        Kind::Cpu => Amount::ZERO,
        Kind::Disk | Kind::Link => resource.unit,
    }
}
