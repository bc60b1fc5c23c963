//! Chunks that a database's memtables are made of, while no memtable has them.
//!
//! The first touch of memory is dear: the kernel clears it, and in a virtual machine the host may
//! have to find it first, which was measured to take five milliseconds for a huge page. So chunks
//! of a memtable that was flushed go to the next one, and while there are none to pass on, a thread
//! touches new ones ahead of need (see `commit::ahead`).
//!
//! Guarantees: a chunk is in one arena or in the stock, never in both; the stock keeps at most as
//! many chunks as one memtable has.

#![forbid(unsafe_code)]

use super::arena::CHUNK_BYTES;
use super::pages::Chunk;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Chunks to have ready while memtables grow.
const READY: usize = 2;

/// A memtable of fewer chunks than this touches its memory itself: it is not worth keeping any.
const CHUNKS_MIN: usize = 4;

/// The chunks that are free.
pub(crate) struct ChunkStock {
    free: Mutex<Vec<Chunk>>,
    /// Most chunks to keep; 0 for memtables too small to be worth it.
    kept_max: usize,
    /// Set while fewer than [`READY`] are free, by whoever takes one. Relaxed: it is a hint.
    low: AtomicBool,
}

impl ChunkStock {
    /// A stock for memtables of about so many bytes.
    pub(crate) fn new(memtable_bytes: usize) -> Self {
        let chunks = memtable_bytes.div_ceil(CHUNK_BYTES);
        Self {
            free: Mutex::new(Vec::new()),
            kept_max: if chunks < CHUNKS_MIN { 0 } else { chunks },
            low: AtomicBool::new(false),
        }
    }

    /// Whether to ask the system for huge pages: not worth the clearing for small memtables.
    pub(crate) fn huge_pages(&self) -> bool {
        self.kept_max > 0
    }

    /// A chunk for an arena; the first one of an arena does not count as a sign of growth.
    pub(crate) fn take(&self, is_first: bool) -> Option<Chunk> {
        if self.kept_max == 0 {
            return Chunk::fresh(false);
        }
        let free = {
            let mut free = self.free.lock().expect("nothing panics under this lock");
            let taken = free.pop();
            if free.len() < READY && !is_first {
                self.low.store(true, Ordering::Relaxed);
            }
            taken
        };
        free.or_else(|| Chunk::fresh(true))
    }

    /// Takes back a chunk, to keep it or to free it.
    pub(crate) fn give(&self, chunk: Chunk) {
        if self.kept_max == 0 {
            return;
        }
        let mut free = self.free.lock().expect("nothing panics under this lock");
        if free.len() < self.kept_max {
            free.push(chunk);
        }
    }

    /// True if [`refill`](Self::refill) has something to do.
    #[inline]
    pub(crate) fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Makes new chunks, touched, until enough are ready.
    pub(crate) fn refill(&self) {
        if !self.is_low() {
            return;
        }
        self.low.store(false, Ordering::Relaxed);
        while self.len() < READY {
            // Out of memory: who needs a chunk will be told.
            let Some(mut chunk) = Chunk::fresh(true) else { return };
            chunk.touch();
            self.give(chunk);
        }
    }

    /// How many chunks are free.
    fn len(&self) -> usize {
        self.free.lock().expect("nothing panics under this lock").len()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_passed_on_and_made_ahead_while_memtables_grow() {
        let stock = ChunkStock::new(4 * CHUNK_BYTES);
        let first = stock.take(true).unwrap();
        assert!(!stock.is_low(), "an empty memtable needs nothing yet");
        let second = stock.take(false).unwrap();
        assert!(stock.is_low());
        stock.refill();
        assert!(!stock.is_low());
        assert_eq!(stock.len(), READY);
        drop((first, second));
        for _ in 0..10 {
            stock.give(Chunk::fresh(false).unwrap());
        }
        assert_eq!(stock.len(), 4, "no more than one memtable has");
        for _ in 0..2 {
            drop(stock.take(false).unwrap());
        }
        assert!(!stock.is_low());
        drop(stock.take(false).unwrap());
        assert!(stock.is_low());
    }

    #[test]
    fn small_memtables_keep_nothing() {
        let stock = ChunkStock::new(CHUNK_BYTES);
        drop(stock.take(false).unwrap());
        assert!(!stock.is_low());
        stock.give(Chunk::fresh(false).unwrap());
        stock.refill();
        assert_eq!(stock.len(), 0);
    }
}
