//! Requests and rings made by chance.

use proptest::prelude::*;
use vm_memory::GuestMemoryBackend;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever header and chain a guest posts: one chain in, at most one out, every accepted
    /// request inside the disk and the memory, nothing panics.
    #[test]
    fn random_requests_stay_inside_disk_and_memory(
        header in any::<[u8; 16]>(),
        kind in prop_oneof![
            Just(0_u32), Just(1), Just(4), Just(8), Just(11), Just(13), any::<u32>()
        ],
        near in prop_oneof![0_u64..=1 << 20, any::<u64>()],
        pieces in proptest::collection::vec(
            (prop_oneof![0_u64..MEMORY as u64 + 4096, any::<u64>()],
             prop_oneof![(0_u32..9).prop_map(|n| n * 512), any::<u32>()],
             any::<bool>()),
            0..8,
        ),
        status in any::<bool>(),
    ) {
        let mut guest = Guest::new(disk());
        guest.mem.write_slice(&header, GuestAddress(HEADER)).unwrap();
        guest.header(kind, near);
        let mut chain = vec![readable(HEADER, 16)];
        chain.extend(pieces.into_iter().map(|(addr, len, writable)| {
            Descriptor { addr: GuestAddress(addr), len, writable }
        }));
        if status {
            chain.push(writable(STATUS, 1));
        }
        guest.driver.post(&chain);
        match guest.frontend.next_request(&guest.mem, &mut guest.queue) {
            Ok(Next::Request(Taken { chain, request })) => {
                let capacity = disk().capacity_sectors * 512;
                let (offset, len) = match request.op {
                    Op::Read { offset_bytes } | Op::Write { offset_bytes, .. } => {
                        (offset_bytes, request.buffers.len_bytes())
                    }
                    Op::Discard(range) | Op::WriteZeroes(range) => {
                        (range.offset_bytes, range.len_bytes)
                    }
                    Op::Flush => (0, 0),
                };
                prop_assert!(offset + len <= capacity);
                prop_assert!((offset | len) % 512 == 0);
                let base = guest.mem.get_host_address(GuestAddress(0)).unwrap() as usize;
                for segment in request.buffers.segments() {
                    let end = base + MEMORY;
                    prop_assert!(segment.addr >= base && segment.addr + segment.len <= end);
                }
                let Guest { frontend, mem, queue, .. } = &mut guest;
                frontend.complete(mem, queue, chain, Outcome::Ok).unwrap();
                prop_assert!(guest.driver.used().is_some());
            }
            Ok(Next::Answered) => prop_assert!(guest.driver.used().is_some()),
            Ok(Next::Empty) => prop_assert!(false, "the chain vanished"),
            Err(_) => prop_assert!(guest.driver.used().is_none()),
        }
        prop_assert!(guest.driver.used().is_none());
    }

    /// All that a guest can write is random; the frontend answers or fails, and ends.
    #[test]
    fn random_memory_never_panics_the_frontend(
        bytes in proptest::collection::vec(any::<u8>(), 0x3000),
        available in 0_u16..=256,
    ) {
        let mut guest = Guest::new(disk());
        guest.mem.write_slice(&bytes, GuestAddress(0)).unwrap();
        let [_, avail, _] = guest.driver.addresses();
        guest.mem.write_obj(available, GuestAddress(avail + 2)).unwrap();
        for _ in 0..=256 {
            match guest.frontend.next_request(&guest.mem, &mut guest.queue) {
                Ok(Next::Request(Taken { chain, .. })) => {
                    let Guest { frontend, mem, queue, .. } = &mut guest;
                    frontend.complete(mem, queue, chain, Outcome::Ok).unwrap();
                }
                Ok(Next::Answered) => {}
                Ok(Next::Empty) | Err(_) => break,
            }
        }
    }
}
