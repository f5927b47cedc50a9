//! Network namespaces with names, as `ip netns` keeps them: files below `/run/netns`.
#![allow(unsafe_code, reason = "unshare has no safe wrapper")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

const DIRECTORY: &str = "/run/netns";

/// Where the namespace of that name is.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Whether there is a namespace of that name.
pub(super) fn exists(name: &str) -> bool {
    path(name).exists()
}

/// Makes a namespace.
///
/// # Errors
/// It exists, or may not be made (CAP_SYS_ADMIN).
pub(super) fn create(name: &str) -> io::Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    let path = path(name);
    fs::File::create_new(&path)?;
    // A thread of its own: it ends in the new namespace, the process stays where it is.
    let made = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> io::Result<()> {
            // SAFETY: only the network namespace of this thread changes, which owns no descriptor
            // and no memory that depends on it; the thread ends right after.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            Ok(mount_bind("/proc/thread-self/ns/net", &path)?)
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    });
    if made.is_err() {
        let _ = fs::remove_file(&path);
    }
    made
}

/// Removes a namespace; it lives on as long as a process is in it.
///
/// # Errors
/// May not be removed. That it is not there is no error.
pub(super) fn remove(name: &str) -> io::Result<()> {
    let path = path(name);
    match unmount(&path, UnmountFlags::DETACH) {
        // Not mounted: only the file was made.
        Ok(()) | Err(rustix::io::Errno::INVAL) => fs::remove_file(&path),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_can_be_made_once_and_removed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: network namespaces need root");
            assert!(std::env::var_os("MOIRAI_REQUIRE_ROOT").is_none());
            return;
        }
        let name = format!("moirai-test-{}", std::process::id());
        create(&name).expect("made");
        assert!(exists(&name));
        create(&name).expect_err("exists");
        remove(&name).expect("removed");
        assert!(!exists(&name));
        remove(&name).expect("no error");
    }
}
