//! The known flaws F1 to F10: for each, a flawed policy fails where the default passes.
//!
//! F8 needs a flawed rule that exists nowhere else and stands beside the rules in `src/`.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]

use moirai_scheduler::admission::{Overhead, Resource as Capacity, WHOLE_PPM, check};
use moirai_scheduler::{
    Account, Amount, Atropos, ClientId, Contract, Head, Moment, Pick, Policy, PolicyError,
    PolicyKind, Service, Span, Usd, Weight, policy_by_name,
};
use moirai_simulator::load::Time;
use moirai_simulator::report::Usage;
use moirai_simulator::{Load, Report, Resource, Scenario, Tenant, Use, run_policy};

const MS: u64 = 1_000_000;
const US: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;

fn contract(period: u64, slice: u64, deadline: u64, weight: u32) -> Contract {
    let (period, deadline) = (Span::from_nanos(period), Span::from_nanos(deadline));
    Contract::new(period, Amount::from_nanos(slice), deadline, Weight::new(weight)).unwrap()
}

fn world(resource: Resource, clients: &[(Contract, Load)]) -> Scenario {
    let tenant = |(i, (contract, load)): (usize, &(Contract, Load))| Tenant {
        name: i.to_string(),
        uses: vec![Use { resource: "it".into(), contract: *contract, load: load.clone() }],
    };
    Scenario::new(vec![resource], clients.iter().enumerate().map(tenant).collect())
}

fn run_with(scenario: &Scenario, make: impl Fn(usize) -> Box<dyn Policy>) -> (Report, Vec<Usage>) {
    let report = run_policy(scenario, Span::from_secs(10), 1, &mut |_, n| make(n)).unwrap();
    let usage = |t: &moirai_simulator::report::TenantReport| {
        [&t.cpu, &t.disk, &t.link].into_iter().flatten().next().unwrap().clone()
    };
    let usages = report.tenants.iter().map(usage).collect();
    (report, usages)
}

fn run_named(scenario: &Scenario, policy: &str) -> Vec<Usage> {
    run_with(scenario, |n| policy_by_name(policy, n).unwrap()).1
}

/// Guaranteed service in thousandths of the time.
fn rate(usage: &Usage) -> u64 {
    usage.guaranteed_ns * 1_000 / (10 * SECOND)
}

/// `work` every `period` from `phase` on.
fn job(period: u64, work: u64, phase: u64) -> Load {
    Load::Periodic { period: Time(period), work: Time(work), phase: Time(phase), unit: None }
}

fn core() -> Resource {
    Resource::cpu("it", PolicyKind::Atropos)
}

fn whole() -> Capacity {
    Capacity { capacity_ppm: WHOLE_PPM, blocking: Amount::ZERO, overhead: Overhead::NONE }
}

/// The default policy with something wrong.
struct Tampered {
    inner: Atropos,
    /// Which account pays, or none.
    pays: fn(Service) -> Option<Service>,
    /// A decision stands for at least so long.
    least: Span,
    standing: Option<(Pick, Moment)>,
}

impl Tampered {
    fn new(capacity: usize, pays: fn(Service) -> Option<Service>, least: Span) -> Box<Self> {
        Box::new(Self { inner: Atropos::new(capacity), pays, least, standing: None })
    }
}

