//! Which system calls a thread may make. Everything else kills its process.
//!
//! Filters add up: a thread may do what all of its filters allow, and the threads that it makes
//! begin with its filters.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

/// What every thread needs: memory for the allocator, locks, signals, its end, messages to stderr,
/// and time where the vDSO does not know it.
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
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
];

const PROT_EXEC: u64 = 4;

/// What the low 32 bits of an argument have to be, for a call to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// This.
    Is(u64),
    /// The second, under the mask that comes first.
    Masked(u64, u64),
}

/// Which system calls are allowed.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A call with no rule is allowed with any arguments.
    rules: BTreeMap<i64, Vec<(u8, Condition)>>,
}

impl Filter {
    /// What every thread needs. Memory that it maps cannot be executed.
    #[must_use]
    pub fn common() -> Self {
        let no_code = (2, Condition::Masked(PROT_EXEC, 0));
        Self::default()
            .allow(COMMON)
            .allow_if(libc::SYS_mmap, &[no_code])
            .allow_if(libc::SYS_mprotect, &[no_code])
            // Debug builds of the standard library ask this of a descriptor before they close it.
            .allow_if(libc::SYS_fcntl, &[(1, Condition::Is(libc::F_GETFD as u64))])
    }

    /// Allows calls with any arguments.
    #[must_use]
    pub fn allow(mut self, calls: &[libc::c_long]) -> Self {
        self.rules.extend(calls.iter().map(|&call| (call, Vec::new())));
        self
    }

    /// Allows a call if one of the conditions holds, each of the argument of that number (from 0).
    /// Without conditions the call stays forbidden.
    #[must_use]
    pub fn allow_if(mut self, call: libc::c_long, conditions: &[(u8, Condition)]) -> Self {
        // An empty list would allow the call, whatever its arguments.
        if !conditions.is_empty() {
            self.rules.insert(call, conditions.to_vec());
        }
        self
    }

    /// Installs the filter for the calling thread, and for those that it makes from now on.
    ///
    /// # Errors
    /// The kernel has no seccomp, or refuses the filter.
    pub fn install(&self) -> io::Result<()> {
        let program = self.compile().map_err(io::Error::other)?;
        apply_filter(&program).map_err(io::Error::other)
    }

    fn compile(&self) -> Result<BpfProgram, BackendError> {
        let rule = |&(index, condition): &(u8, Condition)| {
            let (operator, value) = match condition {
                Condition::Is(value) => (SeccompCmpOp::Eq, value),
                Condition::Masked(mask, value) => (SeccompCmpOp::MaskedEq(mask), value),
            };
            let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?;
            SeccompRule::new(vec![condition])
        };
        let rules = self.rules.iter().map(|(&call, conditions)| {
            Ok((call, conditions.iter().map(rule).collect::<Result<_, BackendError>>()?))
        });
        let rules = rules.collect::<Result<_, BackendError>>()?;
        let (kill, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
        SeccompFilter::new(rules, kill, allow, TargetArch::x86_64)?.try_into()
    }
}
