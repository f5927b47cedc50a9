//! What is kept of the chain in which a request came, to be returned when the request is over.

use vm_memory::GuestAddress;

use super::Request;

/// A chain that was taken from the ring and not returned yet. Not cloneable, so it is returned
/// once.
#[derive(Debug)]
#[must_use = "a chain that is dropped is never returned to its driver"]
pub struct TakenChain {
    pub(super) head: u16,
    pub(super) status: GuestAddress,
    /// Bytes that the device writes if all goes well, status byte included.
    pub(super) written_if_ok: u32,
}

impl TakenChain {
    /// First descriptor of the chain.
    pub fn head(&self) -> u16 {
        self.head
    }
}

/// A request of a driver, and the chain by which it is answered.
#[derive(Debug)]
pub struct Taken {
    /// Hand this to [`super::Frontend::complete`].
    pub chain: TakenChain,
    /// What the driver asks for.
    pub request: Request,
}
