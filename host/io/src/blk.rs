//! What makes a device a disk of its guest: its volume, and the requests that wait for their turn.

use std::collections::VecDeque;

use moirai_devices::backend::Storage;
use moirai_devices::blk::{Frontend, Next, Op, SECTOR_BYTES, Taken};
use moirai_devices::vhost::Vring;
use moirai_scheduler::{Amount, ClientId, Head, Moment};

use crate::waiting::Waiting;

/// A virtio-blk device.
pub(crate) struct Blk<St> {
    /// Place of its disk in the domain, and its number there.
    pub(crate) disk: usize,
    pub(crate) client: ClientId,
    pub(crate) volume: St,
    /// Of a contract that was written as a rate: the bandwidth by which it became a slice, in bytes
    /// per second.
    pub(crate) bandwidth: Option<u64>,
    pub(crate) frontends: Vec<Frontend>,
    pub(crate) waiting: VecDeque<Waiting<Taken>>,
    /// Requests in the disk of which only some parts were begun, by their numbers there; the rest
    /// goes before what is waiting.
    pub(crate) unfinished: VecDeque<Waiting<u32>>,
    pub(crate) in_flight: usize,
}

impl<St: Storage> Blk<St> {
    /// Takes one request off a ring; whether there may be more. `answered`: the driver is to be
    /// told about chains that went back at once.
    pub(crate) fn take(
        &mut self,
        vring: &mut Vring,
        queue: u16,
        now: Moment,
        answered: &mut bool,
    ) -> Result<bool, String> {
        let Some(frontend) = self.frontends.get_mut(usize::from(queue)) else { return Ok(false) };
        let unfinished = vring.next_unfinished();
        let Some((memory, ring)) = vring.parts() else { return Ok(false) };
        let next = match unfinished {
            Some(head) => frontend.request_again(memory, ring, head),
            None => frontend.next_request(memory, ring),
        };
        match next.map_err(|error| error.to_string())? {
            Next::Request(unit) => {
                vring.note_taken(unit.chain.head());
                self.waiting.push_back(Waiting { unit, queue, arrival: now });
            }
            Next::Answered => {
                vring.note_returned(unfinished);
                *answered = true;
            }
            Next::Empty => return Ok(false),
        }
        Ok(true)
    }

    /// What the scheduler may know of the first unfinished or waiting request.
    ///
    /// Of those that wait, none while its image is busy: what would wait for the image must not
    /// take up the disk's depth, which is others', too. An unfinished request goes on all the same:
    /// it is in the image, and whoever wants that to itself waits for it.
    pub(crate) fn head(&self) -> Option<Head> {
        if let Some(first) = self.unfinished.front() {
            return Some(Head { cost: Amount::ZERO, arrival: first.arrival, position: 0 });
        }
        if self.volume.is_busy() {
            return None;
        }
        self.waiting.front().map(|first| {
            let position = match &first.unit.request.op {
                Op::Read { offset_bytes } | Op::Write { offset_bytes, .. } => {
                    offset_bytes / SECTOR_BYTES
                }
                Op::Flush | Op::Discard(_) | Op::WriteZeroes(_) => 0,
            };
            // What it may cost is for the disk's window to know, not for its policy.
            Head { cost: Amount::ZERO, arrival: first.arrival, position }
        })
    }

    /// Whether nothing of this queue is waiting or in flight.
    pub(crate) fn is_drained(&self, queue: u16) -> bool {
        let frontend = self.frontends.get(usize::from(queue));
        frontend.is_none_or(|frontend| frontend.in_flight() == 0)
    }

    /// Forgets what its last driver was not answered.
    pub(crate) fn abandon(&mut self) {
        self.frontends.iter_mut().for_each(Frontend::abandon);
    }
}
