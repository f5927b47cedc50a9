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
fn nothing_is_believed_of_an_adaptation_field_that_cannot_be_one() {
    let read = |control: u8, len: u8, flags: u8, optional: &[u8]| {
        let mut bytes = packet(256, Some(300));
        bytes[3] = control;
        bytes[4] = len;
        bytes[5] = flags;
        bytes[12..12 + optional.len()].copy_from_slice(optional);
        let read = Packet::parse(&bytes).unwrap();
        if read.broken {
            assert_eq!((read.discontinuity, read.pcr, read.payload.len()), (false, None, 0));
        }
        (!read.broken).then_some((read.discontinuity, read.pcr, read.payload.len()))
    };
    // With a payload a field has up to 182 bytes, and 183 without.
    for len in 183..=255 {
        assert_eq!(read(0x30, len, 0x90, &[]), None, "{len} bytes");
    }
    for len in 184..=255 {
        assert_eq!(read(0x20, len, 0x90, &[]), None, "{len} bytes, no payload");
    }
    assert_eq!(read(0x30, 182, 0x90, &[]), Some((true, Some(300), 1)));
    assert_eq!(read(0x20, 183, 0x90, &[]), Some((true, Some(300), 0)));
    assert_eq!(read(0x20, 7, 0x10, &[]), Some((false, Some(300), 0)), "stuffing behind it");
    // What the flags announce has to fit.
    for (flags, fits, optional) in [
        (0x90, 7, &[][..]),
        (0x18, 13, &[]),
        (0x14, 8, &[]),
        (0x12, 8, &[0]),
        (0x12, 12, &[4]),
        (0x13, 14, &[4, 0, 0, 0, 0, 1]),
    ] {
        assert!(read(0x30, fits, flags, optional).is_some(), "{flags:#x} in {fits}");
        assert_eq!(read(0x30, fits - 1, flags, optional), None, "{flags:#x} in {}", fits - 1);
    }
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
