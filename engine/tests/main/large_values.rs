//! Values in files of their own: the same values however they are read, and no file that nobody needs.

use std::sync::Arc;

use rustlite_engine::{
    Append, CompactionFilter, Compression, Database, ErrorKind, FilterDecision, Keyspace,
    KeyspaceOptions, Options, Result, WriteBatch,
};
use rustlite_io::{CrashPlan, SimFileSystem};

use crate::support::{Files, Table, dump, machine, open, small_options};

fn separated() -> KeyspaceOptions {
    KeyspaceOptions::new().value_separation_bytes(1000)
}

fn options() -> Options {
    small_options().default_keyspace(separated())
}

fn key(number: usize) -> String {
    format!("key-{number:04}")
}

/// Small for odd numbers, separated for even ones.
fn value(number: usize, round: usize) -> Vec<u8> {
    let mut value = format!("{number} in round {round} ").into_bytes();
    value.resize(if number.is_multiple_of(2) { 1000 + number * 7 } else { 50 }, b'.');
    value
}

fn fill(space: &Keyspace, numbers: std::ops::Range<usize>, round: usize) -> Table {
    let record = |number| {
        space.put(key(number), value(number, round)).unwrap();
        (key(number).into_bytes(), value(number, round))
    };
    numbers.map(record).collect()
}

fn value_files(sim: &Arc<SimFileSystem>) -> Vec<String> {
    Files::of(sim).names("", ".val")
}

/// Every way of reading gives the same.
fn check(space: &Keyspace, expected: &Table) {
    assert!(dump(space).unwrap() == *expected, "forward");
    let back: Table = space.iter().unwrap().rev().collect::<Result<_>>().unwrap();
    assert!(back == *expected, "backward");
    let mut cursor = space.cursor().unwrap();
    cursor.seek_to_last().unwrap();
    for (key, value) in expected.iter().rev().take(20) {
        assert_eq!((cursor.key(), cursor.value()), (&key[..], &value[..]));
        cursor.prev().unwrap();
    }
    let keys: Vec<_> = expected.keys().step_by(7).collect();
    let pinned = space.multi_get_pinned(&keys).unwrap();
    for ((key, found), pinned) in keys.iter().zip(space.multi_get(&keys).unwrap()).zip(pinned) {
        assert_eq!(found.as_deref(), pinned.as_deref());
        assert_eq!(found.as_ref(), expected.get(*key));
        assert_eq!(space.get_pinned(key).unwrap().as_deref(), found.as_deref());
        assert!(space.contains_key(key).unwrap());
    }
}

#[test]
fn values_read_the_same_in_memory_in_files_and_after_reopening() {
    let sim = machine(1);
    let db = open(&sim, options()).unwrap();
    let expected = fill(&db, 0..60, 0);
    check(&db, &expected);
    assert_eq!(value_files(&sim).len(), 0, "what is not flushed is not separated");
    db.flush().unwrap();
    check(&db, &expected);
    let stats = db.stats().unwrap();
    assert!(stats.value_files > 0 && stats.value_garbage_bytes == 0, "{stats}");
    let separated: usize = (0..60).step_by(2).map(|number| value(number, 0).len()).sum();
    assert!(stats.value_file_bytes >= separated as u64, "{stats}");
    assert!(stats.table_bytes() < separated as u64, "tables hold pointers: {stats}");
    assert!(stats.to_string().contains("value files"), "{stats}");
    assert!(db.verify().unwrap().bytes > separated as u64);
    db.compact().unwrap();
    check(&db, &expected);
    db.close().unwrap();
    let db = open(&sim, options()).unwrap();
    check(&db, &expected);
    let after = sim.crash(&CrashPlan::DropUnsynced);
    drop(db);
    let db = open(&after, options().read_only(true)).unwrap();
    check(&db, &expected);
    db.verify().unwrap();
}

