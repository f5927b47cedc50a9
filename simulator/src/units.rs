//! A disk or a link: whole units, up to `depth` of them handed out, served one after the other.

use std::collections::VecDeque;

use moirai_scheduler::{Nanos, Service};

use crate::engine::Engine;
use crate::source::Job;

/// A unit that was handed to the device.
struct Unit {
    client: usize,
    service: Service,
    job: Job,
}

/// Runs the device until the end.
pub(crate) fn run(engine: &mut Engine<'_>) {
    let depth = usize::try_from(engine.resource.depth.max(1)).unwrap_or(usize::MAX);
    let mut device: VecDeque<Unit> = VecDeque::new();
    // The first unit of the device is in service since then.
    let mut since: Nanos = 0;
    loop {
        // A machine that stands still does not serve either.
        since += engine.deliver();
        if engine.now >= engine.end {
            return;
        }
        while device.len() < depth {
            engine.decisions += 1;
            let Some(pick) = engine.policy.pick(engine.now) else { break };
            let client = engine.index_of(pick.client);
            let Some(job) = engine.clients[client].source.pop(engine.now) else {
                panic!("the policy picked a client without work: {:?}", pick.client);
            };
            if device.is_empty() {
                since = engine.now;
            }
            device.push_back(Unit { client, service: pick.service, job });
            engine.clients[client].in_flight += 1;
            engine.settle(client);
        }
        let start = engine.now;
        let Some(first) = device.front() else {
            engine.rest(engine.end, true);
            engine.idle += engine.now.min(engine.end) - start;
            continue;
        };
        let done = since.saturating_add(first.job.left);
        engine.rest(done.max(start + 1), device.len() < depth);
        if engine.now < done {
            continue;
        }
        if let Some(Unit { client, service, job }) = device.pop_front() {
            engine.serve(client, service, since);
            engine.clients[client].in_flight -= 1;
            since = engine.now;
            engine.finished(client, job.due);
        }
    }
}
