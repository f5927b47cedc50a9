//! `thrash` keeps reads or writes in flight on its volume, as many as it is told.
//!
//! Words: `mode=read|write|mixed`, `depth=32` requests, `size=1048576` bytes each,
//! `pattern=random|sequential`, `count=0` (requests; 0: for ever). Mixed: every other one is a
//! write.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use moirai_sdk::{
    App, AppError, Buffer, Completion, Disk, MS, Refusal, RequestId, SECTOR, Volume, now,
};

moirai_sdk::main!("thrash", run, ["mode", "depth", "size", "pattern", "count"]);

/// A disk that has not finished anything for so long is asked whether it has given up.
const SILENCE_NS: u64 = 2000 * MS;
/// What is written: the byte that fills every buffer.
const FILL: u8 = 0x5a;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Read,
    Write,
    Mixed,
}

/// What to do, and where.
struct Load {
    mode: Mode,
    random: bool,
    len: usize,
    /// Places of one request each on the volume.
    places: u64,
    next: u64,
    issued: u64,
}

#[derive(Default)]
struct Counters {
    reads: u64,
    writes: u64,
    errors: u64,
    worst_ns: u64,
}

struct InFlight {
    id: RequestId,
    write: bool,
    since: u64,
}

fn run(app: &mut App) -> Result<(), AppError> {
    let args = app.args();
    let mode = match args.choice("mode", &["read", "write", "mixed"])? {
        0 => Mode::Read,
        1 => Mode::Write,
        _ => Mode::Mixed,
    };
    let random = args.choice("pattern", &["random", "sequential"])? == 0;
    let depth = args.number("depth", 32, (1, 64))?;
    let size = args.number("size", 1 << 20, (SECTOR, 16 << 20))?.next_multiple_of(SECTOR);
    let count = args.number("count", 0, (0, u64::MAX))?;
    let mut disk = app.volume()?;
    let places = disk.capacity() / size;
    if places == 0 {
        let message = "the volume is smaller than one request: give size= a smaller value";
        return Err(AppError::Other(message.into()));
    }
    let len = usize::try_from(size).unwrap_or(0);
    let mut load = Load { mode, random, len, places, next: now() | 1, issued: 0 };
    let mut idle = Vec::new();
    for _ in 0..depth {
        let mut buffer = Buffer::new(len)?;
        if mode != Mode::Read {
            buffer.fill(FILL);
        }
        idle.push(buffer);
    }
    app.ready(|fields| {
        fields.number("depth", depth).number("size", size).number("volume_bytes", disk.capacity())
    });
    let limit = if count == 0 { u64::MAX } else { count };
    let counters = keep_in_flight(app, &mut disk, &mut load, idle, limit)?;
    report(app, &counters, size);
    Ok(())
}

fn keep_in_flight(
    app: &mut App,
    disk: &mut Disk,
    load: &mut Load,
    mut idle: Vec<Buffer>,
    limit: u64,
) -> Result<Counters, AppError> {
    let mut counters = Counters::default();
    let mut in_flight: Vec<InFlight> = Vec::with_capacity(idle.len());
    let mut heard_at = now();
    loop {
        let ending = !app.running() || load.issued >= limit;
        while !ending && load.issued < limit {
            let Some(buffer) = idle.pop() else { break };
            match load.issue(disk, buffer) {
                Ok(request) => in_flight.push(request),
                Err((Refusal::Full, buffer)) => {
                    idle.push(buffer);
                    break;
                }
                Err((refusal, _)) => return Err(refusal.into()),
            }
        }
        if ending && in_flight.is_empty() {
            return Ok(counters);
        }
        app.wait(Some(now() + SILENCE_NS), &mut [disk]);
        let time = now();
        while let Some(completion) = disk.poll()? {
            heard_at = time;
            idle.extend(counters.note(&mut in_flight, completion, time));
        }
        if time.saturating_sub(heard_at) > SILENCE_NS {
            disk.check_alive()?;
            heard_at = time;
        }
        if app.report_due() {
            report(app, &counters, load.len as u64);
            counters.worst_ns = 0;
        }
    }
}

impl Load {
    fn issue(&mut self, disk: &mut Disk, buffer: Buffer) -> Result<InFlight, (Refusal, Buffer)> {
        let place = if self.random { self.draw() % self.places } else { self.issued % self.places };
        let offset = place * self.len as u64;
        let write = match self.mode {
            Mode::Read => false,
            Mode::Write => true,
            Mode::Mixed => !self.issued.is_multiple_of(2),
        };
        let id = match write {
            true => disk.write(offset, buffer, self.len)?,
            false => disk.read(offset, buffer, self.len)?,
        };
        self.issued += 1;
        Ok(InFlight { id, write, since: now() })
    }

    /// xorshift64 (Marsaglia 2003): cheap, and good enough to move a disk about.
    fn draw(&mut self) -> u64 {
        self.next ^= self.next << 13;
        self.next ^= self.next >> 7;
        self.next ^= self.next << 17;
        self.next
    }
}

impl Counters {
    /// Counts a finished request and gives its buffer back.
    fn note(
        &mut self,
        in_flight: &mut Vec<InFlight>,
        completion: Completion,
        time: u64,
    ) -> Option<Buffer> {
        let index = in_flight.iter().position(|request| request.id == completion.id)?;
        let request = in_flight.swap_remove(index);
        self.worst_ns = self.worst_ns.max(time.saturating_sub(request.since));
        match (completion.result, request.write) {
            (Ok(()), false) => self.reads += 1,
            (Ok(()), true) => self.writes += 1,
            (Err(_), _) => self.errors += 1,
        }
        completion.buffer
    }
}

fn report(app: &App, counters: &Counters, size: u64) {
    let requests = counters.reads + counters.writes;
    app.report("report", |fields| {
        fields
            .number("requests", requests)
            .number("bytes", requests.saturating_mul(size))
            .number("reads", counters.reads)
            .number("writes", counters.writes)
            .number("errors", counters.errors)
            .number("worst_us", counters.worst_ns / 1000)
    });
}