#[test]
fn by_default_values_of_8_kib_are_separated_unless_tables_are_compressed() {
    for (options, is_separated) in [
        (KeyspaceOptions::new(), true),
        (KeyspaceOptions::new().compression(Compression::Lz4), false),
        (KeyspaceOptions::new().compression(Compression::Lz4).value_separation_bytes(9000), false),
        (KeyspaceOptions::new().compression(Compression::Lz4).value_separation_bytes(8192), true),
        (KeyspaceOptions::new().value_separation_bytes(0), false),
    ] {
        let sim = machine(5);
        let open = || open(&sim, small_options().default_keyspace(options.clone())).unwrap();
        drop(open());
        // What the manifest says counts, and it says the same.
        let db = open();
        db.put("short", vec![b's'; 8191]).unwrap();
        db.flush().unwrap();
        assert_eq!(value_files(&sim).len(), 0, "{options:?}");
        db.put("long", vec![b'l'; 8192]).unwrap();
        db.flush().unwrap();
        assert_eq!(value_files(&sim).len(), usize::from(is_separated), "{options:?}");
        let all = [("long", b'l', 8192), ("short", b's', 8191)];
        check(&db, &all.map(|(key, byte, len)| (key.into(), vec![byte; len])).into());
    }
}

#[test]
fn compactions_carry_pointers_and_leave_values_where_they_are() {
    let sim = machine(2);
    let db = open(&sim, options()).unwrap();
    let mut expected = fill(&db, 0..40, 0);
    db.flush().unwrap();
    let before = value_files(&sim);
    for number in 0..40 {
        let between = format!("{}-small", key(number)).into_bytes();
        db.put(&between, "x").unwrap();
        expected.insert(between, b"x".into());
    }
    db.compact().unwrap();
    assert_eq!(value_files(&sim), before);
    check(&db, &expected);
}

#[test]
fn garbage_is_collected_and_files_that_nobody_needs_go() {
    let sim = machine(3);
    let db = open(&sim, options()).unwrap();
    let mut expected = Table::new();
    for round in 0..12 {
        // Some keys keep their value for long.
        expected.extend(fill(&db, round * 3..120, round));
        db.flush().unwrap();
    }
    db.compact().unwrap();
    db.wait_for_compactions().unwrap();
    check(&db, &expected);
    let live: u64 =
        expected.values().filter(|value| value.len() >= 1000).map(|value| value.len() as u64).sum();
    let stats = db.stats().unwrap();
    assert!(stats.value_file_bytes <= live * 2 + 4096, "{live} bytes live: {stats}");
    db.verify().unwrap();
    db.delete_range("a", "z").unwrap();
    db.compact().unwrap();
    await_value_files(&sim, 0);
}

/// No compaction begins before somebody asks for one, and files up to half a megabyte are small.
fn patient_options() -> Options {
    options()
        .table_bytes(1 << 20)
        .l0_compaction_trigger(100)
        .l0_slowdown_trigger(200)
        .l0_stop_trigger(300)
}

/// Writes the rows in so many flushes, each of which leaves a small value file.
fn scatter(db: &Database, flushes: usize) -> Table {
    let mut expected = Table::new();
    for flush in 0..flushes {
        for number in (flush..20 * flushes).step_by(flushes) {
            db.put(key(number), value(number, flush)).unwrap();
            expected.insert(key(number).into_bytes(), value(number, flush));
        }
        db.flush().unwrap();
    }
    expected
}

/// Waits until so many value files are left: they are removed by a thread of their own.
fn await_value_files(sim: &Arc<SimFileSystem>, count: usize) {
    let deadline = crate::support::Deadline::after(std::time::Duration::from_secs(20));
    while value_files(sim).len() != count && !deadline.has_passed() {
        crate::support::pause(std::time::Duration::from_millis(5));
    }
    assert_eq!(value_files(sim).len(), count, "{:?}", value_files(sim));
}

