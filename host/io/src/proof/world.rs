//! A domain and all that is around it, made and driven by chance.

use std::cell::RefCell;
use std::rc::Rc;

use moirai_runtime::{Stall, StallLog, mailbox};
use moirai_scheduler::{Amount, Moment, Span};

use super::chance::Chance;
use super::clock::{MS, SECOND, Virtual};
use super::disk_guest::DiskGuest;
use super::made::{contract, disk, faults, link};
use super::moody::Moody;
use super::net_guest::{NetGuest, frame};
use super::ring::{Faults, Fickle};
use super::wire::{Cable, Inner};
use crate::DeviceId;
use crate::domain::{Domain, Parts};
use crate::seams::Seams;

/// A turn may look at the clock and call the ring so often: what batches and bursts add up to.
const CALLS_MAX: u64 = 4_000;

/// The world of tests.
pub(super) struct Unreal;

impl Seams for Unreal {
    type Machine = Virtual;
    type Ring = Fickle;
    type Storage = Moody;
    type Link = Cable;
}

pub(super) enum Kind {
    Disk(DiskGuest),
    Net(NetGuest),
}

pub(super) struct Tenant {
    pub(super) id: DeviceId,
    pub(super) kind: Kind,
    /// It breaks rules; nothing is expected of how it is served.
    pub(super) hostile: bool,
    pub(super) exported: bool,
}

/// What happened in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) packets: u64,
    pub(super) received: u64,
    pub(super) faults: u64,
    pub(super) deferred: u64,
    pub(super) attached: u64,
    /// Errands that nobody ran.
    pub(super) dropped: u64,
    /// Times in which the machine stood still and somebody saw it.
    pub(super) stalls: u64,
    /// Misses that one of them excuses.
    pub(super) excused: u64,
    pub(super) slowest_ms: u64,
    pub(super) most_calls: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.packets += other.packets;
        self.received += other.received;
        self.faults += other.faults;
        self.deferred += other.deferred;
        self.attached += other.attached;
        self.dropped += other.dropped;
        self.stalls += other.stalls;
        self.excused += other.excused;
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        self.most_calls = self.most_calls.max(other.most_calls);
    }
}

/// All of it.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) chance: Chance,
    pub(super) clock: Virtual,
    pub(super) domain: Domain<Unreal>,
    pub(super) cables: Vec<Rc<RefCell<Inner>>>,
    stalls: StallLog,
    pub(super) tenants: Vec<Tenant>,
    pub(super) next: u32,
    pub(super) faults: Faults,
    /// How many requests of a thousand a moody volume has wait.
    pub(super) defers: u64,
    /// The longest pause between two things that happen.
    pub(super) pause: Span,
    /// What clients that have gone had paid, disk by disk; `None` once a unit came back for nobody.
    pub(super) paid: Vec<Option<Amount>>,
    pub(super) tally: Tally,
}

impl World {
    /// Made by chance.
    pub(super) fn new(seed: u64) -> Self {
        Self::of(seed, false)
    }

    /// Many images on disks that take one to three units, and a ring that is full most of the time:
    /// who holds a place of a disk while he cannot go on waits beside who needs one to go on.
    pub(super) fn shallow(seed: u64) -> Self {
        Self::of(seed, true)
    }

    fn of(seed: u64, shallow: bool) -> Self {
        let mut chance = Chance::new(seed);
        let clock = Virtual::default();
        clock.pass(Span::from_secs(1));
        clock.drop_errands(chance.of(&[0, 100, 500]), chance.split());
        let mut faults = faults(&mut chance);
        if shallow {
            faults.no_slot = chance.of(&[300, 700, 900]);
        }
        let capacity = usize::try_from(chance.between(64, 300)).unwrap();
        let ring = Fickle::new(clock.clone(), chance.split(), faults, capacity);
        let (most, deepest) = if shallow { (1, 3) } else { (2, 32) };
        let disks = (0..chance.between(1, most)).map(|n| disk(n, deepest, &mut chance));
        let disks: Vec<_> = disks.collect();
        let refuses = chance.of(&[0, 0, 50]);
        let (mut links, mut cables) = (Vec::new(), Vec::new());
        for number in 0..if shallow { 0 } else { chance.below(3) } {
            let (cable, inner) = Cable::new(clock.clone(), chance.split(), refuses);
            links.push(link(number, cable, &mut chance));
            cables.push(inner);
        }
        let (_, inbox) = mailbox().unwrap();
        let stalls = StallLog::default();
        let domain = Domain::new(Parts {
            name: "proof".into(),
            machine: clock.clone(),
            ring,
            inbox,
            disks,
            links,
            poll: Span::from_nanos(chance.of(&[0, 50_000])),
            stalls: stalls.clone(),
        });
        let paid = vec![Some(Amount::ZERO); domain.disks.len()];
        let defers = if shallow { [100, 500, 900] } else { [0, 0, 100] };
        let (defers, pause) = (chance.of(&defers), chance.of(&[5_000, 100_000, 5 * MS]));
        let pause = Span::from_nanos(pause);
        let (tenants, tally) = (Vec::new(), Tally::default());
        let next = 0;
        let mut world = Self {
            seed,
            chance,
            clock,
            domain,
            cables,
            stalls,
            tenants,
            next,
            faults,
            defers,
            pause,
            paid,
            tally,
        };
        (0..world.chance.between(if shallow { 4 } else { 1 }, 6)).for_each(|_| world.attach());
        world
    }

