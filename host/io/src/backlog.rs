//! The packets of one network device that wait for its link: one client of the link's scheduler,
//! several transmit queues. They take turns by the wire time that their packets need, so that a
//! bulk transfer on one does not hold up the packets of another.

use std::collections::VecDeque;

use moirai_devices::net::tx::Taken;

use crate::waiting::Waiting;

/// What waits, queue by queue.
#[derive(Debug)]
pub(crate) struct Backlog<T = Taken> {
    lanes: Vec<Lane<T>>,
    /// Whose packet is next. It stays next until it is taken: the scheduler knows its cost.
    next: usize,
    len: usize,
    /// How far the lane that was served last has got.
    clock: u64,
}

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Wire bytes of the packets that were taken, since it last had to catch up with the others.
    served: u64,
}

/// What a packet occupies.
pub(crate) trait WireBytes {
    fn wire_bytes(&self) -> u64;
}

impl WireBytes for Taken {
    fn wire_bytes(&self) -> u64 {
        self.packet.wire_bytes()
    }
}

impl<T: WireBytes> Backlog<T> {
    pub(crate) fn new(pairs: u16) -> Self {
        let lane = |_| Lane { waiting: VecDeque::new(), served: 0 };
        Self { lanes: (0..pairs).map(lane).collect(), next: 0, len: 0, clock: 0 }
    }

    /// Adds a packet of the transmit queue of this pair.
    pub(crate) fn push_back(&mut self, pair: u16, packet: Waiting<T>) {
        let least = self.busy().map(|(_, lane)| lane.served).min();
        let place = usize::from(pair);
        let Some(lane) = self.lanes.get_mut(place) else { return };
        if lane.waiting.is_empty() {
            // What it did not use while it had nothing to send is gone, also if nobody has sent
            // since.
            lane.served = lane.served.max(least.unwrap_or(self.clock));
        }
        lane.waiting.push_back(packet);
        if self.len == 0 {
            self.next = place;
        }
        self.len += 1;
    }

    /// The packet that is next.
    pub(crate) fn front(&self) -> Option<&Waiting<T>> {
        self.lanes.get(self.next)?.waiting.front()
    }

    /// Takes it.
    pub(crate) fn pop_front(&mut self) -> Option<Waiting<T>> {
        let lane = self.lanes.get_mut(self.next)?;
        let packet = lane.waiting.pop_front()?;
        lane.served = lane.served.saturating_add(packet.unit.wire_bytes());
        self.clock = lane.served;
        self.len -= 1;
        let least = self.busy().min_by_key(|(_, lane)| lane.served);
        self.next = least.map_or(0, |(place, _)| place);
        Some(packet)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn clear(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.waiting.clear());
        self.len = 0;
    }

    fn busy(&self) -> impl Iterator<Item = (usize, &Lane<T>)> {
        self.lanes.iter().enumerate().filter(|(_, lane)| !lane.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moirai_scheduler::Moment;
    use proptest::prelude::*;

    impl WireBytes for u64 {
        fn wire_bytes(&self) -> u64 {
            *self
        }
    }

    fn packet(pair: u16, bytes: u64) -> Waiting<u64> {
        Waiting { unit: bytes, queue: pair, arrival: Moment::ZERO }
    }

    #[test]
    fn small_packets_of_one_queue_pass_the_large_ones_of_another() {
        let mut backlog = Backlog::new(2);
        for _ in 0..3 {
            backlog.push_back(0, packet(0, 1000));
        }
        for _ in 0..20 {
            backlog.push_back(1, packet(1, 100));
        }
        let order: Vec<_> = std::iter::from_fn(|| backlog.pop_front()).map(|it| it.queue).collect();
        // The first one was announced already; then ten small ones for each large one.
        let expected = [&[0][..], &[1; 10], &[0], &[1; 10], &[0]].concat();
        assert_eq!(order, expected);
    }

    #[test]
    fn a_queue_that_was_idle_has_nothing_to_catch_up() {
        let mut backlog = Backlog::new(2);
        for _ in 0..100 {
            backlog.push_back(0, packet(0, 1000));
            backlog.pop_front();
        }
        for _ in 0..4 {
            backlog.push_back(0, packet(0, 1000));
            backlog.push_back(1, packet(1, 1000));
        }
        let order: Vec<_> = std::iter::from_fn(|| backlog.pop_front()).map(|it| it.queue).collect();
        assert_eq!(order, [0, 1, 0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn who_sends_first_after_a_pause_has_nothing_to_catch_up_either() {
        let mut backlog = Backlog::new(2);
        for _ in 0..3 {
            backlog.push_back(0, packet(0, 1000));
            backlog.pop_front();
        }
        for pair in [1, 0, 1, 0] {
            backlog.push_back(pair, packet(pair, 1000));
        }
        let order: Vec<_> = std::iter::from_fn(|| backlog.pop_front()).map(|it| it.queue).collect();
        assert_eq!(order, [1, 0, 0, 1]);
    }

    proptest! {
        /// No packet is lost, each queue keeps its order, what is first stays first until it is
        /// taken, and no queue with packets falls behind another by more than two packets.
        #[test]
        fn queues_keep_their_order_and_share(
            steps in prop::collection::vec((0_u16..3, 60_u64..1500, any::<bool>()), 1..200),
        ) {
            let mut backlog = Backlog::new(3);
            let mut waiting = vec![VecDeque::new(); 3];
            for (pair, bytes, take) in steps {
                let front = backlog.front().map(|it| (it.queue, it.unit));
                backlog.push_back(pair, packet(pair, bytes));
                waiting[usize::from(pair)].push_back(bytes);
                if let Some(front) = front {
                    prop_assert_eq!(backlog.front().map(|it| (it.queue, it.unit)), Some(front));
                }
                if take {
                    let taken = backlog.pop_front().unwrap();
                    let first = waiting[usize::from(taken.queue)].pop_front();
                    prop_assert_eq!(first, Some(taken.unit));
                }
                prop_assert_eq!(backlog.len(), waiting.iter().map(VecDeque::len).sum::<usize>());
                let served: Vec<_> = backlog.busy().map(|(_, lane)| lane.served).collect();
                if let (Some(most), Some(least)) = (served.iter().max(), served.iter().min()) {
                    prop_assert!(most - least <= 2 * 1500, "{served:?}");
                }
            }
        }
    }
}
