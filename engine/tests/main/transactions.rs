//! What transactions promise one by one: durability, size, locks, retries, and a clear error for each misuse.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustlite_engine::{
    Database, Durability, Error, ErrorKind, IsolationLevel, Options, TransactionOptions,
};
use rustlite_io::{CrashPlan, FaultRule, FileSystem};

use crate::support::{Deadline, machine, open, pause, small_options};

fn memory() -> Database {
    Database::in_memory_with(small_options()).unwrap()
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn a_committed_transaction_survives_the_loss_of_power_as_a_whole() {
    let sim = machine(1);
    let db = open(&sim, small_options()).unwrap();
    let other = db.keyspace("other").unwrap();
    let mut txn = db.begin().unwrap();
    txn.put("a", "1").unwrap();
    txn.put_in(&other, "b", "2").unwrap();
    txn.commit().unwrap();
    let buffered = TransactionOptions::new().durability(Durability::Buffered);
    let mut lost = db.begin_with(buffered).unwrap();
    lost.put("c", "3").unwrap();
    lost.delete("a").unwrap();
    lost.commit().unwrap();
    let after = sim.crash(&CrashPlan::Random(7));
    let db = open(&after, small_options()).unwrap();
    let other = db.keyspace("other").unwrap();
    assert_eq!(other.get("b").unwrap().as_deref(), Some(&b"2"[..]));
    assert_ne!(db.contains_key("c").unwrap(), db.contains_key("a").unwrap(), "both or none");
}

#[test]
fn a_transaction_may_be_much_larger_than_a_memtable_and_blocks_nobody() {
    let db = memory();
    let mut txn = db.begin().unwrap();
    for number in 0..4000 {
        txn.put(format!("large-{number:05}"), vec![1; 100]).unwrap();
        if number % 100 == 0 {
            db.put(format!("small-{number:05}"), "").unwrap();
            db.flush().unwrap();
        }
    }
    assert_eq!(txn.prefix("large-").unwrap().count(), 4000);
    assert_eq!(txn.prefix("large-").unwrap().rev().count(), 4000);
    assert_eq!(txn.iter().unwrap().count(), 4000, "the others came after its snapshot");
    assert_eq!(db.iter().unwrap().count(), 40);
    txn.commit().unwrap();
    assert_eq!(db.iter().unwrap().count(), 4040);
}

#[test]
fn a_conflict_names_the_key_and_its_keyspace() {
    let db = memory();
    let users = db.keyspace("users").unwrap();
    let mut txn = db.begin().unwrap();
    let long = "x".repeat(500);
    txn.put_in(&users, &long, "1").unwrap();
    users.put(&long, "2").unwrap();
    let error = txn.commit().unwrap_err();
    assert!(error.is_retryable() && error.kind() == ErrorKind::Conflict);
    let text = error.to_string();
    assert!(text.contains("keyspace \"users\"") && text.contains("(500 bytes)"), "{text}");
    assert!(text.len() < 250, "{text}");
    let mut txn = db.begin().unwrap();
    txn.delete(b"\x00\xff\"").unwrap();
    db.put(b"\x00\xff\"", "2").unwrap();
    let text = txn.commit().unwrap_err().to_string();
    assert!(text.contains("key \"\\x00\\xff\\\"\" of keyspace \"default\""), "{text}");
}

#[test]
fn dropping_and_rolling_back_leave_nothing() {
    let db = memory();
    let mut dropped = db.begin().unwrap();
    dropped.put("a", "1").unwrap();
    dropped.get_for_update("locked").unwrap();
    drop(dropped);
    let mut rolled_back = db.begin().unwrap();
    rolled_back.put("a", "2").unwrap();
    rolled_back.get_for_update("locked").expect("the lock is free again");
    rolled_back.rollback();
    let mut last = db.begin().unwrap();
    assert_eq!(last.get_for_update("locked").unwrap(), None);
    assert_eq!(last.iter().unwrap().count(), 0);
    let sequence = db.snapshot().unwrap().sequence();
    assert_eq!(last.commit().unwrap(), sequence, "nothing was written");
}

#[test]
fn a_commit_gives_the_sequence_number_from_which_on_it_is_seen() {
    let db = memory();
    let mut txn = db.begin().unwrap();
    txn.put("a", "1").unwrap();
    txn.put("b", "1").unwrap();
    let before = db.snapshot().unwrap().sequence();
    let sequence = txn.commit().unwrap();
    assert_eq!(sequence, before + 2);
    assert_eq!(db.snapshot().unwrap().sequence(), sequence);
}

#[test]
fn a_transaction_works_on_another_thread_and_its_iterator_outlives_it() {
    let db = memory();
    db.put("a", "1").unwrap();
    let mut txn = db.begin().unwrap();
    let iter = std::thread::spawn(move || {
        txn.put("b", "2").unwrap();
        let iter = txn.iter().unwrap();
        txn.put("c", "3").unwrap();
        txn.commit().unwrap();
        iter
    })
    .join()
    .unwrap();
    let keys: Vec<_> = iter.map(|item| item.unwrap().0).collect();
    assert_eq!(keys, [b"a", b"b"], "as it was when the iterator was made");
    assert_eq!(db.iter().unwrap().count(), 3);
}

#[test]
fn keyspaces_of_others_and_dropped_ones_are_refused() {
    let (db, stranger) = (memory(), memory());
    let foreign = stranger.keyspace("same").unwrap();
    let own = db.keyspace("same").unwrap();
    let mut txn = db.begin().unwrap();
    assert_eq!(kind(txn.put_in(&foreign, "k", "v")), ErrorKind::InvalidArgument);
    assert_eq!(kind(txn.get_in(&foreign, "k")), ErrorKind::InvalidArgument);
    txn.put_in(&own, "k", "v").unwrap();
    db.drop_keyspace("same").unwrap();
    assert_eq!(kind(txn.get_in(&own, "k")), ErrorKind::KeyspaceNotFound);
    assert_eq!(kind(txn.delete_in(&own, "k")), ErrorKind::KeyspaceNotFound);
    assert_eq!(kind(txn.iter_in(&own)), ErrorKind::KeyspaceNotFound);
    assert_eq!(kind(txn.commit()), ErrorKind::KeyspaceNotFound);
    db.put("k", "v").expect("the database goes on");
}

#[test]
fn limits_are_errors_and_the_transaction_goes_on() {
    let db = memory();
    let mut txn = db.begin().unwrap();
    assert_eq!(kind(txn.put("", "v")), ErrorKind::InvalidArgument);
    assert_eq!(kind(txn.put(vec![1; 70_000], "v")), ErrorKind::InvalidArgument);
    assert_eq!(kind(txn.get("")), ErrorKind::InvalidArgument);
    assert_eq!(kind(txn.delete_range(vec![1; 70_000], vec![2; 3])), ErrorKind::InvalidArgument);
    txn.delete_range("b", "a").unwrap();
    txn.put("k", "v").unwrap();
    txn.commit().unwrap();
    assert_eq!(db.iter().unwrap().count(), 1);
}

#[test]
fn a_savepoint_is_good_for_its_own_transaction_while_it_lasts() {
    let db = memory();
    let (mut first, mut second) = (db.begin().unwrap(), db.begin().unwrap());
    let savepoint = first.set_savepoint().unwrap();
    assert_eq!(kind(second.rollback_to(&savepoint)), ErrorKind::InvalidArgument);
    let later = first.set_savepoint().unwrap();
    first.rollback_to(&savepoint).unwrap();
    assert_eq!(kind(first.rollback_to(&later)), ErrorKind::InvalidArgument);
    first.release_savepoint(&savepoint).unwrap();
    assert_eq!(kind(first.release_savepoint(&savepoint)), ErrorKind::InvalidArgument);
    first.put("k", "v").unwrap();
    first.commit().unwrap();
}

#[test]
fn a_closed_database_ends_its_transactions() {
    let db = memory();
    let mut txn = db.begin().unwrap();
    txn.put("k", "v").unwrap();
    db.close().unwrap();
    assert_eq!(kind(db.begin()), ErrorKind::Closed);
    assert_eq!(kind(txn.get("k")), ErrorKind::Closed);
    assert_eq!(kind(txn.put("k", "w")), ErrorKind::Closed);
    assert_eq!(kind(txn.commit()), ErrorKind::Closed);
}

#[test]
fn read_only_transactions_refuse_writes_and_never_conflict() {
    let sim = machine(3);
    let db = open(&sim, small_options()).unwrap();
    db.put("k", "1").unwrap();
    let level = TransactionOptions::from(IsolationLevel::Serializable);
    let mut txn = db.begin_with(level.read_only(true)).unwrap();
    assert_eq!(kind(txn.put("k", "2")), ErrorKind::ReadOnly);
    assert_eq!(kind(txn.get_for_update("k")), ErrorKind::ReadOnly);
    db.put("k", "2").unwrap();
    assert_eq!(txn.get("k").unwrap().as_deref(), Some(&b"1"[..]));
    txn.commit().unwrap();
    db.close().unwrap();
    // A database that is opened read-only can be read in transactions all the same.
    let db = open(&sim, Options::new().read_only(true)).unwrap();
    let mut txn = db.begin().unwrap();
    assert_eq!(txn.get("k").unwrap().as_deref(), Some(&b"2"[..]));
    txn.put("k", "3").unwrap();
    assert_eq!(kind(txn.commit()), ErrorKind::ReadOnly);
}

#[test]
fn a_transaction_that_takes_too_long_can_do_nothing_more() {
    let sim = machine(4);
    let db = open(&sim, small_options()).unwrap();
    let options = TransactionOptions::new().timeout(Duration::from_secs(60));
    let mut txn = db.begin_with(options).unwrap();
    txn.put("k", "v").unwrap();
    sim.clock().sleep(Duration::from_secs(61));
    assert_eq!(kind(txn.get("k")), ErrorKind::DeadlineExceeded);
    assert_eq!(kind(txn.put("k", "w")), ErrorKind::DeadlineExceeded);
    let error = txn.commit().unwrap_err();
    assert!(error.kind() == ErrorKind::DeadlineExceeded && !error.is_retryable(), "{error:?}");
    assert_eq!(db.get("k").unwrap(), None);
}

#[test]
fn waiting_for_a_lock_ends_with_its_timeout_or_the_deadline() {
    // The simulated clock moves while somebody waits, so this does not take an hour.
    let sim = machine(5);
    let db = open(&sim, small_options()).unwrap();
    let mut owner = db.begin().unwrap();
    owner.get_for_update("k").unwrap();
    let options = TransactionOptions::new().lock_timeout(Duration::from_millis(200));
    let mut waiter = db.begin_with(options).unwrap();
    let error = waiter.get_for_update("k").unwrap_err();
    assert!(error.kind() == ErrorKind::LockTimeout && error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("key \"k\""), "{error}");
    waiter.put("other", "v").unwrap();
    waiter.commit().expect("it can go on without the lock");
    let options = options.lock_timeout(Duration::MAX).timeout(Duration::from_millis(200));
    let mut waiter = db.begin_with(options).unwrap();
    assert_eq!(kind(waiter.get_for_update("k")), ErrorKind::DeadlineExceeded);
    owner.put("k", "v").unwrap();
    owner.commit().unwrap();
}

#[test]
fn a_deadlock_has_one_victim() {
    let db = memory();
    let barrier = Barrier::new(2);
    let victims = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for keys in [["a", "b"], ["b", "a"]] {
            let (db, barrier, victims) = (db.clone(), &barrier, &victims);
            scope.spawn(move || {
                let patient = TransactionOptions::new().lock_timeout(Duration::from_secs(60));
                let mut txn = db.begin_with(patient).unwrap();
                txn.get_for_update(keys[0]).unwrap();
                barrier.wait();
                let Err(error) = txn.get_for_update(keys[1]) else {
                    txn.put(keys[0], "v").unwrap();
                    txn.commit().unwrap();
                    return;
                };
                assert!(error.kind() == ErrorKind::Deadlock && error.is_retryable(), "{error:?}");
                assert_eq!(kind(txn.put("k", "v")), ErrorKind::Deadlock, "it has failed for good");
                assert_eq!(kind(txn.commit()), ErrorKind::Deadlock);
                victims.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(victims.load(Ordering::SeqCst), 1);
    assert_eq!(db.stats().unwrap().transactions.deadlocks, 1);
}

#[test]
fn a_lock_on_a_key_that_was_written_since_the_snapshot_is_a_conflict_at_once() {
    let db = memory();
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let mut txn = db.begin_with(level).unwrap();
        txn.get("elsewhere").unwrap();
        db.put("k", "new").unwrap();
        assert_eq!(kind(txn.get_for_update("k")), ErrorKind::Conflict);
        assert_eq!(kind(txn.commit()), ErrorKind::Conflict);
        // Without a read before, the snapshot is taken with the lock.
        let mut txn = db.begin_with(level).unwrap();
        db.put("k", "newer").unwrap();
        assert_eq!(txn.get_for_update("k").unwrap().as_deref(), Some(&b"newer"[..]));
        // The lock holds back nobody who does not ask for it.
        db.put("k", "newest").unwrap();
        txn.put("other", "v").unwrap();
        assert_eq!(kind(txn.commit()), ErrorKind::Conflict);
    }
    let mut txn = db.begin_with(IsolationLevel::ReadCommitted).unwrap();
    txn.get("elsewhere").unwrap();
    db.put("k", "last").unwrap();
    assert_eq!(txn.get_for_update("k").unwrap().as_deref(), Some(&b"last"[..]));
    txn.put("k", "v").unwrap();
    txn.commit().unwrap();
}

#[test]
fn counters_under_lock_never_conflict() {
    let db = memory();
    let no_retries = TransactionOptions::new().retries_max(0).lock_timeout(Duration::from_secs(60));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    db.transact_with(no_retries, |txn| {
                        let old = txn.get_for_update("counter")?;
                        let old = old.map_or(0, |old| u64::from_le_bytes(old.try_into().unwrap()));
                        txn.put("counter", (old + 1).to_le_bytes())
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(db.get("counter").unwrap().unwrap(), 800_u64.to_le_bytes());
}

#[test]
fn transact_runs_again_after_a_conflict_and_gives_up_in_the_end() {
    let db = memory();
    let mut runs = 0;
    let disturbed = |runs: &mut u32, until: u32| {
        db.transact_with(TransactionOptions::new().retries_max(5), |txn| {
            *runs += 1;
            txn.get("k")?;
            txn.put("k", "mine")?;
            if *runs < until {
                db.put("k", "theirs")?;
            }
            Ok(*runs)
        })
    };
    assert_eq!(disturbed(&mut runs, 4).unwrap(), 4);
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"mine"[..]));
    runs = 0;
    let error = disturbed(&mut runs, u32::MAX).unwrap_err();
    assert_eq!((runs, error.kind()), (6, ErrorKind::Conflict));
    assert!(error.to_string().contains("6 attempts"), "{error}");
    runs = 0;
    let stopped: Result<(), Error> = db.transact(|txn| {
        runs += 1;
        txn.put("k", "never")?;
        txn.put("", "never")
    });
    assert_eq!((runs, kind(stopped)), (1, ErrorKind::InvalidArgument));
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"theirs"[..]));
}

#[test]
fn a_failed_log_poisons_commits_and_leaves_reads() {
    let sim = machine(6);
    let db = open(&sim, small_options()).unwrap();
    db.put("k", "v").unwrap();
    let mut txn = db.begin().unwrap();
    txn.put("k", "w").unwrap();
    sim.add_fault(FaultRule::parse("any wal-* sticky error=EIO").unwrap());
    assert_eq!(kind(txn.commit()), ErrorKind::Poisoned);
    let mut txn = db.begin().expect("reads go on");
    assert_eq!(txn.get("k").unwrap().as_deref(), Some(&b"v"[..]));
    txn.put("k", "x").unwrap();
    assert_eq!(kind(txn.commit()), ErrorKind::Poisoned);
}

#[test]
fn commits_in_flight_when_the_first_transaction_begins_are_not_missed() {
    for round in 0..20 {
        let db = memory();
        let deadline = Deadline::after(Duration::from_secs(20));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut written = 0_u32;
                while !deadline.has_passed() && db.get("stop").unwrap().is_none() {
                    written += 1;
                    db.put("k", written.to_le_bytes()).unwrap();
                }
                written
            });
            pause(Duration::from_micros(100 * round));
            // Whatever is between the snapshot and the commit must be noticed, from the first transaction on.
            let mut txn = db.begin().unwrap();
            let read = txn.get("k").unwrap();
            txn.put("k", "transaction").unwrap();
            let result = txn.commit();
            db.put("stop", "").unwrap();
            let written = writer.join().unwrap();
            if result.is_ok() {
                let read = read.map_or(0, |read| u32::from_le_bytes(read.try_into().unwrap()));
                assert!(read <= written);
            } else {
                assert_eq!(kind(result), ErrorKind::Conflict);
            }
        });
    }
}

