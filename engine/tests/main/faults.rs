//! Errors of the device at every operation, once and for ever: what fails says so, what was acknowledged stays, reads go on.

use std::sync::Arc;

use rustlite_engine::{Database, ErrorKind, Options, Result};
use rustlite_io::{CrashPlan, FaultRule, SimFileSystem};

use crate::oracle::{Oracle, Write, default_space};
use crate::support::{
    Deadline, Random, budget, describe, dump, machine, open, seed, small_options,
};
use crate::workload::{Runner, is_device_error};

fn fault(text: &str) -> FaultRule {
    FaultRule::parse(text).unwrap()
}

/// Runs a workload under one rule, then on a healthy device, then after a crash.
fn run_under(rule: &str, seed: u64, options: &Options) {
    let sim = machine(seed);
    sim.add_fault(fault(rule));
    let mut random = Random::new(seed);
    let mut oracle = Oracle::new();
    if let Ok(db) = open_or_device_error(&sim, options, rule) {
        let mut runner = Runner::new(&db, &mut oracle, seed);
        for _ in 0..250 {
            if let Err(error) = runner.step() {
                assert!(is_device_error(&error), "under `{rule}`: {error:?}");
            }
        }
        sim.clear_faults();
        runner.check_reads().unwrap_or_else(|error| panic!("under `{rule}`: {error:?}"));
        // It may say that it was poisoned.
        let _ = db.close();
    }
    sim.clear_faults();
    let (found, db) = reopen(&sim, options, rule);
    let settled = oracle.check(&db, false);
    let mut oracle = settled.unwrap_or_else(|text| panic!("seed {seed}, `{rule}`: {text}{found}"));
    Runner::new(&db, &mut oracle, seed + 1).run(20).unwrap();
    // Whatever the fault left must survive the loss of power too.
    let plan = CrashPlan::Random(random.next());
    let after = sim.crash(&plan);
    drop(db);
    let (found, db) = reopen(&after, options, rule);
    let settled = oracle.check(&db, true);
    settled.unwrap_or_else(|text| panic!("seed {seed}, `{rule}`, {plan:?}: {text}{found}"));
}

fn open_or_device_error(
    sim: &Arc<SimFileSystem>,
    options: &Options,
    rule: &str,
) -> Result<Database> {
    open(sim, options.clone()).inspect_err(|error| {
        assert!(is_device_error(error), "opening under `{rule}`: {error:?}");
    })
}

fn reopen(sim: &Arc<SimFileSystem>, options: &Options, rule: &str) -> (String, Database) {
    let found = describe(sim);
    let db = open(sim, options.clone());
    (found.clone(), db.unwrap_or_else(|error| panic!("reopening after `{rule}`: {error:?}{found}")))
}

/// The operations that a rule can hit, roughly as often as they occur.
const TARGETS: [&str; 17] = [
    "any",
    "store wal-*",
    "submit wal-*",
    "frame wal-*",
    "short wal-*",
    "sync wal-*",
    "create wal-*",
    "write *.sst",
    "sync *.sst",
    "create *.sst",
    "write *.val",
    "sync *.val",
    "create *.val",
    "short MANIFEST-*",
    "sync MANIFEST-*",
    "syncdir",
    "rename",
];

#[test]
fn an_error_at_any_operation_loses_nothing_that_was_acknowledged() {
    let seed = seed(301);
    let mut random = Random::new(seed);
    for round in 0..budget(260) {
        let target = TARGETS[round % TARGETS.len()];
        let nth = 1 + random.below(if target == "any" { 1500 } else { 40 });
        let sticky = ["", "sticky"][random.below(2)];
        let error = ["EIO", "EIO", "ENOSPC", "EROFS"][random.below(4)];
        let rule = format!("{target} nth={nth} {sticky} error={error}");
        run_under(&rule, seed.wrapping_add(round as u64), &small_options());
    }
}

