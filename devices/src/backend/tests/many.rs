//! Many requests of a volume at a time, against a model of its bytes.

use std::collections::VecDeque;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::backend::{Cuts, Volume};
use crate::blk::{Outcome, Taken, TakenChain};

/// Requests at a time.
const SLOTS: usize = 8;
/// Room for the data of one.
const SLOT_BYTES: u64 = 0x80000;

/// What a guest may do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Read,
    Write(u8),
    Discard,
    /// With or without leave to give the space back.
    Zero(bool),
    Flush,
}

/// An action at a sector, over so many sectors.
pub(super) type Deed = (Action, u64, u64);

pub(super) fn deeds(sectors: u64, count: usize) -> impl Strategy<Value = Vec<Deed>> {
    let action = prop_oneof![
        4 => Just(Action::Read),
        6 => any::<u8>().prop_map(Action::Write),
        1 => Just(Action::Discard),
        1 => any::<bool>().prop_map(Action::Zero),
        1 => Just(Action::Flush),
    ];
    let deed = (action, 0..sectors, 1_u64..SLOT_BYTES / 512, any::<bool>()).prop_map(
        move |(action, at, len, whole)| {
            // Half of them as a guest with blocks of 4 KiB makes them.
            let (at, len) = if whole { (at / 8 * 8, len.next_multiple_of(8)) } else { (at, len) };
            (action, at, len.min(sectors - at))
        },
    );
    prop::collection::vec(deed, 1..count)
}

/// A guest that keeps several requests in flight, one per slot.
pub(super) struct Many {
    guest: Guest,
    jobs: Vec<Option<(Job, TakenChain, Deed)>>,
    stalled: Vec<usize>,
    /// Jobs of which another part may be begun, as an I/O domain would.
    unfinished: VecDeque<usize>,
    model: Vec<u8>,
    /// Sectors that were discarded and not yet read.
    unknown: Vec<(u64, u64)>,
    learning: bool,
    /// How long the parts of its requests may be.
    cuts: Cuts,
}

impl Many {
    /// `model` is what the volume holds now.
    pub(super) fn new(volume: &Volume, model: Vec<u8>) -> Self {
        let guest = Guest::new(volume.disk(1, 256));
        let jobs = (0..SLOTS).map(|_| None).collect();
        Self {
            guest,
            jobs,
            stalled: Vec::new(),
            unfinished: VecDeque::new(),
            model,
            unknown: Vec::new(),
            learning: false,
            cuts: Cuts::NONE,
        }
    }

    /// From now on no part of a request is longer than this.
    pub(super) fn cut(mut self, bytes: u64) -> Self {
        self.cuts = Cuts { read: bytes, write: bytes, discard: bytes, write_zeroes: bytes };
        self
    }

    /// Does all of it; requests that touch the same sectors one after the other. Every read is
    /// compared with the model. Returns the bytes that the volume has to hold.
    pub(super) fn run(mut self, volume: &mut Volume, deeds: &[Deed]) -> Vec<u8> {
        for deed in deeds {
            while self.conflicts(*deed) || self.jobs.iter().all(Option::is_some) {
                self.turn(volume);
            }
            self.post(volume, *deed);
            if let Action::Discard = deed.0 {
                self.finish(volume);
                self.learn(volume);
            }
        }
        self.finish(volume);
        self.model
    }

    /// Reads what discards have left behind.
    fn learn(&mut self, volume: &mut Volume) {
        for (at, len) in std::mem::take(&mut self.unknown) {
            self.learning = true;
            self.post(volume, (Action::Read, at, len));
            self.finish(volume);
            self.learning = false;
        }
    }

    /// Whether a request has parts that have not begun.
    pub(super) fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    pub(super) fn finish(&mut self, volume: &mut Volume) {
        while self.jobs.iter().any(Option::is_some) {
            self.turn(volume);
        }
    }

    fn conflicts(&self, (_, at, len): Deed) -> bool {
        let mut others = self.jobs.iter().flatten().map(|(_, _, deed)| deed);
        others.any(|(_, start, length)| *start < at + len && at < start + length)
    }

