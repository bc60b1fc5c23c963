//! The memory of one memtable: a lock-free bump allocator over chunks, addressed with 32 bits and
//! freed as a whole. Chunks come from a [`ChunkStock`] and go back to it.
//!
//! ```text
//! address = slot (14 bits) | unit in the chunk (18 bits), a unit is 8 bytes
//!
//! slot      0        1        2                  16381     16382     16383
//!        +--------+--------+--------+--    --+---------+---------+---------+
//!        | chunk  | chunk  |  null  |  ...   |  null   |    dedicated      |
//!        +--------+--------+--------+--    --+---------+---------+---------+
//!        small allocations grow upwards ->     <- large allocations grow downwards
//! ```
//!
//! Small allocations share 2 MiB chunks and never cross the end of one. A large allocation gets
//! memory of its own and as many neighbouring slots as it is long, so that its bytes are addressed
//! like any others. 32 GiB can be addressed.
//!
//! Guarantees: two allocations never overlap; memory stays where it is, and stays allocated, until
//! the arena is dropped; when the address space or the system's memory is used up, an allocation is
//! refused and nothing else changes.
//!
//! Orderings of the atomics:
//! - `reserved`: relaxed. Its modification order alone makes ranges disjoint; it publishes no
//!   memory.
//! - `directory[slot]`: set once, with a release exchange, and paired with the acquire load in
//!   `chunk`, so that whoever allocates in a chunk that somebody else made sees it as mapped.
//!   `pointer` may load relaxed: it is called with addresses that reached the caller through an
//!   acquire load of a link (or from its own allocation), which already happens after the exchange.
//! - `dedicated_bytes`: relaxed, a statistic.

use std::ptr;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::pages::{self, Chunk};
use super::stock::ChunkStock;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Granularity of addresses, and alignment of every allocation.
pub(crate) const UNIT_BYTES: usize = 8;

/// Models and the interpreter get tiny chunks, so that their few allocations meet every case.
const CHUNK_UNITS_LOG2: u32 = if cfg!(loom) {
    5
} else if cfg!(miri) {
    9
} else {
    18
};
const CHUNK_UNITS: u64 = 1 << CHUNK_UNITS_LOG2;
pub(crate) const CHUNK_BYTES: usize = UNIT_BYTES << CHUNK_UNITS_LOG2;
pub(crate) const SLOTS: usize = if cfg!(loom) {
    4
} else if cfg!(miri) {
    1 << 9
} else {
    1 << 14
};

/// Longer allocations get memory of their own: a bound on what is lost at the ends of chunks.
pub(crate) const SHARED_BYTES_MAX: usize = if cfg!(loom) { CHUNK_BYTES } else { CHUNK_BYTES / 4 };

/// In `reserved`, the count of dedicated slots stands above the count of shared units.
const DEDICATED_SHIFT: u32 = 40;

const _: () = assert!((SLOTS as u64) << CHUNK_UNITS_LOG2 <= 1 << 32, "addresses have 32 bits");
const _: () = assert!((SLOTS as u64) << CHUNK_UNITS_LOG2 < 1 << (DEDICATED_SHIFT - 1));

/// Where an allocation starts, in units. Zero is no address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) u32);

impl Address {
    pub(crate) const NULL: Self = Self(0);

    /// The address `bytes` further on, inside of the same allocation.
    pub(crate) fn plus(self, bytes: usize) -> Self {
        debug_assert!(bytes.is_multiple_of(UNIT_BYTES));
        Self(self.0 + (bytes / UNIT_BYTES) as u32)
    }
}

/// The allocator. Dropping it gives all chunks back to the stock; the contents are not dropped.
pub(crate) struct Arena {
    directory: Box<[AtomicPtr<u8>; SLOTS]>,
    /// Slots given to large allocations << 40 | units given to small ones.
    reserved: CachePadded<AtomicU64>,
    dedicated_bytes: AtomicUsize,
    /// First slot and length of each large allocation, for freeing them.
    dedicated: Mutex<Vec<(usize, usize)>>,
    /// Where chunks come from and go to.
    stock: Arc<ChunkStock>,
}

impl Arena {
    /// An arena that gets its chunks from `stock`. Takes no memory for contents yet.
    pub(crate) fn new(stock: Arc<ChunkStock>) -> Self {
        let directory: Vec<_> = (0..SLOTS).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
        Self {
            directory: directory.into_boxed_slice().try_into().expect("as many slots as asked for"),
            // The first unit is never given away, because zero is no address.
            reserved: CachePadded::new(AtomicU64::new(1)),
            dedicated_bytes: AtomicUsize::new(0),
            dedicated: Mutex::new(Vec::new()),
            stock,
        }
    }

