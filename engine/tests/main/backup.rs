//! Backups: every generation gives back the state that it saved, or says which file is damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustlite_engine::{Backup, Database, ErrorKind, KeyspaceOptions, Result};
use rustlite_io::{CrashPlan, FaultRule, FileSystem, SimFileSystem};

use crate::oracle::Oracle;
use crate::support::{
    DIRECTORY, Files, Random, Table, budget, dump_all, machine, names_a_file, open, random_plan,
    seed, small_options, write_twin_batches,
};
use crate::workload::Runner;

const BACKUP: &str = "/backup";
const RESTORED: &str = "/restored";

type Content = BTreeMap<String, Table>;

fn shared(sim: &Arc<SimFileSystem>) -> Arc<dyn FileSystem> {
    Arc::<SimFileSystem>::clone(sim)
}

fn backup(sim: &Arc<SimFileSystem>) -> Backup {
    Backup::open_on(shared(sim), BACKUP).unwrap()
}

fn open_at(sim: &Arc<SimFileSystem>, directory: &str) -> Result<Database> {
    Database::open_on(shared(sim), directory, small_options().create_if_missing(false))
}

fn worked(sim: &Arc<SimFileSystem>, seed: u64, operations: usize) -> (Database, Oracle) {
    let db = open(sim, small_options()).unwrap();
    let mut oracle = Oracle::new();
    Runner::new(&db, &mut oracle, seed).run(operations).unwrap();
    (db, oracle)
}

/// A database whose tables stay as they are.
fn settled(sim: &Arc<SimFileSystem>, seed: u64, operations: usize) -> Database {
    let (db, _) = worked(sim, seed, operations);
    db.flush().unwrap();
    db.wait_for_compactions().unwrap();
    db
}

