//! Programs inside the link's network namespace (the host service makes and removes it).
#![allow(unsafe_code, reason = "what runs between fork and exec is unsafe by nature")]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::DemoError;

/// Starts a program inside the namespace `/run/netns/NAME`. It is killed if the thread that
/// started it dies, so start it from one that stays.
pub(super) fn spawn_within(name: &str, command: &mut Command) -> Result<Child, DemoError> {
    let failed = |source| DemoError::Namespace { name: name.to_owned(), source };
    let namespace = File::open(Path::new("/run/netns").join(name)).map_err(failed)?;
    // SAFETY: between fork and exec only setns and prctl are called, both async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
        });
    }
    command.spawn().map_err(failed)
}
