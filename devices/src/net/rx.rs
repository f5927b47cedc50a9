//! A receive queue: copies packets into the buffers that the guest has posted. If a packet leaves
//! work undone that the driver did not agree to do, the queue does it on the way.

use std::sync::Arc;

use smallvec::SmallVec;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MRG_RXBUF};
use virtio_queue::{Queue, QueueT};

use super::offload::GUEST_OFFLOADS;
use super::segment::{Layout, Segments};
use super::{VNET_HEADER_LEN, VnetHeader};
use crate::counters::Counters;
use crate::memory::{Buffers, GuestMemory};
use crate::virtqueue::{self, Chain, QueueError};
use moirai_abi::wire::LONGEST_HEADERS;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is in the guest's buffers. Signal the driver, once for a batch.
    Delivered,
    /// The guest has posted no (or not enough) buffers; the packet is lost to it.
    NoBuffers,
    /// The packet does not fit into the guest's buffer; the buffer was kept for a smaller one.
    TooLong,
    /// It was to be cut into segments and is not what its header says.
    Malformed,
}

/// Broken receive buffers that one delivery passes over at most.
const BROKEN_PER_DELIVERY: u32 = 8;

/// One receive queue.
#[derive(Debug)]
pub struct Frontend {
    features: u64,
    /// The offloads among the features that the driver has switched on.
    offloads: u64,
    /// What became of the queue's packets.
    pub counters: Counters,
}

/// The receive buffers that a packet goes into.
struct Target {
    /// All their bytes, one after the other.
    buffers: Buffers,
    /// Head and length of each.
    chains: SmallVec<[(u16, u32); 4]>,
}

impl Frontend {
    /// A frontend for a receive queue with the features that the driver has chosen.
    pub fn new(features: u64) -> Self {
        Self { features, offloads: features & GUEST_OFFLOADS, counters: Counters::default() }
    }

    /// What the driver has chosen.
    pub fn set_features(&mut self, features: u64) {
        (self.features, self.offloads) = (features, features & GUEST_OFFLOADS);
    }

    /// The driver takes only these of the offloads that it has chosen.
    pub fn set_offloads(&mut self, offloads: u64) {
        self.offloads = self.features & GUEST_OFFLOADS & offloads;
    }

    /// Copies one packet into the guest: as it is, or the segments that it becomes.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn deliver(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
        header: &VnetHeader,
        frame: &[u8],
    ) -> Result<Delivery, QueueError> {
        let Some(segmentation) = header.segmentation else {
            return self.deliver_frame(mem, queue, header, frame);
        };
        let front = frame.get(..LONGEST_HEADERS).unwrap_or(frame);
        let Ok(layout) = Layout::find(front, frame.len() as u64, header) else {
            self.counters.dropped_rx += 1;
            return Ok(Delivery::Malformed);
        };
        if segmentation.may_be_received(layout.version_6(), self.offloads) {
            return self.deliver_frame(mem, queue, header, frame);
        }
        let mut segments = Segments::new(frame, layout, segmentation);
        let header = segments.header();
        let mut delivery = Delivery::NoBuffers;
        while let Some(segment) = segments.next() {
            match self.deliver_frame(mem, queue, &header, segment)? {
                Delivery::Delivered => delivery = Delivery::Delivered,
                lost if delivery != Delivery::Delivered => delivery = lost,
                _ => {}
            }
        }
        Ok(delivery)
    }

    /// Copies one frame into the guest. If the header asks for a checksum that the driver did not
    /// agree to complete, it is completed on the way.
    fn deliver_frame(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
        header: &VnetHeader,
        frame: &[u8],
    ) -> Result<Delivery, QueueError> {
        let len = VNET_HEADER_LEN + frame.len();
        let target = match self.take_buffers(mem, queue, len as u64)? {
            Ok(target) => target,
            Err(lost) => {
                self.counters.dropped_rx += 1;
                return Ok(lost);
            }
        };
        self.fill(&target.buffers, header, frame, target.chains.len());
        self.counters.copied_by_us_bytes += frame.len() as u64;
        self.counters.completed += 1;
        let mut left = u32::try_from(len).unwrap_or(u32::MAX);
        let mut used = target.chains;
        for (_, len) in &mut used {
            *len = left.min(*len);
            left -= *len;
        }
        virtqueue::add_used_together(mem, queue, &used)?;
        Ok(Delivery::Delivered)
    }

    /// Takes as many buffers as the packet needs; puts them back if they do not suffice.
    fn take_buffers(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
        len: u64,
    ) -> Result<Result<Target, Delivery>, QueueError> {
        let mut target = Target { buffers: Buffers::new(Arc::clone(mem)), chains: SmallVec::new() };
        let mut broken = 0;
        while target.buffers.len_bytes() < len {
            let taken = u16::try_from(target.chains.len()).unwrap_or(u16::MAX);
            if taken > 0 && !self.has(VIRTIO_NET_F_MRG_RXBUF) {
                virtqueue::put_back(queue, taken);
                return Ok(Err(Delivery::TooLong));
            }
            if taken >= queue.size() || broken >= BROKEN_PER_DELIVERY {
                virtqueue::put_back(queue, taken);
                return Ok(Err(Delivery::NoBuffers));
            }
            let Some(chain) = virtqueue::next_chain(mem, queue, 0)? else {
                virtqueue::put_back(queue, taken);
                return Ok(Err(Delivery::NoBuffers));
            };
            if append(&mut target.buffers, &chain).is_ok() {
                let len =
                    u32::try_from(virtqueue::len_bytes(&chain.descriptors)).unwrap_or(u32::MAX);
                target.chains.push((chain.head, len));
            } else if taken == 0 {
                broken += 1;
                self.counters.unanswerable += 1;
                virtqueue::add_used(mem, queue, chain.head, 0)?;
            } else {
                // It is passed over when it is first in the ring.
                virtqueue::put_back(queue, taken.saturating_add(1));
                return Ok(Err(Delivery::NoBuffers));
            }
        }
        Ok(Ok(target))
    }

    fn fill(&self, buffers: &Buffers, header: &VnetHeader, frame: &[u8], chains: usize) {
        let after_header = buffers.slice(VNET_HEADER_LEN as u64, u64::MAX);
        after_header.copy_from(frame);
        let mut header = *header;
        if self.offloads >> VIRTIO_NET_F_GUEST_CSUM & 1 == 0 {
            if let Some((place, bytes)) = header.checksum.and_then(|sum| sum.complete(frame)) {
                after_header.slice(place as u64, 2).copy_from(&bytes);
            }
            header = VnetHeader::default();
        }
        buffers.copy_from(&header.to_bytes(u16::try_from(chains).unwrap_or(u16::MAX)));
    }

    fn has(&self, feature: u32) -> bool {
        self.features >> feature & 1 == 1
    }
}

/// Adds the bytes of a receive chain, which has to be writable guest memory.
fn append(buffers: &mut Buffers, chain: &Chain) -> Result<(), ()> {
    if chain.descriptors.is_empty() || chain.descriptors.iter().any(|d| !d.writable) {
        return Err(());
    }
    let before = buffers.len_bytes();
    for descriptor in &chain.descriptors {
        if buffers.push(descriptor.addr, descriptor.len).is_err() {
            *buffers = buffers.slice(0, before);
            return Err(());
        }
    }
    Ok(())
}
