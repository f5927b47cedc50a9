//! Tests of the film's window, with a volume that answers in any order, late, or with errors.
#![allow(clippy::cast_possible_truncation, reason = "tests cut numbers to size on purpose")]

mod clocks;
mod damage;
mod ends;
mod reading;

use super::*;
use crate::ts::{NoPacket, PACKET_LEN, SYNC_BYTE};

/// Ticks between two clock references, and packets.
const STEP_TICKS: u64 = 540_000;
const STEP_PACKETS: u64 = 106;

/// What never happens to a volume in memory.
type Fault = core::fmt::Error;

/// A volume in memory.
struct Fake {
    bytes: Vec<u8>,
    in_flight: Vec<(RequestId, u64, Buffer, usize)>,
    seed: u64,
    /// So many of the next requests fail.
    failures: u32,
    /// Reads of this byte fail.
    bad_at: Option<u64>,
    /// Where its data ends, if it says so.
    data: Option<u64>,
}

impl Fake {
    fn new(mut bytes: Vec<u8>) -> Self {
        bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
        Self { bytes, in_flight: Vec::new(), seed: 1, failures: 0, bad_at: None, data: None }
    }

    fn dice(&mut self) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.seed >> 33) as usize
    }
}

impl Volume for Fake {
    type Fault = Fault;

    fn capacity(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn data_bytes(&self) -> Option<u64> {
        self.data
    }

    fn in_flight(&self) -> u16 {
        self.in_flight.len() as u16
    }

    fn read(
        &mut self,
        offset: u64,
        buffer: Buffer,
        len: usize,
    ) -> Result<RequestId, (Refusal, Buffer)> {
        assert!(offset.is_multiple_of(SECTOR) && (len as u64).is_multiple_of(SECTOR) && len > 0);
        assert!(offset + len as u64 <= self.capacity(), "reads behind the end");
        let taken = |number: &u16| self.in_flight.iter().any(|(id, ..)| id.0 == *number);
        let id = RequestId((0..).find(|number| !taken(number)).unwrap());
        self.in_flight.push((id, offset, buffer, len));
        Ok(id)
    }

    fn kick(&mut self) {}

    fn poll(&mut self) -> Result<Option<Completion>, Fault> {
        if self.in_flight.is_empty() || self.dice().is_multiple_of(2) {
            return Ok(None);
        }
        let which = self.dice() % self.in_flight.len();
        let (id, offset, mut buffer, len) = self.in_flight.swap_remove(which);
        let mut result = Err(RequestError::Io);
        if self.failures > 0 {
            self.failures -= 1;
        } else if !self.bad_at.is_some_and(|at| (offset..offset + len as u64).contains(&at)) {
            buffer[..len].copy_from_slice(&self.bytes[offset as usize..][..len]);
            result = Ok(());
        }
        Ok(Some(Completion { id, buffer: Some(buffer), result }))
    }
}

/// A film whose every byte is its own, with a clock reference every [`STEP_PACKETS`] packets.
fn film(packets: u64) -> Vec<u8> {
    film_with_clock(packets, |packet| packet.is_multiple_of(STEP_PACKETS))
}

fn film_with_clock(packets: u64, has_clock: impl Fn(u64) -> bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in 0..packets {
        let start = bytes.len();
        bytes.extend((0..PACKET_LEN).map(|at| (packet * 31 + at * 7) as u8));
        bytes[start..start + 4].copy_from_slice(&[SYNC_BYTE, 1, 0, 0x10]);
        if has_clock(packet) {
            let base = packet / STEP_PACKETS * STEP_TICKS / 300;
            bytes[start + 3..start + 6].copy_from_slice(&[0x30, 7, 0x10]);
            bytes[start + 6..start + 12].copy_from_slice(&(base << 15).to_be_bytes()[2..]);
        }
    }
    bytes
}

struct Played {
    bytes: Vec<u8>,
    damage: Damage,
    jumps: (u64, u64),
    due: Vec<u64>,
    notes: Vec<Note>,
    end: Result<bool, FilmError<Fault>>,
}

/// Plays up to `packets` packets; each stays on its way for the next ten.
fn play(volume: Fake, chunk: u64, reads: u16, looped: bool, packets: usize) -> Played {
    let settings = Settings { chunk, reads, looped, ..Settings::default() };
    play_with(volume, settings, packets)
}

fn play_with(volume: Fake, settings: Settings, packets: usize) -> Played {
    let (damage, jumps) = (Damage::default(), (0, 0));
    let (bytes, due, notes) = (Vec::new(), Vec::new(), Vec::new());
    let mut played = Played { bytes, damage, jumps, due, notes, end: Ok(false) };
    let mut film = Film::new(volume, settings).unwrap();
    let mut leaving: VecDeque<Vec<(Payload, Vec<u8>)>> = VecDeque::new();
    for _ in 0..10_000_000 {
        let next = film.poll().and_then(|()| film.peek());
        played.notes.extend(film.take_note());
        (played.damage, played.jumps) = (film.damage(), film.clock_jumps());
        match next {
            Err(error) => {
                played.end = Err(error);
                return played;
            }
            Ok(Next::Finished) => {
                played.end = Ok(true);
                return played;
            }
            Ok(Next::Wait) => {
                // The link goes on meanwhile.
                leaving.pop_front();
                continue;
            }
            Ok(Next::Packet { due_ticks, payload }) => {
                let content = |piece: Payload| {
                    let bytes = piece.buffer[piece.start..piece.start + piece.len].to_vec();
                    (piece, bytes)
                };
                let pieces: Vec<_> = payload.into_iter().flatten().map(content).collect();
                pieces.iter().for_each(|(_, bytes)| played.bytes.extend(bytes));
                played.due.push(due_ticks);
                leaving.push_back(pieces);
                film.advance();
            }
        }
        if leaving.len() > 10 {
            for (piece, bytes) in leaving.pop_front().unwrap() {
                let now = &piece.buffer[piece.start..piece.start + piece.len];
                assert_eq!(now, bytes, "a buffer was filled again before its packet had left");
            }
        }
        if played.due.len() == packets {
            return played;
        }
    }
    panic!("the film got stuck");
}

/// Reads the film in chunks of several sizes; all have to give the same.
fn played(film: &[u8]) -> Played {
    played_with(film, Settings::default())
}

fn played_with(film: &[u8], settings: Settings) -> Played {
    let mut first: Option<Played> = None;
    for (chunk, reads) in [(65536, 4), (4096, 2), (1536, 5)] {
        let settings = Settings { chunk, reads, ..settings };
        let played = play_with(Fake::new(film.to_vec()), settings, usize::MAX);
        assert_eq!(played.end, Ok(true));
        assert!(played.due.is_sorted());
        if let Some(first) = &first {
            assert!(first.bytes == played.bytes, "chunks of {chunk}");
            assert_eq!(first.damage, played.damage, "chunks of {chunk}");
        }
        first.get_or_insert(played);
    }
    first.unwrap()
}

fn packets(film: &[u8], numbers: core::ops::Range<usize>) -> &[u8] {
    &film[numbers.start * 188..numbers.end * 188]
}
