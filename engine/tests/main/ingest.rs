//! Bulk ingest: one commit of many records, whatever happens around it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustlite_engine::{
    Database, Durability, ErrorKind, IndexSource, IndexType, IngestInfo, IsolationLevel,
    KeyspaceOptions, Options, TransactionOptions,
};
use rustlite_io::{CrashPlan, FaultRule};

use crate::oracle::{Oracle, Write, default_space};
use crate::support::{
    Deadline, Files, Random, Table, budget, dump, machine, no_file_is_left, open, random_plan,
    seed, small_options, with,
};
use crate::workload::Runner;

fn items(round: u64, count: usize) -> Table {
    (0..count)
        .map(|number| {
            let key = format!("key-{:04}", number * 160 / count);
            let long = [b"round ".to_vec(), vec![b'0' + (round % 10) as u8; 300]].concat();
            (key.into_bytes(), long)
        })
        .collect()
}

fn told(oracle: &mut Oracle, items: &Table, result: &rustlite_engine::Result<IngestInfo>) {
    let put = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        Write::Put(default_space(), key.clone(), value.clone())
    };
    oracle.committed(items.iter().map(put).collect(), true, result.as_ref().map(|_| ()));
}

#[test]
fn at_every_crash_all_of_an_ingest_is_there_or_nothing() {
    let seed = seed(701);
    let mut random = Random::new(seed);
    // In small tables, so that there are many to be half there.
    let begin = || {
        let sim = machine(7);
        let db = open(&sim, small_options()).unwrap();
        let mut oracle = Oracle::new();
        Runner::new(&db, &mut oracle, seed).run(60).unwrap();
        (sim, db, oracle)
    };
    let new = items(1, 150);
    let mut succeeded = 0;
    // Some cuts come after the ingest: the log goes on behind a number that it never saw.
    for cut in 0.. {
        if succeeded == 10 {
            break;
        }
        let (sim, db, mut oracle) = begin();
        sim.cut_power_at(sim.op_count() + cut);
        let result = db.ingest(&new);
        told(&mut oracle, &new, &result);
        if let Ok(info) = &result {
            assert!(info.tables > 2, "not much can be half there");
            succeeded += 1;
            let _ = Runner::new(&db, &mut oracle, cut).run(4);
        }
        let plan = random_plan(&mut random);
        let story = format!("seed {seed}, cut {cut}, {plan:?}, {result:?}");
        let after = sim.crash(&plan);
        drop(db);
        let db = open(&after, small_options()).unwrap_or_else(|error| panic!("{story}: {error}"));
        let lost_power = plan != CrashPlan::ProcessKill;
        let settled = oracle.check(&db, lost_power);
        let mut oracle = settled.unwrap_or_else(|problem| panic!("{story}: {problem}"));
        no_file_is_left(&db, &after, &story);
        // It goes on from there, with another ingest and another crash.
        let again = items(2, 40);
        let result = db.ingest(&again);
        told(&mut oracle, &again, &result);
        result.unwrap();
        Runner::new(&db, &mut oracle, 1).run(10).unwrap();
        let after = after.crash(&CrashPlan::DropUnsynced);
        drop(db);
        let db = open(&after, small_options()).unwrap();
        oracle.check(&db, true).unwrap_or_else(|problem| panic!("{story}, again: {problem}"));
    }
}

