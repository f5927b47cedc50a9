//! How much memory the machine has for tenants: what is in it, or what the control groups of this
//! process leave of it, less what the host keeps for itself.

use std::fs;
use std::path::{Path, PathBuf};

use crate::document::HostTable;
use crate::problem::Problems;
use crate::units::Size;

/// What the host keeps at least: the kernel, the host service, whoever is logged in.
const LEAST_RESERVE_BYTES: u64 = 512 << 20;
/// What it keeps of a large machine: page tables, caches.
const RESERVE_PERCENT: u64 = 5;

/// What tenants may have, in bytes. `machine` is what there is; `None` if that is not known, and
/// then nothing is refused for it.
pub(super) fn check(table: &HostTable, machine: Option<u64>, problems: &mut Problems) -> u64 {
    if let (Some(_), Some(Size(_))) = (table.memory, table.memory_reserve) {
        let message = "`memory` and `memory_reserve` are both given";
        let help = "keep one of them: what tenants may have, or what the host keeps";
        problems.add("host.memory_reserve", message, help);
    }
    if let Some(Size(bytes)) = table.memory {
        return bytes;
    }
    let Some(machine) = machine else { return u64::MAX };
    let usual = LEAST_RESERVE_BYTES.max(machine / 100 * RESERVE_PERCENT);
    let reserve = table.memory_reserve.map_or(usual, |Size(bytes)| bytes);
    machine.saturating_sub(reserve)
}

/// The memory of the machine, or what the control groups of this process leave of it.
#[must_use]
pub fn machine_memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(Path::new("/sys/fs/cgroup"), &groups);
    let limits = limits.iter().filter_map(|file| fs::read_to_string(file).ok());
    let meminfo = fs::read_to_string("/proc/meminfo").ok();
    let total = meminfo.as_deref().and_then(total);
    limits.filter_map(|text| text.trim().parse().ok()).chain(total).min()
}

/// `MemTotal` of /proc/meminfo in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files with the limits of the groups in /proc/self/cgroup and of all groups above them. A
/// group without a limit says `max`, or a number beyond every machine.
fn limit_files(root: &Path, groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (folder, name) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            of if of.split(',').any(|it| it == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container its own group may be what is mounted: then the longer paths are not there.
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(group.ancestors().map(|above| folder.join(above).join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_keeps_its_reserve_unless_told_what_tenants_may_have() {
        const G: u64 = 1 << 30;
        let mut problems = Problems::default();
        let mut tenants = |text: &str, machine| {
            let table = toml::from_str(text).expect("a table");
            check(&table, machine, &mut problems)
        };
        assert_eq!(tenants("", Some(4 * G)), 4 * G - (512 << 20));
        assert_eq!(tenants("", Some(100 * G)), 100 * G - 100 * G / 100 * 5);
        assert_eq!(tenants("", Some(G / 4)), 0);
        assert_eq!(tenants("memory_reserve = \"1G\"", Some(4 * G)), 3 * G);
        assert_eq!(tenants("memory = \"900G\"", Some(4 * G)), 900 * G);
        assert_eq!(tenants("", None), u64::MAX);
        assert!(problems.is_empty());
        let mut problems = Problems::default();
        let both = toml::from_str("memory = \"1G\"\nmemory_reserve = \"1G\"").expect("a table");
        check(&both, None, &mut problems);
        assert_eq!(problems.unless_any(()).map_err(|found| found.len()), Err(1));
    }

    #[test]
    fn limits_of_both_kinds_of_control_groups_and_of_those_above_count() {
        let groups = "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/c/d\nnonsense\n";
        let files = limit_files(Path::new("/r"), groups);
        let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        assert_eq!(
            names,
            [
                "/r/memory/a/b/memory.limit_in_bytes",
                "/r/memory/a/memory.limit_in_bytes",
                "/r/memory/memory.limit_in_bytes",
                "/r/c/d/memory.max",
                "/r/c/memory.max",
                "/r/memory.max",
            ]
        );
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       24731708 kB\n"), Some(24_731_708 << 10));
        assert_eq!(total("MemTotal: many kB\n"), None);
    }
}
