//! Two links in memory, each receives what the other sends. For tests of what lies above a link.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::Link;
use crate::net::tx::TxPacket;

/// Packets on their way in one direction, oldest first.
type Wire = Arc<Mutex<VecDeque<Vec<u8>>>>;

/// One end of the pair.
#[derive(Debug)]
pub struct Loopback {
    outgoing: Wire,
    incoming: Wire,
    capacity: usize,
}

/// Two ends; each direction holds at most `capacity` packets.
pub fn pair(capacity: usize) -> (Loopback, Loopback) {
    let (there, back) = (Wire::default(), Wire::default());
    let other = Loopback { outgoing: Arc::clone(&back), incoming: Arc::clone(&there), capacity };
    (Loopback { outgoing: there, incoming: back, capacity }, other)
}

impl Link for Loopback {
    fn send(&mut self, packet: &TxPacket) -> io::Result<bool> {
        let mut wire = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        if wire.len() >= self.capacity {
            return Ok(false);
        }
        let mut payload = vec![0; usize::try_from(packet.payload.len_bytes()).unwrap_or(0)];
        packet.payload.copy_to(&mut payload);
        wire.push_back([&packet.head[..], &payload].concat());
        Ok(true)
    }

    /// Like a TAP, cuts a packet that is longer than the buffer.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut wire = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(packet) = wire.pop_front() else { return Ok(None) };
        let len = packet.len().min(buffer.len());
        buffer.iter_mut().zip(&packet).for_each(|(to, from)| *to = *from);
        Ok(Some(len))
    }
}
