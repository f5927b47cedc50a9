//! A core: preemptible, so the policy is asked again whenever anything happens.

use moirai_scheduler::Span;

use super::Engine;

/// Runs the core until the end.
pub(super) fn run(engine: &mut Engine<'_>) {
    let mut last = None;
    loop {
        engine.deliver();
        if engine.now >= engine.end {
            return;
        }
        engine.decisions += 1;
        let Some(pick) = engine.policy.pick(engine.now) else {
            let start = engine.now;
            engine.rest(engine.end, true);
            engine.idle += engine.now - start;
            continue;
        };
        if engine.resource.switch > Span::ZERO && last != Some(pick.client) {
            last = Some(pick.client);
            let cost = engine.resource.switch.min(engine.end - engine.now);
            engine.now += cost;
            engine.overhead += cost;
            continue;
        }
        let index = engine.index_of(pick.client);
        let (start, limit) = (engine.now, engine.next_event().min(engine.end));
        let Some(job) = engine.clients[index].source.head(start) else {
            panic!("the policy picked a client without work: {:?}", pick.client);
        };
        let until =
            start.saturating_add(job.left.time()).min(pick.until).min(limit).max(start + Span::ONE);
        job.left = job.left.saturating_sub((until - start).service());
        let (done, due) = (job.left.is_zero(), job.due);
        engine.now = until;
        engine.serve(index, pick.service, start);
        if done {
            engine.clients[index].source.pop(until);
            engine.finished(index, due);
            engine.settle(index);
        }
    }
}
