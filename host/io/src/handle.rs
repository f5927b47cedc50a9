//! What the rest of the host service holds of an I/O domain: a way to ask its thread.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use moirai_confine::Role;
use moirai_devices::backend::tap::Tap;
use moirai_devices::backend::uring::Uring;
use moirai_devices::vhost::prepare_notifications;
use moirai_scheduler::{Account, Contract, Span, policy};

use crate::command::{Command, Reply};
use crate::disk::Disk;
use crate::domain::{Domain, Parts};
use crate::intake::Intake;
use crate::link::Link;
use crate::neighbours::{Neighbours, link_local};
use crate::seams::{Linux, OnLinux, PRIORITY};
use crate::{BlkSpec, DeviceId, DomainSnapshot, GroupSpec, IoDomainError, NetSpec, Peer};
use moirai_runtime::{Known, Mailbox, Question, Turns, mailbox};
use moirai_runtime::{pin, set_scheduler_inherited};

/// How many devices an event loop serves at most.
const DEVICES: usize = 1024;
/// Operations in flight: polls of every socket, queue and TAP, and the disk requests.
const RING_ENTRIES: u32 = 8192;
/// A running I/O domain; ends with the value.
#[derive(Debug)]
pub struct IoDomain {
    mailbox: Mailbox<Command>,
    next_id: AtomicU32,
    core: Option<usize>,
    standing: Question<DomainSnapshot>,
    thread: Option<JoinHandle<()>>,
    /// Those that speak to image processes. At the end each has its image flushed.
    couriers: Mutex<Vec<JoinHandle<()>>>,
}

impl IoDomain {
    /// Starts the event loop of one group.
    ///
    /// # Errors
    /// If a policy is unknown, or ring, thread or priority cannot be had.
    pub fn start(spec: GroupSpec) -> Result<Self, IoDomainError> {
        let (mailbox, inbox) = mailbox().map_err(IoDomainError::Setup)?;
        let (disks, links) = resources(spec.disks, spec.links);
        let (report, started) = sync_channel(1);
        let core = spec.core;
        let thread = std::thread::Builder::new().name(format!("io-{}", spec.name)).spawn({
            move || {
                let ready = spec
                    .core
                    .map_or(Ok(()), |core| pin(0, core))
                    .and_then(|()| set_scheduler_inherited(libc::SCHED_FIFO, PRIORITY))
                    // Made by the thread that uses it: io_uring may be tied to its submitter.
                    .and_then(|()| Uring::new(RING_ENTRIES))
                    .and_then(|ring| {
                        // Opens a file, which the role forbids.
                        prepare_notifications()?;
                        Role::Io.enter().map(|()| ring)
                    });
                match ready {
                    Ok(ring) => {
                        let _ = report.send(Ok(()));
                        let turns = Some(Turns::of_this_thread(&format!("io-{}", spec.name)));
                        let machine = Linux { core, turns };
                        let (name, stalls) = (spec.name, spec.stalls);
                        let poll = Span::from_duration(spec.poll);
                        let parts =
                            Parts { name, machine, ring, inbox, disks, links, poll, stalls };
                        Domain::<OnLinux>::new(parts).run();
                    }
                    Err(error) => {
                        let _ = report.send(Err(error));
                    }
                }
            }
        });
        let thread = thread.map_err(IoDomainError::Setup)?;
        match started.recv() {
            Ok(Ok(())) => {
                let (next_id, standing) = (AtomicU32::new(0), Question::default());
                let (thread, couriers) = (Some(thread), Mutex::default());
                Ok(Self { mailbox, next_id, core, standing, thread, couriers })
            }
            Ok(Err(error)) => Err(IoDomainError::Setup(error)),
            Err(_) => Err(IoDomainError::Gone),
        }
    }

