//! MPEG transport streams and RTP, as a streaming application needs them: what a packet of a film
//! says ([`ts`], [`psi`]), where the packets are ([`framing`]), what is lost ([`damage`]), which
//! clock counts ([`clock`]), when which byte is due ([`pace`]), the RTP header of what is sent
//! ([`rtp`]), and the window of a film that is being read ([`film`]).
//!
//! This crate reads no clock, and does I/O only through a trait: everything is tested on the host.
//! Media time is in ticks of the 27 MHz system clock of ISO/IEC 13818-1.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod clock;
pub mod damage;
pub mod film;
pub mod framing;
pub mod pace;
pub mod psi;
pub mod rtp;
pub mod ts;

/// Ticks of the system clock per second.
pub const TICKS_PER_SECOND: u64 = 27_000_000;

/// Converts ticks to nanoseconds, rounding down.
#[must_use]
pub fn ticks_to_nanos(ticks: u64) -> u64 {
    u64::try_from(u128::from(ticks) * 1000 / 27).unwrap_or(u64::MAX)
}
