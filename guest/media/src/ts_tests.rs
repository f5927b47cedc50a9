//! Tests of the transport stream scanner.
#![allow(clippy::cast_possible_truncation, reason = "tests cut numbers to size on purpose")]

use super::*;

/// A packet of `pid` with a clock reference.
fn packet(pid: u16, pcr: Option<u64>) -> Vec<u8> {
    let mut bytes = vec![0xff; PACKET_LEN as usize];
    bytes[0] = SYNC_BYTE;
    bytes[1..3].copy_from_slice(&pid.to_be_bytes());
    bytes[3] = 0x10;
    if let Some(pcr) = pcr {
        bytes[3] = 0x30;
        bytes[4] = 7;
        bytes[5] = 0x10;
        let field = ((pcr / 300) << 15) | 0x7e00 | (pcr % 300);
        bytes[6..12].copy_from_slice(&field.to_be_bytes()[2..]);
    }
    bytes
}

fn film() -> Vec<u8> {
    let mut bytes = Vec::new();
    for index in 0..50u64 {
        let pcr = (index % 10 == 3).then_some(1_000_000 + index * 27_000);
        bytes.extend(packet(256, pcr));
    }
    bytes
}

fn references(film: &[u8], piece_len: usize) -> Vec<ClockReference> {
    let (mut scanner, mut found) = (Scanner::default(), Vec::new());
    for piece in film.chunks(piece_len) {
        scanner.scan(piece, |reference| found.push(reference)).unwrap();
    }
    found
}

#[test]
fn clock_references_are_found_with_their_positions() {
    let found = references(&film(), 1 << 20);
    assert_eq!(found.len(), 5);
    assert_eq!(found[0], ClockReference { position: 3 * PACKET_LEN, pcr: 1_081_000 });
    assert_eq!(found[4], ClockReference { position: 43 * PACKET_LEN, pcr: 2_161_000 });
}

#[test]
fn how_a_film_is_cut_into_pieces_does_not_matter() {
    let expected = references(&film(), 1 << 20);
    for piece_len in 1..600 {
        assert_eq!(references(&film(), piece_len), expected, "pieces of {piece_len}");
    }
}

#[test]
fn only_the_first_clock_counts() {
    let film = [packet(256, Some(300)), packet(257, Some(9_000_000)), packet(256, Some(600))];
    let found = references(&film.concat(), 1000);
    assert_eq!(found.iter().map(|reference| reference.pcr).collect::<Vec<_>>(), [300, 600]);
}

#[test]
fn greatest_clock_value_stays_below_the_wrap() {
    let found = references(&packet(256, Some(PCR_WRAP - 1)), 188);
    assert_eq!(found[0].pcr, PCR_WRAP - 1);
}

#[test]
fn padding_and_damage_are_told_with_their_place() {
    let mut padded = film();
    let end = padded.len() as u64;
    padded.extend([0; 412]);
    let error = Scanner::default().scan(&padded, |_| ()).unwrap_err();
    assert_eq!(error, NoPacket { position: end, byte: 0 });
    let mut damaged = film();
    damaged[188 * 7] = 0x48;
    let error = Scanner::default().scan(&damaged, |_| ()).unwrap_err();
    assert_eq!(error, NoPacket { position: 188 * 7, byte: 0x48 });
}

#[test]
fn short_adaptation_field_has_no_clock_whatever_its_flags_say() {
    let mut bytes = packet(256, Some(300));
    bytes[4] = 6;
    assert_eq!(references(&bytes, 188), []);
}

#[test]
fn arbitrary_bytes_do_no_harm() {
    let mut seed = 1u64;
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..400)
            .map(|index| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if index % 188 == 0 { SYNC_BYTE } else { (seed >> 33) as u8 }
            })
            .collect();
        let mut scanner = Scanner::default();
        let _ = scanner.scan(&bytes, |reference| assert!(reference.pcr < PCR_WRAP));
    }
}
