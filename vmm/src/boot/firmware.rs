//! The only firmware of this machine: a reset vector.
//!
//! Linux takes hardware-reduced ACPI for a sign of UEFI and does not try the reset register.
//! Without UEFI it jumps into the BIOS in real mode. There it finds a few instructions that reset
//! the machine by the port [`moirai_abi::machine::RESET_PORT`].

use moirai_abi::machine::{RESET_COMMAND, RESET_PORT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::error::ImageError;

/// `f000:fff0`, in the last 16 bytes of the first MiB.
pub const RESET_VECTOR: u64 = 0xf_fff0;

/// Writes the reset vector.
///
/// # Errors
/// [`ImageError::StartInfo`] if guest memory ends before it.
pub(super) fn write(memory: &GuestMemoryMmap) -> Result<(), ImageError> {
    let [port, _] = const {
        assert!(RESET_PORT < 0x100, "the instruction has one byte for the port");
        RESET_PORT.to_le_bytes()
    };
    // mov al, RESET_COMMAND; 1: out RESET_PORT, al; jmp 1b
    let code = [0xb0, RESET_COMMAND, 0xe6, port, 0xeb, 0xfc];
    memory.write_slice(&code, GuestAddress(RESET_VECTOR)).map_err(|_| ImageError::StartInfo)
}
