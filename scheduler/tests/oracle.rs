//! Admission against an oracle that is slow, exact and written another way: it runs earliest
//! deadline first tick by tick, or adds up every single job.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a broken helper is a failed test"
)]

use moirai_scheduler::admission::{
    Channel, DOrder, Interrupt, Order, Overhead, Resource, WHOLE_PPM, admit, check, density_fits,
    utilisation_fits,
};
use moirai_scheduler::{Amount, Contract, PolicyKind, Span};
use moirai_simulator::random::Random;
use moirai_simulator::{Load, Resource as Device, Scenario, Tenant, Use, run_policy};

/// Period, slice and deadline of a contract as ticks.
fn ticks(contract: &Contract) -> [u64; 3] {
    [contract.period().as_nanos(), contract.slice().as_nanos(), contract.deadline().as_nanos()]
}

/// A contract of so many ticks of a length.
fn contract([period, slice, deadline]: [u64; 3], tick: u64) -> Contract {
    let [period, deadline] = [period, deadline].map(|ticks| Span::from_nanos(ticks * tick));
    Contract::new(period, Amount::from_nanos(slice * tick), deadline, None).unwrap()
}

/// All periods divide this.
const CYCLE: u64 = 240;

fn plain() -> Resource {
    Resource { capacity_ppm: WHOLE_PPM, blocking: Amount::ZERO, overhead: Overhead::NONE }
}

fn channel(message: u64, packet: u64, interval: u64, deadline: u64) -> Channel {
    let [message, packet] = [message, packet].map(Amount::from_nanos);
    let [interval, deadline] = [interval, deadline].map(Span::from_nanos);
    Channel { message, packet, interval, deadline }
}

/// A random set whose utilisation is close to the whole.
fn set(random: &mut Random) -> Vec<Contract> {
    const PERIODS: [u64; 11] = [4, 5, 6, 8, 10, 12, 15, 20, 24, 40, 60];
    let mut set = Vec::new();
    let mut free = 1.0 + f64::from(u8::try_from(random.within(0, 40)).unwrap()) / 1000.0;
    while set.len() < 6 && free > 0.02 {
        let period = PERIODS[usize::try_from(random.within(0, 10)).unwrap()];
        let slice = random.within(1, period / 2);
        let deadline = if random.one_in(2) { period } else { random.within(slice, period) };
        free -= slice as f64 / period as f64;
        if free < 0.0 && set.len() > 1 && random.one_in(2) {
            break;
        }
        set.push(contract([period, slice, deadline], 1));
    }
    set
}

/// Runs EDF tick by tick over two cycles with all releases at once, as often as they may come.
fn edf_keeps(set: &[Contract]) -> bool {
    let mut left = vec![0u64; set.len()];
    let mut due = vec![0u64; set.len()];
    for now in 0..2 * CYCLE {
        for (i, contract) in set.iter().enumerate() {
            let [period, slice, deadline] = ticks(contract);
            if left[i] > 0 && due[i] <= now {
                return false;
            }
            if now % period == 0 {
                left[i] = slice;
                due[i] = now + deadline;
            }
        }
        if let Some(i) = (0..set.len()).filter(|&i| left[i] > 0).min_by_key(|&i| due[i]) {
            left[i] -= 1;
        }
    }
    left.iter().all(|left| *left == 0)
}

/// Adds up every job that is due by every time of four cycles.
fn jobs_fit(resource: &Resource, set: &[Contract]) -> bool {
    (1..=4 * CYCLE).all(|time| {
        let mut due = 0;
        let mut clients = 0;
        for contract in set {
            let [period, slice, deadline] = ticks(contract);
            let mut release = 0;
            while release + deadline <= time {
                let switch = resource.overhead.switch + resource.overhead.cache;
                due += slice + 2 * switch.as_nanos();
                clients += u64::from(release == 0);
                release += period;
            }
        }
        let ends = |[period, _, deadline]: [u64; 3]| {
            time >= deadline && (time - deadline).is_multiple_of(period)
        };
        if due == 0 || !set.iter().map(ticks).any(ends) {
            return true;
        }
        for source in &resource.overhead.interrupts {
            due += (0..time).step_by(usize::try_from(source.period.as_nanos()).unwrap()).count()
                as u64
                * source.cost.as_nanos();
        }
        let due =
            due + clients * resource.overhead.overrun.as_nanos() + resource.blocking.as_nanos();
        due * 1_000_000 <= time * u64::from(resource.capacity_ppm)
    })
}

