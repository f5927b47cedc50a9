//! The power button: an interrupt that the generic event device of the DSDT passes on.
#![allow(unsafe_code, reason = "kvm_irqchip is a union; its id names the member")]

use kvm_bindings::{KVM_IRQCHIP_IOAPIC, kvm_irqchip};
use kvm_ioctls::VmFd;
use moirai_abi::machine::POWER_BUTTON_GSI;
use vmm_sys_util::eventfd::EventFd;

use crate::error::{BuildError, kvm_error, system_error};
use crate::event;

/// `mask` of a redirection entry of the I/O APIC.
const MASKED: u64 = 1 << 16;

/// A power button, connected with its pin of the I/O APIC.
#[derive(Debug)]
pub(crate) struct PowerButton(EventFd);

impl PowerButton {
    /// Connects a button.
    pub(crate) fn new(vm: &VmFd) -> Result<Self, BuildError> {
        let line = event::new().map_err(system_error("make an eventfd"))?;
        vm.register_irqfd(&line, POWER_BUTTON_GSI)
            .map_err(kvm_error("connect the power button"))?;
        Ok(Self(line))
    }

    /// Presses the button if the guest listens to it: its pin is masked until a driver is there.
    /// Returns whether it was pressed.
    pub(crate) fn press(&self, vm: &VmFd) -> bool {
        let mut chip = kvm_irqchip { chip_id: KVM_IRQCHIP_IOAPIC, ..Default::default() };
        if vm.get_irqchip(&mut chip).is_err() {
            return false;
        }
        // SAFETY: KVM has filled the member for this chip id; all of it is plain integers.
        let pins = unsafe { chip.chip.ioapic.redirtbl };
        let entry = pins.get(POWER_BUTTON_GSI as usize);
        // SAFETY: both members of the union are the same 64 bits.
        let listening = entry.is_some_and(|entry| unsafe { entry.bits } & MASKED == 0);
        listening && self.0.write(1).is_ok()
    }
}
