//! The dispatcher's rounds on a machine in virtual time (`machine.rs`).

mod machine;
mod promises;

use std::cell::RefCell;
use std::rc::Rc;

use moirai_scheduler::{Amount, Contract, Moment, PolicyKind, Span, Weight, ranked};

use super::core::Core;
use super::kernel::{Class, CpuTime};
use super::slack::LEAD;
use super::{Dispatcher, DispatcherSpec, StallLog, VcpuId, VcpuSnapshot};
use machine::{Handle, Load, Machine, ROUND_COST, STEP, SimThread, Wants};

const MS: u64 = 1_000_000;

struct Bench {
    machine: Rc<RefCell<Machine>>,
    core: Core<Handle>,
    stalls: StallLog,
}

impl Bench {
    fn new(scheduling: bool) -> Self {
        let kind = if scheduling { PolicyKind::Atropos } else { PolicyKind::Fifo };
        let policy = ranked(kind, 64).unwrap();
        let stalls = StallLog::default();
        let core = Core::new(policy, scheduling, stalls.clone());
        let machine =
            Rc::new(RefCell::new(Machine { now: Moment::from_millis(1), ..Machine::default() }));
        Self { machine, core, stalls }
    }

    fn add(&mut self, contract: Contract, wants: Wants) -> VcpuId {
        self.add_load(contract, Load::When(wants))
    }

    fn add_load(&mut self, contract: Contract, load: Load) -> VcpuId {
        let place = self.machine.borrow().threads.len();
        let (class, time) = (Class::Fair(0), CpuTime::default());
        let thread = SimThread {
            load,
            class,
            way: Span::ZERO,
            time,
            waiting: Span::ZERO,
            sleeps: 0,
            seen: None,
            owed: Vec::new(),
        };
        self.machine.borrow_mut().threads.push(thread);
        let handle = Handle { machine: Rc::clone(&self.machine), place };
        let now = self.machine.borrow().now;
        self.core.attach(format!("t{place}"), contract, handle, now).unwrap()
    }

    /// Lets virtual time pass.
    fn run(&mut self, duration: Span) {
        let end = self.machine.borrow().now + duration;
        while self.machine.borrow().now < end {
            let now = self.machine.borrow().now;
            let due = self.core.round(now);
            self.machine.borrow_mut().dispatch();
            let after = due.after.map(|after| now + ROUND_COST + after);
            let next = due.at.into_iter().chain(after).min().unwrap_or(end).min(end);
            while self.machine.borrow().now < next {
                self.machine.borrow_mut().step();
            }
        }
        let now = self.machine.borrow().now;
        self.core.round(now);
    }

    fn of(&self, id: VcpuId) -> VcpuSnapshot {
        self.core.snapshot().into_iter().find(|vcpu| vcpu.id == id.0).unwrap()
    }
}

fn contract(period_ms: u64, slice_us: u64, extra: bool) -> Contract {
    let extra = extra.then_some(Weight::MIN);
    let period = Span::from_millis(period_ms);
    Contract::new(period, Amount::from_micros(slice_us), period, extra).unwrap()
}

fn always(_: Moment) -> bool {
    true
}

fn never(_: Moment) -> bool {
    false
}

/// A share in parts per thousand, of nanoseconds.
fn per_mille(service: u64, elapsed: u64) -> u64 {
    service * 1_000 / elapsed
}

#[test]
fn busy_vcpus_get_their_slices_in_every_period_and_no_more() {
    let mut bench = Bench::new(true);
    let contracts = [(10, 2_000), (20, 4_000), (5, 500)];
    let ids = contracts.map(|(period, slice)| bench.add(contract(period, slice, false), always));
    bench.run(Span::from_millis(1_000));
    for (id, want) in ids.into_iter().zip([200, 200, 100]) {
        let vcpu = bench.of(id);
        let share = per_mille(vcpu.guaranteed_ns, 1_000 * MS);
        assert!(share.abs_diff(want) <= 3, "{share} of {want} per mille");
        assert_eq!((vcpu.misses, vcpu.extra_ns), (0, 0));
    }
    let least = bench.of(ids[0]).least_slice_ns.unwrap();
    assert!(least >= 1_900_000, "a period with only {least} ns");
    assert!(per_mille(bench.machine.borrow().idle.as_nanos(), 1_000 * MS) > 400);
}

