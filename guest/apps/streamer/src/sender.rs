//! Sending what is due: one RTP packet after the other to every receiver, on the film's own clock.

use crate::{Film, film_error};
use moirai_media::film::Next;
use moirai_media::rtp::{Header, timestamp};
use moirai_media::ticks_to_nanos;
use moirai_sdk::{AppError, MS, Payload, Receivers, SendError, Stack};

/// Packets leave up to this much before they are due, so that one wake-up serves several.
pub(crate) const AHEAD_NS: u64 = 2 * MS;

/// What the sender has to wait for.
pub(crate) enum Pause {
    /// Until this time there is nothing to do.
    Until(u64),
    /// The disk has to deliver.
    Disk,
    /// The link has to take packets.
    Link,
    /// The film is over.
    Finished,
}

/// What was sent.
#[derive(Default)]
pub(crate) struct Counters {
    /// RTP packets, counted per receiver.
    pub(crate) packets: u64,
    /// RTP payload bytes, counted per receiver.
    pub(crate) bytes: u64,
    /// Packets that left more than `late_ns` after they were due.
    pub(crate) late: u64,
    /// Late ones for which the disk had not delivered in time.
    pub(crate) underruns: u64,
    /// Greatest lateness since the last report.
    pub(crate) worst_late_ns: u64,
    /// Greatest lateness at all.
    pub(crate) max_late_ns: u64,
}

/// A packet that some receivers have got.
struct Pending {
    due_ticks: u64,
    payload: [Option<Payload>; 2],
    /// Receivers whose turn is over.
    done: usize,
}

/// The sender.
pub(crate) struct Sender {
    /// Who is sent to; each has an `ssrc` of its own, counted from `ssrc_base`.
    pub(crate) receivers: Receivers,
    ssrc_base: u32,
    late_ns: u64,
    /// When the first packet is due; the film's clock counts from here.
    start_ns: u64,
    sequence: u16,
    timestamp_base: u32,
    pending: Option<Pending>,
    starved: bool,
    /// What was sent.
    pub(crate) counters: Counters,
}

impl Sender {
    /// Sends to `receivers`; `seed` makes the numbers of this session its own.
    pub(crate) fn new(receivers: Receivers, late_ns: u64, seed: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        Self {
            receivers,
            ssrc_base: u32::from_be_bytes([a, b, c, d]),
            late_ns,
            start_ns: 0,
            sequence: u16::from_be_bytes([e, f]),
            timestamp_base: u32::from_be_bytes([g, h, a, b]),
            pending: None,
            starved: false,
            counters: Counters::default(),
        }
    }

    /// Sets the time at which the film's clock starts.
    pub(crate) fn start_at(&mut self, time_ns: u64) {
        self.start_ns = time_ns;
    }

    /// Sends what is due at `now` and a little more.
    pub(crate) fn send_due(
        &mut self,
        film: &mut Film,
        network: &mut Stack,
        now: u64,
    ) -> Result<Pause, AppError> {
        loop {
            if self.pending.is_none() {
                match film.peek().map_err(film_error)? {
                    Next::Finished => return Ok(Pause::Finished),
                    Next::Wait => {
                        self.starved = true;
                        return Ok(Pause::Disk);
                    }
                    Next::Packet { due_ticks, payload } => {
                        let due_ns = self.start_ns.saturating_add(ticks_to_nanos(due_ticks));
                        if due_ns > now.saturating_add(AHEAD_NS) {
                            let until = now.max(due_ns.saturating_sub(2 * AHEAD_NS));
                            return Ok(Pause::Until(until.saturating_add(AHEAD_NS)));
                        }
                        self.note_lateness(due_ns, now);
                        self.pending = Some(Pending { due_ticks, payload, done: 0 });
                    }
                }
            }
            if !self.send_pending(network, now)? {
                return Ok(Pause::Link);
            }
            film.advance();
        }
    }

    /// Sends the pending packet to the receivers that lack it; false if the ring is full.
    fn send_pending(&mut self, network: &mut Stack, now: u64) -> Result<bool, AppError> {
        let Some(pending) = &mut self.pending else { return Ok(true) };
        let len: usize = pending.payload.iter().flatten().map(|piece| piece.len).sum();
        let count = self.receivers.addresses().count();
        while pending.done < count {
            // Another one is the first of each packet: a host answers only some of what it refuses,
            // and each of its ports should have its turn.
            let receiver = (usize::from(self.sequence) + pending.done) % count;
            let Some(address) = self.receivers.address(receiver) else { break };
            let number = u32::try_from(receiver).unwrap_or(0);
            let header = Header {
                sequence: self.sequence,
                timestamp: timestamp(self.timestamp_base, pending.due_ticks),
                ssrc: self.ssrc_base.wrapping_add(number),
            };
            let (port, payload) = (self.receivers.source_port(), pending.payload.clone());
            let result = network.send(port, address, &header.to_bytes(), payload);
            self.receivers.tried(receiver, result, now);
            match result {
                Ok(()) => {
                    self.counters.packets += 1;
                    self.counters.bytes += len as u64;
                }
                Err(SendError::Unresolved | SendError::NoRoute) => {}
                Err(SendError::Full) => return Ok(false),
                Err(error @ SendError::TooLarge) => {
                    return Err(AppError::Other(alloc::format!("{error}")));
                }
            }
            pending.done += 1;
        }
        self.pending = None;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(true)
    }

    fn note_lateness(&mut self, due_ns: u64, now: u64) {
        let late_by = now.saturating_sub(due_ns);
        self.counters.worst_late_ns = self.counters.worst_late_ns.max(late_by);
        self.counters.max_late_ns = self.counters.max_late_ns.max(late_by);
        if late_by > self.late_ns {
            self.counters.late += 1;
            self.counters.underruns += u64::from(self.starved);
        }
        self.starved = false;
    }
}
