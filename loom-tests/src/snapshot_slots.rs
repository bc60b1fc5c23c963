//! A snapshot is never older than what a decision about what to keep, which has not seen it, was told to be visible.

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::Ordering;
use loom::thread;

use crate::snapshot_slots::SnapshotSlots;
use crate::sync::sequential::AtomicU64;

/// Commits become visible one after the other, somebody decides, and somebody takes a snapshot.
#[test]
fn what_a_decision_has_not_seen_is_as_new_as_the_decision() {
    crate::model(None, || {
        let slots = Arc::new(SnapshotSlots::new());
        let visible = Arc::new(AtomicU64::new(1));
        let decides = {
            let (slots, visible) = (Arc::clone(&slots), Arc::clone(&visible));
            thread::spawn(move || {
                visible.store(2, Ordering::Release);
                slots.decide(2);
                slots.sequences().collect::<Vec<_>>()
            })
        };
        let taken = slots.take(0, Duration::ZERO, || visible.load(Ordering::Acquire));
        let (slot, sequence) = taken.expect("the only slot is free");
        let seen = decides.join().unwrap();
        assert!(sequence >= 2 || seen == [sequence], "{sequence} was decided away: {seen:?}");
        assert_eq!(slots.sequences().collect::<Vec<_>>(), [sequence]);
        assert!(slots.take(0, Duration::ZERO, || 2).is_none(), "there is one slot");
        drop(slot);
        assert_eq!(slots.sequences().count(), 0);
    });
}

/// Somebody else gives a slot back while it is wanted again.
#[test]
fn a_slot_has_one_owner_at_a_time() {
    crate::model(None, || {
        let slots = Arc::new(SnapshotSlots::new());
        let takes = |slots: Arc<SnapshotSlots>, sequence| {
            let taken = slots.take(0, Duration::ZERO, || sequence);
            if taken.is_some() {
                assert_eq!(slots.sequences().collect::<Vec<_>>(), [sequence], "it is another's");
            }
        };
        let other = Arc::clone(&slots);
        let thread = thread::spawn(move || takes(other, 7));
        takes(Arc::clone(&slots), 5);
        thread.join().unwrap();
        assert_eq!(slots.sequences().count(), 0);
    });
}
