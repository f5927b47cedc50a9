//! What a round knows of a vCPU's slice and did not see: sleeps too short to be told.

use moirai_scheduler::Span;

use super::accounts::Accounts;

/// A vCPU that slept for less than this counts as awake. The kernel adds a wait to the account only
/// when the wait is over, so a vCPU that the round itself has interrupted looks asleep for as long
/// as the round takes.
pub(crate) const DOZE: Span = Span::from_micros(50);

/// The slice under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slice {
    /// Slices that were released when it was looked at last.
    refills: u64,
    unseen: Span,
    blur: Span,
    naps: u64,
}

impl Slice {
    /// So many slices have been released; whether that is a new one, of which nothing is unsure.
    pub(super) fn begin(&mut self, refills: u64) -> bool {
        let new = refills != self.refills;
        if new {
            *self = Self { refills, ..Self::default() };
        }
        new
    }

    /// So many slices have been released, and there is nobody to whom a new one is promised.
    pub(super) fn pass_over(&mut self, refills: u64) {
        self.refills = refills;
    }

    /// Whether no slice has been released since it was looked at last.
    pub(crate) fn is_the_one(&self, refills: u64) -> bool {
        refills == self.refills
    }

    /// A sleep that was seen may have been longer, by so much.
    pub(super) fn blur(&mut self, by: Span) {
        self.blur = self.blur.saturating_add(by);
    }

    /// It slept unseen, so often.
    pub(super) fn note_naps(&mut self, naps: u64) {
        self.naps = self.naps.saturating_add(naps);
    }

    /// Whether it has slept unseen, as the kernel says.
    pub(super) fn has_naps(&self) -> bool {
        self.naps > 0
    }

    /// How long one that is awake has slept unseen since it woke, or waits.
    pub(crate) fn unseen(&self) -> Span {
        self.unseen
    }

    /// How much more of it may have been slept away than the policy knows.
    pub(crate) fn unsure(&self) -> Span {
        self.unseen.saturating_add(self.blur)
    }

    /// How long one that is owed time has slept although it counts as awake, if it is more than
    /// what rounds look like. It was looked at `elapsed` ago and sleeps now for `sleeps`.
    ///
    /// What it neither ran nor waited was sleep, or a wait that is not over: that is in the
    /// accounts when it runs the next time, and only what is left then is certain.
    pub(super) fn unseen_sleep(
        &mut self,
        seen: &Accounts,
        elapsed: Span,
        sleeps: Span,
    ) -> Option<Span> {
        let all = self.unseen + elapsed;
        if sleeps > Span::ZERO || seen.used().is_zero() {
            // A sleep that goes on is seen.
            self.unseen = all.saturating_sub(seen.busy().saturating_add(sleeps));
            return None;
        }
        // It may wait again since it ran: at most for what it did not run since the last round.
        let certain = self.unseen.saturating_sub(seen.waited());
        let nap = if certain > DOZE { certain.min(elapsed) } else { Span::ZERO };
        self.unseen = all.saturating_sub(seen.busy().saturating_add(nap));
        (nap > Span::ZERO).then_some(nap)
    }
}
