//! Chains of a network device's driver, and frames that come from the link for it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moirai_devices::net::header::VnetHeader;
use moirai_devices::net::tx::{Next, Taken};
use moirai_devices::net::{Card, MacAddr, Nic, Offload};
use moirai_fuzz::{Guest, Input};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let offload = Offload::TcpAndUdp;
    let mut card = Card::new(Nic { mac, mtu: 1500, queue_size: 16, pairs: 1, offload });
    card.set_features(u64::MAX);
    let mut guest = Guest::new(3);
    while !input.is_empty() {
        match input.byte() % 4 {
            0 => receive(&mut card, &mut guest, &mut input),
            1 => {
                while card.serve_control(&guest.memory, &mut guest.queues[2]).is_ok_and(|it| it) {}
            }
            _ => guest.act(&mut input),
        }
        let Some(transmit) = card.transmit(0) else { return };
        for _ in 0..32 {
            match transmit.next_packet(&guest.memory, &mut guest.queues[1]) {
                Ok(Next::Packet(Taken { chain, packet })) => {
                    let most = 64 << 10;
                    assert!(packet.payload.len_bytes() <= most, "longer than any packet");
                    let queue = &mut guest.queues[1];
                    let _ = transmit.complete(&guest.memory, queue, chain);
                }
                Ok(Next::Dropped) => {}
                Ok(Next::Empty) | Err(_) => break,
            }
        }
    }
});

fn receive(card: &mut Card, guest: &mut Guest, input: &mut Input<'_>) {
    let mut header = [0; 12];
    let said = input.take(12);
    header[..said.len()].copy_from_slice(said);
    let length = usize::from(input.short());
    let frame = input.take(length);
    let _ = card.pair_for(frame, |_| true);
    let Ok(header) = VnetHeader::parse(&header, frame.len()) else { return };
    if let Some(rx) = card.receive(0) {
        let _ = rx.deliver(&guest.memory, &mut guest.queues[0], &header, frame);
    }
}
