//! Shuts a process in before it reads a byte that a stranger wrote. What each program still needs
//! is that program's to say.
//!
//! Layers, outermost first: name spaces with an empty file system (root only), a user of its own
//! without capabilities (root only), no new privileges, resource limits, Landlock, and a filter of
//! system calls ([`Filter`]) that can be tightened later, for each thread. [`enter`] reports what
//! the host does not grant.
#![allow(unsafe_code, reason = "unshare and close_range can break other users of descriptors")]

mod files;
mod filter;

use std::io;

pub use files::{FilesError, leave_files};
pub use filter::{Condition, Filter, Program};
pub use rustix::process::Resource;

use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{
    DumpableBehavior, Gid, Rlimit, Signal, Uid, chdir, geteuid, pivot_root, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, UnshareFlags, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
};
use thiserror::Error;

/// The process could not be shut in as was asked.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// User or group cannot be changed.
    #[error("cannot become {what} {id}: {error}")]
    Identity {
        /// "user" or "group".
        what: &'static str,
        /// Which.
        id: u32,
        /// What the kernel said.
        error: io::Error,
    },
    /// A step that needs no privilege failed.
    #[error("{step}: {error}")]
    Step {
        /// Which.
        step: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

/// How a process is to be shut in.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// User to become; `None` keeps the present one. Needs privilege.
    pub uid: Option<u32>,
    /// Group to become; `None` keeps the present one. Needs privilege.
    pub gid: Option<u32>,
    /// Resource limits, soft and hard alike, in the units of setrlimit(2). No core is ever dumped.
    pub limits: &'a [(Resource, u64)],
    /// Whether no file can be opened, no socket connected and no other process reached from now on,
    /// whatever the system calls are: Landlock without a rule.
    pub no_files: bool,
    /// The system calls of the process from now on.
    pub filter: &'a Filter,
}

/// Closes every descriptor from `first` on. To be called first of all, when nothing else is open
/// that anybody owns.
pub fn close_inherited(first: u32) {
    // SAFETY: called before anything was opened, so nobody in this process owns one of these
    // descriptors. On kernels without the call they stay open; who spawned us has closed them
    // already.
    unsafe { libc::close_range(first, libc::c_uint::MAX, 0) };
}

/// Lets each of so many threads have a heap of its own. Without a number of its own glibc asks,
/// with the ninth thread, how many cores there are, by opening a file: a filter would end the
/// process.
pub fn allow_heaps(most: i32) {
    // SAFETY: sets a number inside the allocator, which locks it.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, most) };
}

/// Enters the sandbox with the calling thread, which has to be the only one. Returns what could
/// not be had, a sentence each.
///
/// # Errors
/// What was asked for explicitly or needs no privilege, and still failed.
pub fn enter(wanted: &Wanted<'_>) -> Result<Vec<String>, SandboxError> {
    let mut missing = Vec::new();
    if geteuid().is_root() {
        if let Err(error) = leave_name_spaces() {
            missing.push(format!("no name spaces of its own and an open file system: {error}"));
        }
    } else {
        missing.push("no name spaces of its own: the host service is not root".to_owned());
    }
    become_nobody(wanted, &mut missing)?;
    let step = |step| move |errno: Errno| SandboxError::Step { step, error: errno.into() };
    // Forgotten by the kernel when the user changed.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(step("die with the host"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("forbid core dumps"))?;
    set_no_new_privs(true).map_err(step("give up new privileges"))?;
    for &(resource, limit) in wanted.limits.iter().chain(&[(Resource::Core, 0)]) {
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        setrlimit(resource, limit).map_err(step("limit resources"))?;
    }
    if wanted.no_files {
        match leave_files(&[], false) {
            Ok(true) => {}
            Ok(false) => missing.push("no Landlock: the kernel has none".to_owned()),
            Err(error) => missing.push(format!("no Landlock: {error}")),
        }
    }
    let install = wanted.filter.install();
    install.map_err(|error| SandboxError::Step { step: "filter system calls", error })?;
    Ok(missing)
}

/// New name spaces, and an empty read-only root.
fn leave_name_spaces() -> io::Result<()> {
    let flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    // SAFETY: none of the flags separates the table of descriptors.
    unsafe { unshare_unsafe(flags) }?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    // Any directory will do: the mount over it is seen by this process only.
    let root = "/proc";
    let flags = MountFlags::RDONLY | MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NODEV;
    mount("none", root, "tmpfs", flags, c"mode=555,nr_inodes=1")?;
    chdir(root)?;
    // The old root comes to lie over the new one and is taken away.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    Ok(())
}

/// Changes user and group as asked, and drops all capabilities for good.
fn become_nobody(wanted: &Wanted<'_>, missing: &mut Vec<String>) -> Result<(), SandboxError> {
    let privileged = geteuid().is_root();
    if privileged {
        for capability in CapabilitySet::all().iter() {
            // Unknown to an older kernel, or not granted to start with.
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    if let Some(id) = wanted.gid {
        let failed =
            |errno: Errno| SandboxError::Identity { what: "group", id, error: errno.into() };
        let gid = Gid::from_raw(id);
        set_thread_groups(&[]).map_err(failed)?;
        set_thread_res_gid(gid, gid, gid).map_err(failed)?;
    }
    if let Some(id) = wanted.uid {
        let failed =
            |errno: Errno| SandboxError::Identity { what: "user", id, error: errno.into() };
        let uid = Uid::from_raw(id);
        set_thread_res_uid(uid, uid, uid).map_err(failed)?;
    } else if privileged {
        missing.push("no user of its own: the launch names none".to_owned());
    } else {
        missing.push("no user of its own: the host service is not root".to_owned());
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    // Nothing to clear on kernels without ambient capabilities.
    let _ = clear_ambient_capability_set();
    set_capabilities(None, none)
        .map_err(|errno| SandboxError::Step { step: "drop capabilities", error: errno.into() })
}
