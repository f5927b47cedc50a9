//! Control groups of tenants: what a tenant process may take of memory and of processes, so that it
//! and not somebody else ends when there is no more.
//!
//! Version 2 is used where its controllers are, else version 1; where there are none, or this
//! process may not make groups, a start says what is missing and tenants run without
//! ([`Groups::missing`]). Groups are named after this process, `moirai-PID/TENANT`; those of a host
//! service that was killed are taken away by the next one, wherever in the hierarchy they lie: it
//! may have been started in another group than this one. What cannot be taken away is named.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a tenant process needs beside its guest's memory: page tables of the guest, its own code,
/// buffers, files that it reads.
const BESIDE_BYTES: u64 = 64 << 20;
/// And a part of the guest's memory for the tables of the kernel that describe it.
const PARTS: u64 = 16;
/// Threads of a tenant process beside its vCPUs.
const BESIDE_THREADS: u64 = 16;
const OURS: &str = "moirai-";

/// Where groups of tenants are made.
#[derive(Debug, Default)]
pub(super) struct Groups {
    places: Vec<Place>,
    missing: Vec<&'static str>,
    left: Vec<PathBuf>,
}

/// A folder in which a controller makes groups.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    limits: Vec<(Limit, &'static str)>,
    /// The file that tells of ends for want of memory.
    kills: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Memory,
    Processes,
}

/// The group of one tenant in each hierarchy; goes with the value, when its processes have ended.
#[derive(Debug, Default)]
pub(super) struct Group {
    folders: Vec<PathBuf>,
    kills: Option<PathBuf>,
}

/// What a tenant may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Its guest's memory, in bytes.
    pub(super) memory_bytes: u64,
    /// Its vCPUs.
    pub(super) vcpus: u64,
}

impl Groups {
    /// Looks where this process may make groups, and takes away what others have left.
    pub(super) fn find() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::find_in(Path::new("/sys/fs/cgroup"), &own, std::process::id())
    }

    fn find_in(root: &Path, own: &str, pid: u32) -> Self {
        let mut groups = Self::default();
        let kinds: [(&str, Limit, &[&str]); 2] = [
            ("memory", Limit::Memory, &["memory.max", "memory.limit_in_bytes"]),
            ("pids", Limit::Processes, &["pids.max", "pids.max"]),
        ];
        for (controller, limit, files) in kinds {
            let made = version_two(root, controller)
                .map(|above| (above, 0))
                .or_else(|| version_one(root, own, controller).map(|above| (above, 1)))
                .and_then(|(above, version)| {
                    let top = if version == 0 { root.to_owned() } else { root.join(controller) };
                    groups.left.extend(take_away_leavings(&top));
                    let folder = above.join(format!("{OURS}{pid}"));
                    prepare(&folder, version == 0).ok().map(|()| (folder, version))
                });
            let Some((folder, version)) = made else {
                groups.missing.push(controller);
                continue;
            };
            let file = files.get(version).copied().unwrap_or_default();
            let kills = ["memory.events", "memory.oom_control"].get(version).copied();
            let place = groups.places.iter_mut().find(|place| place.folder == folder);
            match place {
                Some(place) => place.limits.push((limit, file)),
                None => groups.places.push(Place {
                    folder,
                    limits: vec![(limit, file)],
                    kills: kills.filter(|_| limit == Limit::Memory),
                }),
            }
        }
        groups
    }

    /// The controllers that cannot be used here.
    pub(super) fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    /// Groups of host services that do not live any more, which cannot be taken away: something
    /// still lives in them.
    pub(super) fn left(&self) -> &[PathBuf] {
        &self.left
    }

    /// A group with these limits.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(super) fn make(&self, tenant: &str, limits: Limits) -> io::Result<Group> {
        let mut group = Group::default();
        for place in &self.places {
            let folder = place.folder.join(tenant);
            // Somebody who does not see this process may have taken ours for a leaving.
            if !place.folder.exists() {
                prepare(&place.folder, place.is_version_two())?;
            }
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            group.folders.push(folder.clone());
            for (limit, file) in &place.limits {
                fs::write(folder.join(file), limits.of(*limit).to_string())?;
            }
            if let Some(kills) = place.kills {
                group.kills = Some(folder.join(kills));
            }
        }
        Ok(group)
    }
}

