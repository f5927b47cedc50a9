//! The whole I/O domain in virtual time, against a hostile world that chance makes from a seed.
//!
//! A *world* is a domain with a ring, links, volumes and drivers of this module. Its ring completes
//! operations when it likes: late, in another order, short, with an error; it is full, or has no
//! memory, when it likes. The machine stands still and is seen to, or not; it has no threads to run
//! errands, when it likes. Links refuse, take long, come back. Drivers post requests and packets,
//! honest and broken ones, reset queues, hang up in mid-sentence. What must hold whatever happens:
//!
//! | rule | where it is checked |
//! | --- | --- |
//! | no client without work is picked | after every turn |
//! | nobody sends from an address that another one has declared | whenever a packet is sent |
//! | a flood of packets that come in makes no packet late that goes out | `flood.rs` |
//! | every request is answered once, with the data that belongs there | whenever a driver looks |
//! | only misses are excused, and only by a machine that stood still | at the end of a world |
//! | charges add up to the time in which a disk was busy | at the end of a world |
//! | a turn is bounded | after every turn |
//! | no request waits for longer than a time limit | whenever a driver looks, and at the end |
//! | nor if images share a shallow disk and the ring is full | the same, in shallow worlds |
//! | none waits when the loop sleeps without a time limit | the same |
//!
//! | file | what it holds |
//! | --- | --- |
//! | `chance.rs` | numbers from a seed |
//! | `clock.rs` | the virtual clock, and errands |
//! | `ring.rs` | the ring |
//! | `moody.rs` | volumes that have others wait |
//! | `wire.rs` | the links' far ends |
//! | `disk_guest.rs`, `net_guest.rs` | what a guest asks for, and what it expects |
//! | `world.rs`, `made.rs` | all of it together; what it is made of |
//! | `population.rs`, `rest.rs` | who comes, misbehaves and goes; the world's end |
//!
//! `make test` takes a million turns, `make prove` a hundred million (`MOIRAI_IO_TURNS`).

mod chance;
mod clock;
mod disk_guest;
mod flood;
mod made;
mod moody;
mod net_guest;
mod population;
mod rest;
mod ring;
mod wire;
mod world;

use world::World;

/// Turns of one world.
const WORLD: u64 = 5_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn turns() -> u64 {
    number("MOIRAI_IO_TURNS").unwrap_or(1_000_000)
}

#[test]
fn whatever_happens_every_request_is_answered_once_and_nothing_waits_for_ever() {
    if let Some(seed) = number("MOIRAI_IO_SEED") {
        println!("{:?}", World::new(seed).run(WORLD));
        return;
    }
    let worlds = turns().div_ceil(WORLD);
    let mut sum = world::Tally::default();
    let step = (worlds / 10).max(1);
    for seed in 0..worlds {
        let tally = World::new(seed).run(WORLD);
        sum.add(&tally);
        if (seed + 1) % step == 0 {
            println!("{} of {worlds} worlds: {sum:?}", seed + 1);
        }
    }
    // A proof in which nothing happens proves nothing.
    assert!(sum.requests > turns() / 50, "{sum:?}");
    assert!(sum.packets > turns() / 100, "{sum:?}");
    assert!(sum.faults > turns() / 500, "{sum:?}");
    assert!(sum.deferred > turns() / 10_000, "{sum:?}");
    assert!(sum.dropped > turns() / 10_000, "{sum:?}");
    assert!(sum.stalls > turns() / 2_000, "{sum:?}");
    assert!(sum.excused > turns() / 10_000, "{sum:?}");
}

/// Requests that found the ring full hold their places in a disk, and are not among those whose
/// next part may be picked. All the same somebody can always go on: whoever is deferred holds a
/// place, and tries again by himself; so the last place is never that of one who waits for a part
/// that needs it.
#[test]
fn images_on_a_shallow_disk_do_not_wait_for_each_other_when_the_ring_is_full() {
    if let Some(seed) = number("MOIRAI_IO_SHALLOW") {
        println!("{:?}", World::shallow(seed).run(WORLD));
        return;
    }
    let worlds = turns().div_ceil(WORLD * 4);
    let mut sum = world::Tally::default();
    (0..worlds).for_each(|seed| sum.add(&World::shallow(seed).run(WORLD)));
    println!("{worlds} shallow worlds: {sum:?}");
    assert!(sum.deferred > turns() / 50, "{sum:?}");
    assert!(sum.requests > turns() / 500, "{sum:?}");
}

#[test]
fn a_world_is_the_same_every_time() {
    let twice = [0, 0].map(|_| World::new(42).run(2_000));
    assert_eq!(twice[0], twice[1]);
}
