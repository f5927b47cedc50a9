//! The main loop of a tenant process: the control socket, the console, the backends of the devices,
//! and the end of the machine.
//!
//! It never waits for a lock that a vCPU takes, because a vCPU can stand at its gate while it holds
//! the lock. It tries again at its next tick.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::console::{self, Input, SETTLE_MS, SerialPort};
use crate::error::TenantError;
use crate::event;
use crate::virtio::Device;
use crate::vm::Vm;
use moirai_launch::{BalloonReport, ChannelError, ExitReason, FromHost, TenantChannel, ToHost};

/// What the loop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    MachineEnd,
    Control,
    ConsoleOutput,
    ConsoleInput,
    /// The connection to a device's backend; only its end is of interest.
    Backend(usize),
    /// A backend has found a queue broken.
    BrokenQueue(usize),
}

/// The state of the loop.
pub(crate) struct Supervisor<'a> {
    vm: &'a Vm,
    control: &'a TenantChannel,
    input: Input,
    /// Console output waits for a tick.
    settling: bool,
    /// A device could not be told of its failure yet.
    device_busy: bool,
    /// Devices whose backend is gone and who know it.
    gone: Vec<usize>,
}

impl<'a> Supervisor<'a> {
    pub(crate) fn new(vm: &'a Vm, control: &'a TenantChannel) -> Self {
        let (input, gone) = (Input::Moved, Vec::new());
        Self { vm, control, input, settling: false, device_busy: false, gone }
    }

    /// Serves until the machine has ended or the host wants it to.
    pub(crate) fn run(mut self) -> Result<ExitReason, TenantError> {
        loop {
            let sources = self.sources();
            let mut fds: Vec<PollFd<'_>> = sources
                .iter()
                .map(|&(source, fd)| PollFd::from_borrowed_fd(fd, events(source)))
                .collect();
            let tick = Timespec { tv_sec: 0, tv_nsec: SETTLE_MS * 1_000_000 };
            let late = self.settling || self.device_busy || self.input == Input::Full;
            match poll(&mut fds, late.then_some(&tick)) {
                Ok(0) => self.tick(),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for ((source, _), _) in sources.into_iter().zip(ready).filter(|(_, ready)| *ready) {
                if let Some(reason) = self.handle(source)? {
                    return Ok(reason);
                }
            }
        }
    }

    /// What to wait for now.
    fn sources(&self) -> Vec<(Source, BorrowedFd<'a>)> {
        let vm = self.vm;
        let mut sources = vec![
            (Source::MachineEnd, event::borrow(&vm.end_event)),
            (Source::Control, self.control.as_fd()),
            (Source::ConsoleOutput, event::borrow(&vm.console_wake)),
        ];
        if self.input == Input::Moved {
            sources.push((Source::ConsoleInput, vm.console.as_fd()));
        }
        let devices = vm.machine.devices().iter().enumerate();
        for (index, device) in devices.filter(|_| !self.device_busy) {
            sources.push((Source::BrokenQueue(index), device.broken()));
            if let Some(backend) = device.connection().filter(|_| !self.gone.contains(&index)) {
                sources.push((Source::Backend(index), backend));
            }
        }
        sources
    }

    fn handle(&mut self, source: Source) -> Result<Option<ExitReason>, TenantError> {
        match source {
            Source::MachineEnd => return Ok(self.vm.machine.ended().cloned()),
            Source::Control => return self.command(),
            Source::ConsoleOutput => {
                // Only clears the event.
                let _ = self.vm.console_wake.read();
                self.settling = true;
            }
            Source::ConsoleInput => self.receive_input(),
            Source::Backend(index) => {
                if self.tell(index, Device::backend_gone) {
                    self.gone.push(index);
                }
            }
            Source::BrokenQueue(index) => {
                self.tell(index, Device::queue_broken);
            }
        }
        Ok(None)
    }

    /// One message of the host. A host that is gone has no use for a VM.
    fn command(&self) -> Result<Option<ExitReason>, TenantError> {
        match self.control.receive() {
            Ok((FromHost::Stop, _)) if self.vm.press_power_button() => Ok(None),
            Ok((FromHost::Stop | FromHost::Kill, _)) => Ok(Some(ExitReason::Stopped)),
            Ok((FromHost::Reset, _)) => Ok(Some(ExitReason::Reset)),
            Ok((FromHost::Balloon { bytes }, _)) => {
                self.control.send(&ToHost::Balloon(self.balloon(bytes)), &[])?;
                Ok(None)
            }
            // The VM runs already.
            Ok((FromHost::Launch(_), _)) => Ok(None),
            Err(ChannelError::Malformed(error)) => {
                eprintln!("moirai-tenant: a message of the host cannot be understood: {error}");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sets the target of the balloon, if there is one of each, and says how things are.
    fn balloon(&self, target: Option<u64>) -> BalloonReport {
        let Some(balloon) = &self.vm.balloon else { return BalloonReport::default() };
        if let Some(bytes) = target {
            balloon.set_target(bytes);
        }
        let stats = balloon.stats();
        BalloonReport {
            actual_bytes: balloon.actual_bytes(),
            total_bytes: stats.total_bytes,
            free_bytes: stats.free_bytes,
            available_bytes: stats.available_bytes,
        }
    }

    fn tick(&mut self) {
        self.device_busy = false;
        if self.settling {
            let settle = |serial: &mut SerialPort| serial.writer_mut().settle();
            self.settling = self.vm.machine.try_serial(settle).unwrap_or(true);
        }
        if self.input == Input::Full {
            self.receive_input();
        }
    }

    fn receive_input(&mut self) {
        let receive = |serial: &mut SerialPort| console::receive(&self.vm.console, serial);
        self.input = self.vm.machine.try_serial(receive).unwrap_or(Input::Full);
    }

    fn tell(&mut self, index: usize, what: fn(&Device) -> bool) -> bool {
        let told = self.vm.machine.devices().get(index).is_none_or(what);
        self.device_busy |= !told;
        told
    }
}

fn events(source: Source) -> PollFlags {
    match source {
        Source::Backend(_) => PollFlags::empty(),
        _ => PollFlags::IN,
    }
}
