//! Transport streams: packets that are looked for, clocks that are followed, times that come out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moirai_fuzz::Input;
use moirai_media::clock::Clock;
use moirai_media::pace::Timeline;
use moirai_media::ts::{PACKET_LEN, Packet};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let program = match input.byte() {
        0 => None,
        number => Some(u16::from(number)),
    };
    let (mut clock, mut timeline) = (Clock::new(program), Timeline::new(1_000_000));
    let mut position = 0;
    while !input.is_empty() {
        // Little is needed to make a packet: the rest is what the last one had.
        let mut packet = [0xff; 188];
        let head = input.take(usize::from(input.0.first().copied().unwrap_or(0) % 64) + 1);
        packet[..head.len()].copy_from_slice(head);
        packet[0] = 0x47;
        if let Some(packet) = Packet::parse(&packet)
            && let Some(reading) = clock.read(&packet)
        {
            timeline.add(position, reading.pcr, reading.declared);
        }
        position += PACKET_LEN;
        let _ = timeline.due(position.saturating_sub(10 * PACKET_LEN), false);
    }
    clock.finish();
    let behind = position.saturating_sub(10 * PACKET_LEN);
    let mut last = 0;
    for at in (behind..=position).step_by(188) {
        let Some(due) = timeline.due(at, true) else { continue };
        assert!(due >= last, "time goes back: {due} after {last}");
        last = due;
    }
});
