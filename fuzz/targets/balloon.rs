//! Pages that a balloon's driver gives and takes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moirai_devices::balloon::{Hole, serve, serve_reports};
use moirai_fuzz::{Guest, Input, MEMORY};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut guest = Guest::new(2);
    let inside = |holes: &[Hole]| {
        for hole in holes {
            let end = hole.start.0.checked_add(hole.len_bytes).expect("an end");
            assert!(end <= MEMORY, "outside the guest's memory");
        }
    };
    while !input.is_empty() {
        guest.act(&mut input);
        while serve(&guest.memory, &mut guest.queues[0], inside).is_ok_and(|it| it) {}
        while serve_reports(&guest.memory, &mut guest.queues[1], inside).is_ok_and(|it| it) {}
    }
});
