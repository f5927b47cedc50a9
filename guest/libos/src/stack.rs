//! The network stack: one link, two users of its queues.
//!
//! Small things (ARP and ICMP replies, the datagrams of [`Stack::bind`]) go through smoltcp, which
//! copies. Streams go past it: [`Stack::send`] writes headers beside a payload that stays where the
//! disk put it. [`Neighbours`] listens to all ARP that arrives and knows the next hops.

use crate::args::{Ipv4Cidr, NextHop};
use crate::frame::{ETHERNET_LEN, Mac, TTL, UDP_HEADERS_LEN, UdpFlow, udp_headers};
use crate::icmp::{Unreachable, unreachable};
use crate::memory::Payload;
use crate::neighbours::{Neighbours, request_frame};
use crate::nic::{Frame, HEADER_ROOM, Nic, Receiver, Transmitter};
pub use crate::receivers::SendError;
use crate::virtio::VirtioError;
use crate::virtqueue::VirtqueueFull;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddrV4};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::udp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, IpEndpoint};

/// Datagrams and bytes that a bound port queues in each direction.
const QUEUED_DATAGRAMS: usize = 64;
const QUEUED_BYTES: usize = 64 * 1024;
/// Answers of unreachable receivers that are kept until somebody asks for them.
const UNREACHABLE_MAX: usize = 64;

/// A bound UDP port.
#[derive(Clone, Copy, Debug)]
pub struct Port(SocketHandle);

/// One link with its addresses.
pub struct Stack {
    nic: Nic,
    interface: Interface,
    sockets: SocketSet<'static>,
    neighbours: Neighbours,
    cidr: Ipv4Cidr,
    gateway: Option<Ipv4Addr>,
    multicast_ttl: u8,
    unreachable: VecDeque<Unreachable>,
    /// When smoltcp wants to be called next, if at all.
    poll_at: Option<u64>,
    fault: Option<VirtioError>,
}

impl Stack {
    /// Sets up the stack on a link.
    #[must_use]
    pub fn new(mut nic: Nic, cidr: Ipv4Cidr, gateway: Option<Ipv4Addr>, now: u64) -> Self {
        let mut config = Config::new(EthernetAddress(nic.mac().0).into());
        config.random_seed = now ^ u64::from(cidr.address.to_bits());
        let mut neighbours = Neighbours::default();
        let mut fault = None;
        let mut answers = VecDeque::with_capacity(UNREACHABLE_MAX);
        let watch =
            Watch { neighbours: &mut neighbours, ours: cidr.address, answers: &mut answers };
        let mut port = Attachment::new(&mut nic, watch, &mut fault, now);
        let mut interface = Interface::new(config, &mut port, instant(now));
        interface.update_ip_addrs(|addresses| {
            // The list is empty and has room for at least one.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(cidr.address), cidr.prefix));
        });
        if let Some(gateway) = gateway {
            // The table is empty and has room for at least one.
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        let sockets = SocketSet::new(vec![]);
        Self {
            nic,
            interface,
            sockets,
            neighbours,
            cidr,
            gateway,
            multicast_ttl: TTL,
            unreachable: answers,
            poll_at: Some(0),
            fault,
        }
    }

    /// The link below.
    pub fn nic(&mut self) -> &mut Nic {
        &mut self.nic
    }

    /// Our address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.cidr.address
    }

    /// Routers that what is sent to multicast groups may pass.
    pub fn set_multicast_ttl(&mut self, ttl: u8) {
        self.multicast_ttl = ttl;
    }

    /// The next answer, oldest first, that says a datagram did not arrive.
    pub fn take_unreachable(&mut self) -> Option<Unreachable> {
        self.unreachable.pop_front()
    }

    /// Does what is due: takes back sent packets, handles arrived frames, answers and asks ARP.
    ///
    /// # Errors
    /// [`VirtioError`] if the device misbehaves.
    pub fn poll(&mut self, now: u64) -> Result<(), VirtioError> {
        self.nic.reclaim()?;
        if self.nic.has_received() || self.poll_at.is_some_and(|at| at <= now) {
            let Self { nic, interface, sockets, neighbours, unreachable, fault, .. } = self;
            let watch = Watch { neighbours, ours: self.cidr.address, answers: unreachable };
            let mut port = Attachment::new(nic, watch, fault, now);
            interface.poll(instant(now), &mut port, sockets);
            self.poll_at = interface.poll_at(instant(now), sockets).map(nanos);
        }
        while let Some(wanted) = self.neighbours.due_request(now) {
            let frame = request_frame(self.nic.mac(), self.cidr.address, wanted);
            if self.nic.transmitter.send_frame(&frame).is_err() {
                break;
            }
        }
        self.nic.kick();
        self.fault.take().map_or(Ok(()), Err)
    }

    /// When [`Stack::poll`] has something to do even if no frame arrives.
    #[must_use]
    pub fn poll_at(&self) -> Option<u64> {
        self.poll_at
    }

    /// Is it known how to reach `destination`, or that there is no way? Asks for its next hop if
    /// not.
    pub fn resolved(&mut self, destination: Ipv4Addr) -> bool {
        self.reach(destination) != Err(SendError::Unresolved)
    }

    /// Whether a packet to `destination` could be sent now. Asks for its next hop if that is not
    /// known.
    ///
    /// # Errors
    /// [`SendError::NoRoute`], [`SendError::Unresolved`].
    pub fn reach(&mut self, destination: Ipv4Addr) -> Result<(), SendError> {
        self.way(destination).map(drop)
    }

