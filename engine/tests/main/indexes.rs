//! What indexes promise one by one: who sees what, what is refused, and how.

use std::time::Duration;

use rustlite_engine::{
    Database, Error, ErrorKind, Index, IndexSource, IndexType, IsolationLevel, KeyspaceOptions,
    WriteBatch,
};

use crate::index_support::{KINDS, options};
use crate::support::{Deadline, machine, open, pause, small_options};

fn memory() -> Database {
    Database::in_memory_with(options()).unwrap()
}

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    result.map(drop).unwrap_err().kind()
}

fn first_byte(db: &Database, name: &str) -> Index {
    db.create_index(name, db, IndexType::BTree, IndexSource::value_bytes(0..1)).unwrap()
}

fn unique(db: &Database, name: &str) -> Index {
    db.create_unique_index(name, db, IndexType::BTree, IndexSource::value_bytes(..)).unwrap()
}

#[test]
fn indexes_are_listed_and_described_but_are_no_keyspaces() {
    let sim = machine(1);
    let db = open(&sim, options()).unwrap();
    let rows = db.keyspace("rows").unwrap();
    rows.put("k", "some words #1").unwrap();
    for kind in &KINDS {
        kind.create(&db, &rows).unwrap();
    }
    assert_eq!(db.list_keyspaces().unwrap(), ["default", "rows"]);
    let words = db.keyspace("words").unwrap();
    assert_eq!(words.iter().unwrap().count(), 0, "a keyspace of the same name is another thing");
    words.clear().unwrap();
    db.drop_keyspace("words").unwrap();
    db.flush().unwrap();
    drop((rows, words, db));
    let db = open(&sim, options()).unwrap();
    let names = ["hashed tag", "hashed words", "tag", "third of key", "words"];
    assert_eq!(db.list_indexes().unwrap(), names);
    let info = db.index_info("words").unwrap();
    assert_eq!((info.name.as_str(), info.keyspace.as_str()), ("words", "rows"));
    assert_eq!((info.index_type, info.unique, info.ready), (IndexType::BTree, false, true));
    assert_eq!((info.source, info.entries), (IndexSource::extractor("words"), 2));
    assert!(info.table_bytes > 0);
    assert!(db.index_info("tag").unwrap().unique);
    db.drop_keyspace("rows").unwrap();
    assert!(db.list_indexes().unwrap().is_empty(), "they went with their keyspace");
    drop(db);
    let db = open(&sim, options()).unwrap();
    assert!(db.list_indexes().unwrap().is_empty());
    assert_eq!(db.verify_indexes().unwrap(), 0);
}

#[test]
fn bad_definitions_are_refused_and_leave_nothing() {
    let db = memory();
    let create = |name: &str, source| kind(db.create_index(name, &db, IndexType::BTree, source));
    let bytes = || IndexSource::value_bytes(0..4);
    assert_eq!(create("", bytes()), ErrorKind::InvalidArgument);
    assert_eq!(create("a\0b", bytes()), ErrorKind::InvalidArgument);
    assert_eq!(create(&"x".repeat(257), bytes()), ErrorKind::InvalidArgument);
    assert_eq!(create("a", IndexSource::value_bytes(4..4)), ErrorKind::InvalidArgument);
    assert_eq!(create("a", IndexSource::key_bytes(0..usize::MAX)), ErrorKind::InvalidArgument);
    assert_eq!(create("a", IndexSource::extractor("nobody")), ErrorKind::ExtractorMissing);
    let other = memory();
    let foreign = other.create_index("a", &db, IndexType::Hash, bytes());
    assert_eq!(kind(foreign), ErrorKind::InvalidArgument);
    let gone = db.keyspace("gone").unwrap();
    db.drop_keyspace("gone").unwrap();
    let orphan = db.create_index("a", &gone, IndexType::Hash, bytes());
    assert_eq!(kind(orphan), ErrorKind::KeyspaceNotFound);
    assert!(db.list_indexes().unwrap().is_empty());
    let index = first_byte(&db, "a");
    assert_eq!(create("a", bytes()), ErrorKind::IndexExists);
    db.drop_index("a").unwrap();
    assert_eq!(kind(db.drop_index("a")), ErrorKind::IndexNotFound);
    assert_eq!(kind(db.index("a")), ErrorKind::IndexNotFound);
    assert_eq!(kind(db.index_info("a")), ErrorKind::IndexNotFound);
    assert_eq!(kind(index.find("x")), ErrorKind::IndexNotFound);
    let again = first_byte(&db, "a");
    db.put("k", "x").unwrap();
    assert_eq!(kind(index.find("x")), ErrorKind::IndexNotFound, "that was another index");
    assert_eq!(again.find("x").unwrap(), [b"k"]);
    db.close().unwrap();
    assert_eq!(kind(again.find("x")), ErrorKind::Closed);
    assert_eq!(kind(db.list_indexes()), ErrorKind::Closed);
    assert_eq!(kind(db.create_index("b", &db, IndexType::Hash, bytes())), ErrorKind::Closed);
}

