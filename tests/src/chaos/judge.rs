//! The judge of one life of the host service: looks after each fault and at the end.
//!
//! It believes two witnesses: the counters of the host service, and receivers outside of it. What
//! falls into a stall that the host service has seen while it lasted is excused in both.

use std::fs;
use std::time::{Duration, Instant};

use moirai_api::{PartStats, Stats, TenantStats};
use moirai_runtime::Stall;
use moirai_scheduler::{Moment, Span};

use super::fault::Fault;
use super::film::Seen;
use super::keeper::Found;
use super::world::{UNTOUCHED, World, stalls};

/// An operator's question is answered within this time, after any fault.
const ANSWERS: Duration = Duration::from_secs(1);
/// Packets of the film that come before anything is judged.
const FIRST: u64 = 200;
/// What the host service may have more of at the end of its life than at its begin.
const MORE_FILES: u64 = 8;
const MORE_THREADS: u64 = 4;
const MORE_KIB: u64 = 24 << 10;
/// A turn of a loop that is longer waits for something.
const TURN: Span = moirai_runtime::STUCK;

/// What a process has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Has {
    pub(super) files: u64,
    pub(super) threads: u64,
    pub(super) kib: u64,
}

/// What one look after a fault has found.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// The longest turn of any thread, if it was in this time.
    pub(super) turn: Option<Span>,
    pub(super) found: Found,
    /// What must not be, whatever the machine does.
    pub(super) broken: Vec<String>,
    /// Promises about time that were not kept outside of stalls.
    pub(super) late: Vec<String>,
}

/// A life of the host service.
#[derive(Debug)]
pub(super) struct Life {
    first: Stats,
    has: Has,
    longest: Span,
    stalls: Vec<Stall>,
    last: Moment,
    /// The faults so far, and when each was over.
    faults: Vec<(Fault, Moment)>,
}

