//! The rules of the other policies, and what all policies have in common. Times in milliseconds.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]
#![allow(clippy::wildcard_imports, reason = "the two halves share these names")]

mod each;
mod every;

use moirai_scheduler::admission::{DrrQueue, drr_latency};
use moirai_scheduler::drr::{BEST_EFFORT_QUANTUM, FRAME};
use moirai_scheduler::{
    Amount, ClientId, Contract, ContractError, Drr, EdfChannel, Fifo, Head, Moment, Nemesis,
    POLICIES, Pick, Policy, PolicyError, Service, Span, UnknownPolicy, Usd, Weight, Xen,
    policy_by_name,
};

use Service::{Extra, Guaranteed};

const MS: u64 = 1_000_000;
const A: ClientId = ClientId(1);
const B: ClientId = ClientId(2);
const C: ClientId = ClientId(3);

fn at(ms: u64) -> Moment {
    Moment::from_millis(ms)
}

fn ms(ms: u64) -> Span {
    Span::from_millis(ms)
}

fn work(ms: u64) -> Amount {
    Amount::from_millis(ms)
}

fn contract(period: u64, slice: u64, deadline: u64, weight: u32) -> Contract {
    Contract::new(ms(period), work(slice), ms(deadline), Weight::new(weight)).unwrap()
}

fn head(cost: u64, arrival: u64, position: u64) -> Head {
    Head { cost: work(cost), arrival: at(arrival), position }
}

fn wake(policy: &mut dyn Policy, id: ClientId, at: u64) {
    let now = Moment::from_millis(at);
    policy.wake(id, Head { arrival: now, ..Head::default() }, now);
}

fn picked(policy: &mut dyn Policy, at: u64) -> Option<(ClientId, Service, u64)> {
    let Pick { client, service, until, .. } = policy.pick(Moment::from_millis(at))?;
    Some((client, service, until.as_millis()))
}
