//! Decompressed blocks of compressed tables, in bounded memory.
//!
//! Uncompressed blocks never come here: the page cache holds them and they are read in place.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::file_name::FileNumber;

/// One decompressed data block.
#[derive(Debug)]
pub(crate) struct Block {
    pub(super) bytes: Vec<u8>,
}

/// File number and block offset.
type BlockKey = (FileNumber, u64);

/// What an entry costs beside its bytes: the cache's own slot, the key and the shared pointer.
const ENTRY_OVERHEAD: u64 = 96;

#[derive(Clone)]
struct ByBytes;

impl Weighter<BlockKey, Arc<Block>> for ByBytes {
    fn weight(&self, _key: &BlockKey, block: &Arc<Block>) -> u64 {
        block.bytes.capacity() as u64 + ENTRY_OVERHEAD
    }
}

/// Mixes two numbers that nobody outside chooses.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Multiplying moves entropy up, the shift brings it down again: the cache uses all bits.
        let mixed = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

/// A cache of decompressed blocks, shared by all tables of a database.
pub(crate) struct BlockCache {
    blocks: Cache<BlockKey, Arc<Block>, ByBytes, BuildHasherDefault<KeyHasher>>,
    capacity_bytes: u64,
    // Counters: nothing is published through them, so their order with other memory is of no importance.
    hits: AtomicU64,
    misses: AtomicU64,
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`; 0 keeps nothing.
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        let expected_blocks = (capacity_bytes / 4096).clamp(64, 1 << 24) as usize;
        let hasher = BuildHasherDefault::default();
        let lifecycle = quick_cache::sync::DefaultLifecycle::default();
        Self {
            blocks: Cache::with(expected_blocks, capacity_bytes, ByBytes, hasher, lifecycle),
            capacity_bytes,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The block, if it is cached.
    pub(super) fn get(&self, number: FileNumber, offset: u64) -> Option<Arc<Block>> {
        let found = self.blocks.get(&(number, offset));
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Relaxed);
        found
    }

    /// Whether [`get`](Self::get) would find the block. Counts neither as a hit nor as a use.
    pub(super) fn contains(&self, number: FileNumber, offset: u64) -> bool {
        self.blocks.contains_key(&(number, offset))
    }

    /// Keeps a block, perhaps in the place of others.
    pub(super) fn insert(&self, number: FileNumber, offset: u64, block: Arc<Block>) {
        if self.capacity_bytes > 0 {
            self.blocks.insert((number, offset), block);
        }
    }

    /// Look-ups that found their block.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Relaxed)
    }

    /// Look-ups that did not.
    pub(crate) fn misses(&self) -> u64 {
        self.misses.load(Relaxed)
    }

    /// Memory in use, in bytes.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.blocks.weight()
    }
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockCache({} of {} bytes)", self.used_bytes(), self.capacity_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(len: usize) -> Arc<Block> {
        Arc::new(Block { bytes: vec![1; len] })
    }

    #[test]
    fn memory_stays_bounded_and_counters_tell_hits_from_misses() {
        let cache = BlockCache::new(1 << 20);
        for offset in 0..10_000 {
            cache.insert(1, offset, block(4096));
            assert!(cache.used_bytes() <= 1 << 20, "{cache:?}");
        }
        cache.insert(2, 0, block(100));
        assert!(cache.get(2, 0).is_some());
        assert!(cache.get(2, 1).is_none() && cache.get(3, 0).is_none());
        assert_eq!((cache.hits(), cache.misses()), (1, 2));
    }

    #[test]
    fn cache_without_capacity_keeps_nothing() {
        let cache = BlockCache::new(0);
        cache.insert(1, 1, block(10));
        assert!(cache.get(1, 1).is_none());
        assert_eq!(cache.used_bytes(), 0);
    }
}
