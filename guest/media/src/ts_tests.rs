//! Tests of what packets say.
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

#[test]
fn clock_reference_and_payload_are_read() {
    let bytes = packet(256, Some(1_081_000));
    let read = Packet::parse(&bytes).unwrap();
    assert_eq!((read.pid, read.pcr, read.payload.len()), (256, Some(1_081_000), 176));
    assert!(!read.discontinuity && !read.unit_start);
    let bytes = packet(0x4011, None);
    let read = Packet::parse(&bytes).unwrap();
    assert_eq!((read.pid, read.unit_start, read.payload.len()), (17, true, 184));
}

#[test]
fn greatest_clock_value_stays_below_the_wrap() {
    assert_eq!(Packet::parse(&packet(256, Some(PCR_WRAP - 1))).unwrap().pcr, Some(PCR_WRAP - 1));
}

#[test]
fn discontinuity_is_read_with_and_without_a_clock_reference() {
    let mut bytes = packet(256, Some(300));
    bytes[5] = 0x90;
    assert!(Packet::parse(&bytes).unwrap().discontinuity);
    bytes[4] = 1;
    bytes[5] = 0x80;
    let read = Packet::parse(&bytes).unwrap();
    assert_eq!((read.discontinuity, read.pcr), (true, None));
    bytes[4] = 0;
    assert!(!Packet::parse(&bytes).unwrap().discontinuity, "an empty field has no flags");
}

#[test]
fn short_adaptation_field_has_no_clock_whatever_its_flags_say() {
    let mut bytes = packet(256, Some(300));
    bytes[4] = 6;
    assert_eq!(Packet::parse(&bytes).unwrap().pcr, None);
}

#[test]
fn arbitrary_bytes_do_no_harm() {
    let mut seed = 1u64;
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..188)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) as u8
            })
            .collect();
        bytes[0] = SYNC_BYTE;
        let read = Packet::parse(&bytes).unwrap();
        assert!(read.pcr.is_none_or(|pcr| pcr < PCR_WRAP));
        assert!(Packet::parse(&bytes[..(seed >> 60) as usize % 4]).is_none());
    }
}