#[test]
fn statistics_say_how_transactions_ended() {
    let db = memory();
    db.put("k", "0").unwrap();
    let serializable = TransactionOptions::new().isolation(IsolationLevel::Serializable);
    db.transact(|txn| txn.put("k", "1")).unwrap();
    db.begin().unwrap().commit().unwrap();
    let mut in_flight = db.begin().unwrap();
    in_flight.put("k", "2").unwrap();
    in_flight.commit_async().wait().unwrap();
    db.begin().unwrap().rollback();
    let mut late = db.begin_with(serializable).unwrap();
    late.get("k").unwrap();
    late.put("other", "x").unwrap();
    db.put("k", "3").unwrap();
    assert_eq!(kind(late.commit()), ErrorKind::Conflict);
    let mut locks = db.begin().unwrap();
    locks.get("k").unwrap();
    db.put("k", "4").unwrap();
    assert_eq!(kind(locks.get_for_update("k")), ErrorKind::Conflict);
    assert_eq!(kind(locks.commit()), ErrorKind::Conflict, "the same one");
    let mut owner = db.begin().unwrap();
    owner.get_for_update("k").unwrap();
    let mut waiter = db.begin_with(serializable.lock_timeout(Duration::ZERO)).unwrap();
    assert_eq!(kind(waiter.get_for_update("k")), ErrorKind::LockTimeout);
    let stats = db.stats().unwrap().transactions;
    assert_eq!((stats.begun, stats.committed, stats.rolled_back), (8, 3, 3), "two are open");
    assert_eq!((stats.conflicts, stats.lock_timeouts, stats.deadlocks), (2, 1, 0));
    let text = db.stats().unwrap().to_string();
    assert!(text.contains("8 begun, 3 committed, 3 rolled back"), "{text}");
    assert!(text.contains("2 conflicts, 1 lock timeouts, 0 deadlocks"), "{text}");
}
