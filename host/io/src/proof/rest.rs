//! How a world comes to rest: nobody asks for anything more, nothing goes wrong any more, and all
//! that was asked for is answered and paid for.

use super::disk_guest::DiskGuest;
use super::net_guest::NetGuest;
use super::ring::Faults;
use super::world::{Kind, Tenant, World};
use crate::device::{Device, Place};
use moirai_scheduler::{Amount, Span};

/// Turns in which a world has to come to rest after everybody has stopped asking.
const REST: u64 = 300_000;
/// Operations that take long, out of slices that are short, leave debts; they are paid within this.
const PATIENCE: Span = Span::from_secs(3_600);

impl World {
    pub(super) fn come_to_rest(&mut self) {
        self.domain.ring.faults = Faults::default();
        self.clock.drop_errands(0, self.chance.split());
        self.cables.iter().for_each(|cable| cable.borrow_mut().down = false);
        self.pause = Span::ONE;
        let end = self.clock.time() + PATIENCE;
        let mut turns = 0;
        while !self.is_at_rest() {
            turns += 1;
            assert!(turns < REST && self.clock.time() < end, "not at rest: {}", self.who_waits());
            let asleep = self.domain.ring.sleeps_for_ever;
            self.clock.run_errands(true);
            self.turn();
            let still = asleep && self.domain.ring.sleeps_for_ever;
            assert!(!still || self.is_at_rest(), "the loop sleeps for ever: {}", self.who_waits());
            // Nobody acts: the loop sleeps as long as it wants to.
            self.pause = Span::from_secs(1);
        }
        self.check_charges();
        self.check_cables();
        self.check_excuses();
        for tenant in std::mem::take(&mut self.tenants) {
            self.tally_up(tenant.kind);
        }
    }

    fn is_at_rest(&self) -> bool {
        let idle = self.domain.jobs.len() == 0 && self.domain.ring.in_flight() == 0;
        let honest = self.tenants.iter().filter(|tenant| !tenant.hostile);
        idle && honest.map(|tenant| &tenant.kind).all(|kind| match kind {
            Kind::Disk(disk) => {
                disk.guest.has_all() && !disk.guest.queues.iter().any(|it| it.stopping)
            }
            Kind::Net(net) => net.has_all() && !net.guest.queues.iter().any(|it| it.stopping),
        })
    }

    /// For who looks for a fault.
    fn who_waits(&self) -> String {
        let now = self.clock.time();
        let disks: Vec<_> = self.domain.disks.iter().map(|it| it.timeout(now)).collect();
        let links: Vec<_> = self.domain.links.iter().map(|it| it.timeout(now)).collect();
        let honest = self.tenants.iter().filter(|tenant| !tenant.hostile);
        let tenants: Vec<_> = honest.map(|tenant| self.stands(tenant)).collect();
        let jobs = &self.domain.jobs;
        format!("at {now}: {jobs:?}, disks until {disks:?}, links until {links:?}, {tenants:#?}")
    }

    fn stands(&self, tenant: &Tenant) -> String {
        let (Kind::Disk(DiskGuest { guest, .. }) | Kind::Net(NetGuest { guest, .. })) =
            &tenant.kind;
        let lent = guest.queues.iter().flat_map(|queue| queue.lent).filter(|lent| *lent).count();
        let stopping = guest.queues.iter().any(|queue| queue.stopping);
        let device = self.domain.devices.get(tenant.id);
        let state = device.map(|device| match device.place() {
            (Place::Disk(at), client) => self.domain.disks[at].schedule.describe(client),
            (Place::Link(at), client) => self.domain.links[at].known().describe(client),
        });
        let (queued, failed) = (device.map(Device::queued), device.and_then(Device::failed));
        let id = tenant.id;
        let queues = (device.map(Device::describe), guest.describe());
        format!(
            "{id:?}: {queues:?} {lent} lent, stopping {stopping}, {queued:?} queued, {failed:?}, \
             {state:?}"
        )
    }

    /// What clients have paid is the time in which their disk was busy.
    fn check_charges(&self) {
        for (place, (disk, gone)) in self.domain.disks.iter().zip(&self.paid).enumerate() {
            let Some(gone) = gone else { continue };
            let here = self.domain.devices.iter().filter_map(|device| match device.place() {
                (Place::Disk(at), client) if at == place => Some(disk.schedule.account(client)),
                _ => None,
            });
            let paid: Amount = here.map(|account| account.guaranteed + account.extra).sum();
            assert_eq!(
                paid + *gone,
                disk.busy().service(),
                "of {}, {} units inside",
                disk.name,
                disk.in_flight()
            );
        }
    }

    /// Only a miss is excused, and only where the machine was seen to stand still.
    fn check_excuses(&mut self) {
        for device in self.domain.devices.iter() {
            let excused = device.record.excused();
            let misses = match device.place() {
                (Place::Disk(at), client) => self.domain.disks[at].schedule.account(client).misses,
                (Place::Link(at), client) => self.domain.links[at].known().account(client).misses,
            };
            assert!(excused <= misses, "{excused} of {misses} misses of {:?}", device.id);
            self.tally.excused += excused;
        }
        let seen = self.tally.stalls > 0 || self.domain.outages.has_hiccups();
        assert!(
            self.tally.excused == 0 || seen,
            "{} misses excused by nothing",
            self.tally.excused
        );
    }

    /// What a link says that it has sent is what its far end has carried.
    fn check_cables(&self) {
        for (link, cable) in self.domain.links.iter().zip(&self.cables) {
            let cable = cable.borrow();
            assert_eq!((link.sent, link.refused), (cable.carried, cable.refused), "{}", link.name);
        }
    }
}
