//! The library OS: everything a Moirai guest needs below its application.
//!
//! A few hundred instructions in ring 0 (`shim.S`) enter ring 3, end interrupts, report exceptions
//! and halt. All of this crate's Rust runs in ring 3, in one address space, on one vCPU, with one
//! thread; only the shim's three-instruction interrupt entries preempt it. The thread polls devices
//! while there is work; they may interrupt only around a halt ([`idle`]).
//!
//! Boot: the image carries two ELF notes. By the PVH note any VMM starts it in 32-bit protected
//! mode, and the shim enters ring 3. A VMM that reads [`moirai_abi::boot::Ring3Note`] sets the
//! state itself and skips the shim; exactly this state is expected:
//!
//! | register | value |
//! | --- | --- |
//! | `rip`, `rsp` | `entry`, `stack_top` of the note; 16-byte aligned stack, nothing on it |
//! | `rdi` | physical address of the `hvm_start_info` (below 4 GiB) |
//! | `rflags` | `0x3202`: interrupts on, IOPL 3 |
//! | `cs`; `ss`, `ds`, `es`, `fs`, `gs` | `0x33` flat 64-bit code, DPL 3; `0x2b` flat data, DPL 3 |
//! | `tr` | selector `0x40`, base and limit of the note, type 11 (busy 64-bit TSS) |
//! | `gdtr`, `idtr` | of the note; the limit of the IDT is `0xfff` |
//! | `cr3` | `page_table` of the note |
//! | `cr0` | `0x80010033` (PG, WP, NE, ET, MP, PE) |
//! | `cr4` | PAE; what else is set does not matter (`0x50620` is fine) |
//! | EFER | LME, LMA, NXE (`0xd01` with SCE) |
//! | local APIC | xAPIC mode at `0xfee00000` (the image enables it and masks LINT0 by itself) |
//!
//! `.bss` must be zero, as everywhere. The image uses no SSE state and does not look at XCR0, the
//! MSRs of SYSCALL, or the bases of `fs` and `gs`.
//!
//! On a host (`cargo test --target x86_64-unknown-linux-gnu`) only the parts without hardware are
//! built: they are tested there.
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

mod arg_error;
pub mod args;
pub mod cidr;
pub mod frame;
pub mod icmp;
pub mod json;
pub mod memory;
pub mod neighbours;
pub mod periodic;
pub mod receivers;
pub mod request;
pub mod start_info;
pub mod virtqueue;

#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod clock;
#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
pub mod disk;
#[cfg(target_os = "none")]
pub mod failure;
#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
pub mod idle;
#[cfg(target_os = "none")]
mod interrupts;
#[cfg(target_os = "none")]
pub mod nic;
#[cfg(target_os = "none")]
mod platform;
#[cfg(target_os = "none")]
pub mod power;
#[cfg(target_os = "none")]
pub mod stack;
#[cfg(target_os = "none")]
pub mod virtio;
