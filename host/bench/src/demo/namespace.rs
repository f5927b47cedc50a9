//! Programs inside the link's network namespace (the host service makes and removes it).
#![allow(unsafe_code, reason = "what runs between fork and exec is unsafe by nature")]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use moirai_runtime::netns::Namespace;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::DemoError;

/// Starts a program inside the namespace of that name. It is killed if the thread that
/// started it dies, so start it from one that stays.
pub(super) fn spawn_within(name: &str, command: &mut Command) -> Result<Child, DemoError> {
    let failed = |source| DemoError::Namespace { name: name.to_owned(), source };
    let namespace = Namespace::open(name).map_err(failed)?;
    // SAFETY: between fork and exec only setns and prctl are called, both async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            namespace.enter()?;
            Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
        });
    }
    command.spawn().map_err(failed)
}
