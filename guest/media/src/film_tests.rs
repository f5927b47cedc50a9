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
    /// Reads of this byte fail.
    bad_at: Option<u64>,
}

impl Fake {
    fn new(mut bytes: Vec<u8>) -> Self {
        bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
        Self { bytes, in_flight: Vec::new(), seed: 1, failures: 0, bad_at: None }
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
        } else if !self.bad_at.is_some_and(|at| (offset..offset + len as u64).contains(&at)) {
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
    damage: Damage,
    jumps: (u64, u64),
    due: Vec<u64>,
    end: Result<bool, FilmError<()>>,
}

/// Plays up to `packets` packets; each stays on its way for the next ten.
fn play(volume: Fake, chunk: u64, reads: u16, looped: bool, packets: usize) -> Played {
    let settings = Settings { chunk, reads, looped, program: None };
    play_with(volume, settings, packets)
}

fn play_with(volume: Fake, settings: Settings, packets: usize) -> Played {
    let (damage, jumps) = (Damage::default(), (0, 0));
    let mut played = Played { bytes: Vec::new(), damage, jumps, due: Vec::new(), end: Ok(false) };
    let mut film = Film::new(volume, settings).unwrap();
    let mut leaving: VecDeque<Vec<(Payload, Vec<u8>)>> = VecDeque::new();
    for _ in 0..10_000_000 {
        let next = film.poll().and_then(|()| film.peek());
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

/// Reads the film in chunks of several sizes; all have to give the same.
fn played(film: &[u8]) -> Played {
    let mut first: Option<Played> = None;
    for (chunk, reads) in [(65536, 4), (4096, 2), (1536, 5)] {
        let played = play(Fake::new(film.to_vec()), chunk, reads, false, usize::MAX);
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

#[test]
fn film_goes_on_behind_a_hole_and_what_is_lost_is_counted() {
    let whole = film(4000);
    for (from, len, fill) in
        [(372_736, 4096, 0), (300_000, 1, 9), (188 * 70, 188, 0), (5, 65536, 0x47)]
    {
        let mut damaged = whole.clone();
        damaged[from..from + len].fill(fill);
        let played = played(&damaged);
        let (first_bad, first_good) = (from.div_ceil(188), (from + len).div_ceil(188));
        // The packet in which the hole begins has its sync byte and is sent.
        let expected =
            [packets(&damaged, 0..first_bad), packets(&whole, first_good..4000)].concat();
        if fill != 0x47 {
            assert!(played.bytes == expected, "{len} bytes at {from}");
        } else {
            assert!(played.bytes.ends_with(packets(&whole, first_good + 1..4000)));
        }
        let lost = (first_good - first_bad) as u64;
        if fill == 0 {
            let Damage { places, bytes, packets, .. } = played.damage;
            assert_eq!((places, bytes, packets), (1, lost * 188, lost), "{len} bytes at {from}");
        }
    }
}

#[test]
fn damaged_sync_byte_costs_its_packet_only() {
    let mut damaged = film(1000);
    let whole = damaged.clone();
    damaged[188 * 500] = 0x12;
    let played = played(&damaged);
    assert!(played.bytes == [packets(&whole, 0..500), packets(&whole, 501..1000)].concat());
    let expected = Damage { places: 1, bytes: 188, packets: 1, last_at: 188 * 500 };
    assert_eq!(played.damage, expected);
}

#[test]
fn bytes_that_are_missing_cost_the_packet_they_are_missing_from() {
    let whole = film(1000);
    for cut in [1, 100, 187] {
        let mut damaged = whole[..188 * 400 + 1].to_vec();
        damaged.extend(&whole[188 * 400 + 1 + cut..]);
        let played = played(&damaged);
        assert!(played.bytes == [packets(&whole, 0..400), packets(&whole, 401..1000)].concat());
        assert_eq!((played.damage.bytes, played.damage.packets), (188 - cut as u64, 1));
    }
}

#[test]
fn bytes_that_are_too_many_are_skipped() {
    let whole = film(1000);
    for more in [1, 188, 1000] {
        let mut damaged = packets(&whole, 0..400).to_vec();
        damaged.extend(vec![0x11; more]);
        damaged.extend(packets(&whole, 400..1000));
        let played = played(&damaged);
        assert!(played.bytes == whole, "{more} bytes");
        assert_eq!(played.damage.bytes, more as u64);
    }
}

#[test]
fn film_may_begin_and_end_within_a_packet() {
    let whole = film(1001);
    let played = played(&whole[100..188 * 1000 + 3]);
    assert!(played.bytes == packets(&whole, 1..1000));
    assert_eq!(played.damage.places, 2);
    // What lies behind the end of the file is the volume's padding.
    assert_eq!(played.damage.bytes, 88 + 2); // the third of the last bytes is zero
}

#[test]
fn whole_packets_at_the_end_are_sent_whatever_the_length() {
    for count in [1, 2, 3, 7, 8, 341, 4000] {
        let whole = film_with_clock(count + 200, |packet| packet.is_multiple_of(STEP_PACKETS));
        let played = played(&whole);
        assert!(played.bytes == whole, "{count} packets");
        assert_eq!(played.damage, Damage::default());
    }
    // The last two packets behind a hole have no third behind them.
    let mut damaged = film(1000);
    damaged[188 * 990..188 * 998].fill(0);
    let played = played(&damaged);
    assert!(played.bytes.ends_with(packets(&damaged, 998..1000)));
    assert_eq!(played.damage.packets, 8);
}

#[test]
fn packets_of_192_and_204_bytes_are_sent_as_188() {
    let whole = film(4000);
    for (before, behind) in [(4, 0), (0, 16)] {
        for fill in [0, 0x47, 0x9c] {
            let longer: Vec<u8> = whole
                .chunks(188)
                .flat_map(|packet| {
                    [&vec![fill; before][..], packet, &vec![fill; behind][..]].concat()
                })
                .collect();
            let played = played(&longer);
            assert!(played.bytes == whole, "{before} before, {behind} behind, {fill:#x}");
            assert!(played.damage.packets <= u64::from(behind > 0), "{:?}", played.damage);
            let mut damaged = longer.clone();
            let stride = 188 + before + behind;
            damaged[stride * 2000..stride * 2010].fill(0);
            let played = self::played(&damaged);
            assert!(
                played.bytes == [packets(&whole, 0..2000), packets(&whole, 2010..4000)].concat()
            );
        }
    }
}

#[test]
fn looped_film_with_damage_is_the_same_in_every_pass() {
    let mut damaged = film(1000);
    damaged[188 * 500..188 * 520].fill(0);
    let good = [packets(&damaged, 0..500), packets(&damaged, 520..1000)].concat();
    let played = play(Fake::new(damaged), 8192, 4, true, 500);
    let again: Vec<u8> = good.iter().copied().cycle().take(played.bytes.len()).collect();
    assert!(played.bytes == again);
    assert!(played.due.is_sorted());
}

#[test]
fn all_before_a_place_that_cannot_be_read_is_sent_before_the_error() {
    let whole = film(4000);
    for looped in [false, true] {
        let mut volume = Fake::new(whole.clone());
        volume.bad_at = Some(400_000);
        let played = play(volume, 4096, 4, looped, usize::MAX);
        let offset = 400_000 / 4096 * 4096;
        assert_eq!(played.end, Err(FilmError::Unreadable { offset, error: RequestError::Io }));
        let sent = played.bytes.len();
        assert!(played.bytes == whole[..sent]);
        assert_eq!(sent as u64, offset / 188 * 188);
    }
}

#[test]
fn end_of_a_film_on_a_larger_volume_is_found() {
    let whole = film(1000);
    let mut padded = whole.clone();
    padded.resize(whole.len() + 40_000_000, 0);
    let played = play(Fake::new(padded), 65536, 4, false, usize::MAX);
    assert_eq!(played.end, Ok(true));
    assert!(played.bytes == whole);
    assert_eq!(played.damage, Damage::default());
}

#[test]
fn arbitrary_bytes_do_no_harm() {
    let mut seed = 1u64;
    let mut dice = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize
    };
    for _ in 0..200 {
        let mut bytes = film(300);
        for _ in 0..dice() % 20 {
            let (from, len) = (dice() % bytes.len(), dice() % 3000);
            let end = (from + len).min(bytes.len());
            bytes[from..end].iter_mut().for_each(|byte| *byte = dice() as u8);
        }
        let played = play(Fake::new(bytes), 1536, 3, false, usize::MAX);
        assert!(played.bytes.len().is_multiple_of(188));
        assert!(played.bytes.chunks(188).all(|packet| packet[0] == SYNC_BYTE));
    }
}
