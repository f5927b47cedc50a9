//! What is promised to those who sleep, on the machine in virtual time. The tasks measure their
//! jobs themselves: nothing here asks the policy or the dispatcher who was late.

use moirai_scheduler::admission::{Overhead, Resource, check};
use moirai_scheduler::{Amount, Contract, Moment, Span, Weight};

use super::machine::Load;
use super::{Bench, MS, STEP, always};
use moirai_runtime::Stall;

const US: u64 = 1_000;
const TWENTY: Span = Span::from_millis(20);
/// How late a job may be: what somebody else may overrun until the next look.
const LATENCY: Span = Span::from_micros(500);

/// A generator of numbers, the same ones for the same seed (splitmix64).
struct Draw(u64);

impl Draw {
    fn within(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (z ^ (z >> 31)) % (high - low + 1)
    }
}

fn contract(period: u64, slice: u64, deadline: u64, extra: bool) -> Contract {
    let (period, deadline) = (Span::from_nanos(period), Span::from_nanos(deadline));
    Contract::new(period, Amount::from_nanos(slice), deadline, extra.then_some(Weight::MIN))
        .unwrap()
}

/// What the host admits by default.
fn core() -> Resource {
    let overhead = Overhead {
        switch: Amount::from_micros(50),
        cache: Amount::from_micros(10),
        ..Overhead::NONE
    };
    Resource { capacity_ppm: 950_000, blocking: Amount::ZERO, overhead }
}

/// The longest time from release to end of a thread's jobs, and how many there were.
fn worst(bench: &Bench, place: usize) -> (Span, usize) {
    match &bench.machine.borrow().threads[place].load {
        Load::Jobs(jobs) => {
            (jobs.took.iter().copied().max().unwrap_or(Span::ZERO), jobs.took.len())
        }
        _ => (Span::ZERO, 0),
    }
}

/// The case of shared/cases/promise/phases-short-deadline.toml: was late in 1286 of 1286 jobs.
#[test]
fn a_short_deadline_is_kept_from_the_wake_up_on_in_every_phase() {
    let mut bench = Bench::new(true);
    let short = contract(20 * MS, 1_050 * US, 5 * MS, false);
    for phase in 0..4 {
        bench.add_load(
            short,
            Load::jobs(TWENTY, Amount::from_micros(600), Moment::from_millis(2 + phase * 5)),
        );
    }
    bench.add(contract(20 * MS, 9 * MS, 20 * MS, false), always);
    bench.add(contract(20 * MS, 0, 20 * MS, true), always);
    bench.run(Span::from_millis(2_000));
    for place in 0..4 {
        let (worst, jobs) = worst(&bench, place);
        assert!(jobs >= 99 && worst <= Span::from_millis(5) + LATENCY, "{jobs} jobs, {worst} ns");
    }
    assert!(bench.core.snapshot().iter().all(|vcpu| vcpu.misses == 0));
}

/// The case of phases-deadline-is-period.toml: was late in 149 of 492 jobs.
#[test]
fn a_deadline_at_the_end_of_the_period_is_kept_in_every_phase() {
    let mut bench = Bench::new(true);
    bench.add(contract(20 * MS, 12 * MS, 20 * MS, false), always);
    for phase in [0, 10, 15] {
        let contract = contract(20 * MS, 1_700 * US, 20 * MS, false);
        bench.add_load(
            contract,
            Load::jobs(TWENTY, Amount::from_micros(1_500), Moment::from_millis(2 + phase)),
        );
    }
    bench.add(contract(20 * MS, 0, 20 * MS, true), always);
    bench.run(Span::from_millis(2_000));
    for place in 1..4 {
        let (worst, jobs) = worst(&bench, place);
        assert!(jobs >= 98 && worst <= Span::from_millis(20) + LATENCY, "{jobs} jobs, {worst} ns");
    }
    assert!(bench.core.snapshot().iter().all(|vcpu| vcpu.misses == 0));
}

