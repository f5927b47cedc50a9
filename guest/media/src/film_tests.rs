//! Tests of the film's window, with a volume that answers in any order, late, or with errors.
#![allow(clippy::cast_possible_truncation, reason = "tests cut numbers to size on purpose")]

use super::*;
use crate::ts::{PACKET_LEN, SYNC_BYTE};

/// Ticks between two clock references, and packets.
const STEP_TICKS: u64 = 540_000;
const STEP_PACKETS: u64 = 106;

/// A volume in memory.
struct Fake {
    bytes: Vec<u8>,
    in_flight: Vec<(Token, u64, Buffer, usize)>,
    seed: u64,
    /// So many of the next requests fail.
    failures: u32,
}

impl Fake {
    fn new(mut bytes: Vec<u8>) -> Self {
        bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
        Self { bytes, in_flight: Vec::new(), seed: 1, failures: 0 }
    }

    fn dice(&mut self) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.seed >> 33) as usize
    }
}

impl Volume for Fake {
    type Fault = ();

    fn capacity(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn in_flight(&self) -> u16 {
        self.in_flight.len() as u16
    }

    fn read(
        &mut self,
        offset: u64,
        buffer: Buffer,
        len: usize,
    ) -> Result<Token, (Refusal, Buffer)> {
        assert!(offset.is_multiple_of(SECTOR) && (len as u64).is_multiple_of(SECTOR) && len > 0);
        assert!(offset + len as u64 <= self.capacity(), "reads behind the end");
        let taken = |number: &u16| self.in_flight.iter().any(|(token, ..)| token.0 == *number);
        let token = Token((0..).find(|number| !taken(number)).unwrap());
        self.in_flight.push((token, offset, buffer, len));
        Ok(token)
    }

    fn kick(&mut self) {}

    fn poll(&mut self) -> Result<Option<Completion>, ()> {
        if self.in_flight.is_empty() || self.dice().is_multiple_of(2) {
            return Ok(None);
        }
        let which = self.dice() % self.in_flight.len();
        let (token, offset, mut buffer, len) = self.in_flight.swap_remove(which);
        let mut result = Err(RequestError::Io);
        if self.failures > 0 {
            self.failures -= 1;
        } else {
            buffer[..len].copy_from_slice(&self.bytes[offset as usize..][..len]);
            result = Ok(());
        }
        Ok(Some(Completion { token, buffer: Some(buffer), result }))
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
    due: Vec<u64>,
    end: Result<bool, FilmError<()>>,
}

/// Plays up to `packets` packets; each stays on its way for the next ten.
fn play(volume: Fake, chunk: u64, reads: u16, looped: bool, packets: usize) -> Played {
    let mut played = Played { bytes: Vec::new(), due: Vec::new(), end: Ok(false) };
    let mut film = Film::new(volume, chunk, reads, looped).unwrap();
    let mut leaving: VecDeque<Vec<(Payload, Vec<u8>)>> = VecDeque::new();
    for _ in 0..10_000_000 {
        let next = film.poll().and_then(|()| film.peek());
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

#[test]
fn film_comes_out_byte_for_byte_however_it_is_read() {
    let film = film(5000);
    for (chunk, reads) in [(65536, 4), (4096, 1), (4096, 32), (1 << 20, 2), (8192, 3), (1536, 5)] {
        let played = play(Fake::new(film.clone()), chunk, reads, false, usize::MAX);
        assert_eq!(played.end, Ok(true));
        assert!(played.bytes == film, "chunks of {chunk}, {reads} in flight");
    }
}

#[test]
fn packets_are_due_at_the_pace_of_the_clock() {
    let played = play(Fake::new(film(5000)), 65536, 4, false, usize::MAX);
    let expected = |packet: usize| packet as u64 * 7 * STEP_TICKS / STEP_PACKETS;
    for (packet, due) in played.due.iter().enumerate() {
        assert!(due.abs_diff(expected(packet)) <= 1, "packet {packet} is due at {due}");
    }
}

#[test]
fn looped_film_goes_on_without_a_gap_in_bytes_or_time() {
    let film = film(1000);
    let packets = 143 * 3 + 50; // 143 to a pass, the last one short
    for padding in [0, 100_000] {
        let mut padded = film.clone();
        padded.resize(film.len() + padding, 0);
        let played = play(Fake::new(padded), 8192, 4, true, packets);
        assert_eq!(played.end, Ok(false));
        let again: Vec<u8> = film.iter().copied().cycle().take(played.bytes.len()).collect();
        assert!(played.bytes == again, "padding of {padding}");
        let steps = played.due.windows(2).map(|pair| pair[1] - pair[0]);
        let even = 7 * STEP_TICKS / STEP_PACKETS;
        assert!(steps.clone().all(|step| step <= even + 1), "{:?}", steps.max());
    }
}

#[test]
fn part_of_a_packet_at_the_end_is_not_sent() {
    let mut cut = film(1000);
    let whole = cut.clone();
    cut.extend([SYNC_BYTE; 24]); // 188512 bytes: not padded, ends inside a packet
    cut.truncate(cut.len() / 512 * 512);
    let played = play(Fake::new(cut.clone()), 4096, 4, false, usize::MAX);
    assert_eq!(played.end, Ok(true));
    assert!(played.bytes == whole[..cut.len() / 188 * 188]);
}

#[test]
fn chunk_that_fails_is_read_again() {
    let film = film(1000);
    let mut volume = Fake::new(film.clone());
    volume.failures = RETRIES_MAX;
    assert!(play(volume, 8192, 4, false, usize::MAX).bytes == film);
    let mut volume = Fake::new(film);
    volume.failures = u32::MAX;
    let end = play(volume, 8192, 1, false, usize::MAX).end;
    assert_eq!(end, Err(FilmError::Unreadable { offset: 0, error: RequestError::Io }));
}

#[test]
fn volume_without_a_film_is_refused() {
    let end = play(Fake::new(vec![0; 65536]), 4096, 2, false, usize::MAX).end;
    assert_eq!(end, Err(FilmError::NoPacket(NoPacket { position: 0, byte: 0 })));
    let mut damaged = film(1000);
    damaged[188 * 500] = 0x12;
    let end = play(Fake::new(damaged), 4096, 2, false, usize::MAX).end;
    assert_eq!(end, Err(FilmError::NoPacket(NoPacket { position: 188 * 500, byte: 0x12 })));
}

#[test]
fn film_without_a_clock_is_refused() {
    let short = film_with_clock(1000, |packet| packet == 0);
    assert_eq!(play(Fake::new(short), 4096, 2, true, usize::MAX).end, Err(FilmError::NoPace));
    let long = film_with_clock(10_000, |packet| packet == 0);
    let end = play(Fake::new(long), 4096, 2, true, usize::MAX).end;
    assert_eq!(end, Err(FilmError::ReadAheadTooShort(READ_AHEAD_MIN as u64)));
}

#[test]
fn clock_that_pauses_for_longer_than_the_window_is_bridged_at_its_last_rate() {
    let sparse =
        |packet: u64| packet.is_multiple_of(STEP_PACKETS) && !(500..6000).contains(&packet);
    let film = film_with_clock(10_000, sparse);
    let played = play(Fake::new(film.clone()), 4096, 2, false, usize::MAX);
    assert_eq!(played.end, Ok(true));
    assert!(played.bytes == film);
    assert!(played.due.is_sorted());
}
