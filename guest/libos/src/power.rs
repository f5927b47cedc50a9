//! The end of the machine.

use crate::{console, platform};
use moirai_abi::machine::{
    END_STATUS_FAILED, END_STATUS_PORT, RESET_COMMAND, RESET_PORT, SLEEP_CONTROL_PORT,
    SLEEP_CONTROL_POWER_OFF,
};

/// Writes out the console and powers the machine off: by the ACPI sleep control register; where
/// that does nothing, by the keyboard controller's reset; where there is none, by a triple fault.
pub fn off() -> ! {
    console::try_flush();
    platform::write_port(SLEEP_CONTROL_PORT, SLEEP_CONTROL_POWER_OFF);
    platform::write_port(RESET_PORT, RESET_COMMAND);
    platform::triple_fault()
}

/// The same after the application has failed.
pub fn failed() -> ! {
    fail(END_STATUS_FAILED)
}

/// The same after a failure: the host is told `status`, which is not zero, and that this was no end
/// of work. Other VMMs than ours ignore it.
pub(crate) fn fail(status: u8) -> ! {
    console::try_flush();
    platform::write_port(END_STATUS_PORT, status);
    off()
}
