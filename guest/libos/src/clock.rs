//! Time: nanoseconds since the image started, from the time stamp counter.
//!
//! State: the counter's value at the start and its rate. The rate comes from the hypervisor's
//! timing leaf where there is one; else it is measured against the local APIC timer, which counts
//! at 1 GHz under KVM and QEMU.

use crate::{interrupts, platform};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use moirai_abi::machine::CPUID_TIMING_LEAF;

const HYPERVISOR_LEAF: u32 = 0x4000_0000;
const CALIBRATION_TICKS: u32 = 5_000_000;

static START: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds per TSC tick, as a fraction of 2^32.
static NANOS_PER_TICK: AtomicU64 = AtomicU64::new(0);
/// APIC timer ticks per nanosecond, as a fraction of 2^32.
static TIMER_TICKS_PER_NANO: AtomicU64 = AtomicU64::new(1 << 32);

/// Notes the time of the start; the clock stands at zero until [`init`].
pub(crate) fn start() {
    START.store(platform::tsc(), Relaxed);
}

/// Finds out how fast the counters run.
pub(crate) fn init() {
    let (mut tsc_khz, mut timer_khz) = (0, 0);
    if (CPUID_TIMING_LEAF..HYPERVISOR_LEAF + 0x1000).contains(&platform::cpuid(HYPERVISOR_LEAF).0) {
        (tsc_khz, timer_khz) = platform::cpuid(CPUID_TIMING_LEAF);
    }
    if timer_khz != 0 {
        TIMER_TICKS_PER_NANO.store((u64::from(timer_khz) << 32) / 1_000_000, Relaxed);
    }
    let nanos_per_tick = match tsc_khz {
        0 => calibrate(),
        khz => (1_000_000u64 << 32) / u64::from(khz),
    };
    NANOS_PER_TICK.store(nanos_per_tick, Relaxed);
}

/// Nanoseconds since the start of the image.
#[must_use]
pub fn now() -> u64 {
    let ticks = platform::tsc().wrapping_sub(START.load(Relaxed));
    scale(ticks, NANOS_PER_TICK.load(Relaxed))
}

/// Nanoseconds of the time stamp counter since it was zero: the same in all machines of a host
/// whose hypervisor gives them its own.
#[must_use]
pub fn machine() -> u64 {
    scale(platform::tsc(), NANOS_PER_TICK.load(Relaxed))
}

/// Converts a time span into ticks of the one-shot timer, at least one, at most what it can count.
pub(crate) fn timer_ticks(nanos: u64) -> u32 {
    let ticks = scale(nanos, TIMER_TICKS_PER_NANO.load(Relaxed));
    u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
}

/// Measures 2^32 times the nanoseconds per TSC tick over a few milliseconds of the APIC timer.
fn calibrate() -> u64 {
    interrupts::set_timer(u32::MAX);
    let (first, from) = (interrupts::timer_ticks_left(), platform::tsc());
    let mut passed = 0;
    while passed < CALIBRATION_TICKS {
        passed = first.wrapping_sub(interrupts::timer_ticks_left());
    }
    let ticks = platform::tsc().wrapping_sub(from).max(1);
    interrupts::set_timer(0);
    (u64::from(passed) << 32) / ticks
}

fn scale(value: u64, factor: u64) -> u64 {
    u64::try_from((u128::from(value) * u128::from(factor)) >> 32).unwrap_or(u64::MAX)
}
