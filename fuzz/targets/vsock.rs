//! Packets of a vsock driver, with streams of the host on the other side.
#![no_main]

use std::os::unix::net::UnixStream;

use libfuzzer_sys::fuzz_target;
use moirai_devices::stream::Stream;
use moirai_devices::vsock::Mux;
use moirai_fuzz::{Guest, Input};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut mux = Mux::new(3);
    let mut guest = Guest::new(2);
    let mut peers = Vec::new();
    let mut ids = Vec::new();
    while !input.is_empty() {
        match input.byte() % 8 {
            0 if peers.len() < 16 => {
                let Ok((ours, theirs)) = UnixStream::pair() else { return };
                let port = u32::from(input.short());
                ids.extend(mux.connect(port, Stream::new(ours.into())));
                peers.push(theirs);
            }
            1 => {
                let place = usize::from(input.byte());
                if let Some(id) = ids.get(place) {
                    mux.socket_changed(*id, input.byte() & 1 == 1);
                }
            }
            2 if !peers.is_empty() => drop(peers.swap_remove(0)),
            _ => guest.act(&mut input),
        }
        let mut opened = Vec::new();
        for _ in 0..16 {
            let sent = mux.transmit(&guest.memory, &mut guest.queues[0], |id, port| {
                opened.push((id, port));
                port % 2 == 0
            });
            if !sent.is_ok_and(|it| it) {
                break;
            }
        }
        for (id, port) in opened.into_iter().filter(|(_, port)| port % 2 == 0) {
            let pair = UnixStream::pair().ok().filter(|_| port % 4 == 0 && peers.len() < 16);
            let stream = pair.map(|(ours, theirs)| {
                peers.push(theirs);
                Stream::new(ours.into())
            });
            mux.opened(id, stream);
            ids.push(id);
        }
        for _ in 0..16 {
            if !mux.receive(&guest.memory, &mut guest.queues[1]).is_ok_and(|it| it) {
                break;
            }
        }
    }
});
