//! Building indexes on rows that are there, with writers at work, and after crashes half way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustlite_engine::{
    Database, Durability, ErrorKind, IndexSource, IndexType, Keyspace, WriteBatch,
};
use rustlite_io::{CrashPlan, SimFileSystem};

use crate::index_support::{KINDS, options, random_key, random_value, table};
use crate::support::{Deadline, Random, budget, machine, open, pause, seed, with};

fn many_key(random: &mut Random) -> String {
    format!("k{:05}", random.below(4000))
}

fn fill(rows: &Keyspace, random: &mut Random, count: usize) {
    for _ in 0..count {
        let value =
            random_value(random).into_iter().filter(|byte| *byte != b'#').collect::<Vec<_>>();
        rows.put_with(many_key(random), value, &with(Durability::Buffered)).unwrap();
    }
}

fn wait_until_ready(db: &Database, name: &str) {
    let patience = Deadline::after(Duration::from_secs(60));
    while db.index(name).unwrap().now().is_err() {
        assert!(!patience.has_passed(), "index {name} is not ready");
        pause(Duration::from_millis(2));
    }
}

/// Writes rows until told to stop.
fn write_until(rows: &Keyspace, db: &Database, mut random: Random, stop: &AtomicBool) {
    let buffered = with(Durability::Buffered);
    while !stop.load(Ordering::Relaxed) {
        let key = many_key(&mut random);
        let result = match random.below(10) {
            0..=5 => rows.put_with(key, random_value(&mut random), &buffered),
            6..=7 => rows.delete_with(key, &buffered),
            8 => {
                let (key, value) = (many_key(&mut random), random_value(&mut random));
                let mut batch = WriteBatch::new();
                batch.put_in(rows, key, value).delete_range_in(rows, "k01000", "k01020");
                db.write_with(&batch, &buffered)
            }
            _ => db.transact(|txn| {
                let old = txn.get_in(rows, &key)?.unwrap_or_default();
                txn.put_in(rows, &key, [&old[..old.len().min(20)], b" b"].concat())
            }),
        };
        match result {
            // The simulator refuses everything after a crash.
            Err(error) if matches!(error.kind(), ErrorKind::Poisoned | ErrorKind::Io) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::UniqueViolation, "{error}"),
            Ok(()) => {}
        }
    }
}

#[test]
fn an_index_built_while_others_write_equals_a_recomputation() {
    let seed = seed(700);
    let db = Database::in_memory_with(options()).unwrap();
    let rows = db.keyspace("rows").unwrap();
    let mut random = Random::new(seed);
    fill(&rows, &mut random, 6000);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (rows, db, stop) = (&rows, &db, &stop);
            scope.spawn(move || write_until(rows, db, Random::new(seed + 1 + thread), stop));
        }
        for _ in 0..3 {
            for kind in KINDS.iter().filter(|kind| !kind.unique) {
                kind.create(&db, &rows).unwrap();
                db.verify_indexes().unwrap();
            }
            pause(Duration::from_millis(20));
            for kind in KINDS.iter().filter(|kind| !kind.unique) {
                db.drop_index(kind.name).unwrap();
            }
        }
        KINDS
            .iter()
            .filter(|kind| !kind.unique)
            .for_each(|kind| drop(kind.create(&db, &rows).unwrap()));
        stop.store(true, Ordering::Relaxed);
    });
    db.verify_indexes().unwrap();
    let found = table(&rows);
    for kind in KINDS.iter().filter(|kind| !kind.unique) {
        kind.check(&db.index(kind.name).unwrap().now().unwrap(), &found, &mut random);
    }
}

/// A crash while an index is built and others write; then the next open goes on.
fn crash_half_way(seed: u64, state: u64) {
    let sim = machine(seed);
    let db = open(&sim, options()).unwrap();
    let rows = db.keyspace("rows").unwrap();
    let mut random = Random::new(seed + state);
    fill(&rows, &mut random, 3000);
    let stop = AtomicBool::new(false);
    let after = std::thread::scope(|scope| {
        let (rows, db, stop, sim) = (&rows, &db, &stop, &sim);
        scope.spawn(move || write_until(rows, db, Random::new(seed ^ state), stop));
        scope.spawn(move || KINDS[0].create(db, rows));
        pause(Duration::from_micros(random.below(20_000) as u64));
        let plan = [CrashPlan::ProcessKill, CrashPlan::Random(state)][random.below(2)];
        let after = sim.crash(&plan);
        stop.store(true, Ordering::Relaxed);
        after
    });
    let mut after: Arc<SimFileSystem> = after;
    for _ in 0..random.below(3) {
        let db = open(&after, options()).unwrap();
        pause(Duration::from_micros(random.below(5000) as u64));
        after = after.crash(&CrashPlan::Random(random.next()));
        drop(db);
    }
    let db = open(&after, options()).unwrap();
    let Some(rows) = db.existing_keyspace("rows").unwrap() else { return };
    rows.put("another", "abc").unwrap();
    // The crash may have come before the index.
    if db.list_indexes().unwrap().is_empty() {
        KINDS[0].create(&db, &rows).unwrap();
    }
    wait_until_ready(&db, "words");
    db.verify_indexes().unwrap();
    KINDS[0].check(&db.index("words").unwrap().now().unwrap(), &table(&rows), &mut random);
}

