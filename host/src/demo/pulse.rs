//! What the tenant `pulse` says of its jobs: read from its console, where it reports sums since its
//! start.

use serde::{Deserialize, Serialize};

use super::DemoError;
use super::servant::Servant;

/// Name of the tenant.
pub(super) const PULSE: &str = "pulse";

/// Jobs of a periodic task: each is released by a timer and measures its own start and end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulseReport {
    /// Jobs done in the run.
    pub jobs: u64,
    /// Jobs that ended after their deadline.
    pub late: u64,
    /// The longest time from the release of a job to its end, microseconds, since the start.
    pub worst_us: u64,
    /// The longest time from the release of a job to its start, microseconds, since the start.
    pub start_worst_us: u64,
}

/// What it has said last; nothing done if it has said nothing yet.
pub(super) fn look(servant: &Servant) -> Result<PulseReport, DemoError> {
    Ok(last(&servant.console(PULSE)?))
}

/// The last report on a console. Lines that are none are the guest's other words.
fn last(console: &str) -> PulseReport {
    let mut reports = console.lines().filter_map(|line| serde_json::from_str(line.trim()).ok());
    reports.next_back().unwrap_or_default()
}

impl PulseReport {
    /// What was done since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            jobs: self.jobs.saturating_sub(before.jobs),
            late: self.late.saturating_sub(before.late),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_counts_and_other_words_do_not() {
        let console = "hello\n{\"event\":\"ready\",\"rounds\":5}\n\
                       {\"event\":\"report\",\"jobs\":10,\"late\":1,\"worst_us\":700,\"start_worst_us\":90}\n\
                       {\"event\":\"report\",\"jobs\":35,\"late\":1,\"worst_us\":710,\"start_worst_us\":95}\n\
                       {\"event\":\"rep";
        let after = last(console);
        assert_eq!((after.jobs, after.worst_us), (35, 710));
        let run = after.since(PulseReport { jobs: 10, late: 1, ..after });
        assert_eq!((run.jobs, run.late, run.start_worst_us), (25, 0, 95));
        assert_eq!(last(""), PulseReport::default());
    }
}
