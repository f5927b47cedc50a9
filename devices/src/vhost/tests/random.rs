//! Random bytes, and valid conversations with random damage.

use std::fs::File;

use proptest::prelude::*;

use super::*;

/// A conversation that starts a queue, as messages with the number of descriptors of each.
fn conversation() -> Vec<(Vec<u8>, usize)> {
    let plain = |request: FrontendReq, payload: Vec<u8>| (message(request.into(), 1, &payload), 0);
    let with = |request: FrontendReq, payload: Vec<u8>| (message(request.into(), 1, &payload), 1);
    vec![
        plain(FrontendReq::GET_FEATURES, vec![]),
        plain(FrontendReq::SET_FEATURES, u64s(&[VERSION_1 | PROTOCOL_FEATURES])),
        plain(FrontendReq::GET_PROTOCOL_FEATURES, vec![]),
        plain(FrontendReq::SET_PROTOCOL_FEATURES, u64s(&[0x209])),
        plain(FrontendReq::SET_OWNER, vec![]),
        plain(FrontendReq::GET_CONFIG, [u32s(&[0, 8, 0]), vec![0; 8]].concat()),
        with(FrontendReq::SET_MEM_TABLE, table(&[(0, 1 << 20, USER, 0)])),
        plain(FrontendReq::SET_VRING_NUM, u32s(&[0, 16])),
        plain(FrontendReq::SET_VRING_BASE, u32s(&[0, 0])),
        plain(FrontendReq::SET_VRING_ADDR, ring_at(0, USER + 0x1000)),
        with(FrontendReq::SET_VRING_CALL, u64s(&[0])),
        with(FrontendReq::SET_VRING_KICK, u64s(&[0])),
        plain(FrontendReq::SET_VRING_ENABLE, u32s(&[0, 1])),
        plain(FrontendReq::GET_VRING_BASE, u32s(&[0, 0])),
    ]
}

/// Handles everything that waits; every queue drains at once. False if the session ended.
fn pump(peer: &mut Peer) -> bool {
    for _ in 0..100 {
        let Ok(ready) = peer.session.ready() else { return false };
        let mut drained = false;
        for event in ready.events {
            match event {
                Event::Closed => return false,
                Event::QueueStopped { index, drain: true } => {
                    drained = true;
                    if peer.session.drained(index).is_err() {
                        return false;
                    }
                }
                Event::QueueStarted { index } => {
                    let vring = peer.session.queue(index).unwrap();
                    assert!(vring.is_running() && vring.parts().is_some());
                    assert!(vring.kick().is_some());
                }
                _ => {}
            }
        }
        while peer.reply().is_some() {}
        if !ready.again && !drained {
            return true;
        }
    }
    panic!("the session has no end of work");
}

/// One kind of damage to a conversation.
#[derive(Clone, Debug)]
enum Damage {
    Flip { message: usize, byte: usize, value: u8 },
    Cut { message: usize, len: usize },
    Repeat { message: usize },
    Swap { one: usize, other: usize },
    Files { message: usize, files: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = 0_usize..14;
    prop_oneof![
        4 => (place.clone(), 0_usize..64, any::<u8>())
            .prop_map(|(message, byte, value)| Damage::Flip { message, byte, value }),
        1 => (place.clone(), 0_usize..64).prop_map(|(message, len)| Damage::Cut { message, len }),
        1 => place.clone().prop_map(|message| Damage::Repeat { message }),
        2 => (place.clone(), place.clone()).prop_map(|(one, other)| Damage::Swap { one, other }),
        1 => (place, 0_usize..4).prop_map(|(message, files)| Damage::Files { message, files }),
    ]
}

fn apply(damage: &Damage, messages: &mut Vec<(Vec<u8>, usize)>) {
    match *damage {
        Damage::Flip { message, byte, value } => {
            if let Some(byte) = messages[message].0.get_mut(byte) {
                *byte = value;
            }
        }
        Damage::Cut { message, len } => messages[message].0.truncate(len.max(1)),
        Damage::Repeat { message } => {
            let again = messages[message].clone();
            messages.insert(message, again);
        }
        Damage::Swap { one, other } => messages.swap(one, other),
        Damage::Files { message, files } => messages[message].1 = files,
    }
}

fn hold(peer: &Peer, bytes: &[u8], files: usize, memory: &File, eventfd: &OwnedFd) {
    let memory_table = bytes.first() == Some(&5);
    let file = if memory_table { memory.as_fd() } else { eventfd.as_fd() };
    peer.send_raw(bytes, &vec![file; files]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_end_in_an_error_or_in_silence(
        chunks in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 1..300), 0_usize..3), 0..6),
    ) {
        let mut peer = Peer::new(profile());
        let eventfd = event();
        for (bytes, files) in chunks {
            peer.send_raw(&bytes, &vec![eventfd.as_fd(); files]);
            if !pump(&mut peer) {
                break;
            }
        }
    }

    #[test]
    fn random_payloads_of_known_requests_never_panic(
        requests in proptest::collection::vec(
            (1_u32..46, prop_oneof![Just(0x1_u32), Just(0x9)],
             prop_oneof![
                 proptest::collection::vec(any::<u8>(), 0..60),
                 proptest::collection::vec(0_u8..4, 8..41),
             ], 0_usize..2), 1..10),
    ) {
        let mut peer = Peer::new(profile());
        let (_mem, memory) = mock::shared_memory(1 << 20);
        let eventfd = event();
        for (request, flags, payload, files) in requests {
            hold(&peer, &message(request, flags, &payload), files, &memory, &eventfd);
            if !pump(&mut peer) {
                break;
            }
        }
    }

    #[test]
    fn damaged_conversations_never_panic_and_the_next_session_is_unharmed(
        damages in proptest::collection::vec(damage(), 0..4),
        split in any::<bool>(),
    ) {
        let (_mem, memory) = mock::shared_memory(1 << 20);
        let eventfd = event();
        let mut messages = conversation();
        for damage in &damages {
            apply(damage, &mut messages);
        }
        let mut peer = Peer::new(profile());
        for (bytes, files) in &messages {
            let half = if split { bytes.len() / 2 } else { 0 };
            if half > 0 {
                hold(&peer, &bytes[..half], *files, &memory, &eventfd);
                if !pump(&mut peer) {
                    break;
                }
                hold(&peer, &bytes[half..], 0, &memory, &eventfd);
            } else {
                hold(&peer, bytes, *files, &memory, &eventfd);
            }
            if !pump(&mut peer) {
                break;
            }
        }
        let mut peer = Peer::new(profile());
        for (bytes, files) in conversation() {
            hold(&peer, &bytes, files, &memory, &eventfd);
            prop_assert!(pump(&mut peer));
        }
    }
}
