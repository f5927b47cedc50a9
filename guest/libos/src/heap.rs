//! The heap: the largest piece of usable memory behind the image, managed by `talc`.
#![allow(unsafe_code, reason = "global allocator over raw memory")]

use crate::start_info::MemoryRange;
use core::alloc::{GlobalAlloc, Layout};
use talc::base::binning::DefaultBinning;
use talc::cell::TalcCell;
use talc::source::Manual;

struct Heap(TalcCell<Manual, DefaultBinning>);

#[global_allocator]
static HEAP: Heap = Heap(TalcCell::new(Manual));

// SAFETY: there is one thread, and the interrupt entries (shim.S) do not allocate.
unsafe impl Sync for Heap {}

// SAFETY: hands every call on to an allocator that keeps the contract; `realloc` too, because it
// can often grow in place.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { self.0.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        unsafe { self.0.realloc(start, layout, new_size) }
    }
}

unsafe extern "C" {
    #[link_name = "image_end"]
    static IMAGE_END: u8;
}

/// Page tables map the first 4 GiB.
const MAPPED_END: u64 = 1 << 32;

/// Gives the largest range of usable memory above the image to the allocator; returns its size in
/// bytes, 0 if there is none.
pub(crate) fn init(ranges: &[MemoryRange]) -> u64 {
    let image_end = &raw const IMAGE_END as u64;
    let usable = ranges.iter().map(|range| {
        let start = range.start.max(image_end);
        (start, range.end.min(MAPPED_END).saturating_sub(start))
    });
    let Some((start, len)) = usable.max_by_key(|&(_, len)| len) else { return 0 };
    let Ok(size) = usize::try_from(len) else { return 0 };
    // SAFETY: the range is RAM by the VMM's memory map, mapped writable by the static page tables,
    // and behind everything the image occupies. What the VMM put into RAM (start information,
    // command line) is not read any more: `boot` has copied it.
    let heap = unsafe { HEAP.0.claim(start as *mut u8, size) };
    if heap.is_some() { len } else { 0 }
}