#[test]
fn small_files_become_one_in_a_compaction_that_meets_them() {
    let sim = machine(9);
    let db = open(&sim, patient_options()).unwrap();
    let expected = scatter(&db, 9);
    let stats = db.stats().unwrap();
    assert_eq!((stats.value_files, stats.value_files_small), (9, 9), "{stats}");
    db.compact().unwrap();
    db.wait_for_compactions().unwrap();
    let stats = db.stats().unwrap();
    assert_eq!((stats.value_files, stats.value_garbage_bytes), (1, 0), "{stats}");
    assert!(stats.compaction_value_bytes_written >= stats.value_file_bytes, "{stats}");
    await_value_files(&sim, 1);
    check(&db, &expected);
    db.verify().unwrap();
    let before = value_files(&sim);
    for round in 0..3 {
        db.put("a", round.to_string().repeat(1500)).unwrap();
        db.compact().unwrap();
    }
    assert!(value_files(&sim).contains(&before[0]), "few small files are not worth it");
}

#[test]
fn tables_at_rest_that_point_to_many_small_files_are_rewritten() {
    let sim = machine(10);
    // Tables are smaller, so no file is small yet.
    let db = open(&sim, patient_options().table_bytes(16 << 10)).unwrap();
    let expected = scatter(&db, 7);
    db.compact().unwrap();
    db.wait_for_compactions().unwrap();
    assert_eq!(value_files(&sim).len(), 7);
    db.close().unwrap();
    drop(db);
    let db = open(&sim, patient_options()).unwrap();
    db.wait_for_compactions().unwrap();
    let stats = db.stats().unwrap();
    assert_eq!((stats.value_files, stats.value_garbage_bytes), (1, 0), "{stats}");
    await_value_files(&sim, 1);
    check(&db, &expected);
    db.verify().unwrap();
}

/// Merges small files, and loses power at operation `cut` of that. Gives the machine, what must be there, and whether the merge had
/// ended before.
fn cut_while_merging(cut: u64, plan: &CrashPlan) -> (Arc<SimFileSystem>, Table, bool) {
    let sim = machine(11);
    let db = open(&sim, patient_options()).unwrap();
    let expected = scatter(&db, 5);
    sim.cut_power_at(sim.op_count() + cut);
    let has_ended = db.compact().is_ok();
    (sim.crash(plan), expected, has_ended)
}

#[test]
fn power_lost_at_any_point_of_merging_small_files_loses_no_value() {
    for cut in 0.. {
        let plan = match cut % 3 {
            0 => CrashPlan::DropUnsynced,
            1 => CrashPlan::KeepAll,
            _ => CrashPlan::Random(cut),
        };
        let (sim, expected, has_ended) = cut_while_merging(cut, &plan);
        let db = open(&sim, patient_options()).unwrap();
        let stats = db.stats().unwrap();
        assert!(matches!(stats.value_files, 1 | 5), "all or nothing: {stats}");
        assert!(stats.value_files == 1 || !has_ended, "what has ended is durable: {stats}");
        assert_eq!(value_files(&sim).len(), stats.value_files, "orphans are removed at the open");
        check(&db, &expected);
        db.verify().unwrap();
        db.compact().unwrap();
        check(&db, &expected);
        await_value_files(&sim, 1);
        if has_ended {
            assert!(cut > 10, "it takes more operations than {cut}");
            return;
        }
    }
}

#[test]
fn readers_keep_what_they_see_while_files_are_emptied_and_removed() {
    let sim = machine(4);
    let db = open(&sim, options()).unwrap();
    let old = fill(&db, 0..80, 0);
    db.flush().unwrap();
    let snapshot = db.snapshot().unwrap();
    let pinned = db.get_pinned(key(10)).unwrap().unwrap();
    let iterator = db.iter().unwrap();
    let mut new = fill(&db, 0..70, 1);
    new.extend(old.range(key(70).into_bytes()..).map(|(key, value)| (key.clone(), value.clone())));
    db.compact().unwrap();
    db.wait_for_compactions().unwrap();
    check(&db, &new);
    let seen: Table = snapshot.iter().rev().collect::<Result<_>>().unwrap();
    assert!(seen == old);
    drop(snapshot);
    db.compact().unwrap();
    db.wait_for_compactions().unwrap();
    check(&db, &new);
    let seen: Table = iterator.collect::<Result<_>>().unwrap();
    assert!(seen == old);
    db.delete_range("a", "z").unwrap();
    db.compact().unwrap();
    db.close().unwrap();
    drop(db);
    assert_eq!(*pinned, *value(10, 0), "a pinned value outlives its file and the database");
    assert_eq!(pinned.into_bytes(), value(10, 0));
}

