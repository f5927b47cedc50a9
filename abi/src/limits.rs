//! The limits of devices.

/// Most queues of one device.
pub const QUEUES_MAX: u16 = 16;
/// Most queue pairs of a network card, which has a control queue beside them.
pub const NET_PAIRS_MAX: u16 = (QUEUES_MAX - 1) / 2;

/// Files of a stripe set.
pub const STRIPE_FILES: core::ops::RangeInclusive<usize> = 2..=64;
/// Smallest unit of a stripe set and the step between units, in bytes.
pub const STRIPE_UNIT_STEP_BYTES: u64 = 4096;
/// Largest unit of a stripe set, in bytes.
pub const STRIPE_UNIT_BYTES_MAX: u64 = 64 << 20;