#[test]
fn slack_goes_to_those_who_asked_for_it_and_never_to_their_guarantee() {
    let mut bench = Bench::new(true);
    let plain = bench.add(contract(10, 2_000, false), always);
    let extra = bench.add(contract(10, 1_000, true), always);
    bench.run(Span::from_millis(1_000));
    let (plain, extra) = (bench.of(plain), bench.of(extra));
    assert!(per_mille(plain.guaranteed_ns, 1_000 * MS).abs_diff(200) <= 3);
    assert!(per_mille(extra.guaranteed_ns, 1_000 * MS).abs_diff(100) <= 3);
    assert!(per_mille(extra.extra_ns, 1_000 * MS) > 650, "{}", extra.extra_ns);
    assert_eq!(plain.extra_ns, 0);
}

#[test]
fn who_sleeps_until_the_end_of_its_period_cannot_crowd_the_others_out() {
    // Runs only in the last 40% of each of its 20 ms periods; the others are full to 90%.
    fn late(now: Moment) -> bool {
        now.since(Moment::from_millis(1)) % Span::from_millis(20) >= Span::from_millis(12)
    }
    let mut bench = Bench::new(true);
    let sleeper = bench.add(contract(20, 8_000, false), late);
    let victim = bench.add(contract(10, 5_000, false), always);
    bench.run(Span::from_millis(1_000));
    let victim = bench.of(victim);
    assert_eq!(victim.misses, 0);
    assert!(per_mille(victim.guaranteed_ns, 1_000 * MS).abs_diff(500) <= 5);
    // It got no more than the wake-up rule leaves it: 40% of the rest of its period.
    let share = per_mille(bench.of(sleeper).guaranteed_ns, 1_000 * MS);
    assert!((150..=270).contains(&share), "{share}");
    assert_eq!(bench.of(sleeper).misses, 0, "sleeping is no miss");
}

#[test]
fn promises_beyond_the_core_are_seen_to_be_missed() {
    let mut bench = Bench::new(true);
    let ids = [0, 1].map(|_| bench.add(contract(10, 6_000, false), always));
    bench.run(Span::from_millis(1_000));
    assert!(ids.into_iter().map(|id| bench.of(id).misses).sum::<u64>() > 50);
}

#[test]
fn a_vcpu_that_works_a_little_all_the_time_misses_nothing_on_a_core_of_its_own() {
    // Awake for 0.3 ms of every 2 ms, and just then when its periods end.
    fn often(now: Moment) -> bool {
        let begun = now.since(Moment::from_millis(1)) + Span::from_micros(150);
        begun % Span::from_millis(2) < Span::from_micros(300)
    }
    let mut bench = Bench::new(true);
    let id = bench.add(contract(10, 3_000, false), often);
    bench.run(Span::from_millis(1_000));
    assert_eq!(bench.of(id).misses, 0);
    // Its slices begin when it wakes, so all that it wants is its own.
    let share = per_mille(bench.of(id).guaranteed_ns, 1_000 * MS);
    assert!(share.abs_diff(150) <= 5, "{share}");
}

#[test]
fn an_idle_vcpu_misses_nothing() {
    let mut bench = Bench::new(true);
    let idle = bench.add(contract(10, 2_000, false), |_| false);
    bench.add(contract(10, 2_000, true), always);
    bench.run(Span::from_millis(1_000));
    assert_eq!((bench.of(idle).misses, bench.of(idle).guaranteed_ns), (0, 0));
}

#[test]
fn a_changed_contract_holds_from_the_next_period_on() {
    let mut bench = Bench::new(true);
    let id = bench.add(contract(10, 2_000, false), always);
    bench.run(Span::from_millis(500));
    let before = bench.of(id).guaranteed_ns;
    let now = bench.machine.borrow().now;
    bench.core.change(id, contract(10, 4_000, false), now).unwrap();
    bench.run(Span::from_millis(500));
    let share = per_mille(bench.of(id).guaranteed_ns - before, 500 * MS);
    assert!(share.abs_diff(400) <= 6, "{share}");
    assert_eq!(bench.of(id).misses, 0);
}