/// A set that admission takes, drawn from a seed, and what its members do.
fn admitted(draw: &mut Draw) -> Vec<(Contract, Load)> {
    let step = STEP.as_nanos();
    let mut set: Vec<(Contract, Load)> = Vec::new();
    for _ in 0..draw.within(2, 7) {
        let period = draw.within(20, 400) * 100 * US;
        let deadline =
            (period * draw.within(150, 1_200) / 1_000).clamp(2 * MS, period) / step * step;
        let slice = (deadline * draw.within(20, 600) / 1_000).max(100 * US) / step * step;
        let contract = contract(period, slice, deadline, draw.within(0, 1) == 0);
        let all: Vec<_> = set.iter().map(|(contract, _)| *contract).chain([contract]).collect();
        if check(&core(), &all).is_err() {
            continue;
        }
        let load = match draw.within(0, 5) {
            0..=2 => {
                let work = (slice * draw.within(300, 850) / 1_000).max(step) / step * step;
                let period = period + draw.within(0, 2) * draw.within(0, 200) * step;
                let release = Moment::from_millis(1) + draw.within(0, period / step) * STEP;
                Load::jobs(Span::from_nanos(period), Amount::from_nanos(work), release)
            }
            3 => Load::naps((draw.within(2, 200) * STEP).service(), draw.within(2, 200) * STEP),
            _ => Load::When(always),
        };
        set.push((contract, load));
    }
    set
}

/// Runs a drawn set on a machine whose switches take `switch`.
fn run(set: Vec<(Contract, Load)>, switch: Span, duration: Span) -> Bench {
    let mut bench = Bench::new(true);
    bench.machine.borrow_mut().switch = switch;
    bench.core.set_wake_cost(Amount::from_micros(2 * 60));
    for (contract, load) in set {
        bench.add_load(contract, load);
    }
    bench.run(duration);
    bench
}

#[test]
fn no_job_of_an_admitted_set_is_late_whatever_phases_and_neighbours() {
    for (seed, switch) in (0..100).flat_map(|seed| [(seed, 0), (seed, 20 * US)]) {
        let set = admitted(&mut Draw(seed));
        let contracts: Vec<_> = set.iter().map(|(contract, _)| *contract).collect();
        let bench = run(set, Span::from_nanos(switch), Span::from_millis(300));
        for (place, (contract, vcpu)) in contracts.iter().zip(bench.core.snapshot()).enumerate() {
            let late = worst(&bench, place).0.saturating_sub(contract.deadline());
            assert!(late <= LATENCY, "seed {seed}: {place} is {late} ns late");
            let naps = matches!(bench.machine.borrow().threads[place].load, Load::Naps(..));
            assert!(naps || vcpu.misses == 0, "seed {seed}: {place} {:?}", vcpu.not_kept);
        }
    }
}

/// Shortfalls around the measuring error may count or not.
const DOUBT: Amount = Amount::from_micros(250);

/// How many slices of a hog were missed: for certain, and at most. It has wanted each of them since
/// the last one was due, and what it was given is what the machine saw.
fn hog_missed(owed: &[Moment], contract: &Contract, start: Moment, end: Moment) -> (u64, u64) {
    let (mut least, mut most) = (0, 1);
    let given = |from, until| {
        owed.iter().filter(|&&at| at >= from && at < until).count() as u64 * STEP.service()
    };
    let mut begin = start;
    let mut slice = contract.slice();
    while begin + contract.period() < end {
        let in_time = given(begin, begin + contract.deadline());
        least += u64::from(in_time + DOUBT < slice);
        most += u64::from(in_time + Amount::from_micros(20) < slice);
        // What it overdraws it owes.
        let debt = given(begin, begin + contract.period()).saturating_sub(slice);
        slice = contract.slice().saturating_sub(debt);
        begin += contract.period();
    }
    (least, most)
}

/// How many jobs of a task were late: for certain, where it was asleep before, and at most.
fn jobs_missed(took: &[Span], period: Span, contract: &Contract) -> (u64, u64) {
    let (mut least, mut most, mut before) = (0, 1, Span::ZERO);
    for &took in took {
        let slept = before < period;
        least += u64::from(slept && took > contract.deadline() + DOUBT.time());
        most += u64::from(took > contract.deadline()) + took / period;
        before = took.max(before.saturating_sub(period));
    }
    (least, most)
}

/// The judge sees what everybody wants and what it gets, the counters only what the kernel tells:
/// of a wake-up that is seen together with the next sleep they know the time to within a look. So a
/// few that are late by no more may be counted or not.
#[test]
fn misses_are_counted_as_one_who_sees_everything_counts_them() {
    let (mut missed, mut wrong) = (0, 0);
    for seed in 0..150 {
        let mut draw = Draw(seed + 1_000_000);
        let mut set = admitted(&mut draw);
        set.retain(|(_, load)| !matches!(load, Load::Naps(..)));
        for _ in 0..draw.within(0, 2) {
            let (period, part) = (draw.within(20, 300) * 100 * US, draw.within(200, 500));
            let step = STEP.as_nanos();
            let contract = contract(period, period * part / 1_000 / step * step, period, false);
            set.push((contract, Load::When(always)));
        }
        let contracts: Vec<_> = set.iter().map(|(contract, _)| *contract).collect();
        let bench = run(set, Span::ZERO, Span::from_millis(300));
        for (place, (contract, vcpu)) in contracts.iter().zip(bench.core.snapshot()).enumerate() {
            let machine = bench.machine.borrow();
            let thread = &machine.threads[place];
            let (least, most) = match &thread.load {
                Load::Jobs(jobs) => jobs_missed(&jobs.took, jobs.period, contract),
                _ => hog_missed(&thread.owed, contract, Moment::from_millis(1), machine.now),
            };
            let off = least.saturating_sub(vcpu.misses) + vcpu.misses.saturating_sub(most);
            assert!(off <= 4, "seed {seed}: {place} missed {least} to {most}, not {}", vcpu.misses);
            (missed, wrong) = (missed + least, wrong + off);
        }
    }
    assert!(missed > 1_000 && wrong * 50 < missed, "{wrong} of {missed} are counted wrongly");
}