impl Place {
    fn is_version_two(&self) -> bool {
        self.limits.iter().any(|(_, file)| file.ends_with(".max"))
            && self.folder.parent().is_some_and(|above| above.join("cgroup.controllers").exists())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for place in &self.places {
            // Whoever starts next takes away what has processes now.
            let _ = fs::remove_dir(&place.folder);
        }
    }
}

impl Limits {
    fn of(self, limit: Limit) -> u64 {
        let beside = BESIDE_BYTES.saturating_add(self.memory_bytes / PARTS);
        match limit {
            Limit::Memory => self.memory_bytes.saturating_add(beside),
            Limit::Processes => self.vcpus.saturating_add(BESIDE_THREADS),
        }
    }
}

impl Group {
    /// Puts a process into it.
    ///
    /// # Errors
    /// The process has ended, or the kernel refuses it.
    pub(super) fn adopt(&self, pid: u32) -> io::Result<()> {
        self.folders
            .iter()
            .try_for_each(|folder| fs::write(folder.join("cgroup.procs"), pid.to_string()))
    }

    /// Whether a process of it was ended because there was no more memory for it.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let text = self.kills.as_ref().and_then(|file| fs::read_to_string(file).ok());
        text.is_some_and(|text| {
            let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            killed.is_some_and(|count| count.trim() != "0")
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            // A process of it that has not quite gone keeps it; the next start takes it away.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Version 2 has the controller: groups are made below its root, because a group with processes of
/// its own cannot give controllers to groups within it.
fn version_two(root: &Path, controller: &str) -> Option<PathBuf> {
    let has = |file: &str| {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        text.split_whitespace().any(|it| it == controller)
    };
    if !has("cgroup.controllers") {
        return None;
    }
    if !has("cgroup.subtree_control") {
        fs::write(root.join("cgroup.subtree_control"), format!("+{controller}")).ok()?;
    }
    Some(root.to_owned())
}

/// The group of this process in version 1's hierarchy of the controller: limits of groups above it
/// go on to hold. In a container its own group may be what is mounted.
fn version_one(root: &Path, own: &str, controller: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|it| it == controller).then_some(path)
    })?;
    let mounted = root.join(controller);
    let inside = mounted.join(path.trim_start_matches('/'));
    [inside, mounted].into_iter().find(|folder| folder.join("cgroup.procs").exists())
}

fn prepare(folder: &Path, version_two: bool) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if version_two {
        let control = folder.join("cgroup.subtree_control");
        let offered = fs::read_to_string(folder.join("cgroup.controllers"))?;
        for controller in ["memory", "pids"].iter().filter(|it| offered.contains(**it)) {
            fs::write(&control, format!("+{controller}"))?;
        }
    }
    Ok(())
}

/// How deep and how far is looked for groups that others have left.
const DEPTH: usize = 8;
const LOOKS: usize = 20_000;

