//! Whether a vCPU sleeps, as its policy knows it, and what is known of a sleeper that waits.

use moirai_scheduler::{Moment, Span};

use super::Vcpu;

/// Awake or asleep, as the policy knows it. Who stands at its gate counts as asleep: nobody sees
/// what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    Awake,
    Asleep {
        /// It was asleep then, and maybe ever since.
        at: Moment,
        wait: Option<Wait>,
    },
}

/// How it is known that one which counts as asleep waits for the core. The policy is told when it
/// has run and its accounts tell exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It was seen to wait at `seen`, and woke after `since`.
    Seen { since: Moment, seen: Moment },
    /// Its gate is opened for the slice that was due at `due`. The period under way began at
    /// `period`.
    Gate { due: Moment, period: Moment },
}

impl Wait {
    /// The earliest time at which it can have begun.
    pub(crate) fn since(self) -> Moment {
        match self {
            Self::Seen { since, .. } => since,
            Self::Gate { period, .. } => period,
        }
    }

    /// From this time on it waits for certain.
    pub(crate) fn seen(self) -> Moment {
        match self {
            Self::Seen { seen, .. } => seen,
            Self::Gate { period, .. } => period,
        }
    }

    /// What the policy is told of it if it has to be told before the vCPU has run.
    pub(crate) fn slice_since(self) -> Moment {
        match self {
            Self::Seen { seen, .. } => seen,
            Self::Gate { due, .. } => due,
        }
    }
}

impl Sleep {
    /// Asleep at `at`.
    pub(super) fn since(at: Moment) -> Self {
        Self::Asleep { at, wait: None }
    }

    /// The policy is told that it fell asleep at `at`. What is known of a wait stays known.
    pub(super) fn fall(&mut self, at: Moment) {
        *self = Self::Asleep { at, wait: self.wait() };
    }

    fn wait(self) -> Option<Wait> {
        match self {
            Self::Awake => None,
            Self::Asleep { wait, .. } => wait,
        }
    }
}

impl<T> Vcpu<T> {
    /// Whether it counts as asleep.
    pub(crate) fn is_asleep(&self) -> bool {
        self.slept_at().is_some()
    }

    /// One that counts as asleep was so at this time, and maybe ever since.
    pub(crate) fn slept_at(&self) -> Option<Moment> {
        match self.sleep {
            Sleep::Awake => None,
            Sleep::Asleep { at, .. } => Some(at),
        }
    }

    /// One that counts as asleep is known to wait.
    pub(crate) fn wait(&self) -> Option<Wait> {
        self.sleep.wait()
    }

    /// The policy is told that it woke.
    pub(crate) fn wake(&mut self) {
        self.sleep = Sleep::Awake;
    }

    /// The policy is told that it fell asleep at `at`. What it does not get of its slice from then
    /// on is its own doing.
    pub(crate) fn fall_asleep(&mut self, at: Moment) {
        self.sleep.fall(at);
        self.sleeps.see();
        self.judge.promise(None);
    }

    /// One that counts as asleep was asleep at `time`, too.
    pub(crate) fn sleeps_on(&mut self, time: Moment) {
        if let Sleep::Asleep { at, .. } = &mut self.sleep {
            *at = time;
        }
    }

    /// One that counts as asleep was asleep no earlier than at `time`.
    pub(crate) fn slept_until(&mut self, time: Moment) {
        if let Sleep::Asleep { at, .. } = &mut self.sleep {
            *at = time.max(*at);
        }
    }

    /// One that counts as asleep waits.
    pub(crate) fn note_wait(&mut self, how: Wait) {
        if let Sleep::Asleep { wait, .. } = &mut self.sleep {
            *wait = Some(how);
        }
    }

    /// One that counts as asleep has run; how it had waited before, if that is known.
    pub(crate) fn end_wait(&mut self) -> Option<Wait> {
        match &mut self.sleep {
            Sleep::Awake => None,
            Sleep::Asleep { wait, .. } => wait.take(),
        }
    }

    /// A sleep that was seen may have been longer, by so much.
    pub(crate) fn blur(&mut self, by: Span) {
        self.slice.blur(by);
    }

    /// How long it has slept although it counts as awake: see [`super::Slice::unseen_sleep`].
    pub(crate) fn unseen_sleep(&mut self, elapsed: Span, sleeps: Span) -> Option<Span> {
        if self.is_asleep() || self.rank().is_none() {
            return None;
        }
        self.slice.unseen_sleep(&self.accounts, elapsed, sleeps)
    }
}
