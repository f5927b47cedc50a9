//! Nothing allocates after a client was added, and removing one frees nothing piecemeal either.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]
#![allow(unsafe_code, reason = "an allocator that counts is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use moirai_scheduler::{ClientId, Contract, Head, Nanos, POLICIES, Weight, policy_by_name};

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
            let period = 1_000_000 + Nanos::from(i) * 1_000;
            let contract = Contract::new(period, 5_000, period, Weight::new(i % 3)).unwrap();
            policy.add(ClientId(i * 7), contract, 0).unwrap();
        }
        let before = CALLS.with(Cell::get);
        let mut now = 0;
        for step in 0..20_000u32 {
            let id = ClientId(step * 31 % CLIENTS * 7);
            let head = Head { cost: 2_000, arrival: now, position: now * 31 % 1_000 };
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
                policy.charge(pick.client, pick.service, 2_000, now + 2_000);
            }
            now = (now + 2_000).max(policy.timeout(now).unwrap_or(0).min(now + 10_000));
        }
        for i in 0..CLIENTS {
            policy.remove(ClientId(i * 7), now).unwrap();
        }
        assert_eq!(CALLS.with(Cell::get), before, "{name}");
    }
}
