//! What tenants share, running: the dispatchers of the cores and the I/O domains of the groups.

use std::collections::BTreeMap;
use std::time::Duration;

use super::link;
use super::state::StateDir;
use super::{ServiceError, link::LinkError};
use moirai_config::model::Config;
use moirai_cpu::{Dispatcher, DispatcherError, DispatcherSpec};
use moirai_io::{DiskSpec, GroupSpec, IoDomain, LinkSpec};
use moirai_runtime::{NoiseError, NoiseFloor, NoiseProbe, StallLog, Watchdog};

/// How long an event loop looks for more work before it sleeps: about the price of the wake-up that
/// it saves.
const POLL: Duration = Duration::from_micros(50);

/// Dispatchers and I/O domains; they end with the value.
#[derive(Debug)]
pub(super) struct Resources {
    dispatchers: BTreeMap<usize, Dispatcher>,
    domains: BTreeMap<String, IoDomain>,
    /// Stalls of the machine that the dispatchers and the probe saw.
    pub(super) stalls: StallLog,
    probe: NoiseProbe,
    /// Names dispatchers and event loops that do not come back.
    _watchdog: Watchdog,
}

impl Resources {
    /// Starts everything that `config` names.
    ///
    /// # Errors
    /// The first thing that cannot be started; what was started ends.
    pub(super) fn start(config: &Config, state: &StateDir) -> Result<Self, ServiceError> {
        let stalls = StallLog::default();
        let mut dispatchers = BTreeMap::new();
        for core in &config.host.cores {
            let spec = DispatcherSpec {
                core: *core,
                policy: config.host.cpu_policy,
                wake_cost: config.host.wake_cost(),
                stalls: stalls.clone(),
            };
            dispatchers.insert(*core, Dispatcher::start(spec)?);
        }
        let mut domains = BTreeMap::new();
        for group in groups(config, state, &stalls)? {
            domains.insert(group.name.clone(), IoDomain::start(group)?);
        }
        let core = config.host.io_core.unwrap_or(0);
        let probe = NoiseProbe::start(core, stalls.clone()).map_err(|error| noise(core, error))?;
        let watchdog =
            Watchdog::start().map_err(|source| DispatcherError::Setup { core, source })?;
        Ok(Self { dispatchers, domains, stalls, probe, _watchdog: watchdog })
    }

    /// How late the timers of the I/O core are when nothing stands above them.
    pub(super) fn noise(&self) -> NoiseFloor {
        self.probe.floor()
    }

    /// The dispatcher of a core of the configuration.
    pub(super) fn dispatcher(&self, core: usize) -> Option<&Dispatcher> {
        self.dispatchers.get(&core)
    }

    /// The I/O domain of a group of the configuration.
    pub(super) fn domain(&self, group: &str) -> Option<&IoDomain> {
        self.domains.get(group)
    }

    /// All dispatchers.
    pub(super) fn dispatchers(&self) -> impl Iterator<Item = &Dispatcher> {
        self.dispatchers.values()
    }

    /// All I/O domains.
    pub(super) fn domains(&self) -> impl Iterator<Item = &IoDomain> {
        self.domains.values()
    }
}

fn groups(
    config: &Config,
    state: &StateDir,
    stalls: &StallLog,
) -> Result<Vec<GroupSpec>, LinkError> {
    let mut groups = BTreeMap::<&str, (Vec<DiskSpec>, Vec<LinkSpec>)>::new();
    for disk in &config.disks {
        groups.entry(&disk.group).or_default().0.push(DiskSpec {
            name: disk.name.clone(),
            depth: usize::try_from(disk.depth).unwrap_or(1),
            max_unit: disk.max_unit,
            blocking: disk.blocking(config.host.profile),
            policy: disk.policy,
        });
    }
    for link in &config.links {
        groups.entry(&link.group).or_default().1.push(LinkSpec {
            name: link.name.clone(),
            rate_bps: link.rate_bps,
            mtu: link.mtu,
            policy: link.policy,
            reserved: link.reserved.clone(),
            broadcast: link.broadcast,
            tap: link::open(link, state)?,
        });
    }
    let make = |(name, (disks, links)): (&str, _)| GroupSpec {
        name: name.to_owned(),
        core: config.host.io_core,
        disks,
        links,
        poll: POLL,
        stalls: stalls.clone(),
    };
    Ok(groups.into_iter().map(make).collect())
}

/// What the missing probe means for the core that it was to watch.
fn noise(core: usize, error: NoiseError) -> DispatcherError {
    match error {
        NoiseError::Thread(source) => DispatcherError::Setup { core, source },
        NoiseError::RealTime(source) => DispatcherError::RealTime { core, source },
        NoiseError::Gone => DispatcherError::Gone { core },
    }
}
