//! What makes a device a network card of its guest: its queues, and the packets that wait for their
//! turn.

use moirai_devices::net::tx::Next;
use moirai_devices::net::{Card, Role};
use moirai_devices::vhost::Vring;
use moirai_scheduler::{ClientId, Head, Moment};

use crate::backlog::Backlog;
use crate::link::Link;
use crate::waiting::Waiting;

/// A virtio-net device.
pub(crate) struct Net {
    /// Place of its link in the domain, and its number there.
    pub(crate) link: usize,
    pub(crate) client: ClientId,
    pub(crate) card: Card,
    pub(crate) waiting: Backlog,
}

impl Net {
    /// Takes a packet off a transmit queue, or answers a command; whether there may be more.
    /// `answered`: the driver is to be told about chains that went back at once.
    pub(crate) fn take(
        &mut self,
        vring: &mut Vring,
        queue: u16,
        now: Moment,
        answered: &mut bool,
    ) -> Result<bool, String> {
        let role = self.card.role(queue);
        let Some((memory, ring)) = vring.parts() else { return Ok(false) };
        let Role::Transmit(pair) = role else {
            let served = role == Role::Control
                && self.card.serve_control(memory, ring).map_err(|e| e.to_string())?;
            *answered |= served;
            return Ok(served);
        };
        let Some(frontend) = self.card.transmit(pair) else { return Ok(false) };
        match frontend.next_packet(memory, ring).map_err(|e| e.to_string())? {
            Next::Packet(unit) => {
                self.waiting.push_back(pair, Waiting { unit, queue, arrival: now });
            }
            Next::Dropped => {
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
            cost: link.wire_time(&first.unit),
            arrival: first.arrival,
            position: 0,
        })
    }

    /// Whether nothing of this queue is waiting.
    pub(crate) fn is_drained(&self, queue: u16) -> bool {
        self.card.in_flight(queue) == 0
    }
}
