//! Packets that become segments: what they cost, and what arrives of them.

use super::*;
use crate::net::wire::wire_bytes;

const HOST: u64 = 1 << 11 | 1 << 12 | 1 << 13 | 1 << 56;
const GUEST: u64 = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 54 | 1 << 55;

/// Where the parts of a test packet lie.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) header: VnetHeader,
    pub(super) frame: Vec<u8>,
    network: usize,
    transport: usize,
    pub(super) headers: usize,
}

/// What a test packet looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) protocol: Protocol,
    pub(super) version_6: bool,
    pub(super) vlan: bool,
    /// Words of IPv4 options, or double words of an IPv6 destination options header.
    pub(super) options: u8,
    /// Words of TCP options.
    pub(super) tcp_options: u8,
    pub(super) ecn: bool,
    pub(super) size: u16,
}

pub(super) const TCP4: Shape = Shape {
    protocol: Protocol::Tcp4,
    version_6: false,
    vlan: false,
    options: 0,
    tcp_options: 3,
    ecn: false,
    size: 1448,
};

impl Shape {
    /// A packet with this payload, as a network stack hands it to a card that cuts.
    pub(super) fn packet(&self, source: MacAddr, payload: &[u8]) -> Made {
        let tcp = self.protocol != Protocol::Udp;
        let l4_headers = if tcp { 20 + 4 * usize::from(self.tcp_options) } else { 8 };
        let l4 = u16::try_from(l4_headers + payload.len()).unwrap();
        let mut frame = [MAC.0, source.0].concat();
        frame.extend(if self.vlan { &[0x81, 0, 0, 9][..] } else { &[] });
        frame.extend(if self.version_6 { [0x86, 0xdd] } else { [8, 0] });
        let network = frame.len();
        let next = if tcp { 6 } else { 17 };
        let addresses = if self.version_6 {
            self.ipv6(&mut frame, next, l4)
        } else {
            self.ipv4(&mut frame, next, l4)
        };
        let transport = frame.len();
        let pseudo = [&addresses[..], &[0, next], &l4.to_be_bytes()].concat();
        let pseudo = fold(&pseudo).to_be_bytes();
        frame.extend([0x12, 0x34, 0, 80]);
        if tcp {
            let words = 5 + self.tcp_options;
            frame.extend(0xffff_fff0_u32.to_be_bytes());
            frame.extend([0, 0, 0, 1, words << 4, if self.ecn { 0x99 } else { 0x19 }, 1, 0]);
            frame.extend([pseudo[0], pseudo[1], 0, 0]);
            frame.extend(vec![1; 4 * usize::from(self.tcp_options)]);
        } else {
            frame.extend(l4.to_be_bytes());
            frame.extend(pseudo);
        }
        let headers = frame.len();
        frame.extend(payload);
        let (start, offset) = (u16::try_from(transport).unwrap(), if tcp { 16 } else { 6 });
        let segmentation =
            Segmentation { protocol: self.protocol, ecn: self.ecn, size: self.size, header_len: 0 };
        let header = VnetHeader {
            checksum: Some(Checksum { start, offset }),
            data_valid: false,
            segmentation: Some(segmentation),
        };
        Made { header, frame, network, transport, headers }
    }