#[test]
fn an_extractor_that_panics_or_gives_too_long_keys_fails_the_write_and_nothing_else() {
    let options = small_options().index_extractor("picky", |_, value, keys| match value {
        b"panic" => panic!("a panic that the test wants"),
        b"long" => keys.add([0; 40_000]),
        value => keys.add(value),
    });
    let db = Database::in_memory_with(options).unwrap();
    db.put("k", "long").unwrap();
    let create = || db.create_index("i", &db, IndexType::BTree, IndexSource::extractor("picky"));
    assert_eq!(kind(create()), ErrorKind::InvalidArgument);
    assert!(db.list_indexes().unwrap().is_empty(), "the build that failed left no index");
    db.put("k", "good").unwrap();
    let index = create().unwrap();
    assert_eq!(kind(db.put("k", "panic")), ErrorKind::InvalidArgument);
    assert_eq!(kind(db.put("k", "long")), ErrorKind::InvalidArgument);
    let mut txn = db.begin().unwrap();
    assert_eq!(kind(txn.put("k", "panic")), ErrorKind::InvalidArgument);
    txn.put("other", "good").unwrap();
    txn.commit().unwrap();
    assert_eq!(index.find("good").unwrap(), [&b"k"[..], b"other"]);
    assert_eq!(db.verify_indexes().unwrap(), 2);
}

#[test]
fn without_its_extractor_a_keyspace_can_be_read_but_not_written() {
    let sim = machine(2);
    let db = open(&sim, options()).unwrap();
    let rows = db.keyspace("rows").unwrap();
    KINDS[0].create(&db, &rows).unwrap();
    rows.put("k", "word").unwrap();
    drop((rows, db));
    let db = open(&sim, small_options()).unwrap();
    let rows = db.keyspace("rows").unwrap();
    let mut batch = WriteBatch::new();
    batch.put("elsewhere", "v").put_in(&rows, "k", "v");
    let refused = [
        kind(rows.put("k", "v")),
        kind(rows.delete("k")),
        kind(rows.delete_range("a", "z")),
        kind(rows.clear()),
        kind(db.write(batch.clone())),
        kind(db.write_async(batch).wait()),
        kind(db.transact(|txn| txn.put_in(&rows, "k", "v"))),
        kind(db.verify_indexes()),
    ];
    assert_eq!(refused, [ErrorKind::ExtractorMissing; 8]);
    assert!(!db.contains_key("elsewhere").unwrap());
    db.put("elsewhere", "v").unwrap();
    assert_eq!(
        db.index("words").unwrap().rows("word").unwrap(),
        [(b"k".to_vec(), b"word".to_vec())]
    );
    db.drop_index("words").unwrap();
    rows.put("k", "v").unwrap();
}

#[test]
fn a_read_only_database_has_its_indexes() {
    let sim = machine(3);
    let db = open(&sim, options()).unwrap();
    first_byte(&db, "first");
    db.put("k", "x").unwrap();
    db.close().unwrap();
    drop(db);
    let db = open(&sim, options().read_only(true)).unwrap();
    let index = db.index("first").unwrap();
    assert_eq!(index.find("x").unwrap(), [b"k"]);
    assert_eq!(db.verify_indexes().unwrap(), 1);
    assert_eq!(kind(db.put("k", "y")), ErrorKind::ReadOnly);
    assert_eq!(kind(db.drop_index("first")), ErrorKind::ReadOnly);
    let create = db.create_index("i", &db, IndexType::Hash, IndexSource::key_bytes(..));
    assert_eq!(kind(create), ErrorKind::ReadOnly);
}

