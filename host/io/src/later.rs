//! What could not be done now and is to be tried again after a time.

use moirai_scheduler::{Moment, Span};

/// How soon something is tried again that nothing will tell when it can be done.
const RETRY: Span = Span::from_millis(1);

/// Things to try again.
#[derive(Debug)]
pub(crate) struct Later<T> {
    things: Vec<T>,
    at: Moment,
}

impl<T> Default for Later<T> {
    fn default() -> Self {
        Self { things: Vec::new(), at: Moment::ZERO }
    }
}

impl<T> Later<T> {
    /// One more.
    pub(crate) fn push(&mut self, thing: T, now: Moment) {
        if self.things.is_empty() {
            self.at = now.saturating_add(RETRY);
        }
        self.things.push(thing);
    }

    /// All of them, if it is time.
    pub(crate) fn due(&mut self, now: Moment) -> Vec<T> {
        if now < self.at { Vec::new() } else { self.take() }
    }

    /// All of them.
    pub(crate) fn take(&mut self) -> Vec<T> {
        std::mem::take(&mut self.things)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.things.iter()
    }

    /// When it is time, if there is anything.
    pub(crate) fn at(&self) -> Option<Moment> {
        (!self.things.is_empty()).then_some(self.at)
    }
}
