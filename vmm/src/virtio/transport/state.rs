//! What a virtio device is, whatever registers show it: status, features, queues (virtio 1.2,
//! sections 2.1 to 2.6).
//!
//! Whatever a driver does, the worst that happens is that its own device needs a reset.

use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

use crate::virtio::queue::{QueueAreas, QueueRegisters, set_high, set_low};
use crate::virtio::status::{self, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET, Step, step};
use crate::virtio::{Backend, BackendError, DeviceEvents};

const VIRTIO_F_VERSION_1: u64 = 1 << 32;

/// A queue has used buffers.
const INTERRUPT_USED_BUFFER: u8 = 1;
/// The configuration has changed.
pub const INTERRUPT_CONFIG_CHANGE: u8 = 2;

/// The state of a device.
#[derive(Debug)]
pub struct State<B> {
    /// Serves the queues and owns the configuration space.
    pub backend: B,
    memory: GuestMemoryMmap,
    events: Arc<DeviceEvents>,
    device_id: u32,
    max_queue_size: u16,
    status: u32,
    /// Whether the backend serves queues: between DRIVER_OK and a stop.
    live: bool,
    driver_features: u64,
    queues: Vec<QueueRegisters>,
    last_error: Option<BackendError>,
}

impl<B: Backend> State<B> {
    /// A device after reset; it has as many queues as `events` are for.
    pub fn new(
        backend: B,
        memory: GuestMemoryMmap,
        events: Arc<DeviceEvents>,
        device_id: u32,
        max_queue_size: u16,
    ) -> Self {
        let queue = QueueRegisters { size: max_queue_size.into(), ..QueueRegisters::default() };
        let queues = vec![queue; events.kicks.len()];
        Self {
            backend,
            memory,
            events,
            device_id,
            max_queue_size,
            status: 0,
            live: false,
            driver_features: 0,
            queues,
            last_error: None,
        }
    }

    /// Virtio device id.
    pub fn device_id(&self) -> u32 {
        self.device_id
    }

    /// Most descriptors of a queue.
    pub fn max_queue_size(&self) -> u16 {
        self.max_queue_size
    }

    /// How many queues there are.
    pub fn queues(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    /// How many things interrupt the driver: every queue, and the configuration space.
    pub fn interrupt_sources(&self) -> u16 {
        self.queues().saturating_add(1)
    }

    /// Kicks a queue, where KVM did not do it.
    pub fn kick(&self, index: u64) {
        let kick = usize::try_from(index).ok().and_then(|index| self.events.kicks.get(index));
        if let Some(kick) = kick {
            // Fails only if the counter is full, and then it is readable as well.
            let _ = kick.write(1);
        }
    }

    /// Eventfds of the device.
    pub fn events(&self) -> &DeviceEvents {
        &self.events
    }

    /// Present device status.
    pub fn status(&self) -> u32 {
        self.status
    }

    /// Why the backend failed last, once.
    pub fn take_error(&mut self) -> Option<BackendError> {
        self.last_error.take()
    }

    /// Why the device interrupts. The backend raises the interrupt without this process, so whether
    /// a buffer was used is not known here: a live queue may always have been.
    pub fn interrupt_status(&self) -> u8 {
        let used = if self.live { INTERRUPT_USED_BUFFER } else { 0 };
        used | if self.events.config.is_pending() { INTERRUPT_CONFIG_CHANGE } else { 0 }
    }

    /// Word `select` of the offered features.
    pub fn offered(&self, select: u32) -> u32 {
        half(self.offered_features(), select)
    }

    fn offered_features(&self) -> u64 {
        self.backend.features() | VIRTIO_F_VERSION_1
    }

    /// Word `select` of the features that the driver has chosen.
    pub fn chosen(&self, select: u32) -> u32 {
        half(self.driver_features, select)
    }

    /// Features are chosen between DRIVER and FEATURES_OK (section 3.1.1).
    pub fn choose(&mut self, select: u32, value: u32) {
        if self.status != status::ACKNOWLEDGE | status::DRIVER {
            return;
        }
        match select {
            0 => set_low(&mut self.driver_features, value),
            1 => set_high(&mut self.driver_features, value),
            _ => {}
        }
    }

    /// A queue, if there is one with this number.
    pub fn queue(&self, index: u32) -> Option<&QueueRegisters> {
        self.queues.get(usize::try_from(index).ok()?)
    }

    /// A queue that may be set up now: between FEATURES_OK and DRIVER_OK (section 3.1.1).
    pub fn queue_mut(&mut self, index: u32) -> Option<&mut QueueRegisters> {
        let configuring = self.status & (FEATURES_OK | DRIVER_OK | FAILED | NEEDS_RESET);
        let index = usize::try_from(index).ok()?;
        self.queues.get_mut(index).filter(|_| configuring == FEATURES_OK)
    }

    /// The driver writes the device status.
    pub fn set_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        if value & FAILED != 0 {
            self.status |= FAILED;
            return self.stop();
        }
        match step(self.status, value) {
            Some(Step::Accept) => self.status = value,
            Some(Step::CheckFeatures) => {
                let wanted = self.driver_features;
                let known = wanted & !self.offered_features() == 0;
                // The driver reads the status back to see whether the bit was accepted.
                if known && wanted & VIRTIO_F_VERSION_1 != 0 {
                    self.status = value;
                }
            }
            Some(Step::Start) => {
                self.status = value;
                self.start();
            }
            None => {}
        }
    }

    fn start(&mut self) {
        let ring = |queue: &QueueRegisters| match queue.ready {
            true => queue.ring(self.max_queue_size, &self.memory).map(Some),
            false => Some(None),
        };
        let rings: Option<Vec<Option<QueueAreas>>> = self.queues.iter().map(ring).collect();
        // A ring that cannot be is the driver's mistake.
        let Some(rings) = rings else { return self.fail() };
        match self.backend.start(self.driver_features, &rings) {
            Ok(()) => self.live = true,
            Err(error) => {
                self.last_error = Some(error);
                self.fail();
            }
        }
    }

    /// The device has met an error: the driver is told to reset it.
    pub fn fail(&mut self) {
        self.stop();
        self.status |= NEEDS_RESET;
        if self.status & DRIVER_OK != 0 {
            self.events.config.announce();
        }
    }

    fn stop(&mut self) {
        if std::mem::take(&mut self.live)
            && let Err(error) = self.backend.stop()
        {
            self.last_error = Some(error);
        }
    }

    fn reset(&mut self) {
        self.stop();
        self.status = 0;
        self.driver_features = 0;
        let size = self.max_queue_size.into();
        self.queues.fill(QueueRegisters { size, ..QueueRegisters::default() });
        self.events.forget_interrupts();
    }
}

/// 32 of 64 feature bits; none beyond them.
fn half(features: u64, select: u32) -> u32 {
    let [low, high] = [features & u64::from(u32::MAX), features >> 32];
    let value = match select {
        0 => low,
        1 => high,
        _ => 0,
    };
    u32::try_from(value).unwrap_or(0)
}
