//! Attacks on the machine itself: exceptions, ports, the console, jumps into data.
#![allow(unsafe_code, reason = "breaks the processor's tables and jumps to garbage")]

use core::arch::asm;

use moirai_sdk::{MS, now};

use crate::{Random, Score};

const SERIAL_PORT: u16 = 0x3f8;
/// The ports that end a machine; everything else may be tried.
const SLEEP_PORT: u16 = 0x600;
const RESET_PORT: u16 = 0x64;
const FLOOD_NS: u64 = 1500 * MS;
/// The service of ring 0 (shim.S) that ends in a triple fault.
const GATE_RESET: u64 = 3;
const INVALID_OPCODE: usize = 6;
/// The entry of spurious interrupts: a bare return.
const SPURIOUS: usize = 0xff;

unsafe extern "C" {
    #[link_name = "idt"]
    static mut IDT: [[u64; 2]; 256];
}

fn out(port: u16, value: u8) {
    // SAFETY: ring 3 has IOPL 3; a port of this machine cannot touch memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) }
}

/// Garbage to all ports but the two that end the machine.
pub(crate) fn ports(count: u64, seed: u64) -> Score {
    let mut random = Random::new(seed);
    let mut score = Score::default();
    for _ in 0..count {
        let port = match random.below(4) {
            0 => u16::try_from(random.next() & 0xffff).unwrap_or(0),
            _ => SERIAL_PORT + u16::try_from(random.below(8)).unwrap_or(0),
        };
        let [value, ..] = random.next().to_le_bytes();
        if port != SLEEP_PORT && port != RESET_PORT {
            out(port, value);
            score.rounds += 1;
        }
    }
    // Divisor latch off, interrupts off, FIFO on: the port as the library OS had set it up.
    for (register, value) in [(3, 3), (1, 0), (4, 0), (2, 7)] {
        out(SERIAL_PORT + register, value);
    }
    out(SERIAL_PORT, b'\n');
    score
}

/// Writes to the console as fast as it goes: lines, long lines, control characters.
pub(crate) fn console() -> Score {
    let (mut score, end) = (Score::default(), now() + FLOOD_NS);
    while now() < end {
        for byte in [b'x', b'\n', 0x1b, b'[', 0xff, 0, b'"', b'\r'] {
            out(SERIAL_PORT, byte);
        }
        score.rounds += 1;
    }
    out(SERIAL_PORT, b'\n');
    score
}

/// Shuts the machine down by a triple fault.
pub(crate) fn triple_fault() -> ! {
    // SAFETY: the service does not return.
    unsafe { asm!("int3", in("r8") GATE_RESET, options(noreturn)) }
}

/// An invalid opcode whose handler returns to it: an exception for ever.
pub(crate) fn exceptions() -> ! {
    // SAFETY: the table is writable for ring 3 and static; nobody else changes it. Entry 0xff
    // returns at once, which is right for an exception without error code.
    unsafe {
        let table = &raw mut IDT;
        (*table)[INVALID_OPCODE] = (*table)[SPURIOUS];
        asm!("2: ud2", "jmp 2b", options(noreturn))
    }
}

/// An exception whose handler does not exist: the processor ends in a double, then a triple fault.
pub(crate) fn no_handlers() -> ! {
    // SAFETY: as in `exceptions`; what follows is the end.
    unsafe {
        (&raw mut IDT).write_bytes(0x55, 1);
        asm!("ud2", options(noreturn))
    }
}

/// Goes on in memory that holds no code.
pub(crate) fn garbage(seed: u64) -> ! {
    let mut random = Random::new(seed);
    let mut code = [0u64; 64];
    code.fill_with(|| random.next());
    // SAFETY: there is no going back; the page is not executable.
    unsafe { asm!("jmp {}", in(reg) code.as_ptr(), options(noreturn)) }
}

/// Overwrites the memory below the heap, the running image with it.
pub(crate) fn overwrite() -> ! {
    // SAFETY: none; this is the end of the image, its stack, tables and page tables.
    unsafe {
        asm!(
            "rep stosq", "3: jmp 3b",
            in("rdi") 0x40_0000, in("rcx") 0x10_0000, in("rax") u64::MAX, options(noreturn)
        )
    }
}
