//! Virtual time on one resource: what cores and devices have in common.
//!
//! Owns the clock, the clients and the calendar of one resource. `cpu` and `units` add how service
//! is given. All resources of a scenario are simulated one after the other, each with random
//! streams of its own, so adding a tenant does not change what the others do.

mod cpu;
mod units;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use moirai_scheduler::admission::{WHOLE_PPM, reserved_ppm};
use moirai_scheduler::excuse::{Outage, excuse};
use moirai_scheduler::{
    Amount, ClientId, Contract, Head, Miss, Moment, Policy, Service, Span, Ticket, policy,
};

use crate::meter::Meter;
use crate::random::Random;
use crate::report::{Report, ResourceReport, Segment, TenantReport, Usage, jain};
use crate::scenario::{Kind, Resource, Scenario};
use crate::source::Source;

/// Makes the policy of a resource for a number of clients.
pub type MakePolicy<'a> = &'a mut dyn FnMut(&Resource, usize) -> Box<dyn Policy>;

/// Why a scenario cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// A tenant uses a resource that is not there.
    #[error("tenant `{tenant}` uses `{resource}`, but there is no such resource")]
    NoResource {
        /// The tenant.
        tenant: String,
        /// The resource.
        resource: String,
    },
}

/// One client of the resource.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    tenant: usize,
    pub(crate) source: Source,
    pub(crate) meter: Meter,
    /// The policy was told that it has work.
    pub(crate) awake: bool,
    pub(crate) in_flight: u32,
    weight: Option<u32>,
    contract: Contract,
}

impl Client {
    /// Whether its contract has a slice.
    pub(crate) fn is_promised(&self) -> bool {
        self.contract.slice() > Amount::ZERO
    }
}

/// One resource in virtual time.
pub(crate) struct Engine<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) policy: Box<dyn Policy>,
    pub(crate) clients: Vec<Client>,
    calendar: BinaryHeap<Reverse<(Moment, usize)>>,
    pub(crate) now: Moment,
    pub(crate) end: Moment,
    pub(crate) decisions: u64,
    pub(crate) idle: Span,
    pub(crate) overhead: Span,
    stalls: Vec<Outage>,
    index: usize,
    segments: Vec<Segment>,
    segments_max: usize,
}

