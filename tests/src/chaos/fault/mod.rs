//! The faults, and how each is done to the world. When `strike` returns, the fault is over and what
//! it has ended runs again.

mod machine;
mod peers;

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::random::Chance;
use super::weak::Failure;
use super::world::{LOOSE, VICTIMS, World};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// No fault: what breaks now, the machine breaks.
    Calm,
    TenantKilled,
    TenantStopped,
    WriterKilled,
    WriterStopped,
    HostKilled,
    HostStopped,
    DiskFull,
    DiskErrors,
    DiskDelays,
    TapDeleted,
    MemoryPressure,
    CoreStolen,
    ApiFlood,
    HostilePeers,
}

impl Fault {
    /// All kinds.
    pub(super) const ALL: [Self; 15] = [
        Self::Calm,
        Self::TenantKilled,
        Self::TenantStopped,
        Self::WriterKilled,
        Self::WriterStopped,
        Self::HostKilled,
        Self::HostStopped,
        Self::DiskFull,
        Self::DiskErrors,
        Self::DiskDelays,
        Self::TapDeleted,
        Self::MemoryPressure,
        Self::CoreStolen,
        Self::ApiFlood,
        Self::HostilePeers,
    ];

    /// Its name in the table.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::TenantKilled => "tenant killed",
            Self::TenantStopped => "tenant stopped",
            Self::WriterKilled => "writer killed",
            Self::WriterStopped => "writer stopped",
            Self::HostKilled => "host killed",
            Self::HostStopped => "host stopped",
            Self::DiskFull => "disk full",
            Self::DiskErrors => "disk errors",
            Self::DiskDelays => "disk delays",
            Self::TapDeleted => "tap deleted",
            Self::MemoryPressure => "memory pressure",
            Self::CoreStolen => "core stolen",
            Self::ApiFlood => "api flood",
            Self::HostilePeers => "hostile peers",
        }
    }

    /// Whether the machine is taken from the host service: such a time is a stall, which it has to
    /// see by itself.
    pub(super) const fn is_stall(self) -> bool {
        matches!(self, Self::HostStopped | Self::CoreStolen)
    }

    /// The next fault. The host service dies more rarely than all else: what grows in it shows in
    /// a long life only.
    pub(super) fn next(chance: &mut Chance) -> Self {
        let fault = chance.pick(&Self::ALL);
        if fault == Self::HostKilled && chance.below(2) == 0 { Self::next(chance) } else { fault }
    }

    /// Does it.
    ///
    /// # Errors
    /// What was to survive did not.
    pub(super) fn strike(self, world: &mut World, chance: &mut Chance) -> Result<(), String> {
        match self {
            Self::Calm => {
                pause(chance, 2000, 2000);
                Ok(())
            }
            Self::TenantKilled => tenant_killed(world, chance),
            Self::TenantStopped => {
                let victim = world.tenant(chance.pick(&VICTIMS)).ok_or("a victim does not run")?;
                stop_for(victim, Duration::from_millis(200 + chance.below(1500)));
                Ok(())
            }
            Self::WriterKilled => writer(world, chance, |pid, _| signal(pid, Signal::KILL)),
            Self::WriterStopped => writer(world, chance, |pid, chance| {
                stop_for(pid, Duration::from_millis(200 + chance.below(1500)));
            }),
            Self::HostKilled => Ok(()),
            Self::HostStopped => {
                stop_for(world.pid(), Duration::from_millis(20 + chance.below(200)));
                Ok(())
            }
            Self::DiskFull => machine::disk_full(world, chance),
            Self::DiskErrors => {
                let (before, _) = world.weak.counts();
                world.weak.fail(Some(Failure::Error));
                pause(chance, 500, 1500);
                world.weak.fail(None);
                struck(before, world.weak.counts().0)
            }
            Self::DiskDelays => {
                let (_, before) = world.weak.counts();
                world.weak.delay(Duration::from_millis(20 + chance.below(400)));
                pause(chance, 500, 1500);
                world.weak.delay(Duration::ZERO);
                struck(before, world.weak.counts().1)
            }
            Self::TapDeleted => tap_deleted(world),
            Self::MemoryPressure => machine::memory_pressure(world, chance),
            Self::CoreStolen => machine::core_stolen(chance),
            Self::ApiFlood => peers::api_flood(world, chance),
            Self::HostilePeers => peers::hostile(world, chance),
        }
    }
}

/// A fault that has struck nobody says nothing.
fn struck(before: u64, after: u64) -> Result<(), String> {
    if after > before { Ok(()) } else { Err("no request met it".to_owned()) }
}

fn pause(chance: &mut Chance, least_ms: u64, more_ms: u64) {
    std::thread::sleep(Duration::from_millis(least_ms + chance.below(more_ms)));
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn stop_for(pid: u32, time: Duration) {
    signal(pid, Signal::STOP);
    std::thread::sleep(time);
    signal(pid, Signal::CONT);
}

fn tenant_killed(world: &mut World, chance: &mut Chance) -> Result<(), String> {
    let name = chance.pick(&VICTIMS);
    signal(world.tenant(name).ok_or_else(|| format!("{name} does not run"))?, Signal::KILL);
    pause(chance, 0, 300);
    world.launch_again(name)
}

fn writer(
    world: &mut World,
    chance: &mut Chance,
    harm: impl FnOnce(u32, &mut Chance),
) -> Result<(), String> {
    pause(chance, 100, 400);
    let place = usize::try_from(chance.below(world.keepers.len() as u64)).unwrap_or(0);
    if let Some(pid) = world.keepers[place].pid() {
        harm(pid, chance);
    }
    Ok(())
}

/// The link is gone until the host service starts again; once in its life, then.
fn tap_deleted(world: &mut World) -> Result<(), String> {
    let words = ["-n", world.netns.as_str(), "link", "delete", LOOSE];
    let output = std::process::Command::new("ip").args(words).output();
    output.map_err(|error| format!("ip: {error}"))?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}
