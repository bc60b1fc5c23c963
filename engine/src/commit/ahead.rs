//! What commits are about to need, made ready by a thread of its own.
//!
//! A commit that runs into memory that was never touched, into log pages that are not mapped yet, into a skiplist that has
//! outgrown its fences, or into a full memtable with no empty one at hand would do that work itself, with everybody else behind it: up
//! to milliseconds, in a path of about one microsecond. So it only leaves a note here and goes on. If the thread is late, the commit
//! does without: everything here is for speed alone.
//!
//! Only the newest note of each sort counts, because later ones ask for more of the same.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustlite_io::LogSegment;
use rustlite_io::processor::{self, Aside};

use crate::memtable::{Memtable, MemtableMaker};

/// Notes for the thread, and where it waits for them.
#[derive(Default)]
pub(crate) struct Ahead {
    notes: Mutex<Notes>,
    left: Condvar,
    /// The processor of the commit that left the last note. Relaxed: a hint.
    asker: AtomicUsize,
}

#[derive(Default)]
struct Notes {
    memtable: Option<Arc<Memtable>>,
    /// A segment, and how far it is filled.
    segment: Option<(Arc<dyn LogSegment>, u64)>,
    stopped: bool,
}

impl Ahead {
    /// Asks for [`MemtableMaker::upkeep`].
    pub(super) fn ask_for_upkeep(&self, memtable: &Arc<Memtable>) {
        self.asker.store(processor::current(), Ordering::Relaxed);
        self.lock().memtable = Some(Arc::clone(memtable));
        self.left.notify_one();
    }

    /// Asks for the pages of the log behind `offset`.
    pub(super) fn ask_for_pages(&self, segment: Arc<dyn LogSegment>, offset: u64) {
        self.asker.store(processor::current(), Ordering::Relaxed);
        let replaced = self.lock().segment.replace((segment, offset));
        self.left.notify_one();
        // Outside of the lock: it may be the last one, and unmap a file.
        drop(replaced);
    }

    /// Does what it is asked for until [`stop`](Self::stop) is called.
    pub(super) fn run(&self, memtables: &MemtableMaker) {
        let aside = Aside::of_this_thread();
        let mut notes = self.lock();
        while !notes.stopped {
            if let Some((segment, offset)) = notes.segment.take() {
                drop(notes);
                aside.leave(self.asker.load(Ordering::Relaxed));
                segment.prepare_stores(offset);
                drop(segment);
            } else if let Some(memtable) = notes.memtable.take() {
                drop(notes);
                aside.leave(self.asker.load(Ordering::Relaxed));
                memtables.upkeep(&memtable);
                drop(memtable);
            } else {
                notes = self.left.wait(notes).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            notes = self.lock();
        }
    }

    /// Ends [`run`](Self::run).
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.left.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Trailer, ValueKind};
    use crate::memtable::Splice;

    #[test]
    fn upkeep_is_asked_for_once_and_done_until_the_thread_is_stopped() {
        let ahead = Ahead::default();
        let memtable = Arc::new(Memtable::new(0).unwrap());
        let mut asked = 0;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| ahead.run(&MemtableMaker::new(1 << 20)));
            for sequence in 1..=10_000_u64 {
                let trailer = Trailer::new(sequence, ValueKind::Put);
                let key = sequence.to_be_bytes();
                memtable.insert(&key, trailer, b"", &mut Splice::default()).unwrap();
                if memtable.wants_upkeep() {
                    asked += 1;
                    assert!(!memtable.wants_upkeep(), "only one is told");
                    ahead.ask_for_upkeep(&memtable);
                    while Arc::strong_count(&memtable) > 1 {
                        std::thread::yield_now();
                    }
                }
            }
            ahead.stop();
            thread.join().unwrap();
        });
        assert!((2..=10).contains(&asked), "fences are renewed now and then: {asked}");
        assert!(!memtable.wants_upkeep());
    }
}