#[test]
fn errors_at_random_operations_lose_nothing_that_was_acknowledged() {
    let seed = seed(302);
    for round in 0..budget(45) as u64 {
        let error = ["EIO", "ENOSPC"][round as usize % 2];
        let rule = format!("any one_in={} error={error}", 20 + round * 10);
        run_under(&rule, seed.wrapping_add(round), &small_options());
    }
}

/// A database with tables in several levels and some records in memory.
fn filled(sim: &Arc<SimFileSystem>, options: Options) -> (Database, Oracle) {
    let db = open(sim, options).unwrap();
    let mut oracle = Oracle::new();
    Runner::new(&db, &mut oracle, 5).run(200).unwrap();
    db.flush().unwrap();
    db.wait_for_compactions().unwrap();
    (db, oracle)
}

#[test]
fn after_a_failed_log_write_or_sync_writes_are_refused_and_reads_go_on() {
    for rule in ["frame wal-* sticky", "submit wal-*", "sync wal-*", "frame wal-* error=ENOSPC"] {
        let sim = machine(1);
        let (db, mut oracle) = filled(&sim, small_options());
        sim.add_fault(fault(rule));
        let mut runner = Runner::new(&db, &mut oracle, 9);
        let failed = (0..100).find_map(|_| runner.step().err()).unwrap();
        assert_eq!(failed.kind(), ErrorKind::Poisoned, "{rule}: {failed}");
        assert!(failed.to_string().contains("/db/wal-"), "{rule}: the cause is named: {failed}");
        sim.clear_faults();
        let refused = db.put("k", "v").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Poisoned, "{rule}");
        assert_eq!(db.sync().unwrap_err().kind(), ErrorKind::Poisoned, "{rule}");
        assert_eq!(db.flush().unwrap_err().kind(), ErrorKind::Poisoned, "{rule}");
        runner.check_reads().unwrap();
        assert_eq!(db.close().unwrap_err().kind(), ErrorKind::Poisoned, "{rule}");
        let db = open(&sim, small_options()).unwrap();
        oracle.check(&db, false).unwrap();
        db.put("k", "v").unwrap();
    }
}

#[test]
fn once_a_write_was_refused_for_good_none_succeeds() {
    for nth in 1..6 {
        let sim = machine(2);
        let (db, mut oracle) = filled(&sim, small_options());
        sim.add_fault(fault(&format!("sync MANIFEST-* nth={nth}")));
        let mut runner = Runner::new(&db, &mut oracle, nth);
        let refused = (0..3000)
            .find_map(|_| runner.step().err().filter(|error| error.kind() == ErrorKind::Poisoned));
        assert!(refused.is_some(), "the manifest is needed again and again");
        // It may have been the log, which asked for a segment and speaks for one commit; the next flush speaks for all.
        let patience = Deadline::after(std::time::Duration::from_secs(10));
        while db.put("k", "v").is_ok() {
            assert!(!patience.has_passed(), "writes go on");
            oracle.committed(
                vec![Write::Put(default_space(), b"k".to_vec(), b"v".to_vec())],
                true,
                Ok(()),
            );
            let _ = db.flush();
        }
        let refused = |_| db.put("small", "v").unwrap_err().kind() == ErrorKind::Poisoned;
        assert!((0..50).all(refused), "fault at sync {nth}");
        let _ = db.close();
        let db = open(&sim, small_options()).unwrap();
        oracle.check(&db, false).unwrap();
    }
}

