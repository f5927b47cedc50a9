//! The life of a tenant: what may follow what.
//!
//! Pure. A [`Life`] is the only thing that has a [`Phase`], and [`Life::enter`] the only way to
//! change it: to a phase that [`Life::turn`] has said, once, and only while the phase is still the
//! one in which that was said. The supervisor of the tenant carries out the [`Step`] between the
//! two, in one place (`happens`); only a tenant that never had a process has no supervisor, and
//! `release::not_begun` ends its life.

use moirai_api::Phase;

/// Where a tenant is in its life.
#[derive(Clone, Debug)]
pub(super) struct Life(Phase);

/// What an event leads to: something to do, and then a phase. Taken once: whoever cannot do what is
/// to be done drops it, and the phase stays.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    from: Phase,
    to: Phase,
    step: Step,
}

impl Turn {
    /// What is to be done before the phase begins.
    pub(super) fn step(&self) -> Step {
        self.step
    }

    /// Whether this phase begins with it.
    pub(super) fn begins(&self, phase: Phase) -> bool {
        self.to == phase && self.from != phase
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
        Turn { from: self.0, to, step }
    }

    /// The phase that follows begins. A turn out of a phase that is over changes nothing.
    pub(super) fn enter(&mut self, turn: Turn) {
        if self.0 == turn.from {
            self.0 = turn.to;
        }
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
    fn a_turn_out_of_a_phase_that_is_over_changes_nothing() {
        let mut life = Life::new();
        let (built, stop) = (life.turn(Event::Built), life.turn(Event::StopAsked));
        assert!(stop.begins(Phase::Stopping) && !stop.begins(Phase::Running));
        life.enter(stop);
        life.enter(built);
        assert_eq!(life.phase(), Phase::Stopping, "it does not run again");
        let late = life.turn(Event::Overdue);
        assert!(!late.begins(Phase::Stopping), "it stops already");
        let gone = life.turn(Event::Gone);
        life.enter(gone);
        life.enter(late);
        assert_eq!(life.phase(), Phase::Ended);
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