/// A stall of the machine of `length` at 100 ms, of which the log knows or not.
fn after_a_stall(contracts: &[Contract], length: Span, known: bool) -> Bench {
    let mut bench = Bench::new(true);
    for contract in contracts {
        bench.add(*contract, always);
    }
    bench.run(Span::from_millis(100));
    let begin = bench.machine.borrow().now;
    bench.machine.borrow_mut().stall(length);
    if known {
        let end = begin + length;
        bench.stalls.note(Stall { begin, end });
    }
    bench.run(Span::from_millis(200));
    bench
}

#[test]
fn a_stall_excuses_what_it_can_have_caused_and_says_so() {
    let contracts =
        [contract(10 * MS, 5 * MS, 10 * MS, false), contract(40 * MS, 16 * MS, 40 * MS, false)];
    let bench = after_a_stall(&contracts, Span::from_millis(8), true);
    let all = bench.core.snapshot();
    assert!(all.iter().all(|vcpu| vcpu.misses == 0 && vcpu.not_kept.is_none()), "{all:?}");
    let excused: Vec<_> = all.iter().flat_map(|vcpu| vcpu.excused.clone()).collect();
    assert!(!excused.is_empty() && excused.iter().all(|it| it.stall_ns == 8 * MS), "{excused:?}");
    assert!(excused.iter().all(|it| it.late_ns <= it.stall_ns), "{excused:?}");
    let bench = after_a_stall(&contracts, Span::from_millis(8), false);
    assert!(bench.core.snapshot().iter().any(|vcpu| vcpu.misses > 0 && vcpu.not_kept.is_some()));
}

/// A quarter of a millisecond used to excuse whatever happened in the same period.
#[test]
fn a_short_stall_does_not_excuse_a_long_lateness() {
    let oversold = [contract(100 * MS, 60 * MS, 100 * MS, false); 2];
    let bench = after_a_stall(&oversold, Span::from_micros(250), true);
    let all = bench.core.snapshot();
    assert_eq!(all.iter().map(|vcpu| vcpu.misses_in_stall).sum::<u64>(), 0);
    assert!(all.iter().map(|vcpu| vcpu.misses).sum::<u64>() > 0);
}

/// The case of shared/cases/promise/switch_thief.toml: naps between two looks are counted one by
/// one.
#[test]
fn a_napper_takes_its_slice_with_its_switches_and_its_neighbour_misses_nothing() {
    let taken = |cost: Amount| {
        let mut bench = Bench::new(true);
        bench.machine.borrow_mut().switch = Span::from_micros(50);
        bench.core.set_wake_cost(cost);
        let victim = contract(10 * MS, 6 * MS, 10 * MS, false);
        bench.add_load(
            victim,
            Load::jobs(Span::from_millis(10), Amount::from_micros(5_900), Moment::from_millis(2)),
        );
        bench.add_load(
            contract(10 * MS, MS, 5 * MS, false),
            Load::naps(Amount::from_micros(10), Span::from_micros(10)),
        );
        bench.run(Span::from_millis(1_000));
        let misses = bench.core.snapshot()[0].misses;
        (
            worst(&bench, 0).0,
            misses,
            bench.machine.borrow().switched * 1_000 / Span::from_millis(1_000),
        )
    };
    let (late, _, switched) = taken(Amount::ZERO);
    assert!(
        late > Span::from_millis(12) && switched > 300,
        "the flaw: {late} ns, {switched} per mille switches"
    );
    let (late, misses, switched) = taken(Amount::from_micros(2 * 50));
    assert!(late <= Span::from_millis(10) + LATENCY && misses == 0, "{late} ns, {misses} misses");
    assert!(switched <= 150, "{switched} per mille of the core are switches");
}