#[test]
fn readers_from_before_do_not_see_it_and_later_writes_win() {
    let sim = machine(1);
    let db = open(&sim, small_options()).unwrap();
    for number in 0..160 {
        db.put(format!("key-{number:04}"), "old").unwrap();
    }
    db.delete_range("key-0100", "key-0120").unwrap();
    db.flush().unwrap();
    // In the memtable: both are older than the ingest.
    db.put("key-0003", "old, in memory").unwrap();
    db.delete_range("key-0020", "key-0030").unwrap();
    let before = dump(&db).unwrap();
    let snapshot = db.snapshot().unwrap();
    let mut iter = db.iter().unwrap();
    let new = items(3, 160);
    let info = db.ingest(&new).unwrap();
    assert_eq!((info.records, info.sequence), (160, db.stats().unwrap().sequence));
    assert!(info.sequence > snapshot.sequence());
    let after = db.snapshot().unwrap();
    db.put("key-0007", "later").unwrap();
    db.delete("key-0008").unwrap();
    db.delete_range("key-0050", "key-0060").unwrap();
    let mut now = new.clone();
    now.insert(b"key-0007".to_vec(), b"later".to_vec());
    now.remove(&b"key-0008"[..]);
    now.retain(|key, _| key.as_slice() < &b"key-0050"[..] || key.as_slice() >= &b"key-0060"[..]);
    for stage in 0..4 {
        let seen: Table = snapshot.iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(seen, before, "stage {stage}");
        let backwards: Table = after.iter().rev().collect::<Result<_, _>>().unwrap();
        assert_eq!(backwards, new, "stage {stage}");
        assert_eq!(dump(&db).unwrap(), now, "stage {stage}");
        for (key, value) in &new {
            assert_eq!(after.get(key).unwrap().as_ref(), Some(value), "stage {stage}");
            assert_eq!(snapshot.get(key).unwrap().as_ref(), before.get(key), "stage {stage}");
            assert_eq!(db.get(key).unwrap().as_ref(), now.get(key), "stage {stage}");
            let mut cursor = after.cursor();
            cursor.seek(key).unwrap();
            assert_eq!((cursor.key(), cursor.value()), (&key[..], &value[..]), "stage {stage}");
            let next_back = after.range(..=key.as_slice()).next_back().unwrap().unwrap();
            assert_eq!(next_back.0, *key, "stage {stage}");
        }
        match stage {
            0 => db.flush().unwrap(),
            1 => db.wait_for_compactions().unwrap(),
            _ => db.compact().unwrap(),
        }
        db.verify().unwrap();
    }
    assert_eq!(iter.next().unwrap().unwrap().1, b"old", "an iterator from before");
    drop((snapshot, after, iter));
    db.close().unwrap();
    drop(db);
    assert_eq!(dump(&open(&sim, small_options()).unwrap()).unwrap(), now);
}

#[test]
fn tables_go_to_the_lowest_level_that_fits_and_are_written_once() {
    let sim = machine(2);
    let db = open(&sim, small_options()).unwrap();
    let range = |from: u32, to: u32| (from..to).map(|n| (n.to_be_bytes(), vec![b'x'; 100]));
    let info = db.ingest(range(0, 5000)).unwrap();
    let stats = db.stats().unwrap();
    assert_eq!(stats.levels[6].bytes, info.bytes, "an empty tree takes them at the bottom");
    assert_eq!(stats.ingest_bytes_written, info.bytes);
    db.ingest(range(5000, 9000)).unwrap();
    db.wait_for_compactions().unwrap();
    let stats = db.stats().unwrap();
    assert_eq!(stats.levels[6].bytes, stats.table_bytes(), "beside what is there: {stats}");
    assert_eq!((stats.compactions, stats.flushes), (0, 0), "nothing was written again");
    db.ingest(range(100, 101)).unwrap();
    assert_eq!(db.stats().unwrap().levels[6].bytes, stats.table_bytes(), "above what it covers");
    db.compact().unwrap();
    assert_eq!(db.iter().unwrap().count(), 9000);
    db.verify().unwrap();
}

