//! Attacks on rings: chains and indices that no driver would post, rings at places where none can
//! be.

use alloc::vec::Vec;
use moirai_sdk::{App, AppError};

use crate::device::{
    DATA, HEADER, INDIRECT, NEXT, QUEUE_READY, QUEUE_SELECT, QUEUE_SIZE, QUEUE_SIZE_MAX, Rig, SIZE,
    STATUS, STATUS_BYTE, TABLE, Verdict, WRITE,
};
use crate::{Score, device};

/// Writes one bad chain into a ring and offers it; `round` chooses among variants.
type Chain = fn(&mut Rig, round: u16);

/// The attacks of one chain each.
pub(crate) const CHAINS: [(&str, Chain); 11] = [
    ("loop", looped),
    ("next-outside", next_outside),
    ("head-outside", |rig, round| rig.offer(SIZE + round * 1000)),
    ("outside", outside),
    ("overflow", overflow),
    ("mixed", mixed),
    ("indirect", indirect),
    ("index-jump", index_jump),
    ("same-head", same_head),
    ("overlap", overlap),
    ("receive", looped),
];

/// Variants of each attack.
const ROUNDS: u16 = 6;

/// Posts the bad chain to every device, resets and looks whether the device serves again; at last
/// posts it once more and leaves it there.
pub(crate) fn post(app: &App, name: &str, chain: Chain) -> Result<Score, AppError> {
    let mut rigs: Vec<Rig> = Rig::all(app)?;
    let mut score = Score::default();
    for rig in &mut rigs {
        let queue = rig.queue;
        for round in 0..ROUNDS {
            if name == "receive" && rig.is_network {
                rig.queue = 0;
            }
            rig.start()?;
            chain(rig, round);
            rig.kick();
            score.count(rig.verdict());
            rig.queue = queue;
            if round + 1 < ROUNDS {
                score.recovered += u64::from(rig.recovers()?);
            }
        }
    }
    // The devices keep what they were left with.
    core::mem::forget(rigs);
    Ok(score)
}

fn looped(rig: &mut Rig, round: u16) {
    let data = (rig.address(DATA), 512);
    let length = round * 50 + 1;
    for at in 0..length {
        rig.describe(at, data, NEXT | WRITE, (at + 1) % length);
    }
    rig.offer(0);
}

fn next_outside(rig: &mut Rig, round: u16) {
    let header = (rig.address(HEADER), 16);
    rig.describe(0, header, NEXT, SIZE + round * 10_000);
    rig.offer(0);
}

fn outside(rig: &mut Rig, round: u16) {
    let addresses = [0xdead_beef_0000, u64::MAX - 511, u64::MAX, 1 << 40, 0xd000_0000, 0xfee0_0000];
    let bad = addresses[usize::from(round) % addresses.len()];
    rig.honest(0);
    let flags = if rig.is_network { 0 } else { NEXT | WRITE };
    rig.describe(u16::from(!rig.is_network), (bad, 4096), flags, 2);
    rig.offer(0);
    // The header and the status byte too.
    rig.honest(3);
    rig.describe(3, (bad, 16), if rig.is_network { 0 } else { NEXT }, 4);
    rig.offer(3);
    rig.honest(6);
    rig.describe(if rig.is_network { 6 } else { 8 }, (bad, 1), WRITE, 0);
    rig.offer(6);
}

fn overflow(rig: &mut Rig, round: u16) {
    let data = rig.address(DATA);
    rig.honest(0);
    for at in 1..=round + 1 {
        rig.describe(at, (data, u32::MAX - u32::from(round)), NEXT | WRITE, at + 1);
    }
    rig.describe(round + 2, (data, u32::MAX), WRITE, 0);
    if rig.is_network {
        rig.describe(0, (data, u32::MAX), NEXT, 1);
    }
    rig.offer(0);
}

