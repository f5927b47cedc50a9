//! What the machine does to a host service: full disks, no memory, a core that is taken away.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::random::Chance;
use super::super::weak::Failure;
use super::super::world::World;
use super::{pause, struck};
use crate::core;

/// SCHED_FIFO of the kernel, and its highest priority.
const FIFO: i32 = 1;
const HIGHEST: i32 = 99;
/// What the hog of memory may have, and what it takes.
const HOG_LIMIT: u64 = 64 << 20;

/// Fills the small disk: writes into the holes of its volume fail then. When it has none any more,
/// that says nothing; so on the weak disk there is no more room for any write.
pub(super) fn disk_full(world: &World, chance: &mut Chance) -> Result<(), String> {
    let path = world.folder.join("small/ballast");
    let failed = |error: std::io::Error| format!("the ballast: {error}");
    let mut ballast = fs::File::create(&path).map_err(failed)?;
    // Until the kernel says that there is no more room.
    while ballast.write_all(&[0xff; 4096]).is_ok() {}
    drop(ballast);
    let (before, _) = world.weak.counts();
    world.weak.fail(Some(Failure::Full));
    pause(chance, 500, 1500);
    world.weak.fail(None);
    fs::remove_file(path).map_err(failed)?;
    struck(before, world.weak.counts().0)
}

/// A program that wants more memory than its group may have, until the kernel ends it, some times
/// in a row. It reclaims and swaps and kills in a group of its own: others use this machine, too.
pub(super) fn memory_pressure(world: &World, chance: &mut Chance) -> Result<(), String> {
    let Some(group) = memory_group() else { return global_pressure(world, chance) };
    let script = format!(
        "echo $$ >{0}/cgroup.procs && echo 1000 >/proc/self/oom_score_adj && cat \
         /dev/zero | tail -c 1G >/dev/null",
        group.display()
    );
    for _ in 0..=chance.below(3) {
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null());
        let ended = command.status().map_err(|error| format!("the hog of memory: {error}"))?;
        if ended.success() {
            return Err("a program that has no memory left went on".to_owned());
        }
    }
    fs::remove_dir(&group).map_err(|error| format!("{}: {error}", group.display()))
}

fn memory_group() -> Option<PathBuf> {
    let name = format!("chaos-{}", std::process::id());
    let places =
        [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
    places.iter().find_map(|(above, limit)| {
        let group = Path::new(above).join(&name);
        fs::create_dir(&group).ok()?;
        let limited = fs::write(group.join(limit), HOG_LIMIT.to_string());
        limited.map(|()| group.clone()).map_err(|_| fs::remove_dir(&group)).ok()
    })
}

/// Where there are no groups: files are read through the page cache, which is dropped again.
fn global_pressure(world: &World, chance: &mut Chance) -> Result<(), String> {
    for _ in 0..=chance.below(3) {
        fs::read(world.folder.join("scratch.img")).map_err(|error| error.to_string())?;
        fs::write("/proc/sys/vm/drop_caches", "3").map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A thread above everybody else on the tenants' core takes it for some tens of milliseconds, some
/// times.
pub(super) fn core_stolen(chance: &mut Chance) -> Result<(), String> {
    let thefts: Vec<_> =
        (0..=chance.below(4)).map(|_| (10 + chance.below(50), 50 + chance.below(200))).collect();
    let thief = std::thread::spawn(move || -> std::io::Result<()> {
        moirai_runtime::pin(0, core())?;
        moirai_runtime::set_scheduler(0, FIFO, HIGHEST)?;
        for (takes, rests) in thefts {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(takes) {
                std::hint::spin_loop();
            }
            std::thread::sleep(Duration::from_millis(rests));
        }
        Ok(())
    });
    let ended = thief.join().map_err(|_| "the thief has failed".to_owned())?;
    ended.map_err(|error| format!("the thief of the core: {error}"))
}
