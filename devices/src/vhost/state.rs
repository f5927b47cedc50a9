//! The states of a queue, and the only place that says how one follows another.
//!
//! ```text
//!            Kicked            Ready(true)             Ready(false)
//!  Stopped ----------> Started -----------> Running <--------------> Paused
//!     ^                   |                    |       Ready(true)     |
//!     |                   +--------- Failed ---+---- Failed -----------+--> Broken
//!     |  Stopped                                                              |
//!     +----------- Draining <------------ Drained (from all but Stopped) -----+
//! ```

/// What a queue does. It is in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VringState {
    /// Its peer may change everything about it, and begins with a kick descriptor.
    Stopped,
    /// It has a kick descriptor, and has not run since. Its used index was not read yet.
    Started,
    /// It gives out chains.
    Running,
    /// It has run, and its peer has disabled it.
    Paused,
    /// Its driver has broken a rule. It stands still until it is stopped.
    Broken,
    /// It gives out nothing more; its peer waits until what was taken is returned.
    Draining,
}

/// What happens to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VringChange {
    /// Its peer has sent a kick descriptor.
    Kicked,
    /// Whether all is there that it needs to run: memory, addresses, its peer's leave.
    Ready(bool),
    /// Its owner finds it broken.
    Failed,
    /// Its peer wants everything back.
    Drained,
    /// Everything was returned, or its session is over.
    Stopped,
}

impl VringState {
    /// The state after a change. A change that means nothing now leaves it as it is.
    #[must_use]
    pub(super) fn after(self, change: VringChange) -> Self {
        match (self, change) {
            (_, VringChange::Stopped) => Self::Stopped,
            (Self::Stopped, VringChange::Kicked) => Self::Started,
            (Self::Started | Self::Paused, VringChange::Ready(true)) => Self::Running,
            (Self::Running, VringChange::Ready(false)) => Self::Paused,
            (Self::Started | Self::Running | Self::Paused, VringChange::Failed) => Self::Broken,
            (Self::Started | Self::Running | Self::Paused | Self::Broken, VringChange::Drained) => {
                Self::Draining
            }
            (state, _) => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::VringChange::{Drained, Failed, Kicked, Ready};
    use super::VringState::{Broken, Draining, Paused, Running, Started, Stopped};
    use super::{VringChange, VringState};

    const STATES: [VringState; 6] = [Stopped, Started, Running, Paused, Broken, Draining];
    const CHANGES: [VringChange; 6] =
        [Kicked, Ready(true), Ready(false), Failed, Drained, VringChange::Stopped];

    /// The table, written once more by its results: one row per state, one column per change.
    #[test]
    fn every_change_in_every_state_leads_where_the_picture_says() {
        let expected = [
            [Started, Stopped, Stopped, Stopped, Stopped, Stopped],
            [Started, Running, Started, Broken, Draining, Stopped],
            [Running, Running, Paused, Broken, Draining, Stopped],
            [Paused, Running, Paused, Broken, Draining, Stopped],
            [Broken, Broken, Broken, Broken, Draining, Stopped],
            [Draining, Draining, Draining, Draining, Draining, Stopped],
        ];
        for (state, row) in STATES.into_iter().zip(expected) {
            for (change, to) in CHANGES.into_iter().zip(row) {
                assert_eq!(state.after(change), to, "{state:?}, {change:?}");
            }
        }
    }
}
