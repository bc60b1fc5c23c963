//! The keys of a commit on their way to their places in the memtable, before the commit has its place in the order.
//!
//! Whoever makes a batch whose keys lie far apart sets out for them early, and goes on whenever there is something else to do between two
//! moves: waiting for memory then costs nothing (see [`skiplist`](super::skiplist)). The inserts use what was found. All of it is a
//! hint: what was not found by then, or of another memtable, is searched by the inserts.
//!
//! Other records in no order, of a batch or of the log in recovery, are searched for a few at a time, right before they are inserted.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::skiplist::Approach;
use super::{Memtable, Splice};
use crate::error::Result;
use crate::key::{Trailer, hash_key};

/// Keys that are under way at once, at most: about as many misses as a processor has outstanding.
pub(crate) const KEYS_MAX: usize = 8;

/// A search that has not arrived after so many moves is left to the insert: what it has brought in may be gone again.
pub(super) const MOVES_MAX: usize = 32;

/// A record on its way into the memtable.
#[derive(Clone, Copy, Default)]
pub(crate) struct NewRecord<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) trailer: Trailer,
    pub(crate) value: &'a [u8],
}

/// Inserts records. Where they come in no order, the searches for the places of a few take turns, so that they wait for memory together.
pub(crate) fn insert_all(
    memtable: &Arc<Memtable>,
    records: &[NewRecord<'_>],
    splice: &mut Splice,
    searches: &mut Approaches,
) -> Result<()> {
    for group in records.chunks(KEYS_MAX) {
        if group.len() == 1 || !splice.is_left_out(group.len() as u32) {
            for &NewRecord { key, trailer, value } in group {
                memtable.insert(key, trailer, value, splice)?;
            }
            continue;
        }
        searches.begin(memtable);
        for record in group {
            searches.set_out(record.trailer, |key| {
                key.extend_from_slice(record.key);
                Ok(())
            })?;
        }
        for (index, &record) in group.iter().enumerate() {
            searches.arrive_at(index);
            memtable.insert_by(&searches.ways[index], record, splice)?;
        }
        searches.end();
    }
    Ok(())
}

/// Searches for the places of some keys.
#[derive(Default)]
pub(crate) struct Approaches {
    memtable: Option<Arc<Memtable>>,
    /// The first `count` are under way; the others only keep their memory.
    ways: Vec<Way>,
    count: usize,
}

/// The search for the place of one key.
#[derive(Default)]
pub(super) struct Way {
    key: Vec<u8>,
    pub(super) hash: u64,
    pub(super) place: Approach,
}

impl Approaches {
    /// Forgets everything, and begins with a memtable.
    pub(crate) fn begin(&mut self, memtable: &Arc<Memtable>) {
        self.memtable = Some(Arc::clone(memtable));
        self.count = 0;
    }

    /// Forgets everything.
    pub(crate) fn end(&mut self) {
        self.memtable = None;
        self.count = 0;
    }

    /// Forgets the oldest searches if there is not room for so many more.
    pub(crate) fn make_room(&mut self, keys: usize) {
        if self.count + keys > KEYS_MAX {
            self.count = 0;
        }
    }

    /// Begins the search for the place of a record, whose key `write` puts into an empty buffer, if there is room for it; `NEWEST` is for one
    /// that has no sequence number yet.
    pub(crate) fn set_out(
        &mut self,
        trailer: Trailer,
        write: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let Some(memtable) = self.memtable.as_ref().filter(|_| self.count < KEYS_MAX) else {
            return Ok(());
        };
        if self.count == self.ways.len() {
            self.ways.push(Way::default());
        }
        let way = &mut self.ways[self.count];
        way.key.clear();
        write(&mut way.key)?;
        way.hash = hash_key(&way.key);
        way.place = memtable.set_out(&way.key, way.hash, trailer);
        self.count += 1;
        Ok(())
    }

    /// Goes on by one move of each search.
    pub(crate) fn go_on(&mut self) {
        let Some(memtable) = &self.memtable else { return };
        for way in &mut self.ways[..self.count] {
            memtable.go_on(&way.key, &mut way.place);
        }
    }

    /// Goes on with all until a lookup of a key has nothing to wait for in the memtable: at once if the memtable certainly lacks it.
    pub(crate) fn await_lookup(&mut self, key: &[u8]) {
        let (Some(memtable), Some(way)) = (&self.memtable, self.of(key)) else { return };
        if memtable.presence.may_contain(way.hash) {
            self.arrive(key);
        }
    }

    /// Goes on with all until the search for the place of a key is over, or takes too long.
    pub(crate) fn arrive(&mut self, key: &[u8]) {
        if let Some(index) = self.ways().iter().position(|way| way.key == key) {
            self.arrive_at(index);
        }
    }

    fn arrive_at(&mut self, index: usize) {
        for _ in 0..MOVES_MAX {
            if !self.ways[index].place.is_under_way() {
                return;
            }
            self.go_on();
        }
    }

    /// The search for the place of a key, if there is one.
    #[inline]
    pub(super) fn of(&self, key: &[u8]) -> Option<&Way> {
        self.ways().iter().find(|way| way.key == key)
    }

    fn ways(&self) -> &[Way] {
        &self.ways[..self.count]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::key::ValueKind;
    use crate::memtable::skiplist::check::check_links;
    use crate::memtable::tests::Random;

    /// Threads take sequence numbers and insert later, so that newer versions of a key are often there before older ones.
    #[test]
    fn groups_in_no_order_end_up_sorted_whoever_comes_first() {
        let memtable = &Arc::new(Memtable::new(0).unwrap());
        let (threads, groups) = if cfg!(miri) { (2, 12) } else { (4, 1_500_u64) };
        let (sequences, grouped) = (&AtomicU64::new(1), &AtomicU64::new(0));
        let mut seeds = Random::from_environment();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let mut random = seeds.fork();
                scope.spawn(move || {
                    let (mut splice, mut searches) = (Splice::default(), Approaches::default());
                    for _ in 0..groups {
                        let count = 1 + random.below(2 * KEYS_MAX as u64);
                        let first = sequences.fetch_add(count, Ordering::Relaxed);
                        if random.below(4) == 0 {
                            std::thread::yield_now();
                        }
                        // Half of the records are versions of a few keys.
                        let keys: Vec<_> = (0..count)
                            .map(|_| {
                                let keys = [16, 1 << 20][random.below(2) as usize];
                                (random.below(keys) << 40).to_be_bytes()
                            })
                            .collect();
                        let records: Vec<_> = (first..)
                            .zip(&keys)
                            .map(|(sequence, key)| NewRecord {
                                key,
                                trailer: Trailer::new(sequence, ValueKind::Put),
                                value: b"value",
                            })
                            .collect();
                        insert_all(memtable, &records, &mut splice, &mut searches).unwrap();
                        if memtable.wants_upkeep() {
                            memtable.upkeep();
                        }
                    }
                    grouped.fetch_add(searches.ways.len() as u64, Ordering::Relaxed);
                });
            }
        });
        let records = sequences.load(Ordering::Relaxed) - 1;
        assert_eq!(check_links(&memtable.list) as u64, records);
        assert!(grouped.load(Ordering::Relaxed) > 0, "no group was searched together");
    }
}
