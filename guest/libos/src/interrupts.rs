//! Interrupt controllers: the local APIC (enable, one-shot timer) and the I/O APIC (routing of
//! device lines). Memory-mapped xAPIC mode, because ring 3 can reach it without ring 0.
//!
//! Vectors: `0x40` is the timer, `0x41..0x48` are devices. The interrupt entries end the interrupt
//! by themselves and set a byte in the pending word; [`crate::idle`] reads it.
#![allow(unsafe_code, reason = "device registers")]

use crate::platform::{read_register, write_register};

const LOCAL_APIC: usize = 0xfee0_0000;
const TASK_PRIORITY: usize = 0x80;
const SPURIOUS_VECTOR: usize = 0xf0;
const LVT_TIMER: usize = 0x320;
const LVT_LINT0: usize = 0x350;
const TIMER_INITIAL_COUNT: usize = 0x380;
const TIMER_CURRENT_COUNT: usize = 0x390;
const TIMER_DIVIDE: usize = 0x3e0;
const DIVIDE_BY_1: u32 = 0xb;
const ENABLE: u32 = 0x100;
const MASKED: u32 = 0x1_0000;

/// The first I/O APIC and, on machines with more than 24 lines (QEMU's microvm), the second.
const IO_APICS: [usize; 2] = [0xfec0_0000, 0xfec1_0000];
const IO_APIC_PINS: u32 = 24;
const REDIRECTION_TABLE: u32 = 0x10;

const FIRST_VECTOR: u32 = 0x40;
/// Device slots: bytes 1..=7 of the pending word.
const DEVICE_SLOTS: usize = 7;

/// The byte of the pending word that device `index` (in the order of the command line) sets.
/// Devices beyond the seventh share bytes, which costs a needless acknowledgement now and then.
pub(crate) fn slot_of(index: usize) -> u32 {
    u32::try_from(1 + index % DEVICE_SLOTS).unwrap_or(1)
}

/// Enables the local APIC and prepares its timer.
pub(crate) fn init() {
    local(SPURIOUS_VECTOR, ENABLE | 0xff);
    local(TASK_PRIORITY, 0);
    local(LVT_LINT0, MASKED);
    local(TIMER_DIVIDE, DIVIDE_BY_1);
    local(LVT_TIMER, FIRST_VECTOR);
}

/// Starts the one-shot timer; 0 stops it. A running one is replaced.
pub(crate) fn set_timer(ticks: u32) {
    local(TIMER_INITIAL_COUNT, ticks);
}

/// What is left of the one-shot timer.
pub(crate) fn timer_ticks_left() -> u32 {
    // SAFETY: the local APIC is part of every machine this image runs on.
    unsafe { read_register(LOCAL_APIC + TIMER_CURRENT_COUNT) }
}

/// Routes an interrupt line, edge-triggered, to the vector of a slot of this processor.
pub(crate) fn route(gsi: u32, slot: u32) {
    let Some(&base) = IO_APICS.get((gsi / IO_APIC_PINS) as usize) else { return };
    let entry = REDIRECTION_TABLE + 2 * (gsi % IO_APIC_PINS);
    // SAFETY: the I/O APIC whose line the command line names exists; it touches no memory.
    unsafe {
        write_register(base, entry + 1);
        write_register(base + 0x10, 0); // destination: APIC id 0
        write_register(base, entry);
        write_register(base + 0x10, FIRST_VECTOR + slot);
    }
}

fn local(register: usize, value: u32) {
    // SAFETY: the local APIC is part of every machine this image runs on; it touches no memory.
    unsafe { write_register(LOCAL_APIC + register, value) }
}