#[test]
fn a_unique_key_has_one_owner_and_can_be_handed_on_within_a_commit() {
    let db = memory();
    let index = unique(&db, "value");
    db.put("a", "1").unwrap();
    let error = db.put("b", "1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation);
    assert!(error.to_string().contains("index \"value\"") && error.to_string().contains("\"1\""));
    assert!(!error.is_retryable());
    assert!(!db.contains_key("b").unwrap());
    let mut batch = WriteBatch::new();
    batch.put("b", "1").put("c", "3").delete("a");
    db.write(batch).unwrap();
    assert_eq!(index.find("1").unwrap(), [b"b"]);
    let mut txn = db.begin().unwrap();
    txn.put("d", "1").unwrap();
    let savepoint = txn.set_savepoint().unwrap();
    txn.put("e", "1").unwrap();
    txn.put("e", "5").unwrap();
    txn.delete("d").unwrap();
    assert_eq!(index.within(&txn).unwrap().find("1").unwrap(), [b"b"], "it has it again");
    txn.rollback_to(&savepoint).unwrap();
    assert_eq!(kind(txn.commit()), ErrorKind::UniqueViolation);
    db.put("b", "1").unwrap();
    assert_eq!(db.verify_indexes().unwrap(), 2);
    let hashed = db
        .create_unique_index("hashed", &db, IndexType::Hash, IndexSource::value_bytes(..))
        .unwrap();
    assert_eq!(hashed.find("3").unwrap(), [b"c"]);
    assert_eq!(kind(hashed.range::<&str>(..)), ErrorKind::InvalidArgument);
    assert_eq!(kind(hashed.prefix("3")), ErrorKind::InvalidArgument);
}

#[test]
fn of_two_transactions_that_want_the_same_unique_key_one_gets_it() {
    for level in [IsolationLevel::ReadCommitted, IsolationLevel::RepeatableRead] {
        let db = memory();
        unique(&db, "value");
        let mut one = db.begin_with(level).unwrap();
        let mut other = db.begin_with(level).unwrap();
        one.put("a", "same").unwrap();
        other.put("b", "same").unwrap();
        one.commit().unwrap();
        let expected = match level {
            IsolationLevel::ReadCommitted => ErrorKind::UniqueViolation,
            _ => ErrorKind::Conflict,
        };
        assert_eq!(kind(other.commit()), expected);
        assert_eq!(db.verify_indexes().unwrap(), 1);
    }
}

#[test]
fn at_read_committed_the_commit_sees_rows_that_were_written_meanwhile() {
    let db = memory();
    let index = first_byte(&db, "first");
    db.put("k", "a").unwrap();
    let mut txn = db.begin_with(IsolationLevel::ReadCommitted).unwrap();
    txn.put("k", "c").unwrap();
    db.put("k", "b").unwrap();
    assert_eq!(index.within(&txn).unwrap().find("c").unwrap(), [b"k"]);
    txn.commit().unwrap();
    assert!(index.find("b").unwrap().is_empty());
    assert_eq!(index.find("c").unwrap(), [b"k"]);
    assert_eq!(db.verify_indexes().unwrap(), 1);
}

#[test]
fn a_serializable_transaction_is_protected_against_phantoms_in_an_index() {
    for (level, fails) in
        [(IsolationLevel::RepeatableRead, false), (IsolationLevel::Serializable, true)]
    {
        let db = memory();
        let index = first_byte(&db, "first");
        db.put("k1", "x").unwrap();
        let mut txn = db.begin_with(level).unwrap();
        let count = index.within(&txn).unwrap().find("x").unwrap().len();
        txn.put("count", format!("{count}")).unwrap();
        db.put("k2", "x").unwrap();
        assert_eq!(index.within(&txn).unwrap().find("x").unwrap().len(), 1);
        let result = txn.commit();
        assert_eq!(result.is_err(), fails, "{level:?}");
        if fails {
            assert_eq!(kind(result), ErrorKind::Conflict);
        }
        let mut txn = db.begin_with(level).unwrap();
        index.within(&txn).unwrap().find("x").unwrap();
        txn.put("count", "2").unwrap();
        db.put("k3", "y").unwrap();
        txn.commit().expect("nothing was written to what it has read");
    }
}

#[test]
fn a_transaction_that_began_before_an_index_is_run_again() {
    let db = memory();
    let mut txn = db.begin().unwrap();
    let mut bystander = db.begin().unwrap();
    let other = db.keyspace("other").unwrap();
    txn.put("k", "x").unwrap();
    bystander.put_in(&other, "k", "x").unwrap();
    let index = first_byte(&db, "first");
    assert_eq!(kind(index.within(&txn)), ErrorKind::IndexBuilding);
    assert_eq!(kind(txn.commit()), ErrorKind::Conflict);
    bystander.commit().expect("it wrote nothing of that keyspace");
    let mut txn = db.begin().unwrap();
    txn.put("k", "x").unwrap();
    db.drop_index("first").unwrap();
    assert_eq!(kind(txn.commit()), ErrorKind::Conflict);
    db.put("k", "x").unwrap();
    let before = db.snapshot().unwrap();
    let index = first_byte(&db, "first");
    assert_eq!(kind(index.at(&before)), ErrorKind::IndexBuilding);
    assert_eq!(index.at(&db.snapshot().unwrap()).unwrap().find("x").unwrap(), [b"k"]);
    let other = memory();
    assert_eq!(kind(index.at(&other.snapshot().unwrap())), ErrorKind::InvalidArgument);
    assert_eq!(kind(index.within(&other.begin().unwrap())), ErrorKind::InvalidArgument);
}

#[test]
fn rows_that_go_or_change_without_a_plain_write_cannot_be_indexed() {
    let db = memory();
    let fleeting = KeyspaceOptions::new().default_ttl(Duration::from_secs(60));
    let fleeting = db.create_keyspace("fleeting", fleeting).unwrap();
    let create = db.create_index("i", &fleeting, IndexType::Hash, IndexSource::key_bytes(..));
    assert_eq!(kind(create), ErrorKind::InvalidArgument);
    assert!(db.list_indexes().unwrap().is_empty());
    let index = first_byte(&db, "first");
    let mut merge = WriteBatch::new();
    merge.put("a", "x").merge("a", "y");
    assert_eq!(kind(db.write(merge)), ErrorKind::InvalidArgument);
    let mut expiring = WriteBatch::new();
    expiring.put("a", "x").put_expiring("b", "x", Duration::from_secs(1));
    assert_eq!(kind(db.write(expiring)), ErrorKind::InvalidArgument);
    assert!(index.find("x").unwrap().is_empty());
}

#[test]
fn rows_with_a_lifetime_from_before_an_index_are_refused_while_they_live() {
    let db = memory();
    let create = || db.create_index("first", &db, IndexType::BTree, IndexSource::value_bytes(0..1));
    let refused = |row: &str| {
        let error = create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(&format!("row \"{row}\" has a lifetime")), "{error}");
        assert!(db.list_indexes().unwrap().is_empty());
    };
    let hour = Duration::from_secs(3600);
    db.put_expiring("gone", "x", Duration::from_millis(1)).unwrap();
    let patience = Deadline::after(Duration::from_secs(60));
    while db.contains_key("gone").unwrap() {
        assert!(!patience.has_passed());
        pause(Duration::from_millis(1));
    }
    db.put("plain", "x").unwrap();
    db.put_expiring("fleeting", "x", hour).unwrap();
    refused("fleeting");
    db.flush().unwrap();
    refused("fleeting");
    db.put("fleeting", "y").unwrap();
    let index = create().unwrap();
    assert_eq!(index.find("x").unwrap(), [b"plain"]);
    db.put("gone", "y").unwrap();
    assert_eq!(index.find("y").unwrap(), [&b"fleeting"[..], b"gone"]);
    assert_eq!(db.verify_indexes().unwrap(), 3);
}

