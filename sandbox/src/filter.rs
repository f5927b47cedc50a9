//! Which system calls a thread may make. Everything else ends its process, unless the filter says
//! otherwise ([`Filter::signals`]).
//!
//! Filters add up: a thread may do what all of its filters allow, and the threads that it makes
//! begin with its filters.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter, sock_filter,
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

/// What the low 32 bits of an argument have to be, for a call to be in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// This.
    Is(u64),
    /// Anything else.
    IsNot(u64),
    /// The second, under the mask that comes first.
    Masked(u64, u64),
}

/// What becomes of a call that a filter does not allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Refusal {
    /// Its process ends.
    #[default]
    End,
    /// It is not made, and its thread gets SIGSYS.
    Signal,
    /// It is not made, and fails with this error number.
    Error(u32),
}

impl From<Refusal> for SeccompAction {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::End => Self::KillProcess,
            Refusal::Signal => Self::Trap,
            Refusal::Error(number) => Self::Errno(number),
        }
    }
}

/// Which system calls are allowed.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A call with no conditions is in the list with any arguments.
    rules: BTreeMap<i64, Vec<(u8, Condition)>>,
    refusal: Refusal,
    /// The list is of what is refused.
    refuses: bool,
}

/// A filter as the kernel takes it.
#[derive(Clone, Debug)]
pub struct Program(BpfProgram);

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

    /// Everything but these calls. They are not made; their thread gets SIGSYS.
    #[must_use]
    pub fn all_but(calls: &[libc::c_long]) -> Self {
        Self { refuses: true, ..Self::default() }.signals().forbid(calls)
    }

    /// Everything but these calls. They are not made and fail with this error number.
    #[must_use]
    pub fn failing(error: i32, calls: &[libc::c_long]) -> Self {
        let refusal = Refusal::Error(error.unsigned_abs());
        Self { refuses: true, refusal, ..Self::default() }.forbid(calls)
    }

    /// A call that is not allowed ends nothing: it is not made, and its thread gets SIGSYS, which
    /// ends the process only if nobody handles it.
    #[must_use]
    pub fn signals(mut self) -> Self {
        self.refusal = Refusal::Signal;
        self
    }

    /// Adds calls to the list, with any arguments.
    #[must_use]
    pub fn allow(mut self, calls: &[libc::c_long]) -> Self {
        self.rules.extend(calls.iter().map(|&call| (call, Vec::new())));
        self
    }

    /// Adds a call if one of the conditions holds, each of the argument of that number (from 0).
    /// Without conditions the call is not added.
    #[must_use]
    pub fn allow_if(mut self, call: libc::c_long, conditions: &[(u8, Condition)]) -> Self {
        // An empty list would allow the call, whatever its arguments.
        if !conditions.is_empty() {
            self.rules.insert(call, conditions.to_vec());
        }
        self
    }

    /// The same for a filter that says what is refused ([`Filter::all_but`]).
    #[must_use]
    pub fn forbid(self, calls: &[libc::c_long]) -> Self {
        self.allow(calls)
    }

    /// The same for a filter that says what is refused ([`Filter::all_but`]).
    #[must_use]
    pub fn forbid_if(self, call: libc::c_long, conditions: &[(u8, Condition)]) -> Self {
        self.allow_if(call, conditions)
    }

    /// Installs the filter for the calling thread, and for those that it makes from now on.
    ///
    /// # Errors
    /// The kernel has no seccomp, or refuses the filter.
    pub fn install(&self) -> io::Result<()> {
        self.program()?.install()
    }

    /// The filter as the kernel takes it, for who installs it often.
    ///
    /// # Errors
    /// The filter is too long.
    pub fn program(&self) -> io::Result<Program> {
        self.compile().map(Program).map_err(io::Error::other)
    }

    fn compile(&self) -> Result<BpfProgram, BackendError> {
        let rule = |&(index, condition): &(u8, Condition)| {
            let (operator, value) = match condition {
                Condition::Is(value) => (SeccompCmpOp::Eq, value),
                Condition::IsNot(value) => (SeccompCmpOp::Ne, value),
                Condition::Masked(mask, value) => (SeccompCmpOp::MaskedEq(mask), value),
            };
            let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?;
            SeccompRule::new(vec![condition])
        };
        let rules = self.rules.iter().map(|(&call, conditions)| {
            Ok((call, conditions.iter().map(rule).collect::<Result<_, BackendError>>()?))
        });
        let rules = rules.collect::<Result<_, BackendError>>()?;
        let (refused, allowed) = (self.refusal.into(), SeccompAction::Allow);
        let (otherwise, listed) =
            if self.refuses { (allowed, refused) } else { (refused, allowed) };
        let filter = SeccompFilter::new(rules, otherwise, listed, TargetArch::x86_64)?;
        let program: BpfProgram = filter.try_into()?;
        Ok(if self.refuses {
            no_second_numbers().into_iter().chain(program).collect()
        } else {
            program
        })
    }
}

impl Program {
    /// Installs the filter for the calling thread, and for those that it makes from now on.
    ///
    /// # Errors
    /// The kernel has no seccomp, or refuses the filter.
    pub fn install(&self) -> io::Result<()> {
        apply_filter(&self.0).map_err(io::Error::other)
    }
}

/// Kernels with the x32 ABI know every call by a second number, with this bit. A list of what is
/// refused does not have those.
const X32_BIT: u32 = 0x4000_0000;

/// Refuses all calls by their second numbers.
fn no_second_numbers() -> [sock_filter; 3] {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    [
        // The number stands first in what a filter sees (`struct seccomp_data`).
        sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: X32_BIT },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: u32::from(SeccompAction::Trap) },
    ]
}