    /// The stock of chunks.
    pub(crate) fn stock(&self) -> &ChunkStock {
        &self.stock
    }

    /// Bytes handed out, with what was lost at the ends of chunks.
    pub(crate) fn memory_usage(&self) -> usize {
        let (_, shared_units) = split(self.reserved.load(Ordering::Relaxed));
        let dedicated = self.dedicated_bytes.load(Ordering::Relaxed);
        (shared_units as usize).saturating_mul(UNIT_BYTES).saturating_add(dedicated)
    }

    /// Memory for `bytes` bytes that no other call will ever get; `None` if there is no more.
    ///
    /// The contents are undefined.
    #[inline]
    pub(crate) fn allocate(&self, bytes: usize) -> Option<Address> {
        if bytes > SHARED_BYTES_MAX {
            return self.allocate_dedicated(bytes);
        }
        let units = bytes.div_ceil(UNIT_BYTES).max(1) as u64;
        loop {
            // Refusing before adding keeps the count from growing without bound when the arena is
            // full.
            let (dedicated_slots, shared_units) = split(self.reserved.load(Ordering::Relaxed));
            if shared_units + units > shared_limit(dedicated_slots) {
                return None;
            }
            let (dedicated_slots, start) = split(self.reserved.fetch_add(units, Ordering::Relaxed));
            if start + units > shared_limit(dedicated_slots) {
                return None;
            }
            let slot = (start >> CHUNK_UNITS_LOG2) as usize;
            if (start + units - 1) >> CHUNK_UNITS_LOG2 == slot as u64 {
                self.chunk(slot)?;
                return Some(Address(start as u32));
            }
            // The range crosses the end of a chunk: it is lost, and the next one starts behind it.
        }
    }

    #[cold]
    fn allocate_dedicated(&self, bytes: usize) -> Option<Address> {
        let slots = bytes.div_ceil(CHUNK_BYTES) as u64;
        let reserve = |reserved| {
            let (dedicated_slots, shared_units) = split(reserved);
            let after = dedicated_slots.checked_add(slots).filter(|&s| s < SLOTS as u64)?;
            (shared_units <= shared_limit(after)).then(|| reserved + (slots << DEDICATED_SHIFT))
        };
        let before =
            self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).ok()?;
        let first = SLOTS - (split(before).0 + slots) as usize;
        let base = pages::allocate(bytes, self.stock.huge_pages())?;
        for index in 0..slots as usize {
            // The slots are this call's alone. Readers learn of the address through an acquire
            // load, see above.
            let part = base.wrapping_add(index * CHUNK_BYTES);
            self.directory[first + index].store(part, Ordering::Release);
        }
        self.dedicated_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut dedicated = self.dedicated.lock().expect("nothing panics under this lock");
        dedicated.push((first, bytes));
        Some(Address((first as u32) << CHUNK_UNITS_LOG2))
    }

    /// Makes sure that the chunk of a shared slot exists.
    #[inline]
    fn chunk(&self, slot: usize) -> Option<()> {
        if self.directory[slot].load(Ordering::Acquire).is_null() {
            self.make_chunk(slot)
        } else {
            Some(())
        }
    }

    #[cold]
    fn make_chunk(&self, slot: usize) -> Option<()> {
        let chunk = self.stock.take(slot == 0)?.into_raw();
        let exchanged = self.directory[slot].compare_exchange(
            ptr::null_mut(),
            chunk,
            Ordering::Release,
            Ordering::Acquire,
        );
        if exchanged.is_err() {
            // SAFETY: `chunk` came from `into_raw`, and the exchange did not publish it.
            let unused = unsafe { Chunk::from_raw(chunk) };
            unused.into_iter().for_each(|chunk| self.stock.give(chunk));
        }
        Some(())
    }

    /// Where the memory of `address` is. Null, or past the end, for an address that `allocate` did
    /// not return.
    #[inline(always)]
    pub(crate) fn pointer(&self, address: Address) -> *mut u8 {
        let slot = (address.0 >> CHUNK_UNITS_LOG2) as usize;
        let unit = (u64::from(address.0) & (CHUNK_UNITS - 1)) as usize;
        self.directory[slot].load(Ordering::Relaxed).wrapping_add(unit * UNIT_BYTES)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let (dedicated_slots, _) = split(self.reserved.load(Ordering::Relaxed));
        for slot in &self.directory[..SLOTS - dedicated_slots as usize] {
            let chunk = slot.load(Ordering::Relaxed);
            if chunk.is_null() {
                continue;
            }
            // SAFETY: shared slots hold whole chunks of `make_chunk`, and `&mut self` says that
            // nobody uses them.
            let unused = unsafe { Chunk::from_raw(chunk) };
            unused.into_iter().for_each(|chunk| self.stock.give(chunk));
        }
        let dedicated = self.dedicated.lock().expect("nothing panics under this lock");
        for &(first, bytes) in &*dedicated {
            let base = self.directory[first].load(Ordering::Relaxed);
            // SAFETY: `base` came from `allocate` with this length, and `&mut self` says that
            // nobody uses it.
            unsafe { pages::free(base, bytes) };
        }
    }
}