impl Policy for Tampered {
    fn add(&mut self, id: ClientId, contract: Contract, now: Moment) -> Result<(), PolicyError> {
        self.inner.add(id, contract, now)
    }
    fn remove(&mut self, id: ClientId, now: Moment) -> Result<Account, PolicyError> {
        self.inner.remove(id, now)
    }
    fn change(&mut self, id: ClientId, contract: Contract, now: Moment) -> Result<(), PolicyError> {
        self.inner.change(id, contract, now)
    }
    fn wake(&mut self, id: ClientId, head: Head, now: Moment) {
        self.inner.wake(id, head, now);
    }
    fn block(&mut self, id: ClientId, now: Moment) {
        self.standing = self.standing.filter(|(pick, _)| pick.client != id);
        self.inner.block(id, now);
    }
    fn pick(&mut self, now: Moment) -> Option<Pick> {
        if let Some((pick, until)) = self.standing.filter(|(_, until)| now < *until) {
            return Some(Pick { until, ..pick });
        }
        let pick = self.inner.pick(now)?;
        let until = pick.until.max(now + self.least);
        self.standing = (self.least > Span::ZERO).then_some((pick, until));
        Some(Pick { until, ..pick })
    }
    fn charge(&mut self, id: ClientId, service: Service, cost: Amount, now: Moment) {
        if let Some(service) = (self.pays)(service) {
            self.inner.charge(id, service, cost, now);
        }
    }
    fn timeout(&self, now: Moment) -> Option<Moment> {
        self.inner.timeout(now)
    }
    fn account(&self, id: ClientId) -> Option<Account> {
        self.inner.account(id)
    }
}

#[test]
fn f1_a_thief_with_a_short_latency_hint_gets_no_more_than_its_rate() {
    let thief = Load::LatencyThief { work: None, pause: Some(Time(15_100 * US)) };
    let world = world(core(), &[(contract(100 * MS, 10 * MS, 25 * MS, 0), thief)]);
    assert!(rate(&run_named(&world, "nemesis")[0]) > 390, "the flaw is there");
    assert!(rate(&run_named(&world, "atropos")[0]) <= 100);
}

#[test]
fn f2_a_client_that_blocks_briefly_keeps_its_guarantee() {
    let napper = Load::Single { work: Time(200 * US), think: Time(300 * US) };
    let clients = [
        (contract(10 * MS, 3 * MS, 10 * MS, 0), napper),
        (contract(20 * MS, 12 * MS, 20 * MS, 1), Load::default()),
    ];
    let world = world(core(), &clients);
    assert!(rate(&run_named(&world, "nemesis")[0]) < 150, "the flaw is there");
    let (_, without_laxity) = run_with(&world, |n| Box::new(Usd::new(n, Span::ZERO)));
    assert!(rate(&without_laxity[0]) < 30, "the flaw is there");
    assert!(rate(&run_named(&world, "atropos")[0]) >= 299);
}

#[test]
fn f2_a_single_request_at_a_time_keeps_most_of_its_slice_beside_an_earlier_deadline() {
    let reader = Load::Single { work: Time(MS), think: Time(20 * US) };
    let clients = [
        (contract(100 * MS, 30 * MS, 100 * MS, 0), reader),
        (contract(60 * MS, 30 * MS, 60 * MS, 1), Load::default()),
    ];
    let world =
        world(Resource::disk("it", PolicyKind::Atropos, Amount::from_millis(1), 1), &clients);
    let (_, got) = run_with(&world, |n| {
        let mut policy = Atropos::new(n);
        policy.set_blocking(Amount::from_millis(1));
        Box::new(policy)
    });
    // While it thinks, a unit of slack gets in each time. Bandwidth alone leaves it 253.
    assert!(rate(&got[0]) >= 260, "{:?}", got[0]);
    assert_eq!((got[0].misses, got[1].misses), (0, 0));
}

#[test]
fn f3_scaling_for_latency_does_not_raise_the_rate() {
    let thief = Load::LatencyThief { work: None, pause: Some(Time(42 * MS)) };
    let world = world(core(), &[(contract(100 * MS, 10 * MS, 51 * MS, 0), thief)]);
    assert!(rate(&run_named(&world, "xen")[0]) > 180, "the flaw is there");
    assert!(rate(&run_named(&world, "atropos")[0]) <= 100);
}

