//! The control queue (virtio 1.2, 5.1.6.5): what a driver says about its card while it runs.
//!
//! Commands change what the card receives and on how many pairs, nothing else: no command changes
//! its address. The filter belongs to the card. Packets for the addresses of other cards never
//! reach this card, however promiscuous it is.

use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MAC,
    VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
    VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_ERR,
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_MQ, VIRTIO_NET_OK,
};
use virtio_queue::Queue;

use super::MacAddr;
use super::offload::GUEST_OFFLOADS;
use crate::memory::GuestMemory;
use crate::virtqueue::{self, Chain, QueueError};

/// Longest command that is read: tables of 339 addresses.
const LONGEST_COMMAND: usize = 2048;
/// Group addresses that are kept. A card with more of them receives all groups.
const MOST_GROUPS: usize = 64;
const BROADCAST: MacAddr = MacAddr([0xff; 6]);

/// What the driver has said since it chose its features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    features: u64,
    most_pairs: u16,
    pairs: u16,
    offloads: u64,
    promiscuous: bool,
    all_groups: bool,
    groups: Vec<MacAddr>,
    /// Commands that were answered with an error.
    pub refused: u64,
}

impl Control {
    /// The control queue of a card with so many pairs of queues, whose driver has chosen
    /// `features`.
    pub fn new(features: u64, most_pairs: u16) -> Self {
        Self {
            features,
            most_pairs,
            pairs: 1,
            offloads: features & GUEST_OFFLOADS,
            promiscuous: true,
            all_groups: false,
            groups: Vec::new(),
            refused: 0,
        }
    }

    /// Pairs of queues that the driver uses.
    pub fn pairs(&self) -> u16 {
        self.pairs
    }

    /// Offloads that the driver takes in packets that it receives.
    pub fn offloads(&self) -> u64 {
        self.offloads
    }

    /// Whether the driver wants to see what was sent to this address, its own or a group's.
    pub fn accepts(&self, destination: MacAddr) -> bool {
        !destination.is_multicast()
            || destination == BROADCAST
            || self.promiscuous
            || self.all_groups
            || self.groups.contains(&destination)
    }

    /// Answers one command; `false` if there is none.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn serve(&mut self, mem: &Arc<GuestMemory>, queue: &mut Queue) -> Result<bool, QueueError> {
        let Some(chain) = virtqueue::next_chain(mem, queue, 0)? else { return Ok(false) };
        let written = self.answer(mem, &chain);
        virtqueue::add_used(mem, queue, chain.head, u32::from(written))?;
        Ok(true)
    }

    /// Carries out the command of a chain; whether there was a byte for the answer.
    fn answer(&mut self, mem: &Arc<GuestMemory>, chain: &Chain) -> bool {
        let Some((command, answer)) = chain.split() else { return false };
        let Ok(answer) = virtqueue::buffers(mem, answer, 0, 1) else { return false };
        let len = usize::try_from(virtqueue::len_bytes(command)).unwrap_or(usize::MAX);
        let read = virtqueue::buffers(mem, command, 0, LONGEST_COMMAND as u64);
        let done = read.is_ok_and(|from| {
            let mut bytes = vec![0; len.min(LONGEST_COMMAND)];
            from.copy_to(&mut bytes) == len && self.obey(&bytes).is_some()
        });
        self.refused += u64::from(!done);
        let status = if done { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
        answer.copy_from(&[u8::try_from(status).unwrap_or(1)]) == 1
    }

    /// Carries out a command; `None` if it is none, and then nothing has changed.
    fn obey(&mut self, command: &[u8]) -> Option<()> {
        let ([class, code], data) = command.split_first_chunk()?;
        match (u32::from(*class), u32::from(*code)) {
            (VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC) if self.has(VIRTIO_NET_F_CTRL_RX) => {
                self.promiscuous = switch(data)?;
            }
            (VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI) if self.has(VIRTIO_NET_F_CTRL_RX) => {
                self.all_groups = switch(data)?;
            }
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET)
                if self.has(VIRTIO_NET_F_CTRL_RX) =>
            {
                self.set_groups(data)?;
            }
            (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) if self.has(VIRTIO_NET_F_MQ) => {
                let pairs = u16::from_le_bytes(data.try_into().ok()?);
                self.pairs = Some(pairs).filter(|pairs| (1..=self.most_pairs).contains(pairs))?;
            }
            (VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET)
                if self.has(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) =>
            {
                let offloads = u64::from_le_bytes(data.try_into().ok()?);
                let chosen = self.features & GUEST_OFFLOADS;
                self.offloads = Some(offloads).filter(|offloads| offloads & !chosen == 0)?;
            }
            _ => return None,
        }
        Some(())
    }

    /// Takes the table of group addresses, which follows that of single addresses.
    fn set_groups(&mut self, data: &[u8]) -> Option<()> {
        let (_, data) = table(data)?;
        let (groups, rest) = table(data)?;
        if !rest.is_empty() {
            return None;
        }
        let (kept, rest) = groups.split_at_checked(MOST_GROUPS).unwrap_or((groups, &[]));
        self.groups = kept.iter().map(|group| MacAddr(*group)).collect();
        // More than fit: the filter lets all of them pass, as the driver has to expect.
        self.promiscuous |= !rest.is_empty();
        Some(())
    }

    fn has(&self, feature: u32) -> bool {
        self.features >> feature & 1 == 1
    }
}

/// One byte, 0 or 1.
fn switch(data: &[u8]) -> Option<bool> {
    match data {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

/// A number of addresses and the addresses; what follows them.
fn table(data: &[u8]) -> Option<(&[[u8; 6]], &[u8])> {
    let (count, data) = data.split_first_chunk()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let (addresses, rest) = data.split_at_checked(count.checked_mul(6)?)?;
    Some((addresses.as_chunks().0, rest))
}
