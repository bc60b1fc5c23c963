//! Checkpoints: a complete database of one moment, or none, whatever happens while they are made.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustlite_engine::{Database, ErrorKind, Result};
use rustlite_io::{CrashPlan, FaultRule, FileSystem, SimFileSystem};

use crate::oracle::Oracle;
use crate::support::{
    DIRECTORY, Random, budget, dump_all, machine, open, random_plan, seed, small_options,
    write_twin_batches,
};
use crate::workload::Runner;

const CHECKPOINT: &str = "/copy";

fn open_at(sim: &Arc<SimFileSystem>, directory: &str) -> Result<Database> {
    let file_system: Arc<dyn FileSystem> = Arc::<SimFileSystem>::clone(sim);
    Database::open_on(file_system, directory, small_options().create_if_missing(false))
}

/// A database after a workload with all its kinds of records and some keyspaces.
fn worked(sim: &Arc<SimFileSystem>, seed: u64, operations: usize) -> (Database, Oracle) {
    let db = open(sim, small_options()).unwrap();
    let mut oracle = Oracle::new();
    Runner::new(&db, &mut oracle, seed).run(operations).unwrap();
    (db, oracle)
}

#[test]
fn a_checkpoint_is_a_database_of_its_own() {
    let seed = seed(501);
    for round in 0..budget(12) as u64 {
        let sim = machine(round);
        let (db, mut oracle) = worked(&sim, seed + round, 30 * round as usize);
        let info = db.checkpoint(CHECKPOINT).unwrap();
        assert_eq!(info.copied, 0, "the simulator has links");
        let mut then = oracle.clone();
        // Both go on: same numbers, same sequence numbers, different content.
        Runner::new(&db, &mut oracle, 1).run(150).unwrap();
        let copy = open_at(&sim, CHECKPOINT).unwrap();
        assert_eq!(copy.stats().unwrap().sequence, info.sequence);
        then.check_now(&copy).unwrap();
        Runner::new(&copy, &mut then, 2).run(150).unwrap();
        oracle.check_now(&db).unwrap();
        db.verify().unwrap();
        copy.verify().unwrap();
        drop((db, copy));
        // Neither lost anything by what the other removed.
        oracle.check_now(&open_at(&sim, DIRECTORY).unwrap()).unwrap();
        then.check_now(&open_at(&sim, CHECKPOINT).unwrap()).unwrap();
    }
}

#[test]
fn at_every_crash_there_is_a_whole_checkpoint_or_none_and_the_next_attempt_succeeds() {
    let seed = seed(502);
    let begin = |sim: &Arc<SimFileSystem>| worked(sim, seed, 60);
    let mut random = Random::new(seed);
    let (mut found, mut absent, mut succeeded) = (0, 0, 0);
    // Background work makes the last cut uncertain: some succeed, and then it is enough.
    for cut in 0.. {
        if succeeded == 3 {
            break;
        }
        let sim = machine(7);
        let (db, oracle) = begin(&sim);
        sim.cut_power_at(sim.op_count() + cut);
        let result = db.checkpoint(CHECKPOINT);
        succeeded += u32::from(result.is_ok());
        let plan = random_plan(&mut random);
        let story = format!("seed {seed}, cut {cut}, {plan:?}, {result:?}");
        let after = sim.crash(&plan);
        drop(db);
        if after.exists(Path::new(CHECKPOINT)).unwrap() {
            let copy = open_at(&after, CHECKPOINT).unwrap_or_else(|error| {
                panic!("{story}: the checkpoint does not open: {error}");
            });
            oracle.check_now(&copy).unwrap_or_else(|problem| panic!("{story}: {problem}"));
            found += 1;
        } else {
            assert!(result.is_err(), "{story}: it was there");
            let db = open_at(&after, DIRECTORY).unwrap();
            db.checkpoint(CHECKPOINT).unwrap_or_else(|error| panic!("{story}: {error}"));
            // What was only buffered may be lost to both.
            let copy = open_at(&after, CHECKPOINT).unwrap();
            assert!(dump_all(&copy).unwrap() == dump_all(&db).unwrap(), "{story}");
            let left = names(&after, "/");
            assert_eq!(left, ["copy", "db"], "{story}");
            absent += 1;
        }
    }
    assert!(found > 0 && absent > 5, "{found} found, {absent} absent");
}

fn names(sim: &Arc<SimFileSystem>, directory: &str) -> Vec<String> {
    let listed = sim.list(Path::new(directory)).unwrap();
    let mut names: Vec<String> = listed.into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

#[test]
fn an_error_at_any_operation_leaves_no_checkpoint_and_an_unharmed_database() {
    let seed = seed(503);
    for nth in 1.. {
        let sim = machine(3);
        let (db, oracle) = worked(&sim, seed, 60);
        db.flush().unwrap();
        db.wait_for_compactions().unwrap();
        sim.add_fault(FaultRule::parse(&format!("any nth={nth} error=EIO")).unwrap());
        let result = db.checkpoint(CHECKPOINT);
        sim.clear_faults();
        oracle.check_now(&db).unwrap();
        let is_there = sim.exists(Path::new(CHECKPOINT)).unwrap();
        match result {
            // The fault was not reached, or hit what did not matter.
            Ok(_) if nth > 200 => return assert!(is_there),
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "operation {nth}: {error}");
                if is_there {
                    // Only its name was not known to be durable.
                    oracle.check_now(&open_at(&sim, CHECKPOINT).unwrap()).unwrap();
                    continue;
                }
            }
        }
        if !is_there {
            db.checkpoint(CHECKPOINT).unwrap_or_else(|error| panic!("operation {nth}: {error}"));
        }
        oracle.check_now(&open_at(&sim, CHECKPOINT).unwrap()).unwrap();
    }
}

