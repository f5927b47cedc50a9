//! Who comes into a world, misbehaves there, and goes.

use std::fs::File;
use std::os::unix::net::UnixStream;

use moirai_devices::backend::Volume;
use moirai_devices::mock::Guest;
use moirai_scheduler::{Account, Moment};
use rustix::fs::{MemfdFlags, memfd_create};

use super::chance::Chance;
use super::disk_guest::{DiskGuest, disk_bytes};
use super::made::contract;
use super::moody::Moody;
use super::net_guest::NetGuest;
use super::world::{Kind, Tenant, World};
use crate::device::{Body, Place};
use crate::{BlkSpec, DeviceId, NetSpec, Peer, Sources};

/// Queues of a disk.
const QUEUES: u16 = 2;

impl World {
    pub(super) fn attach(&mut self) {
        let id = DeviceId(self.next);
        self.next += 1;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let on_link = !self.cables.is_empty() && self.chance.permille(500);
        let kind = if on_link {
            self.attach_card(id, ours, theirs)
        } else {
            self.attach_disk(id, ours, theirs)
        };
        let hostile = self.chance.permille(100);
        self.tenants.push(Tenant { id, kind, hostile, exported: false });
        self.tally.attached += 1;
    }

    fn attach_disk(&mut self, id: DeviceId, socket: UnixStream, theirs: UnixStream) -> Kind {
        let place = self.chance.below(self.domain.disks.len() as u64);
        let volume = Moody::new(volume(&mut self.chance), self.chance.split(), self.defers);
        let bandwidth = self.chance.permille(300).then_some(100_000_000);
        let spec = BlkSpec {
            tenant: format!("t{}", id.0),
            disk: format!("d{place}"),
            volume,
            queues: QUEUES,
            contract: contract(&mut self.chance),
            bandwidth,
            memory: 1 << 30,
            socket,
        };
        self.domain.attach_blk(id, spec, self.clock.time()).unwrap();
        let errors = self.faults.error > 0;
        Kind::Disk(DiskGuest::boot(theirs, QUEUES, true, errors, &mut self.chance))
    }

    fn attach_card(&mut self, id: DeviceId, socket: UnixStream, theirs: UnixStream) -> Kind {
        let [_, .., high, low] = id.0.to_be_bytes();
        let mac = [0x52, 0, 0, 1, high, low];
        let place = self.chance.below(self.cables.len() as u64);
        // What was let through before somebody declared its address still goes out.
        let waiting = self.domain.devices.iter().any(|device| device.queued() > 0);
        let declares = self.chance.permille(500) && !waiting;
        let declared = if declares { vec![[10, 0, high, low].into()] } else { Vec::new() };
        if declares {
            let cable = &self.cables[usize::try_from(place).unwrap()];
            cable.borrow_mut().declared.insert([high, low]);
        }
        let spec = NetSpec {
            tenant: format!("t{}", id.0),
            link: format!("l{place}"),
            mac,
            pairs: 1,
            sources: Sources::Own(declared),
            receive: 100,
            memory: 1 << 30,
            contract: contract(&mut self.chance),
            socket,
        };
        self.domain.attach_net(id, spec, self.clock.time()).unwrap();
        Kind::Net(NetGuest::boot(theirs, mac, &mut self.chance))
    }

    pub(super) fn detach(&mut self, now: Moment) {
        if self.tenants.len() < 2 {
            return;
        }
        let place = usize::try_from(self.chance.below(self.tenants.len() as u64)).unwrap();
        let tenant = self.tenants.swap_remove(place);
        let device = self.domain.devices.get(tenant.id).unwrap();
        let (place, _) = device.place();
        self.tally.excused += device.record.excused();
        let inside = matches!(&device.body, Body::Blk(blk) if blk.in_flight > 0);
        if let Kind::Net(net) = &tenant.kind {
            let [.., high, low] = net.mac;
            for cable in &self.cables {
                cable.borrow_mut().declared.remove(&[high, low]);
            }
        }
        let Account { guaranteed, extra, .. } = self.domain.detach(tenant.id, now).unwrap();
        if let Place::Disk(place) = place {
            let paid = &mut self.paid[place];
            // What of it is still inside will be nobody's.
            *paid = paid.filter(|_| !inside).map(|paid| paid + guaranteed + extra);
        }
        self.tally_up(tenant.kind);
    }

