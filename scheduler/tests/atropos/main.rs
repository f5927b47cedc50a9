//! The rules of the default policy, one by one, in virtual time. Times in milliseconds.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]

mod sleep;
mod slices;
mod units;

use moirai_scheduler::{
    Atropos, ClientId, Contract, Head, Nanos, Pick, Policy, Rank, Ranked, Service, Weight,
};

const MS: Nanos = 1_000_000;
const A: ClientId = ClientId(1);
const B: ClientId = ClientId(2);

fn contract(period: u64, slice: u64, deadline: u64) -> Contract {
    Contract::new(period * MS, slice * MS, deadline * MS, None).unwrap()
}

fn with_extra(period: u64, slice: u64, weight: u32) -> Contract {
    Contract::new(period * MS, slice * MS, period * MS, Weight::new(weight)).unwrap()
}

fn policy(clients: &[(ClientId, Contract)]) -> Atropos {
    let mut policy = Atropos::new(clients.len());
    for &(id, contract) in clients {
        policy.add(id, contract, 0).unwrap();
    }
    policy
}

fn wake(policy: &mut Atropos, id: ClientId, at: u64) {
    policy.wake(id, Head::default(), at * MS);
}

fn picked(policy: &mut Atropos, at: u64) -> Option<(ClientId, Service, u64)> {
    let Pick { client, service, until, .. } = policy.pick(at * MS)?;
    Some((client, service, until / MS))
}

fn ranks(policy: &mut Atropos, at: u64) -> Vec<(ClientId, u64, u64)> {
    let mut seen = Vec::new();
    policy.ranks(at * MS, &mut |Rank { client, deadline, budget, .. }| {
        seen.push((client, deadline / MS, budget / MS));
    });
    seen
}

/// What the first client is left with when it wakes at `at` after sleeping since 0.
fn left_at(policy: &mut Atropos, at: u64) -> i64 {
    wake(policy, A, 0);
    policy.block(A, 0);
    wake(policy, A, at);
    policy.state(A).unwrap().left / MS.cast_signed()
}
