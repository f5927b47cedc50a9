//! What a driver can do wrong to a device of the tenant process, and the checks on the shape of a
//! chain that all of them share.
//!
//! These devices answer to nobody but their one guest, so there is no error status to soften a
//! mistake: a driver that breaks a rule finds its device in need of a reset (virtio 1.2, 2.1.2).

use crate::memory::OutsideMemory;
use crate::virtqueue::{self, Chain, Descriptor, QueueError};

/// A broken rule. The device takes nothing more until its driver has reset it.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The ring is broken.
    #[error(transparent)]
    Ring(#[from] QueueError),
    /// A buffer, or a page that the driver names, is not guest memory.
    #[error(transparent)]
    OutsideMemory(#[from] OutsideMemory),
    /// A buffer that the device may only write stands where it has to read, or the other way round.
    #[error("chain {head} has a buffer of the wrong direction")]
    Direction {
        /// The chain.
        head: u16,
    },
    /// A chain that is too short or too long for what it is to hold.
    #[error("chain {head} has {len_bytes} bytes, must have {least} to {most}")]
    Length {
        /// The chain.
        head: u16,
        /// What it has.
        len_bytes: u64,
        /// What the device needs.
        least: u64,
        /// What the device takes.
        most: u64,
    },
}

/// The buffers of a chain that the device only reads, and of which there are `least` to `most`
/// bytes.
///
/// # Errors
/// The chain is of another shape.
pub fn readable(chain: &Chain, least: u64, most: u64) -> Result<&[Descriptor], Fault> {
    shape(chain, false, least, most)
}

/// The buffers of a chain that the device only writes, and of which there are at least `least`
/// bytes.
///
/// # Errors
/// The chain is of another shape.
pub fn writable(chain: &Chain, least: u64) -> Result<&[Descriptor], Fault> {
    shape(chain, true, least, u64::MAX)
}

fn shape(chain: &Chain, writable: bool, least: u64, most: u64) -> Result<&[Descriptor], Fault> {
    let Chain { head, descriptors } = chain;
    if descriptors.iter().any(|descriptor| descriptor.writable != writable) {
        return Err(Fault::Direction { head: *head });
    }
    let len_bytes = virtqueue::len_bytes(descriptors);
    if !(least..=most).contains(&len_bytes) {
        return Err(Fault::Length { head: *head, len_bytes, least, most });
    }
    Ok(descriptors)
}
