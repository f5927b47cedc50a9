//! What the rest of the host service asks of the loop: attach, change, detach, snapshot.

use std::collections::BTreeMap;

use moirai_devices::backend::{Link as _, Storage as _};
use moirai_devices::blk;
use moirai_devices::net::MacAddr;
use moirai_devices::net::{self, Card};
use moirai_devices::vhost::Session;
use moirai_scheduler::{Account, ClientId, Contract, Nanos, Policy};

use super::audit::{account, resource};
use super::background::background;
use super::backlog::Backlog;
use super::device::{Blk, Body, Device, Net};
use super::disk::admit;
use super::event_loop::EventLoop;
use super::handle::Command;
use super::{
    BlkSpec, DeviceId, DeviceSnapshot, DiskSnapshot, DomainSnapshot, IoDomainError, LinkSnapshot,
    NetSpec,
};
use moirai_runtime::own_cpu_time;

/// Largest ring a driver may use.
const BLK_QUEUE_SIZE: u16 = 256;
const NET_QUEUE_SIZE: u16 = 1024;

impl EventLoop {
    /// Takes all commands that wait.
    pub(super) fn obey(&mut self, now: Nanos) {
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
                Command::Snapshot(reply) => drop(reply.send(Ok(self.snapshot(now)))),
                Command::End => self.ended = true,
            }
        }
    }

    fn attach_blk(&mut self, id: DeviceId, spec: BlkSpec, now: Nanos) -> Result<(), IoDomainError> {
        let unknown = || IoDomainError::UnknownResource { kind: "disk", name: spec.disk.clone() };
        let place = self.disks.iter().position(|disk| disk.name == spec.disk);
        let place = place.ok_or_else(unknown)?;
        let disk = spec.volume.disk(spec.queues, BLK_QUEUE_SIZE);
        let session = session(spec.socket, disk.profile())?;
        if let Some(disk) = self.disks.get_mut(place) {
            admit(disk.policy(), id, spec.contract, now).map_err(IoDomainError::Policy)?;
        }
        let frontends = (0..spec.queues).map(|_| blk::Frontend::new(disk.clone())).collect();
        let body = Body::Blk(Blk {
            disk: place,
            volume: spec.volume,
            bandwidth: spec.bandwidth,
            frontends,
            waiting: std::collections::VecDeque::new(),
            unfinished: std::collections::VecDeque::new(),
            in_flight: 0,
        });
        let queues = usize::from(spec.queues);
        self.enlist(Device::new(id, spec.tenant, spec.contract, session, body, queues));
        Ok(())
    }

    fn attach_net(&mut self, id: DeviceId, spec: NetSpec, now: Nanos) -> Result<(), IoDomainError> {
        let unknown = || IoDomainError::UnknownResource { kind: "link", name: spec.link.clone() };
        let place = self.links.iter().position(|link| link.name == spec.link);
        let place = place.ok_or_else(unknown)?;
        let Some(link) = self.links.get_mut(place) else { return Err(unknown()) };
        let mac = MacAddr(spec.mac);
        if link.owner(mac).is_some() {
            return Err(IoDomainError::MacInUse { mac: spec.mac });
        }
        let (mtu, pairs, offload) = (link.mtu, spec.pairs, link.tap().offload());
        let nic = net::Nic { mac, mtu, queue_size: NET_QUEUE_SIZE, pairs, offload };
        let queues = usize::from(nic.queues());
        let session = session(spec.socket, nic.profile())?;
        admit(link.policy(), id, spec.contract, now).map_err(IoDomainError::Policy)?;
        link.enlist(mac, id);
        let body =
            Body::Net(Net { link: place, card: Card::new(nic), waiting: Backlog::new(spec.pairs) });
        self.enlist(Device::new(id, spec.tenant, spec.contract, session, body, queues));
        Ok(())
    }

    fn enlist(&mut self, device: Device) {
        let id = device.id;
        self.devices.insert(id, device);
        self.count_promised();
        self.watch_session(id);
    }

    fn change(
        &mut self,
        id: DeviceId,
        contract: Contract,
        now: Nanos,
    ) -> Result<(), IoDomainError> {
        let client = ClientId(id.0);
        self.policy_of(id)?.change(client, contract, now).map_err(IoDomainError::Policy)?;
        if let Some(device) = self.devices.get_mut(&id) {
            device.contract = contract;
        }
        self.count_promised();
        Ok(())
    }

    fn detach(&mut self, id: DeviceId, now: Nanos) -> Result<Account, IoDomainError> {
        let account =
            self.policy_of(id)?.remove(ClientId(id.0), now).map_err(IoDomainError::Policy)?;
        self.unwatch(id);
        self.abandon_unfinished(id, now);
        let device = self.devices.remove(&id);
        self.count_promised();
        if let Some(device) = device {
            if let Body::Net(net) = &device.body
                && let Some(link) = self.links.get_mut(net.link)
            {
                link.strike(id);
            }
            // Unmapping a guest's memory takes milliseconds; this thread has packets to send.
            background("unmap", self.core, move || drop(device));
        }
        Ok(account)
    }

    /// Tells the disks how many contracts promise something.
    fn count_promised(&mut self) {
        for (place, disk) in self.disks.iter_mut().enumerate() {
            let here = self.devices.values().filter(|it| resource(&it.body) == (true, place));
            disk.set_promised(here.filter(|device| device.contract.slice() > 0).count());
        }
    }

    fn policy_of(&mut self, id: DeviceId) -> Result<&mut dyn Policy, IoDomainError> {
        let device = self.devices.get(&id).ok_or(IoDomainError::UnknownDevice(id))?;
        let policy = match &device.body {
            Body::Blk(blk) => self.disks.get_mut(blk.disk).map(|disk| disk.policy()),
            Body::Net(net) => self.links.get_mut(net.link).map(|link| link.policy()),
        };
        policy.ok_or(IoDomainError::UnknownDevice(id))
    }

    fn snapshot(&mut self, now: Nanos) -> DomainSnapshot {
        self.audited_at = self.audited_at.min(now.saturating_sub(super::audit::INTERVAL));
        self.disks.iter_mut().for_each(|disk| disk.policy().judge(now));
        self.links.iter_mut().for_each(|link| link.policy().judge(now));
        self.audit(now);
        let verdicts: BTreeMap<_, _> = self.verdicts(now).into_iter().collect();
        let disks = self.disks.iter_mut().map(|disk| {
            let kinds = disk.gauge.report(now);
            DiskSnapshot {
                name: disk.name.clone(),
                busy_ns: disk.busy(),
                in_flight: disk.in_flight(),
                max_unit_ns: disk.gauge.declared(),
                measured_unit_ns: kinds.iter().map(|kind| kind.measured_ns).max().unwrap_or(0),
                kinds,
            }
        });
        let disks = disks.collect();
        let links = self.links.iter().map(|link| LinkSnapshot {
            name: link.name.clone(),
            busy_ns: link.busy(),
            sent: link.sent,
            unclaimed: link.unclaimed,
            refused: link.refused,
        });
        DomainSnapshot {
            group: self.name.clone(),
            cpu_ns: own_cpu_time(),
            polled_ns: self.polled_ns,
            sleeps: self.sleeps,
            disks,
            links: links.collect(),
            devices: self
                .devices
                .values()
                .map(|device| DeviceSnapshot {
                    not_kept: verdicts.get(&device.id).cloned(),
                    ..self.device_snapshot(device)
                })
                .collect(),
        }
    }

    fn device_snapshot(&self, device: &Device) -> DeviceSnapshot {
        let account = account(&self.disks, &self.links, device);
        let (kind, resource, in_flight, counters, direct_io) = match &device.body {
            Body::Blk(blk) => {
                let mut counters = blk.volume.counters();
                blk.frontends.iter().for_each(|frontend| counters.add(&frontend.counters));
                let disk = self.disks.get(blk.disk);
                let name = disk.map(|disk| disk.name.clone()).unwrap_or_default();
                ("disk", name, blk.in_flight, counters, Some(blk.volume.is_direct()))
            }
            Body::Net(net) => {
                let counters = net.card.counters();
                let link = self.links.get(net.link);
                let name = link.map(|link| link.name.clone()).unwrap_or_default();
                ("link", name, 0, counters, None)
            }
        };
        DeviceSnapshot {
            id: device.id.0,
            tenant: device.tenant.clone(),
            kind,
            resource,
            guaranteed_ns: account.guaranteed,
            extra_ns: account.extra,
            misses: account.misses.saturating_sub(device.record.excused()),
            misses_in_stall: device.record.excused(),
            excused: device.record.excuses(),
            stall_loss_ns: account.stall_loss,
            queued: device.queued(),
            queued_max: device.usage.queued_max,
            in_flight,
            completed: device.usage.completed,
            bytes: device.usage.bytes,
            latency_max_ns: device.usage.latency_max,
            io_cpu_ns: device.usage.io_cpu,
            direct_bytes: counters.direct_bytes,
            copied_by_us_bytes: counters.copied_by_us_bytes,
            copied_by_kernel_bytes: counters.copied_by_kernel_bytes,
            read_modify_writes: counters.read_modify_writes,
            errors: counters.io_errors + counters.refused + counters.unanswerable,
            dropped_tx: counters.dropped_tx,
            dropped_rx: counters.dropped_rx,
            received: device.usage.received,
            direct_io,
            failed: device.failed.clone(),
            not_kept: None,
        }
    }
}

fn session(
    socket: std::os::unix::net::UnixStream,
    profile: moirai_devices::vhost::DeviceProfile,
) -> Result<Session, IoDomainError> {
    Session::new(socket, profile)
        .map_err(|error| IoDomainError::Setup(std::io::Error::other(error)))
}
