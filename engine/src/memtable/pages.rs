//! Memory straight from the system for the arenas of memtables.

use std::ptr::NonNull;

use super::arena::CHUNK_BYTES;

/// A chunk that no arena uses. Its contents are undefined.
#[derive(Debug)]
pub(crate) struct Chunk(NonNull<u8>);

// SAFETY: a chunk is plain memory that it alone owns; nothing about it belongs to a thread.
unsafe impl Send for Chunk {}

impl Chunk {
    /// Memory that was never touched; `None` if the system has no more.
    pub(crate) fn fresh(huge_pages: bool) -> Option<Self> {
        system::allocate(CHUNK_BYTES, huge_pages).and_then(NonNull::new).map(Self)
    }

    /// Has the system put memory behind all of the chunk now, so that its user need not wait for that.
    pub(crate) fn touch(&mut self) {
        system::touch(self.0.as_ptr(), CHUNK_BYTES);
    }

    /// The memory, which the caller owns from now on.
    pub(crate) fn into_raw(self) -> *mut u8 {
        let base = self.0.as_ptr();
        std::mem::forget(self);
        base
    }

    /// Takes the memory back.
    ///
    /// # Safety
    /// `base` is from [`into_raw`](Self::into_raw), is given back once, and nobody uses it any more.
    pub(crate) unsafe fn from_raw(base: *mut u8) -> Option<Self> {
        NonNull::new(base).map(Self)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: the memory came from `allocate` with this length, and this is its only owner.
        unsafe { free(self.0.as_ptr(), CHUNK_BYTES) };
    }
}

/// Memory of any length, aligned to 8 bytes at least; `None` if the system has no more.
pub(crate) fn allocate(bytes: usize, huge_pages: bool) -> Option<*mut u8> {
    system::allocate(bytes, huge_pages)
}

/// Gives memory back.
///
/// # Safety
/// `base` is from [`allocate`] with the same length, is freed once, and nobody uses it any more.
pub(crate) unsafe fn free(base: *mut u8, bytes: usize) {
    // SAFETY: promised by the caller.
    unsafe { system::free(base, bytes) };
}

/// Private mappings: given back to the system at once when they are freed.
#[cfg(not(any(loom, miri)))]
mod system {
    use std::ptr;

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    /// No system has smaller pages.
    const PAGE_BYTES: usize = 4096;

    pub(super) fn allocate(bytes: usize, huge_pages: bool) -> Option<*mut u8> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no existing
        // memory.
        let mapped = unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, flags) };
        let base = mapped.ok()?;
        if huge_pages {
            // SAFETY: the range is the mapping just made; the advice does not change its contents.
            let advised = unsafe { madvise(base, bytes, Advice::LinuxHugepage) };
            // A kernel without huge pages refuses, and ordinary pages do as well.
            let _ = advised;
        }
        Some(base.cast())
    }

    /// Page by page and not by one call for all: that call would hold the lock of the address space while the kernel
    /// clears memory, and whoever maps anything then keeps everybody else waiting for it.
    pub(super) fn touch(base: *mut u8, bytes: usize) {
        for offset in (0..bytes).step_by(PAGE_BYTES) {
            // SAFETY: the offset is inside of the mapping of `allocate`, which nobody else uses yet.
            unsafe { ptr::write_volatile(base.wrapping_add(offset), 0) };
        }
    }

    /// # Safety
    /// As for [`super::free`].
    pub(super) unsafe fn free(base: *mut u8, bytes: usize) {
        // SAFETY: promised by the caller.
        let unmapped = unsafe { munmap(base.cast(), bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of an own mapping failed: {unmapped:?}");
    }
}

/// Memory from the global allocator, where a model or the interpreter watches over it.
#[cfg(any(loom, miri))]
mod system {
    use std::alloc::{Layout, alloc, dealloc};

    use super::super::arena::UNIT_BYTES;

    pub(super) fn allocate(bytes: usize, _huge_pages: bool) -> Option<*mut u8> {
        let layout = Layout::from_size_align(bytes, UNIT_BYTES).ok()?;
        // SAFETY: no allocation of the arena is empty.
        let base = unsafe { alloc(layout) };
        (!base.is_null()).then_some(base)
    }

    pub(super) fn touch(_base: *mut u8, _bytes: usize) {}

    /// # Safety
    /// As for [`super::free`].
    pub(super) unsafe fn free(base: *mut u8, bytes: usize) {
        let layout = Layout::from_size_align(bytes, UNIT_BYTES).expect("it was allocated so");
        // SAFETY: promised by the caller.
        unsafe { dealloc(base, layout) };
    }
}
