//! The rules of the default policy, one by one, in virtual time. Times in milliseconds.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]

mod sleep;
mod slices;
mod units;

use moirai_scheduler::{
    Amount, Atropos, ClientId, Contract, Head, Moment, Pick, Policy, Rank, Ranked, Service, Span,
    Weight,
};

const MS: u64 = 1_000_000;
const A: ClientId = ClientId(1);
const B: ClientId = ClientId(2);

fn at(ms: u64) -> Moment {
    Moment::from_millis(ms)
}

fn ms(ms: u64) -> Span {
    Span::from_millis(ms)
}

fn work(ms: u64) -> Amount {
    Amount::from_millis(ms)
}

fn contract(period: u64, slice: u64, deadline: u64) -> Contract {
    Contract::new(ms(period), work(slice), ms(deadline), None).unwrap()
}

fn with_extra(period: u64, slice: u64, weight: u32) -> Contract {
    Contract::new(ms(period), work(slice), ms(period), Weight::new(weight)).unwrap()
}

fn policy(clients: &[(ClientId, Contract)]) -> Atropos {
    let mut policy = Atropos::new(clients.len());
    for &(id, contract) in clients {
        policy.add(id, contract, Moment::ZERO).unwrap();
    }
    policy
}

fn wake(policy: &mut Atropos, id: ClientId, at: u64) {
    policy.wake(id, Head::default(), Moment::from_millis(at));
}

fn picked(policy: &mut Atropos, at: u64) -> Option<(ClientId, Service, u64)> {
    let Pick { client, service, until, .. } = policy.pick(Moment::from_millis(at))?;
    Some((client, service, until.as_millis()))
}

fn ranks(policy: &mut Atropos, at: u64) -> Vec<(ClientId, u64, u64)> {
    let mut seen = Vec::new();
    policy.ranks(Moment::from_millis(at), &mut |Rank { client, deadline, budget, .. }| {
        seen.push((client, deadline.as_millis(), budget.as_millis()));
    });
    seen
}

/// What the first client is left with when it wakes at `at` after sleeping since 0.
fn left_at(policy: &mut Atropos, at: u64) -> i64 {
    wake(policy, A, 0);
    policy.block(A, Moment::ZERO);
    wake(policy, A, at);
    policy.state(A).unwrap().left / MS.cast_signed()
}
