//! Commands of drivers, and which queue is which.

use super::*;

const CTRL_VQ: u64 = 1 << 17;
const CTRL_RX: u64 = 1 << 18;
const MQ: u64 = 1 << 22;
const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
const ALL: u64 = CTRL_VQ | CTRL_RX | MQ | CTRL_GUEST_OFFLOADS | GUEST_CSUM;
const GROUP: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

struct Commander {
    mem: Arc<GuestMemory>,
    driver: Driver,
    queue: Queue,
    control: super::super::control::Control,
}

impl Commander {
    fn new(features: u64) -> Self {
        let mem = mock::memory(MEMORY);
        let driver = Driver::new(Arc::clone(&mem), 0, 16);
        let queue = driver.queue();
        let control = super::super::control::Control::new(features, 4);
        Self { mem, driver, queue, control }
    }

    /// The answer to a command; 0 is good.
    fn command(&mut self, bytes: &[u8]) -> u8 {
        self.mem.write_slice(bytes, GuestAddress(PACKET)).unwrap();
        self.mem.write_obj(0xaa_u8, GuestAddress(0x4000)).unwrap();
        let len = u32::try_from(bytes.len()).unwrap();
        self.driver.post(&[readable(PACKET, len), writable(0x4000, 1)]);
        assert!(self.control.serve(&self.mem, &mut self.queue).unwrap());
        assert_eq!(self.driver.used().unwrap().1, 1);
        self.mem.read_obj(GuestAddress(0x4000)).unwrap()
    }

    /// Sets the tables of single and of group addresses.
    fn table(&mut self, single: &[MacAddr], groups: &[MacAddr]) -> u8 {
        let mut bytes = vec![1, 0];
        for table in [single, groups] {
            bytes.extend(u32::try_from(table.len()).unwrap().to_le_bytes());
            table.iter().for_each(|address| bytes.extend(address.0));
        }
        self.command(&bytes)
    }
}

#[test]
fn a_driver_sets_its_number_of_pairs_within_bounds() {
    let mut driver = Commander::new(ALL);
    assert_eq!(driver.control.pairs(), 1);
    assert_eq!((driver.command(&[4, 0, 4, 0]), driver.control.pairs()), (0, 4));
    for bad in [&[4, 0, 0, 0][..], &[4, 0, 5, 0], &[4, 0, 4], &[4, 0, 4, 0, 0], &[4, 1, 2, 0]] {
        assert_eq!((driver.command(bad), driver.control.pairs()), (1, 4), "{bad:?}");
    }
    assert_eq!(driver.control.refused, 5);
    assert_eq!(Commander::new(ALL & !MQ).command(&[4, 0, 1, 0]), 1);
}

#[test]
fn a_card_receives_all_groups_until_its_driver_says_which() {
    let mut driver = Commander::new(ALL);
    assert!(driver.control.accepts(GROUP));
    assert_eq!(driver.command(&[0, 0, 0]), 0);
    let everyone = MacAddr([0xff; 6]);
    assert!(driver.control.accepts(MAC) && driver.control.accepts(everyone));
    assert!(!driver.control.accepts(GROUP));
    assert_eq!(driver.table(&[OTHER], &[GROUP]), 0);
    assert!(driver.control.accepts(GROUP));
    assert!(!driver.control.accepts(MacAddr([0x33, 0x33, 0, 0, 0, 2])));
    assert_eq!(driver.table(&[], &[]), 0);
    assert!(!driver.control.accepts(GROUP));
    assert_eq!((driver.command(&[0, 1, 1]), driver.control.accepts(GROUP)), (0, true));
    assert_eq!((driver.command(&[0, 1, 0]), driver.control.accepts(GROUP)), (0, false));
    assert_eq!(driver.table(&[], &[GROUP; 65]), 0);
    assert!(driver.control.accepts(OTHER) && driver.control.accepts(GROUP));
    for bad in [&[0, 0, 2][..], &[0, 0], &[0, 2, 1], &[1, 0, 1, 0, 0, 0], &[1, 1, 2, 0, 0, 0, 0, 9]]
    {
        assert_eq!(driver.command(bad), 1, "{bad:?}");
    }
    assert_eq!(Commander::new(CTRL_VQ).command(&[0, 0, 1]), 1);
}

