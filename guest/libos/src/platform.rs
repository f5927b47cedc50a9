//! The machine seen from ring 3: ports, the time stamp counter, CPUID, memory-mapped registers and
//! the services of ring 0. Every instruction that Rust has no word for is here.
//!
//! Owns no state; `shim.S` is the other side of the gate.
#![allow(unsafe_code, reason = "inline assembly and device registers")]

use core::arch::asm;
use core::arch::x86_64::_rdtsc;
use core::sync::atomic::AtomicU64;

core::arch::global_asm!(include_str!("shim.S"), options(att_syntax));

unsafe extern "C" {
    /// Byte `n` is set by the interrupt entry of vector `0x40 + n` (shim.S).
    #[link_name = "irq_pending"]
    static IRQ_PENDING: AtomicU64;
}

/// Services of the gate, numbered as in `shim.S`.
const GATE_HALT_IF_IDLE: u64 = 0;
const GATE_RESET: u64 = 3;
const GATE_CPUID: u64 = 4;

/// The interrupts that came since [`take_pending`] last cleared the word; byte `n` is vector
/// `0x40 + n`.
pub(crate) fn pending() -> &'static AtomicU64 {
    // SAFETY: the shim reserves eight aligned bytes for it; ring 0 changes them by single stores on
    // this same processor.
    unsafe { &IRQ_PENDING }
}

/// Halts until an interrupt comes, unless one is noted in [`pending`] already.
pub(crate) fn halt_if_idle() {
    // SAFETY: the gate preserves all registers and works on a stack of its own.
    unsafe { asm!("int3", in("r8") GATE_HALT_IF_IDLE) }
}

/// Resets the machine by a triple fault.
pub(crate) fn triple_fault() -> ! {
    // SAFETY: the service does not return; nothing runs after it.
    unsafe { asm!("int3", in("r8") GATE_RESET, options(noreturn)) }
}

/// Writes a byte to an I/O port.
pub(crate) fn write_port(port: u16, value: u8) {
    // SAFETY: ring 3 has IOPL 3; ports of this machine (serial, power) do not touch memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) }
}

/// Reads a byte from an I/O port.
pub(crate) fn read_port(port: u16) -> u8 {
    let value;
    // SAFETY: as in `write_port`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) }
    value
}

/// The time stamp counter.
pub(crate) fn tsc() -> u64 {
    // SAFETY: every x86-64 processor has it and CR4.TSD is clear.
    unsafe { _rdtsc() }
}

/// EAX and EBX of a CPUID leaf, as the VM defines it. Where ring 3 runs natively without hardware
/// virtualization, the instruction shows the real processor there, so ring 0 executes it.
pub(crate) fn cpuid(leaf: u32) -> (u32, u32) {
    let (eax, ebx): (u32, u64);
    // SAFETY: the service changes the four registers of CPUID only; rbx, which Rust reserves, is
    // put back.
    unsafe {
        asm!("mov {saved}, rbx", "int3", "xchg {saved}, rbx", saved = out(reg) ebx,
            in("r8") GATE_CPUID, inout("eax") leaf => eax, inout("ecx") 0 => _, out("edx") _);
    }
    (eax, (ebx & 0xffff_ffff) as u32)
}

/// Writes a 32-bit device register.
///
/// # Safety
/// `address` is a register of a device that this machine has, and the write has no effect on memory
/// that Rust owns.
pub(crate) unsafe fn write_register(address: usize, value: u32) {
    // SAFETY: by the caller; the first 4 GiB are mapped one to one.
    unsafe { (address as *mut u32).write_volatile(value) }
}

/// Reads a 32-bit device register.
///
/// # Safety
/// As for [`write_register`].
pub(crate) unsafe fn read_register(address: usize) -> u32 {
    // SAFETY: by the caller; the first 4 GiB are mapped one to one.
    unsafe { (address as *const u32).read_volatile() }
}
