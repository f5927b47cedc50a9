//! Nothing allocates after a client was added, and removing one frees nothing piecemeal either.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]
#![allow(unsafe_code, reason = "an allocator that counts is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use moirai_scheduler::{
    Amount, ClientId, Contract, Head, Moment, POLICIES, Span, Weight, policy_by_name,
};

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting the calls of each thread.
struct Counting;

// SAFETY: every call is handed to `System` unchanged, which keeps the contract of `GlobalAlloc`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        // SAFETY: the caller keeps the precondition of `alloc`, which is that of `System.alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        // SAFETY: `pointer` came from `alloc` above, so from `System`, with the same layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn nothing_allocates_after_a_client_was_added() {
    const CLIENTS: u32 = 100;
    for name in POLICIES {
        let mut policy = policy_by_name(name, 100).unwrap();
        for i in 0..CLIENTS {
            let period = Span::from_micros(1_000 + u64::from(i));
            let slice = Amount::from_micros(5);
            let contract = Contract::new(period, slice, period, Weight::new(i % 3)).unwrap();
            policy.add(ClientId(i * 7), contract, Moment::ZERO).unwrap();
        }
        let before = CALLS.with(Cell::get);
        let cost = Amount::from_micros(2);
        let mut now = Moment::ZERO;
        for step in 0..20_000u32 {
            let id = ClientId(step * 31 % CLIENTS * 7);
            let head = Head { cost, arrival: now, position: now.as_nanos() * 31 % 1_000 };
            match step % 5 {
                0 => policy.block(id, now),
                4 => {
                    if let Some(policy) = policy.ranked() {
                        policy.ranks(now, &mut |_| {});
                    }
                }
                _ => policy.wake(id, head, now),
            }
            if let Some(pick) = policy.pick(now) {
                policy.charge(pick.client, pick.service, cost, now + cost.time());
            }
            let timeout = policy.timeout(now).unwrap_or(Moment::ZERO);
            now = (now + cost.time()).max(timeout.min(now + Span::from_micros(10)));
        }
        for i in 0..CLIENTS {
            policy.remove(ClientId(i * 7), now).unwrap();
        }
        assert_eq!(CALLS.with(Cell::get), before, "{name}");
    }
}
