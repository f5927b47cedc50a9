//! Buffers that devices read and write.
//!
//! A [`Buffer`] has one owner. While a device writes into it, the driver is that owner and nobody
//! has a reference; to let a device read it while others do too, put it into an `Rc`. Memory is
//! mapped one to one, so an address is the same for the guest and for the device.
#![allow(unsafe_code, reason = "owns raw allocations that devices access")]

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use alloc::rc::Rc;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;
use thiserror::Error;

/// Alignment of every buffer: a page, which also satisfies O_DIRECT on the host.
pub const BUFFER_ALIGN: usize = 4096;

/// There is not enough memory for a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no memory for a buffer of {len_bytes} bytes: give the tenant more memory")]
pub struct OutOfMemory {
    /// What was asked for.
    pub len_bytes: usize,
}

/// Zeroed, page-aligned, physically contiguous memory.
#[derive(Debug)]
pub struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
}

impl Buffer {
    /// Allocates a buffer.
    ///
    /// # Errors
    /// [`OutOfMemory`] if the heap has no such piece, or `len_bytes` is zero or absurd.
    pub fn new(len_bytes: usize) -> Result<Self, OutOfMemory> {
        let error = OutOfMemory { len_bytes };
        let layout = Layout::from_size_align(len_bytes, BUFFER_ALIGN).map_err(|_| error)?;
        if len_bytes == 0 {
            return Err(error);
        }
        // SAFETY: the layout is not of size zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(error)?;
        Ok(Self { start, layout })
    }

    /// The address for a device (and for raw access while a device may write).
    #[must_use]
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// A raw pointer to the first byte.
    #[must_use]
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the allocation is live, zeroed at first, and `layout.size()` long.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes it the only reference.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A piece of payload to send. The buffer is held until it has left.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Where it lies.
    pub buffer: Rc<Buffer>,
    /// First byte in the buffer.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
}
