//! The thread that serves the devices: waits for kicks, sockets and commands, and gives every
//! device with work its turn.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;

use super::backend::Command;
use super::model::{Source, Watcher};
use super::served::Served;
use crate::event;

/// Events that are taken at a time.
const EVENTS: usize = 64;

/// The state of the thread.
#[derive(Debug)]
pub(super) struct Server {
    epoll: OwnedFd,
    devices: Vec<Served>,
    commands: Receiver<Command>,
    wake: Arc<EventFd>,
}

impl Server {
    /// Watches everything there is to watch.
    pub(super) fn new(
        devices: Vec<Served>,
        commands: Receiver<Command>,
        wake: Arc<EventFd>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let watch = |event: &EventFd, source: Source| {
            let data = EventData::new_u64(source.pack());
            epoll::add(&epoll, event::borrow(event), data, EventFlags::IN)
        };
        watch(&wake, Source::Wake)?;
        for (index, device) in devices.iter().enumerate() {
            for (queue, kick) in device.events.kicks.iter().enumerate() {
                watch(kick, Source::Kick { device: index, queue })?;
            }
            device.model.watch(&Watcher { epoll: epoll.as_fd(), device: index })?;
        }
        Ok(Self { epoll, devices, commands, wake })
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut busy = vec![false; self.devices.len()];
        let mut events = [MaybeUninit::<Event>::uninit(); EVENTS];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            let wait = if busy.contains(&true) { Some(&now) } else { None };
            let ready = match epoll::wait(&self.epoll, &mut events, wait) {
                Ok((ready, _)) => &*ready,
                Err(Errno::INTR) => &[],
                Err(errno) => return Err(errno.into()),
            };
            for event in ready {
                let flags = event.flags;
                self.handle(Source::unpack(event.data.u64()), flags, &mut busy);
            }
            for (busy, device) in busy.iter_mut().zip(&mut self.devices) {
                *busy = *busy && device.serve();
            }
        }
    }

    fn handle(&mut self, source: Source, flags: EventFlags, busy: &mut [bool]) {
        let touched = match source {
            Source::Wake => {
                // Emptied before the commands are taken: what comes later wakes again.
                let _ = self.wake.read();
                while let Ok(command) = self.commands.try_recv() {
                    let device = self.obey(command);
                    mark(busy, device);
                }
                return;
            }
            Source::Kick { device, queue } => {
                let kick = self.devices.get(device).and_then(|it| it.events.kicks.get(queue));
                if let Some(kick) = kick {
                    let _ = kick.read();
                }
                device
            }
            Source::Changed { device, id } => {
                let watcher = Watcher { epoll: self.epoll.as_fd(), device };
                if let Some(served) = self.devices.get_mut(device) {
                    let gone = EventFlags::HUP | EventFlags::ERR;
                    served.changed(id, flags.intersects(gone), &watcher);
                }
                device
            }
        };
        mark(busy, touched);
    }

    /// Returns the device that the command was for.
    fn obey(&mut self, command: Command) -> usize {
        match command {
            Command::Start { device, features, rings, done } => {
                let missing = || Err(io::Error::other("no such device"));
                let served = self.devices.get_mut(device);
                let outcome = served.map_or_else(missing, |it| it.start(features, &rings));
                // Whoever has asked may have lost patience.
                let _ = done.send(outcome);
                device
            }
            Command::Stop { device, done } => {
                if let Some(served) = self.devices.get_mut(device) {
                    served.stop();
                }
                let _ = done.send(Ok(()));
                device
            }
            Command::Tell { device, note } => {
                if let Some(served) = self.devices.get_mut(device) {
                    served.tell(note);
                }
                device
            }
        }
    }
}

fn mark(busy: &mut [bool], device: usize) {
    if let Some(busy) = busy.get_mut(device) {
        *busy = true;
    }
}