    /// Counts what a tenant has had.
    pub(super) fn tally_up(&mut self, kind: Kind) {
        match kind {
            Kind::Disk(disk) => {
                self.tally.requests += disk.answered;
                let slowest = disk.slowest.as_millis();
                self.tally.slowest_ms = self.tally.slowest_ms.max(slowest);
            }
            Kind::Net(net) => {
                self.tally.packets += net.answered;
                self.tally.received += net.received;
            }
        }
    }

    /// Somebody breaks a rule.
    pub(super) fn misbehave(&mut self) {
        let mut chance = self.chance.split();
        let Some(tenant) = self.tenant().filter(|tenant| tenant.hostile) else { return };
        let guest = match &mut tenant.kind {
            Kind::Disk(disk) => &mut disk.guest,
            Kind::Net(net) => &mut net.guest,
        };
        break_a_rule(guest, &mut chance);
    }

    /// Another VMM connects to the same device, as they do to exports; the last one's requests may
    /// be under way.
    pub(super) fn replace_peer(&mut self, now: Moment) {
        let mut chance = self.chance.split();
        let errors = self.faults.error > 0;
        let (socket, theirs) = UnixStream::pair().unwrap();
        let Some(tenant) = self.tenant() else { return };
        let id = tenant.id;
        tenant.exported = true;
        tenant.hostile = false;
        let new = match &tenant.kind {
            Kind::Disk(_) => {
                Kind::Disk(DiskGuest::boot(theirs, QUEUES, false, errors, &mut chance))
            }
            Kind::Net(net) => Kind::Net(NetGuest::boot(theirs, net.mac, &mut chance)),
        };
        let old = std::mem::replace(&mut tenant.kind, new);
        let peer = Peer { socket, unsealed_memory: false };
        self.domain.connect(id, peer, now).unwrap();
        self.tally_up(old);
    }
}

/// A raw volume or a stripe set, in memory.
fn volume(chance: &mut Chance) -> Volume {
    let bytes = disk_bytes(QUEUES);
    let file = |bytes| {
        let file = File::from(memfd_create("volume", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(bytes).unwrap();
        file
    };
    if chance.permille(600) {
        return Volume::from_file(file(bytes), "volume".into(), false).unwrap();
    }
    use std::os::fd::AsRawFd as _;
    let files = [file(bytes / 2), file(bytes / 2)];
    let paths = files.each_ref().map(|it| format!("/proc/self/fd/{}", it.as_raw_fd()).into());
    Volume::open_striped(&paths, 8192, false).unwrap()
}

/// What no driver does.
fn break_a_rule(guest: &mut Guest, chance: &mut Chance) {
    let number = usize::try_from(chance.below(guest.queues.len() as u64)).unwrap();
    match chance.below(6) {
        0 => {
            let bytes: Vec<u8> = (0..chance.between(1, 40)).map(|_| 0xa5).collect();
            guest.say(&bytes);
        }
        1 => guest.stop(number),
        // Heads beyond the table, and the same one again and again.
        2 => guest.queues[number].driver.make_available(9_999),
        3 => (0..200).for_each(|_| guest.queues[number].driver.make_available(0)),
        4 => {
            let chain = [moirai_devices::mock::writable(u64::MAX - 8, u32::MAX)];
            guest.post(number, 0, &chain);
        }
        _ => (0..chance.between(1, 50)).for_each(|_| guest.kick(number)),
    }
    guest.kick(number);
}
