//! vsock: streams of the guest. The host service hands over their ends on the host
//! (`docs/design/0007-linux-tenants.md`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use moirai_devices::fault::Fault;
use moirai_devices::stream::Stream;
use moirai_devices::vsock::{Mux, RECEIVE_QUEUE, TRANSMIT_QUEUE};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::model::{BATCH, Model, Queues, Watcher};
use moirai_launch::handover::{FromTenant, TenantHandover, ToTenant};
use moirai_launch::{ChannelError, channel::Channel};

/// Id of the hand-over socket; stream `n` is watched as `n + 1`.
const HANDOVER: u64 = 0;

/// The device.
#[derive(Debug)]
pub(super) struct Vsock {
    mux: Mux,
    handover: TenantHandover,
    /// A driver runs, and can be connected to.
    running: bool,
}

impl Vsock {
    /// A device whose host hands over sockets on `handover`.
    pub(super) fn new(cid: u32, handover: OwnedFd) -> io::Result<Self> {
        fcntl_setfl(&handover, fcntl_getfl(&handover)? | OFlags::NONBLOCK)?;
        Ok(Self { mux: Mux::new(cid), handover: Channel::new(handover), running: false })
    }

    /// Takes what the host has handed over.
    fn take_over(&mut self, watcher: &Watcher<'_>) {
        loop {
            match self.handover.receive() {
                Ok((message, fds)) => self.take(message, fds, watcher),
                Err(ChannelError::Malformed(error)) => {
                    eprintln!("moirai-tenant: vsock: the host cannot be understood: {error}");
                }
                Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return,
                // No host any more, which the main thread finds out by itself. What was asked of it
                // will not be answered.
                Err(_) => return self.mux.refuse_opening(),
            }
        }
    }

    fn take(&mut self, message: ToTenant, fds: Vec<OwnedFd>, watcher: &Watcher<'_>) {
        let stream = fds.into_iter().next().map(Stream::new);
        let id = match (message, stream) {
            // Without a driver nobody accepts: dropping the socket hangs up.
            (ToTenant::Connect { port }, Some(stream)) if self.running => {
                self.mux.connect(port, stream)
            }
            (ToTenant::Opened { id }, stream) => self.mux.opened(id, stream).then_some(id),
            (ToTenant::Connect { .. }, _) => None,
        };
        let Some(id) = id else { return };
        let watched = self.mux.stream(id).map(|stream| watcher.watch(stream.as_fd(), id + 1));
        if !matches!(watched, Some(Ok(()))) {
            self.mux.socket_changed(id, true);
        }
    }
}

impl Model for Vsock {
    fn watch(&self, watcher: &Watcher<'_>) -> io::Result<()> {
        watcher.watch(self.handover.as_fd(), HANDOVER)
    }

    fn serve(&mut self, queues: &mut Queues) -> Result<(), Fault> {
        let (mux, handover) = (&mut self.mux, &self.handover);
        let open = |id, port| handover.send(&FromTenant::Open { port, id }, &[]).is_ok();
        // In turns, because answers need room for what is to be answered.
        for _ in 0..BATCH / 8 {
            let mut left = 8;
            queues.each(TRANSMIT_QUEUE, |mem, queue| {
                left -= 1;
                Ok(mux.transmit(mem, queue, open)? && left > 0)
            })?;
            let mut left = 8;
            queues.each(RECEIVE_QUEUE, |mem, queue| {
                left -= 1;
                Ok(mux.receive(mem, queue)? && left > 0)
            })?;
        }
        Ok(())
    }

    fn changed(&mut self, id: u64, hung_up: bool, watcher: &Watcher<'_>) {
        match id.checked_sub(1) {
            None => self.take_over(watcher),
            Some(id) => self.mux.socket_changed(id, hung_up),
        }
    }

    fn start(&mut self, _: u64) {
        self.running = true;
    }

    fn reset(&mut self) {
        self.running = false;
        self.mux.reset();
    }
}