fn mixed(rig: &mut Rig, round: u16) {
    let (header, data, status) = (rig.address(HEADER), rig.address(DATA), rig.address(STATUS_BYTE));
    let flags = |bit: u16| if round >> bit & 1 == 0 { WRITE } else { 0 };
    rig.describe(0, (header, 16), NEXT | flags(0), 1);
    rig.describe(1, (data, 512), NEXT | WRITE, 2);
    rig.describe(2, (data, 512), NEXT | flags(1), 3);
    rig.describe(3, (data, 0), NEXT, 4);
    rig.describe(4, (status, 1), flags(2), 0);
    rig.offer(0);
}

fn indirect(rig: &mut Rig, round: u16) {
    let table = rig.address(TABLE);
    let (address, len, flags) = match round {
        0 => (table, 16, INDIRECT),                // holds an indirect descriptor
        1 => (table, 17, INDIRECT),                // not whole descriptors
        2 => (table, 0, INDIRECT),                 // no descriptors
        3 => (u64::MAX - 15, 32, INDIRECT),        // wraps around
        4 => (table, 16, INDIRECT | NEXT | WRITE), // goes on behind the table
        _ => (table & !0xfff, !15, INDIRECT),      // more than there is of memory
    };
    rig.describe(0, (address, len), flags, 0);
    rig.describe_in(TABLE, 0, (table, 16), INDIRECT | NEXT, 0);
    rig.offer(0);
}

fn index_jump(rig: &mut Rig, round: u16) {
    rig.honest(0);
    rig.offer(0);
    rig.skip([SIZE, 30_000, u16::MAX - 1, u16::MAX - 5, 0x8000, 300][usize::from(round) % 6]);
}

/// One chain, offered as often as the ring has places: more in flight than there can be.
fn same_head(rig: &mut Rig, _round: u16) {
    rig.honest(0);
    for _ in 0..SIZE {
        rig.offer(0);
    }
    rig.kick();
    rig.skip(SIZE / 2);
}

/// The used ring lies over the available ring and the descriptors.
fn overlap(rig: &mut Rig, round: u16) {
    let areas = [[0, 0x1000, 0x1000], [0, 0x1000, 0], [0, 0x1000, 0x0ffc], [0, 0x1000, 0x1004]];
    // What `post` has started is started anew; a device that refuses that needs a reset.
    if rig.start_with(areas[usize::from(round) % areas.len()]).is_err() {
        return;
    }
    for at in 0..SIZE / 4 {
        rig.honest(3 * at);
        rig.offer(3 * at);
    }
    rig.kick();
}

/// Queues of impossible size, or where no memory is. A device that took one would be `answered`.
pub(crate) fn sizes(app: &App) -> Result<Score, AppError> {
    let mut rigs = Rig::all(app)?;
    let mut score = Score::default();
    for rig in &mut rigs {
        let good = rig.address(0);
        let memory_end = 1 << 40;
        let places = [good + 8, good + 1, memory_end, u64::MAX - 15, !0xfff, 0xfee0_0000];
        rig.window.write(QUEUE_SELECT, rig.queue);
        let too_large = 2 * rig.window.read(QUEUE_SIZE_MAX);
        let sizes = [0, 3, too_large, 65_535, 65_536, u32::MAX];
        let bad_sizes = sizes.into_iter().map(|size| (size, good));
        for (size, place) in bad_sizes.chain(places.into_iter().map(|place| (256, place))) {
            rig.negotiate()?;
            let window = rig.window;
            window.write(QUEUE_SELECT, rig.queue);
            window.write(QUEUE_SIZE, size);
            window.place([place, place, place]);
            window.write(QUEUE_READY, 1);
            let all = device::ACKNOWLEDGE | device::DRIVER | device::FEATURES_OK;
            window.write(STATUS, all | device::DRIVER_OK);
            rig.kick();
            let failed = window.needs_reset();
            score.count(if failed { Verdict::Failed } else { Verdict::Answered });
            score.recovered += u64::from(rig.recovers()?);
        }
    }
    core::mem::forget(rigs);
    Ok(score)
}
