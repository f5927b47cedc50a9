//! Doing one thing in another network namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps the namespaces it has made.
const NAMESPACES: &str = "/run/netns";

/// Runs `f` on a thread of its own inside the namespace `/run/netns/NAME` (as `ip netns` makes it)
/// and returns what it returns. Descriptors that `f` opens stay tied to that namespace.
///
/// # Errors
/// The namespace does not exist, or may not be entered (CAP_SYS_ADMIN), or `f` panics.
pub fn in_netns<T: Send>(name: &str, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        let message = format!("{name:?} is no name of a network namespace");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let namespace = File::open(Path::new(NAMESPACES).join(name))?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(format!("netns-{name}"));
        let handle = thread.spawn_scoped(scope, || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(f())
        })?;
        let panicked = |_| io::Error::other("the work in the network namespace panicked");
        handle.join().map_err(panicked)?
    })
}
