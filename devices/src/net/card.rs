//! A whole network card: its pairs of queues and its control queue, and which queue is which.
//!
//! Queues come in pairs, even ones receive and odd ones transmit; the control queue follows the
//! last pair that the driver can use. Another VMM keeps the control queue to itself and enables the
//! pairs that its driver uses; then all that run are in use.

use virtio_bindings::virtio_net::{VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ};

use super::control::Control;
use super::{MacAddr, Nic, packet, rx, tx};
use crate::counters::Counters;

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The receive queue of this pair.
    Receive(u16),
    /// The transmit queue of this pair.
    Transmit(u16),
    /// The control queue.
    Control,
    /// Nothing: its driver did not agree to have it.
    Unused,
}

/// The frontends of all queues of one card.
#[derive(Debug)]
pub struct Card {
    nic: Nic,
    features: u64,
    tx: Vec<tx::Frontend>,
    rx: Vec<rx::Frontend>,
    control: Control,
}

impl Card {
    /// A card whose driver has chosen no features yet.
    pub fn new(nic: Nic) -> Self {
        Self {
            features: 0,
            tx: (0..nic.pairs).map(|_| tx::Frontend::new(nic.clone())).collect(),
            rx: (0..nic.pairs).map(|_| rx::Frontend::new(0)).collect(),
            control: Control::new(0, nic.pairs),
            nic,
        }
    }

    /// The driver has chosen: everything that its predecessor said is forgotten.
    pub fn set_features(&mut self, features: u64) {
        self.features = features;
        self.tx.iter_mut().for_each(|tx| tx.set_features(features));
        self.rx.iter_mut().for_each(|rx| rx.set_features(features));
        let refused = self.control.refused;
        self.control = Control::new(features, self.nic.pairs);
        self.control.refused = refused;
    }

    /// What a queue is for.
    pub fn role(&self, queue: u16) -> Role {
        let pairs = if self.has(VIRTIO_NET_F_MQ) { self.nic.pairs } else { 1 };
        match (queue / 2, queue % 2) {
            (pair, _) if pair == pairs && queue == pairs * 2 => {
                if self.has(VIRTIO_NET_F_CTRL_VQ) {
                    Role::Control
                } else {
                    Role::Unused
                }
            }
            (pair, _) if pair >= pairs => Role::Unused,
            (pair, 0) => Role::Receive(pair),
            (pair, _) => Role::Transmit(pair),
        }
    }

    /// The frontend of a transmit queue.
    pub fn transmit(&mut self, pair: u16) -> Option<&mut tx::Frontend> {
        self.tx.get_mut(usize::from(pair))
    }

    /// The frontend of a receive queue.
    pub fn receive(&mut self, pair: u16) -> Option<&mut rx::Frontend> {
        self.rx.get_mut(usize::from(pair))
    }

    /// Answers one command of the control queue; `false` if there is none.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn serve_control(
        &mut self,
        mem: &std::sync::Arc<crate::memory::GuestMemory>,
        queue: &mut virtio_queue::Queue,
    ) -> Result<bool, crate::virtqueue::QueueError> {
        let served = self.control.serve(mem, queue)?;
        let offloads = self.control.offloads();
        self.rx.iter_mut().for_each(|rx| rx.set_offloads(offloads));
        Ok(served)
    }

    /// Whether the driver wants to see what was sent to this address, its own or a group's.
    pub fn accepts(&self, destination: MacAddr) -> bool {
        self.control.accepts(destination)
    }

    /// The pair on which a frame is received: always the same for one flow, as long as the same
    /// queues run. `None` if no receive queue runs.
    pub fn pair_for(&self, frame: &[u8], runs: impl Fn(u16) -> bool) -> Option<u16> {
        let controlled = (0..self.nic.queues()).any(|q| self.role(q) == Role::Control && runs(q));
        let pairs = if controlled { self.control.pairs() } else { self.nic.pairs };
        let usable =
            (0..pairs).filter(|pair| self.role(pair * 2) == Role::Receive(*pair) && runs(pair * 2));
        let count = u32::try_from(usable.clone().count()).unwrap_or(0);
        let chosen = if count > 1 { packet::flow(frame) % count } else { 0 };
        usable.clone().nth(usize::try_from(chosen).unwrap_or(0))
    }

    /// Packets that were taken from a queue and not returned to it.
    pub fn in_flight(&self, queue: u16) -> u32 {
        match self.role(queue) {
            Role::Transmit(pair) => {
                self.tx.get(usize::from(pair)).map_or(0, tx::Frontend::in_flight)
            }
            _ => 0,
        }
    }

    /// Forgets all packets that were given out and not completed.
    pub fn abandon(&mut self) {
        self.tx.iter_mut().for_each(tx::Frontend::abandon);
    }

    /// What became of the packets of the guest, of its commands, and what was lost to it.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.tx.iter().for_each(|tx| sum.add(&tx.counters));
        sum.refused += self.control.refused;
        sum.dropped_rx = self.rx.iter().map(|rx| rx.counters.dropped_rx).sum();
        sum
    }

    fn has(&self, feature: u32) -> bool {
        self.features >> feature & 1 == 1
    }
}