#[test]
fn a_dropped_keyspace_takes_its_value_files_along() {
    let sim = machine(5);
    let db = open(&sim, small_options()).unwrap();
    let space = db.create_keyspace("large", separated()).unwrap();
    fill(&space, 0..40, 0);
    fill(&db, 0..40, 0);
    db.flush().unwrap();
    assert_eq!(value_files(&sim).len(), 1, "the default keyspace separates nothing");
    drop(space);
    db.drop_keyspace("large").unwrap();
    db.close().unwrap();
    drop(db);
    open(&sim, small_options()).unwrap();
    assert_eq!(value_files(&sim), [""; 0]);
}

/// Removes values that begin with an even number, marks the others.
struct Mark;

impl CompactionFilter for Mark {
    fn filter(&self, _key: &[u8], value: &[u8]) -> FilterDecision {
        match value.first() {
            Some(b'0') => FilterDecision::Remove,
            Some(b'1') => FilterDecision::Change([b"marked ", value].concat()),
            _ => FilterDecision::Keep,
        }
    }
}

#[test]
fn filters_and_merge_operators_see_values_and_not_pointers() {
    let sim = machine(6);
    let appending = separated().merge_operator(Append::NAME);
    let options = small_options().default_keyspace(separated()).compaction_filter("default", Mark);
    let db = open(&sim, options).unwrap();
    let lists = db.create_keyspace("lists", appending).unwrap();
    let large = |first: &str| first.repeat(1500).into_bytes();
    let mut batch = WriteBatch::new();
    batch.put("a", large("0")).put("b", large("1")).put("c", large("2"));
    batch.put_in(&lists, "list", large("x"));
    db.write(batch).unwrap();
    db.flush().unwrap();
    lists.merge("list", "y").unwrap();
    lists.merge("short", "z").unwrap();
    let list = [large("x"), b"y".to_vec()].concat();
    assert_eq!(lists.get("list").unwrap().unwrap(), list);
    assert_eq!(lists.iter().unwrap().next().unwrap().unwrap().1, list);
    assert_eq!(lists.iter().unwrap().rev().last().unwrap().unwrap().1, list);
    lists.compact().unwrap();
    db.compact().unwrap();
    assert_eq!(lists.get("list").unwrap().unwrap(), list);
    let found = dump(&db).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[&b"b"[..]], [b"marked ".to_vec(), large("1")].concat());
    assert_eq!(found[&b"c"[..]], large("2"));
    db.verify().unwrap();
}

#[test]
fn a_damaged_value_is_an_error_to_its_readers_only() {
    let sim = machine(7);
    let db = open(&sim, options()).unwrap();
    let expected = fill(&db, 0..40, 0);
    db.close().unwrap();
    drop(db);
    let [name] = value_files(&sim).try_into().unwrap();
    sim.flip_bit(crate::support::path(&name), 100, 3).unwrap();
    let db = open(&sim, options()).unwrap();
    let damaged = |error: rustlite_engine::Error| {
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains(&name), "{error}");
    };
    damaged(db.get(key(0)).unwrap_err());
    damaged(db.get_pinned(key(0)).unwrap_err());
    damaged(db.verify().unwrap_err());
    damaged(db.iter().unwrap().next().unwrap().unwrap_err());
    for (key, value) in expected.iter().skip(1) {
        assert_eq!(db.get(key).unwrap().as_ref(), Some(value));
    }
    // Its pointer can be carried; only emptying its file needs it.
    db.compact().unwrap();
    db.delete(key(0)).unwrap();
    assert_eq!(dump(&db).unwrap().len(), 39);
}

#[test]
fn lengths_out_of_bounds_are_refused() {
    let db: Database = open(&machine(8), small_options()).unwrap();
    for bytes in [1, 255, (1 << 30) + 1] {
        let options = KeyspaceOptions::new().value_separation_bytes(bytes);
        let error = db.create_keyspace("k", options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("value_separation_bytes"), "{error}");
    }
}
