//! The film on its way from the disk to the link: a window of chunks, read ahead in order.
//!
//! | state of a buffer | where it is | until |
//! | --- | --- | --- |
//! | *empty* | in `empties` | it is to be read into |
//! | *reading* | owned by the disk | the disk is done |
//! | *arrived* | in `window` | it was looked through, for which the next chunk must have arrived |
//! | *ready* | in `ready` | its packets were sent |
//! | *sending* | in `leaving` | the last packet that points into it has left; then it is empty |
//!
//! Film bytes are not copied, with one exception: packets that damage or longer packets have torn
//! apart are moved together inside their buffer, so that ready chunks hold packets of 188 bytes and
//! nothing else. A packet may straddle two chunks.

mod look;
mod terms;

pub use terms::{CHUNK_MAX, FilmError, Next, Note, Settings};

use crate::clock::{Astray, Clock};
use crate::damage::Damage;
use crate::framing::Framer;
use crate::pace::Timeline;
use crate::ts::PACKET_LEN;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Range;
use moirai_libos::memory::{Buffer, Payload};
use moirai_libos::request::{Completion, Refusal, RequestError, RequestId, SECTOR, Volume};

/// A chunk that cannot be read is tried again this often.
const RETRIES_MAX: u32 = 5;

/// Clock references are at most 100 ms apart; to interpolate between two of them, the window has to
/// reach from one to the next: this is enough for 40 Mbit/s.
const READ_AHEAD_MIN: usize = 512 << 10;

/// Payload of one RTP packet: the most that fits an Ethernet frame.
pub const PAYLOAD_LEN: u64 = 7 * PACKET_LEN;

enum State {
    Reading(RequestId),
    Arrived(Buffer),
    /// It cannot be read: the film ends here.
    Broken(RequestError),
}

/// A chunk that was asked for.
struct Slot {
    /// Where in the film, in bytes.
    offset: u64,
    len: usize,
    state: State,
}

/// A chunk that can be sent.
struct Ready {
    /// Where in the stream, in bytes of packets.
    start: u64,
    len: u64,
    buffer: Rc<Buffer>,
}

/// The film and everything that is read of it.
pub struct Film<V: Volume> {
    volume: V,
    settings: Settings,
    /// Bytes to read; known once the film's end was seen.
    len: Option<u64>,
    empties: Vec<Buffer>,
    window: VecDeque<Slot>,
    ready: VecDeque<Ready>,
    leaving: Vec<Rc<Buffer>>,
    /// Where the next read starts in the film.
    next_read: u64,
    /// Bytes of the stream that are ready or were sent, and those that were sent.
    stream_end: u64,
    sent_end: u64,
    /// Where in the stream the film ends: of the passes that are not sent yet, the oldest first.
    pass_ends: VecDeque<u64>,
    /// Where in the stream the pass starts that is looked through.
    pass_start: u64,
    passes: u64,
    /// A chunk cannot be read, so no more are.
    broken: bool,
    /// The last of `pass_ends` is the end; why, if it is not the film's.
    over: bool,
    failure: Option<FilmError<V::Fault>>,
    first_byte: u8,
    framer: Framer,
    /// Bytes at the start of the next chunk that belong to the last packet.
    tail: u64,
    runs: Vec<Range<usize>>,
    clock: Clock,
    timeline: Timeline,
    retries: u32,
    /// What was not told yet, and whether of the clock and of the program something was.
    notes: Vec<Note>,
    noted: (bool, bool),
    /// Requests that the disk answered with an error.
    pub read_errors: u64,
    /// Bytes that the disk delivered.
    pub bytes_read: u64,
}

