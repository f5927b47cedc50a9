//! The tenant process: one VM, its memory, its vCPUs, its console, and the virtio transports that
//! lead to the host's I/O domain.
//!
//! The crate `moirai-launch`, which the host service also uses, says how it is started and what it
//! answers.
//!
//! ```text
//! tenant ------> vm --------> boot (image, initrd, start information, ACPI) --> guest memory
//!  supervisor     |  builds   memory (memfd, KVM slots)
//!                 +---------> vcpu (thread, gate, CPUID) --exits--> machine --> console
//!                                                                       +-----> virtio --> own
//! ```

pub mod boot;
pub mod console;
pub mod error;
mod event;
pub mod interrupts;
pub mod machine;
pub mod memory;
pub mod own;
pub mod pci;
mod power;
pub mod run;
pub mod sandbox;
mod supervisor;
pub mod tenant;
pub mod vcpu;
pub mod virtio;
pub mod vm;