#[test]
fn the_exact_test_agrees_with_edf_run_tick_by_tick() {
    let mut random = Random::new(1);
    let (mut kept, mut lost) = (0, 0);
    for _ in 0..20_000 {
        let set = set(&mut random);
        let truth = edf_keeps(&set);
        assert_eq!(check(&plain(), &set).is_ok(), truth, "{set:?}");
        assert!(truth || !density_fits(WHOLE_PPM, &set), "density is sufficient: {set:?}");
        assert!(!truth || utilisation_fits(WHOLE_PPM, &set), "utilisation is necessary: {set:?}");
        *(if truth { &mut kept } else { &mut lost }) += 1;
    }
    assert!(kept > 2_000 && lost > 2_000, "the sets lie near the boundary: {kept} {lost}");
}

#[test]
fn blocking_overruns_interrupts_and_capacity_agree_with_every_job_added_up() {
    let mut random = Random::new(2);
    let (mut admitted, mut refused, mut false_refusals) = (0, 0, 0);
    for _ in 0..10_000 {
        let set = set(&mut random);
        let set = &set[..set.len().min(3)];
        let mut one = |most| random.within(0, most);
        let overhead = Overhead {
            switch: Amount::from_nanos(one(2) / 2),
            cache: Amount::ZERO,
            overrun: Amount::from_nanos(one(2)),
            interrupts: (0..one(2))
                .map(|_| Interrupt {
                    period: Span::from_nanos(7 + one(9)),
                    cost: Amount::from_nanos(one(1)),
                })
                .collect(),
        };
        let capacity_ppm = 1_000_000 - u32::try_from(one(200_000)).unwrap();
        let resource = Resource { capacity_ppm, blocking: Amount::from_nanos(one(3)), overhead };
        let (said, truth) = (check(&resource, set).is_ok(), jobs_fit(&resource, set));
        assert!(truth || !said, "false accept: {resource:?} {set:?}");
        false_refusals += u32::from(truth && !said);
        *(if truth { &mut admitted } else { &mut refused }) += 1;
    }
    assert!(admitted > 500 && refused > 500, "{admitted} {refused}");
    assert!(false_refusals * 100 < admitted, "{false_refusals} false refusals of {admitted}");
}

#[test]
fn the_nearest_contract_fits_and_a_larger_one_does_not() {
    let mut random = Random::new(3);
    let mut refusals = 0;
    while refusals < 300 {
        let mut set = set(&mut random);
        for contract in &mut set {
            *contract = self::contract(ticks(contract), 1_000_000);
        }
        let Some((asked, admitted)) = set.split_last() else { continue };
        let Err(refusal) = admit(&plain(), admitted, asked) else { continue };
        refusals += 1;
        let Some(nearest) = refusal.nearest else {
            assert!(check(&plain(), admitted).is_err() || refusal.available_ppm < 1_000);
            continue;
        };
        assert_eq!(admit(&plain(), admitted, &nearest), Ok(()));
        if nearest.period() == asked.period() && nearest.deadline() == asked.deadline() {
            let (p, d) = (nearest.period(), nearest.deadline());
            let larger = Contract::new(p, nearest.slice() + Amount::ONE, d, None).unwrap();
            assert!(admit(&plain(), admitted, &larger).is_err(), "{nearest:?}");
        }
    }
}

