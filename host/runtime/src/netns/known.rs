//! What is at the place of a name, and making and removing a namespace there.
#![allow(unsafe_code, reason = "unshare and ioctl of a namespace have no safe wrapper")]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::{Mode, OFlags, fstatfs, open};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{DIRECTORY, path};

/// What `statfs` says of a mounted namespace (`NSFS_MAGIC` of linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Asks a namespace for its kind (linux/nsfs.h).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// What is at the place of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A namespace.
    Namespace,
    /// Nothing: it can be made.
    Nothing,
    /// Something else, which stands in the way.
    Other(&'static str),
}

/// What is at the place of the namespace of that name.
#[must_use]
pub fn find(name: &str) -> Found {
    let path = path(name);
    let Ok(there) = fs::symlink_metadata(&path) else { return Found::Nothing };
    // Containers link theirs to /proc/PID/ns/net, which dangles when they are gone.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = open(&path, flags, Mode::empty()) else {
        let dangles = there.is_symlink() && !path.exists();
        return Found::Other(if dangles { "a link to nothing" } else { "not to be opened" });
    };
    match fstatfs(&file) {
        Ok(system) if system.f_type == NSFS_MAGIC => {
            // SAFETY: NS_GET_NSTYPE takes a descriptor and reads and writes no memory of ours.
            let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
            match kind == libc::CLONE_NEWNET {
                true => Found::Namespace,
                false => Found::Other("a namespace of another kind"),
            }
        }
        _ if path.is_dir() => Found::Other("a folder"),
        // Left behind when a machine or a program ended between making and mounting it.
        _ => Found::Other("a file on which no namespace is mounted"),
    }
}

/// Makes a namespace.
///
/// # Errors
/// It exists, or may not be made (CAP_SYS_ADMIN).
pub fn create(name: &str) -> io::Result<()> {
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
pub fn remove(name: &str) -> io::Result<()> {
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
    fn a_namespace_of_another_kind_is_no_place_for_a_link() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT TESTED HERE: mounts need root");
            assert!(std::env::var_os("MOIRAI_REQUIRE_ROOT").is_none());
            return;
        }
        let name = format!("moirai-uts-{}", std::process::id());
        fs::create_dir_all(DIRECTORY).expect("the folder");
        fs::File::create_new(path(&name)).expect("its place");
        mount_bind("/proc/self/ns/uts", path(&name)).expect("mounted");
        let found = find(&name);
        remove(&name).expect("removed");
        assert_eq!(found, Found::Other("a namespace of another kind"));
    }

    #[test]
    fn a_namespace_can_be_made_once_and_removed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT TESTED HERE: network namespaces need root");
            assert!(std::env::var_os("MOIRAI_REQUIRE_ROOT").is_none());
            return;
        }
        let name = format!("moirai-test-{}", std::process::id());
        create(&name).expect("made");
        assert_eq!(find(&name), Found::Namespace);
        create(&name).expect_err("exists");
        remove(&name).expect("removed");
        assert_eq!(find(&name), Found::Nothing);
        remove(&name).expect("no error");
    }

    #[test]
    fn what_is_no_namespace_is_named() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT TESTED HERE: /run/netns needs root");
            assert!(std::env::var_os("MOIRAI_REQUIRE_ROOT").is_none());
            return;
        }
        let name = format!("moirai-stale-{}", std::process::id());
        let place = path(&name);
        fs::create_dir_all(DIRECTORY).expect("a folder");
        fs::write(&place, "").expect("a stale file");
        let stale = find(&name);
        fs::remove_file(&place).expect("removed");
        std::os::unix::fs::symlink("/proc/0/ns/net", &place).expect("a link");
        let dangling = find(&name);
        fs::remove_file(&place).expect("removed");
        fs::create_dir(&place).expect("a folder");
        let folder = find(&name);
        fs::remove_dir(&place).expect("removed");
        assert_eq!(stale, Found::Other("a file on which no namespace is mounted"));
        assert_eq!(dangling, Found::Other("a link to nothing"));
        assert_eq!(folder, Found::Other("a folder"));
    }
}
