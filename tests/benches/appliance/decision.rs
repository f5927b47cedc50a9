//! The cost of one decision of the scheduler with 1024 clients: `pick` and `charge`. Prints the
//! distribution; `cargo bench -p moirai-scheduler` has the means.

use std::hint::black_box;
use std::time::Instant;

use moirai_scheduler::{Atropos, ClientId, Contract, Head, Moment, Policy, Span, Weight};

use crate::options::Options;
use crate::pair::quantile;
use crate::report::{Goal, Report};

const CLIENTS: u32 = 1024;
const DECISIONS: usize = 200_000;

/// Measures the distribution, several times.
pub(crate) fn measure(report: &mut Report, options: &Options) {
    let clock = sorted(DECISIONS, || {});
    let (mut middle, mut late) = (Vec::new(), Vec::new());
    for _ in 0..options.pairs {
        let mut policy = policy();
        let mut now = Moment::from_millis(100);
        let costs = sorted(DECISIONS, || {
            let pick = policy.pick(now).expect("all clients are awake");
            let end = pick.until.min(now + Span::from_micros(50)).max(now + Span::ONE);
            policy.charge(pick.client, pick.service, (end - now).service(), end);
            now = end;
            black_box(pick);
        });
        // The clock's own cost is in every sample.
        let clock = quantile(&clock, 0.5);
        middle.push(quantile(&costs, 0.5) - clock);
        late.push(quantile(&costs, 0.99) - clock);
    }
    report.figure("decision, 1024 clients, p50", "ns", middle, Goal::AtMost(200.0));
    report.figure("decision, 1024 clients, p99", "ns", late, Goal::AtMost(1000.0));
    report.note(format!(
        "decision: reading the clock, {:.0} ns, is taken off every sample",
        quantile(&clock, 0.5)
    ));
}

/// How long each of `count` calls took, in nanoseconds, shortest first.
#[allow(clippy::cast_precision_loss, reason = "nanoseconds of a call")]
fn sorted(count: usize, mut call: impl FnMut()) -> Vec<f64> {
    let timed = |_| {
        let begin = Instant::now();
        call();
        begin.elapsed().as_nanos() as f64
    };
    let mut times: Vec<f64> = (0..count).map(timed).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// All clients awake, with periods around 100 ms and phases all over them.
fn policy() -> Atropos {
    let mut policy = Atropos::new(CLIENTS as usize);
    for i in 0..CLIENTS {
        let period = Span::from_micros(100_000 + u64::from(i * 7919 % 1000) * 10);
        let slice = period.service() / u64::from(CLIENTS) / 2;
        let contract = Contract::new(period, slice, period, Weight::new(1 + i % 4)).unwrap();
        policy.add(ClientId(i), contract, Moment::ZERO).unwrap();
        let phase = Span::from_millis(100) * u64::from(i) / u64::from(CLIENTS);
        policy.wake(ClientId(i), Head::default(), Moment::ZERO + phase);
    }
    policy
}
