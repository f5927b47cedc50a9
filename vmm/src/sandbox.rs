//! What a tenant process may still do once it is shut in: before it reads a byte that a tenant
//! wrote (its image, its registers, its backends' answers).
//!
//! The crate `moirai-sandbox` has the layers. The filter of system calls is tightened twice:
//! [`enter`] leaves what building a VM needs, [`confine_vcpu`], [`confine_main`] and
//! [`confine_own`] what running it needs. No stage may open a file, make a socket or a process, or
//! map executable memory.

use std::io;

use moirai_launch::Sandbox;
pub use moirai_sandbox::SandboxError;
use moirai_sandbox::{Condition, Filter, Resource, Wanted};

/// Enough for devices with their queues, and for the streams of a vsock device.
const MAX_FILES: u64 = 1536;
/// More than there are threads.
const MAX_HEAPS: i32 = 64;

/// What every thread needs beside what all programs do: eventfds and sockets.
const EVERY: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
];

/// What only building a VM needs: its memory, its image, its eventfds and its threads with their
/// own filters.
const BUILD: &[libc::c_long] = &[
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_pread64,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_rt_sigaction,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_prctl,
    libc::SYS_seccomp,
];

/// What serving devices needs: to wait for many descriptors, and to give guest memory back.
const OWN: &[libc::c_long] = &[libc::SYS_epoll_pwait, libc::SYS_epoll_ctl, libc::SYS_fallocate];

const KVM_RUN: u64 = 0xae80;
const KVM_GET_REGS: u64 = 0x8090_ae81;
const KVM_GET_SREGS: u64 = 0x8138_ae83;
/// What a PCI function needs when its driver moves its BAR or sets its interrupts up. They reach no
/// further than this VM and the eventfds of this process.
const KVM_SET_GSI_ROUTING: u64 = 0x4008_ae6a;
const KVM_IRQFD: u64 = 0x4020_ae76;
const KVM_IOEVENTFD: u64 = 0x4040_ae79;
/// Whether the guest listens to its power button.
const KVM_GET_IRQCHIP: u64 = 0xc208_ae62;
/// All requests of KVM have this type in their second byte.
const KVM_TYPE: Condition = Condition::Masked(0xff00, 0xae00);

/// Enters the sandbox with the calling thread, which has to be the only one. Returns what could
/// not be had, a sentence each.
///
/// # Errors
/// What was asked for explicitly or needs no privilege, and still failed.
pub fn enter(wanted: &Sandbox) -> Result<Vec<String>, SandboxError> {
    moirai_sandbox::allow_heaps(MAX_HEAPS);
    if !wanted.enabled {
        return Ok(vec!["the sandbox is switched off in the launch".to_owned()]);
    }
    // Threads keep this filter: what they do later has to pass it, too.
    let filter = ioctls(every().allow(BUILD).allow(OWN), &[KVM_TYPE]);
    moirai_sandbox::enter(&Wanted {
        uid: wanted.uid,
        gid: wanted.gid,
        limits: &[(Resource::Nofile, MAX_FILES)],
        no_files: false,
        filter: &filter,
    })
}

/// Leaves a vCPU thread what running a guest needs. Builds on [`enter`].
///
/// # Errors
/// The kernel refuses the filter.
pub fn confine_vcpu() -> io::Result<()> {
    let registers = [KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS].map(Condition::Is);
    let wires = [KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_IOEVENTFD].map(Condition::Is);
    ioctls(every(), &[registers, wires].concat()).install()
}

/// Leaves the main thread what its loop needs: to wait for events and to end. Builds on [`enter`].
///
/// # Errors
/// The kernel refuses the filter.
pub fn confine_main() -> io::Result<()> {
    ioctls(every(), &[Condition::Is(KVM_GET_IRQCHIP)]).install()
}

/// Leaves the thread of the process's own devices what serving them needs. Builds on [`enter`].
///
/// # Errors
/// The kernel refuses the filter.
pub fn confine_own() -> io::Result<()> {
    every().allow(OWN).install()
}

fn every() -> Filter {
    Filter::common().allow(EVERY)
}

fn ioctls(filter: Filter, requests: &[Condition]) -> Filter {
    let conditions: Vec<_> = requests.iter().map(|&request| (1, request)).collect();
    filter.allow_if(libc::SYS_ioctl, &conditions)
}
