//! The system calls of a tenant process, by stage. Everything else kills it.
//!
//! Filters add up: a thread may do what all of its filters allow. No stage may open a file, make a
//! socket or a process, or map executable memory.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// What a thread is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Build the VM and start its threads.
    Build,
    /// Run a vCPU.
    Vcpu,
    /// Wait for events and end.
    Main,
    /// Serve the process's own devices.
    Own,
}

/// What every thread needs: memory for the allocator, locks, signals, its end, messages to stderr,
/// eventfds and sockets, and time where the vDSO does not know it.
const COMMON: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
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
const KVM_TYPE: (u64, u64) = (0xff00, 0xae00);
const PROT_EXEC: u64 = 4;

/// Installs the filter of a stage for the calling thread, and for those it makes from now on.
///
/// # Errors
/// The kernel has no seccomp, or refuses the filter.
pub fn install(stage: Stage) -> io::Result<()> {
    let program = compile(stage).map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}

fn compile(stage: Stage) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        COMMON.iter().map(|&call| (call, Vec::new())).collect();
    let no_code = argument(2, SeccompCmpOp::MaskedEq(PROT_EXEC), 0)?;
    rules.insert(libc::SYS_mmap, vec![rule(no_code.clone())?]);
    rules.insert(libc::SYS_mprotect, vec![rule(no_code)?]);
    // Debug builds of the standard library ask this of a descriptor before they close it.
    let is_open = argument(1, SeccompCmpOp::Eq, libc::F_GETFD as u64)?;
    rules.insert(libc::SYS_fcntl, vec![rule(is_open)?]);
    let ioctls = match stage {
        Stage::Build => {
            // Threads keep this filter: what they do later has to pass it, too.
            rules.extend(BUILD.iter().chain(OWN).map(|&call| (call, Vec::new())));
            vec![argument(1, SeccompCmpOp::MaskedEq(KVM_TYPE.0), KVM_TYPE.1)?]
        }
        Stage::Vcpu => {
            let registers = [KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS];
            let wires = [KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_IOEVENTFD];
            let requests = registers.into_iter().chain(wires);
            requests
                .map(|request| argument(1, SeccompCmpOp::Eq, request))
                .collect::<Result<_, _>>()?
        }
        Stage::Own => {
            rules.extend(OWN.iter().map(|&call| (call, Vec::new())));
            Vec::new()
        }
        Stage::Main => vec![argument(1, SeccompCmpOp::Eq, KVM_GET_IRQCHIP)?],
    };
    // An empty list of conditions would allow the call, whatever its arguments.
    if !ioctls.is_empty() {
        let ioctls = ioctls.into_iter().map(rule).collect::<Result<_, _>>()?;
        rules.insert(libc::SYS_ioctl, ioctls);
    }
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?
        .try_into()
}

fn argument(
    index: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
}

fn rule(condition: SeccompCondition) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![condition])
}
