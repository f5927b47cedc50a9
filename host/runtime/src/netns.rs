//! Network namespaces with names, as `ip netns` keeps them: files below `/run/netns`. Where they
//! are, what they may be called, how one is made, and doing one thing in it: all of that is here.

mod known;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use known::{Found, create, find, remove};

/// Where `ip netns` keeps the namespaces it has made.
const DIRECTORY: &str = "/run/netns";
/// The longest name of a file, in bytes (`NAME_MAX` of linux/limits.h).
const MAX_NAME_BYTES: usize = 255;

/// Whether a namespace can have that name: a file that `ip netns` shows and that no shell takes for
/// anything else.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|c| c.is_ascii_graphic() && c != b'/')
}

/// Where the namespace of that name is.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// A network namespace that can be entered, as long as the value lives.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// The namespace of that name.
    ///
    /// # Errors
    /// No namespace can have the name, or it does not exist.
    pub fn open(name: &str) -> io::Result<Self> {
        if !is_name(name) {
            let message = format!("{name:?} is no name of a network namespace");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        File::open(path(name)).map(Self)
    }

    /// Moves the calling thread into it. One system call and no memory: it may stand between fork
    /// and exec.
    ///
    /// # Errors
    /// It may not be entered (CAP_SYS_ADMIN), or is none of a network.
    pub fn enter(&self) -> io::Result<()> {
        let kind = Some(LinkNameSpaceType::Network);
        Ok(move_into_link_name_space(self.0.as_fd(), kind)?)
    }
}

/// Runs `f` on a thread of its own inside the namespace of that name and returns what it returns.
/// Descriptors that `f` opens stay tied to that namespace.
///
/// # Errors
/// Those of [`Namespace::open`] and [`Namespace::enter`], or `f` panics.
pub fn in_netns<T: Send>(name: &str, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = Namespace::open(name)?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(format!("netns-{name}"));
        let handle = thread.spawn_scoped(scope, || {
            namespace.enter()?;
            Ok(f())
        })?;
        let panicked = |_| io::Error::other("the work in the network namespace panicked");
        handle.join().map_err(panicked)?
    })
}
