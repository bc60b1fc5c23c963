//! Records that are in the memtable but not linked yet, while the searches for their places go on.
//!
//! What a single put in no order takes is mostly waiting for memory: one miss after the other on the way to its place. Here the searches of the
//! last few puts take turns, one move of each at every further put, so that they wait together, and behind the other things that a put does.
//! Whoever wants to read finishes them first; see `commit::later`.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::approaches::{MOVES_MAX, NewRecord};
use super::skiplist::{Approach, Unlinked};
use super::{Memtable, Splice};
use crate::commit::later::Work;
use crate::error::Result;
use crate::key::hash_key;

/// Puts that are pending at once: about as many as a search has moves, so that the oldest has arrived when its turn comes.
const PENDING_MAX: usize = 8;

/// The last few puts into one memtable.
#[derive(Default)]
pub(crate) struct PendingPuts {
    /// Where they belong; none if there are none.
    memtable: Option<Arc<Memtable>>,
    puts: [Option<PendingPut>; PENDING_MAX],
    /// The place of the oldest if all are taken, and otherwise the next free one.
    next: usize,
    /// For those whose search comes to nothing.
    splice: Splice,
}

/// A record on its way to its place.
struct PendingPut {
    made: Unlinked,
    hash: u64,
    place: Approach,
}

impl Work for PendingPuts {
    fn is_done(&self) -> bool {
        self.memtable.is_none()
    }

    /// Links all, oldest first.
    fn finish(&mut self) {
        for index in 0..PENDING_MAX {
            self.link((self.next + index) % PENDING_MAX);
        }
        self.memtable = None;
    }
}

impl PendingPuts {
    /// Takes in a record to be linked later, goes on with all others, and links the oldest if there are too many. Inserts it at once if there
    /// is nothing to gain, because the memtable is small.
    ///
    /// # Errors
    /// As for an insert.
    #[inline]
    pub(crate) fn put(
        &mut self,
        memtable: &Arc<Memtable>,
        record: NewRecord<'_>,
        splice: &mut Splice,
    ) -> Result<()> {
        let hash = hash_key(record.key);
        let place = memtable.set_out(record.key, hash, record.trailer);
        if !place.is_under_way() {
            return memtable.insert(record.key, record.trailer, record.value, splice);
        }
        let made = memtable.make(record)?;
        if !self.memtable.as_ref().is_some_and(|it| Arc::ptr_eq(it, memtable)) {
            self.finish();
            self.memtable = Some(Arc::clone(memtable));
        }
        self.go_on();
        self.link(self.next);
        self.puts[self.next] = Some(PendingPut { made, hash, place });
        self.next = (self.next + 1) % PENDING_MAX;
        Ok(())
    }

    /// Goes on by one move of each search.
    #[inline]
    fn go_on(&mut self) {
        let Some(memtable) = &self.memtable else { return };
        for PendingPut { made, place, .. } in self.puts.iter_mut().flatten() {
            memtable.go_on(memtable.list.key_of(made), place);
        }
    }

    /// Links one, if there is one at that place. The others go on while its search does.
    #[inline]
    fn link(&mut self, index: usize) {
        for _ in 0..MOVES_MAX {
            if !self.puts[index].as_ref().is_some_and(|put| put.place.is_under_way()) {
                break;
            }
            self.go_on();
        }
        if let (Some(memtable), Some(put)) = (&self.memtable, self.puts[index].take()) {
            memtable.link(put.hash, put.made, &mut self.splice, &put.place);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::commit::later::Later;
    use crate::key::{Trailer, ValueKind};
    use crate::memtable::skiplist::check::check_links;
    use crate::memtable::tests::Random;

    /// Inserts records in no order, of which half are versions of a few keys, and leaves those for later that may be.
    #[test]
    fn what_was_left_for_later_is_found_when_it_is_finished_and_sorted() {
        let memtable = &Arc::new(Memtable::new(0).unwrap());
        let (threads, records) = if cfg!(miri) { (2, 150) } else { (4, 20_000) };
        let (sequences, left, later) = (&AtomicU64::new(1), &AtomicU64::new(0), &Later::default());
        let mut seeds = Random::from_environment();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let mut random = seeds.fork();
                scope.spawn(move || {
                    let (mut splice, mut own) = (Splice::default(), Vec::new());
                    for _ in 0..records {
                        let sequence = sequences.fetch_add(1, Ordering::Relaxed);
                        let keys = [16, 1 << 20][random.below(2) as usize];
                        let key = (random.below(keys) << 40).to_be_bytes();
                        let trailer = Trailer::new(sequence, ValueKind::Put);
                        let value = &sequence.to_le_bytes();
                        let record = NewRecord { key: &key, trailer, value };
                        let add = |puts: &mut PendingPuts| {
                            puts.put(memtable, record, &mut splice).map(|()| true)
                        };
                        if later.add(add).unwrap() {
                            left.fetch_add(1, Ordering::Relaxed);
                        } else {
                            memtable.insert(&key, trailer, value, &mut splice).unwrap();
                        }
                        own.push((key, sequence));
                        if memtable.wants_upkeep() {
                            memtable.upkeep();
                        }
                        if random.below(50) == 0 {
                            later.finish_any();
                            for (key, sequence) in own.drain(..) {
                                let (found, span) =
                                    memtable.get(&key, hash_key(&key), sequence).unwrap();
                                assert_eq!(found.sequence(), sequence);
                                assert_eq!(memtable.value(span), sequence.to_le_bytes());
                            }
                        }
                    }
                });
            }
        });
        later.finish_any();
        let records = sequences.load(Ordering::Relaxed) - 1;
        assert_eq!(check_links(&memtable.list) as u64, records);
        assert_eq!(memtable.entries() as u64, records);
        assert!(left.load(Ordering::Relaxed) > records / 10, "hardly any was left for later");
    }
}