impl<V: Volume> Film<V> {
    /// Prepares to read the film on `volume`.
    ///
    /// # Errors
    /// [`FilmError::Memory`], [`FilmError::TooLong`].
    pub fn new(volume: V, settings: Settings) -> Result<Self, FilmError<V::Fault>> {
        let capacity = volume.capacity();
        if let Some(bytes) = settings.bytes.filter(|&bytes| bytes > capacity) {
            return Err(FilmError::TooLong { bytes, capacity });
        }
        let chunk_len = usize::try_from(settings.chunk).unwrap_or(usize::MAX);
        // As many chunks wait to be sent as are being read, two more are leaving, and the last that
        // has arrived waits for the one behind it.
        let spans_references = READ_AHEAD_MIN.div_ceil(chunk_len);
        let buffers = (2 * usize::from(settings.reads) + 2).max(spans_references) + 1;
        let empties = (0..buffers).map(|_| Buffer::new(chunk_len)).collect::<Result<_, _>>()?;
        Ok(Self {
            volume,
            settings,
            len: None,
            empties,
            window: VecDeque::with_capacity(buffers),
            ready: VecDeque::with_capacity(buffers),
            leaving: Vec::with_capacity(buffers),
            next_read: 0,
            stream_end: 0,
            sent_end: 0,
            pass_ends: VecDeque::new(),
            pass_start: 0,
            passes: 0,
            broken: false,
            over: false,
            failure: None,
            first_byte: 0,
            framer: Framer::default(),
            tail: 0,
            runs: Vec::new(),
            clock: Clock::new(settings.program),
            timeline: Timeline::new(settings.rate_bps),
            retries: 0,
            notes: Vec::new(),
            noted: (false, false),
            read_errors: 0,
            bytes_read: 0,
        })
    }

    /// The volume, to wait for.
    pub fn volume(&mut self) -> &mut V {
        &mut self.volume
    }

    /// How often the film was sent as a whole.
    #[must_use]
    pub fn passes(&self) -> u64 {
        self.passes
    }

    /// What the film has lost, as far as it was read, in all passes.
    #[must_use]
    pub fn damage(&self) -> Damage {
        self.framer.damage()
    }

    /// How often the film's clock has jumped: as the film declared, and without a word.
    #[must_use]
    pub fn clock_jumps(&self) -> (u64, u64) {
        (self.timeline.declared_jumps, self.timeline.undeclared_jumps)
    }

    /// Where the film ends, as far as is known.
    fn limit(&self) -> u64 {
        self.known_limit().unwrap_or(self.volume.capacity())
    }

    /// The same if no padding can belong to it.
    fn known_limit(&self) -> Option<u64> {
        self.len.or(self.settings.bytes).or(self.volume.data_bytes())
    }

    /// Takes in what the volume has delivered and asks it for more.
    ///
    /// # Errors
    /// [`FilmError`]; nothing more comes then.
    pub fn poll(&mut self) -> Result<(), FilmError<V::Fault>> {
        while let Some(completion) = self.volume.poll().map_err(FilmError::Volume)? {
            self.complete(completion)?;
        }
        while self.look_through_next()? {}
        self.empty_leaving();
        self.read_ahead()?;
        self.volume.kick();
        Ok(())
    }

    /// The next packet; the same again until [`Film::advance`].
    ///
    /// # Errors
    /// What ended the film early, when all before it was sent.
    pub fn peek(&mut self) -> Result<Next, FilmError<V::Fault>> {
        while self.pass_ends.front() == Some(&self.sent_end) {
            if self.over && self.pass_ends.len() == 1 {
                return self.failure.take().map_or(Ok(Next::Finished), Err);
            }
            self.pass_ends.pop_front();
            self.passes += 1;
        }
        let Some((payload, _)) = self.payload() else { return Ok(Next::Wait) };
        // Nothing more can be read before this packet has left: no reference will come in time.
        let stuck =
            self.volume.in_flight() == 0 && self.empties.is_empty() && self.leaving.is_empty();
        // Behind a long hole is the next reference, or the end: what is in front of it does not
        // wait.
        let lost = self.framer.searched() > READ_AHEAD_MIN as u64;
        let due = self.timeline.due(self.sent_end, self.over || stuck || lost);
        if self.timeline.has_guessed() && !core::mem::replace(&mut self.noted.0, true) {
            let Settings { rate_bps, chunk, .. } = self.settings;
            let bytes = self.stream_end;
            let chunk = Some((4 * chunk).min(CHUNK_MAX)).filter(|&more| more > chunk);
            let why = self.timeline.no_rate();
            // What was looked through is the whole film, if a pass has ended.
            self.notes.push(match self.over || self.pass_start > 0 {
                true => Note::NoClock { why, rate_bps },
                false => Note::LateClock { why, bytes, rate_bps, chunk },
            });
        }
        Ok(due.map_or(Next::Wait, |due_ticks| Next::Packet { due_ticks, payload }))
    }

    /// The next thing that the operator should know and that was not given before.
    pub fn take_note(&mut self) -> Option<Note> {
        self.notes.pop()
    }