#[test]
fn a_build_that_a_crash_interrupts_goes_on_at_the_next_open() {
    let seed = seed(800);
    for state in 0..budget(25) as u64 {
        crash_half_way(seed, state);
    }
}

#[test]
fn a_build_that_a_close_interrupts_goes_on_and_is_refused_to_readers_meanwhile() {
    let sim = machine(1);
    let slow = || {
        options().index_extractor("slow", |_, value, keys| {
            pause(Duration::from_micros(200));
            keys.add(value);
        })
    };
    let db = open(&sim, slow()).unwrap();
    let rows = db.keyspace("rows").unwrap();
    fill(&rows, &mut Random::new(1), 2000);
    let before = db.snapshot().unwrap();
    let source = IndexSource::extractor("slow");
    std::thread::scope(|scope| {
        let create = scope.spawn(|| db.create_index("slow", &rows, IndexType::BTree, source));
        let patience = Deadline::after(Duration::from_secs(60));
        while db.index("slow").is_err() {
            assert!(!patience.has_passed());
            std::thread::yield_now();
        }
        let building = |result: rustlite_engine::Result<_>| {
            assert_eq!(result.map(drop).unwrap_err().kind(), ErrorKind::IndexBuilding);
        };
        let index = db.index("slow").unwrap();
        building(index.now());
        building(index.at(&before));
        building(index.within(&db.begin().unwrap()));
        assert!(!db.index_info("slow").unwrap().ready);
        db.close().unwrap();
        assert_eq!(create.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
    drop((db, rows, before));
    let without = open(&sim, options()).unwrap();
    let rows = without.keyspace("rows").unwrap();
    let refused = rows.put("k", "v").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ExtractorMissing, "{refused}");
    drop((without, rows));
    let db = open(&sim, slow()).unwrap();
    wait_until_ready(&db, "slow");
    let entries = db.verify_indexes().unwrap();
    assert_eq!(db.index_info("slow").unwrap().entries, entries);
}

#[test]
fn a_unique_index_on_rows_that_share_a_key_is_refused_and_leaves_nothing() {
    let db = Database::in_memory_with(options()).unwrap();
    for number in 0..2000 {
        db.put(format!("{number:04}"), format!("a #{}", number % 1999)).unwrap();
    }
    let create =
        || db.create_unique_index("tag", &db, IndexType::Hash, IndexSource::extractor("tag"));
    let error = create().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation);
    assert!(error.to_string().contains("\"tag\"") && error.to_string().contains("#0"), "{error}");
    assert!(db.list_indexes().unwrap().is_empty());
    db.put("0000", "b #no").unwrap();
    let index = create().unwrap();
    assert_eq!(index.find("#0").unwrap(), [b"1999"]);
    assert_eq!(db.verify_indexes().unwrap(), 2000);
}

#[test]
fn writers_that_meet_on_few_rows_all_get_through_and_leave_right_indexes() {
    let seed = seed(900);
    let db = Database::in_memory_with(options()).unwrap();
    let rows = db.keyspace("rows").unwrap();
    KINDS.iter().for_each(|kind| drop(kind.create(&db, &rows).unwrap()));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (db, rows) = (&db, &rows);
            scope.spawn(move || {
                let mut random = Random::new(seed + thread);
                for number in 0..400 {
                    let key = &random_key(&mut random)[..2];
                    let value = random_value(&mut random);
                    let result = match number % 4 {
                        0 => rows.delete_range("k1", "k4"),
                        1 => rows.delete(key),
                        2 => db.transact(|txn| txn.put_in(rows, key, &value)),
                        _ => rows.put(key, value),
                    };
                    if let Err(error) = result {
                        assert_eq!(error.kind(), ErrorKind::UniqueViolation, "{error}");
                    }
                }
            });
        }
    });
    db.verify_indexes().unwrap();
    let found = table(&rows);
    for kind in &KINDS {
        assert!(!kind.is_violated(&found));
        kind.check(&db.index(kind.name).unwrap().now().unwrap(), &found, &mut Random::new(seed));
    }
}