#[test]
fn a_full_disk_refuses_writes_and_they_resume_by_themselves() {
    let seed = seed(303);
    for round in 0..budget(6) as u64 {
        let sim = machine(seed.wrapping_add(round));
        let (db, mut oracle) = filled(&sim, small_options());
        let runner_seed = seed.wrapping_add(round);
        let mut runner = Runner::new(&db, &mut oracle, runner_seed);
        // Compactions and the removal of old files make space, which is taken away again.
        let full = (0..20).find_map(|_| {
            sim.set_disk_capacity(Some(sim_bytes(&sim) + (50 << 10)));
            (0..500).find_map(|_| runner.step().err())
        });
        let full = full.expect("the disk is full by now");
        assert_eq!(full.kind(), ErrorKind::DiskFull, "{full}");
        for _ in 0..20 {
            if let Err(error) = runner.step() {
                assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
            }
        }
        runner.check_reads().unwrap();
        sim.set_disk_capacity(None);
        let patience = Deadline::after(std::time::Duration::from_secs(10));
        while let Err(error) = db.put("is there", "space").and_then(|()| db.flush()) {
            assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
            assert!(!patience.has_passed(), "writes do not resume: {error}");
            crate::support::pause(std::time::Duration::from_millis(5));
        }
        db.delete("is there").unwrap();
        runner.run(100).unwrap();
        db.close().unwrap();
        let db = open(&sim, small_options()).unwrap();
        oracle.check_now(&db).unwrap();
    }
}

fn sim_bytes(sim: &Arc<SimFileSystem>) -> u64 {
    crate::support::Files::of(sim).0.values().map(|bytes| bytes.len() as u64).sum()
}

#[test]
fn a_failing_read_is_an_error_to_its_caller_and_never_a_missing_key() {
    let sim = machine(4);
    let (db, oracle) = filled(&sim, small_options());
    drop(db);
    // A fresh process has touched no block yet.
    let db = open(&sim, small_options()).unwrap();
    let table = oracle.table(&default_space());
    sim.add_fault(fault("populate *.sst one_in=2"));
    let (mut failed, mut found) = (0, 0);
    for (key, value) in &table {
        match db.get(key) {
            Ok(got) => {
                assert_eq!(got.as_ref(), Some(value));
                found += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                assert!(error.to_string().contains(".sst"), "{error}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0 && found > 0, "{failed} failed, {found} found");
    for forward in [true, false] {
        let mut items = db.iter().unwrap();
        let mut next = || if forward { items.next() } else { items.next_back() };
        let mut seen = 0;
        let ended_well = loop {
            match next() {
                Some(Ok(_)) => seen += 1,
                Some(Err(error)) => {
                    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                    assert!(next().is_none(), "an iterator ends at its first error");
                    break false;
                }
                None => break true,
            }
        };
        assert!(!ended_well || seen == table.len(), "a scan left out records without an error");
    }
    sim.clear_faults();
    assert_eq!(dump(&db).unwrap(), table);
}

/// Leaves one new table above the others: too little for a compaction to begin by itself.
fn overwrite_some(db: &Database, oracle: &mut Oracle) {
    for number in (0..160).step_by(3) {
        let (key, value) = (format!("key-{number:04}").into_bytes(), b"new".to_vec());
        let write = Write::Put(default_space(), key.clone(), value.clone());
        oracle.committed(vec![write], true, db.put(key, value).as_ref().copied());
    }
    db.flush().unwrap();
    // Compactions of other keyspaces, which may have expired values or garbage to collect.
    db.wait_for_compactions().unwrap();
}

#[test]
fn a_failing_compaction_keeps_its_inputs_and_succeeds_later() {
    for rule in ["read *.sst sticky", "write *.sst sticky", "sync *.sst sticky", "create *.sst"] {
        let sim = machine(6);
        let (db, mut oracle) = filled(&sim, small_options());
        overwrite_some(&db, &mut oracle);
        sim.add_fault(fault(rule));
        let error = db.compact().expect_err(rule);
        assert_eq!(error.kind(), ErrorKind::Io, "{rule}: {error}");
        oracle.check_now(&db).unwrap();
        sim.clear_faults();
        db.put("still", "writable").unwrap();
        db.delete("still").unwrap();
        db.compact().unwrap();
        db.wait_for_compactions().unwrap();
        oracle.check_now(&db).unwrap();
        Runner::new(&db, &mut oracle, 3).run(50).unwrap();
        drop(db);
        let db = open(&sim, small_options()).unwrap();
        oracle.check_now(&db).unwrap();
    }
}
