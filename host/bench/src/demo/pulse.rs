//! What the tenant `pulse` says of its jobs: read from its console, where it reports sums since its
//! start.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::servant::Servant;
use super::{DemoError, interrupted};
use moirai_runtime::Stall;
use moirai_scheduler::{Moment, Span};

const LOOK: Duration = Duration::from_millis(100);
/// Name of the tenant.
pub(super) const PULSE: &str = "pulse";

/// Jobs of a periodic task: each is released by a timer and measures its own start and end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulseReport {
    /// Milliseconds from its start to this report; in the report of a run, the time that it covers.
    pub t_ms: u64,
    /// Jobs done in the run.
    pub jobs: u64,
    /// Jobs that ended after their deadline.
    pub late: u64,
    /// Jobs that should have been done and were not.
    #[serde(default)]
    pub undone: u64,
    /// The longest time from the release of a job to its end, microseconds, since the start.
    pub worst_us: u64,
    /// The longest time from the release of a job to its start, microseconds, since the start.
    pub start_worst_us: u64,
}

/// What it has said last; nothing done if it has said nothing yet.
pub(super) fn look(servant: &Servant) -> Result<PulseReport, DemoError> {
    Ok(last(&servant.console(PULSE)?))
}

/// Waits for its first report: from then on it does its jobs.
pub(super) fn wait_until_it_reports(servant: &Servant, limit: Duration) -> Result<(), DemoError> {
    let begin = moirai_runtime::instant();
    loop {
        let console = servant.console(PULSE)?;
        if last(&console) != PulseReport::default() {
            return Ok(());
        }
        if interrupted() {
            return Err(DemoError::Interrupted);
        }
        if moirai_runtime::since(begin) > limit {
            return Err(DemoError::Silent {
                tenant: PULSE,
                seconds: limit.as_secs(),
                said: console,
            });
        }
        std::thread::sleep(LOOK);
    }
}

/// The last report on a console. Lines that are none are the guest's other words.
fn last(console: &str) -> PulseReport {
    let mut reports = console.lines().filter_map(|line| serde_json::from_str(line.trim()).ok());
    reports.next_back().unwrap_or_default()
}

/// How often it has a job, and how often it reports (`scene/pulse.toml`), nanoseconds.
const PERIOD: u64 = 20_000_000;
/// What it has done is known as of its last report. It writes two bytes of one beside each job on a
/// slow machine; after so long without a new one, no job counts as done.
const SILENT: u64 = 4_000_000_000;
/// By how much its contract's period is shorter than its own: by so much it catches up in each
/// period after a stall has delayed one of its wake-ups (`scene/pulse.toml`).
const CATCHES_UP: Span = Span::from_millis(1);

/// How many jobs the stalls that ended after `begin` can have made late: the one that each has
/// delayed, and those after it until the contract is in phase again.
pub(super) fn excused(stalls: &[Stall], begin: Moment) -> u64 {
    let stalls = stalls.iter().filter(|stall| stall.end > begin);
    stalls.map(|stall| 1 + stall.end.since(stall.begin) / CATCHES_UP).sum()
}

impl PulseReport {
    /// What was done since `before`, so many nanoseconds ago.
    pub(super) fn since(self, before: Self, elapsed: u64) -> Self {
        let jobs = self.jobs.saturating_sub(before.jobs);
        let reported = self.t_ms.saturating_sub(before.t_ms).saturating_mul(1_000_000);
        let silent = elapsed.saturating_sub(reported).saturating_sub(SILENT);
        let asked = (reported.saturating_add(silent) / PERIOD).saturating_sub(1);
        Self {
            jobs,
            late: self.late.saturating_sub(before.late),
            undone: asked.saturating_sub(jobs),
            t_ms: self.t_ms.saturating_sub(before.t_ms),
            ..self
        }
    }

    /// Whether no more of its jobs were late or not done than the stalls can have caused.
    pub(super) fn is_on_time(self, excused: u64) -> bool {
        self.jobs > 0 && self.late + self.undone <= excused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_excuses_what_it_can_have_delayed_and_one_before_the_run_nothing() {
        let at = |times: u64| Moment::ZERO + times * CATCHES_UP;
        let stall = |begin, end| Stall { begin: at(begin), end: at(end) };
        assert_eq!(excused(&[], Moment::ZERO), 0);
        assert_eq!(excused(&[stall(10, 17)], at(5)), 8);
        assert_eq!(excused(&[stall(1, 5), stall(10, 11)], at(5)), 2);
    }

    #[test]
    fn the_last_report_counts_and_other_words_do_not() {
        let console = "hello\n{\"event\":\"ready\",\"rounds\":5}\n\
                       {\"event\":\"report\",\"t_ms\":300,\"jobs\":10,\"late\":1,\"worst_us\":700,\
                       \"start_worst_us\":90}\n\
                       {\"event\":\"report\",\"t_ms\":820,\"jobs\":35,\"late\":1,\"worst_us\":710,\
                       \"start_worst_us\":95}\n\
                       {\"event\":\"rep";
        let after = last(console);
        assert_eq!((after.jobs, after.worst_us), (35, 710));
        let before = PulseReport { t_ms: 300, jobs: 10, late: 1, ..after };
        let run = after.since(before, 1_000_000_000);
        assert_eq!((run.jobs, run.late, run.start_worst_us), (25, 0, 95));
        assert!(run.undone == 0 && run.is_on_time(0));
        // Jobs that are not done are not on time, although none that was done was late.
        let slow = after.since(PulseReport { jobs: 15, ..before }, 1_000_000_000);
        assert_eq!((slow.jobs, slow.late, slow.undone), (20, 0, 5));
        assert!(!slow.is_on_time(4) && slow.is_on_time(5));
        // Nor are those of a time of which it says nothing.
        let silent = after.since(before, 520_000_000 + SILENT + 2_000_000_000);
        assert_eq!((silent.jobs, silent.undone), (25, 100));
        assert_eq!(last(""), PulseReport::default());
    }
}
