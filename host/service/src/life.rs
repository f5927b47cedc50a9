//! The life of a tenant: what may follow what.
//!
//! Pure. A [`Life`] is the only thing that has a [`Phase`], and [`Life::enter`] the only way to
//! change it: to a phase that [`Life::turn`] has said. The supervisor of the tenant carries out the
//! [`Step`] between the two.

use moirai_api::Phase;

/// Where a tenant is in its life.
#[derive(Clone, Debug)]
pub(super) struct Life(Phase);

/// What an event leads to: something to do, and then a phase.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    to: Phase,
    /// What is to be done before the phase begins.
    pub(super) step: Step,
}

impl Turn {
    /// The phase that follows.
    pub(super) fn leads_to(self) -> Phase {
        self.to
    }
}

impl Life {
    /// One that begins.
    pub(super) fn new() -> Self {
        Self(Phase::Starting)
    }

    pub(super) fn phase(&self) -> Phase {
        self.0
    }

    /// What `event` leads to now.
    pub(super) fn turn(&self, event: Event) -> Turn {
        let (to, step) = next(self.0, event);
        Turn { to, step }
    }

    /// The phase that follows begins.
    pub(super) fn enter(&mut self, turn: Turn) {
        self.0 = turn.to;
    }
}

/// What happens to a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The process says that its VM is built.
    Built,
    /// The process says that its VM cannot be built, or has ended: it will end too.
    Finished,
    /// The process says what it must not say in this phase, or cannot be understood.
    Nonsense,
    /// Somebody wants it to stop.
    StopAsked,
    /// The phase lasts longer than it may.
    Overdue,
    /// The process has ended.
    Gone,
    /// The process has ended because the guest reset its machine, which is to start again.
    GoneToRestart,
}

/// What the supervisor must do next.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Wait,
    /// Hand the vCPUs to their dispatcher.
    Dispatch,
    /// Ask the process to end.
    AskToStop,
    /// End the process.
    Kill,
    /// Give back everything the tenant held.
    GiveBack,
    /// Give back what the process held, and start another one under the same contracts.
    StartAgain,
}

/// The phase after `event`, and what to do.
fn next(phase: Phase, event: Event) -> (Phase, Step) {
    match (phase, event) {
        (Phase::Ended, _) => (Phase::Ended, Step::Wait),
        (_, Event::Gone) => (Phase::Ended, Step::GiveBack),
        (_, Event::GoneToRestart) => (Phase::Starting, Step::StartAgain),
        (Phase::Starting, Event::Built) => (Phase::Running, Step::Dispatch),
        (_, Event::Finished) => (Phase::Stopping, Step::Wait),
        (Phase::Running, Event::StopAsked) => (Phase::Stopping, Step::AskToStop),
        (Phase::Stopping, Event::StopAsked) | (Phase::Running, Event::Overdue) => {
            (phase, Step::Wait)
        }
        (Phase::Starting, Event::StopAsked | Event::Overdue)
        | (Phase::Stopping, Event::Overdue | Event::Built)
        | (Phase::Running, Event::Built)
        | (_, Event::Nonsense) => (Phase::Stopping, Step::Kill),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 4] = [Phase::Starting, Phase::Running, Phase::Stopping, Phase::Ended];
    const EVENTS: [Event; 7] = [
        Event::Built,
        Event::Finished,
        Event::Nonsense,
        Event::StopAsked,
        Event::Overdue,
        Event::Gone,
        Event::GoneToRestart,
    ];

    #[test]
    fn a_life_goes_forward_only_and_only_a_restart_begins_it_anew() {
        for phase in PHASES {
            for event in EVENTS {
                let (after, step) = next(phase, event);
                let forward = after as u8 >= phase as u8;
                assert!(forward || step == Step::StartAgain, "{phase:?} {event:?}");
                assert!(phase != Phase::Ended || after == Phase::Ended);
            }
        }
    }

    #[test]
    fn everything_is_given_back_exactly_when_the_process_is_gone() {
        for phase in PHASES {
            for event in EVENTS {
                let gives_back = next(phase, event).1 == Step::GiveBack;
                assert_eq!(gives_back, phase != Phase::Ended && event == Event::Gone);
            }
        }
    }

    #[test]
    fn a_tenant_that_does_not_stop_when_asked_is_killed() {
        let (phase, step) = next(Phase::Running, Event::StopAsked);
        assert_eq!((phase, step), (Phase::Stopping, Step::AskToStop));
        assert_eq!(next(phase, Event::Overdue), (Phase::Stopping, Step::Kill));
    }

    #[test]
    fn a_tenant_that_says_twice_that_it_is_built_is_killed() {
        let (phase, step) = next(Phase::Starting, Event::Built);
        assert_eq!(step, Step::Dispatch);
        assert_eq!(next(phase, Event::Built), (Phase::Stopping, Step::Kill));
    }
}
