//! The compartments of the host service: what each of its threads may still ask of the kernel.
//!
//! The process gives up what none of its threads needs ([`begin`]). Then each thread gives up what
//! its [`Role`] does not need ([`Role::enter`]): capabilities, files, system calls. A thread begins
//! with what its maker may do, so a role can be narrower than its maker's and never wider. The
//! table for operators is docs/security.md; the reasons are docs/design/0016-compartments.md.
//!
//! A call that a thread may not make fails with EPERM and is told by whoever looks
//! ([`violations`]): a host service that died of a violation would take all tenants along.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `role.rs` | the roles, and what each may do |
//! | `calls.rs` | lists of system calls |
//! | `powers.rs` | capabilities |
//! | `violation.rs` | what is answered to a forbidden call, and who has made one |
//!
//! Neighbours: `moirai_sandbox` talks to the kernel; every crate of the host service whose threads
//! have a role calls this one. It keeps no thread and knows none of ours.

mod calls;
mod powers;
mod role;
mod violation;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

pub use role::Role;
pub use violation::{Violation, violations};

/// The process is in compartments: without, as in a test of a part, no thread enters its role.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// Gives up, for the calling thread and all that it makes, what no part of the host service needs.
/// To be called before there is a second thread. Returns what this machine does not grant, a
/// sentence each.
///
/// # Errors
/// The kernel refuses a step that needs no privilege; roles are not entered then.
pub fn begin() -> io::Result<Vec<String>> {
    let mut missing = Vec::new();
    rustix::thread::set_no_new_privs(true)?;
    powers::limit(powers::PROCESS);
    powers::keep(powers::PROCESS)?;
    violation::handle()?;
    if let Err(error) = calls::process().install() {
        missing.push(format!("no filters of system calls, for no thread: {error}"));
        return Ok(missing);
    }
    if !role::has_landlock() {
        missing.push("no Landlock: threads that need no file could open files".to_owned());
    }
    BEGUN.store(true, Ordering::Release);
    Ok(missing)
}

fn has_begun() -> bool {
    BEGUN.load(Ordering::Acquire)
}