#[test]
fn sets_that_are_just_refused_miss_in_simulation() {
    let mut random = Random::new(4);
    let (mut refused, mut seen) = (0, 0);
    while refused < 200 {
        let set = set(&mut random);
        const TICK: u64 = 100_000;
        let set: Vec<_> = set.iter().map(|it| contract(ticks(it), TICK)).collect();
        if check(&plain(), &set).is_ok() {
            continue;
        }
        refused += 1;
        let tenant = |contract: &Contract| Tenant {
            name: String::new(),
            uses: vec![Use { resource: "it".into(), contract: *contract, load: Load::default() }],
        };
        let device = Device::cpu("it", PolicyKind::Atropos);
        let scenario = Scenario::new(vec![device], set.iter().map(tenant).collect());
        let make = &mut |_: &Device, n| moirai_scheduler::policy(PolicyKind::Atropos, n);
        let report = run_policy(&scenario, Span::from_nanos(40 * CYCLE * TICK), 1, make).unwrap();
        let misses: u64 = report.tenants.iter().map(|t| t.cpu.as_ref().unwrap().misses).sum();
        seen += u32::from(misses > 0);
    }
    assert_eq!(seen, refused, "the exact test is not pessimistic on a core");
}

#[test]
fn the_tests_rank_as_measured_exact_then_sorted_then_density_then_frozen() {
    let mut random = Random::new(5);
    let mut totals = [0u64; 4];
    for _ in 0..60 {
        let link = Resource { blocking: Amount::from_nanos(120), ..plain() };
        let mut exact: Vec<Contract> = Vec::new();
        let mut density: Vec<Contract> = Vec::new();
        let mut sorted = DOrder::new(Order::Resorted, Amount::from_nanos(120));
        let mut frozen = DOrder::new(Order::Frozen, Amount::from_nanos(120));
        let mut open = [true; 4];
        while open[0] {
            let interval = random.within(4_000, 100_000);
            let message = random.within(100, 1_200);
            let deadline = random.within(message + 1_000, interval).min(interval);
            let contract = contract([interval, message, deadline.max(message)], 1);
            let channel = channel(message, 120.min(message), interval, deadline);
            let share = message * 1_000_000 / interval;
            let mut offer = |i: usize, fits: bool| {
                open[i] &= fits;
                totals[i] += if open[i] { share } else { 0 };
            };
            exact.push(contract);
            offer(0, check(&link, &exact).is_ok());
            offer(1, sorted.admit(channel).is_ok());
            density.push(contract);
            offer(2, density_fits(1_000_000 - 20_000, &density));
            offer(3, frozen.admit(channel).is_ok());
        }
    }
    let mean = totals.map(|total| total / 60);
    assert!(mean[0] >= mean[1] && mean[1] > mean[2] && mean[1] > mean[3], "{mean:?}");
    println!("admitted until the first refusal, ppm: exact, D_order, density, frozen: {mean:?}");
}

/// Whether channels keep every deadline when the link sends whole packets, earliest deadline first:
/// each job is added up, with the largest packet of a later deadline in front.
fn packets_fit(channels: &[Channel], best_effort: Amount) -> bool {
    let horizon = 4 * channels.iter().map(|it| it.interval).max().unwrap_or(Span::ZERO);
    let deadlines = channels.iter().flat_map(|it| {
        (0..).map(move |k| it.deadline + k * it.interval).take_while(move |&time| time <= horizon)
    });
    deadlines.into_iter().all(|time| {
        let jobs = |it: &Channel| match time.checked_sub(it.deadline) {
            Some(rest) => (rest / it.interval + 1) * it.message,
            None => Amount::ZERO,
        };
        let later = channels.iter().filter(|it| it.deadline > time).map(|it| it.packet);
        let due = channels.iter().map(jobs).sum::<Amount>() + later.fold(best_effort, Amount::max);
        due.time() <= time
    })
}

#[test]
fn what_d_order_accepts_is_feasible() {
    let mut random = Random::new(11);
    let mut accepted = 0;
    for _ in 0..4_000 {
        let best_effort = Amount::from_nanos(random.within(0, 20));
        let order = if random.one_in(2) { Order::Resorted } else { Order::Frozen };
        let mut channels = DOrder::new(order, best_effort);
        for _ in 0..random.within(2, 6) {
            let interval = random.within(40, 400);
            let message = random.within(2, 60);
            let deadline = random.within(message, interval.max(message));
            let packet = random.within(1, message);
            let channel = channel(message, packet, interval, deadline);
            let _ = channels.admit(channel);
        }
        accepted += usize::from(channels.channels().len() > 1);
        let all = channels.channels();
        assert!(packets_fit(all, best_effort), "{best_effort} {all:?}");
    }
    assert!(accepted > 2_000, "{accepted}");
}
