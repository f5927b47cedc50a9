//! What makes a device a network card of its guest: its queues, and the packets that wait for their
//! turn.

use moirai_devices::net::tx::{Next, PacketError};
use moirai_devices::net::{Card, Role};
use moirai_devices::vhost::Vring;
use moirai_scheduler::{ClientId, Head, Moment, Span};

use crate::DeviceId;
use crate::backlog::Backlog;
use crate::budget::Budget;
use crate::link::Link;
use crate::neighbours::Recent;
use crate::waiting::Waiting;

/// A virtio-net device.
pub(crate) struct Net {
    /// Place of its link in the domain, and its number there.
    pub(crate) link: usize,
    pub(crate) client: ClientId,
    pub(crate) card: Card,
    pub(crate) waiting: Backlog,
    /// It sends from its own addresses only.
    pub(crate) guard: Option<Guard>,
    /// What receiving may take of the loop's time.
    pub(crate) budget: Budget,
}

/// What is remembered of a card that sends from its own addresses only.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    recent: Recent,
    /// When the log last said that it does not.
    said_at: Option<Moment>,
}

/// The log says so seldom that a card sends from others' addresses.
const QUIET: Span = Span::from_secs(10);

/// Whose packets are taken, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) id: DeviceId,
    pub(crate) queue: u16,
    pub(crate) now: Moment,
    pub(crate) tenant: &'a str,
}

impl Guard {
    /// A packet was dropped; the log hears of it if it was not the guest's to send.
    fn say(&mut self, why: PacketError, tenant: &str, now: Moment) {
        let Some(offence) = why.offence() else { return };
        if self.said_at.is_none_or(|said| now.since(said) >= QUIET) {
            self.said_at = Some(now);
            tracing::warn!(%tenant, "packets are dropped: {offence}; counted as spoofed");
        }
    }
}

impl Net {
    /// Takes a packet off a transmit queue, or answers a command; whether there may be more.
    /// `answered`: the driver is to be told about chains that went back at once.
    pub(crate) fn take<L>(
        &mut self,
        vring: &mut Vring,
        from: &Sender<'_>,
        link: Option<&mut Link<L>>,
        answered: &mut bool,
    ) -> Result<bool, String> {
        let &Sender { id, queue, now, tenant } = from;
        let role = self.card.role(queue);
        let Some((memory, ring)) = vring.parts() else { return Ok(false) };
        let Role::Transmit(pair) = role else {
            let served = role == Role::Control
                && self.card.serve_control(memory, ring).map_err(|e| e.to_string())?;
            *answered |= served;
            return Ok(served);
        };
        let Some(frontend) = self.card.transmit(pair) else { return Ok(false) };
        let next = match (&mut self.guard, link) {
            (Some(guard), Some(link)) => {
                let (neighbours, recent) = (&mut link.neighbours, &mut guard.recent);
                let owns = &mut |address| neighbours.may_claim(id, address, recent);
                frontend.next_bound_packet(memory, ring, owns)
            }
            _ => frontend.next_packet(memory, ring),
        };
        match next.map_err(|e| e.to_string())? {
            Next::Packet(unit) => {
                self.waiting.push_back(pair, Waiting { unit, queue, arrival: now });
            }
            Next::Dropped => {
                if let (Some(guard), Some(why)) = (&mut self.guard, frontend.last_drop()) {
                    guard.say(why, tenant, now);
                }
                vring.note_returned(None);
                *answered = true;
            }
            Next::Empty => return Ok(false),
        }
        Ok(true)
    }

    /// What the scheduler may know of the first waiting packet.
    pub(crate) fn head<L>(&self, link: &Link<L>) -> Option<Head> {
        self.waiting.front().map(|first| Head {
            cost: link.wire_time(&first.unit.packet),
            arrival: first.arrival,
            position: 0,
        })
    }

    /// Whether nothing of this queue is waiting.
    pub(crate) fn is_drained(&self, queue: u16) -> bool {
        self.card.in_flight(queue) == 0
    }
}
