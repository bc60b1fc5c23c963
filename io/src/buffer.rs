//! Memory aligned for `O_DIRECT`.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt::{self, Debug};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment of every [`AlignedBuffer`]: one page, which satisfies every device known.
pub const BUFFER_ALIGN: usize = 4096;

/// A growable byte buffer whose memory starts at a page boundary, for direct I/O.
pub struct AlignedBuffer {
    memory: NonNull<u8>,
    capacity: usize,
    len: usize,
}

// SAFETY: the buffer owns its memory exclusively, as a Vec<u8> does.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared access only reads the bytes.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// An empty buffer that can hold at least `capacity` bytes before it grows.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.max(1).next_multiple_of(BUFFER_ALIGN);
        Self { memory: allocate(capacity), capacity, len: 0 }
    }

    /// Bytes that fit without growing.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets the content, keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends bytes, growing by doubling where needed.
    pub fn extend_from_slice(&mut self, data: &[u8]) {
        self.reserve(data.len());
        let start = self.len;
        self.len += data.len();
        self[start..].copy_from_slice(data);
    }

    /// Changes the length; new bytes are zero.
    pub fn resize(&mut self, len: usize) {
        let old = self.len;
        if len > old {
            self.reserve(len - old);
            self.len = len;
            self[old..].fill(0);
        } else {
            self.len = len;
        }
    }

    fn reserve(&mut self, additional: usize) {
        let needed = self.len.checked_add(additional).expect("a buffer never exceeds usize");
        if needed <= self.capacity {
            return;
        }
        let mut larger = Self::with_capacity(needed.max(self.capacity * 2));
        larger.len = self.len;
        larger.copy_from_slice(self);
        *self = larger;
    }
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, BUFFER_ALIGN).expect("a capacity of whole pages below isize")
}

fn allocate(capacity: usize) -> NonNull<u8> {
    let layout = layout(capacity);
    // SAFETY: `with_capacity` never asks for zero bytes.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `allocate` with this very layout, and freed once.
        unsafe { dealloc(self.memory.as_ptr(), layout(self.capacity)) }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len <= capacity` bytes are allocated, and all were zeroed or written since.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuffer({} of {} bytes)", self.len, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_keeps_content_and_stays_aligned() {
        let mut buffer = AlignedBuffer::with_capacity(10);
        for i in 0..3000_u32 {
            buffer.extend_from_slice(&i.to_le_bytes());
        }
        assert_eq!(buffer.len(), 12_000);
        assert_eq!(buffer.as_ptr() as usize % BUFFER_ALIGN, 0);
        for i in 0..3000_u32 {
            let at = i as usize * 4;
            assert_eq!(buffer[at..at + 4], i.to_le_bytes());
        }
        buffer.clear();
        buffer.resize(5000);
        assert!(buffer.iter().all(|&byte| byte == 0), "resize must not show old bytes");
    }
}