#[test]
fn verification_compares_indexes_and_names_those_that_it_cannot() {
    let sim = machine(6);
    let db = open(&sim, options()).unwrap();
    let rows = db.keyspace("rows").unwrap();
    KINDS[0].create(&db, &rows).unwrap();
    KINDS[4].create(&db, &rows).unwrap();
    db.create_index("by hand", &rows, IndexType::Hash, IndexSource::Manual).unwrap();
    rows.put("key", "two words").unwrap();
    db.flush().unwrap();
    let verification = db.verify().unwrap();
    assert!(verification.bytes > 0);
    assert_eq!((verification.index_entries, verification.unchecked_indexes), (3, vec![]));
    drop((rows, db));
    let without = open(&sim, small_options()).unwrap().verify().unwrap();
    assert_eq!((without.index_entries, without.unchecked_indexes), (1, vec!["words".to_owned()]));
    let other = small_options().index_extractor("words", |_, _, keys| keys.add("another"));
    let error = open(&sim, other).unwrap().verify().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("index \"words\" disagrees"), "{error}");
}

#[test]
fn entries_can_be_made_by_hand() {
    let sim = machine(4);
    let db = open(&sim, small_options()).unwrap();
    let by_hand = IndexSource::Manual;
    db.create_index("friends", &db, IndexType::BTree, by_hand.clone()).unwrap();
    db.create_unique_index("email", &db, IndexType::Hash, by_hand).unwrap();
    db.put("1", "Ada").unwrap();
    for row in ["1", "2", "1"] {
        db.index_insert("friends", "x", row).unwrap();
    }
    assert_eq!(db.index_find("friends", "x").unwrap(), [b"1", b"2"]);
    assert_eq!(db.index("friends").unwrap().rows("x").unwrap(), [(b"1".to_vec(), b"Ada".to_vec())]);
    assert!(db.index_remove("friends", "x", "2").unwrap());
    assert!(!db.index_remove("friends", "x", "2").unwrap());
    db.index_insert("email", "ada@example.org", "1").unwrap();
    db.index_insert("email", "ada@example.org", "1").unwrap();
    assert_eq!(kind(db.index_insert("email", "ada@example.org", "2")), ErrorKind::UniqueViolation);
    assert!(!db.index_remove("email", "ada@example.org", "2").unwrap());
    db.delete("1").unwrap();
    db.clear().unwrap();
    drop(db);
    let db = open(&sim, small_options()).unwrap();
    assert_eq!(db.index_find("friends", "x").unwrap(), [b"1"], "rows do not concern it");
    assert_eq!(db.index_find("email", "ada@example.org").unwrap(), [b"1"]);
    assert_eq!(kind(db.index_insert("email", "x", "")), ErrorKind::InvalidArgument);
    assert_eq!(kind(db.index_insert("nobody", "x", "1")), ErrorKind::IndexNotFound);
    first_byte(&db, "kept");
    assert_eq!(kind(db.index_insert("kept", "x", "1")), ErrorKind::InvalidArgument);
    assert_eq!(kind(db.index_remove("kept", "x", "1")), ErrorKind::InvalidArgument);
}

#[test]
fn an_extractor_that_has_changed_is_found_by_verification() {
    let sim = machine(5);
    let by = |letter: u8| {
        small_options().index_extractor("changed", move |_, value, keys| {
            if value.first() == Some(&letter) {
                keys.add(value);
            }
        })
    };
    let db = open(&sim, by(b'a')).unwrap();
    db.create_index("i", &db, IndexType::BTree, IndexSource::extractor("changed")).unwrap();
    db.put("1", "apple").unwrap();
    db.put("2", "pear").unwrap();
    assert_eq!(db.verify_indexes().unwrap(), 1);
    drop(db);
    let db = open(&sim, by(b'p')).unwrap();
    let error = db.verify_indexes().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("row \"2\" lacks an entry"), "{error}");
    db.delete("2").unwrap();
    let error = db.verify_indexes().unwrap_err();
    assert!(error.to_string().contains("1 entries where rows have 0"), "{error}");
}
