//! The virtio devices that this process serves itself, because tenants share nothing behind them:
//! entropy, a second console, the balloon, vsock (`docs/design/0007-linux-tenants.md`).
//!
//! ```text
//! vCPU threads --registers--> backend --commands--> thread: epoll over kicks, sockets, commands
//! main thread  --balloon target-------------------> |  served: the queues of one device
//!                                                   |  model: what it does (moirai-devices)
//! ```
//!
//! One thread of the fair class serves all of them. It waits for nobody: not for sockets, and the
//! only locks that it takes are held for a copy. So no vCPU's guarantee depends on it; a vCPU waits
//! for it only while its driver starts or resets a device.

mod backend;
mod balloon;
mod console;
mod model;
mod rng;
mod served;
#[cfg(test)]
mod tests;
mod thread;
mod vsock;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use moirai_devices as devices;
use moirai_devices::memory::GuestMemory;

use crate::event;
use crate::virtio::{Backend, DeviceEvents};
use backend::{Mailbox, OwnBackend, Space};
pub use balloon::Balloon;
use model::Model;
use moirai_launch::{DeviceSpec, OwnDevice};
use served::Served;
use thread::Server;

/// Most descriptors of a queue. Linux fills the receive queue of vsock with as many buffers.
const QUEUE_SIZE: u16 = 256;
/// Commands that wait for the thread; a vCPU has at most one of those that it waits for.
const MAX_COMMANDS: usize = 64;

/// A device to be connected with its transport.
#[derive(Debug)]
pub struct Attachment {
    /// What the driver sees.
    pub spec: DeviceSpec,
    /// What serves it.
    pub backend: Box<dyn Backend + Send>,
    /// What both share.
    pub events: Arc<DeviceEvents>,
}

/// The devices, served by a running thread.
#[derive(Debug)]
pub struct Own {
    /// One per entry of the launch, in its order.
    pub attachments: Vec<Attachment>,
    /// The balloon, if there is one.
    pub balloon: Option<Balloon>,
}

/// Starts to serve `kinds`, with the descriptors of those that have one. `confine` is called on the
/// new thread before it serves anything. Without devices there is no thread.
///
/// # Errors
/// The kernel refuses descriptors or a thread; a descriptor is missing.
pub fn start(
    kinds: &[OwnDevice],
    fds: Vec<OwnedFd>,
    memory: &Arc<GuestMemory>,
    confine: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<Own> {
    let mut own = Own { attachments: Vec::new(), balloon: None };
    if kinds.is_empty() {
        return Ok(own);
    }
    let (sender, commands) = sync_channel(MAX_COMMANDS);
    let wake = Arc::new(event::new()?);
    let mailbox = Mailbox { commands: sender, wake: Arc::clone(&wake) };
    let mut fds = fds.into_iter();
    let mut served = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let fd = if kind.has_descriptor() { fds.next() } else { None };
        let made = make(*kind, fd)?;
        let spec = DeviceSpec { device_id: made.id, queues: made.queues, queue_size: QUEUE_SIZE };
        let events = DeviceEvents::new(made.queues)?;
        if let Space::Balloon(size) = &made.space {
            let stats = made.stats.unwrap_or_default();
            let (size, events, mailbox) = (Arc::clone(size), Arc::clone(&events), mailbox.clone());
            own.balloon = Some(Balloon { index, size, stats, events, mailbox });
        }
        served.push(Served::new(index, made.model, Arc::clone(memory), Arc::clone(&events)));
        let (features, space, mailbox) = (made.features, made.space, mailbox.clone());
        let backend = Box::new(OwnBackend { index, features, space, mailbox });
        own.attachments.push(Attachment { spec, backend, events });
    }
    let server = Server::new(served, commands, wake)?;
    std::thread::Builder::new().name("own-devices".to_owned()).spawn(move || {
        let result = confine().and_then(|()| server.run());
        if let Err(error) = result {
            // Without its thread a device would stand still, and nobody would know why.
            eprintln!("moirai-tenant: the process's own devices are not served: {error}");
            std::process::exit(101);
        }
    })?;
    Ok(own)
}

/// What makes a device of a kind.
struct Made {
    id: u32,
    queues: u16,
    features: u64,
    space: Space,
    model: Box<dyn Model>,
    stats: Option<balloon::SharedStats>,
}

fn make(kind: OwnDevice, fd: Option<OwnedFd>) -> io::Result<Made> {
    use devices::{balloon as b, console as c, rng as r, vsock as v};
    let fd = || fd.ok_or_else(|| io::Error::other("a device came without its descriptor"));
    Ok(match kind {
        OwnDevice::Rng => Made {
            id: r::DEVICE_ID,
            queues: r::QUEUES,
            features: r::FEATURES,
            space: Space::Bytes(Vec::new()),
            model: Box::new(rng::Rng),
            stats: None,
        },
        OwnDevice::Console => Made {
            id: c::DEVICE_ID,
            queues: c::QUEUES,
            features: c::FEATURES,
            space: Space::Console,
            model: Box::new(console::Console::new(fd()?)),
            stats: None,
        },
        OwnDevice::Balloon => {
            let size = Arc::new(b::Size::default());
            let stats = balloon::SharedStats::default();
            Made {
                id: b::DEVICE_ID,
                queues: b::QUEUES,
                features: b::FEATURES,
                space: Space::Balloon(Arc::clone(&size)),
                model: Box::new(balloon::Pages::new(size, Arc::clone(&stats))),
                stats: Some(stats),
            }
        }
        OwnDevice::Vsock { cid } => Made {
            id: v::DEVICE_ID,
            queues: v::QUEUES,
            features: v::FEATURES,
            space: Space::Bytes(v::config_space(cid).into()),
            model: Box::new(vsock::Vsock::new(cid, fd()?)?),
            stats: None,
        },
    })
}
