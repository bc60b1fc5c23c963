//! Which keys a memtable may hold: a Bloom filter that is filled while it is asked.
//!
//! Most lookups find nothing in memory, and searching the list to learn that costs a few cache misses. Here a key sets
//! [`PROBES`] bits of one word, and asking is one load from an array small enough for a near cache. The array has a size for
//! the records of 128 bytes that a memtable takes; with many more and smaller ones it answers "perhaps" more often. (Blocks of one
//! word: Putze et al., "Cache-, hash- and space-efficient Bloom filters", 2007.)
//!
//! Guarantees: a key whose record a reader knows of is never denied. All accesses are relaxed, because what tells
//! the reader of the record (the visible sequence number) was stored after the bits, with release.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use crate::simd::prefetch_at;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Bits set and tested for a key: the fewest false positives at about ten bits a key.
const PROBES: u32 = 4;

/// Bytes of memtable for each word: six records of 128 bytes and their nodes, at ten bits each.
const MEMTABLE_BYTES_PER_WORD: usize = 1024;

/// More than this many filters are not kept for later: one memtable is filled while another is flushed.
const SPARES_MAX: usize = 2;

/// The filter of one memtable.
pub(super) struct Presence {
    words: Box<[AtomicU64]>,
    stock: Arc<PresenceStock>,
}

/// Filters of memtables that are gone, ready for others: fresh memory is dear at its first touch.
pub(super) struct PresenceStock {
    words: usize,
    spares: Mutex<Vec<Box<[AtomicU64]>>>,
}

impl PresenceStock {
    /// For memtables of about so many bytes.
    pub(super) fn new(memtable_bytes: usize) -> Self {
        let words = memtable_bytes.div_ceil(MEMTABLE_BYTES_PER_WORD).max(1);
        Self { words, spares: Mutex::default() }
    }

    /// The filter of a memtable without keys.
    pub(super) fn take(self: &Arc<Self>) -> Presence {
        let spare = self.spares.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let fresh = || std::iter::repeat_with(AtomicU64::default).take(self.words).collect();
        Presence { words: spare.unwrap_or_else(fresh), stock: Arc::clone(self) }
    }
}

impl Presence {
    /// The word of a key's hash, and the bits in it.
    #[inline]
    fn place(&self, hash: u64) -> (Option<&AtomicU64>, u64) {
        // The high half chooses the word, six bits of the low half each bit.
        let index = ((hash >> 32) * self.words.len() as u64) >> 32;
        let bits = (0..PROBES).fold(0, |bits, probe| bits | 1 << ((hash >> (6 * probe)) & 63));
        (self.words.get(index as usize), bits)
    }

    /// Adds the key with this hash, before its record is inserted.
    #[inline]
    pub(super) fn add(&self, hash: u64) {
        if let (Some(word), bits) = self.place(hash)
            // Keys that are written again need no store that all processors must learn of.
            && word.load(Ordering::Relaxed) & bits != bits
        {
            word.fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// Brings in what [`add`](Self::add) and [`may_contain`](Self::may_contain) will touch.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if let (Some(word), _) = self.place(hash) {
            prefetch_at(std::ptr::from_ref(word).cast());
        }
    }

    /// False if no key with this hash was added.
    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let (word, bits) = self.place(hash);
        word.is_none_or(|word| word.load(Ordering::Relaxed) & bits == bits)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut words = std::mem::take(&mut self.words);
        let mut spares = self.stock.spares.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < SPARES_MAX {
            words.iter_mut().for_each(|word| *word.get_mut() = 0);
            spares.push(words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hash_key;

    fn hash(number: u64) -> u64 {
        hash_key(&number.to_be_bytes())
    }

    #[test]
    fn no_key_is_denied_and_few_others_are_not() {
        let bytes = if cfg!(miri) { 64 << 10 } else { 4 << 20 };
        let keys = bytes as u64 / 160;
        let stock = Arc::new(PresenceStock::new(bytes));
        let presence = stock.take();
        assert!(!(0..keys).any(|number| presence.may_contain(hash(number))), "it is empty");
        (0..keys).for_each(|number| presence.add(hash(number)));
        assert!((0..keys).all(|number| presence.may_contain(hash(number))));
        let wrong = (keys..2 * keys).filter(|&number| presence.may_contain(hash(number))).count();
        assert!((wrong as u64) < keys / 20, "{wrong} of {keys}");
    }

    #[test]
    fn a_filter_that_is_passed_on_has_forgotten_everything() {
        let stock = Arc::new(PresenceStock::new(1));
        let all = [stock.take(), stock.take(), stock.take()];
        all.iter().for_each(|presence| presence.add(7));
        drop(all);
        assert_eq!(stock.spares.lock().unwrap().len(), SPARES_MAX);
        let again = stock.take();
        assert!(!again.may_contain(7));
        assert_eq!(stock.spares.lock().unwrap().len(), SPARES_MAX - 1);
    }
}