#[test]
fn without_scheduling_everybody_is_in_the_fair_class() {
    let mut bench = Bench::new(false);
    let ids = [0, 1, 2, 3].map(|_| bench.add(contract(10, 2_000, false), always));
    bench.run(Span::from_millis(400));
    for id in ids {
        let vcpu = bench.of(id);
        assert_eq!(vcpu.guaranteed_ns, 0);
        assert!(per_mille(vcpu.extra_ns, 400 * MS).abs_diff(250) <= 5, "{}", vcpu.extra_ns);
    }
}

#[test]
fn a_vcpu_that_was_released_is_forgotten_with_its_account() {
    let mut bench = Bench::new(true);
    let id = bench.add(contract(10, 2_000, false), always);
    bench.run(Span::from_millis(100));
    let now = bench.machine.borrow().now;
    let last = bench.core.detach(id, now).unwrap();
    assert!(per_mille(last.guaranteed_ns, 100 * MS).abs_diff(200) <= 20);
    assert!(bench.core.detach(id, now).is_err());
    assert!(bench.core.snapshot().is_empty());
}

fn weighted(weight: u32) -> Contract {
    let ten = Span::from_millis(10);
    Contract::new(ten, Amount::ZERO, ten, Weight::new(weight)).unwrap()
}

#[test]
fn a_weight_in_the_slack_is_a_place_in_the_fair_class() {
    let mut bench = Bench::new(true);
    let ids = [1, 3].map(|weight| bench.add(weighted(weight), always));
    let classes = |bench: &mut Bench| {
        bench.run(Span::ZERO);
        bench.machine.borrow().threads.iter().map(|thread| thread.class).collect::<Vec<_>>()
    };
    assert_eq!(classes(&mut bench), [Class::Fair(0), Class::Fair(-5)]);
    let now = bench.machine.borrow().now;
    bench.core.change(ids[0], weighted(2), now).unwrap();
    assert_eq!(classes(&mut bench), [Class::Fair(-3), Class::Fair(-5)]);
}

/// The fair class of this machine gives all the same, whatever their nice levels.
#[test]
fn slack_is_shared_by_weight_where_the_kernel_forgets_who_was_behind() {
    let mut bench = Bench::new(true);
    let ids = [1, 3].map(|weight| bench.add(weighted(weight), always));
    let busy = bench.add(contract(10, 2_000, false), always);
    // One is ahead by LEAD, and by what this machine gives it until the next round, however long
    // they run.
    let bound = 3 * (LEAD.as_millis() + 3);
    for second in 1..=4 {
        bench.run(Span::from_millis(1_000));
        let [light, heavy] = ids.map(|id| bench.of(id).extra_ns / MS);
        assert!(heavy.abs_diff(3 * light) <= bound, "{light} : {heavy} ms");
        assert!(light + heavy >= second * 790, "{light} + {heavy} ms of {second} times 800");
    }
    assert_eq!(bench.of(busy).misses, 0);
}

/// Whoever yields when the other leaves has nobody to wait for any more.
#[test]
fn who_stays_alone_with_the_slack_has_all_of_it() {
    let mut bench = Bench::new(true);
    let [light, heavy] = [1, 100].map(|weight| bench.add(weighted(weight), always));
    bench.run(Span::from_millis(100));
    assert_eq!(bench.machine.borrow().threads[0].class, Class::Gated, "it yields");
    let now = bench.machine.borrow().now;
    bench.core.detach(heavy, now).unwrap();
    bench.machine.borrow_mut().threads[1].load = Load::When(never);
    let before = bench.of(light).extra_ns;
    bench.run(Span::from_millis(100));
    assert!(bench.of(light).extra_ns - before >= 95 * MS);
}

