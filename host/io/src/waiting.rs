//! What was taken off a ring and waits for its turn.

use moirai_scheduler::Moment;

/// A request that waits for the scheduler.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    pub(crate) unit: T,
    pub(crate) queue: u16,
    pub(crate) arrival: Moment,
}