impl Engine<'_> {
    /// When something happens by itself next.
    pub(crate) fn next_event(&self) -> Moment {
        self.calendar.peek().map_or(Moment::MAX, |Reverse((time, _))| *time)
    }

    /// Lets all sources fire whose time has come. Returns for how long the machine stood still.
    pub(crate) fn deliver(&mut self) -> Span {
        let mut stalled = Span::ZERO;
        self.excuse_misses();
        while let Some(&Reverse((time, index))) = self.calendar.peek()
            && time <= self.now
        {
            self.calendar.pop();
            let client = &mut self.clients[index];
            if let Some(length) = client.source.stall() {
                let length = length.min(self.end.since(self.now));
                self.stalls.push(Outage { begin: self.now, end: self.now + length });
                self.now += length;
                stalled += length;
            }
            let next = client.source.fire(time);
            if let Some(next) = next {
                self.calendar.push(Reverse((next.max(time + Span::ONE), index)));
            }
            self.settle(index);
        }
        stalled
    }

    /// Tells the policy what a client has to do now.
    pub(crate) fn settle(&mut self, index: usize) {
        let now = self.now;
        let client = &mut self.clients[index];
        match client.source.head(now) {
            Some(job) => {
                let head =
                    Head { cost: job.announced, arrival: job.arrival, position: job.position };
                if !client.awake {
                    client.awake = true;
                    client.meter.wakes(now);
                }
                self.policy.wake(client.id, head, now);
            }
            None if client.awake => {
                client.awake = false;
                if client.in_flight == 0 {
                    client.meter.sleeps(now);
                }
                self.policy.block(client.id, now);
            }
            None => {}
        }
    }

    /// A job of a client ended. The client goes on, sleeps, or thinks what to do next.
    pub(crate) fn finished(&mut self, index: usize, due: Option<Moment>) {
        let now = self.now;
        let client = &mut self.clients[index];
        client.meter.done(due, now);
        if client.source.head(now).is_none() && client.in_flight == 0 {
            if let Some(next) = client.source.finished(now) {
                self.calendar.push(Reverse((next, index)));
            }
            if !client.awake {
                client.meter.sleeps(now);
            }
        }
    }

    /// Books service from `start` until now.
    pub(crate) fn serve(&mut self, index: usize, service: Service, start: Moment) {
        self.note_service(index, service, start);
        let id = self.clients[index].id;
        self.policy.charge(id, service, (self.now - start).service(), self.now);
    }

    /// Books the service of a unit, from `start` until now.
    pub(crate) fn serve_unit(
        &mut self,
        index: usize,
        service: Service,
        ticket: Ticket,
        start: Moment,
    ) {
        self.note_service(index, service, start);
        self.policy.complete(ticket, (self.now - start).service(), self.now);
    }

    fn note_service(&mut self, index: usize, service: Service, start: Moment) {
        let client = &mut self.clients[index];
        let end = self.now.min(self.end);
        client.meter.served(service, start.min(end), end);
        if self.segments.len() < self.segments_max {
            let guaranteed = service == Service::Guaranteed;
            let (resource, tenant) = (self.index, client.tenant);
            match self.segments.last_mut() {
                Some(last)
                    if last.tenant == tenant
                        && last.end == start
                        && last.guaranteed == guaranteed =>
                {
                    last.end = end;
                }
                _ => self.segments.push(Segment { resource, tenant, start, end, guaranteed }),
            }
        }
    }

    /// The client that a policy named. A policy may only name clients that it has.
    pub(crate) fn index_of(&self, id: ClientId) -> usize {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        assert!(index < self.clients.len(), "the policy picked a client that is not there: {id:?}");
        index
    }

    /// Nobody is served until something happens, or the policy wants to be asked again.
    pub(crate) fn rest(&mut self, until: Moment, ask_again: bool) {
        let timeout = self.policy.timeout(self.now).filter(|_| ask_again).unwrap_or(Moment::MAX);
        let next = self.next_event().min(until).min(timeout);
        self.now = next.clamp(self.now + Span::ONE, self.end.max(self.now + Span::ONE));
    }

    /// Which misses stalls can have caused. Taken as they come: a policy remembers some hundred.
    fn excuse_misses(&mut self) {
        let mut misses: Vec<Miss> = Vec::new();
        self.policy.take_misses(&mut |miss| misses.push(miss));
        if self.stalls.is_empty() {
            return;
        }
        for miss in misses {
            let index = self.index_of(miss.client);
            let others = self.clients.iter().filter(|client| client.id != miss.client);
            let others: Vec<_> = others.map(|client| client.contract).collect();
            let spare = WHOLE_PPM.saturating_sub(reserved_ppm(&others));
            if excuse(&miss, &self.stalls, spare).is_some() {
                self.clients[index].meter.misses_in_stall += 1;
            }
        }
    }

    /// The end has come: what is not done, not served, not judged is told.
    fn close(&mut self) {
        self.policy.judge(self.end);
        self.excuse_misses();
        for client in &mut self.clients {
            client.meter.ends(self.end);
            // What comes with the end has nothing to wait for.
            for job in client.source.undone().filter(|job| job.arrival < self.end) {
                client.meter.not_done(job.arrival, job.due, self.end);
            }
        }
    }

    fn report(&self) -> ResourceReport {
        let served: Amount = self.clients.iter().map(|client| client.meter.total()).sum();
        let elapsed = self.end.since(Moment::ZERO);
        let always =
            |client: &&Client| client.meter.wanting(self.end).wide() * 100 >= elapsed.wide() * 99;
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let share = |client: &Client| {
            Some(client.meter.extra().as_nanos() as f64 / f64::from(client.weight?))
        };
        let shares: Vec<f64> = self.clients.iter().filter(always).filter_map(share).collect();
        let ppm = served.wide() * 1_000_000 / elapsed.wide().max(1);
        ResourceReport {
            name: self.resource.name.clone(),
            kind: self.resource.kind,
            decisions: self.decisions,
            idle_ns: self.idle.as_nanos(),
            overhead_ns: self.overhead.as_nanos(),
            stalled_ns: self.stalls.iter().map(|it| it.end - it.begin).sum::<Span>().as_nanos(),
            utilisation_ppm: u64::try_from(ppm).unwrap_or(u64::MAX),
            jain: jain(&shares),
        }
    }
}

