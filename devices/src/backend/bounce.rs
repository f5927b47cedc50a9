//! Memory of our own, page-aligned, for what O_DIRECT cannot do from or to a guest's buffers.

use std::io;
use std::sync::Arc;

use vm_memory::GuestAddress;

use crate::memory::{Buffers, GuestMemory};

/// Zeroed, page-aligned memory of `len_bytes`, as one buffer.
///
/// # Errors
/// There is no memory.
pub fn zeroed(len_bytes: u64) -> io::Result<Buffers> {
    let len = u32::try_from(len_bytes).map_err(io::Error::other)?;
    let start = GuestAddress(0);
    let memory = GuestMemory::from_ranges(&[(start, len as usize)]).map_err(io::Error::other)?;
    let mut buffers = Buffers::new(Arc::new(memory));
    buffers.push(start, len).map_err(io::Error::other)?;
    Ok(buffers)
}
