//! What a run has left behind, looked for where it could be: processes, control groups, network
//! namespaces, records of the host service, mounts, the kernel's settings.

use std::fs;
use std::path::Path;

/// Where groups are, in both versions.
const GROUPS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"];
const SETTINGS: &str = "/proc/sys/kernel/sched_rt_runtime_us";
/// Where the host service keeps records, and the kernel names of namespaces.
const RECORDS: [&str; 3] = ["/run/moirai", "/run/moirai/owners", "/run/moirai/netns"];
const NAMESPACES: &str = "/run/netns";

/// What was there before.
#[derive(Debug)]
pub(super) struct Before {
    settings: String,
}

impl Before {
    /// Looks before a run.
    pub(super) fn look() -> Self {
        Self { settings: fs::read_to_string(SETTINGS).unwrap_or_default() }
    }

    /// What is left of a run in this folder, with this namespace and these host services. The
    /// caller's own process group has nobody else in it than those that it names.
    pub(super) fn left(
        &self,
        folder: &Path,
        netns: &str,
        hosts: &[u32],
        own: &[u32],
    ) -> Vec<String> {
        let mut left = Vec::new();
        let groups: Vec<_> = hosts.iter().map(|pid| format!("moirai-{pid}")).collect();
        for place in GROUPS {
            let ours = entries(place).into_iter().filter(|name| groups.contains(name));
            left.extend(ours.map(|name| format!("the control group {place}/{name}")));
        }
        for place in RECORDS.into_iter().chain([NAMESPACES]) {
            for name in entries(place) {
                let text = fs::read_to_string(Path::new(place).join(&name)).unwrap_or_default();
                if name == netns
                    || text.contains(netns)
                    || text.contains(&*folder.to_string_lossy())
                {
                    left.push(format!("{place}/{name}"));
                }
            }
        }
        left.extend(processes(folder, own));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = mounts.lines().filter(|line| line.contains(&*folder.to_string_lossy()));
        left.extend(ours.map(|line| format!("the mount {line}")));
        let settings = fs::read_to_string(SETTINGS).unwrap_or_default();
        if settings != self.settings {
            left.push(format!("{SETTINGS}: {}, was {}", settings.trim(), self.settings.trim()));
        }
        left
    }
}

/// Sockets of a host service that has ended.
pub(super) fn sockets(folder: &Path) -> Vec<String> {
    let names = entries(&folder.to_string_lossy()).into_iter();
    names.filter(|name| name.ends_with(".sock")).collect()
}

fn entries(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Processes that live and know the folder, or are in our process group.
fn processes(folder: &Path, own: &[u32]) -> Vec<String> {
    let group = group_of(std::process::id());
    let numbers = entries("/proc").into_iter().filter_map(|name| name.parse::<u32>().ok());
    let strange = numbers.filter(|pid| !own.contains(pid) && crate::lives(*pid));
    let ours = strange.filter_map(|pid| {
        let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let words = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let known = words.contains(&*folder.to_string_lossy()) || group_of(pid) == group;
        known.then(|| format!("process {pid}: {words}"))
    });
    ours.collect()
}

/// The process group of a process; none if it has ended.
fn group_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    status.rsplit(')').next()?.split_whitespace().nth(2)?.parse().ok()
}
