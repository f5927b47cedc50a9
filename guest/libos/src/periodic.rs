//! Periodic tasks: when the jobs of one are released, and how late they were.
//!
//! Releases lie on an absolute clock ([`crate::clock::machine`]), so that tasks in several machines
//! on one host keep the phases that they were given. All times in nanoseconds.

/// A task whose `k`-th job is released at `phase + k * period` and due `deadline` later.
#[derive(Clone, Copy, Debug)]
pub struct Periodic {
    /// Time between two releases; not zero.
    pub period: u64,
    /// First release after the clock's zero.
    pub phase: u64,
    /// Time from a release to when the job is due.
    pub deadline: u64,
}

/// What the jobs of a task were like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// Jobs that ended.
    pub jobs: u64,
    /// Those of them that ended after they were due.
    pub late: u64,
    /// Longest time from a release to the end of its job.
    pub worst: u64,
    /// Longest time from a release to the start of its job.
    pub start_worst: u64,
}

impl Periodic {
    /// The first release after `now`.
    #[must_use]
    pub fn release_after(&self, now: u64) -> u64 {
        let period = self.period.max(1);
        match now.checked_sub(self.phase) {
            Some(since) => now.saturating_add(period - since % period),
            None => self.phase,
        }
    }

    /// The release after `release`. It may have passed: its job is then late, and not left out.
    #[must_use]
    pub fn next(&self, release: u64) -> u64 {
        release.saturating_add(self.period.max(1))
    }

    /// Notes a job that was released at `release` and ran from `start` to `end`.
    pub fn note(&self, lateness: &mut Lateness, release: u64, start: u64, end: u64) {
        let took = end.saturating_sub(release);
        lateness.jobs += 1;
        lateness.late += u64::from(took > self.deadline);
        lateness.worst = lateness.worst.max(took);
        lateness.start_worst = lateness.start_worst.max(start.saturating_sub(release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: Periodic = Periodic { period: 20, phase: 5, deadline: 8 };

    #[test]
    fn releases_lie_on_the_grid_of_the_phase_whenever_the_task_starts() {
        assert_eq!([0, 4, 5, 24, 25].map(|now| TASK.release_after(now)), [5, 5, 25, 25, 45]);
        assert_eq!(TASK.next(25), 45);
        assert_eq!(TASK.release_after(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_job_is_late_if_it_ends_after_it_was_due() {
        let mut seen = Lateness::default();
        for (release, start, end) in [(25, 25, 33), (45, 46, 54), (65, 65, 70)] {
            TASK.note(&mut seen, release, start, end);
        }
        assert_eq!(seen, Lateness { jobs: 3, late: 1, worst: 9, start_worst: 1 });
    }
}
