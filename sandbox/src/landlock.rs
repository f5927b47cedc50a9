//! Landlock without a rule: everything that it handles is forbidden. Descriptors that are open stay
//! as they are.

use std::io;

/// What each version of Landlock handles of files, by the number of rights: the first ones are
/// those of version 1.
const FILE_RIGHTS: [u32; 5] = [13, 14, 15, 15, 16];
/// Rights of TCP (from version 4), and what leaves the process's own domain (from version 6):
/// abstract sockets and signals.
const NET_RIGHTS: u64 = 0b11;
const SCOPES: u64 = 0b11;
const ASK_VERSION: u32 = 1;

/// The kernel's `struct landlock_ruleset_attr`.
#[repr(C)]
#[derive(Default)]
struct Ruleset {
    files: u64,
    net: u64,
    scopes: u64,
}

/// What a kernel with this version handles, and how much of the structure it knows.
fn everything(version: usize) -> (Ruleset, usize) {
    let rights = FILE_RIGHTS.get(version.saturating_sub(1)).or(FILE_RIGHTS.last());
    let mut ruleset = Ruleset { files: (1 << rights.copied().unwrap_or(0)) - 1, net: 0, scopes: 0 };
    let mut known = 8;
    if version >= 4 {
        (ruleset.net, known) = (NET_RIGHTS, 16);
    }
    if version >= 6 {
        (ruleset.scopes, known) = (SCOPES, 24);
    }
    (ruleset, known)
}

/// Forbids the calling thread, and those it makes, all that Landlock handles. New privileges have
/// to be given up before.
///
/// # Errors
/// The kernel has no Landlock.
pub(crate) fn forbid_files() -> io::Result<()> {
    // SAFETY: without a structure and with this flag the call only says which version there is.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<Ruleset>(),
            0_usize,
            ASK_VERSION,
        )
    };
    let version = usize::try_from(version).map_err(|_| io::Error::last_os_error())?;
    let (ruleset, known) = everything(version);
    // SAFETY: the structure lives through the call and is at least `known` bytes long.
    let made = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, known, 0_u32)
    };
    let made = libc::c_int::try_from(made).map_err(io::Error::other)?;
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `made` is a descriptor that the last call has made; it is closed once.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, made, 0_u32) };
    let result = if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: as above.
    unsafe { libc::close(made) };
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_asked_for_what_it_knows_and_no_more() {
        let of = |version| {
            let (ruleset, known) = everything(version);
            (ruleset.files.count_ones(), ruleset.net, ruleset.scopes, known)
        };
        assert_eq!(of(1), (13, 0, 0, 8));
        assert_eq!(of(2), (14, 0, 0, 8));
        assert_eq!(of(3), (15, 0, 0, 8));
        assert_eq!(of(4), (15, 3, 0, 16));
        assert_eq!(of(5), (16, 3, 0, 16));
        assert_eq!(of(6), (16, 3, 3, 24));
        assert_eq!(of(99), (16, 3, 3, 24));
    }

    /// On a thread of its own, which is shut in for good.
    #[test]
    fn a_thread_that_is_shut_in_opens_nothing_and_uses_what_it_has() {
        let file = std::fs::File::open("/proc/self/stat").expect("a file");
        let shut_in = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).expect("given up");
            if let Err(error) = forbid_files() {
                eprintln!("NOT TESTED HERE: no Landlock: {error}");
                assert!(std::env::var_os("MOIRAI_REQUIRE_LANDLOCK").is_none());
                return;
            }
            let refused = std::fs::File::open("/proc/self/stat").expect_err("refused");
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            let mut text = String::new();
            io::Read::read_to_string(&mut &file, &mut text).expect("what is open is readable");
        });
        shut_in.join().expect("the thread");
    }
}
