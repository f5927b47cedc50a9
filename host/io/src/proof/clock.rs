//! The virtual clock. Every look at it takes a moment, so that time passes in a turn, too.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use moirai_scheduler::{Amount, Moment, Span};

use super::chance::Chance;
use crate::seams::{Errand, Machine};

/// A millisecond.
pub(super) const MS: u64 = 1_000_000;
/// A second.
pub(super) const SECOND: u64 = 1_000 * MS;

/// What a look at the clock takes.
const LOOK: Span = Span::from_nanos(40);
/// How long an errand takes to be run.
const ERRAND: Span = Span::from_micros(300);

/// A machine that stands still unless somebody lets time pass.
#[derive(Clone, Default)]
pub(super) struct Virtual(Rc<Inner>);

#[derive(Default)]
struct Inner {
    now: Cell<Moment>,
    looks: Cell<u64>,
    errands: RefCell<Vec<(Moment, Errand)>>,
    /// How many errands of a thousand find nobody who runs them.
    drops: Cell<u64>,
    chance: RefCell<Option<Chance>>,
    dropped: Cell<u64>,
}

impl Virtual {
    /// The time, without looking.
    pub(super) fn time(&self) -> Moment {
        self.0.now.get()
    }

    pub(super) fn pass(&self, time: Span) {
        self.0.now.set(self.time() + time);
    }

    pub(super) fn pass_until(&self, time: Moment) {
        self.0.now.set(self.time().max(time));
    }

    /// How often somebody has looked since the last call.
    pub(super) fn take_looks(&self) -> u64 {
        self.0.looks.take()
    }

    /// From now on so many errands of a thousand are dropped undone, as without threads.
    pub(super) fn drop_errands(&self, permille: u64, chance: Chance) {
        self.0.drops.set(permille);
        *self.0.chance.borrow_mut() = Some(chance);
    }

    /// How many errands were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.get()
    }

    fn drops_this_one(&self) -> bool {
        let mut chance = self.0.chance.borrow_mut();
        chance.as_mut().is_some_and(|chance| chance.permille(self.0.drops.get()))
    }

    /// Runs the errands whose time has come; all, if `all`.
    pub(super) fn run_errands(&self, all: bool) {
        let now = self.time();
        let waiting = self.0.errands.take();
        let (due, later): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(at, _)| all || *at <= now);
        self.0.errands.borrow_mut().extend(later);
        due.into_iter().for_each(|(_, errand)| errand());
    }

    /// When the next errand is due.
    pub(super) fn next_errand(&self) -> Option<Moment> {
        self.0.errands.borrow().iter().map(|(at, _)| *at).min()
    }
}

impl Machine for Virtual {
    fn now(&self) -> Moment {
        self.0.looks.set(self.0.looks.get() + 1);
        self.pass(LOOK);
        self.time()
    }

    fn cpu_time(&self) -> Amount {
        Amount::ZERO
    }

    fn send_off(&self, _name: &'static str, errand: Errand) {
        if self.drops_this_one() {
            self.0.dropped.set(self.dropped() + 1);
            return drop(errand);
        }
        self.0.errands.borrow_mut().push((self.time() + ERRAND, errand));
    }

    fn with_workers_below(&self, submit: &mut dyn FnMut()) {
        submit();
    }
}
