//! The second console: virtio-console over a stream socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use moirai_devices::console::{Console as Device, RECEIVE_QUEUE, TRANSMIT_QUEUE};
use moirai_devices::fault::Fault;
use moirai_devices::stream::Stream;

use super::backend::Note;
use super::model::{Model, Queues, Watcher};

/// The device.
#[derive(Debug)]
pub(super) struct Console(Device);

impl Console {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self(Device::new(Stream::new(socket)))
    }
}

impl Model for Console {
    fn watch(&self, watcher: &Watcher<'_>) -> io::Result<()> {
        watcher.watch(self.0.stream().as_fd(), 0)
    }

    fn serve(&mut self, queues: &mut Queues) -> Result<(), Fault> {
        let console = &mut self.0;
        queues.each(TRANSMIT_QUEUE, |mem, queue| console.transmit(mem, queue))?;
        console.flush();
        queues.each(RECEIVE_QUEUE, |mem, queue| console.receive(mem, queue))
    }

    fn changed(&mut self, _: u64, _: bool, _: &Watcher<'_>) {
        self.0.socket_changed();
    }

    fn tell(&mut self, note: Note) {
        if let Note::Emergency(byte) = note {
            self.0.emergency_write(byte);
        }
    }
}
