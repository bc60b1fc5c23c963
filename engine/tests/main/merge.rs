//! Merge operators: operands amount to the same wherever they lie and however they are read, and what is wrong with them is an
//! error, never a wrong value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustlite_engine::{
    Append, Database, ErrorKind, KeyspaceOptions, MergeOperator, OperatorError, Options, Result,
    U64Add, WriteBatch,
};

use crate::support::{Table, dump, machine, open, small_options};

fn lists() -> Options {
    small_options().default_keyspace(KeyspaceOptions::new().merge_operator(Append::NAME))
}

/// Every way of reading the key; panics if they differ.
fn read(db: &Database, key: &str) -> Option<String> {
    let found = db.get(key).unwrap();
    assert_eq!(db.get_pinned(key).unwrap().as_deref(), found.as_deref(), "get_pinned of {key}");
    assert_eq!(db.multi_get(&[key]).unwrap(), std::slice::from_ref(&found), "multi_get of {key}");
    assert_eq!(db.snapshot().unwrap().get(key).unwrap(), found, "get of {key} in a snapshot");
    let all = dump(db).unwrap();
    assert_eq!(all.get(key.as_bytes()), found.as_ref(), "scan of {key}");
    let back: Result<Table> = db.iter().unwrap().rev().collect();
    assert_eq!(back.unwrap(), all, "the two directions of a scan differ");
    found.map(|value| String::from_utf8(value).unwrap())
}

#[test]
fn operands_meet_their_value_across_memtables_and_tables() {
    // After which of the writes the records move down.
    for moves in 0..64_u32 {
        let sim = machine(1);
        let db = open(&sim, lists()).unwrap();
        let moved = |step: u32| {
            if moves >> step & 1 != 0 {
                db.flush().unwrap();
                if step % 2 == 1 {
                    db.compact().unwrap();
                }
            }
        };
        db.put("a", "0").unwrap();
        db.put("z", "last").unwrap();
        moved(0);
        db.merge("a", "1").unwrap();
        moved(1);
        let mut batch = WriteBatch::new();
        batch.merge("a", "2").merge("a", "3").merge("new", "n");
        db.write(batch).unwrap();
        moved(2);
        assert_eq!(read(&db, "a").as_deref(), Some("0123"), "{moves:b}");
        assert_eq!(read(&db, "new").as_deref(), Some("n"), "{moves:b}");
        let before = db.snapshot().unwrap();
        db.delete("a").unwrap();
        moved(3);
        db.merge("a", "4").unwrap();
        assert_eq!(read(&db, "a").as_deref(), Some("4"), "{moves:b}");
        moved(4);
        db.delete_range("a", "b").unwrap();
        db.merge("a", "5").unwrap();
        moved(5);
        db.merge("a", "6").unwrap();
        assert_eq!(read(&db, "a").as_deref(), Some("56"), "{moves:b}");
        assert_eq!(before.get("a").unwrap().as_deref(), Some(&b"0123"[..]), "{moves:b}");
        let seen: Table = before.iter().rev().collect::<Result<_>>().unwrap();
        assert_eq!(seen[&b"a"[..]], b"0123", "{moves:b}");
        drop(before);
        db.compact().unwrap();
        assert_eq!(read(&db, "a").as_deref(), Some("56"), "{moves:b}");
        db.verify().unwrap();
    }
}

#[test]
fn a_scan_turns_around_on_merged_values() {
    let sim = machine(2);
    let db = open(&sim, lists()).unwrap();
    for key in ["a", "b", "c"] {
        db.merge(key, "1").unwrap();
        db.flush().unwrap();
        db.merge(key, "2").unwrap();
    }
    let mut cursor = db.cursor().unwrap();
    cursor.seek("b").unwrap();
    let shown = |cursor: &rustlite_engine::Cursor| {
        assert_eq!(cursor.value(), b"12");
        cursor.key().to_vec()
    };
    assert_eq!(shown(&cursor), b"b");
    cursor.prev().unwrap();
    assert_eq!(shown(&cursor), b"a");
    cursor.next().unwrap();
    assert_eq!(shown(&cursor), b"b");
    cursor.next().unwrap();
    assert_eq!(shown(&cursor), b"c");
    cursor.prev().unwrap();
    cursor.prev().unwrap();
    cursor.prev().unwrap();
    assert!(!cursor.valid());
}

