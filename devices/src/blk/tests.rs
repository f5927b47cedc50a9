//! Requests that drivers post, and what no driver should.

mod random;

use std::sync::Arc;

use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress};

use super::config::{MAX_DISCARD_BYTES, MAX_REQUEST_BYTES, SEG_MAX};
use super::*;
use crate::memory::GuestMemory;
use crate::mock::{self, Driver, readable, writable};
use crate::virtqueue::{Descriptor, QueueError};

const HEADER: u64 = 0x4000;
const STATUS: u64 = 0x4100;
const DATA: u64 = 0x8000;
const MEMORY: usize = 16 << 20;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

fn disk() -> Disk {
    Disk {
        capacity_sectors: 1 << 20,
        read_only: false,
        block_size: 512,
        topology: Topology {
            physical_block_bytes: 4096,
            optimal_io_bytes: 0,
            discard_align_bytes: 65536,
        },
        discard: true,
        write_zeroes: true,
        queues: 1,
        queue_size: 256,
        id: *b"moirai-disk\0\0\0\0\0\0\0\0\0",
    }
}

struct Guest {
    mem: Arc<GuestMemory>,
    driver: Driver,
    queue: Queue,
    frontend: Frontend,
}

impl Guest {
    fn new(disk: Disk) -> Self {
        let mem = mock::memory(MEMORY);
        let driver = Driver::new(Arc::clone(&mem), 0, 256);
        let queue = driver.queue();
        Self { mem, driver, queue, frontend: Frontend::new(disk) }
    }

    /// Writes a header and posts it with these data descriptors and a status byte.
    fn post(&mut self, kind: u32, sector: u64, data: &[Descriptor]) {
        self.header(kind, sector);
        let chain = [&[readable(HEADER, 16)], data, &[writable(STATUS, 1)]].concat();
        self.driver.post(&chain);
    }

    fn header(&mut self, kind: u32, sector: u64) {
        self.mem.write_obj(kind, GuestAddress(HEADER)).unwrap();
        self.mem.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
        self.mem.write_obj(0xaa_u8, GuestAddress(STATUS)).unwrap();
    }

    fn next(&mut self) -> Next {
        self.frontend.next_request(&self.mem, &mut self.queue).unwrap()
    }

    fn taken(&mut self) -> Taken {
        match self.next() {
            Next::Request(taken) => taken,
            other => panic!("no request but {other:?}: {:?}", self.frontend.last_refusal()),
        }
    }

    fn request(&mut self) -> Request {
        self.taken().request
    }

    fn status(&self) -> u8 {
        self.mem.read_obj(GuestAddress(STATUS)).unwrap()
    }

    /// The chain was answered at once with this status, because of that rule.
    fn refused(&mut self) -> (u8, ParseError) {
        assert!(matches!(self.next(), Next::Answered));
        assert_eq!(self.driver.used().map(|(_, len)| len), Some(1));
        (self.status(), self.frontend.last_refusal().unwrap())
    }
}

#[test]
fn a_read_is_given_out_and_returned_with_its_status() {
    let mut guest = Guest::new(disk());
    guest.post(IN, 3, &[writable(DATA, 4096), writable(DATA + 0x2000, 512)]);
    let Taken { chain, request } = guest.taken();
    assert_eq!(request.op, Op::Read { offset_bytes: 3 * 512 });
    assert_eq!((request.buffers.len_bytes(), request.buffers.segments().len()), (4608, 2));
    assert!(request.buffers.aligned_to(512));
    assert_eq!(guest.frontend.in_flight(), 1);

    let Guest { frontend, mem, queue, .. } = &mut guest;
    frontend.complete(mem, queue, chain, Outcome::Ok).unwrap();
    assert_eq!((guest.driver.used(), guest.status()), (Some((0, 4609)), 0));
    assert_eq!((guest.frontend.in_flight(), guest.frontend.counters.completed), (0, 1));
    assert!(matches!(guest.next(), Next::Empty));
}

