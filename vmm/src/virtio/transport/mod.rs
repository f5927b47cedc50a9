//! How a driver sees a virtio device: one [`state`], shown by the registers of a window ([`mmio`])
//! or of a PCI function ([`pci`]).

pub mod common;
pub mod function;
pub mod mmio;
pub mod pci;
pub mod state;

pub use mmio::Mmio;
pub use pci::Pci;
pub use state::State;

#[cfg(test)]
mod tests;
