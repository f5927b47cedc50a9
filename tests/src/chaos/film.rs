//! A film with receivers: the outside judge of guarantees. It is made of packets with a clock and
//! no picture; nobody looks at it, everybody looks at when it comes.

use std::io;
use std::path::Path;

use moirai_bench::recorder::analysis::{LATE, Stalls, lateness};
use moirai_bench::recorder::{Analysis, Arrival, Capture, analyse};
use moirai_runtime::Stall;
use moirai_runtime::netns::in_netns;
use moirai_scheduler::Moment;

const PACKET: usize = 188;
/// Ticks of 90 kHz from one packet to the next: 1 ms, 1.5 Mbit/s.
const TICKS: u64 = 90;
/// Of how many packets one has the clock.
const CLOCKS: u64 = 10;
const MINUTES: u64 = 4;
/// Where it is received.
pub(super) const PORTS: [u16; 2] = [5004, 5006];
/// How much of what the film has reserved it uses, in thousandths: 1.6 of 10 Mbit/s, twice.
const USED_PERMILLE: u64 = 400;

/// Writes the film.
///
/// # Errors
/// It cannot be written.
pub(super) fn make(path: &Path) -> io::Result<()> {
    let packet = |number: u64| {
        let mut packet = [u8::try_from(number % 251 + 1).unwrap_or(1); PACKET];
        packet[..6].copy_from_slice(&[0x47, 0x01, 0x00, 0x30, 7, 0]);
        if number.is_multiple_of(CLOCKS) {
            packet[5] = 0x10;
            let field = (number * TICKS) << 15 | 0x7e00;
            packet[6..12].copy_from_slice(&field.to_be_bytes()[2..]);
        }
        packet
    };
    std::fs::write(path, (0..MINUTES * 60_000).flat_map(packet).collect::<Vec<u8>>())
}

/// Receivers of one showing, which lasts until the host service ends.
#[derive(Debug)]
pub(super) struct Receivers(Vec<Capture>);

/// What all receivers of a showing saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) packets: u64,
    pub(super) lost: u64,
    /// Late outside of stalls, and in them.
    pub(super) late: u64,
    pub(super) late_in_stall: u64,
    pub(super) late_max_us: u64,
    /// When packets should have come that were late, outside of stalls and in them.
    pub(super) late_at: Vec<Moment>,
}

impl Receivers {
    /// Receivers in a network namespace, at the address of its link.
    ///
    /// # Errors
    /// The namespace or the address is not there.
    pub(super) fn start(netns: &str) -> Result<Self, String> {
        let start = |port| {
            let address = ([10, 77, 0, 1], port).into();
            let capture = in_netns(netns, move || Capture::start(address));
            capture.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        };
        PORTS.into_iter().map(start).collect::<Result<_, String>>().map(Self)
    }

    /// Packets so far.
    pub(super) fn packets(&self) -> u64 {
        self.0.iter().map(Capture::packets).sum()
    }

    /// Ends them, and judges what came in under these stalls.
    pub(super) fn finish(self, stalls: &[Stall]) -> Seen {
        let mut seen = Seen::default();
        for receiver in self.0 {
            let arrivals = receiver.finish();
            seen.add(&judged(&arrivals, stalls));
            let late = lateness(&arrivals).into_iter().filter(|packet| packet.late > LATE);
            seen.late_at.extend(late.map(|packet| packet.due));
        }
        seen
    }
}

fn judged(arrivals: &[Arrival], stalls: &[Stall]) -> Analysis {
    analyse(arrivals, &Stalls { stalls, used_permille: USED_PERMILLE })
}

impl Seen {
    fn add(&mut self, one: &Analysis) {
        self.packets += one.packets;
        self.lost += one.lost;
        self.late += one.late;
        self.late_in_stall += one.late_in_stall;
        self.late_max_us = self.late_max_us.max(one.late_max_us);
    }

    /// Several showings.
    pub(super) fn join(&mut self, other: &Self) {
        self.packets += other.packets;
        self.lost += other.lost;
        self.late += other.late;
        self.late_in_stall += other.late_in_stall;
        self.late_max_us = self.late_max_us.max(other.late_max_us);
    }

    /// What is wrong with a showing, whatever the machine does; none if nothing is.
    pub(super) fn wrong(&self) -> Option<String> {
        match self {
            Self { packets: 0, .. } => Some("no packet of the film came".to_owned()),
            Self { lost: 1.., .. } => Some(format!("{} packets of the film were lost", self.lost)),
            _ => None,
        }
    }

    /// Its lateness outside of stalls.
    pub(super) fn lateness(&self) -> Option<String> {
        let (late, limit) = (self.late, LATE.as_micros());
        (late > 0).then(|| format!("{late} packets of the film came more than {limit} us late"))
    }
}
