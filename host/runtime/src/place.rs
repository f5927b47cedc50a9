//! Where a thread runs: its core, its class, its priority.
#![allow(unsafe_code, reason = "scheduling classes and cores of threads by system call")]

use std::io;

/// Pins thread `tid` (0: the calling thread) to one core.
///
/// # Errors
/// There is no such core or thread, or the caller may not.
pub fn pin(tid: i32, core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such core"));
    }
    // SAFETY: an all-zero cpu_set_t is the empty set; CPU_SET stays in bounds by the check above;
    // the kernel reads `size_of` bytes of a live value.
    check(unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(tid, size_of::<libc::cpu_set_t>(), &raw const set)
    })
}

/// Sets class and priority of thread `tid` (0: the calling thread). Children do not inherit it.
///
/// # Errors
/// There is no such thread, or the caller may not.
pub fn set_scheduler(tid: i32, policy: i32, priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel reads one live sched_param.
    check(unsafe {
        libc::sched_setscheduler(tid, policy | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    })
}

/// Sets class and priority of the calling thread, and of the threads that it, or the kernel for it,
/// makes from now on.
///
/// # Errors
/// The caller may not.
pub fn set_scheduler_inherited(policy: i32, priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel reads one live sched_param.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
