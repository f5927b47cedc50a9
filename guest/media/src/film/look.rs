//! Looking through the chunks of a film that have arrived, in order: which bytes of them are
//! packets, what the clock shows, where the film ends.

use super::{Film, FilmError, Ready, Slot, State};
use crate::clock::Clock;
use crate::framing::View;
use crate::pace::Timeline;
use crate::ts::{NoPacket, PACKET_LEN, Packet};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Range;
use moirai_libos::request::Volume;

impl<V: Volume> Film<V> {
    /// Looks through the next chunk if it is there, and the one behind it; false if not.
    pub(super) fn look_through_next(&mut self) -> Result<bool, FilmError<V::Fault>> {
        let limit = self.limit();
        let Some(Slot { offset, len, state }) = self.window.front() else { return Ok(false) };
        let (offset, end) = (*offset, offset + *len as u64);
        match state {
            State::Reading(_) => return Ok(false),
            State::Broken(error) => {
                self.failure = Some(FilmError::Unreadable { offset, error: *error });
                return self.end_pass(None).map(|()| false);
            }
            State::Arrived(_) => {}
        }
        let is_last = end >= limit;
        let mut cut_short = false;
        let (ahead, ahead_end) = match self.window.get(1) {
            _ if is_last => (&[][..], limit),
            None | Some(Slot { state: State::Reading(_), .. }) => return Ok(false),
            Some(Slot { state: State::Broken(_), .. }) => {
                cut_short = true;
                (&[][..], end)
            }
            Some(Slot { offset, len, state: State::Arrived(buffer) }) => {
                let usable = usable(*offset, *len, limit);
                (buffer.get(..usable).unwrap_or_default(), *offset + usable as u64)
            }
        };
        let Some(Slot { len, state: State::Arrived(buffer), .. }) = self.window.front() else {
            return Ok(false);
        };
        let chunk = buffer.get(..usable(offset, *len, limit)).unwrap_or_default();
        if offset == 0 {
            self.first_byte = chunk.first().copied().unwrap_or(0);
        }
        let ends = ahead_end >= limit || cut_short;
        let padding =
            if self.known_limit().is_none() && !cut_short { self.volume.block() } else { 0 };
        let view = View { start: offset, chunk, ahead, ends, padding };
        self.runs.clear();
        let chunk_end = offset + chunk.len() as u64;
        keep(&mut self.runs, 0, self.tail.min(chunk.len() as u64));
        self.tail = 0;
        let mut kept = self.runs.first().map_or(0, |run| run.len() as u64);
        while let Some(at) = self.framer.next_packet(&view) {
            let position = self.stream_end + kept;
            let inside = (at + PACKET_LEN).min(chunk_end);
            self.tail = at + PACKET_LEN - inside;
            keep(&mut self.runs, at - offset, inside - offset);
            kept += inside - at;
            if !read_clock(&mut self.clock, &mut self.timeline, &view, at, position) {
                self.framer.note_broken(at);
            }
        }
        if is_last {
            self.framer.finish(&view);
            self.clock.finish();
        }
        self.hand_over(kept);
        if self.clock.is_missing() {
            let (wanted, named) =
                (self.settings.program.unwrap_or(0), self.clock.programs().to_vec());
            return Err(FilmError::NoProgram { wanted, named });
        }
        self.note_program();
        if is_last {
            self.end_pass(Some(limit))?;
        }
        Ok(true)
    }

    /// Makes the chunk that was looked through ready to be sent, or empty if nothing in it is kept.
    fn hand_over(&mut self, kept: u64) {
        let Some(Slot { state: State::Arrived(mut buffer), .. }) = self.window.pop_front() else {
            return;
        };
        if kept == 0 {
            self.empties.push(buffer);
            return;
        }
        let mut to = 0;
        for run in self.runs.drain(..) {
            let len = run.len();
            if run.start != to {
                buffer.copy_within(run, to);
            }
            to += len;
        }
        let start = self.stream_end;
        self.stream_end += kept;
        self.ready.push_back(Ready { start, len: kept, buffer: Rc::new(buffer) });
    }

    /// The end of the film was seen for the first time, or once more. `None`: it can not be read
    /// on.
    fn end_pass(&mut self, limit: Option<u64>) -> Result<(), FilmError<V::Fault>> {
        let empty = self.stream_end == self.pass_start;
        self.over |= limit.is_none() || !self.settings.looped;
        if empty && (limit.is_some() || self.stream_end == 0) {
            let (position, byte) = (0, self.first_byte);
            let none = FilmError::NoPacket(NoPacket { position, byte });
            return Err(self.failure.take().unwrap_or(none));
        }
        if limit.is_some() {
            self.len = Some(self.framer.packets_end());
        }
        self.pass_ends.push_back(self.stream_end);
        self.pass_start = self.stream_end;
        self.framer.restart();
        self.clock.restart();
        self.timeline.jump();
        self.tail = 0;
        let mut next_pass = false;
        for slot in core::mem::take(&mut self.window) {
            // What was read behind the end is dropped, what was read of the next pass is kept.
            next_pass |= slot.offset == 0;
            match slot.state {
                _ if next_pass => self.window.push_back(slot),
                State::Arrived(buffer) => self.empties.push(buffer),
                State::Reading(_) | State::Broken(_) => {}
            }
        }
        Ok(())
    }
}

/// Bytes of a chunk that belong to the film.
fn usable(offset: u64, len: usize, limit: u64) -> usize {
    usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX).min(len)
}

/// Adds bytes of a chunk to those that are kept.
fn keep(runs: &mut Vec<Range<usize>>, from: u64, to: u64) {
    let (from, to) =
        (usize::try_from(from).unwrap_or(usize::MAX), usize::try_from(to).unwrap_or(usize::MAX));
    match runs.last_mut() {
        Some(run) if run.end == from => run.end = to,
        _ if from < to => runs.push(from..to),
        _ => {}
    }
}

/// Looks at the packet at `at` of the film, which is at `position` of the stream; false if it is
/// damaged.
fn read_clock(
    clock: &mut Clock,
    line: &mut Timeline,
    view: &View<'_>,
    at: u64,
    position: u64,
) -> bool {
    let mut joined = [0; 188];
    let Some(packet) = view.packet(at, &mut joined).and_then(Packet::parse) else { return true };
    if packet.broken {
        return false;
    }
    if let Some(reading) = clock.read(&packet) {
        line.add(position, reading.pcr, reading.declared);
    }
    true
}