#[test]
fn a_failed_request_carries_its_status_and_no_data() {
    for (outcome, status) in [(Outcome::IoError, 1), (Outcome::Unsupported, 2)] {
        let mut guest = Guest::new(disk());
        guest.post(IN, 0, &[writable(DATA, 512)]);
        let Taken { chain, .. } = guest.taken();
        let Guest { frontend, mem, queue, .. } = &mut guest;
        frontend.complete(mem, queue, chain, outcome).unwrap();
        assert_eq!((guest.driver.used(), guest.status()), (Some((0, 1)), status));
        assert_eq!(guest.frontend.counters.io_errors, 1);
    }
}

#[test]
fn writes_are_durable_only_for_drivers_without_flush() {
    let mut guest = Guest::new(disk());
    guest.post(OUT, 1, &[readable(DATA, 512)]);
    assert_eq!(guest.request().op, Op::Write { offset_bytes: 512, durable: false });
    guest.frontend.set_features(0);
    guest.post(OUT, 1, &[readable(DATA, 512)]);
    assert_eq!(guest.request().op, Op::Write { offset_bytes: 512, durable: true });
    guest.frontend.set_features(disk().features());
    guest.post(OUT, 1, &[readable(DATA, 512)]);
    assert_eq!(guest.request().op, Op::Write { offset_bytes: 512, durable: false });
}

#[test]
fn framing_does_not_matter() {
    let mut guest = Guest::new(disk());
    guest.header(OUT, 2);
    // Header in two pieces, the second one with data behind it: 16 bytes of header, 512 of data.
    let mut header = [0_u8; 16];
    guest.mem.read_slice(&mut header, GuestAddress(HEADER)).unwrap();
    guest.mem.write_slice(&header[10..], GuestAddress(0x5000)).unwrap();
    guest.driver.post(&[readable(HEADER, 10), readable(0x5000, 6 + 512), writable(STATUS, 1)]);
    let request = guest.request();
    assert_eq!(request.op, Op::Write { offset_bytes: 1024, durable: false });
    assert_eq!(request.buffers.len_bytes(), 512);
    assert!(!request.buffers.aligned_to(512));

    // Status as the last byte of the data descriptor.
    guest.header(IN, 0);
    guest.driver.post(&[readable(HEADER, 16), writable(DATA, 513)]);
    let Taken { chain, request } = guest.taken();
    assert_eq!(request.buffers.len_bytes(), 512);
    let Guest { frontend, mem, queue, .. } = &mut guest;
    frontend.complete(mem, queue, chain, Outcome::IoError).unwrap();
    assert_eq!(guest.mem.read_obj::<u8>(GuestAddress(DATA + 512)).unwrap(), 1);
}

#[test]
fn get_id_is_answered_at_once() {
    let mut guest = Guest::new(disk());
    guest.post(GET_ID, 0, &[writable(DATA, 20)]);
    assert!(matches!(guest.next(), Next::Answered));
    let mut id = [0; DISK_ID_LEN];
    guest.mem.read_slice(&mut id, GuestAddress(DATA)).unwrap();
    assert_eq!((id, guest.status()), (disk().id, 0));
    assert_eq!(guest.driver.used(), Some((0, 21)));
}

#[test]
fn flush_discard_and_write_zeroes_are_parsed() {
    let mut guest = Guest::new(disk());
    guest.post(FLUSH, 0, &[]);
    assert_eq!(guest.request().op, Op::Flush);
    for (kind, flags) in [(DISCARD, 0), (WRITE_ZEROES, 0), (WRITE_ZEROES, 1)] {
        guest.mem.write_obj(8_u64, GuestAddress(DATA)).unwrap();
        guest.mem.write_obj(16_u32, GuestAddress(DATA + 8)).unwrap();
        guest.mem.write_obj(flags, GuestAddress(DATA + 12)).unwrap();
        guest.post(kind, 0, &[readable(DATA, 16)]);
        let range = Range { offset_bytes: 4096, len_bytes: 8192, unmap: flags == 1 };
        let expected = if kind == DISCARD { Op::Discard(range) } else { Op::WriteZeroes(range) };
        assert_eq!(guest.request().op, expected);
    }
}

