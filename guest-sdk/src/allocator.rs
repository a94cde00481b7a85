//! An allocator that only ever moves forward.
//!
//! An instance lives for one call, so freeing is work for nothing; and since
//! freeing does nothing, the compiler removes the walks through everything
//! that bindings and destructors would do for it, about a third of a preset's
//! code. It begins in what is left of the last page of the data: most calls
//! end without asking the host for memory. (Published allocators of this kind
//! begin with a new page.)
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::{memory_grow, memory_size};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const PAGE: usize = 65536;

/// The first free byte; 0 before the first allocation.
static NEXT: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    /// Where the linker's data ends.
    static __heap_base: u8;
}

struct Forward;

#[global_allocator]
static ALLOCATOR: Forward = Forward;

/// Makes the memory reach `end`.
#[inline(never)]
fn reach(end: usize) -> bool {
    let missing = end.div_ceil(PAGE).saturating_sub(memory_size(0));
    memory_grow(0, missing) != usize::MAX
}

/// Claims the bytes from `start` to `start + size`.
fn claim(start: usize, size: usize) -> *mut u8 {
    match start.checked_add(size) {
        // The last page stays whole, so that `memory_size * PAGE` cannot
        // overflow.
        Some(end) if end < usize::MAX - PAGE => {
            if end > memory_size(0) * PAGE && !reach(end) {
                return null_mut();
            }
            NEXT.store(end, Relaxed);
            start as *mut u8
        }
        _ => null_mut(),
    }
}

// SAFETY: every block lies behind all earlier ones, inside the memory, and is
// aligned; there is one thread.
unsafe impl GlobalAlloc for Forward {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let next = match NEXT.load(Relaxed) {
            0 => &raw const __heap_base as usize,
            next => next,
        };
        claim(next.next_multiple_of(layout.align()), layout.size())
    }

    /// Memory that was never used is zero.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        unsafe { self.alloc(layout) }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // What stands last grows where it is.
        if block as usize + layout.size() == NEXT.load(Relaxed) {
            return claim(block as usize, size);
        }
        // SAFETY: the caller promised a valid layout, and `size` to suit it;
        // the new block does not overlap the old one.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                core::ptr::copy_nonoverlapping(block, new, layout.size().min(size));
            }
            new
        }
    }
}
