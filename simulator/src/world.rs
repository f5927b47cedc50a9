//! Random worlds: one resource, a set of contracts near its capacity, honest and hostile loads.
//!
//! A world is made of plain numbers ([`Spec`]), so that a property test can draw and shrink them
//! and `prove` can draw them from a seed. [`World::run`] runs it under a checked policy.

use std::sync::{Arc, Mutex, PoisonError};

use moirai_scheduler::admission::{Overhead, Resource as Capacity, WHOLE_PPM, admit, check};
use moirai_scheduler::{Amount, Contract, PolicyKind, SLACK_QUANTUM, Span, Weight, policy as make};

use crate::load::{Load, Time};
use crate::proof::{Checked, Limits, Tally, claims};
use crate::random::Random;
use crate::report::Report;
use crate::{Resource, Scenario, Tenant, Use, run_policy};

const MS: u64 = 1_000_000;

/// How many kinds of loads there are in worlds.
const LOADS: u64 = 14;

/// One client of a random world, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSpec {
    /// Period, in microseconds.
    pub period_us: u32,
    /// Slice in thousandths of the deadline.
    pub slice: u16,
    /// Deadline in thousandths of the period.
    pub deadline: u16,
    /// Weight in the slack; 0: none.
    pub weight: u8,
    /// Which load.
    pub load: u8,
    /// Seed of what the load leaves open.
    pub seed: u64,
}

/// A random world, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// 0: core, 1: disk, 2: link, 3: core whose kernel switches between ranked clients,
    /// 4: core whose switches take time.
    pub kind: u8,
    /// Largest unit of a disk or a link, in microseconds.
    pub unit_us: u16,
    /// Units handed to a disk at once.
    pub depth: u8,
    /// Whether contracts that are not admitted are taken in all the same.
    pub overload: bool,
    /// Whether the machine stands still now and then: then no supply is promised.
    pub stalls: bool,
    /// The clients. The first one is always busy: the victim of invariant 9.
    pub clients: Vec<ClientSpec>,
}

impl Spec {
    /// A world drawn from a seed.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut within = |low: u64, high: u64| random.within(low, high);
        let kind = narrow(within(0, 4));
        let clients = within(1, 7);
        Self {
            kind,
            unit_us: u16::try_from(within(20, 1_000)).unwrap_or(20),
            depth: 1 << within(0, 5),
            overload: within(0, 5) == 0,
            stalls: within(0, 7) == 0,
            clients: (0..clients)
                .map(|_| ClientSpec {
                    period_us: u32::try_from(within(1_000, 60_000)).unwrap_or(1_000),
                    slice: u16::try_from(within(0, 700)).unwrap_or(0),
                    deadline: u16::try_from(within(300, 1_300).min(1_000)).unwrap_or(1_000),
                    weight: narrow(within(0, 9)),
                    load: narrow(within(0, LOADS - 1)),
                    seed: within(0, u64::MAX - 1),
                })
                .collect(),
        }
    }
}

