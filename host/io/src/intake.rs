//! What receiving may take of the loop's time, of one link.
//!
//! Packets come in as fast as somebody else sends them, and bringing them to guests takes time of
//! the thread that sends the guests' packets. So receiving has budgets, one within the other:
//!
//! 1. All links of a domain together may take [`RECEIVE`] thousandths of its time, each an equal
//!    part. What a link may not read stays in its TAP; the kernel drops what is too much.
//! 2. Packets for all, and packets for nobody, may take the link's `broadcast`. What is over it is
//!    dropped when its destination is known, before it is copied to anybody.
//! 3. Packets for one guest may take that guest's `receive`; the same.
//!
//! A link that has used up its part is not listened to until [`QUANTUM`] of it is there again, and
//! one of which packets were dropped and no more are waiting not for a [`PAUSE`]: a loop that is
//! woken for each packet would spend on waking what it saves on reading.
//!
//! And a turn reads no more than [`TURN`] of time; nor more than [`FEW`] packets while somebody
//! could send. A wire that is picked late by that loses nothing: the pacer lets it catch up on
//! more.

use moirai_scheduler::{Amount, Moment, Span};

use crate::budget::{Budget, WHOLE};
use crate::pacer::CATCH_UP;

/// Thousandths of the loop's time that receiving may take, all links together.
pub(crate) const RECEIVE: u64 = 250;
/// Thousandths for broadcasts, and for one guest, where nobody has said it.
const BROADCAST: u32 = 20;
/// Time that receiving on one link takes of one turn, at most; and one packet more.
pub(crate) const TURN: Span = Span::from_micros(200);
/// Packets that are received although somebody could send.
pub(crate) const FEW: usize = 4;
/// How long packets gather in the TAP while more come in than may.
const PAUSE: Span = Span::from_micros(300);
/// So much of a budget may be used at once.
const BURST: Span = Span::from_millis(2);
/// A link is read again when it has so much of its budget.
const QUANTUM: Span = Span::from_micros(200);
const _: () = assert!(
    TURN.as_nanos() * 2 <= CATCH_UP.as_nanos(),
    "a turn of receiving may cost no time of the wire"
);

/// The budgets of one link.
#[derive(Debug)]
pub(crate) struct Intake {
    all: Budget,
    /// It has used up its part and is not listened to.
    closed: bool,
    /// It is not read before.
    paused_until: Moment,
    broadcast: Budget,
    /// Packets for all or for nobody that were over the budget.
    pub(crate) policed: u64,
    /// Time that those took which were received, and that it took to find out what is over.
    pub(crate) cpu: Amount,
}

impl Default for Intake {
    fn default() -> Self {
        Self::new(1, BROADCAST)
    }
}

impl Intake {
    /// Of one of so many links. `broadcast`: thousandths of the loop's time.
    pub(crate) fn new(links: usize, broadcast: u32) -> Self {
        let links = u64::try_from(links.max(1)).unwrap_or(WHOLE);
        Self {
            all: Budget::new(RECEIVE / links, BURST),
            closed: false,
            paused_until: Moment::ZERO,
            broadcast: Budget::new(broadcast.into(), BURST),
            policed: 0,
            cpu: Amount::ZERO,
        }
    }

    /// The budget of a port that may take so many thousandths.
    pub(crate) fn of_port(receive: u32) -> Budget {
        Budget::new(receive.into(), BURST)
    }

    /// Whether the link may be read.
    pub(crate) fn is_open(&mut self, now: Moment) -> bool {
        self.closed = now < self.opens_at(now);
        !self.closed
    }

    /// Whether it could not when that was asked last.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// When it may be read.
    pub(crate) fn opens_at(&self, now: Moment) -> Moment {
        let wanted = if self.closed { QUANTUM } else { Span::ZERO };
        self.all.refilled_at(wanted).max(self.paused_until).max(now)
    }

    /// All was read, and some of it was too much: the next packets are looked at together.
    pub(crate) fn pause(&mut self, now: Moment) {
        self.paused_until = now.saturating_add(PAUSE);
        self.closed = true;
    }

    /// Whether a packet for all or for nobody may be received; it is counted if not.
    pub(crate) fn takes_broadcast(&mut self, now: Moment) -> bool {
        let takes = self.broadcast.has(now);
        self.policed += u64::from(!takes);
        takes
    }

    /// A packet took so long, whoever it was for.
    pub(crate) fn pay(&mut self, now: Moment, cost: Span) {
        self.all.pay(now, cost);
    }

    /// It was for all or for nobody. One that was dropped is paid by the link alone.
    pub(crate) fn pay_broadcast(&mut self, now: Moment, cost: Span, received: bool) {
        let charged = if received { self.broadcast.pay(now, cost) } else { cost };
        self.cpu = self.cpu.saturating_add(charged.service());
    }
}