#[test]
fn wrong_input_is_refused_and_leaves_nothing() {
    let sim = machine(3);
    let db = open(&sim, small_options()).unwrap();
    db.put("a", "1").unwrap();
    db.close().unwrap();
    drop(db);
    let db = open(&sim, small_options()).unwrap();
    let before = Files::of(&sim).names("", ".sst");
    let (long, big) = (vec![b'k'; 65_537], vec![0; 8000]);
    for (wrong, words) in [
        (vec![&b"b"[..], b"a"], "record 2 of the ingest has a smaller key"),
        (vec![b"a", b"a"], "record 2 of the ingest has the same key"),
        (vec![b""], "key"),
        (vec![&long], "key"),
    ] {
        let mut ingest = db.start_ingest().unwrap();
        for number in 0..20 {
            // Enough for several tables before the error.
            ingest.put(format!("0{number:03}"), &big).unwrap();
        }
        let words = words.replace("record 2", "record 22");
        let failed = wrong.iter().find_map(|key| ingest.put(key, "").err()).unwrap();
        assert_eq!(failed.kind(), ErrorKind::InvalidArgument, "{failed}");
        assert!(failed.to_string().contains(&words), "{failed}");
        assert_eq!(ingest.put("z", "").unwrap_err().kind(), ErrorKind::InvalidArgument);
        let failed = ingest.finish().unwrap_err();
        assert!(failed.to_string().contains(&words), "{failed}");
        assert_eq!(Files::of(&sim).names("", ".sst"), before, "files are left");
    }
    let mut dropped = db.start_ingest().unwrap();
    dropped.put("b", &big).unwrap();
    drop(dropped);
    assert_eq!(Files::of(&sim).names("", ".sst"), before, "files are left");
    let nothing = db.ingest(Table::new()).unwrap();
    assert_eq!((nothing.records, nothing.tables, nothing.sequence), (0, 0, 0));
    assert_eq!(dump(&db).unwrap().len(), 1);

    let doomed = db.keyspace("doomed").unwrap();
    let mut late = doomed.start_ingest().unwrap();
    late.put("k", "v").unwrap();
    db.drop_keyspace("doomed").unwrap();
    assert_eq!(late.finish().unwrap_err().kind(), ErrorKind::KeyspaceNotFound);
    assert_eq!(doomed.start_ingest().unwrap_err().kind(), ErrorKind::KeyspaceNotFound);
    let mut late = db.start_ingest().unwrap();
    late.put("k", "v").unwrap();
    db.close().unwrap();
    assert_eq!(late.finish().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(db.start_ingest().unwrap_err().kind(), ErrorKind::Closed);
    drop((db, doomed));
    let reader = open(&sim, small_options().read_only(true)).unwrap();
    assert_eq!(reader.ingest([("k", "v")]).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(dump(&reader).unwrap().len(), 1);
}

#[test]
fn an_error_at_any_operation_leaves_the_database_as_it_was_or_with_all_of_it() {
    let seed = seed(702);
    for (nth, error) in (1..budget(90) as u64).flat_map(|nth| [(nth, "EIO"), (nth, "ENOSPC")]) {
        let sim = machine(3);
        let db = open(&sim, small_options()).unwrap();
        let mut oracle = Oracle::new();
        Runner::new(&db, &mut oracle, seed).run(50).unwrap();
        db.wait_for_compactions().unwrap();
        let new = items(nth, 120);
        sim.add_fault(FaultRule::parse(&format!("any nth={nth} error={error}")).unwrap());
        let result = db.ingest(&new);
        told(&mut oracle, &new, &result);
        if let Err(error) = &result {
            let kind = error.kind();
            let fits = matches!(kind, ErrorKind::Io | ErrorKind::DiskFull | ErrorKind::Poisoned);
            assert!(fits, "operation {nth}: {error:?}");
        }
        sim.clear_faults();
        // It may have been refused for good.
        let _ = Runner::new(&db, &mut oracle, nth).run(5);
        let _ = db.close();
        drop(db);
        let db = open(&sim, small_options()).unwrap();
        let settled = oracle.check(&db, false);
        settled.unwrap_or_else(|problem| panic!("seed {seed}, {error} at {nth}: {problem}"));
    }
}

/// Then the log has entries that are in no memtable, and recovery must not look for them in the numbers behind the ingest's.
#[test]
fn a_log_of_writes_to_a_dropped_keyspace_does_not_stop_recovery() {
    let sim = machine(6);
    let db = open(&sim, small_options()).unwrap();
    let doomed = db.keyspace("doomed").unwrap();
    for number in 0..20 {
        doomed.put(format!("{number}"), "v").unwrap();
    }
    db.drop_keyspace("doomed").unwrap();
    let after = sim.crash(&CrashPlan::ProcessKill);
    drop((db, doomed));
    let db = open(&after, small_options()).unwrap();
    db.ingest([("a", "ingested")]).unwrap();
    db.put("b", "written").unwrap();
    let after = after.crash(&CrashPlan::DropUnsynced);
    drop(db);
    let db = open(&after, small_options()).unwrap();
    let expected = [("a", "ingested"), ("b", "written")];
    let expected =
        expected.map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()));
    assert_eq!(dump(&db).unwrap(), Table::from(expected));
}

