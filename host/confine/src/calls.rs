//! Lists of system calls, by what they are for.

use moirai_sandbox::{Condition, Filter};

/// What no part of the host service and no tenant process uses: other processes' memory, the
/// kernel's code and clock, keys, files by their numbers, new ways to mount.
const NOBODY: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_personality,
    libc::SYS_uselib,
    libc::SYS_chroot,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_fanotify_init,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_vmsplice,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
];

/// What only the start needs, and the thread that spawns tenant processes.
const START: &[libc::c_long] = &[
    libc::SYS_mount,
    libc::SYS_pivot_root,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
];

/// What makes processes or threads, or runs something. While glibc does so, it blocks all signals:
/// a SIGSYS would end the process. So these calls are refused without one, by filters of their own.
const SPAWN: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_clone,
    libc::SYS_clone3,
];

/// What the threads that carry out requests and supervise tenants do not need beyond that: they
/// signal by pidfd, and their rings, classes and mounts are made elsewhere.
const HANDS: &[libc::c_long] = &[
    libc::SYS_umount2,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_enter,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_setpriority,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
];

/// What every thread may do beyond [`Filter::common`]: wait, say who it is, read what it has.
const EVERYBODY: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_getpid,
    libc::SYS_getrusage,
    // The allocator asks how many cores there are.
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
];

/// Makes threads, which then enter roles of their own; a thread is told from a process below.
const THREADS: &[libc::c_long] = &[
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_sched_setaffinity,
];

const SOCKETS: &[libc::c_long] = &[
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_fcntl,
];

/// What is to be known of an open file.
const LOOKS: &[libc::c_long] = &[
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_pread64,
];

const RING: &[libc::c_long] = &[
    libc::SYS_io_uring_enter,
    // Notifications (`devices/vhost/eventfd.rs`).
    libc::SYS_io_submit,
    libc::SYS_io_getevents,
    libc::SYS_preadv2,
    libc::SYS_sched_setscheduler,
    // What a descriptor of a peer is.
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    // How the worker of an image answers.
    libc::SYS_eventfd2,
    // The log of a peer's requests in flight.
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
];

const IMAGE: &[libc::c_long] = &[
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    // Its process, if it has one.
    libc::SYS_pidfd_send_signal,
    libc::SYS_waitid,
];

const SERVER: &[libc::c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_ctl,
    libc::SYS_accept4,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
];

const CLONE_THREAD: u64 = libc::CLONE_THREAD as u64;

/// What every thread of the process is forbidden.
pub(crate) fn process() -> Filter {
    Filter::all_but(NOBODY)
}

/// After the start: nothing is run and no name space made or entered.
pub(crate) fn supervisor() -> Filter {
    Filter::all_but(&[NOBODY, START].concat())
}

/// Requests and tenants: no network either.
pub(crate) fn hand() -> Filter {
    let local = (0, Condition::IsNot(libc::AF_UNIX.unsigned_abs().into()));
    supervisor().forbid(HANDS).forbid_if(libc::SYS_socket, &[local])
}

/// Makes nothing and runs nothing.
pub(crate) fn alone() -> Filter {
    Filter::failing(libc::EPERM, SPAWN)
}

/// Makes threads and no processes, and runs nothing.
pub(crate) fn threads_only() -> Filter {
    let rest: Vec<_> = SPAWN
        .iter()
        .copied()
        .filter(|&it| it != libc::SYS_clone && it != libc::SYS_clone3)
        .collect();
    let process = (0, Condition::Masked(CLONE_THREAD, 0));
    Filter::failing(libc::EPERM, &rest).forbid_if(libc::SYS_clone, &[process])
}

/// What `clone3` is asked is not to be seen by a filter: without it, glibc asks `clone`.
pub(crate) fn no_clone3() -> Filter {
    Filter::failing(libc::ENOSYS, &[libc::SYS_clone3])
}

/// Locks, memory, time, and what is open.
pub(crate) fn common() -> Filter {
    // What makes processes is refused by filters of its own.
    Filter::common().signals().allow(EVERYBODY).allow(SPAWN)
}

pub(crate) fn dispatcher() -> Filter {
    common()
        .allow(LOOKS)
        .allow(&[libc::SYS_sched_setscheduler, libc::SYS_sched_setaffinity, libc::SYS_setpriority])
        .allow_if(libc::SYS_openat, &[only_reads()])
        .allow_if(libc::SYS_tgkill, &[(2, Condition::Is(gate_signal()))])
}

pub(crate) fn io() -> Filter {
    common()
        .allow(THREADS)
        .allow(SOCKETS)
        .allow(LOOKS)
        .allow(RING)
        // Faults in a peer's memory are handled (`devices/memory/watch.rs`).
        .allow_if(libc::SYS_rt_sigaction, &[(0, Condition::Is(libc::SIGBUS.unsigned_abs().into()))])
        .allow_if(libc::SYS_ioctl, &[(1, Condition::Is(libc::FIONBIO))])
}

pub(crate) fn memory() -> Filter {
    common().allow(LOOKS)
}

pub(crate) fn image() -> Filter {
    common().allow(LOOKS).allow(SOCKETS).allow(IMAGE)
}

pub(crate) fn api() -> Filter {
    common()
        .allow(SOCKETS)
        .allow(SERVER)
        .allow_if(libc::SYS_ioctl, &[(1, Condition::Is(libc::FIONBIO))])
}

pub(crate) fn vsock() -> Filter {
    common()
        .allow(SOCKETS)
        .allow(&[libc::SYS_accept4, libc::SYS_connect])
        .allow_if(libc::SYS_socket, &[(0, Condition::Is(libc::AF_UNIX.unsigned_abs().into()))])
}

pub(crate) fn export() -> Filter {
    common()
        .allow(SOCKETS)
        .allow(&[libc::SYS_accept4])
        .allow_if(libc::SYS_ioctl, &[(1, Condition::Is(libc::FIONBIO))])
}

pub(crate) fn probe() -> Filter {
    common().allow(&[libc::SYS_pread64])
}

pub(crate) fn watchdog() -> Filter {
    common().allow(LOOKS).allow_if(libc::SYS_openat, &[only_reads()])
}

/// The flags of an `openat` that can change nothing.
fn only_reads() -> (u8, Condition) {
    let changes = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    (2, Condition::Masked(changes.unsigned_abs().into(), 0))
}

fn gate_signal() -> u64 {
    libc::SIGRTMIN().unsigned_abs().into()
}
