//! An allocator that costs the same each time.
//!
//! What the system's allocator does depends on what other threads have allocated before, which
//! differs from run to run by a percent. This one hands out memory of the thread's own chunks in
//! order and never takes any back; each call costs about what the usual case costs elsewhere, so
//! that needless allocations still show.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::ptr;

/// Chunks come from the system in this size; larger requests get chunks of their own.
const CHUNK_BYTES: usize = 64 << 20;

/// All memory begins at such an address, so that copies always find the same alignment.
const ALIGN: usize = 64;

/// Chunks begin at whole pages.
const CHUNK_ALIGN: usize = 4096;

/// Steps of waste, a handful of instructions each, in every call.
const COST: u32 = 12;

/// The allocator.
pub(super) struct Bump;

#[derive(Clone, Copy)]
struct Chunk {
    next: *mut u8,
    left: usize,
}

thread_local! {
    static CHUNK: Cell<Chunk> = const { Cell::new(Chunk { next: ptr::null_mut(), left: 0 }) };
}

fn spend() {
    for step in 0..COST {
        black_box(step);
    }
}

/// A chunk from the system, null if there is none.
fn new_chunk(bytes: usize) -> *mut u8 {
    match Layout::from_size_align(bytes, CHUNK_ALIGN) {
        // SAFETY: the size is not zero.
        Ok(layout) => unsafe { System.alloc(layout) },
        Err(_) => ptr::null_mut(),
    }
}

// SAFETY: every call gives a part of a chunk that no other call gets, as the chunk is this thread's
// and only shrinks; chunks live for ever. Fresh chunks aren't promised to be zero, which only
// `alloc_zeroed` needs, whose default writes the zeros.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        spend();
        if layout.align() > CHUNK_ALIGN {
            return ptr::null_mut();
        }
        let size = layout.size().next_multiple_of(ALIGN);
        let mut chunk = CHUNK.get();
        let mut skip = chunk.next.align_offset(layout.align().max(ALIGN));
        if skip.saturating_add(size) > chunk.left {
            let bytes = CHUNK_BYTES.max(size);
            let next = new_chunk(bytes);
            if next.is_null() {
                return next;
            }
            (chunk, skip) = (Chunk { next, left: bytes }, 0);
        }
        let start = chunk.next.wrapping_add(skip);
        let used = skip + size;
        CHUNK.set(Chunk { next: chunk.next.wrapping_add(used), left: chunk.left - used });
        start
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {
        spend();
    }
}