/// Every key, with the number of the ingest at the end of its value.
fn marked(round: u64) -> Table {
    let value = |key: Vec<u8>| (key, format!("ingested by {round:06}").into_bytes());
    items(0, 160).into_keys().map(value).collect()
}

fn round_of(value: &[u8]) -> u64 {
    let digits = value.last_chunk::<6>().unwrap();
    std::str::from_utf8(digits).unwrap().parse().unwrap()
}

#[test]
fn writers_and_ingests_of_the_same_keys_go_on_together_and_each_is_whole() {
    let sim = machine(4);
    let options: Options = small_options();
    let db = open(&sim, options).unwrap();
    db.ingest(marked(0)).unwrap();
    let stop = AtomicBool::new(false);
    let writes = AtomicU32::new(0);
    let patience = Deadline::after(Duration::from_secs(60));
    std::thread::scope(|scope| {
        let go_on = || !stop.load(Ordering::Relaxed) && !patience.has_passed();
        for writer in 0..2_usize {
            let (db, writes) = (&db, &writes);
            scope.spawn(move || {
                for number in 0_usize.. {
                    if !go_on() {
                        return;
                    }
                    let key = format!("key-{:04}", 2 + (number * 2 + writer) % 98);
                    // Which ingest this write comes after.
                    let after = round_of(&db.get("key-0100").unwrap().unwrap());
                    let durability = if number.is_multiple_of(9) {
                        Durability::Sync
                    } else {
                        Durability::Buffered
                    };
                    let value = format!("written after {after:06}");
                    db.put_with(&key, value, &with(durability)).unwrap();
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let reader = &db;
        scope.spawn(move || {
            while go_on() {
                // Keys that nobody else writes are all of one ingest.
                let snapshot = reader.snapshot().unwrap();
                let first = snapshot.get("key-0001").unwrap();
                let last = snapshot.get("key-0159").unwrap();
                assert_eq!(first, last, "half of an ingest");
            }
        });
        for round in 1..budget(60) as u64 {
            let seen = writes.load(Ordering::Relaxed);
            db.ingest(marked(round)).unwrap();
            let now = db.snapshot().unwrap();
            assert_eq!(round_of(&now.get("key-0100").unwrap().unwrap()), round);
            let older = now.iter().map(|item| round_of(&item.unwrap().1)).filter(|&it| it < round);
            // Each writer may have looked before the ingest and written after it, once.
            assert!(older.count() <= 2, "what was written before the ingest hides it");
            while writes.load(Ordering::Relaxed) < seen + 50 {
                assert!(!patience.has_passed(), "writers stand still");
                crate::support::pause(Duration::from_micros(100));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    db.verify().unwrap();
}

#[test]
fn two_ingests_at_once_are_two_commits() {
    let db = Database::in_memory_with(small_options()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let db = &db;
            scope.spawn(move || {
                for round in 0..8 {
                    db.ingest(items(thread * 10 + round, 160)).unwrap();
                }
            });
        }
    });
    let all = dump(&db).unwrap();
    assert_eq!(all.len(), 160);
    assert!(all.values().all(|value| value == &all[&b"key-0000"[..]]), "a mixture");
}

#[test]
fn transactions_conflict_with_an_ingest_of_what_they_rely_on_and_with_no_other() {
    let many = 3000;
    // With and without so many commits in between that footprints are forgotten and tables are asked.
    for between in [0, many] {
        let db = Database::in_memory_with(small_options()).unwrap();
        for key in ["a", "m", "z"] {
            db.put(key, "0").unwrap();
        }
        let begin = |level| db.begin_with(TransactionOptions::new().isolation(level)).unwrap();
        let mut lost_update = begin(IsolationLevel::RepeatableRead);
        assert_eq!(lost_update.get("m").unwrap(), Some(b"0".to_vec()));
        lost_update.put("m", "1").unwrap();
        let mut phantom = begin(IsolationLevel::Serializable);
        assert_eq!(phantom.range("k"..="o").unwrap().count(), 1);
        phantom.put("result", "1").unwrap();
        let mut elsewhere = begin(IsolationLevel::Serializable);
        assert_eq!(elsewhere.get("a").unwrap(), Some(b"0".to_vec()));
        elsewhere.put("z", "1").unwrap();
        db.ingest([("l", "ingested"), ("m", "ingested"), ("n", "ingested")]).unwrap();
        for number in 0..between {
            db.put(format!("x {number}"), vec![0; 100]).unwrap();
        }
        assert_eq!(phantom.get("n").unwrap(), None, "its snapshot is older");
        assert_eq!(lost_update.commit().unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(phantom.commit().unwrap_err().kind(), ErrorKind::Conflict);
        elsewhere.commit().unwrap();
        assert_eq!(db.get("m").unwrap(), Some(b"ingested".to_vec()));
        let mut after = begin(IsolationLevel::Serializable);
        assert_eq!(after.get("n").unwrap(), Some(b"ingested".to_vec()));
        after.put("m", "2").unwrap();
        after.commit().unwrap();
        assert_eq!(db.get("m").unwrap(), Some(b"2".to_vec()));
    }
}

#[test]
fn an_ingest_follows_the_rules_of_its_keyspace() {
    let sim = machine(8);
    let db = open(&sim, small_options()).unwrap();
    let options = KeyspaceOptions::new().default_ttl(Duration::from_secs(100));
    let cache = db.create_keyspace("cache", options).unwrap();
    let blobs_options = || KeyspaceOptions::new().value_separation_bytes(1000);
    let blobs = db.create_keyspace("blobs", blobs_options()).unwrap();
    let items: Table = items(1, 50).into_keys().map(|key| (key, vec![7; 2000])).collect();
    let value_files = || Files::of(&sim).names("", ".val").len();
    cache.ingest(&items).unwrap();
    assert_eq!((dump(&cache).unwrap(), value_files()), (items.clone(), 0));
    let info = blobs.ingest(&items).unwrap();
    assert_eq!((dump(&blobs).unwrap(), value_files()), (items.clone(), 1));
    let stats = db.stats().unwrap();
    assert!(stats.value_file_bytes >= 50 * 2000 && info.bytes > stats.value_file_bytes, "{stats}");
    assert_eq!(stats.value_garbage_bytes, 0, "each value was written once: {stats}");
    // What an ingest leaves when it is given up, or when its keyspace goes.
    for drops in [false, true] {
        let space = db.create_keyspace("gone", blobs_options()).unwrap();
        let mut ingest = space.start_ingest().unwrap();
        items.iter().try_for_each(|(key, value)| ingest.put(key, value)).unwrap();
        assert_eq!(value_files(), 2);
        db.drop_keyspace("gone").unwrap();
        if drops {
            drop(ingest);
        } else {
            assert_eq!(ingest.finish().unwrap_err().kind(), ErrorKind::KeyspaceNotFound);
        }
        assert_eq!(value_files(), 1);
    }
    sim.sim_clock().unwrap().advance(Duration::from_secs(101));
    assert_eq!(dump(&cache).unwrap(), Table::new(), "they have expired");
    cache.compact().unwrap();
    assert_eq!(dump(&blobs).unwrap(), items);
    db.verify().unwrap();
}

#[test]
fn rows_that_an_index_would_not_know_are_refused() {
    let sim = machine(12);
    let db = open(&sim, small_options()).unwrap();
    let mut begun_before = db.start_ingest().unwrap();
    begun_before.put("a", "1").unwrap();
    let source = IndexSource::value_bytes(..);
    let index = db.create_index("by value", &db, IndexType::BTree, source).unwrap();
    let error = begun_before.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert_eq!(db.start_ingest().unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(db.iter().unwrap().count(), 0);
    assert_eq!(index.find("1").unwrap(), Vec::<Vec<u8>>::new());
    db.drop_index("by value").unwrap();
    let mut after = db.start_ingest().unwrap();
    after.put("a", "1").unwrap();
    after.finish().unwrap();
    assert_eq!(db.get("a").unwrap().as_deref(), Some(&b"1"[..]));
}
