//! The balloon of a tenant: what the host wishes of it, and what the guest's driver answers.

use std::time::Duration;

use moirai_api::BalloonView;
use moirai_launch::{BalloonReport, FromHost, OwnDevice};

use super::Tenant;

/// How long a tenant process may take to say how full its balloon is.
const BALLOON_PATIENCE: Duration = Duration::from_millis(500);

/// The balloon of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Balloon {
    /// Memory that the guest is to give back.
    target_bytes: u64,
    /// Nobody has told the tenant process yet, or it is to be asked.
    unsaid: bool,
    /// What it has answered, and how often.
    report: BalloonReport,
    answers: u64,
}

impl Balloon {
    /// The message that the tenant process is to get now, if any.
    pub(crate) fn message(&mut self) -> Option<FromHost> {
        let bytes = Some(self.target_bytes);
        std::mem::take(&mut self.unsaid).then_some(FromHost::Balloon { bytes })
    }

    /// Notes an answer.
    pub(crate) fn answered(&mut self, report: BalloonReport) {
        self.report = report;
        self.answers += 1;
    }

    /// What is shown.
    pub(crate) fn view(&self) -> BalloonView {
        BalloonView {
            target_bytes: self.target_bytes,
            actual_bytes: self.report.actual_bytes,
            free_bytes: self.report.free_bytes,
            available_bytes: self.report.available_bytes,
        }
    }
}

impl Tenant {
    /// Whether the guest has a balloon.
    pub(crate) fn has_balloon(&self) -> bool {
        self.with(|live| live.spec.own_devices.contains(&OwnDevice::Balloon))
    }

    /// Wants the guest to keep no more than `bytes` of its memory, if it has a balloon.
    pub(crate) fn keep_memory(&self, bytes: u64) {
        self.with(|live| live.balloon.target_bytes = live.spec.memory.saturating_sub(bytes));
        self.ask_balloon();
    }

    /// Asks how full the balloon is and waits a moment for the answer.
    pub(crate) fn ask_balloon(&self) {
        if !self.has_balloon() {
            return;
        }
        let before = self.with(|live| {
            live.balloon.unsaid = true;
            live.balloon.answers
        });
        self.ring();
        self.wait_until(BALLOON_PATIENCE, |live| live.balloon.answers != before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_said_once_and_an_answer_is_shown() {
        let mut balloon = Balloon { target_bytes: 4096, unsaid: true, ..Balloon::default() };
        assert_eq!(balloon.message(), Some(FromHost::Balloon { bytes: Some(4096) }));
        assert_eq!(balloon.message(), None);
        balloon.answered(BalloonReport { actual_bytes: 8192, ..BalloonReport::default() });
        assert_eq!((balloon.view().target_bytes, balloon.view().actual_bytes), (4096, 8192));
    }
}
