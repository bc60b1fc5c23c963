//! Values that threads share rarely, so that each mostly works on a copy of its own.
//!
//! A processor that writes to a cache line must first take it from the one that wrote to it last. Between two of them that don't share
//! a cache this takes as long as a hundred instructions, and a counter that every transaction counts up makes everybody pay for it.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// So many copies there are; with more threads than that, some share one.
pub(crate) const STRIPES: usize = 16;

/// Which copy the calling thread uses.
pub(crate) fn own_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    OWN.with(|own| {
        if own.get() == usize::MAX {
            // Relaxed: which thread gets which one is of no importance.
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        own.get()
    })
}

/// A value in as many copies as there are stripes, each on cache lines of its own.
#[derive(Debug, Default)]
pub(crate) struct Striped<T>([CachePadded<T>; STRIPES]);

impl<T> Striped<T> {
    /// The copy of the calling thread, which some others may share.
    #[inline]
    pub(crate) fn own(&self) -> &T {
        &self.0[own_stripe()]
    }

    /// All copies.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|copy| &**copy)
    }
}

/// Something shared, of which threads take and give back shares without counting in the same place.
pub(crate) struct StripedArc<T>([Share<T>; STRIPES]);

/// A share of it, which keeps it alive.
pub(crate) struct Share<T>(Arc<CachePadded<Arc<T>>>);

impl<T> StripedArc<T> {
    pub(crate) fn new(shared: &Arc<T>) -> Self {
        Self(std::array::from_fn(|_| Share::new(shared)))
    }

    /// A share that is counted where the calling thread counts.
    #[inline]
    pub(crate) fn share(&self) -> Share<T> {
        Share(Arc::clone(&self.0[own_stripe()].0))
    }
}

impl<T> Share<T> {
    /// One that is counted nowhere else.
    pub(crate) fn new(shared: &Arc<T>) -> Self {
        // Padded, the count has cache lines of its own.
        Self(Arc::new(CachePadded::new(Arc::clone(shared))))
    }
}

impl<T> Deref for Share<T> {
    type Target = Arc<T>;

    #[inline]
    fn deref(&self) -> &Arc<T> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_lives_as_long_as_a_share() {
        let shared = Arc::new(5);
        let striped = StripedArc::new(&shared);
        let weak = Arc::downgrade(&shared);
        let share = striped.share();
        drop((shared, striped));
        assert_eq!(**share, 5);
        assert!(weak.upgrade().is_some());
        drop(share);
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn a_thread_keeps_its_copy_and_threads_after_each_other_get_different_ones() {
        let counters = Striped::<AtomicUsize>::default();
        std::thread::scope(|scope| {
            for _ in 0..STRIPES {
                scope.spawn(|| {
                    for _ in 0..100 {
                        counters.own().fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let counts: Vec<_> = counters.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        assert_eq!(counts.iter().sum::<usize>(), STRIPES * 100);
        assert!(counts.iter().all(|count| count % 100 == 0), "a thread used two: {counts:?}");
        assert!(counts.iter().filter(|count| **count > 0).count() > 1, "all use one: {counts:?}");
    }
}