#[test]
fn f4_a_decision_stands_no_longer_than_it_says() {
    let clients = [
        (contract(5 * MS, MS, 2 * MS, 0), job(5 * MS, MS, 0)),
        (contract(7 * MS, MS, 7 * MS, 0), job(7 * MS, MS, 0)),
        (contract(40 * MS, 20 * MS, 40 * MS, 1), Load::default()),
    ];
    let world = world(core(), &clients);
    let (_, flawed) = run_with(&world, |n| Tampered::new(n, Some, Span::from_millis(3)));
    assert!(flawed[0].misses > 0, "the flaw is there");
    assert_eq!(run_named(&world, "atropos")[0].misses, 0);
    let contracts = clients.map(|(contract, _)| contract);
    let minimum = Capacity { blocking: Amount::from_millis(3), ..whole() };
    assert!(check(&whole(), &contracts).is_ok());
    assert!(check(&minimum, &contracts).is_err(), "admission knows it as a blocking term");
}

#[test]
fn f5_slack_is_paid_from_the_slack_and_always_paid() {
    let clients = [
        (contract(20 * MS, 5 * MS, 20 * MS, 1), Load::default()),
        (contract(20 * MS, 5 * MS, 20 * MS, 1), Load::default()),
    ];
    let world = world(core(), &clients);
    let flawed = |service| -> Option<Service> {
        let _ = service;
        Some(Service::Guaranteed)
    };
    let (_, charged) = run_with(&world, |n| Tampered::new(n, flawed, Span::ZERO));
    assert!(rate(&charged[0]) < 240, "the flaw is there: {}", rate(&charged[0]));
    let fair = run_named(&world, "atropos");
    assert_eq!((rate(&fair[0]), rate(&fair[1])), (250, 250));
    let unpaid = |service| (service == Service::Guaranteed).then_some(service);
    let (_, free) = run_with(&world, |n| Tampered::new(n, unpaid, Span::ZERO));
    assert_eq!(free[1].extra_ns, 0, "the flaw is there: the first client takes all");
    assert!(fair[0].extra_ns.abs_diff(fair[1].extra_ns) <= 2 * MS);
}

#[test]
fn f6_admission_is_exact_and_knows_the_overheads() {
    let third = contract(10 * MS, 3_340 * US, 10 * MS, 0);
    let percents: u64 = [third; 3].iter().map(|c| c.slice().time() * 100 / c.period()).sum();
    assert!(percents <= 100, "whole percents would admit it");
    assert!(check(&whole(), &[third; 3]).is_err());
    let misses = |clients: &[(Contract, Load)], resource| {
        run_named(&world(resource, clients), "atropos")
            .iter()
            .map(|usage| usage.misses)
            .sum::<u64>()
    };
    assert!(misses(&[third; 3].map(|c| (c, Load::default())), core()) > 0, "the flaw is there");
    let small = contract(MS, 250 * US, MS, 0);
    let costly = Resource { switch: Span::from_micros(20), ..core() };
    let overhead = Overhead { switch: Amount::from_micros(20), ..Overhead::NONE };
    assert!(check(&whole(), &[small; 4]).is_ok(), "without overheads it is admitted");
    assert!(misses(&[small; 4].map(|c| (c, Load::default())), costly.clone()) > 0);
    let honest = Capacity { overhead, ..whole() };
    assert!(check(&honest, &[small; 4]).is_err());
    assert!(check(&honest, &[small; 3]).is_ok());
    assert_eq!(misses(&[small; 3].map(|c| (c, Load::default())), costly), 0);
}

#[test]
fn f7_nobody_waits_for_a_client_without_work() {
    let clients = [
        (
            contract(50 * MS, 5 * MS, 50 * MS, 0),
            Load::Single { work: Time(MS), think: Time(4 * MS) },
        ),
        (contract(60 * MS, 4 * MS, 6 * MS, 1), Load::default()),
    ];
    let contracts = clients.clone().map(|(contract, _)| contract);
    let disk = Resource::disk("it", PolicyKind::Atropos, Amount::from_millis(1), 1);
    let admitted = Capacity { blocking: Amount::from_millis(1), ..whole() };
    assert!(check(&admitted, &contracts).is_ok());
    let lax = Capacity { blocking: Amount::from_millis(5), ..whole() };
    assert!(check(&lax, &contracts).is_err(), "admission knows it as a blocking term");
    let world = world(disk, &clients);
    let (report, _) = run_with(&world, |n| Box::new(Usd::new(n, Span::from_millis(5))));
    assert!(report.idle_ns > SECOND / 10, "the flaw is there: {}", report.idle_ns);
    let (report, usages) = run_with(&world, |n| policy_by_name("atropos", n).unwrap());
    assert_eq!((report.idle_ns, usages[1].misses), (0, 0));
}