impl Has {
    /// What a process has now.
    pub(super) fn of(pid: u32) -> Self {
        let entries = |what: &str| {
            let entries = fs::read_dir(format!("/proc/{pid}/{what}"));
            entries.map_or(0, |entries| entries.count() as u64)
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        Self { files: entries("fd"), threads: lasting(pid), kib: kib.unwrap_or(0) }
    }

    /// What has grown beyond what comes and goes.
    fn grown(self, since: Self) -> Option<String> {
        let more = [
            ("descriptors", since.files, self.files, MORE_FILES),
            ("threads", since.threads, self.threads, MORE_THREADS),
            ("KiB of memory", since.kib, self.kib, MORE_KIB),
        ];
        let grown = more.iter().find(|(_, from, to, more)| *to > from + more);
        grown.map(|(what, from, to, _)| format!("{from} {what} became {to}"))
    }
}

/// Threads of a process, without those that come with work and go some seconds after it: they are
/// bounded by the host service, and a flood of requests may have just ended.
fn lasting(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lasts = |thread: &fs::DirEntry| {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        !matches!(name.trim(), "hand" | "populate" | "unmap") && !name.starts_with("iou-wrk")
    };
    threads.filter(lasts).count() as u64
}

impl Life {
    /// Begins to judge when the film plays.
    ///
    /// # Errors
    /// It does not play.
    pub(super) fn begin(world: &World) -> Result<Self, String> {
        let begin = Instant::now();
        let packets = || world.receivers.as_ref().map_or(0, super::film::Receivers::packets);
        while packets() < FIRST {
            if begin.elapsed() > crate::PATIENCE {
                return Err("the film does not begin".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let first = world.stats()?;
        let has = Has::of(world.pid());
        let (longest, last) = (longest(&first), Moment::from_nanos(first.now_ns));
        Ok(Self { stalls: stalls(&first), first, has, longest, last, faults: Vec::new() })
    }

    /// Looks at everything after a fault.
    pub(super) fn look(&mut self, world: &mut World, fault: Fault) -> Look {
        let mut look = Look::default();
        let begin = Instant::now();
        match world.stats() {
            Ok(stats) => self.judge(&stats, fault, &mut look),
            Err(error) => look.broken.push(error),
        }
        if begin.elapsed() > ANSWERS {
            look.broken.push(format!("an answer took {:?}", begin.elapsed()));
        }
        for keeper in &mut world.keepers {
            look.broken.extend(keeper.verify().err());
            look.found.join(keeper.take());
        }
        let log = world.log();
        look.broken.extend(log.lines().find(|line| line.contains("panicked")).map(str::to_owned));
        look
    }

    fn judge(&mut self, stats: &Stats, fault: Fault, look: &mut Look) {
        self.remember(stats);
        for name in UNTOUCHED {
            let (before, after) = (tenant(&self.first, name), tenant(stats, name));
            look.broken.extend(broken(before, after, name));
            look.late.extend(missed(before, after, name));
        }
        let turn = longest(stats);
        if turn > self.longest {
            self.longest = turn;
            look.turn = Some(turn);
            let excused = fault.is_stall() || self.stalled_since() + TURN >= turn;
            if turn > TURN && !excused {
                look.late.push(format!("a turn took {} ms", turn.as_nanos() / 1_000_000));
            }
        }
        // What was not kept is told once.
        self.first = stats.clone();
        self.last = Moment::from_nanos(stats.now_ns);
        self.faults.push((fault, self.last));
    }

    /// The machine's stalls since the last look.
    fn stalled_since(&self) -> Span {
        let recent = self.stalls.iter().filter(|stall| stall.end > self.last);
        recent.fold(Span::ZERO, |sum, stall| sum.saturating_add(stall.end.since(stall.begin)))
    }

    fn remember(&mut self, stats: &Stats) {
        let last = self.stalls.last().copied();
        let new = stalls(stats).into_iter();
        // They come in the order in which they were noted; those that are known come first.
        let known = |stall: &Stall| last.is_some_and(|last| *stall == last);
        let new: Vec<_> = new.collect();
        let from = new.iter().rposition(known).map_or(0, |at| at + 1);
        self.stalls.extend(&new[from..]);
    }

    /// Judges the whole life, before the host service is killed or ends: what receivers saw, what
    /// is broken, and during which faults the film was late, in stalls or not.
    pub(super) fn end(mut self, world: &mut World) -> (Seen, Vec<String>, Vec<Fault>) {
        let mut broken = Vec::new();
        match world.stats() {
            Ok(stats) => self.remember(&stats),
            Err(error) => broken.push(error),
        }
        let receivers = world.receivers.take();
        let seen = receivers.map_or_else(Seen::default, |it| it.finish(&self.stalls));
        broken.extend(seen.wrong());
        broken.extend(self.shrinks(world.pid()));
        let fault = |at: &Moment| self.faults.iter().find(|(_, end)| at <= end);
        let mut during: Vec<_> = seen.late_at.iter().filter_map(fault).map(|it| it.0).collect();
        during.sort_unstable();
        during.dedup();
        (seen, broken, during)
    }

    /// What comes and goes gets some time to go.
    fn shrinks(&self, pid: u32) -> Option<String> {
        let begin = Instant::now();
        loop {
            let grown = Has::of(pid).grown(self.has);
            if grown.is_none() || begin.elapsed() > Duration::from_secs(5) {
                return grown;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn tenant<'a>(stats: &'a Stats, name: &str) -> Option<&'a TenantStats> {
    stats.tenants.iter().find(|tenant| tenant.name.to_string() == name)
}

fn longest(stats: &Stats) -> Span {
    let longest = stats.threads.iter().map(|thread| thread.longest_turn_ns).max();
    Span::from_nanos(longest.unwrap_or(0))
}

/// What happened to a tenant that nobody touches between two looks.
fn broken(before: Option<&TenantStats>, after: Option<&TenantStats>, name: &str) -> Vec<String> {
    let (Some(before), Some(after)) = (before, after) else {
        return vec![format!("{name} does not run any more")];
    };
    let mut broken = grown(before, after, name, "errors", |part| part.errors);
    for part in &after.parts {
        let failed = part.failed.iter();
        broken.extend(failed.map(|why| format!("{name}, {} failed: {why}", part.resource)));
    }
    broken
}

/// What it was promised and did not get.
fn missed(before: Option<&TenantStats>, after: Option<&TenantStats>, name: &str) -> Vec<String> {
    let (Some(before), Some(after)) = (before, after) else { return Vec::new() };
    grown(before, after, name, "misses", |part| part.misses)
}

fn grown(
    before: &TenantStats,
    after: &TenantStats,
    name: &str,
    what: &str,
    of: impl Fn(&PartStats) -> u64,
) -> Vec<String> {
    let pairs = before.parts.iter().zip(&after.parts);
    let more = pairs.map(|(from, to)| (&to.resource, of(to).saturating_sub(of(from))));
    let more = more.filter(|(_, more)| *more > 0);
    more.map(|(resource, more)| format!("{name}, {resource}: {more} {what}")).collect()
}

#[cfg(test)]
mod tests {
    use moirai_config::Holder;

    use super::*;

    fn tenant(misses: u64) -> TenantStats {
        let part = PartStats { resource: "cpu/1".into(), misses, ..PartStats::default() };
        TenantStats { name: Holder::from("cinema"), parts: vec![part] }
    }

    #[test]
    fn a_miss_an_error_and_an_end_of_the_untouched_are_told() {
        let missed = |from, to| missed(Some(&tenant(from)), Some(&tenant(to)), "cinema");
        assert!(missed(3, 3).is_empty());
        assert_eq!(missed(3, 5), ["cinema, cpu/1: 2 misses"]);
        assert_eq!(broken(Some(&tenant(0)), None, "pulse").len(), 1);
    }

    #[test]
    fn what_grows_is_named_with_its_numbers() {
        let has = |files| Has { files, threads: 10, kib: 1000 };
        assert_eq!(has(20 + MORE_FILES).grown(has(20)), None);
        assert_eq!(has(29).grown(has(20)), Some("20 descriptors became 29".to_owned()));
    }
}