/// One that sleeps half of the time leaves the slack to the other and does not want it back.
#[test]
fn slack_that_was_slept_away_is_nobodys_debt() {
    fn second_half(now: Moment) -> bool {
        now >= Moment::from_millis(500)
    }
    let mut bench = Bench::new(true);
    let late = bench.add(weighted(1), second_half);
    let early = bench.add(weighted(1), always);
    bench.add(contract(10, 2_000, false), always);
    bench.run(Span::from_millis(1_000));
    let [late, early] = [late, early].map(|id| bench.of(id).extra_ns / MS);
    assert!(late.abs_diff(200) <= 15 && early.abs_diff(600) <= 15, "{late}, {early} ms");
}

#[test]
fn the_least_slice_is_that_of_the_contract_in_force() {
    let mut bench = Bench::new(true);
    let slice = |ms| {
        let ten = Span::from_millis(10);
        Contract::new(ten, Amount::from_millis(ms), ten, None).unwrap()
    };
    let id = bench.add(slice(2), always);
    bench.run(Span::from_millis(50));
    assert!(bench.of(id).least_slice_ns.unwrap() < 3 * MS);
    bench.core.change(id, slice(4), bench.machine.borrow().now).unwrap();
    assert_eq!(bench.of(id).least_slice_ns, None);
    bench.run(Span::from_millis(50));
    assert!(bench.of(id).least_slice_ns.unwrap() > 3 * MS);
}

/// The way to the gate is part of the slice that it ends, and not of the next one.
#[test]
fn no_slice_is_cut_for_what_the_one_before_took_on_its_way_to_the_gate() {
    let mut bench = Bench::new(true);
    let slices = [(10, 3_000), (20, 4_000), (10, 1_030)];
    let ids = slices.map(|(period, slice)| bench.add(contract(period, slice, false), always));
    bench.run(Span::from_millis(200));
    for (id, (period, slice)) in ids.into_iter().zip(slices) {
        // Judges anew, now that it knows the way.
        let now = bench.machine.borrow().now;
        bench.core.change(id, contract(period, slice, false), now).unwrap();
    }
    bench.run(Span::from_millis(1_000));
    for (id, (_, slice)) in ids.into_iter().zip(slices) {
        let least = bench.of(id).least_slice_ns.unwrap();
        assert!(least + 2 * STEP.as_nanos() >= slice * 1_000, "{least} ns of {slice} us");
        assert_eq!(bench.of(id).misses, 0);
    }
}

/// Each slice ends in a round, each period begins with one; what waits behind a busy one adds a
/// few.
#[test]
fn what_waits_behind_a_busy_one_costs_few_rounds() {
    let mut bench = Bench::new(true);
    for (period, slice) in [(10, 3_000), (20, 4_000), (10, 1_030)] {
        bench.add(contract(period, slice, false), always);
    }
    bench.run(Span::from_millis(100));
    let before = bench.core.rounds;
    bench.run(Span::from_millis(1_000));
    let rounds = bench.core.rounds - before;
    assert!(rounds <= 700, "{rounds} rounds for 250 slices");
}

/// However many sleep behind a busy one: they are looked at together, and their order never
/// changes.
#[test]
fn idle_vcpus_cost_no_rounds_of_their_own() {
    let rounds = |idle: u32| {
        let mut bench = Bench::new(true);
        for _ in 0..idle {
            bench.add(
                Contract::new(
                    Span::from_millis(1_000),
                    Amount::from_nanos(MS / 2),
                    Span::from_millis(1_000),
                    None,
                )
                .unwrap(),
                never,
            );
        }
        bench.add(contract(10, 6_000, false), always);
        bench.run(Span::from_millis(100));
        let before = bench.core.rounds;
        bench.run(Span::from_millis(500));
        bench.core.rounds - before
    };
    let (one, many) = (rounds(1), rounds(60));
    assert!(many <= one + 10, "{one} rounds beside one, {many} beside sixty");
}

#[test]
fn a_policy_that_does_not_know_who_is_owed_time_is_refused_by_name() {
    for policy in [PolicyKind::Drr, PolicyKind::EdfChannel] {
        let stalls = StallLog::default();
        let spec = DispatcherSpec { core: 0, policy, wake_cost: Amount::ZERO, stalls };
        let error = Dispatcher::start(spec).unwrap_err().to_string();
        assert!(error.contains(policy.as_str()) && error.contains("take atropos"), "{error}");
    }
}