    /// Serves a virtio-blk device from now on.
    ///
    /// # Errors
    /// If the disk is unknown or full, or there is no thread for an image's worker.
    pub fn attach_blk(&self, mut spec: BlkSpec) -> Result<DeviceId, IoDomainError> {
        if let Some(worker) = spec.volume.take_worker() {
            let core = self.core;
            // It and its process are in the fair class on the loop's core: they inflate and wait,
            // and must neither hold up the loop nor take time from anybody's contract.
            let thread = std::thread::Builder::new().name("image".into()).spawn(move || {
                let process = worker.process_id().and_then(|pid| i32::try_from(pid).ok());
                for tid in process.into_iter().chain([0]) {
                    let _ = core.map(|core| pin(tid, core));
                }
                Role::Image.enter_or_say();
                worker.run();
            });
            let mut couriers = self.couriers.lock().unwrap_or_else(PoisonError::into_inner);
            couriers.retain(|courier| !courier.is_finished());
            couriers.push(thread.map_err(IoDomainError::Setup)?);
        }
        let id = self.new_id();
        self.ask(|reply| Command::AttachBlk(id, Box::new(spec), reply))?;
        Ok(id)
    }

    /// Serves a virtio-net device from now on.
    ///
    /// # Errors
    /// If the link is unknown or full, or the MAC address is in use on it.
    pub fn attach_net(&self, spec: NetSpec) -> Result<DeviceId, IoDomainError> {
        let id = self.new_id();
        self.ask(|reply| Command::AttachNet(id, Box::new(spec), reply))?;
        Ok(id)
    }

    /// Gives a device another contract from its next period on. Admission was asked before.
    ///
    /// # Errors
    /// If there is no such device.
    pub fn change(&self, id: DeviceId, contract: Contract) -> Result<(), IoDomainError> {
        self.ask(|reply| Command::Change(id, contract, reply))
    }

    /// Serves a device to another peer from now on; what the last one still has in a disk is waited
    /// for first. Contract and account stay.
    ///
    /// # Errors
    /// If there is no such device.
    pub fn connect(&self, id: DeviceId, peer: Peer) -> Result<(), IoDomainError> {
        self.ask(|reply| Command::Connect(id, peer, reply))
    }

    /// Stops serving a device and returns its last account.
    ///
    /// # Errors
    /// If there is no such device.
    pub fn detach(&self, id: DeviceId) -> Result<Account, IoDomainError> {
        self.ask(|reply| Command::Detach(id, reply))
    }

    /// Everything the domain knows, as of now, or as of the last time that it answered if it does
    /// not within `patience`; that is marked as stale then.
    ///
    /// # Errors
    /// If the thread has ended, or has never answered.
    pub fn snapshot(&self, patience: Duration) -> Result<DomainSnapshot, IoDomainError> {
        match self.mailbox.look(&self.standing, Command::Snapshot, patience) {
            Some(Known::Now(snapshot)) => Ok(snapshot),
            Some(Known::Earlier(Some(mut snapshot))) => {
                snapshot.stale = true;
                snapshot.devices.iter_mut().for_each(|device| device.stale = true);
                Ok(snapshot)
            }
            Some(Known::Earlier(None)) => Err(IoDomainError::Silent),
            None => Err(IoDomainError::Gone),
        }
    }

    fn new_id(&self) -> DeviceId {
        DeviceId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, IoDomainError> {
        self.mailbox.ask(command).ok_or(IoDomainError::Gone)?
    }
}

impl Drop for IoDomain {
    fn drop(&mut self) {
        let _ = self.mailbox.tell(Command::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // The loop has let go of their volumes. An image process ends with the host service, and
        // what a guest has written and not flushed would be lost at an orderly end, too. A process
        // that does not answer is waited for no longer than for any other task.
        let couriers = self.couriers.get_mut().unwrap_or_else(PoisonError::into_inner);
        for courier in couriers.drain(..) {
            let _ = courier.join();
        }
    }
}

fn resources(
    disks: Vec<super::DiskSpec>,
    links: Vec<super::LinkSpec>,
) -> (Vec<Disk>, Vec<Link<Tap>>) {
    let disks = disks.into_iter().map(|disk| {
        let policy = policy(disk.policy, DEVICES);
        Disk::new(disk, policy)
    });
    let all = links.len();
    let links = links.into_iter().map(|link| {
        let policy = policy(link.policy, DEVICES);
        let own = link.tap.hardware_address().map(link_local);
        let neighbours = Neighbours::new(link.reserved.into_iter().chain(own));
        let intake = Intake::new(all, link.broadcast);
        Link::new(link.name, link.rate_bps, link.mtu, policy, link.tap).with(neighbours, intake)
    });
    (disks.collect(), links.collect())
}