/// One chain that breaks a rule, the status it gets and the rule.
fn check_refusal(
    disk: Disk,
    kind: u32,
    sector: u64,
    data: &[Descriptor],
    status: u8,
    rule: fn(ParseError) -> bool,
) {
    let mut guest = Guest::new(disk);
    guest.post(kind, sector, data);
    let (got, error) = guest.refused();
    assert!(got == status && rule(error), "type {kind}: status {got}, {error}");
    assert_eq!(guest.frontend.counters.refused, 1);
}

#[test]
fn each_broken_rule_of_a_transfer_has_its_error() {
    let data = [writable(DATA, 512)];
    let last = disk().capacity_sectors;
    check_refusal(disk(), 99, 0, &data, 2, |e| e == ParseError::UnknownType(99));
    check_refusal(disk(), IN, 0, &[], 1, |e| matches!(e, ParseError::BadLength { .. }));
    check_refusal(disk(), IN, 0, &[writable(DATA, 100)], 1, |e| {
        e == ParseError::BadLength { kind: IN, len_bytes: 100 }
    });
    check_refusal(disk(), IN, 0, &[readable(DATA, 512)], 1, |e| {
        matches!(e, ParseError::WrongDirection { .. })
    });
    check_refusal(disk(), OUT, 0, &data, 1, |e| matches!(e, ParseError::WrongDirection { .. }));
    check_refusal(disk(), FLUSH, 0, &data, 1, |e| matches!(e, ParseError::WrongDirection { .. }));
    for sector in [last, u64::MAX, u64::MAX / 512, u64::MAX / 512 + 1] {
        check_refusal(disk(), IN, sector, &data, 1, |e| {
            matches!(e, ParseError::BeyondCapacity { .. })
        });
    }
    check_refusal(disk(), IN, last - 1, &[writable(DATA, 1024)], 1, |e| {
        matches!(e, ParseError::BeyondCapacity { .. })
    });
    let outside = writable(MEMORY as u64 - 256, 512);
    check_refusal(disk(), IN, 0, &[outside], 1, |e| matches!(e, ParseError::OutsideMemory(_)));
    let wrapping = writable(u64::MAX - 10, 512);
    check_refusal(disk(), IN, 0, &[wrapping], 1, |e| matches!(e, ParseError::OutsideMemory(_)));
    let long = u32::try_from(MAX_REQUEST_BYTES + 512).unwrap();
    check_refusal(disk(), IN, 0, &[writable(DATA, long)], 1, |e| {
        matches!(e, ParseError::TooLong { .. })
    });
    let read_only = Disk { read_only: true, ..disk() };
    check_refusal(read_only, OUT, 0, &[readable(DATA, 512)], 1, |e| e == ParseError::ReadOnly(OUT));
}

#[test]
fn each_broken_rule_of_a_range_has_its_error() {
    let mem_range = |guest: &Guest, sector: u64, sectors: u32, flags: u32| {
        guest.mem.write_obj(sector, GuestAddress(DATA)).unwrap();
        guest.mem.write_obj(sectors, GuestAddress(DATA + 8)).unwrap();
        guest.mem.write_obj(flags, GuestAddress(DATA + 12)).unwrap();
    };
    let refuse = |disk: Disk, kind, sector, sectors, flags| {
        let mut guest = Guest::new(disk);
        mem_range(&guest, sector, sectors, flags);
        guest.post(kind, 0, &[readable(DATA, 16)]);
        guest.refused()
    };
    let too_long = u32::try_from(MAX_DISCARD_BYTES / 512 + 1).unwrap();
    assert!(matches!(refuse(disk(), DISCARD, 0, 1, 1), (2, ParseError::BadFlags { .. })));
    assert!(matches!(refuse(disk(), WRITE_ZEROES, 0, 1, 2), (2, ParseError::BadFlags { .. })));
    assert!(matches!(refuse(disk(), DISCARD, 0, too_long, 0), (1, ParseError::TooLong { .. })));
    assert!(matches!(
        refuse(disk(), DISCARD, u64::MAX, 8, 0),
        (1, ParseError::BeyondCapacity { .. })
    ));
    let without = Disk { discard: false, ..disk() };
    assert!(matches!(refuse(without, DISCARD, 0, 1, 0), (2, ParseError::UnknownType(DISCARD))));
    let read_only = Disk { read_only: true, ..disk() };
    assert!(matches!(refuse(read_only, DISCARD, 0, 1, 0), (1, ParseError::ReadOnly(DISCARD))));
    for len in [8, 32] {
        let mut guest = Guest::new(disk());
        guest.post(DISCARD, 0, &[readable(DATA, len)]);
        let (status, error) = guest.refused();
        let expected =
            matches!(error, ParseError::BadLength { .. } | ParseError::WrongDirection { .. });
        assert!(status == 1 && expected, "{len}: {error}");
    }
}