    fn ipv4(&self, frame: &mut Vec<u8>, next: u8, l4: u16) -> Vec<u8> {
        let total = l4 + 20 + 4 * u16::from(self.options);
        frame.extend([0x45 + self.options, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0xff, 0xfe, 0x40, 0, 64, next, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(vec![1; 4 * usize::from(self.options)]);
        vec![10, 0, 0, 1, 10, 0, 0, 2]
    }

    fn ipv6(&self, frame: &mut Vec<u8>, next: u8, l4: u16) -> Vec<u8> {
        let extension = 8 * u16::from(self.options);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((l4 + extension).to_be_bytes());
        frame.extend([if self.options > 0 { 60 } else { next }, 64]);
        let addresses: Vec<u8> = (0..32).collect();
        frame.extend(&addresses);
        if let Some(more) = self.options.checked_sub(1) {
            frame.extend([next, more]);
            frame.extend(vec![0; usize::from(extension) - 2]);
        }
        addresses
    }
}

/// The ones' complement sum, in the simplest way.
fn fold(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}

/// A guest with a large memory and receive buffers of one page.
struct Large {
    mem: Arc<GuestMemory>,
    driver: Driver,
    queue: Queue,
}

const BUFFERS: u16 = 256;
const BUFFER: u32 = 1600;

impl Large {
    fn new() -> Self {
        let mem = mock::memory(2 << 20);
        let mut driver = Driver::new(Arc::clone(&mem), 0, BUFFERS);
        let queue = driver.queue();
        for n in 0..u64::from(BUFFERS) {
            driver.post(&[writable(0x10000 + n * u64::from(BUFFER), BUFFER)]);
        }
        Self { mem, driver, queue }
    }

    /// What it receives of a packet: vnet header and frame, one for each buffer or chain of them.
    fn receive(&mut self, rx: &mut rx::Frontend, made: &Made) -> Vec<([u8; 12], Vec<u8>)> {
        let delivery = rx.deliver(&self.mem, &mut self.queue, &made.header, &made.frame).unwrap();
        assert_eq!(delivery, rx::Delivery::Delivered);
        let mut packets: Vec<([u8; 12], Vec<u8>)> = Vec::new();
        let mut more = 0;
        while let Some((head, len)) = self.driver.used() {
            let mut bytes = vec![0; usize::try_from(len).unwrap()];
            let addr = 0x10000 + u64::from(head) * u64::from(BUFFER);
            self.mem.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
            if more > 0 {
                packets.last_mut().unwrap().1.extend(bytes);
                more -= 1;
            } else {
                let (vnet, frame) = bytes.split_first_chunk::<12>().unwrap();
                more = u16::from_le_bytes([vnet[10], vnet[11]]) - 1;
                packets.push((*vnet, frame.to_vec()));
            }
        }
        packets
    }
}

/// Sends the packet from a guest whose link has this MTU.
fn send(made: &Made, mtu: u16) -> Result<tx::TxPacket, PacketError> {
    let mem = mock::memory(1 << 20);
    let mut driver = Driver::new(Arc::clone(&mem), 0, 16);
    let bytes = [&made.header.to_bytes(0)[..], &made.frame].concat();
    mem.write_slice(&bytes, GuestAddress(0x10000)).unwrap();
    driver.post(&[readable(0x10000, u32::try_from(bytes.len()).unwrap())]);
    let mut tx = tx::Frontend::new(Nic { mac: OTHER, mtu, ..nic() });
    tx.set_features(nic().features());
    match tx.next_packet(&mem, &mut driver.queue()).unwrap() {
        tx::Next::Packet(taken) => Ok(taken.packet),
        _ => Err(tx.last_drop().unwrap()),
    }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect()
}

#[test]
fn a_guest_that_agreed_gets_a_packet_of_64_kib_uncut_over_many_buffers() {
    let made = TCP4.packet(OTHER, &payload(65_160));
    let mut rx = rx::Frontend::new(GUEST | GUEST_CSUM | MRG_RXBUF);
    let received = Large::new().receive(&mut rx, &made);
    assert_eq!(received.len(), 1);
    let (vnet, frame) = &received[0];
    assert!(*frame == made.frame);
    let expected = made.header.to_bytes(u16::try_from((65_238_usize).div_ceil(1600)).unwrap());
    assert_eq!(vnet, &expected);
}

#[test]
fn a_guest_gets_segments_when_it_switched_off_what_it_had_agreed_to() {
    let made = TCP4.packet(OTHER, &payload(14_480));
    let mut rx = rx::Frontend::new(GUEST | GUEST_CSUM | MRG_RXBUF);
    rx.set_offloads(GUEST_CSUM);
    let received = Large::new().receive(&mut rx, &made);
    assert_eq!(received.len(), 10);
    assert!(received.iter().all(|(vnet, _)| vnet[..2] == [NEEDS_CSUM, 0]));
}

#[test]
fn what_was_not_negotiated_is_not_sent() {
    let made = TCP4.packet(OTHER, &payload(3000));
    assert_eq!(send(&made, 1500).unwrap().frame_bytes(), 3066);
    let mem = mock::memory(MEMORY);
    for features in [0, 1, HOST & !(1 << 11) | 1, HOST] {
        let mut driver = Driver::new(Arc::clone(&mem), 0, 16);
        let bytes = [&made.header.to_bytes(0)[..], &made.frame].concat();
        mem.write_slice(&bytes, GuestAddress(PACKET)).unwrap();
        driver.post(&[readable(PACKET, u32::try_from(bytes.len()).unwrap())]);
        let mut tx = tx::Frontend::new(Nic { mac: OTHER, ..nic() });
        tx.set_features(features);
        let next = tx.next_packet(&mem, &mut driver.queue()).unwrap();
        assert!(matches!(next, tx::Next::Dropped), "{features:#x}");
        assert!(matches!(tx.last_drop(), Some(PacketError::NotNegotiated(_))), "{features:#x}");
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let protocol = prop_oneof![
        Just((Protocol::Tcp4, false)),
        Just((Protocol::Tcp6, true)),
        Just((Protocol::Udp, false)),
        Just((Protocol::Udp, true)),
    ];
    let rest = (any::<bool>(), 0_u8..3, 0_u8..8, any::<bool>(), 100_u16..1360);
    (protocol, rest).prop_map(|((protocol, version_6), (vlan, options, tcp_options, ecn, size))| {
        let ecn = ecn && protocol != Protocol::Udp;
        Shape { protocol, version_6, vlan, options, tcp_options, ecn, size }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The charge for a packet is the sum of what its segments would be charged, and the segments
    /// are complete packets that hold its payload.
    #[test]
    fn a_packet_is_charged_what_its_segments_are(shape in shapes(), len in 1_usize..12_000) {
        let data = payload(len);
        let made = shape.packet(OTHER, &data);
        let packet = send(&made, 1500).unwrap();
        let received = Large::new().receive(&mut rx::Frontend::new(MRG_RXBUF), &made);
        let sum: u64 = received.iter().map(|(_, frame)| wire_bytes(frame.len() as u64)).sum();
        prop_assert_eq!(packet.wire_bytes(), sum);
        let given = u16::from_le_bytes([packet.head[2], packet.head[3]]);
        prop_assert_eq!(usize::from(given), made.headers);
        prop_assert_eq!(packet.frame_bytes(), made.frame.len() as u64);

        let mut joined: Vec<u8> = Vec::new();
        let count = received.len();
        for (n, (vnet, frame)) in received.iter().enumerate() {
            prop_assert_eq!(&vnet[..10], &[0; 10]);
            check_segment(&shape, &made, frame, n, count)?;
            joined.extend(&frame[made.headers..]);
        }
        prop_assert!(joined == data);
    }
}

/// Whether this is the segment number `n` of `count` of the packet.
fn check_segment(
    shape: &Shape,
    made: &Made,
    frame: &[u8],
    n: usize,
    count: usize,
) -> Result<(), TestCaseError> {
    let last = n + 1 == count;
    let piece = frame.len() - made.headers;
    let size = usize::from(shape.size);
    prop_assert!(piece == size || (last && piece < size));
    let word = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let (network, transport) = (made.network, made.transport);
    let l4 = &frame[transport..];
    let addresses = if shape.version_6 {
        prop_assert_eq!(word(network + 4), frame.len() - network - 40);
        &frame[network + 8..network + 40]
    } else {
        prop_assert_eq!(word(network + 2), frame.len() - network);
        prop_assert_eq!(word(network + 4), (0xfffe + n) & 0xffff);
        prop_assert_eq!(fold(&frame[network..transport]), 0xffff);
        &frame[network + 12..network + 20]
    };
    let protocol = if shape.protocol == Protocol::Udp { 17 } else { 6 };
    let len = u16::try_from(l4.len()).unwrap().to_be_bytes();
    prop_assert_eq!(fold(&[addresses, &[0, protocol], &len, l4].concat()), 0xffff);
    if shape.protocol == Protocol::Udp {
        prop_assert_eq!(word(transport + 4), l4.len());
    } else {
        let sequence = u32::from_be_bytes(l4[4..8].try_into().unwrap());
        let skipped = u32::try_from(n * usize::from(shape.size)).unwrap();
        prop_assert_eq!(sequence, 0xffff_fff0_u32.wrapping_add(skipped));
        let marks = (if last { 0x19 } else { 0x10 }) | if shape.ecn && n == 0 { 0x80 } else { 0 };
        prop_assert_eq!(l4[13], marks);
    }
    Ok(())
}
