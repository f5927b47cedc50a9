//! The film on its way from the disk to the link: a window of chunks, read ahead in order.
//!
//! A buffer is *empty* (in `empties`), *reading* (owned by the disk), *full* (in the window, looked
//! through for clock references) or *sending* (in `leaving`, until the last packet that points into
//! it has left), and then empty again. Film bytes are never copied.

use crate::pace::Timeline;
use crate::packets::{PAYLOAD_LEN, Piece, pieces};
use crate::ts::{NoPacket, Scanner};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use moirai_libos::memory::{Buffer, OutOfMemory, Payload};
use moirai_libos::request::{Completion, Refusal, RequestError, SECTOR, Token, Volume};
use thiserror::Error;

/// A chunk that cannot be read is tried again this often.
const RETRIES_MAX: u32 = 5;

/// Clock references are at most 100 ms apart; to interpolate between two of them, the window has to
/// reach from one to the next: this is enough for 40 Mbit/s.
const READ_AHEAD_MIN: usize = 512 << 10;

/// A film cannot be sent (any further). `F`: the volume's own fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilmError<F> {
    /// The volume is unusable.
    #[error(transparent)]
    Volume(F),
    /// A request was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A chunk cannot be read, however often it is tried.
    #[error("cannot read the film at byte {offset}: {error}")]
    Unreadable {
        /// Where, in bytes.
        offset: u64,
        /// What the volume said last.
        error: RequestError,
    },
    /// There is something else than a packet, and it is not the padding at the end.
    #[error(
        "no MPEG transport stream packet at byte {} of the volume, but {:#04x}",
        .0.position, .0.byte
    )]
    NoPacket(NoPacket),
    /// The film has less than two clock references.
    #[error("the film has no two clock references (PCR), so it has no pace")]
    NoPace,
    /// All buffers are full, and there is still no second clock reference.
    #[error(
        "no second clock reference (PCR) in {0} bytes of film: give chunk= or reads= a greater value"
    )]
    ReadAheadTooShort(u64),
    /// No memory for buffers.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// A packet, due so many ticks after the film's first clock reference.
    Packet {
        /// System clock ticks (27 MHz).
        due_ticks: u64,
        /// Where its bytes are.
        payload: [Option<Payload>; 2],
    },
    /// The disk has not delivered it yet.
    Wait,
    /// The film is over.
    Finished,
}

enum State {
    Reading(Token),
    Full(Rc<Buffer>),
}

/// One chunk of the window.
struct Slot {
    pass: u64,
    /// Chunk number within the film.
    index: u64,
    len: usize,
    scanned: bool,
    state: State,
}

/// A place in the stream: which time round, and where in the film.
#[derive(Clone, Copy, Default)]
struct Place {
    pass: u64,
    /// Bytes from the start of the film, or chunk number for reads.
    at: u64,
}

/// The film and everything that is read of it.
pub struct Film<V: Volume> {
    volume: V,
    chunk: u64,
    reads: u16,
    looped: bool,
    /// Known once its end was seen.
    len: Option<u64>,
    empties: Vec<Buffer>,
    window: VecDeque<Slot>,
    leaving: Vec<Rc<Buffer>>,
    next_read: Place,
    next_packet: Place,
    scanner: Scanner,
    timeline: Timeline,
    retries: u32,
    /// Requests that the disk answered with an error.
    pub read_errors: u64,
    /// Bytes that the disk delivered.
    pub bytes_read: u64,
}

