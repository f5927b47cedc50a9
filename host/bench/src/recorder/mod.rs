//! The receiver's side of an experiment: when did each RTP packet arrive, and how late was that?
//!
//! `capture.rs` takes packets off a socket with the kernel's time stamps, `rtp.rs` reads their
//! headers, `analysis.rs` turns arrivals into lateness, loss and jitter. Only `capture.rs` touches
//! the machine.

use moirai_scheduler::Moment;

pub mod analysis;
pub mod capture;
pub mod rtp;

pub use analysis::{Analysis, Stalls, analyse};
pub use capture::{Capture, CaptureError};

/// One packet as it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When, on CLOCK_MONOTONIC, by the kernel's time stamp.
    pub at: Moment,
    /// RTP sequence number.
    pub sequence: u16,
    /// RTP time stamp (90 kHz).
    pub timestamp: u32,
}