    /// Lives for so many turns, comes to rest, and tells what happened.
    pub(super) fn run(mut self, turns: u64) -> Tally {
        for _ in 0..turns {
            let more = self.chance.below(4);
            (0..more).for_each(|_| self.act());
            self.turn();
        }
        self.come_to_rest();
        self.tally.faults = self.domain.ring.faulted;
        self.tally.dropped = self.clock.dropped();
        self.tally
    }

    pub(super) fn turn(&mut self) {
        self.clock.run_errands(false);
        self.clock.take_looks();
        let calls = self.domain.ring.calls;
        let wake = self.clock.time() + Span::from_nanos(self.chance.below(self.pause.as_nanos()));
        self.domain.ring.world_acts_at = Some(wake);
        self.domain.cycle();
        let calls = self.domain.ring.calls - calls + self.clock.take_looks();
        self.tally.most_calls = self.tally.most_calls.max(calls);
        assert!(calls <= CALLS_MAX, "a turn of {calls} calls");
        assert_eq!(self.domain.idle_picks, 0, "a client without work was picked");
        self.tally.deferred += self.domain.jobs.deferred();
        let forever = self.domain.ring.sleeps_for_ever;
        assert!(
            !forever || self.domain.jobs.deferred() == 0,
            "a job waits for who does not come: {:?}",
            self.domain.jobs
        );
        let now = self.clock.time();
        for tenant in self.tenants.iter_mut().filter(|tenant| !tenant.hostile) {
            match &mut tenant.kind {
                Kind::Disk(disk) => disk.look(now),
                Kind::Net(net) => net.look(),
            }
        }
    }

    /// Something happens.
    fn act(&mut self) {
        let now = self.clock.time();
        match self.chance.below(1000) {
            0..900 => self.ask(now),
            900..949 => self.bring(),
            949..950 => (0..self.chance.between(100, 400)).for_each(|_| self.bring()),
            950..960 => self.stop_queue(),
            960..965 => self.change(now),
            965..967 if self.tenants.len() < 8 => self.attach(),
            967..969 => self.detach(now),
            969..975 => self.misbehave(),
            975..978 => self.replace_peer(now),
            978..980 => self.stand_still(),
            980..985 => drop(self.domain.snapshot(now)),
            985..990 => {
                if let Some(cable) = self.cable() {
                    let mut cable = cable.borrow_mut();
                    cable.down = !cable.down;
                }
            }
            _ => self.clock.pass(Span::from_nanos(self.chance.below(50_000))),
        }
    }

    pub(super) fn tenant(&mut self) -> Option<&mut Tenant> {
        let count = self.tenants.len() as u64;
        let place = usize::try_from(self.chance.below(count.max(1))).unwrap();
        self.tenants.get_mut(place)
    }

    /// One of the links' far ends.
    fn cable(&mut self) -> Option<Rc<RefCell<Inner>>> {
        let count = self.cables.len() as u64;
        let place = usize::try_from(self.chance.below(count.max(1))).unwrap();
        self.cables.get(place).map(Rc::clone)
    }

    /// The machine stands still. Mostly somebody sees it.
    fn stand_still(&mut self) {
        let long = self.chance.of(&[300_000, 20 * MS, 2 * SECOND]);
        let begin = self.clock.time();
        self.clock.pass(Span::from_nanos(long));
        if self.chance.permille(700) {
            self.stalls.note(Stall { begin, end: self.clock.time() });
            self.tally.stalls += 1;
        }
    }

    fn ask(&mut self, now: Moment) {
        let mut chance = self.chance.split();
        let Some(tenant) = self.tenant() else { return };
        match &mut tenant.kind {
            Kind::Disk(disk) => drop(disk.ask(&mut chance, now)),
            Kind::Net(net) => drop(net.act(&mut chance)),
        }
    }

    /// A packet comes in on a link, for somebody, for all, for nobody, or no packet at all.
    fn bring(&mut self) {
        let macs = self.tenants.iter().filter_map(|tenant| match &tenant.kind {
            Kind::Net(net) => Some(net.mac),
            Kind::Disk(_) => None,
        });
        let macs: Vec<_> = macs.chain([[0xff; 6], [0x52, 9, 9, 9, 9, 9]]).collect();
        let Some(cable) = self.cable() else { return };
        let mut packet = vec![0; 12];
        packet.extend(frame(self.chance.of(&macs), [2; 6], &mut self.chance));
        if self.chance.permille(50) {
            packet.truncate(usize::try_from(self.chance.below(20)).unwrap());
        }
        cable.borrow_mut().bring(packet);
    }

    fn stop_queue(&mut self) {
        let mut chance = self.chance.split();
        let Some(tenant) = self.tenant().filter(|tenant| !tenant.hostile) else { return };
        let guest = match &mut tenant.kind {
            Kind::Disk(disk) => &mut disk.guest,
            Kind::Net(net) => &mut net.guest,
        };
        // One at a time, as VMMs do: the next message is read when this one was answered.
        if !guest.queues.iter().any(|queue| queue.stopping) {
            guest.stop(usize::try_from(chance.below(guest.queues.len() as u64)).unwrap());
        }
    }

    fn change(&mut self, now: Moment) {
        let contract = contract(&mut self.chance);
        let Some(id) = self.tenant().map(|tenant| tenant.id) else { return };
        self.domain.change(id, contract, now).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, .. } = self;
            eprintln!("this is the world of seed {seed}: MOIRAI_IO_SEED={seed} makes it again");
            eprintln!("(MOIRAI_IO_SHALLOW={seed} if it is a shallow one)");
        }
    }
}