#[test]
fn transactions_read_through_their_own_writes_to_what_is_merged_expires_or_lies_elsewhere() {
    let sim = machine(8);
    let options = lists().default_keyspace(
        KeyspaceOptions::new().merge_operator(Append::NAME).value_separation_bytes(300),
    );
    let db = open(&sim, options).unwrap();
    let hour = std::time::Duration::from_secs(3600);
    let cache = db.create_keyspace("cache", KeyspaceOptions::new().default_ttl(hour)).unwrap();
    let large = "x".repeat(400);
    db.put("large", &large).unwrap();
    db.put("list", "1").unwrap();
    db.flush().unwrap();
    db.merge("list", "2").unwrap();
    db.merge("large", "y").unwrap();
    cache.put("old", "1").unwrap();
    let mut txn = db.begin().unwrap();
    txn.put("middle", "own").unwrap();
    txn.put_in(&cache, "new", "2").unwrap();
    assert_eq!(txn.get("list").unwrap().unwrap(), b"12");
    let merged = format!("{large}y").into_bytes();
    let expected: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (b"large".into(), merged.clone()),
        (b"list".into(), b"12".into()),
        (b"middle".into(), b"own".into()),
    ];
    let forward: Result<Vec<_>> = txn.iter().unwrap().collect();
    assert_eq!(forward.unwrap(), expected);
    let mut backward: Vec<_> = txn.iter().unwrap().rev().map(Result::unwrap).collect();
    backward.reverse();
    assert_eq!(backward, expected);
    // An operand is a write as any other: the transaction has lost.
    txn.put("list", "mine").unwrap();
    db.merge("list", "3").unwrap();
    assert_eq!(txn.commit().unwrap_err().kind(), ErrorKind::Conflict);
    let mut txn = db.begin().unwrap();
    txn.put_in(&cache, "new", "2").unwrap();
    txn.commit().unwrap();
    assert_eq!(dump(&cache).unwrap().len(), 2);
    sim.sim_clock().unwrap().advance(hour);
    assert!(dump(&cache).unwrap().is_empty(), "a transaction's puts get the lifetime too");
    assert_eq!(read(&db, "list").as_deref(), Some("123"));
}

#[test]
fn counters_of_many_threads_lose_nothing() {
    let sim = machine(3);
    let options = small_options()
        .default_keyspace(KeyspaceOptions::new().merge_operator(U64Add::NAME))
        .durability(rustlite_engine::Durability::Buffered);
    let db = open(&sim, options.clone()).unwrap();
    const THREADS: u64 = 4;
    const EACH: u64 = 3000;
    let sum = |db: &Database| -> u64 {
        let values = db.iter().unwrap().map(|item| item.unwrap().1);
        values.map(|value| u64::from_le_bytes(value.try_into().unwrap())).sum()
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let db = &db;
            scope.spawn(move || {
                for number in 0..EACH {
                    let key = format!("{}", (number * 7 + thread) % 10);
                    db.merge(key, 1_u64.to_le_bytes()).unwrap();
                }
            });
        }
        for _ in 0..20 {
            assert!(sum(&db) <= THREADS * EACH);
        }
    });
    assert_eq!(sum(&db), THREADS * EACH);
    db.close().unwrap();
    let db = open(&sim, options).unwrap();
    db.compact().unwrap();
    assert_eq!(sum(&db), THREADS * EACH);
}

/// Counts how often it is called, refuses operands that begin with `!`, and panics at `?`.
struct Picky(Arc<AtomicU64>);

impl MergeOperator for Picky {
    fn name(&self) -> &str {
        "picky"
    }

    fn full_merge(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
    ) -> std::result::Result<Vec<u8>, OperatorError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        assert!(!operands.iter().any(|operand| operand.starts_with(b"?")), "a question");
        if operands.iter().any(|operand| operand.starts_with(b"!")) {
            return Err("an exclamation".into());
        }
        Ok([key, base.unwrap_or_default(), &operands.concat()].concat())
    }
}

fn picky(calls: &Arc<AtomicU64>) -> Options {
    lists().merge_operator(Picky(Arc::clone(calls)))
}

