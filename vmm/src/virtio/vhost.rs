//! The frontend side of vhost-user: asks a backend what it offers, starts and stops its queues.
//!
//! Messages name rings and memory regions by guest physical addresses, also where the protocol has
//! addresses of the frontend: a backend does not need these, and so does not learn them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use super::backend::{Backend, DeviceEvents, copy_config};
use super::error::{BackendError, VhostError};
use super::queue::QueueAreas;
use super::wire::{MAX_FDS, Wire};
use crate::event;

/// How long a backend may take for an answer. Stopping waits for all requests in flight.
pub const TIMEOUT: Duration = Duration::from_secs(5);

const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
const GET_VRING_BASE: u32 = 11;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const SET_VRING_ERR: u32 = 14;
const GET_PROTOCOL_FEATURES: u32 = 15;
const SET_PROTOCOL_FEATURES: u32 = 16;
const GET_QUEUE_NUM: u32 = 17;
const SET_VRING_ENABLE: u32 = 18;
const GET_CONFIG: u32 = 24;

const PROTOCOL_MQ: u64 = 1 << 0;
const PROTOCOL_REPLY_ACK: u64 = 1 << 3;
const PROTOCOL_CONFIG: u64 = 1 << 9;
/// `VHOST_USER_F_PROTOCOL_FEATURES`, of no meaning to a driver.
const F_PROTOCOL_FEATURES: u64 = 1 << 30;
const F_VERSION_1: u64 = 1 << 32;

/// Largest configuration space of the protocol.
const CONFIG_BYTES: usize = 256;

/// Feature bits that may pass between driver and backend: those of device types, and of the ring
/// INDIRECT_DESC, EVENT_IDX, VERSION_1 and IN_ORDER. Packed rings, access through an IOMMU, data
/// in notifications and single-queue reset would need this frontend's help.
const PASSED_FEATURES: u64 = {
    let of_device_types = 0xff_ffff | !((1 << 50) - 1);
    let of_the_ring = 1 << 28 | 1 << 29 | 1 << 35;
    of_device_types | of_the_ring | F_VERSION_1
};

/// A device whose backend sits at the other end of a socket.
#[derive(Debug)]
pub struct Vhost {
    wire: Wire,
    memory: GuestMemoryMmap,
    events: Arc<DeviceEvents>,
    features: u64,
    config: Vec<u8>,
    /// Queues that the backend was told of and that have to be stopped.
    started: Vec<u32>,
    /// The backend broke the protocol or did not answer: there is no more talking to it.
    dead: bool,
}

impl Vhost {
    /// Asks a backend what it offers.
    ///
    /// # Errors
    /// It does not answer, or it lacks what every device needs.
    pub fn connect(
        socket: OwnedFd,
        memory: GuestMemoryMmap,
        events: Arc<DeviceEvents>,
        timeout: Duration,
    ) -> Result<Self, VhostError> {
        let wire = Wire::new(socket, timeout);
        // Both questions at once: a round trip wakes another process up.
        wire.send(SET_OWNER, false, &[], &[])?;
        wire.send(GET_FEATURES, false, &[], &[])?;
        wire.send(GET_PROTOCOL_FEATURES, false, &[], &[])?;
        let features = receive_u64(&wire, GET_FEATURES)?;
        let protocol = receive_u64(&wire, GET_PROTOCOL_FEATURES)?;
        for (bits, bit, name) in [
            (features, F_VERSION_1, "VIRTIO_F_VERSION_1"),
            (features, F_PROTOCOL_FEATURES, "VHOST_USER_F_PROTOCOL_FEATURES"),
            (protocol, PROTOCOL_CONFIG, "VHOST_USER_PROTOCOL_F_CONFIG"),
            (protocol, PROTOCOL_REPLY_ACK, "VHOST_USER_PROTOCOL_F_REPLY_ACK"),
            (protocol, PROTOCOL_MQ, "VHOST_USER_PROTOCOL_F_MQ"),
        ] {
            if bits & bit == 0 {
                return Err(VhostError::Lacks(name));
            }
        }
        let wanted = PROTOCOL_CONFIG | PROTOCOL_REPLY_ACK | PROTOCOL_MQ;
        wire.send(SET_PROTOCOL_FEATURES, false, &wanted.to_ne_bytes(), &[])?;
        wire.send(GET_QUEUE_NUM, false, &[], &[])?;
        let mut config = [0u32, 256, 0].map(u32::to_ne_bytes).concat();
        let head = config.len();
        config.resize(head + CONFIG_BYTES, 0);
        wire.send(GET_CONFIG, false, &config, &[])?;
        let (has, needed) = (receive_u64(&wire, GET_QUEUE_NUM)?, events.kicks.len());
        if has < needed as u64 {
            return Err(VhostError::Queues { has, needed });
        }
        wire.receive(GET_CONFIG, &mut config)?;
        let config = config.split_off(head);
        let features = features & PASSED_FEATURES;
        Ok(Self { wire, memory, events, features, config, started: Vec::new(), dead: false })
    }

