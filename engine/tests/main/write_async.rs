//! Writes behind futures: they resolve when durable, whoever polls them, and nobody is left waiting.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use rustlite_engine::{CommitFuture, Database, Durability, ErrorKind, Options, WriteBatch};
use rustlite_io::{CrashPlan, FaultRule};

use crate::support::{Deadline, machine, open, pause, small_options, with};

fn batch(number: usize) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(format!("key {number:06}"), number.to_string());
    batch
}

/// Counts how often it was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn more_writes_than_the_ring_holds_go_through_from_one_thread_and_are_durable() {
    let sim = machine(1);
    let db = open(&sim, Options::new()).unwrap();
    let in_flight: Vec<CommitFuture> =
        (0..10_000).map(|number| db.write_async(batch(number))).collect();
    for write in in_flight {
        write.wait().unwrap();
    }
    let after = sim.crash(&CrashPlan::DropUnsynced);
    drop(db);
    let db = open(&after, Options::new()).unwrap();
    assert_eq!(db.iter().unwrap().count(), 10_000);
}

#[test]
fn a_resolved_write_is_visible_and_writes_resolve_in_their_order() {
    let sim = machine(2);
    let db = open(&sim, small_options()).unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    let mut writes: Vec<_> =
        (0..500).map(|number| (number, db.write_async(batch(number)))).collect();
    let patience = Deadline::after(std::time::Duration::from_secs(30));
    while !writes.is_empty() {
        assert!(!patience.has_passed(), "{} writes are left", writes.len());
        // The last first: where it is done, all before it must be.
        let mut later_is_done = false;
        for (number, write) in writes.iter_mut().rev() {
            match Pin::new(write).poll(&mut context) {
                Poll::Ready(result) => {
                    result.unwrap();
                    later_is_done = true;
                    assert!(db.contains_key(format!("key {number:06}")).unwrap());
                }
                Poll::Pending => assert!(!later_is_done, "{number} comes after a later one"),
            }
        }
        writes.retain(|(number, _)| !db.contains_key(format!("key {number:06}")).unwrap());
        pause(std::time::Duration::from_micros(200));
    }
}

#[test]
fn the_last_waker_is_woken_and_a_dropped_future_commits_all_the_same() {
    let sim = machine(3);
    let db = open(&sim, small_options()).unwrap();
    drop(db.write_async(batch(0)));
    let (first, second) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let mut write = db.write_async(batch(1));
    let mut pending = true;
    for wakes in [&first, &second] {
        let waker = Waker::from(Arc::clone(wakes));
        pending = Pin::new(&mut write).poll(&mut Context::from_waker(&waker)).is_pending();
    }
    let patience = Deadline::after(std::time::Duration::from_secs(30));
    while pending && second.0.load(Ordering::SeqCst) == 0 {
        assert!(!patience.has_passed(), "nobody was woken");
        pause(std::time::Duration::from_micros(100));
    }
    write.wait().unwrap();
    assert!(db.contains_key("key 000000").unwrap());
}

#[test]
fn a_failing_log_fails_every_write_in_flight_and_leaves_none_hanging() {
    for rule in ["frame wal-* nth=3 sticky", "sync wal-* sticky"] {
        let sim = machine(4);
        let db = open(&sim, Options::new()).unwrap();
        sim.add_fault(FaultRule::parse(rule).unwrap());
        let mixed = |number: usize| {
            let sync =
                if number.is_multiple_of(3) { Durability::Buffered } else { Durability::Sync };
            db.write_async_with(&batch(number), &with(sync))
        };
        let results: Vec<_> = (0..300).map(mixed).map(CommitFuture::wait).collect();
        let failed = results.iter().position(Result::is_err).expect(rule);
        for result in &results[failed..] {
            assert_eq!(result.as_ref().unwrap_err().kind(), ErrorKind::Poisoned, "{rule}");
        }
        let _ = db.close();
    }
}

#[test]
fn close_waits_for_writes_in_flight_and_later_ones_are_refused() {
    let sim = machine(5);
    let db = open(&sim, small_options()).unwrap();
    let in_flight: Vec<CommitFuture> =
        (0..200).map(|number| db.write_async(batch(number))).collect();
    db.close().unwrap();
    for write in in_flight {
        write.wait().unwrap();
    }
    assert_eq!(db.write_async(batch(0)).wait().unwrap_err().kind(), ErrorKind::Closed);
    let db = open(&sim, small_options()).unwrap();
    assert_eq!(db.iter().unwrap().count(), 200);
}

#[test]
fn what_is_wrong_with_a_batch_is_the_futures_result() {
    let db = Database::in_memory().unwrap();
    let mut wrong = WriteBatch::new();
    wrong.put("", "no key");
    assert_eq!(db.write_async(wrong).wait().unwrap_err().kind(), ErrorKind::InvalidArgument);
    db.write_async(WriteBatch::new()).wait().unwrap();
    db.write_async(batch(1)).wait().unwrap();
    assert!(db.contains_key("key 000001").unwrap());
}