/// Takes away the groups of host services that do not live any more, below `top`. Returns those in
/// which something still lives.
fn take_away_leavings(top: &Path) -> Vec<PathBuf> {
    let (mut left, mut looks) = (Vec::new(), 0);
    let mut folders = vec![(top.to_owned(), 0)];
    while let Some((above, depth)) = folders.pop() {
        for entry in fs::read_dir(above).into_iter().flatten().flatten() {
            looks += 1;
            if looks > LOOKS || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(OURS)?.parse::<u32>().ok());
            match pid {
                None if depth < DEPTH => folders.push((entry.path(), depth + 1)),
                Some(pid) if !Path::new(&format!("/proc/{pid}")).exists() => {
                    let inner = fs::read_dir(entry.path()).into_iter().flatten().flatten();
                    inner.for_each(|group| drop(fs::remove_dir(group.path())));
                    if fs::remove_dir(entry.path()).is_err() {
                        left.push(entry.path());
                    }
                }
                _ => {}
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const LIMITS: Limits = Limits { memory_bytes: 160 << 20, vcpus: 2 };

    #[test]
    fn limits_leave_room_for_what_a_tenant_process_needs_itself() {
        assert_eq!(LIMITS.of(Limit::Memory), (160 + 64 + 10) << 20);
        assert_eq!(LIMITS.of(Limit::Processes), 18);
    }

    /// What version 2 looks like, as far as this is about; the files of a group come by themselves
    /// in the kernel.
    #[test]
    fn version_two_is_used_where_its_controllers_are() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).expect(name);
        write("cgroup.controllers", "cpu memory pids\n");
        write("cgroup.subtree_control", "memory pids\n");
        let ours = root.path().join("moirai-77");
        fs::create_dir(&ours).expect("group");
        fs::write(ours.join("cgroup.controllers"), "memory pids\n").expect("file");
        let dead = root.path().join("moirai-4294967295");
        fs::create_dir_all(dead.join("tenant")).expect("leavings");
        let groups = Groups::find_in(root.path(), "0::/user\n", 77);
        assert!(groups.missing().is_empty());
        assert!(!dead.exists());
        let group = groups.make("a", LIMITS).expect("group");
        let read = |name: &str| fs::read_to_string(ours.join("a").join(name)).expect(name);
        assert_eq!(read("memory.max"), (234_u64 << 20).to_string());
        assert_eq!(read("pids.max"), "18");
        assert!(!group.ran_out_of_memory());
        fs::write(ours.join("a/memory.events"), "oom 3\noom_kill 2\n").expect("file");
        assert!(group.ran_out_of_memory());
    }

    /// A host service of a terminal leaves groups below that terminal's; the next one is a service
    /// of the system.
    #[test]
    fn leavings_in_other_groups_are_taken_away_or_named() {
        let root = tempfile::tempdir().expect("a folder");
        let (own, other) = (root.path().join("memory/system"), root.path().join("memory/user/1"));
        for folder in [&own, &other] {
            fs::create_dir_all(folder).expect("group");
            fs::write(folder.join("cgroup.procs"), "").expect("file");
        }
        let [dead, stuck] = ["moirai-4294967295", "moirai-4294967294"].map(|it| other.join(it));
        fs::create_dir_all(dead.join("tenant")).expect("leavings");
        fs::create_dir_all(stuck.join("tenant/of-another")).expect("leavings");
        let lives = other.join(format!("moirai-{}", std::process::id()));
        fs::create_dir_all(&lives).expect("of one that lives");
        let groups = Groups::find_in(root.path(), "4:memory:/system\n", 77);
        assert_eq!(groups.missing(), ["pids"]);
        assert!(!dead.exists() && lives.exists());
        assert_eq!(groups.left(), [stuck]);
        // Ours comes back, should somebody have taken it away.
        fs::remove_dir(own.join("moirai-77")).expect("taken away");
        groups.make("a", LIMITS).expect("made again");
        assert!(own.join("moirai-77/a").exists());
    }

    #[test]
    fn without_control_groups_a_start_knows_what_is_missing() {
        let root = tempfile::tempdir().expect("a folder");
        let groups = Groups::find_in(root.path(), "4:memory:/a\n", 77);
        assert_eq!(groups.missing(), ["memory", "pids"]);
        assert!(groups.make("a", LIMITS).expect("nothing to make").folders.is_empty());
    }

    /// The kernel's own, whichever version it has.
    #[test]
    fn a_process_that_takes_more_than_its_group_may_have_is_ended_and_this_is_known() {
        let groups = Groups::find();
        if !groups.missing().is_empty() {
            eprintln!("NOT TESTED HERE: no control groups for {:?}", groups.missing());
            assert!(std::env::var_os("MOIRAI_REQUIRE_CGROUPS").is_none());
            return;
        }
        let limits = Limits { memory_bytes: 1 << 20, vcpus: 1 };
        let group = groups.make("greedy", limits).expect("a group");
        // It waits for a line, so that it is in its group before it takes anything.
        let take = "read -r go; exec head -c 200M /dev/zero | tail -c 200M >/dev/null";
        let mut shell = Command::new("sh");
        let mut shell = shell.args(["-c", take]).stdin(Stdio::piped()).spawn().expect("a shell");
        group.adopt(shell.id()).expect("adopted");
        drop(shell.stdin.take());
        let _ = shell.wait();
        let ended = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            group.ran_out_of_memory()
        });
        assert!(ended, "{:?}", group.kills.as_ref().map(fs::read_to_string));
        drop(group);
        let left = groups.places.iter().filter(|place| place.folder.join("greedy").exists());
        assert_eq!(left.count(), 0);
    }
}