    /// Queues a UDP datagram: `head` (at most what [`HEADER_ROOM`] leaves) is copied, the pieces of
    /// payload behind it are not. The device sees it at the next [`Nic::kick`] or wait.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(
        &mut self,
        source_port: u16,
        destination: SocketAddrV4,
        head: &[u8],
        payload: [Option<Payload>; 2],
    ) -> Result<(), SendError> {
        let destination_mac = self.way(*destination.ip())?;
        if self.nic.is_full() {
            return Err(SendError::Full);
        }
        let pieces: usize = payload.iter().flatten().map(|piece| piece.len).sum();
        let len = pieces + head.len();
        let headers_len = UDP_HEADERS_LEN + head.len();
        let room = usize::from(self.nic.mtu()) - 28;
        let len = u16::try_from(len).ok().filter(|_| len <= room && headers_len <= HEADER_ROOM);
        let len = len.ok_or(SendError::TooLarge)?;
        let source = SocketAddrV4::new(self.cidr.address, source_port);
        let source_mac = self.nic.mac();
        let ttl = if destination.ip().is_multicast() { self.multicast_ttl } else { TTL };
        let flow = UdpFlow { source_mac, destination_mac, source, destination, ttl };
        let mut headers = [0; HEADER_ROOM];
        let fixed = udp_headers(&flow, len, self.nic.udp_checksum());
        headers[..UDP_HEADERS_LEN].copy_from_slice(&fixed);
        headers[UDP_HEADERS_LEN..headers_len].copy_from_slice(head);
        self.nic.send(&headers[..headers_len], payload).map_err(|VirtqueueFull| SendError::Full)
    }

    /// Binds a UDP port for small things; `None` if it is zero or taken.
    pub fn bind(&mut self, port: u16) -> Option<Port> {
        let buffer = || {
            let slots = vec![udp::PacketMetadata::EMPTY; QUEUED_DATAGRAMS];
            udp::PacketBuffer::new(slots, vec![0; QUEUED_BYTES])
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).ok()?;
        Some(Port(self.sockets.add(socket)))
    }

    /// The next datagram that arrived at a port, and who sent it.
    pub fn receive_from(&mut self, port: Port) -> Option<(Vec<u8>, IpEndpoint)> {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(port.0);
        let (bytes, metadata) = socket.recv().ok()?;
        Some((bytes.to_vec(), metadata.endpoint))
    }

    /// Queues a datagram from a bound port, copied; false if there is no room.
    pub fn send_to(&mut self, port: Port, destination: IpEndpoint, bytes: &[u8]) -> bool {
        self.poll_at = Some(0);
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(port.0);
        socket.send_slice(bytes, destination).is_ok()
    }

    fn way(&mut self, destination: Ipv4Addr) -> Result<Mac, SendError> {
        match self.cidr.next_hop(self.gateway, destination) {
            NextHop::Everybody => Ok(Mac::BROADCAST),
            NextHop::Neighbour(hop) => self.neighbours.lookup(hop).ok_or(SendError::Unresolved),
            NextHop::None => Err(SendError::NoRoute),
        }
    }
}

fn instant(now: u64) -> Instant {
    Instant::from_micros(i64::try_from(now / 1000).unwrap_or(i64::MAX))
}

fn nanos(instant: Instant) -> u64 {
    u64::try_from(instant.total_micros()).unwrap_or(0).saturating_mul(1000)
}

/// What is looked for in the frames that arrive.
struct Watch<'a> {
    neighbours: &'a mut Neighbours,
    ours: Ipv4Addr,
    answers: &'a mut VecDeque<Unreachable>,
}

impl Watch<'_> {
    fn look(&mut self, frame: &[u8], now: u64) {
        self.neighbours.learn(frame, now);
        if self.answers.len() < UNREACHABLE_MAX {
            self.answers.extend(unreachable(frame, self.ours));
        }
    }
}

/// The link as smoltcp sees it.
struct Attachment<'a> {
    receiver: &'a mut Receiver,
    transmitter: &'a mut Transmitter,
    watch: Watch<'a>,
    fault: &'a mut Option<VirtioError>,
    mtu: u16,
    now: u64,
}

impl<'a> Attachment<'a> {
    fn new(
        nic: &'a mut Nic,
        watch: Watch<'a>,
        fault: &'a mut Option<VirtioError>,
        now: u64,
    ) -> Self {
        let mtu = nic.mtu();
        let Nic { receiver, transmitter, .. } = nic;
        Self { receiver, transmitter, watch, fault, mtu, now }
    }
}

impl Device for Attachment<'_> {
    type RxToken<'t>
        = Arrived<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Leaving<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Arrived<'_>, Leaving<'_>)> {
        if self.transmitter.is_full() {
            return None;
        }
        let frame = match self.receiver.receive() {
            Ok(frame) => frame?,
            Err(error) => {
                *self.fault = Some(error);
                return None;
            }
        };
        self.watch.look(self.receiver.bytes(&frame), self.now);
        Some((Arrived { receiver: self.receiver, frame }, Leaving(self.transmitter)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        (!self.transmitter.is_full()).then_some(Leaving(self.transmitter))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(self.mtu) + ETHERNET_LEN;
        capabilities.checksum.udp = Checksum::Both;
        capabilities
    }
}

struct Arrived<'a> {
    receiver: &'a mut Receiver,
    frame: Frame,
}

impl RxToken for Arrived<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, use_frame: F) -> R {
        let result = use_frame(self.receiver.bytes(&self.frame));
        self.receiver.release(self.frame);
        result
    }
}

struct Leaving<'a>(&'a mut Transmitter);

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame = vec![0; len];
        let result = fill(&mut frame);
        // The caller has checked for room; if memory has run out, the frame is lost, as on a wire.
        let _ = self.0.send_frame(&frame);
        result
    }
}
