//! Hands out record numbers to inserting threads and knows which of them are surely there.
//!
//! Guarantees: every number is handed out once; [`InsertCounter::acknowledged`] never counts a
//! record whose insert has not returned, nor one behind such a hole, so that readers who stay below
//! it always find what they ask for.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The insert sequence of a run, shared by its threads.
#[derive(Debug)]
pub struct InsertCounter {
    next: AtomicU64,
    /// Records `0..acknowledged` are there. Stored with Release after the inserts returned, loaded
    /// with Acquire.
    acknowledged: AtomicU64,
    /// Finished inserts beyond the first unfinished one.
    ahead: Mutex<BTreeSet<u64>>,
}

impl InsertCounter {
    /// A counter for a store that already holds records `0..records`.
    #[must_use]
    pub fn new(records: u64) -> Self {
        Self {
            next: AtomicU64::new(records),
            acknowledged: AtomicU64::new(records),
            ahead: Mutex::new(BTreeSet::new()),
        }
    }

    /// The number of the next record to insert.
    pub fn take(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// How many numbers were handed out, the loaded records included.
    pub fn taken(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Says that the insert of `record` has returned successfully.
    pub fn acknowledge(&self, record: u64) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let mut limit = self.acknowledged.load(Ordering::Relaxed);
        if record == limit {
            limit += 1;
            while ahead.remove(&limit) {
                limit += 1;
            }
            self.acknowledged.store(limit, Ordering::Release);
        } else {
            ahead.insert(record);
        }
    }

    /// Records `0..acknowledged()` can be read.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_stops_at_the_first_hole_and_jumps_when_it_closes() {
        let counter = InsertCounter::new(10);
        let numbers: Vec<u64> = (0..4).map(|_| counter.take()).collect();
        assert_eq!(numbers, [10, 11, 12, 13]);
        counter.acknowledge(11);
        counter.acknowledge(13);
        assert_eq!(counter.acknowledged(), 10);
        counter.acknowledge(10);
        assert_eq!(counter.acknowledged(), 12);
        counter.acknowledge(12);
        assert_eq!(counter.acknowledged(), 14);
        assert_eq!(counter.taken(), 14);
    }

    #[test]
    fn readers_below_acknowledged_see_every_insert_of_all_threads() {
        use std::sync::atomic::AtomicBool;
        const INSERTS: usize = 20_000;
        let counter = InsertCounter::new(0);
        let inserted: Vec<AtomicBool> = (0..INSERTS).map(|_| AtomicBool::new(false)).collect();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some(slot) = inserted.get(counter.take() as usize) {
                        slot.store(true, Ordering::Relaxed);
                        let index = inserted.iter().position(|other| std::ptr::eq(other, slot));
                        // Finding the index again is slow on purpose: inserts finish out of order.
                        counter.acknowledge(index.expect("slot of this slice") as u64);
                    }
                });
            }
            scope.spawn(|| {
                let mut seen = 0;
                while seen < INSERTS {
                    let limit = counter.acknowledged() as usize;
                    assert!(limit >= seen, "went backwards");
                    assert!(inserted[seen..limit].iter().all(|slot| slot.load(Ordering::Relaxed)));
                    seen = limit;
                }
            });
        });
        assert_eq!(counter.acknowledged(), INSERTS as u64);
    }
}