/// Dedicated slots and shared units of a value of `reserved`.
#[inline]
fn split(reserved: u64) -> (u64, u64) {
    (reserved >> DEDICATED_SHIFT, reserved & ((1 << DEDICATED_SHIFT) - 1))
}

/// How many units small allocations may take beside that many dedicated slots.
#[inline]
fn shared_limit(dedicated_slots: u64) -> u64 {
    (SLOTS as u64).saturating_sub(dedicated_slots) << CHUNK_UNITS_LOG2
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn fill(arena: &Arena, address: Address, bytes: usize, with: u8) {
        // SAFETY: the test owns the allocation, which has this length.
        unsafe { arena.pointer(address).write_bytes(with, bytes) };
    }

    fn holds(arena: &Arena, address: Address, bytes: usize, with: u8) -> bool {
        // SAFETY: the allocation has this length and was filled before.
        let contents = unsafe { std::slice::from_raw_parts(arena.pointer(address), bytes) };
        contents.iter().all(|&byte| byte == with)
    }

    #[test]
    fn allocations_of_all_sizes_keep_their_contents() {
        let arena = Arena::new(ChunkStock::new(0).into());
        let sizes = [
            1,
            7,
            8,
            SHARED_BYTES_MAX - 1,
            SHARED_BYTES_MAX,
            SHARED_BYTES_MAX + 1,
            3 * CHUNK_BYTES,
            3 * CHUNK_BYTES + 1,
        ];
        let mut made = Vec::new();
        for round in 0..5_u8 {
            for (index, &bytes) in sizes.iter().enumerate() {
                let address = arena.allocate(bytes).expect("there is room");
                assert_ne!(address, Address::NULL);
                let with = round * 16 + index as u8;
                fill(&arena, address, bytes, with);
                made.push((address, bytes, with));
            }
        }
        for (address, bytes, with) in made {
            assert!(holds(&arena, address, bytes, with), "{bytes} bytes of {with}");
        }
        assert!(arena.memory_usage() >= 5 * sizes.iter().sum::<usize>());
    }

    #[test]
    fn concurrent_allocations_do_not_overlap() {
        let arena = Arena::new(ChunkStock::new(0).into());
        let (threads, each) = if cfg!(miri) { (3, 60) } else { (4, 20_000_usize) };
        let made: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let arena = &arena;
                    scope.spawn(move || {
                        let with = thread as u8 + 1;
                        let allocate = |index: usize| {
                            let bytes = 8 + (index * 37) % 600;
                            let address = arena.allocate(bytes).expect("there is room");
                            fill(arena, address, bytes, with);
                            (address, bytes, with)
                        };
                        (0..each).map(allocate).collect::<Vec<_>>()
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
        });
        assert_eq!(made.len(), threads * each);
        for (address, bytes, with) in made {
            assert!(holds(&arena, address, bytes, with));
        }
    }

    #[test]
    fn a_full_arena_refuses_and_keeps_what_it_has() {
        // Only address space is used up: memory that nobody touches costs nothing.
        let arena = Arena::new(ChunkStock::new(0).into());
        let first = arena.allocate(8).expect("there is room");
        fill(&arena, first, 8, 1);
        let half = SLOTS / 2 * CHUNK_BYTES;
        assert!(arena.allocate(half).is_some());
        assert!(arena.allocate(half).is_none());
        assert!(arena.allocate(usize::MAX).is_none());
        let mut last = None;
        while let Some(address) = arena.allocate(SHARED_BYTES_MAX) {
            last = Some(address);
        }
        let last = last.expect("there was room for some");
        fill(&arena, last, SHARED_BYTES_MAX, 2);
        assert!(arena.allocate(SHARED_BYTES_MAX).is_none());
        assert!(arena.allocate(CHUNK_BYTES).is_none());
        assert!(holds(&arena, first, 8, 1));
    }
}