/// What the directory holds, by name.
fn names(sim: &Arc<SimFileSystem>, directory: &str) -> Vec<String> {
    let listed = sim.list(Path::new(directory)).unwrap();
    let mut names: Vec<String> = listed.into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

fn tables(sim: &Arc<SimFileSystem>) -> Vec<String> {
    names(sim, BACKUP).into_iter().filter(|name| name.ends_with(".data")).collect()
}

/// The content of a generation, through a restored database.
fn restored(sim: &Arc<SimFileSystem>, generation: u64) -> Content {
    let directory = format!("{RESTORED}-{generation}-{}", sim.op_count());
    backup(sim).restore(generation, &directory).unwrap();
    let db = open_at(sim, &directory).unwrap();
    db.verify().unwrap();
    dump_all(&db).unwrap()
}

/// Checks that the backup is sound and each generation holds what it should.
fn check(sim: &Arc<SimFileSystem>, expected: &BTreeMap<u64, Content>) {
    backup(sim).verify().unwrap();
    let listed: Vec<u64> = backup(sim).list().unwrap().iter().map(|info| info.generation).collect();
    assert_eq!(listed, expected.keys().copied().collect::<Vec<_>>());
    for (&generation, content) in expected {
        assert!(restored(sim, generation) == *content, "generation {generation} differs");
    }
}

#[test]
fn each_generation_gives_back_its_moment_and_shares_what_it_can() {
    let seed = seed(601);
    for round in 0..budget(4) as u64 {
        let sim = machine(round);
        let (db, mut oracle) = worked(&sim, seed + round, 100);
        let mut expected = BTreeMap::new();
        let mut new_bytes = 0;
        for generation in 1..=6 {
            let info = backup(&sim).create(&db).unwrap();
            assert_eq!(info.generation, generation);
            assert_eq!(info.sequence, db.stats().unwrap().sequence);
            new_bytes += info.new_bytes;
            expected.insert(generation, dump_all(&db).unwrap());
            oracle.check_now(&db).unwrap();
            // Few writes between some, so that there is mostly something to share.
            let operations = if generation % 2 == 0 { 100 } else { 3 };
            Runner::new(&db, &mut oracle, generation).run(operations).unwrap();
        }
        let files = sim.list(Path::new(BACKUP)).unwrap();
        let stored = files.iter().filter(|entry| entry.name.ends_with(".data"));
        assert_eq!(stored.map(|entry| entry.len).sum::<u64>(), new_bytes, "each content once");
        check(&sim, &expected);
        assert_eq!(backup(&sim).retain(3).unwrap(), [1, 2, 3]);
        expected.retain(|&generation, _| generation > 3);
        check(&sim, &expected);
        backup(&sim).delete(5).unwrap();
        expected.remove(&5);
        check(&sim, &expected);
        let needed: std::collections::BTreeSet<u64> = expected.keys().copied().collect();
        assert_eq!(needed, [4, 6].into());
        backup(&sim).delete(4).unwrap();
        backup(&sim).delete(6).unwrap();
        assert_eq!(names(&sim, BACKUP), ["BACKUP", "LOCK"]);
    }
}

#[test]
fn an_unchanged_table_is_not_read_again_unless_all_is_asked_for() {
    let sim = machine(1);
    let db = settled(&sim, 3, 200);
    backup(&sim).create(&db).unwrap();
    sim.add_fault(FaultRule::parse("read *.sst sticky").unwrap());
    let second = backup(&sim).create(&db).unwrap();
    assert_eq!(second.new_bytes, 0);
    let error = backup(&sim).create_full(&db).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    sim.clear_faults();
    assert_eq!(backup(&sim).create_full(&db).unwrap().new_bytes, 0);
    assert_eq!(backup(&sim).list().unwrap().len(), 3, "the failed one is not there");
    backup(&sim).verify().unwrap();
}

/// A restored database and its original use the same file numbers and sequence numbers for different content.
#[test]
fn databases_that_went_different_ways_share_a_backup_without_mixing() {
    let sim = machine(2);
    let db = open(&sim, small_options()).unwrap();
    db.put("k", "common").unwrap();
    let first = backup(&sim).create(&db).unwrap().generation;
    backup(&sim).restore(first, RESTORED).unwrap();
    let other = open_at(&sim, RESTORED).unwrap();
    let mut expected = BTreeMap::from([(first, dump_all(&db).unwrap())]);
    for round in 0..6 {
        // Same keys, same lengths: only the bytes of the values differ.
        db.put("k", format!("original {round}")).unwrap();
        other.put("k", format!("restored {round}")).unwrap();
        for db in [&db, &other] {
            let info = backup(&sim).create(db).unwrap();
            expected.insert(info.generation, dump_all(db).unwrap());
        }
    }
    check(&sim, &expected);
}

#[test]
fn at_every_crash_while_one_is_made_all_earlier_generations_stay_and_the_next_succeeds() {
    let seed = seed(602);
    let begin = || {
        let sim = machine(7);
        let (db, mut oracle) = worked(&sim, seed, 80);
        backup(&sim).create(&db).unwrap();
        let first = dump_all(&db).unwrap();
        Runner::new(&db, &mut oracle, seed).run(15).unwrap();
        (sim, db, first)
    };
    let mut random = Random::new(seed);
    let mut found = 0;
    // Background work makes the last cut uncertain: some succeed, and then it is enough.
    let mut succeeded = 0;
    for cut in 0.. {
        if succeeded == 3 {
            break;
        }
        let (sim, db, first) = begin();
        let now = dump_all(&db).unwrap();
        let handle = backup(&sim);
        sim.cut_power_at(sim.op_count() + cut);
        let result = handle.create(&db);
        succeeded += u32::from(result.is_ok());
        let plan = random_plan(&mut random);
        let story = format!("seed {seed}, cut {cut}, {plan:?}, {result:?}");
        let after = sim.crash(&plan);
        drop(db);
        let mut expected = BTreeMap::from([(1, first)]);
        if backup(&after).list().unwrap().len() == 2 {
            expected.insert(2, now.clone());
            found += 1;
        } else {
            assert!(result.is_err(), "{story}: it was there");
        }
        check(&after, &expected);
        let next = 1 + expected.len() as u64;
        let db = open_at(&after, DIRECTORY).unwrap();
        assert_eq!(backup(&after).create(&db).unwrap().generation, next);
        expected.insert(next, dump_all(&db).unwrap());
        check(&after, &expected);
        let stored: u64 = backup(&after).list().unwrap().iter().map(|info| info.new_bytes).sum();
        let files = after.list(Path::new(BACKUP)).unwrap();
        let lengths = files.iter().filter(|entry| entry.name.ends_with(".data"));
        assert_eq!(lengths.map(|entry| entry.len).sum::<u64>(), stored, "{story}: leftovers");
        assert!(!names(&after, BACKUP).contains(&"backup.tmp".to_owned()), "{story}");
    }
    assert!(found > 0);
}

#[test]
fn at_every_crash_of_a_restore_there_is_the_whole_database_or_none() {
    let seed = seed(603);
    let sim = machine(7);
    let (db, _) = worked(&sim, seed, 80);
    backup(&sim).create(&db).unwrap();
    let content = dump_all(&db).unwrap();
    drop(db);
    let mut random = Random::new(seed);
    let (mut found, mut absent) = (0, 0);
    for cut in 0.. {
        let sim = sim.crash(&CrashPlan::ProcessKill);
        let handle = backup(&sim);
        sim.cut_power_at(sim.op_count() + cut);
        let result = handle.restore(1, RESTORED);
        let plan = random_plan(&mut random);
        let story = format!("seed {seed}, cut {cut}, {plan:?}, {result:?}");
        let after = sim.crash(&plan);
        if !after.exists(Path::new(RESTORED)).unwrap() {
            assert!(result.is_err(), "{story}: it was there");
            backup(&after).restore(1, RESTORED).unwrap_or_else(|error| panic!("{story}: {error}"));
            absent += 1;
        } else {
            found += 1;
        }
        let db = open_at(&after, RESTORED).unwrap_or_else(|error| panic!("{story}: {error}"));
        assert!(dump_all(&db).unwrap() == content, "{story}");
        if result.is_ok() {
            break;
        }
    }
    assert!(found > 0 && absent > 5, "{found} found, {absent} absent");
}

#[test]
fn at_every_crash_of_a_removal_what_is_listed_is_complete() {
    let seed = seed(604);
    let sim = machine(7);
    let (db, mut oracle) = worked(&sim, seed, 80);
    let mut contents = BTreeMap::new();
    for generation in 1..=4 {
        backup(&sim).create(&db).unwrap();
        contents.insert(generation, dump_all(&db).unwrap());
        Runner::new(&db, &mut oracle, seed + generation).run(25).unwrap();
    }
    drop(db);
    let mut random = Random::new(seed);
    for cut in 0.. {
        let sim = sim.crash(&CrashPlan::ProcessKill);
        let handle = backup(&sim);
        sim.cut_power_at(sim.op_count() + cut);
        let result = handle.retain(2);
        let after = sim.crash(&random_plan(&mut random));
        let listed = backup(&after).list().unwrap();
        let expected = contents
            .iter()
            .filter(|(number, _)| listed.iter().any(|info| info.generation == **number));
        let expected: BTreeMap<_, _> =
            expected.map(|(&number, content)| (number, content.clone())).collect();
        assert!(expected.contains_key(&3) && expected.contains_key(&4), "cut {cut}");
        check(&after, &expected);
        backup(&after).retain(2).unwrap();
        assert_eq!(backup(&after).list().unwrap().len(), 2);
        if result.is_ok() {
            return;
        }
    }
}

#[test]
fn any_damage_is_found_and_named_and_nothing_is_restored_from_it() {
    let seed = seed(605);
    let mut random = Random::new(seed);
    let sim = machine(3);
    let (db, mut oracle) = worked(&sim, seed, 100);
    backup(&sim).create(&db).unwrap();
    Runner::new(&db, &mut oracle, 8).run(60).unwrap();
    backup(&sim).create(&db).unwrap();
    drop(db);
    let names: Vec<String> =
        names(&sim, BACKUP).into_iter().filter(|name| name.contains('-')).collect();
    assert!(names.len() > 5);
    for name in &names {
        let path = PathBuf::from(BACKUP).join(name);
        let len = sim.read_file(&path).unwrap().len();
        for round in 0..budget(12) {
            let sim = sim.crash(&CrashPlan::ProcessKill);
            let damage = match round {
                0 => sim.remove(&path).map(|()| "removed".to_owned()).unwrap(),
                1 => {
                    sim.truncate_file(&path, random.below(len) as u64).unwrap();
                    "cut".to_owned()
                }
                _ => {
                    let at = random.below(len) as u64;
                    sim.flip_bit(&path, at, random.below(8) as u8).unwrap();
                    format!("flipped at {at}")
                }
            };
            expect_damage(&sim, name, &damage);
        }
    }
}

fn expect_damage(sim: &Arc<SimFileSystem>, name: &str, damage: &str) {
    let is_generation = name.ends_with(".rlbk");
    if is_generation && damage == "removed" {
        // Then there is one generation less, and the other is whole.
        return assert!(backup(sim).list().unwrap().len() == 1 && backup(sim).verify().is_ok());
    }
    let fits = |error: &rustlite_engine::Error| {
        let newer = is_generation && error.kind() == ErrorKind::UnsupportedFormat;
        let story = format!("{name} {damage}: {error}");
        assert!(newer || (error.kind() == ErrorKind::Corruption && names_a_file(error)), "{story}");
        assert!(error.to_string().contains(name), "{story}");
    };
    fits(&backup(sim).verify().unwrap_err());
    if is_generation {
        fits(&backup(sim).list().unwrap_err());
    }
    let failures: Vec<_> = [1, 2]
        .into_iter()
        .filter_map(|number| backup(sim).restore(number, format!("/from-{number}")).err())
        .collect();
    assert!(!failures.is_empty(), "{name} {damage}: both generations were restored");
    failures.iter().for_each(fits);
    let made =
        [1, 2].iter().filter(|number| sim.exists(Path::new(&format!("/from-{number}"))).unwrap());
    assert_eq!(made.count(), 2 - failures.len(), "nothing is left of a refused restore");
    assert!(!names(sim, "/").iter().any(|name| name.contains("partial")), "{:?}", names(sim, "/"));
}

#[test]
fn a_full_backup_heals_damaged_files_of_earlier_generations() {
    let sim = machine(4);
    let db = settled(&sim, 4, 150);
    backup(&sim).create(&db).unwrap();
    let content = dump_all(&db).unwrap();
    for name in tables(&sim) {
        sim.flip_bit(Path::new(BACKUP).join(name), 30, 3).unwrap();
    }
    assert_eq!(backup(&sim).create(&db).unwrap().new_bytes, 0, "lengths are right");
    backup(&sim).verify().unwrap_err();
    backup(&sim).create_full(&db).unwrap();
    check(&sim, &(1..=3).map(|number| (number, content.clone())).collect());
}

#[test]
fn damage_of_the_database_is_not_saved() {
    let sim = machine(5);
    let (db, _) = worked(&sim, 5, 150);
    db.close().unwrap();
    drop(db);
    // All of them: some may be left over, and will be removed.
    for name in Files::of(&sim).names("", ".sst") {
        sim.flip_bit(Path::new(DIRECTORY).join(name), 100, 1).unwrap();
    }
    let db = open_at(&sim, DIRECTORY).unwrap();
    let error = backup(&sim).create(&db).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert!(names_a_file(&error) && error.to_string().contains(".sst"), "{error}");
    assert_eq!(backup(&sim).list().unwrap(), []);
}

#[test]
fn tables_are_kept_while_a_generation_that_may_need_them_cannot_be_read() {
    let sim = machine(6);
    let (db, mut oracle) = worked(&sim, 6, 100);
    for generation in 0..3 {
        Runner::new(&db, &mut oracle, generation).run(50).unwrap();
        // No two generations need the same tables.
        db.compact_range::<&str>(..).unwrap();
        backup(&sim).create(&db).unwrap();
    }
    Runner::new(&db, &mut oracle, 3).run(50).unwrap();
    let before = tables(&sim);
    let first = Path::new(BACKUP).join("generation-000001.rlbk");
    let good = sim.read_file(&first).unwrap();
    sim.flip_bit(&first, 60, 1).unwrap();
    backup(&sim).delete(2).unwrap();
    assert_eq!(tables(&sim), before);
    sim.write_file(&first, &good).unwrap();
    backup(&sim).verify().unwrap();
    assert_eq!(backup(&sim).create(&db).unwrap().generation, 4);
    assert!(before.iter().any(|name| !tables(&sim).contains(name)), "then they are removed");
    backup(&sim).verify().unwrap();
}

#[test]
fn symbolic_links_and_other_directories_are_refused() {
    let sim = machine(7);
    let (db, _) = worked(&sim, 7, 100);
    let error = Backup::open_on(shared(&sim), DIRECTORY).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADatabase, "{error}");
    let error = Backup::open_on(shared(&sim), "/missing/backup").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let handle = backup(&sim);
    assert_eq!(handle.restore(1, RESTORED).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(handle.restore_latest(RESTORED).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(handle.delete(1).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(handle.retain(0).unwrap_err().kind(), ErrorKind::InvalidArgument);
    handle.create(&db).unwrap();
    // Nothing compacts and removes files while names are compared.
    db.close().unwrap();
    for target in [DIRECTORY, BACKUP] {
        let before = names(&sim, target);
        let error = handle.restore(1, target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert_eq!(names(&sim, target), before);
    }
    let error = Database::open_on(shared(&sim), BACKUP, small_options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADatabase, "a backup is no database: {error}");
    let table = Path::new(BACKUP).join(&tables(&sim)[0]);
    sim.remove(&table).unwrap();
    sim.plant_symlink(&table).unwrap();
    assert_eq!(handle.verify().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(handle.restore(1, RESTORED).unwrap_err().kind(), ErrorKind::Io);
    assert!(!sim.exists(Path::new(RESTORED)).unwrap());
    let held = sim.lock(&Path::new(BACKUP).join("LOCK")).unwrap();
    assert_eq!(handle.create(&db).unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(handle.retain(1).unwrap_err().kind(), ErrorKind::Locked);
    drop(held);
}

#[test]
fn backups_taken_while_batches_are_written_hold_a_prefix_of_them() {
    let sim = machine(8);
    let db = open(&sim, small_options()).unwrap();
    let [left, right] = ["left", "right"].map(|name| db.keyspace(name).unwrap());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2_u8 {
            let (db, left, right, stop) = (&db, &left, &right, &stop);
            scope.spawn(move || write_twin_batches(db, [left, right], thread, 300, stop));
        }
        for _ in 0..budget(8) {
            crate::support::pause(std::time::Duration::from_millis(15));
            let before: Vec<_> = (0..2_u8).map(|thread| left.get([thread]).unwrap()).collect();
            let generation = backup(&sim).create(&db).unwrap().generation;
            let copy = restored(&sim, generation);
            assert_eq!(copy["left"], copy["right"], "half of a batch");
            for thread in 0..2_u8 {
                let last = copy["left"].get(&vec![thread]);
                assert!(last >= before[usize::from(thread)].as_ref(), "a write is missing");
                let count = copy["left"].keys().filter(|key| key[0] == thread).count();
                let number =
                    |last: &Vec<u8>| u32::from_be_bytes(last.as_slice().try_into().unwrap());
                assert_eq!(count, last.map_or(0, |last| 2 + number(last) as usize), "a hole");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    backup(&sim).verify().unwrap();
}

#[test]
fn a_database_in_memory_is_saved_and_progress_is_told() {
    let sim = machine(9);
    let db = Database::in_memory_with(small_options()).unwrap();
    for number in 0..2000 {
        db.put(format!("{number:05}"), vec![7; 100]).unwrap();
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&told);
    let handle = backup(&sim).on_progress(move |progress| hear.lock().unwrap().push(progress));
    let info = handle.create(&db).unwrap();
    let heard = std::mem::take(&mut *told.lock().unwrap());
    let (first, last) = (heard[0], heard[heard.len() - 1]);
    assert_eq!((first.files_done, first.bytes_done), (0, 0));
    assert_eq!((last.files_done, last.bytes_done), (info.files, info.bytes));
    assert!(
        heard
            .iter()
            .all(|step| { (step.files_total, step.bytes_total) == (info.files, info.bytes) })
    );
    assert!(heard.is_sorted_by_key(|step| (step.bytes_done, step.files_done)));
    for check in [Backup::verify, |backup: &Backup| backup.restore_latest(RESTORED)] {
        check(&handle).unwrap();
        let heard = std::mem::take(&mut *told.lock().unwrap());
        assert_eq!(heard.last().unwrap().bytes_done, info.bytes);
    }
    assert_eq!(dump_all(&open_at(&sim, RESTORED).unwrap()).unwrap(), dump_all(&db).unwrap());
}

#[test]
fn large_values_go_with_the_tables_that_point_to_them() {
    let sim = machine(10);
    let db = open(&sim, small_options()).unwrap();
    let options = KeyspaceOptions::new().value_separation_bytes(1000);
    let blobs = db.create_keyspace("blobs", options).unwrap();
    let write = |from: u32, fill: u8| {
        for number in from..from + 40 {
            blobs.put(format!("{number:03}"), vec![fill; 3000]).unwrap();
        }
        db.flush().unwrap();
        db.wait_for_compactions().unwrap();
    };
    write(0, 1);
    assert!(!Files::of(&sim).names("", ".val").is_empty(), "values are separated");
    let first = backup(&sim).create(&db).unwrap();
    let mut expected = BTreeMap::from([(1, dump_all(&db).unwrap())]);
    write(100, 2);
    let second = backup(&sim).create(&db).unwrap();
    expected.insert(2, dump_all(&db).unwrap());
    assert!(second.new_bytes < second.bytes, "values are shared: {first:?} {second:?}");
    db.checkpoint("/copy").unwrap();
    let then = dump_all(&db).unwrap();
    // Everything that the copies need must stay theirs.
    write(0, 3);
    write(100, 4);
    blobs.compact().unwrap();
    check(&sim, &expected);
    let copy = open_at(&sim, "/copy").unwrap();
    copy.verify().unwrap();
    assert!(dump_all(&copy).unwrap() == then);
}