fn narrow(value: u64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

/// A world that can be run.
#[derive(Clone, Debug)]
pub struct World {
    scenario: Scenario,
    limits: Limits,
}

impl World {
    /// Builds the world: contracts that are not admitted are replaced by the nearest ones that fit,
    /// else dropped.
    #[must_use]
    pub fn new(spec: &Spec) -> Self {
        let unit = Amount::from_micros(spec.unit_us.max(1).into());
        // Switches of 1 to 50 us.
        let switch = if spec.kind == 4 { unit.time() / 20 } else { Span::ZERO };
        let (resource, overrun) = match spec.kind {
            0 | 3 => (Resource::cpu("it", PolicyKind::Atropos), Amount::ZERO),
            4 => (Resource { switch, ..Resource::cpu("it", PolicyKind::Atropos) }, Amount::ZERO),
            1 => {
                // Charged when they are handed out, and inside within one unit's time: at any
                // depth, one unit blocks and one is overdrawn.
                let depth = u32::from(spec.depth.max(1));
                (Resource::disk("it", PolicyKind::Atropos, unit, depth), unit)
            }
            _ => (Resource::link("it", PolicyKind::Atropos, unit), unit),
        };
        let overhead = Overhead { overrun, switch: switch.service(), ..Overhead::NONE };
        let capacity = Capacity { capacity_ppm: WHOLE_PPM, blocking: overrun, overhead };
        let mut contracts = Vec::new();
        let mut tenants = Vec::new();
        for client in &spec.clients {
            let Some(asked) = contract(client) else { continue };
            let contract = match admit(&capacity, &contracts, &asked) {
                Ok(()) => asked,
                Err(_) if spec.overload => asked,
                Err(refusal) => match refusal.nearest {
                    Some(nearest) => nearest,
                    None => continue,
                },
            };
            let number = contracts.len();
            let load = if number == 0 { Load::default() } else { load(client, &contract) };
            let uses = vec![Use { resource: "it".into(), contract, load }];
            contracts.push(contract);
            tenants.push(Tenant { name: number.to_string(), uses });
        }
        if spec.stalls {
            let (period, weight) = (Span::from_secs(1), Weight::new(1));
            if let Ok(contract) = Contract::new(period, Amount::ZERO, period, weight) {
                let load = Load::HostStall { gap: Time(MS * 80), length: Time(MS * 45) };
                let uses = vec![Use { resource: "it".into(), contract, load }];
                tenants.push(Tenant { name: "stall".into(), uses });
            }
        }
        // What is inside the device when two clients begin to be compared was charged before, and
        // is served after that: one unit's time more.
        let quantum = if overrun.is_zero() { SLACK_QUANTUM } else { 2 * overrun };
        let ranked = spec.kind == 3;
        let admitted = !spec.stalls && check(&capacity, &contracts).is_ok();
        let mut scenario = Scenario::new(vec![resource], tenants);
        scenario.segments = 0;
        // Whole periods of the victim, for invariant 9.
        scenario.window = contracts.first().map_or(Span::from_millis(1), Contract::period);
        let blocking = overrun;
        let limits = Limits { overrun, blocking, quantum, admitted, ranked, switch };
        Self { scenario, limits }
    }

    /// Runs the world for `duration` under a policy and checks what it claims.
    ///
    /// # Panics
    /// Never: it names its own resource.
    #[must_use]
    pub fn run(&self, policy: PolicyKind, duration: Span, seed: u64) -> Tally {
        self.run_claiming(policy, claims(policy), duration, seed)
    }

    /// The same for a list of invariants that the policy may not claim: to see that a checker finds
    /// what is wrong.
    ///
    /// # Panics
    /// Never: it names its own resource.
    #[must_use]
    pub fn run_claiming(
        &self,
        policy: PolicyKind,
        claims: &'static [usize],
        duration: Span,
        seed: u64,
    ) -> Tally {
        let sum = Arc::new(Mutex::new(Tally::default()));
        let one = self.simulate(policy, claims, duration, seed, &sum);
        let mut other = self.clone();
        for (i, tenant) in other.scenario.tenants.iter_mut().enumerate().skip(1) {
            if tenant.name == "stall" {
                continue;
            }
            tenant.uses[0].load = if i % 2 == 1 { Load::default() } else { Load::Idle {} };
        }
        let two = other.simulate(policy, claims, duration, seed, &sum);
        let mut tally = sum.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for report in [&one, &two] {
            if claims.contains(&11) {
                self.check_time(&mut tally, report, duration);
            }
            if claims.contains(&12) && self.limits.admitted {
                for tenant in &report.tenants {
                    let misses = usage(tenant).misses;
                    tally.check(12, misses == 0, || format!("{misses} of {}", tenant.name));
                }
                self.check_jobs(&mut tally, report);
            }
        }
        if claims.contains(&9) && self.limits.admitted && self.limits.switch.is_zero() {
            self.check_victim(&mut tally, &one, &two, duration);
        }
        tally
    }

    fn simulate(
        &self,
        policy: PolicyKind,
        claims: &'static [usize],
        duration: Span,
        seed: u64,
        sum: &Arc<Mutex<Tally>>,
    ) -> Report {
        let report = run_policy(&self.scenario, duration, seed, &mut |_, clients| {
            let inner = make(policy, clients);
            Box::new(Checked::new(inner, claims, self.limits, Arc::clone(sum)))
        });
        report.expect("the world names its own resource and a known policy")
    }

    /// Invariant 11, less what is in service at the end.
    fn check_time(&self, tally: &mut Tally, report: &Report, duration: Span) {
        let service: u64 = report
            .tenants
            .iter()
            .map(|tenant| usage(tenant).guaranteed_ns + usage(tenant).extra_ns)
            .sum();
        let stalled: u64 = report.resources.iter().map(|resource| resource.stalled_ns).sum();
        let sum = service + report.idle_ns + report.overhead_ns + stalled;
        let (in_service, duration) = (self.limits.overrun.as_nanos(), duration.as_nanos());
        let holds = sum <= duration && duration - sum <= in_service;
        tally.check(11, holds, || format!("{sum} of {duration}"));
    }

    /// Invariant 14: jobs that ask for no more than their slice, no more often than once a period,
    /// are on time, whenever they come. One that wakes early by what a switch had delayed it waits
    /// for its refill.
    fn check_jobs(&self, tally: &mut Tally, report: &Report) {
        for (tenant, report) in self.scenario.tenants.iter().zip(&report.tenants) {
            let Use { contract, load, .. } = &tenant.uses[0];
            if let Load::Periodic { period, work, .. } = load
                && period.span() >= contract.period()
                && work.work() <= contract.slice()
            {
                let late = usage(report).max_lateness_ns;
                tally.check(14, late <= 2 * self.limits.switch.as_nanos(), || {
                    format!("a job of {} is {late} ns late", tenant.name)
                });
            }
        }
    }

    /// Invariant 9: after every period of the victim it has the same in both runs.
    fn check_victim(&self, tally: &mut Tally, one: &Report, two: &Report, duration: Span) {
        let Some(period) = self.scenario.tenants.first().map(|t| t.uses[0].contract.period())
        else {
            return;
        };
        let bound = (self.limits.blocking + self.limits.overrun).as_nanos();
        let (one, two) = (usage(&one.tenants[0]), usage(&two.tenants[0]));
        let (mut first, mut second) = (0, 0);
        for (a, b) in one
            .windows
            .iter()
            .zip(&two.windows)
            .take(usize::try_from(duration / period).unwrap_or(0))
        {
            first += a.guaranteed_ns;
            second += b.guaranteed_ns;
            let difference = first.abs_diff(second);
            tally.check(9, difference <= bound, || format!("{first} or {second}"));
        }
    }
}

fn usage(tenant: &crate::report::TenantReport) -> &crate::report::Usage {
    let all = [&tenant.cpu, &tenant.disk, &tenant.link];
    all.into_iter().flatten().next().expect("every tenant of a world uses its resource")
}

fn contract(client: &ClientSpec) -> Option<Contract> {
    let period = Span::from_micros(client.period_us.max(1_000).into());
    let deadline = (period * u64::from(client.deadline) / 1_000).clamp(Span::ONE, period);
    let slice = (deadline * u64::from(client.slice.min(1_000)) / 1_000).service();
    Contract::new(period, slice, deadline, Weight::new(client.weight.into())).ok()
}

/// One of the loads, with times around those of the contract.
fn load(client: &ClientSpec, contract: &Contract) -> Load {
    let mut random = Random::new(client.seed);
    let period = contract.period().as_nanos();
    let own = contract.slice().as_nanos();
    let slice = own.max(period / 10);
    let mut near = |time: u64| Time(random.within(time / 4, time.saturating_mul(3) / 2).max(1));
    match u64::from(client.load) % LOADS {
        0 => Load::default(),
        1 => {
            let work = Time(own.max(1));
            Load::Periodic { period: Time(period), work, phase: near(period), unit: None }
        }
        2 => Load::Bursty { gap: near(period * 2), count: 3, work: near(slice) },
        3 => Load::OnOff { on: near(period), off: near(period), unit: None },
        4 => Load::Single { work: near(slice / 3), think: near(slice / 20) },
        5 => Load::Random { gap: near(period), work: near(slice) },
        6 => Load::LatencyThief { work: None, pause: Some(near(contract.deadline().as_nanos())) },
        7 => Load::BlockBeforeCharge { work: Some(near(slice / 2)) },
        8 => Load::Inflate { announced: None, unit: None },
        9 => Load::SmallPackets { unit: Some(Time(50_000)) },
        // Sleepers in all phases, also such as drift through everybody else's.
        10 | 11 => {
            let work = Time(random.within(1, own.max(1)));
            let apart = Time(period + random.within(0, period));
            let phase = Time(random.within(0, period));
            Load::Periodic { period: apart, work, phase, unit: None }
        }
        // Writes, and flushes that say nothing of what they cost.
        12 => Load::Writes { unit: Some(near(slice / 8)), count: 3, flush: Some(near(slice / 4)) },
        // A napper.
        _ => Load::Single { work: Time(10_000), think: Time(10_000) },
    }
}