#[test]
fn an_operator_that_fails_is_an_error_to_readers_of_its_key_and_holds_up_nothing() {
    let calls = Arc::default();
    let sim = machine(4);
    let db = open(&sim, picky(&calls)).unwrap();
    let options = KeyspaceOptions::new().merge_operator("picky");
    let space = db.create_keyspace("picky", options).unwrap();
    for (key, operand) in [("a", "fine"), ("b", "!no"), ("c", "?no"), ("d", "fine")] {
        space.put(key, "base ").unwrap();
        space.merge(key, operand).unwrap();
        space.merge(key, " and more").unwrap();
    }
    for settle in [
        |_: &Database| Ok(()),
        Database::flush,
        |db: &Database| db.existing_keyspace("picky")?.unwrap().compact(),
    ] {
        settle(&db).unwrap();
        assert_eq!(space.get("a").unwrap().unwrap(), b"abase fine and more");
        let failed = space.get("b").unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::OperatorFailed);
        assert!(failed.to_string().contains("an exclamation"), "{failed}");
        let failed = space.get("c").unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::OperatorFailed);
        assert!(failed.to_string().contains("panicked"), "{failed}");
        let mut items = space.iter().unwrap();
        assert_eq!(items.next().unwrap().unwrap().0, b"a");
        assert_eq!(items.next().unwrap().unwrap_err().kind(), ErrorKind::OperatorFailed);
        assert!(items.next().is_none(), "after an error it ends");
        assert!(items.next_back().is_none());
        let mut back = space.iter().unwrap();
        assert_eq!(back.next_back().unwrap().unwrap().0, b"d");
        assert_eq!(back.next_back().unwrap().unwrap_err().kind(), ErrorKind::OperatorFailed);
    }
    // A new value ends the trouble.
    space.put("b", "new").unwrap();
    space.delete("c").unwrap();
    space.compact().unwrap();
    assert_eq!(dump(&space).unwrap().len(), 3);
    // The compaction has made plain values of what could be merged.
    let before = calls.load(Ordering::Relaxed);
    assert!(space.get("a").unwrap().is_some() && space.get("d").unwrap().is_some());
    assert_eq!(calls.load(Ordering::Relaxed), before);
}

#[test]
fn a_keyspace_whose_operator_is_missing_is_refused_for_writing_and_read_where_it_is_plain() {
    let calls = Arc::default();
    let sim = machine(5);
    let db = open(&sim, picky(&calls)).unwrap();
    let options = KeyspaceOptions::new().merge_operator("picky");
    let space = db.create_keyspace("lists", options.clone()).unwrap();
    space.put("plain", "1").unwrap();
    space.merge("merged", "2").unwrap();
    db.flush().unwrap();
    space.merge("late", "3").unwrap();
    let after = sim.crash(&rustlite_io::CrashPlan::KeepAll);
    drop((space, db));

    let names = |after: &Arc<rustlite_io::SimFileSystem>| crate::support::Files::of(after).0;
    let before = names(&after);
    let refused = open(&after, lists()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::OperatorNotRegistered);
    let text = refused.to_string();
    assert!(text.contains("lists") && text.contains("picky"), "{text}");
    let mut unchanged = names(&after);
    // The lock may have been created.
    unchanged.retain(|name, _| before.contains_key(name));
    assert!(unchanged == before, "a refused open must not change anything");

    let db = open(&after, lists().read_only(true)).unwrap();
    let space = db.existing_keyspace("lists").unwrap().unwrap();
    assert_eq!(space.get("plain").unwrap().unwrap(), b"1");
    for key in ["merged", "late"] {
        assert_eq!(space.get(key).unwrap_err().kind(), ErrorKind::OperatorNotRegistered);
    }
    drop((space, db));

    let db = open(&after, picky(&calls)).unwrap();
    let space = db.create_keyspace("lists", options).unwrap();
    assert_eq!(space.get("late").unwrap().unwrap(), b"late3");
    let unknown = KeyspaceOptions::new().merge_operator("unheard of");
    let refused = db.create_keyspace("other", unknown).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::OperatorNotRegistered);
    assert_eq!(db.list_keyspaces().unwrap().len(), 2, "nothing was created");
}

#[test]
fn misuse_is_refused_and_changes_nothing() {
    let sim = machine(6);
    let db = open(&sim, small_options()).unwrap();
    let invalid = |result: Result<()>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidArgument);
    };
    invalid(db.merge("k", "no operator here"));
    let lists = db.create_keyspace("lists", KeyspaceOptions::new().merge_operator(Append::NAME));
    let lists = lists.unwrap();
    invalid(lists.merge("", "no key"));
    invalid(lists.put_expiring("k", "v", std::time::Duration::from_secs(1)));
    let mut batch = WriteBatch::new();
    batch.put("other", "x").merge("k", "no operator here");
    invalid(db.write(batch));
    assert!(dump(&db).unwrap().is_empty() && dump(&lists).unwrap().is_empty());
    let both = KeyspaceOptions::new()
        .merge_operator(Append::NAME)
        .default_ttl(std::time::Duration::from_secs(1));
    invalid(db.create_keyspace("both", both).map(drop));
    let nameless = KeyspaceOptions::new().merge_operator("");
    invalid(db.create_keyspace("nameless", nameless).map(drop));
    let twice = small_options().merge_operator(Append);
    invalid(open(&machine(7), twice).map(drop));
}