    fn try_start(
        &mut self,
        features: u64,
        queues: &[Option<QueueAreas>],
    ) -> Result<(), VhostError> {
        let features = features | F_PROTOCOL_FEATURES;
        self.wire.send(SET_FEATURES, false, &features.to_ne_bytes(), &[])?;
        self.send_memory_table()?;
        let events = Arc::clone(&self.events);
        let eventfds = events.kicks.iter().zip(&events.calls);
        for (index, (ring, (kick, call))) in (0..).zip(queues.iter().zip(eventfds)) {
            if let Some(ring) = ring {
                self.send_ring(index, *ring, kick, call)?;
                self.started.push(index);
            }
        }
        for &index in &self.started {
            self.wire.send(SET_VRING_ENABLE, true, &state(index, 1), &[])?;
        }
        for _ in &self.started {
            if receive_u64(&self.wire, SET_VRING_ENABLE)? != 0 {
                return Err(VhostError::Refused(SET_VRING_ENABLE));
            }
        }
        Ok(())
    }

    fn send_memory_table(&self) -> Result<(), VhostError> {
        let mut regions = Vec::new();
        let mut fds = Vec::new();
        for region in self.memory.iter().take(MAX_FDS) {
            let Some(file) = region.file_offset() else { continue };
            let guest = region.start_addr().0;
            for word in [guest, region.len(), guest, file.start()] {
                regions.extend(word.to_ne_bytes());
            }
            fds.push(file.file().as_fd());
        }
        let count = u32::try_from(fds.len()).map_err(io::Error::other)?;
        let head = [count, 0].map(u32::to_ne_bytes).concat();
        self.wire.send(SET_MEM_TABLE, false, &[head, regions].concat(), &fds)
    }

    fn send_ring(
        &self,
        index: u32,
        ring: QueueAreas,
        kick: &EventFd,
        call: &EventFd,
    ) -> Result<(), VhostError> {
        let no_flags = 0;
        let mut addresses = state(index, no_flags);
        let no_log = 0;
        for address in [ring.descriptors, ring.device, ring.driver, no_log] {
            addresses.extend(address.to_ne_bytes());
        }
        let send = |request, payload: &[u8]| self.wire.send(request, false, payload, &[]);
        send(SET_VRING_NUM, &state(index, ring.size.into()))?;
        send(SET_VRING_BASE, &state(index, 0))?;
        send(SET_VRING_ADDR, &addresses)?;
        let eventfds =
            [(SET_VRING_CALL, call), (SET_VRING_ERR, &self.events.error), (SET_VRING_KICK, kick)];
        for (request, eventfd) in eventfds {
            let fds: [BorrowedFd<'_>; 1] = [event::borrow(eventfd)];
            self.wire.send(request, false, &u64::from(index).to_ne_bytes(), &fds)?;
        }
        Ok(())
    }

    fn try_stop(&mut self) -> Result<(), VhostError> {
        let started = std::mem::take(&mut self.started);
        for &index in &started {
            self.wire.send(GET_VRING_BASE, false, &state(index, 0), &[])?;
        }
        for _ in &started {
            self.wire.receive(GET_VRING_BASE, &mut [0; 8])?;
        }
        Ok(())
    }

    /// Once a backend has failed there is no more talking to it. Hanging up tells it to leave guest
    /// memory alone.
    fn judge(&mut self, result: Result<(), VhostError>) -> Result<(), VhostError> {
        if result.is_err() && !self.dead {
            self.dead = true;
            // Fails only if the backend has hung up already.
            let _ = shutdown(self.wire.socket(), Shutdown::Both);
        }
        if self.dead && result.is_ok() { Err(VhostError::Closed) } else { result }
    }
}

impl Backend for Vhost {
    fn features(&self) -> u64 {
        self.features
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&self.config, offset, data);
    }

    fn start(&mut self, features: u64, queues: &[Option<QueueAreas>]) -> Result<(), BackendError> {
        let result = if self.dead { Ok(()) } else { self.try_start(features, queues) };
        Ok(self.judge(result)?)
    }

    fn stop(&mut self) -> Result<(), BackendError> {
        let result = if self.dead { Ok(()) } else { self.try_stop() };
        Ok(self.judge(result)?)
    }
}

fn receive_u64(wire: &Wire, request: u32) -> Result<u64, VhostError> {
    let mut payload = [0; 8];
    wire.receive(request, &mut payload)?;
    Ok(u64::from_ne_bytes(payload))
}

/// Payload of the messages about the state of a vring.
fn state(index: u32, value: u32) -> Vec<u8> {
    [index, value].map(u32::to_ne_bytes).concat()
}