#[test]
fn f9_slack_is_shared_fairly_and_never_left_unused() {
    let clients: Vec<_> = (0..16)
        .map(|i| {
            (contract(20 * MS, if i < 4 { MS } else { 0 }, 20 * MS, 1 + i % 5), Load::default())
        })
        .collect();
    let world = world(core(), &clients);
    let unpaid = |service| (service == Service::Guaranteed).then_some(service);
    let (flawed, _) = run_with(&world, |n| Tampered::new(n, unpaid, Span::ZERO));
    assert!(flawed.jain < 0.5, "the flaw is there: {}", flawed.jain);
    let (report, _) = run_with(&world, |n| policy_by_name("atropos", n).unwrap());
    assert!(report.jain > 0.9999, "{}", report.jain);
    assert_eq!(report.idle_ns, 0);
}

#[test]
fn f10_whoever_asks_for_more_than_its_slice_is_late_alone() {
    let client = |i: u64| (contract(20 * MS, 6 * MS, 20 * MS, 0), job(20 * MS, 6 * MS, i * 5 * MS));
    let mut clients = [0, 1, 2, 3].map(client);
    clients[2] = (contract(20 * MS, 2 * MS, 20 * MS, 0), job(20 * MS, 3 * MS, 10 * MS));
    let world = world(core(), &clients);
    let free = |_| None;
    let (_, flawed) = run_with(&world, |n| Tampered::new(n, free, Span::ZERO));
    let late = flawed.iter().filter(|usage| usage.max_lateness_ns > 0).count();
    assert!(late >= 1, "the flaw is there: {late} of the others are late");
    let usages = run_named(&world, "atropos");
    for (i, usage) in usages.iter().enumerate().filter(|(i, _)| *i != 2) {
        assert_eq!((usage.max_lateness_ns, usage.misses), (0, 0), "{i}");
    }
    assert!(rate(&usages[2]) >= 99);
}

/// Naps of 10 us beside a victim that is promised 60%: every nap costs two switches.
#[test]
fn who_naps_within_its_slice_pays_for_the_switches() {
    let switch = Span::from_micros(60);
    let resource = Resource { switch, ..core() };
    let napper = Load::Single { work: Time(10 * US), think: Time(10 * US) };
    let contracts = [contract(10 * MS, 6 * MS, 10 * MS, 0), contract(10 * MS, MS, 5 * MS, 0)];
    let clients = [(contracts[0], job(10 * MS, 6 * MS, 0)), (contracts[1], napper)];
    let overhead = Overhead { switch: switch.service(), ..Overhead::NONE };
    let capacity = Capacity { capacity_ppm: 950_000, blocking: Amount::ZERO, overhead };
    assert_eq!(check(&capacity, &contracts), Ok(()));
    let scenario = world(resource, &clients);
    let run = |cost: Amount| {
        let (report, usages) = run_with(&scenario, |n| {
            let mut policy = policy_by_name("atropos", n).unwrap();
            policy.set_wake_cost(cost);
            policy
        });
        let taken = usages[1].guaranteed_ns + report.overhead_ns;
        (usages[0].misses, usages[0].max_lateness_ns, taken * 1_000 / (10 * SECOND))
    };
    let (missed, _, taken) = run(Amount::ZERO);
    assert!(missed > 900 && taken > 400, "the flaw is there: {missed} missed, {taken} per mille");
    let (missed, late, taken) = run((2 * switch).service());
    assert_eq!((missed, late), (0, 0));
    assert!(taken <= 100 + 12 + 12, "its slice and two switches of each: {taken} per mille");
}