#[test]
fn a_driver_may_switch_off_the_offloads_that_it_chose_and_no_others() {
    let mut driver = Commander::new(ALL);
    let set = |value: u64| [&[5, 0][..], &value.to_le_bytes()].concat();
    assert_eq!(driver.control.offloads(), GUEST_CSUM);
    assert_eq!((driver.command(&set(0)), driver.control.offloads()), (0, 0));
    assert_eq!((driver.command(&set(GUEST_CSUM)), driver.control.offloads()), (0, GUEST_CSUM));
    for bad in [1 << 7, 1 << 15, u64::MAX] {
        assert_eq!((driver.command(&set(bad)), driver.control.offloads()), (1, GUEST_CSUM));
    }
}

#[test]
fn a_command_without_room_for_an_answer_is_returned_empty() {
    let mut driver = Commander::new(ALL);
    for chain in [
        &[readable(PACKET, 4)][..],
        &[readable(PACKET, 4), writable(MEMORY as u64, 1)],
        &[writable(PACKET, 1), readable(PACKET, 4)],
    ] {
        driver.driver.post(chain);
        assert!(driver.control.serve(&driver.mem, &mut driver.queue).unwrap());
        assert_eq!(driver.driver.used().unwrap().1, 0);
    }
    assert!(!driver.control.serve(&driver.mem, &mut driver.queue).unwrap());
}

#[test]
fn the_control_queue_follows_the_last_pair_that_its_driver_knows() {
    let mut card = Card::new(Nic { pairs: 2, ..nic() });
    let roles = |card: &Card| [0, 1, 2, 3, 4, 5].map(|queue| card.role(queue));
    let (pair, none) = ([Role::Receive(0), Role::Transmit(0)], Role::Unused);
    assert_eq!(roles(&card), [pair[0], pair[1], none, none, none, none]);
    card.set_features(CTRL_VQ);
    assert_eq!(roles(&card), [pair[0], pair[1], Role::Control, none, none, none]);
    card.set_features(CTRL_VQ | MQ);
    let other = [Role::Receive(1), Role::Transmit(1)];
    assert_eq!(roles(&card), [pair[0], pair[1], other[0], other[1], Role::Control, none]);
}

#[test]
fn a_flow_stays_on_its_queue_and_flows_use_all_queues() {
    let mut card = Card::new(Nic { pairs: 4, ..nic() });
    card.set_features(MQ | CTRL_VQ);
    let frame = |port: u8, payload: u8| {
        let ip = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        super::frame(MAC, OTHER, &[&ip[..], &[0, port, 0, 80], &[payload; 20]].concat())
    };
    let enabled = |queue: u16| queue < 8;
    let mut seen = [0; 4];
    for port in 0..=255 {
        let pair = card.pair_for(&frame(port, 1), enabled).unwrap();
        assert_eq!(card.pair_for(&frame(port, 2), enabled), Some(pair));
        seen[usize::from(pair)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 32), "{seen:?}");
    // A driver with a control queue begins with one pair; one whose queues stand still has none.
    assert_eq!(card.pair_for(&frame(3, 1), |_| true), Some(0));
    assert_eq!(card.pair_for(&frame(3, 1), |queue| queue == 6), Some(3));
    assert_eq!(card.pair_for(&frame(3, 1), |_| false), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn random_commands_leave_a_card_with_at_least_one_pair_and_its_own_offloads(
        features: u64,
        commands in proptest::collection::vec(
            (0_u8..8, 0_u8..3, proptest::collection::vec(any::<u8>(), 0..40)), 1..12),
    ) {
        let mut driver = Commander::new(features);
        for (class, code, data) in commands {
            let answer = driver.command(&[&[class, code], &data[..]].concat());
            prop_assert!(answer <= 1);
            prop_assert!((1..=4).contains(&driver.control.pairs()));
            prop_assert_eq!(driver.control.offloads() & !features, 0);
            prop_assert!(driver.control.accepts(MacAddr([0xff; 6])));
        }
    }

    /// Steering reads headers that anyone can write.
    #[test]
    fn random_frames_find_a_pair(bytes in proptest::collection::vec(any::<u8>(), 0..100),
                                 version_6: bool) {
        let mut bytes = bytes;
        if let Some(kind) = bytes.get_mut(12..15) {
            kind.copy_from_slice(if version_6 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] });
        }
        let mut card = Card::new(Nic { pairs: 3, ..nic() });
        card.set_features(MQ);
        prop_assert!(card.pair_for(&bytes, |queue| queue < 6).unwrap() < 3);
    }
}
