//! What the rest of the host service asks of the loop: attach, change, detach, snapshot.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;

use moirai_devices::backend::Storage as _;
use moirai_devices::blk::{self, Frontend};
use moirai_devices::net::{self, Card, MacAddr, Nic};
use moirai_devices::vhost::{DeviceProfile, Session};
use moirai_scheduler::{Account, Contract, Moment};

use crate::backlog::Backlog;
use crate::blk::Blk;
use crate::command::Command;
use crate::device::{Body, Device, Place};
use crate::domain::Domain;
use crate::intake::Intake;
use crate::nic::{Guard, Net};
use crate::schedule::{Owner, Schedule};
use crate::seams::{Machine as _, Seams};
use crate::token::Token;
use crate::{BlkSpec, DeviceId, IoDomainError, NetSpec, Sources};

impl<S: Seams> Domain<S> {
    /// Takes all commands that wait.
    pub(crate) fn obey(&mut self, now: Moment) {
        while let Some(command) = self.inbox.next() {
            // Whoever asked may have stopped waiting; the answer is then nobody's.
            match command {
                Command::AttachBlk(id, spec, reply) => {
                    drop(reply.send(self.attach_blk(id, *spec, now)));
                }
                Command::AttachNet(id, spec, reply) => {
                    drop(reply.send(self.attach_net(id, *spec, now)));
                }
                Command::Change(id, contract, reply) => {
                    drop(reply.send(self.change(id, contract, now)));
                }
                Command::Connect(id, peer, reply) => {
                    drop(reply.send(self.connect(id, peer, now)));
                }
                Command::Detach(id, reply) => drop(reply.send(self.detach(id, now))),
                Command::Snapshot(reply) => drop(reply.send(self.snapshot(now))),
                Command::End => self.ended = true,
            }
        }
    }

    pub(crate) fn attach_blk(
        &mut self,
        id: DeviceId,
        spec: BlkSpec<S::Storage>,
        now: Moment,
    ) -> Result<(), IoDomainError> {
        let unknown = || IoDomainError::UnknownResource { kind: "disk", name: spec.disk.clone() };
        let place = self.disks.iter().position(|disk| disk.name == spec.disk);
        let place = place.ok_or_else(unknown)?;
        let shown = spec.volume.disk(spec.queues, blk::QUEUE_SIZE);
        let session = session(spec.socket, shown.profile(), spec.memory)?;
        let Some(disk) = self.disks.get_mut(place) else { return Err(unknown()) };
        let client = admit(&mut disk.schedule, id, spec.contract, now)?;
        let body = Body::Blk(Blk {
            disk: place,
            client,
            volume: spec.volume,
            bandwidth: spec.bandwidth,
            frontends: (0..spec.queues).map(|_| Frontend::new(shown.clone())).collect(),
            waiting: VecDeque::new(),
            unfinished: VecDeque::new(),
            in_flight: 0,
        });
        let device = Device::new(id, spec.tenant, session, body, spec.queues);
        self.enlist(device, now);
        Ok(())
    }

    pub(crate) fn attach_net(
        &mut self,
        id: DeviceId,
        spec: NetSpec,
        now: Moment,
    ) -> Result<(), IoDomainError> {
        let unknown = || IoDomainError::UnknownResource { kind: "link", name: spec.link.clone() };
        let place = self.links.iter().position(|link| link.name == spec.link);
        let place = place.ok_or_else(unknown)?;
        let Some(link) = self.links.get_mut(place) else { return Err(unknown()) };
        let mac = MacAddr(spec.mac);
        if link.owner(mac).is_some() {
            return Err(IoDomainError::MacInUse { mac: spec.mac });
        }
        let (bound, declared) = match spec.sources {
            Sources::Own(declared) => (true, declared),
            Sources::Any => (false, Vec::new()),
        };
        if let Some(address) = link.neighbours.conflict(&declared) {
            return Err(IoDomainError::AddressInUse(address));
        }
        let (mtu, pairs, offload) = (link.mtu, spec.pairs, link.offload());
        let nic = Nic { mac, mtu, queue_size: net::QUEUE_SIZE, pairs, offload };
        let queues = nic.queues();
        let session = session(spec.socket, nic.profile(), spec.memory)?;
        let client = admit(link.schedule(), id, spec.contract, now)?;
        link.enlist(mac, &declared, id);
        let waiting = Backlog::new(spec.pairs);
        let guard = bound.then(Guard::default);
        let budget = Intake::of_port(spec.receive);
        let card = Card::new(nic);
        let body = Body::Net(Net { link: place, client, card, waiting, guard, budget });
        self.enlist(Device::new(id, spec.tenant, session, body, queues), now);
        Ok(())
    }

    fn enlist(&mut self, device: Device<S::Storage>, now: Moment) {
        let id = device.id;
        self.devices.insert(device);
        self.listen(Token::Session(id), now);
    }

    pub(crate) fn change(
        &mut self,
        id: DeviceId,
        contract: Contract,
        now: Moment,
    ) -> Result<(), IoDomainError> {
        let device = self.devices.get(id).ok_or(IoDomainError::UnknownDevice(id))?;
        let (place, client) = device.place();
        let schedule = schedule_of(&mut self.disks, &mut self.links, place);
        let schedule = schedule.ok_or(IoDomainError::UnknownDevice(id))?;
        schedule.change(client, contract, now).map_err(IoDomainError::Policy)
    }

    pub(crate) fn detach(&mut self, id: DeviceId, now: Moment) -> Result<Account, IoDomainError> {
        let device = self.devices.get(id).ok_or(IoDomainError::UnknownDevice(id))?;
        let (place, client) = device.place();
        let schedule = schedule_of(&mut self.disks, &mut self.links, place);
        let schedule = schedule.ok_or(IoDomainError::UnknownDevice(id))?;
        let account = schedule.dismiss(client, now).map_err(IoDomainError::Policy)?;
        self.unwatch(id);
        self.abandon_unfinished(id, now);
        if let Some(device) = self.devices.remove(id) {
            if let Place::Link(place) = place
                && let Some(link) = self.links.get_mut(place)
            {
                link.strike(id);
            }
            // Unmapping a guest's memory takes milliseconds; this thread has packets to send.
            self.machine.send_off("unmap", Box::new(move || drop(device)));
        }
        Ok(account)
    }
}

/// Who decides about a resource.
pub(crate) fn schedule_of<'a, L>(
    disks: &'a mut [crate::disk::Disk],
    links: &'a mut [crate::link::Link<L>],
    place: Place,
) -> Option<&'a mut Schedule> {
    match place {
        Place::Disk(place) => disks.get_mut(place).map(|disk| &mut disk.schedule),
        Place::Link(place) => links.get_mut(place).map(|link| link.schedule()),
    }
}

fn admit(
    schedule: &mut Schedule,
    id: DeviceId,
    contract: Contract,
    now: Moment,
) -> Result<moirai_scheduler::ClientId, IoDomainError> {
    schedule.admit(Owner::Device(id), contract, now).map_err(IoDomainError::Policy)
}

/// A peer may hand over `memory` bytes: pages that I/O faults in are charged to this process.
fn session(
    socket: UnixStream,
    profile: DeviceProfile,
    memory: u64,
) -> Result<Session, IoDomainError> {
    Session::new(socket, DeviceProfile { max_memory_bytes: memory, ..profile })
        .map_err(|error| IoDomainError::Setup(std::io::Error::other(error)))
}
