//! Chains of a console's driver.
#![no_main]

use std::io::Read as _;
use std::os::unix::net::UnixStream;

use libfuzzer_sys::fuzz_target;
use moirai_devices::console::Console;
use moirai_devices::stream::Stream;
use moirai_fuzz::{Guest, Input};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
    let _ = theirs.set_nonblocking(true);
    let mut console = Console::new(Stream::new(ours.into()));
    let mut guest = Guest::new(2);
    while !input.is_empty() {
        match input.byte() % 8 {
            0 => {
                let length = usize::from(input.byte());
                let _ = std::io::Write::write(&mut theirs, input.take(length));
                console.socket_changed();
            }
            1 => console.emergency_write(input.byte()),
            2 => drop(theirs.read(&mut [0; 4096])),
            _ => guest.act(&mut input),
        }
        while console.transmit(&guest.memory, &mut guest.queues[1]).is_ok_and(|it| it) {}
        console.flush();
        while console.receive(&guest.memory, &mut guest.queues[0]).is_ok_and(|it| it) {}
    }
});
