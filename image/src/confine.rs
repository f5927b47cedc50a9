//! What the process may still do once it has its descriptors, and before it reads a byte of an
//! image: read and write files that it has, answer on its socket, end.

use moirai_image_wire::Start;
use moirai_sandbox::{Condition, Filter, Resource, SandboxError, Wanted};

/// The socket, the arena, and the files of the deepest chain with some to spare: no more can be
/// opened.
const MAX_FILES: u64 = 64;

/// What imago does to files, and messages without descriptors.
const FILES: &[libc::c_long] = &[
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_fstatfs,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
];

/// What a process needs to end as it should: to say that its stack has overflowed, to abort.
const END: &[libc::c_long] = &[libc::SYS_rt_sigaction, libc::SYS_getpid];

/// How large a block device is.
const BLKGETSIZE64: u64 = 0x8008_1272;

/// Shuts the process in; the calling thread has to be the only one. What the host does not grant is
/// said on standard error.
///
/// # Errors
/// What was asked for explicitly or needs no privilege, and still failed.
pub fn confine(start: &Start) -> Result<(), SandboxError> {
    // Where a file may not end, a write fails; it does not end the process.
    ignore_file_size_signal();
    // To abort, a process sends itself a signal. It may send none to others.
    let own = (0, Condition::Is(u64::from(std::process::id())));
    let filter = Filter::common()
        .allow(FILES)
        .allow(END)
        .allow_if(libc::SYS_tgkill, &[own])
        .allow_if(libc::SYS_ioctl, &[(1, Condition::Is(BLKGETSIZE64))]);
    let missing = moirai_sandbox::enter(&Wanted {
        uid: start.user,
        gid: start.user,
        limits: &[
            (Resource::Nofile, MAX_FILES),
            (Resource::As, start.memory_bytes),
            (Resource::Fsize, start.file_bytes),
            (Resource::Nproc, 0),
        ],
        no_files: true,
        filter: &filter,
    })?;
    for sentence in missing {
        eprintln!("moirai-image: {sentence}");
    }
    Ok(())
}

#[allow(unsafe_code, reason = "a signal's action belongs to the whole process")]
fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal runs no code of ours, and nobody else in this process wants it.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