#[test]
fn where_links_are_impossible_tables_are_copied() {
    for error in ["EXDEV", "EPERM", "EMLINK", "EOPNOTSUPP"] {
        let sim = machine(4);
        let (db, oracle) = worked(&sim, 9, 200);
        sim.add_fault(FaultRule::parse(&format!("link sticky error={error}")).unwrap());
        let info = db.checkpoint(CHECKPOINT).unwrap();
        assert!(info.files > 0 && info.copied == info.files, "{error}: {info:?}");
        drop(db);
        let after = sim.crash(&CrashPlan::DropUnsynced);
        oracle.check_now(&open_at(&after, CHECKPOINT).unwrap()).unwrap();
    }
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let sim = machine(5);
    let (db, _) = worked(&sim, 5, 50);
    db.checkpoint(CHECKPOINT).unwrap();
    let before = names(&sim, CHECKPOINT);
    for target in [CHECKPOINT, DIRECTORY] {
        let error = db.checkpoint(target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
    assert_eq!(names(&sim, CHECKPOINT), before);
    sim.plant_symlink(Path::new("/link")).unwrap();
    assert_eq!(db.checkpoint("/link").unwrap_err().kind(), ErrorKind::AlreadyExists);
    sim.plant_symlink(Path::new("/.target.rustlite-partial")).unwrap();
    assert_eq!(db.checkpoint("/target").unwrap_err().kind(), ErrorKind::AlreadyExists);
    sim.create_dir_all(Path::new("/.other.rustlite-partial")).unwrap();
    sim.write_file("/.other.rustlite-partial/thesis.txt", b"mine").unwrap();
    assert_eq!(db.checkpoint("/other").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(sim.read_file("/.other.rustlite-partial/thesis.txt").unwrap(), b"mine");
    assert_eq!(db.checkpoint("/none/copy").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(db.checkpoint("/").unwrap_err().kind(), ErrorKind::InvalidArgument);
    sim.create_dir_all(Path::new("/empty")).unwrap();
    db.checkpoint("/empty").unwrap();
    assert_eq!(dump_all(&open_at(&sim, "/empty").unwrap()).unwrap(), dump_all(&db).unwrap());
}

#[test]
fn a_checkpoint_taken_while_batches_are_written_holds_a_prefix_of_them() {
    let sim = machine(6);
    let db = open(&sim, small_options()).unwrap();
    let [left, right] = ["left", "right"].map(|name| db.keyspace(name).unwrap());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3_u8 {
            let (db, left, right, stop) = (&db, &left, &right, &stop);
            scope.spawn(move || write_twin_batches(db, [left, right], thread, 200, stop));
        }
        for round in 0..budget(12) {
            crate::support::pause(std::time::Duration::from_millis(15));
            let acknowledged: Vec<_> =
                (0..3_u8).map(|thread| left.get([thread]).unwrap()).collect();
            let directory = format!("/copy-{round}");
            db.checkpoint(&directory).unwrap();
            let copy = dump_all(&open_at(&sim, &directory).unwrap()).unwrap();
            assert_eq!(copy["left"], copy["right"], "half of a batch");
            for thread in 0..3_u8 {
                let last = copy["left"].get(&vec![thread]);
                assert!(last >= acknowledged[usize::from(thread)].as_ref(), "a write is missing");
                let count = copy["left"].keys().filter(|key| key[0] == thread).count();
                let expected = last.map_or(0, |last| {
                    2 + u32::from_be_bytes(last.as_slice().try_into().unwrap()) as usize
                });
                assert_eq!(count, expected, "a hole in the writes of a thread");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn databases_without_files_or_without_writing_say_so() {
    let memory = Database::in_memory().unwrap();
    assert_eq!(memory.checkpoint("/x").unwrap_err().kind(), ErrorKind::InvalidArgument);
    let sim = machine(8);
    let (db, _) = worked(&sim, 5, 50);
    drop(db);
    let file_system: Arc<dyn FileSystem> = Arc::<SimFileSystem>::clone(&sim);
    let reader =
        Database::open_on(file_system, DIRECTORY, small_options().read_only(true)).unwrap();
    assert_eq!(reader.checkpoint(CHECKPOINT).unwrap_err().kind(), ErrorKind::ReadOnly);
    let db = open_at(&sim, DIRECTORY).unwrap();
    db.close().unwrap();
    assert_eq!(db.checkpoint(CHECKPOINT).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(names(&sim, "/"), ["db"]);
}
