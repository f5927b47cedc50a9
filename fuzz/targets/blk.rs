//! Chains of a block device's driver.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moirai_devices::blk::{Disk, Frontend, Next, Op, Outcome, Taken, Topology};
use moirai_fuzz::{Guest, Input};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let topology =
        Topology { physical_block_bytes: 4096, optimal_io_bytes: 0, discard_align_bytes: 65536 };
    let disk = Disk {
        capacity_sectors: 1 << 20,
        read_only: false,
        block_size: 512,
        topology,
        discard: true,
        write_zeroes: true,
        queues: 1,
        queue_size: 256,
        id: [7; 20],
    };
    let capacity = disk.capacity_sectors * 512;
    let mut frontend = Frontend::new(disk);
    frontend.set_features(u64::MAX);
    let mut guest = Guest::new(1);
    while !input.is_empty() {
        guest.act(&mut input);
        for _ in 0..64 {
            match frontend.next_request(&guest.memory, &mut guest.queues[0]) {
                Ok(Next::Request(Taken { chain, request })) => {
                    let (offset, len) = match request.op {
                        Op::Read { offset_bytes } | Op::Write { offset_bytes, .. } => {
                            (offset_bytes, request.buffers.len_bytes())
                        }
                        Op::Discard(range) | Op::WriteZeroes(range) => {
                            (range.offset_bytes, range.len_bytes)
                        }
                        Op::Flush => (0, 0),
                    };
                    assert!(offset + len <= capacity, "outside the disk");
                    let queue = &mut guest.queues[0];
                    let _ = frontend.complete(&guest.memory, queue, chain, Outcome::Ok);
                }
                Ok(Next::Answered) => {}
                Ok(Next::Empty) | Err(_) => break,
            }
        }
    }
});
