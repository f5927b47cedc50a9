//! One run: units of one kind and size, so many at a time, each timed from submission to
//! completion.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use moirai_devices::backend::bounce;
use moirai_devices::backend::uring::Uring;
use moirai_devices::backend::{Completion, Operations as _, Ring as _};
use moirai_devices::memory::Buffers;

use super::report::Measure;
use super::runs::{Pattern, Run, SIZES};
use super::target::Target;

/// Longer than any unit takes that is worth waiting for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest time that is told apart, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Memory and a ring, for one run after the other.
pub(super) struct Bench<'a> {
    target: &'a Target,
    ring: Uring,
    memory: Vec<Buffers>,
    random: u64,
    next: u64,
}

impl<'a> Bench<'a> {
    /// For at most `depth` units at a time.
    pub(super) fn new(target: &'a Target, depth: u32) -> io::Result<Self> {
        let depth = depth.max(1);
        let longest = SIZES.into_iter().max().unwrap_or(0);
        let memory = (0..depth).map(|_| bounce::zeroed(longest)).collect::<io::Result<_>>()?;
        let ring = Uring::new(depth)?;
        Ok(Self { target, ring, memory, random: 0x9e37_79b9_7f4a_7c15, next: 0 })
    }

    /// Does units until `end`, or until so many bytes have been moved; at least one for each place.
    pub(super) fn run(&mut self, run: Run, end: Instant, most_bytes: u64) -> io::Result<Measure> {
        let mut times =
            Histogram::<u64>::new_with_bounds(1, LONGEST, 3).map_err(io::Error::other)?;
        let begun = moirai_runtime::instant();
        let (mut moved, mut count) = (0_u64, 0_u64);
        let mut since = vec![begun; self.memory.len()];
        for place in 0..run.depth {
            self.start(run, place, &mut since)?;
        }
        let mut inside = run.depth;
        while inside > 0 {
            let completion = self.wait()?;
            let place = u32::try_from(completion.token).unwrap_or(0);
            completion.result?;
            let began = since.get(place as usize).copied().unwrap_or(begun);
            times.saturating_record(
                u64::try_from(moirai_runtime::since(began).as_nanos()).unwrap_or(u64::MAX),
            );
            (moved, count) = (moved.saturating_add(run.bytes), count + 1);
            if moirai_runtime::instant() < end && moved < most_bytes {
                self.start(run, place, &mut since)?;
            } else {
                inside -= 1;
            }
        }
        Ok(Measure::new(run, count, moved, moirai_runtime::since(begun), &times))
    }

    fn start(&mut self, run: Run, place: u32, since: &mut [Instant]) -> io::Result<()> {
        let offset = self.offset(run);
        let file = self.target.file();
        let full = |_| io::Error::other("the ring is full");
        let memory =
            self.memory.get(place as usize).ok_or_else(|| io::Error::other("no memory"))?;
        let buffers = memory.slice(0, run.bytes);
        let token = u64::from(place);
        if run.kind == "flush" {
            self.ring.writev(file, buffers.clone(), offset, false, token).map_err(full)?;
            self.wait()?.result?;
        }
        if let Some(begun) = since.get_mut(place as usize) {
            *begun = moirai_runtime::instant();
        }
        match run.kind {
            "read" => self.ring.readv(file, buffers, offset, token),
            "write" => self.ring.writev(file, buffers, offset, false, token),
            _ => self.ring.fdatasync(file, token),
        }
        .map_err(full)?;
        self.ring.submit()
    }

    /// The place of the next unit: a multiple of its size.
    fn offset(&mut self, run: Run) -> u64 {
        let places = (self.target.size_bytes() / run.bytes.max(1)).max(1);
        let place = match run.pattern {
            Pattern::Sequential => self.next,
            // xorshift64
            Pattern::Random => {
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                self.random
            }
        };
        self.next = self.next.wrapping_add(1);
        place % places * run.bytes
    }

    fn wait(&mut self) -> io::Result<Completion> {
        let end = moirai_runtime::instant() + PATIENCE;
        while moirai_runtime::instant() < end {
            if let Some(completion) = self.ring.next_completion() {
                return Ok(completion);
            }
            self.ring.submit_and_wait(Some(PATIENCE))?;
        }
        Err(io::Error::other("the disk has not answered for half a minute"))
    }
}
