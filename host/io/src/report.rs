//! What a domain says of itself when it is asked.

use std::collections::BTreeMap;

use moirai_devices::backend::Storage;
use moirai_devices::counters::Counters;
use moirai_scheduler::{Account, Moment};

use crate::device::{Body, Device, Place, Usage};
use crate::disk::Disk;
use crate::domain::Domain;
use crate::seams::{Machine as _, Seams};
use crate::{DeviceSnapshot, DiskSnapshot, DomainSnapshot, LinkSnapshot};

impl<S: Seams> Domain<S> {
    pub(crate) fn snapshot(&mut self, now: Moment) -> DomainSnapshot {
        self.outages.hurry(now);
        self.disks.iter_mut().for_each(|disk| disk.schedule.policy().judge(now));
        self.links.iter_mut().for_each(|link| link.schedule().policy().judge(now));
        self.audit(now);
        let verdicts: BTreeMap<_, _> = self.verdicts(now).into_iter().collect();
        let disks = self.disks.iter_mut().map(|disk| disk_snapshot(disk, now)).collect();
        let links = self.links.iter().map(|link| LinkSnapshot {
            name: link.name.clone(),
            busy_ns: link.busy().as_nanos(),
            sent: link.sent,
            unclaimed: link.unclaimed,
            refused: link.refused,
            policed: link.intake.policed,
            receive_cpu_ns: link.intake.cpu.as_nanos(),
        });
        let devices = self.devices.iter().map(|device| DeviceSnapshot {
            not_kept: verdicts.get(&device.id).cloned(),
            ..self.device_snapshot(device)
        });
        DomainSnapshot {
            group: self.name.clone(),
            stale: false,
            cpu_ns: self.machine.cpu_time().as_nanos(),
            polled_ns: self.rest.polled.as_nanos(),
            sleeps: self.rest.sleeps,
            disks,
            links: links.collect(),
            devices: devices.collect(),
        }
    }

    /// Without `..`: what a device counts goes on, or is named here as what does not.
    fn device_snapshot(&self, device: &Device<S::Storage>) -> DeviceSnapshot {
        let (kind, resource, account) = self.standing(device);
        let Account { guaranteed, extra, misses, stall_loss, refills: _ } = account;
        let Usage {
            completed,
            bytes,
            latency_max,
            queued_max,
            io_cpu,
            received,
            over_budget,
            receive_cpu,
        } = device.usage;
        let (in_flight, counters, direct_io) = moved(&device.body);
        let Counters {
            direct_bytes,
            copied_by_us_bytes,
            copied_by_kernel_bytes,
            read_modify_writes,
            completed: _, // The domain counts all that have ended.
            io_errors,
            refused,
            unanswerable,
            dropped_tx,
            spoofed,
            dropped_rx,
        } = counters;
        DeviceSnapshot {
            id: device.id.0,
            tenant: device.tenant.clone(),
            stale: false,
            kind,
            resource,
            guaranteed_ns: guaranteed.as_nanos(),
            extra_ns: extra.as_nanos(),
            misses: misses.saturating_sub(device.record.excused()),
            misses_in_stall: device.record.excused(),
            excused: device.record.excuses(),
            stall_loss_ns: stall_loss.as_nanos(),
            queued: device.queued(),
            queued_max,
            in_flight,
            completed,
            bytes,
            latency_max_ns: latency_max.as_nanos(),
            io_cpu_ns: io_cpu.as_nanos(),
            direct_bytes,
            copied_by_us_bytes,
            copied_by_kernel_bytes,
            read_modify_writes,
            errors: io_errors + refused + unanswerable,
            dropped_tx,
            spoofed: spoofed.into(),
            over_budget,
            receive_cpu_ns: receive_cpu.as_nanos(),
            dropped_rx,
            received,
            direct_io,
            failed: device.trouble().map(str::to_owned),
            not_kept: None,
        }
    }

    /// The kind and name of what a device is on, and its account there.
    fn standing(&self, device: &Device<S::Storage>) -> (&'static str, String, Account) {
        let (kind, found) = match device.place() {
            (Place::Disk(place), client) => {
                let disk = self.disks.get(place);
                ("disk", disk.map(|disk| (disk.name.clone(), disk.schedule.account(client))))
            }
            (Place::Link(place), client) => {
                let link = self.links.get(place);
                ("link", link.map(|link| (link.name.clone(), link.known().account(client))))
            }
        };
        let (resource, account) = found.unwrap_or_default();
        (kind, resource, account)
    }
}

fn disk_snapshot(disk: &mut Disk, now: Moment) -> DiskSnapshot {
    let kinds = disk.gauge.report(now);
    DiskSnapshot {
        name: disk.name.clone(),
        busy_ns: disk.busy().as_nanos(),
        in_flight: disk.in_flight(),
        max_unit_ns: disk.gauge.declared().as_nanos(),
        measured_unit_ns: kinds.iter().map(|kind| kind.measured_ns).max().unwrap_or(0),
        kinds,
    }
}

/// What is in the disk, how payload moved, whether around the page cache.
fn moved<St: Storage>(body: &Body<St>) -> (usize, Counters, Option<bool>) {
    match body {
        Body::Blk(blk) => {
            let mut counters = blk.volume.counters();
            blk.frontends.iter().for_each(|frontend| counters.add(&frontend.counters));
            (blk.in_flight, counters, Some(blk.volume.is_direct()))
        }
        Body::Net(net) => (0, net.card.counters(), None),
    }
}