/// Simulates `seconds` of a scenario under the policies that it names.
///
/// # Errors
/// See [`SimulationError`].
pub fn run(scenario: &Scenario, seconds: u64, seed: u64) -> Result<Report, SimulationError> {
    let duration = Span::from_secs(seconds);
    run_policy(scenario, duration, seed, &mut |resource, clients| policy(resource.policy, clients))
}

/// Simulates `duration` of a scenario under policies that `make` provides for each
/// resource and number of clients: for tests that look over a policy's shoulder.
///
/// # Errors
/// See [`SimulationError`].
pub fn run_policy(
    scenario: &Scenario,
    duration: Span,
    seed: u64,
    make: MakePolicy<'_>,
) -> Result<Report, SimulationError> {
    check_names(scenario)?;
    let name =
        |tenant: &crate::Tenant| TenantReport { name: tenant.name.clone(), ..<_>::default() };
    let mut report = Report {
        decisions: 0,
        tenants: scenario.tenants.iter().map(name).collect(),
        resources: Vec::new(),
        idle_ns: 0,
        overhead_ns: 0,
        jain: 1.0,
        segments: Vec::new(),
    };
    for index in 0..scenario.resources.len() {
        let mut engine = prepare(scenario, index, duration, seed, make)?;
        match engine.resource.kind {
            Kind::Cpu => cpu::run(&mut engine),
            Kind::Disk | Kind::Link => units::run(&mut engine),
        }
        engine.close();
        let part = engine.report();
        report.decisions += part.decisions;
        report.idle_ns += part.idle_ns;
        report.overhead_ns += part.overhead_ns;
        report.jain = report.jain.min(part.jain);
        report.resources.push(part);
        for client in &engine.clients {
            let account = engine.policy.account(client.id).unwrap_or_default();
            let usage = client.meter.usage(account, client.source.dropped, engine.end);
            let tenant = &mut report.tenants[client.tenant];
            let place = match engine.resource.kind {
                Kind::Cpu => &mut tenant.cpu,
                Kind::Disk => &mut tenant.disk,
                Kind::Link => &mut tenant.link,
            };
            place.get_or_insert_with(Usage::default).merge(usage);
        }
        report.segments.append(&mut engine.segments);
    }
    Ok(report)
}

fn check_names(scenario: &Scenario) -> Result<(), SimulationError> {
    for tenant in &scenario.tenants {
        for used in &tenant.uses {
            if !scenario.resources.iter().any(|resource| resource.name == used.resource) {
                let (tenant, resource) = (tenant.name.clone(), used.resource.clone());
                return Err(SimulationError::NoResource { tenant, resource });
            }
        }
    }
    Ok(())
}

fn prepare<'a>(
    scenario: &'a Scenario,
    index: usize,
    duration: Span,
    seed: u64,
    make: MakePolicy<'_>,
) -> Result<Engine<'a>, SimulationError> {
    let resource = &scenario.resources[index];
    let mut clients = Vec::new();
    let mut contracts = Vec::new();
    let mut calendar = BinaryHeap::new();
    for (tenant, spec) in scenario.tenants.iter().enumerate() {
        for (i, used) in spec.uses.iter().enumerate() {
            if used.resource != resource.name {
                continue;
            }
            let stream = [index, tenant, i].iter().fold(seed, |seed, &part| {
                Random::new(seed ^ u64::try_from(part).unwrap_or(u64::MAX)).draw()
            });
            let mut source = Source::new(used.load.clone(), used.contract, resource, stream);
            let id = ClientId(u32::try_from(clients.len()).unwrap_or(u32::MAX));
            if let Some(first) = source.start() {
                calendar.push(Reverse((first, clients.len())));
            }
            contracts.push((id, used.contract));
            clients.push(Client {
                id,
                tenant,
                source,
                meter: Meter::new(scenario.window),
                awake: false,
                in_flight: 0,
                weight: used.contract.extra().map(std::num::NonZeroU32::get),
                contract: used.contract,
            });
        }
    }
    let mut policy = make(resource, clients.len());
    for (id, contract) in contracts {
        policy
            .add(id, contract, Moment::ZERO)
            .expect("ids are new and the policy was made for so many");
    }
    Ok(Engine {
        resource,
        policy,
        clients,
        calendar,
        now: Moment::ZERO,
        end: Moment::ZERO + duration,
        decisions: 0,
        idle: Span::ZERO,
        overhead: Span::ZERO,
        stalls: Vec::new(),
        index,
        segments: Vec::new(),
        segments_max: scenario.segments,
    })
}
