//! Floods of packets that come in, beside a stream that goes out: the stream does not notice, and
//! receiving takes no more of the loop's time than it may.

use std::cell::RefCell;
use std::rc::Rc;

use moirai_devices::mock::writable;
use moirai_runtime::{StallLog, mailbox};
use moirai_scheduler::{Contract, Moment, PolicyKind, Span, policy};

use super::chance::Chance;
use super::clock::Virtual;
use super::net_guest::{NetGuest, frame};
use super::ring::{Faults, Fickle};
use super::wire::{Cable, Inner};
use super::world::Unreal;
use crate::domain::{Domain, Parts};
use crate::intake::{RECEIVE, TURN};
use crate::link::Link;
use crate::{DeviceId, DomainSnapshot, NetSpec, Sources};

const STREAM: [u8; 6] = [0x52, 0, 0, 1, 0, 1];
const OTHER: [u8; 6] = [0x52, 0, 0, 1, 0, 2];
const MS: Span = Span::from_millis(1);
const SECOND: Span = Span::from_secs(1);
/// What bringing a packet to guests takes: much, on a slow machine.
const TAKES: Span = Span::from_micros(10);
/// Packets that wait in the TAP all the time.
const WAITING: usize = 500;
/// A packet leaves within a turn, and what its own way through the loop takes.
const LATEST: Span = Span::from_nanos(TURN.as_nanos() + 2 * TAKES.as_nanos() + 60_000);

struct Flood {
    clock: Virtual,
    domain: Domain<Unreal>,
    cable: Rc<RefCell<Inner>>,
    guests: Vec<NetGuest>,
    chance: Chance,
}

impl Flood {
    fn new() -> Self {
        let mut chance = Chance::new(7);
        let clock = Virtual::default();
        clock.pass(SECOND);
        let (cable, inner) = Cable::new(clock.clone(), chance.split(), 0);
        inner.borrow_mut().takes = TAKES;
        let policy = policy(PolicyKind::Atropos, 8);
        let link = Link::new("l".into(), 100_000_000, 1500, policy, cable);
        let ring = Fickle::new(clock.clone(), chance.split(), Faults::default(), 300);
        let (_, inbox) = mailbox().unwrap();
        let mut domain = Domain::new(Parts {
            name: "flood".into(),
            machine: clock.clone(),
            ring,
            inbox,
            disks: Vec::new(),
            links: vec![link],
            poll: Span::ZERO,
            stalls: StallLog::default(),
        });
        let mut boot = |number, mac| {
            let (socket, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let spec = NetSpec {
                tenant: format!("t{number}"),
                link: "l".into(),
                mac,
                pairs: 1,
                sources: Sources::Own(Vec::new()),
                receive: 100,
                memory: 1 << 30,
                contract: Contract::new(MS * 5, MS.service(), MS * 5, None).unwrap(),
                socket,
            };
            domain.attach_net(DeviceId(number), spec, clock.time()).unwrap();
            NetGuest::boot(theirs, mac, &mut chance)
        };
        let guests = vec![boot(1, STREAM), boot(2, OTHER)];
        Self { clock, domain, cable: inner, guests, chance }
    }

    /// One turn; before it the TAP is filled up with packets for `to`.
    fn turn(&mut self, to: &[[u8; 6]], until: Moment) {
        while !to.is_empty() && self.cable.borrow().incoming.len() < WAITING {
            let to = self.chance.of(to);
            let packet = [&[0; 12][..], &frame(to, [2; 6], &mut self.chance)].concat();
            self.cable.borrow_mut().bring(packet);
        }
        for guest in &mut self.guests {
            while let Some(slot) = guest.guest.free_slot(0) {
                let data = guest.guest.data(0, slot);
                guest.guest.post(0, slot, &[writable(data, 2048)]);
            }
        }
        self.clock.run_errands(false);
        self.domain.ring.world_acts_at = Some(until);
        self.domain.cycle();
        self.guests.iter_mut().for_each(NetGuest::look);
    }

    /// A packet every millisecond for two seconds; how late the latest was, and what was counted.
    fn stream(mut self, to: &[[u8; 6]]) -> (Span, DomainSnapshot) {
        (0..200)
            .for_each(|_| self.turn(&[], self.clock.time().saturating_add(Span::from_micros(10))));
        let begin = self.clock.time();
        let mut latest = Span::ZERO;
        for number in 1..=2_000 {
            let due = begin.saturating_add(MS * number);
            while self.clock.time() < due {
                self.turn(to, due);
            }
            let posted = self.clock.time();
            self.cable.borrow_mut().sent_at.clear();
            let packet = frame([0x52, 9, 9, 9, 9, 9], STREAM, &mut self.chance);
            assert!(self.guests[0].send(&packet), "its ring is full");
            while self.cable.borrow().sent_at.is_empty() {
                self.turn(to, self.clock.time().saturating_add(MS));
            }
            latest = latest.max(self.cable.borrow().sent_at[0].since(posted));
        }
        let now = self.clock.time();
        let snapshot = self.domain.snapshot(now);
        let link = &snapshot.links[0];
        let paid = snapshot.devices.iter().map(|device| device.receive_cpu_ns);
        let received = paid.sum::<u64>() + link.receive_cpu_ns;
        let share = received * 1_000 / now.since(begin).as_nanos();
        assert!(share <= RECEIVE + 5, "receiving took {share} thousandths of the time");
        (latest, snapshot)
    }
}

#[test]
fn no_flood_of_packets_that_come_in_makes_a_stream_late() {
    let (quiet, _) = Flood::new().stream(&[]);
    assert!(quiet < Span::from_micros(60), "{quiet:?} without a flood");
    for to in [&[[0xff; 6]][..], &[[0x33, 0x33, 0, 0, 0, 1]], &[OTHER], &[[0x52, 7, 7, 7, 7, 7]]] {
        let (latest, snapshot) = Flood::new().stream(to);
        assert!(latest <= LATEST, "{latest:?}, with a flood for {to:x?}");
        let missed: Vec<_> = snapshot.devices.iter().map(|device| device.misses).collect();
        assert_eq!(missed, [0, 0], "with a flood for {to:x?}");
        let (over, policed) = (snapshot.devices[1].over_budget, snapshot.links[0].policed);
        assert!(if to == [OTHER] { over > 0 } else { policed > 0 }, "{over}, {policed}: {to:x?}");
    }
}

#[test]
fn who_is_flooded_alone_leaves_others_what_is_theirs() {
    // A few packets for the stream's guest among many for the other one.
    let mut to = vec![OTHER; 50];
    to.push(STREAM);
    let (_, snapshot) = Flood::new().stream(&to);
    let [stream, other] = &snapshot.devices[..] else { panic!("{snapshot:?}") };
    assert_eq!(stream.over_budget, 0);
    assert!(stream.received > 0 && other.over_budget > 0, "{snapshot:?}");
    // Half of a hundredth more for the burst.
    assert!(TAKES * other.received <= Span::from_millis(215), "{}", other.received);
}
