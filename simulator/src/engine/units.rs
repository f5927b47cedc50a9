//! A disk or a link: whole units, as many inside as the window lets in, served one after the other.

use std::collections::VecDeque;

use moirai_scheduler::device::{CostModel, Window};
use moirai_scheduler::{Amount, Moment, Pick, Service, Span, Ticket};

use super::Engine;
use crate::source::Job;

/// A unit that was handed to the device.
struct Unit {
    client: usize,
    service: Service,
    job: Job,
    ticket: Ticket,
}

/// A device: what is inside, and what its owner knows about it.
struct Device {
    inside: VecDeque<Unit>,
    window: Window,
    unit: Amount,
    /// Units of a link say what they cost and are right; those of a disk are known by experience,
    /// each client's by its own: nobody can spoil the estimates of others.
    models: Vec<CostModel>,
    /// Somebody is promised service.
    contracts: bool,
}

/// Units of a made-up disk have no size: a nanosecond announced stands for a byte.
fn bytes(job: &Job) -> u64 {
    job.announced.as_nanos()
}

impl Device {
    /// What a unit of a client is reckoned to cost. A disk does not believe that it is less than
    /// announced or than such units have cost.
    fn estimate(&self, client: usize, job: &Job, now: Moment) -> Amount {
        match self.models.get(client) {
            Some(model) => {
                let learned = model.estimate(job.kind, bytes(job), now);
                learned.max(job.announced.min(self.unit))
            }
            None => job.left,
        }
    }

    /// The first unit is over.
    fn pop(&mut self, cost: Amount, now: Moment) -> Option<Unit> {
        let unit = self.inside.pop_front()?;
        self.window.end(unit.ticket.estimate);
        if let Some(model) = self.models.get_mut(unit.client) {
            model.learn(unit.job.kind, bytes(&unit.job), cost, now);
        }
        Some(unit)
    }
}

/// Runs the device until the end.
pub(super) fn run(engine: &mut Engine<'_>) {
    let depth = usize::try_from(engine.resource.depth.max(1)).unwrap_or(usize::MAX);
    let clients = engine.clients.len();
    let disk = engine.resource.kind == crate::Kind::Disk;
    let mut device = Device {
        inside: VecDeque::new(),
        window: Window::new(depth, engine.resource.unit),
        unit: engine.resource.unit,
        models: if disk { vec![CostModel::new(engine.resource.unit); clients] } else { Vec::new() },
        contracts: engine.clients.iter().any(|client| client.is_promised()),
    };
    // The first unit of the device is in service since then.
    let mut since = Moment::ZERO;
    loop {
        // A machine that stands still does not serve either.
        since += engine.deliver();
        if engine.now >= engine.end {
            for Unit { client, job, .. } in device.inside.into_iter().rev() {
                engine.clients[client].source.restore(job);
            }
            return;
        }
        let waits = fill(engine, &mut device, &mut since);
        let start = engine.now;
        let Some(first) = device.inside.front() else {
            engine.rest(engine.end, true);
            engine.idle += engine.now.min(engine.end) - start;
            continue;
        };
        let done = since.saturating_add(first.job.left.time());
        engine.rest(done.max(start + Span::ONE), !waits);
        if engine.now < done {
            continue;
        }
        let cost = (engine.now - since).service();
        if let Some(Unit { client, service, job, ticket }) = device.pop(cost, engine.now) {
            engine.serve_unit(client, service, ticket, since);
            engine.clients[client].in_flight -= 1;
            since = engine.now;
            engine.finished(client, job.due);
        }
    }
}

/// Hands out units as long as the window has room. Whether there is nothing to ask before a unit is
/// back.
fn fill(engine: &mut Engine<'_>, device: &mut Device, since: &mut Moment) -> bool {
    while !device.window.is_full() {
        engine.decisions += 1;
        let Some(pick) = engine.policy.pick(engine.now) else { return false };
        let client = engine.index_of(pick.client);
        let Some(job) = engine.clients[client].source.head(engine.now).copied() else {
            panic!("the policy picked a client without work: {:?}", pick.client);
        };
        let estimate = device.estimate(client, &job, engine.now);
        if !device.window.fits(pick.service, estimate, device.contracts) {
            return true;
        }
        let _ = engine.clients[client].source.pop(engine.now);
        if device.inside.is_empty() {
            *since = engine.now;
        }
        begin(engine, device, pick, job, estimate);
        engine.clients[client].in_flight += 1;
        engine.settle(client);
    }
    true
}

fn begin(engine: &mut Engine<'_>, device: &mut Device, pick: Pick, job: Job, estimate: Amount) {
    let client = engine.index_of(pick.client);
    let ticket = engine.policy.hand_out(&pick, estimate, engine.now);
    device.window.begin(estimate);
    device.inside.push_back(Unit { client, service: pick.service, job, ticket });
}