#[test]
fn more_segments_than_announced_are_refused() {
    let mut guest = Guest::new(disk());
    guest.header(IN, 0);
    let data: Vec<_> = (0..=u64::from(SEG_MAX)).map(|n| writable(DATA + n * 512, 512)).collect();
    let chain = [&[readable(HEADER, 16)], &data[..], &[writable(STATUS, 1)]].concat();
    guest.driver.post_indirect(0x5000, &chain);
    assert!(matches!(guest.refused(), (1, ParseError::TooManySegments { segments: 255 })));
    guest.header(IN, 0);
    let chain = [&[readable(HEADER, 16)], &data[1..], &[writable(STATUS, 1)]].concat();
    guest.driver.post_indirect(0x5000, &chain);
    assert_eq!(guest.request().buffers.segments().len(), SEG_MAX as usize);
}

#[test]
fn a_short_header_or_mixed_directions_still_get_a_status() {
    let mut guest = Guest::new(disk());
    guest.header(IN, 0);
    guest.driver.post(&[readable(HEADER, 15), writable(DATA, 512), writable(STATUS, 1)]);
    assert_eq!(guest.refused(), (1, ParseError::ShortHeader(15)));
    guest.header(IN, 0);
    let chain = [writable(DATA, 512), readable(HEADER, 16), writable(STATUS, 1)];
    guest.driver.post(&chain);
    assert_eq!(guest.refused(), (1, ParseError::MixedDirections));
}

#[test]
fn a_chain_without_a_usable_status_is_returned_empty_and_counted() {
    let mut guest = Guest::new(disk());
    let outside = MEMORY as u64;
    guest.driver.post(&[readable(HEADER, 16), readable(DATA, 512)]);
    guest.driver.post(&[readable(HEADER, 16), writable(DATA, 512), writable(outside, 1)]);
    guest.driver.post(&[readable(HEADER, 16), writable(u64::MAX, 2)]);
    guest.driver.post(&[]);
    for _ in 0..3 {
        assert!(matches!(guest.next(), Next::Answered));
        assert_eq!(guest.driver.used().map(|(_, len)| len), Some(0));
    }
    assert_eq!(guest.frontend.counters.unanswerable, 3);
}

#[test]
fn a_broken_ring_fails_the_device() {
    let mut guest = Guest::new(disk());
    guest.driver.make_available(1000);
    let error = guest.frontend.next_request(&guest.mem, &mut guest.queue).unwrap_err();
    assert!(matches!(error, FrontendError::Ring(QueueError::HeadOutOfRange { head: 1000, .. })));
}

#[test]
fn the_configuration_space_has_the_layout_of_the_specification() {
    let config = disk().config_space();
    assert_eq!(config.len(), 60);
    assert_eq!(config[..8], (1_u64 << 20).to_le_bytes());
    assert_eq!(config[12..16], SEG_MAX.to_le_bytes());
    let small = Disk { queue_size: 64, ..disk() }.config_space();
    assert_eq!(small[12..16], 62_u32.to_le_bytes());
    assert_eq!(config[20..24], 512_u32.to_le_bytes());
    assert_eq!(config[34..36], 1_u16.to_le_bytes());
    assert_eq!(config[56], 1);
    assert_eq!((config[24], &config[44..48]), (3, &128_u32.to_le_bytes()[..]));
    let read_only =
        Disk { read_only: true, discard: false, write_zeroes: false, queues: 4, ..disk() };
    assert_eq!(read_only.config_space()[34..36], 4_u16.to_le_bytes());
    let read_only = read_only.features();
    assert_eq!(read_only >> 5 & 1, 1);
    assert_eq!((read_only >> 13 & 1, read_only >> 14 & 1, read_only >> 12 & 1), (0, 0, 1));
}