impl<V: Volume> Film<V> {
    /// Prepares to read the film on `volume` in chunks of `chunk` bytes (a multiple of a sector, at
    /// least a packet) with `reads` requests in flight.
    ///
    /// # Errors
    /// [`FilmError::Memory`].
    pub fn new(
        volume: V,
        chunk: u64,
        reads: u16,
        looped: bool,
    ) -> Result<Self, FilmError<V::Fault>> {
        let chunk_len = usize::try_from(chunk).unwrap_or(usize::MAX);
        // As many chunks wait to be sent as are being read, and two more are leaving.
        let spans_references = READ_AHEAD_MIN.div_ceil(chunk_len);
        let buffers = (2 * usize::from(reads) + 2).max(spans_references);
        let empties = (0..buffers).map(|_| Buffer::new(chunk_len)).collect::<Result<_, _>>()?;
        Ok(Self {
            volume,
            chunk,
            reads,
            looped,
            len: None,
            empties,
            window: VecDeque::with_capacity(buffers),
            leaving: Vec::with_capacity(buffers),
            next_read: Place::default(),
            next_packet: Place::default(),
            scanner: Scanner::default(),
            timeline: Timeline::default(),
            retries: 0,
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
        self.next_packet.pass
    }

    /// Takes in what the volume has delivered and asks it for more.
    ///
    /// # Errors
    /// [`FilmError`]; nothing more comes then.
    pub fn poll(&mut self) -> Result<(), FilmError<V::Fault>> {
        while let Some(completion) = self.volume.poll().map_err(FilmError::Volume)? {
            self.complete(completion)?;
        }
        self.scan()?;
        self.empty_leaving();
        self.read_ahead()?;
        self.volume.kick();
        Ok(())
    }

    /// The next packet; the same again until [`Film::advance`].
    ///
    /// # Errors
    /// [`FilmError::ReadAheadTooShort`].
    pub fn peek(&mut self) -> Result<Next, FilmError<V::Fault>> {
        let film_len = self.len.unwrap_or(u64::MAX);
        if self.next_packet.at >= film_len {
            if !self.looped {
                return Ok(Next::Finished);
            }
            self.next_packet = Place { pass: self.next_packet.pass + 1, at: 0 };
        }
        let Place { pass, at } = self.next_packet;
        let mut payload = [None, None];
        for (slot, piece) in payload.iter_mut().zip(pieces(at, film_len, self.chunk)) {
            let Some(piece) = piece else { continue };
            let Some(found) = self.find(pass, &piece) else { return Ok(Next::Wait) };
            *slot = Some(found);
        }
        let position = self.stream_position(pass, at);
        // Nothing more can be read before this packet has left: no reference will come in time.
        let stuck =
            self.volume.in_flight() == 0 && self.empties.is_empty() && self.leaving.is_empty();
        let ended = self.len.is_some() && !self.looped;
        match self.timeline.due(position, ended || stuck) {
            Some(due_ticks) => Ok(Next::Packet { due_ticks, payload }),
            None if stuck => {
                let bytes = self.window.iter().map(|slot| slot.len as u64).sum();
                Err(FilmError::ReadAheadTooShort(bytes))
            }
            None => Ok(Next::Wait),
        }
    }

    /// Goes on to the packet after the one that [`Film::peek`] gave.
    pub fn advance(&mut self) {
        self.next_packet.at += PAYLOAD_LEN;
        let Place { pass, at } = self.next_packet;
        let done = self.len.is_some_and(|len| at >= len);
        while let Some(slot) = self.window.front() {
            let behind = slot.pass < pass || (slot.index + 1) * self.chunk <= at || done;
            if !behind || slot.pass > pass {
                break;
            }
            if let Some(Slot { state: State::Full(buffer), .. }) = self.window.pop_front() {
                self.leaving.push(buffer);
            }
        }
    }

    fn stream_position(&self, pass: u64, at: u64) -> u64 {
        pass.saturating_mul(self.len.unwrap_or(0)).saturating_add(at)
    }

    fn find(&self, pass: u64, piece: &Piece) -> Option<Payload> {
        let slot =
            self.window.iter().find(|slot| slot.pass == pass && slot.index == piece.chunk)?;
        let State::Full(buffer) = &slot.state else { return None };
        let (start, len) = (usize::try_from(piece.start).ok()?, usize::try_from(piece.len).ok()?);
        slot.scanned.then(|| Payload { buffer: Rc::clone(buffer), start, len })
    }

    fn complete(&mut self, completion: Completion) -> Result<(), FilmError<V::Fault>> {
        let Completion { token, buffer, result } = completion;
        let Some(buffer) = buffer else { return Ok(()) };
        let slot = self
            .window
            .iter_mut()
            .find(|slot| matches!(slot.state, State::Reading(reading) if reading == token));
        // A read of what turned out to lie behind the film's end has no slot any more.
        let Some(slot) = slot else {
            self.empties.push(buffer);
            return Ok(());
        };
        if let Err(error) = result {
            self.read_errors += 1;
            self.retries += 1;
            let offset = slot.index * self.chunk;
            if self.retries > RETRIES_MAX {
                return Err(FilmError::Unreadable { offset, error });
            }
            let again = self.volume.read(offset, buffer, slot.len);
            slot.state = State::Reading(again.map_err(|(refusal, _)| refusal)?);
            return Ok(());
        }
        self.retries = 0;
        self.bytes_read += slot.len as u64;
        slot.state = State::Full(Rc::new(buffer));
        Ok(())
    }

    /// Looks through the chunks that have arrived, in order.
    fn scan(&mut self) -> Result<(), FilmError<V::Fault>> {
        while let Some(slot) = self.window.iter_mut().find(|slot| !slot.scanned) {
            let State::Full(buffer) = &slot.state else { return Ok(()) };
            let limit = self.len.unwrap_or(self.volume.capacity());
            let offset = slot.index * self.chunk;
            let usable = limit.saturating_sub(offset).min(slot.len as u64);
            let bytes = buffer.get(..usize::try_from(usable).unwrap_or(0)).unwrap_or_default();
            let base = slot.pass.saturating_mul(self.len.unwrap_or(0));
            let timeline = &mut self.timeline;
            let scanned = self.scanner.scan(bytes, |reference| {
                timeline.add(base.saturating_add(reference.position), reference.pcr);
            });
            slot.scanned = true;
            match scanned {
                Ok(()) if offset + usable < limit => {}
                Ok(()) => self.end_pass(self.scanner.whole_packets_end())?,
                // Volumes are whole sectors: the film's file is padded with zeros.
                Err(end) if end.byte == 0 && end.position > 0 => self.end_pass(end.position)?,
                Err(end) => return Err(FilmError::NoPacket(end)),
            }
        }
        Ok(())
    }

    /// The end of the film was seen for the first time, or once more.
    fn end_pass(&mut self, film_len: u64) -> Result<(), FilmError<V::Fault>> {
        if !self.timeline.has_rate() {
            return Err(FilmError::NoPace);
        }
        self.len = Some(film_len);
        self.scanner = Scanner::default();
        self.timeline.jump();
        for slot in core::mem::take(&mut self.window) {
            match slot.state {
                _ if slot.index * self.chunk < film_len => self.window.push_back(slot),
                State::Full(buffer) => self.leaving.push(buffer),
                State::Reading(_) => {}
            }
        }
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
        let end = self.len.unwrap_or(self.volume.capacity());
        while self.volume.in_flight() < self.reads {
            let mut offset = self.next_read.at * self.chunk;
            if offset >= end {
                if !self.looped || self.len.is_none() {
                    return Ok(());
                }
                self.next_read = Place { pass: self.next_read.pass + 1, at: 0 };
                offset = 0;
            }
            let Some(buffer) = self.empties.pop() else { return Ok(()) };
            let rest = (end - offset).next_multiple_of(SECTOR);
            let len = usize::try_from(rest.min(self.chunk)).unwrap_or(0);
            let token = match self.volume.read(offset, buffer, len) {
                Ok(token) => token,
                Err((Refusal::Full, buffer)) => {
                    self.empties.push(buffer);
                    return Ok(());
                }
                Err((refusal, _)) => return Err(refusal.into()),
            };
            let Place { pass, at: index } = self.next_read;
            let state = State::Reading(token);
            self.window.push_back(Slot { pass, index, len, scanned: false, state });
            self.next_read.at += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "film_tests.rs"]
mod tests;