    pub(super) fn post(&mut self, volume: &mut Volume, deed: Deed) {
        let slot = self.jobs.iter().position(Option::is_none).unwrap();
        let n = slot as u64;
        let (header, status, data) = (0x4000 + n * 64, 0x4800 + n, DATA + n * SLOT_BYTES);
        let (action, at, len) = deed;
        let bytes = len * 512;
        let (kind, sector, flags) = match action {
            Action::Read => (0_u32, at, 0_u32),
            Action::Write(_) => (1, at, 0),
            Action::Flush => (4, 0, 0),
            Action::Discard => (11, 0, 0),
            Action::Zero(unmap) => (13, 0, u32::from(unmap)),
        };
        let mem = &self.guest.mem;
        mem.write_obj(kind, GuestAddress(header)).unwrap();
        mem.write_obj(sector, GuestAddress(header + 8)).unwrap();
        let len32 = u32::try_from(bytes).unwrap();
        let body = match action {
            Action::Read => vec![writable(data, len32)],
            Action::Write(seed) => {
                mem.write_slice(&written(seed, deed), GuestAddress(data)).unwrap();
                // In two pieces, so that parts begin within a segment.
                vec![readable(data, len32 - 512), readable(data + bytes - 512, 512)]
            }
            Action::Flush => Vec::new(),
            Action::Discard | Action::Zero(_) => {
                mem.write_obj(at, GuestAddress(data)).unwrap();
                mem.write_obj(u32::try_from(len).unwrap(), GuestAddress(data + 8)).unwrap();
                mem.write_obj(flags, GuestAddress(data + 12)).unwrap();
                vec![readable(data, 16)]
            }
        };
        self.guest
            .driver
            .post(&[&[readable(header, 16)], &body[..], &[writable(status, 1)]].concat());
        let next = self.guest.frontend.next_request(mem, &mut self.guest.queue).unwrap();
        let Next::Request(Taken { chain, request }) = next else {
            panic!("{deed:?}: {next:?}, {:?}", self.guest.frontend.last_refusal())
        };
        self.jobs[slot] = Some((Job::paced(request, self.cuts), chain, deed));
        self.step(volume, slot, None);
    }

    pub(super) fn turn(&mut self, volume: &mut Volume) {
        while let Some(slot) = self.unfinished.pop_front() {
            if let Some((job, ..)) = &mut self.jobs[slot] {
                job.allow();
            }
            self.step(volume, slot, None);
        }
        if self.jobs.iter().all(Option::is_none) {
            return;
        }
        let completion = wait(&mut self.guest.ring);
        let slot = usize::try_from(completion.token & 0xffff).unwrap();
        self.step(volume, slot, Some((completion.token, completion.result)));
        for slot in std::mem::take(&mut self.stalled) {
            self.step(volume, slot, None);
        }
    }

    fn step(&mut self, volume: &mut Volume, slot: usize, result: Option<(u64, io::Result<u32>)>) {
        let Some((mut job, chain, deed)) = self.jobs[slot].take() else { return };
        let ring = &mut self.guest.ring;
        let step = match result {
            None => volume.submit(ring, slot as u64, &mut job),
            Some((token, result)) => volume.completed(ring, token, &mut job, result),
        };
        match step {
            Ok(Step::Done(outcome)) => return self.end(slot, chain, deed, outcome),
            Ok(Step::Pending) if job.wants_more() => self.unfinished.push_back(slot),
            Ok(Step::Pending) => {}
            Err(_) => self.stalled.push(slot),
        }
        self.jobs[slot] = Some((job, chain, deed));
    }

    fn end(&mut self, slot: usize, chain: TakenChain, deed: Deed, outcome: Outcome) {
        assert_eq!(outcome, Outcome::Ok, "{deed:?}");
        let (action, at, len) = deed;
        let range = usize::try_from(at * 512).unwrap()..usize::try_from((at + len) * 512).unwrap();
        let data = DATA + slot as u64 * SLOT_BYTES;
        match action {
            Action::Read => {
                let got = self.guest.bytes(data, range.len());
                for (got, was) in got.iter().zip(&mut self.model[range]) {
                    let discarded = self.learning && *got == 0;
                    assert!(got == was || discarded, "{deed:?} reads something else");
                    *was = *got;
                }
            }
            Action::Write(seed) => self.model[range].copy_from_slice(&written(seed, deed)),
            Action::Zero(_) => self.model[range].fill(0),
            // It may leave anything behind, and what has changed reads as zeros; partly covered
            // clusters keep what they have. The model takes what is there.
            Action::Discard => self.unknown.push((at, len)),
            Action::Flush => {}
        }
        let (mem, queue) = (&self.guest.mem, &mut self.guest.queue);
        self.guest.frontend.complete(mem, queue, chain, outcome).unwrap();
        assert!(self.guest.driver.used().is_some());
    }
}

/// What a write with this seed writes.
fn written(seed: u8, (_, at, len): Deed) -> Vec<u8> {
    let byte = |n: u64| (n / 512 * 7 + n + u64::from(seed)) % 253 + 1;
    (at * 512..(at + len) * 512).map(|n| u8::try_from(byte(n)).unwrap()).collect()
}
