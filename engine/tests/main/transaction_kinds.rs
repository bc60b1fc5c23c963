//! Operands and values that expire inside transactions: their own reads see what will come of them, and they conflict where puts do.

use std::time::Duration;

use rustlite_engine::{
    Append, Database, ErrorKind, IndexSource, IndexType, IsolationLevel, Keyspace, KeyspaceOptions,
    Result, Transaction, WriteBatch,
};

use crate::support::{Table, machine, open, small_options};

const LEVELS: [IsolationLevel; 4] = [
    IsolationLevel::ReadUncommitted,
    IsolationLevel::ReadCommitted,
    IsolationLevel::RepeatableRead,
    IsolationLevel::Serializable,
];

const HOUR: Duration = Duration::from_secs(3600);

fn memory() -> (Database, Keyspace) {
    let db = Database::in_memory_with(small_options()).unwrap();
    let options = KeyspaceOptions::new().merge_operator(Append::NAME);
    let lists = db.create_keyspace("lists", options).unwrap();
    (db, lists)
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Every way of reading the key in a transaction; panics if they differ.
fn read(txn: &Transaction, keyspace: &Keyspace, key: &str) -> Option<String> {
    let found = txn.get_in(keyspace, key).unwrap();
    assert_eq!(txn.multi_get_in(keyspace, &[key]).unwrap(), std::slice::from_ref(&found));
    assert_eq!(txn.contains_key_in(keyspace, key).unwrap(), found.is_some());
    let all: Table = txn.iter_in(keyspace).unwrap().collect::<Result<_>>().unwrap();
    let back: Table = txn.iter_in(keyspace).unwrap().rev().collect::<Result<_>>().unwrap();
    assert_eq!(all, back, "the two directions of a scan differ");
    assert_eq!(all.get(key.as_bytes()), found.as_ref(), "scan of {key}");
    let mut cursor = txn.cursor_in(keyspace).unwrap();
    cursor.seek(key).unwrap();
    let at = (cursor.valid() && cursor.key() == key.as_bytes()).then(|| cursor.value().to_vec());
    assert_eq!(at, found, "cursor at {key}");
    if cursor.valid() {
        cursor.prev().unwrap();
        cursor.next().unwrap();
    }
    found.map(|value| String::from_utf8(value).unwrap())
}

#[test]
fn a_transaction_reads_what_its_operands_make_of_its_snapshot() {
    for flushed in [false, true] {
        let (db, lists) = memory();
        lists.put("base", "a").unwrap();
        lists.merge("operands", "b").unwrap();
        lists.put("neighbour", "n").unwrap();
        if flushed {
            db.flush().unwrap();
        }
        let mut txn = db.begin().unwrap();
        for key in ["base", "operands", "nothing"] {
            txn.merge_in(&lists, key, "1").unwrap();
            txn.merge_in(&lists, key, "2").unwrap();
            // More versions than a cursor steps over; the transaction must see none of them.
            (0..40).for_each(|_| lists.merge(key, "later").unwrap());
        }
        assert_eq!(read(&txn, &lists, "base").as_deref(), Some("a12"));
        assert_eq!(read(&txn, &lists, "operands").as_deref(), Some("b12"));
        assert_eq!(read(&txn, &lists, "nothing").as_deref(), Some("12"));
        assert_eq!(read(&txn, &lists, "neighbour").as_deref(), Some("n"));
        assert_eq!(kind(txn.commit()), ErrorKind::Conflict);
    }
}

#[test]
fn operands_apply_to_what_the_transaction_itself_has_written() {
    for level in LEVELS {
        let (db, lists) = memory();
        for key in ["put", "deleted", "range-1", "range-2"] {
            lists.put(key, "old").unwrap();
        }
        let mut txn = db.begin_with(level).unwrap();
        txn.put_in(&lists, "put", "new").unwrap();
        txn.delete_in(&lists, "deleted").unwrap();
        txn.delete_range_in(&lists, "range-", "range-9").unwrap();
        for key in ["put", "deleted", "range-1"] {
            txn.merge_in(&lists, key, "+").unwrap();
        }
        let savepoint = txn.set_savepoint().unwrap();
        for key in ["put", "deleted", "range-1", "range-2", "fresh"] {
            txn.merge_in(&lists, key, "-").unwrap();
        }
        assert_eq!(read(&txn, &lists, "put").as_deref(), Some("new+-"));
        assert_eq!(read(&txn, &lists, "range-2").as_deref(), Some("-"));
        txn.rollback_to(&savepoint).unwrap();
        assert_eq!(read(&txn, &lists, "range-2"), None);
        assert_eq!(read(&txn, &lists, "fresh"), None);
        let seen = ["put", "deleted", "range-1"].map(|key| read(&txn, &lists, key).unwrap());
        assert_eq!(seen, ["new+", "+", "+"]);
        txn.commit().unwrap();
        let txn = db.begin_with(level).unwrap();
        assert_eq!(seen, ["put", "deleted", "range-1"].map(|key| read(&txn, &lists, key).unwrap()));
        assert_eq!(lists.iter().unwrap().count(), 3, "{level:?}");
    }
}

#[test]
fn blind_operands_of_two_transactions_conflict_where_puts_do_and_else_both_count() {
    for level in LEVELS {
        let (db, lists) = memory();
        let mut first = db.begin_with(level).unwrap();
        let mut second = db.begin_with(level).unwrap();
        first.merge_in(&lists, "k", "1").unwrap();
        second.merge_in(&lists, "k", "2").unwrap();
        second.commit().unwrap();
        if level >= IsolationLevel::RepeatableRead {
            assert_eq!(kind(first.commit()), ErrorKind::Conflict, "{level:?}");
            assert_eq!(lists.get("k").unwrap().as_deref(), Some(&b"2"[..]));
        } else {
            assert_eq!(read(&first, &lists, "k").as_deref(), Some("21"), "{level:?}");
            first.commit().unwrap();
            assert_eq!(lists.get("k").unwrap().as_deref(), Some(&b"21"[..]));
        }
    }
}

#[test]
fn reading_what_operands_make_of_a_key_counts_as_reading_it() {
    for reads in [false, true] {
        let (db, lists) = memory();
        let mut txn = db.begin_with(IsolationLevel::Serializable).unwrap();
        let savepoint = txn.set_savepoint().unwrap();
        txn.merge_in(&lists, "k", "1").unwrap();
        if reads {
            txn.get_in(&lists, "k").unwrap();
        }
        txn.rollback_to(&savepoint).unwrap();
        txn.put("other", "x").unwrap();
        lists.merge("k", "2").unwrap();
        assert_eq!(txn.commit().is_err(), reads);
    }
}

#[test]
fn a_lifetime_begins_with_the_commit() {
    let sim = machine(1);
    let clock = sim.sim_clock().unwrap();
    let db = open(&sim, small_options()).unwrap();
    let keyspace: &Keyspace = &db;
    for level in LEVELS {
        let mut txn = db.begin_with(level).unwrap();
        txn.put_expiring("hour", "h", HOUR).unwrap();
        txn.put_expiring("moment", "m", Duration::ZERO).unwrap();
        txn.put_expiring("for ever", "e", HOUR).unwrap();
        txn.put("for ever", "f").unwrap();
        clock.advance(2 * HOUR);
        assert_eq!(read(&txn, keyspace, "hour").as_deref(), Some("h"), "{level:?}");
        assert_eq!(read(&txn, keyspace, "moment").as_deref(), Some("m"));
        txn.commit().unwrap();
        assert_eq!(db.get("moment").unwrap(), None);
        clock.advance(HOUR / 2);
        assert_eq!(db.get("hour").unwrap().as_deref(), Some(&b"h"[..]));
        clock.advance(HOUR);
        let reader = db.begin_with(level).unwrap();
        assert_eq!(read(&reader, keyspace, "hour"), None);
        assert_eq!(read(&reader, keyspace, "for ever").as_deref(), Some("f"));
    }
}

#[test]
fn what_a_keyspace_cannot_hold_is_refused_at_once_and_the_transaction_goes_on() {
    let (db, lists) = memory();
    db.create_index("values", &db, IndexType::BTree, IndexSource::value_bytes(0..1)).unwrap();
    let mut txn = db.begin().unwrap();
    assert_eq!(kind(txn.put_expiring_in(&lists, "k", "v", HOUR)), ErrorKind::InvalidArgument);
    assert_eq!(kind(txn.merge("k", "v")), ErrorKind::InvalidArgument, "no operator");
    let indexed = txn.put_expiring("k", "v", HOUR);
    assert!(indexed.unwrap_err().to_string().contains("indexes"));
    assert_eq!(kind(txn.merge_in(&lists, "", "v")), ErrorKind::InvalidArgument);
    let plain = db.keyspace("plain").unwrap();
    txn.put_expiring_in(&plain, "k", "v", HOUR).unwrap();
    txn.merge_in(&lists, "k", "v").unwrap();
    txn.put("row", "x").unwrap();
    txn.commit().unwrap();
    assert_eq!(lists.get("k").unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(plain.get("k").unwrap().as_deref(), Some(&b"v"[..]));
    // A batch may do the same: it is its indexed rows that cannot be special.
    let mut batch = WriteBatch::new();
    batch.put("row", "y").merge_in(&lists, "k", "w").put_expiring_in(&plain, "k", "w", HOUR);
    db.write(batch).unwrap();
    assert_eq!(lists.get("k").unwrap().as_deref(), Some(&b"vw"[..]));
    assert_eq!(plain.get("k").unwrap().as_deref(), Some(&b"w"[..]));
    assert_eq!(db.verify_indexes().unwrap(), 1);
}