    fn note_program(&mut self) {
        let (Some(why), Some(wanted)) = (self.clock.astray(), self.settings.program) else {
            return;
        };
        if core::mem::replace(&mut self.noted.1, true) {
            return;
        }
        let named = self.clock.programs().to_vec();
        self.notes.push(match why {
            Astray::NoTable => Note::NoTable { wanted, named },
            Astray::NoClock => Note::NoProgramClock { wanted, named },
        });
    }

    /// Goes on to the packet after the one that [`Film::peek`] gave.
    pub fn advance(&mut self) {
        let Some((_, len)) = self.payload() else { return };
        self.sent_end += len;
        while let Some(chunk) = self.ready.front() {
            if chunk.start + chunk.len > self.sent_end {
                break;
            }
            self.leaving.extend(self.ready.pop_front().map(|chunk| chunk.buffer));
        }
    }

    /// The packets that are sent together next, from two chunks at most, and their length.
    fn payload(&self) -> Option<([Option<Payload>; 2], u64)> {
        let ends_at = self.pass_ends.front().copied();
        let wanted = ends_at.map_or(PAYLOAD_LEN, |end| PAYLOAD_LEN.min(end - self.sent_end));
        let mut chunks = self.ready.iter();
        let first = chunks.next()?;
        let skipped = self.sent_end.saturating_sub(first.start);
        let in_first = wanted.min(first.len - skipped);
        let second = chunks.next();
        let in_second = second.map_or(0, |chunk| chunk.len.min(wanted - in_first));
        let available = in_first + in_second;
        if available < wanted && second.is_none() {
            return None;
        }
        let len = available - available % PACKET_LEN;
        let in_second = len.saturating_sub(in_first);
        let pieces = [
            piece(first, skipped, len - in_second),
            second.and_then(|chunk| piece(chunk, 0, in_second)),
        ];
        (len > 0).then_some((pieces, len))
    }

    fn complete(&mut self, completion: Completion) -> Result<(), FilmError<V::Fault>> {
        let Completion { id, buffer, result } = completion;
        let Some(buffer) = buffer else { return Ok(()) };
        let slot = self
            .window
            .iter_mut()
            .find(|slot| matches!(slot.state, State::Reading(reading) if reading == id));
        // A read of what turned out to lie behind the film's end has no slot any more.
        let Some(slot) = slot else {
            self.empties.push(buffer);
            return Ok(());
        };
        if let Err(error) = result {
            self.read_errors += 1;
            self.retries += 1;
            if self.retries > RETRIES_MAX {
                slot.state = State::Broken(error);
                self.empties.push(buffer);
                self.broken = true;
                return Ok(());
            }
            let again = self.volume.read(slot.offset, buffer, slot.len);
            slot.state = State::Reading(again.map_err(|(refusal, _)| refusal)?);
            return Ok(());
        }
        self.retries = 0;
        self.bytes_read += slot.len as u64;
        slot.state = State::Arrived(buffer);
        Ok(())
    }

    fn empty_leaving(&mut self) {
        for buffer in core::mem::take(&mut self.leaving) {
            match Rc::try_unwrap(buffer) {
                Ok(buffer) => self.empties.push(buffer),
                Err(buffer) => self.leaving.push(buffer),
            }
        }
    }

    fn read_ahead(&mut self) -> Result<(), FilmError<V::Fault>> {
        let end = self.limit();
        while self.volume.in_flight() < self.settings.reads && !self.broken {
            if self.next_read >= end {
                if !self.settings.looped || self.len.is_none() {
                    return Ok(());
                }
                self.next_read = 0;
            }
            let offset = self.next_read;
            let Some(buffer) = self.empties.pop() else { return Ok(()) };
            let rest = (end - offset).next_multiple_of(SECTOR);
            let len = usize::try_from(rest.min(self.settings.chunk)).unwrap_or(0);
            let id = match self.volume.read(offset, buffer, len) {
                Ok(id) => id,
                Err((Refusal::Full, buffer)) => {
                    self.empties.push(buffer);
                    return Ok(());
                }
                Err((refusal, _)) => return Err(refusal.into()),
            };
            self.window.push_back(Slot { offset, len, state: State::Reading(id) });
            self.next_read += self.settings.chunk;
        }
        Ok(())
    }
}

fn piece(chunk: &Ready, start: u64, len: u64) -> Option<Payload> {
    let (start, len) = (usize::try_from(start).ok()?, usize::try_from(len).ok()?);
    (len > 0).then(|| Payload { buffer: Rc::clone(&chunk.buffer), start, len })
}

#[cfg(test)]
mod tests;
