//! Tests of the choice of a clock.
#![allow(clippy::cast_possible_truncation, reason = "tests cut numbers to size on purpose")]

use super::*;
use crate::psi::crc32;

/// Ticks between two references of the same clock.
const STEP: u64 = 40 * 27_000;

fn reference(pid: u16, pcr: u64) -> Packet<'static> {
    Packet {
        pid,
        unit_start: false,
        discontinuity: false,
        pcr: Some(pcr),
        payload: &[],
        broken: false,
    }
}

/// The payload of a packet with a section.
fn section(table: u8, number: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![table, 0xb0, (body.len() + 9) as u8];
    bytes.extend(number.to_be_bytes());
    bytes.extend([0xc1, 0, 0]);
    bytes.extend(body);
    let sum = crc32(&bytes);
    bytes.extend(sum.to_be_bytes());
    bytes.insert(0, 0);
    bytes
}

fn table(clock: &mut Clock, pid: u16, payload: &[u8]) {
    // Cut in two: sections may span packets.
    let (first, second) = payload.split_at(payload.len() / 2);
    for (payload, unit_start) in [(first, true), (second, false)] {
        let packet =
            Packet { pid, unit_start, discontinuity: false, pcr: None, payload, broken: false };
        assert_eq!(clock.read(&packet), None);
    }
}

/// Programs 1 and 2, with their map tables at 0x20 and 0x21 and their clocks at 0x100 and 0x200.
fn tables(clock: &mut Clock) {
    table(clock, 0, &section(0, 9, &[0, 0, 0xe0, 0x10, 0, 1, 0xe0, 0x20, 0, 2, 0xe0, 0x21]));
    table(clock, 0x20, &section(2, 1, &[0xe1, 0x00, 0xf0, 0]));
    table(clock, 0x21, &section(2, 2, &[0xe2, 0x00, 0xf0, 0]));
}

/// The readings of two programs whose packets alternate.
fn readings(clock: &mut Clock, first: u16, second: u16) -> Vec<u64> {
    let mut found = Vec::new();
    for step in 0..50 {
        for (pid, base) in [(first, 0), (second, 5_000_000_000)] {
            found
                .extend(clock.read(&reference(pid, base + step * STEP)).map(|reading| reading.pcr));
        }
    }
    found
}

fn steps_from(base: u64) -> Vec<u64> {
    (0..50).map(|step| base + step * STEP).collect()
}

#[test]
fn without_tables_the_first_clock_counts() {
    let found = readings(&mut Clock::new(None), 0x200, 0x100);
    assert_eq!(found, steps_from(0));
}

#[test]
fn tables_name_the_clock_of_the_first_or_the_wanted_program() {
    for (program, base) in [(None, 5_000_000_000), (Some(1), 5_000_000_000), (Some(2), 0)] {
        let mut clock = Clock::new(program);
        tables(&mut clock);
        assert_eq!(readings(&mut clock, 0x200, 0x100), steps_from(base), "{program:?}");
        assert!(!clock.is_missing());
    }
}

#[test]
fn program_that_the_film_lacks_is_told() {
    let mut clock = Clock::new(Some(7));
    tables(&mut clock);
    assert!(clock.is_missing());
}

#[test]
fn tables_with_a_wrong_checksum_count_for_nothing() {
    let mut clock = Clock::new(Some(7));
    let mut broken = section(0, 9, &[0, 1, 0xe0, 0x20]);
    broken[10] ^= 1;
    table(&mut clock, 0, &broken);
    assert!(!clock.is_missing());
}

#[test]
fn new_map_table_names_a_new_clock_and_declares_its_jump() {
    let mut clock = Clock::new(None);
    tables(&mut clock);
    assert_eq!(clock.read(&reference(0x100, 5)), Some(Reading { pcr: 5, declared: false }));
    table(&mut clock, 0x20, &section(2, 1, &[0xe3, 0x00, 0xf0, 0]));
    assert_eq!(clock.read(&reference(0x100, 6)), None);
    assert_eq!(clock.read(&reference(0x300, 7)), Some(Reading { pcr: 7, declared: true }));
}

#[test]
fn clock_that_stops_is_left_for_one_that_goes_on() {
    let mut clock = Clock::new(None);
    assert!(clock.read(&reference(0x100, 0)).is_some());
    let found: Vec<_> =
        (1..50).filter_map(|step| clock.read(&reference(0x200, step * STEP))).collect();
    assert_eq!(found.len(), 36, "after half a second");
    // A table that names a clock that never shows changes nothing for long.
    let mut clock = Clock::new(Some(1));
    tables(&mut clock);
    let found = (1..50).filter_map(|step| clock.read(&reference(0x200, step * STEP))).count();
    assert_eq!(found, 36);
    tables(&mut clock);
    assert!(clock.read(&reference(0x200, 50 * STEP)).is_some(), "the same table again");
}

#[test]
fn discontinuity_counts_until_the_next_reference_of_its_clock() {
    let mut clock = Clock::new(None);
    assert!(clock.read(&reference(0x100, 0)).is_some());
    let mark = |pid| Packet {
        pid,
        unit_start: false,
        discontinuity: true,
        pcr: None,
        payload: &[],
        broken: false,
    };
    assert_eq!(clock.read(&mark(0x200)), None);
    assert_eq!(clock.read(&reference(0x100, 9)), Some(Reading { pcr: 9, declared: false }));
    assert_eq!(clock.read(&mark(0x100)), None);
    assert_eq!(clock.read(&reference(0x100, 5)), Some(Reading { pcr: 5, declared: true }));
    assert_eq!(clock.read(&reference(0x100, 6)), Some(Reading { pcr: 6, declared: false }));
}
