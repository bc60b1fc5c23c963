//! Named snapshots show what they showed when they were made, through everything; and what nobody needs goes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rustlite_engine::{Backup, Database, Durability, ErrorKind, Snapshot};
use rustlite_io::{CrashPlan, FileSystem, SimFileSystem};

use crate::support::{Random, Table, budget, dump, machine, open, path, seed, small_options, with};

fn seen(snapshot: &Snapshot) -> Table {
    snapshot.iter().collect::<Result<_, _>>().unwrap()
}

/// A database with named snapshots, and what each of them must show.
struct Checker {
    random: Random,
    now: Table,
    named: BTreeMap<String, (u64, Table)>,
    next: u32,
}

impl Checker {
    fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), now: Table::new(), named: BTreeMap::new(), next: 0 }
    }

    fn step(&mut self, db: &Database) {
        let key = format!("key-{:03}", self.random.below(80)).into_bytes();
        match self.random.below(100) {
            0..=69 => {
                let value = self.random.bytes(20 + self.random.clone().below(600));
                db.put_with(&key, &value, &with(Durability::Buffered)).unwrap();
                self.now.insert(key, value);
            }
            70..=79 => {
                db.delete_with(&key, &with(Durability::Buffered)).unwrap();
                self.now.remove(&key);
            }
            80..=83 => {
                let end = format!("key-{:03}", self.random.below(80)).into_bytes();
                let (start, end) = if key < end { (key, end) } else { (end, key) };
                db.delete_range(&start, &end).unwrap();
                self.now.retain(|key, _| *key < start || *key >= end);
            }
            84..=85 => db.flush().unwrap(),
            86 => drop(db.gc().unwrap()),
            87 => {
                let items: Table = (0..30)
                    .map(|n| (format!("key-{:03}", n * 2).into_bytes(), vec![n; 50]))
                    .collect();
                db.ingest(&items).unwrap();
                self.now.extend(items);
            }
            88..=92 if self.named.len() < 6 => {
                self.next += 1;
                let name = format!("snapshot {}", self.next);
                let snapshot = db.create_named_snapshot(&name).unwrap();
                self.named.insert(name, (snapshot.sequence(), self.now.clone()));
            }
            93..=95 => {
                let which = self.random.below(self.named.len().max(1));
                let Some(name) = self.named.keys().nth(which).cloned() else { return };
                db.drop_named_snapshot(&name).unwrap();
                self.named.remove(&name);
            }
            _ => self.check(db),
        }
    }

    fn check(&self, db: &Database) {
        let listed = db.list_named_snapshots().unwrap();
        let listed: Vec<_> = listed.into_iter().map(|named| (named.name, named.sequence)).collect();
        let expected: Vec<_> =
            self.named.iter().map(|(name, &(sequence, _))| (name.clone(), sequence)).collect();
        assert_eq!(listed, expected);
        for (name, (sequence, table)) in &self.named {
            let snapshot = db.named_snapshot(name).unwrap();
            assert_eq!(snapshot.sequence(), *sequence);
            assert!(seen(&snapshot) == *table, "{name} shows something else");
            let at = db.snapshot_at(*sequence).unwrap();
            let some = format!("key-{:03}", sequence % 80).into_bytes();
            assert_eq!(at.get(&some).unwrap().as_ref(), table.get(&some), "{name}");
        }
    }
}

#[test]
fn they_show_what_they_showed_through_compactions_crashes_and_reopening() {
    let seed = seed(801);
    for round in 0..budget(12) as u64 {
        let mut sim = machine(round);
        let mut checker = Checker::new(seed + round);
        for life in 0..6_u64 {
            let db = open(&sim, small_options()).unwrap();
            // A crash may have taken buffered writes, but nothing that a named snapshot sees.
            checker.check(&db);
            checker.now = dump(&db).unwrap();
            for _ in 0..200 {
                checker.step(&db);
            }
            checker.check(&db);
            assert!(dump(&db).unwrap() == checker.now);
            let plan = match life % 4 {
                0 => CrashPlan::DropUnsynced,
                1 => CrashPlan::Random(seed + life),
                2 => CrashPlan::ProcessKill,
                _ => {
                    db.close().unwrap();
                    CrashPlan::DropUnsynced
                }
            };
            let after = sim.crash(&plan);
            drop(db);
            sim = after;
        }
    }
}

#[test]
fn at_every_crash_a_name_is_there_with_all_that_it_sees_or_not() {
    let seed = seed(802);
    let begin = || {
        let sim = machine(3);
        let db = open(&sim, small_options()).unwrap();
        for number in 0..50 {
            db.put_with(format!("{number}"), "old", &with(Durability::Buffered)).unwrap();
        }
        (sim, db)
    };
    let mut random = Random::new(seed);
    let mut kinds = [0; 3];
    for cut in 0..60 {
        let (sim, db) = begin();
        sim.cut_power_at(sim.op_count() + cut);
        let made = db.create_named_snapshot("name").is_ok();
        let _ = db.put_with("0", "new", &with(Durability::Buffered));
        let dropped = db.drop_named_snapshot("name").is_ok();
        let plan = match random.below(3) {
            0 => CrashPlan::DropUnsynced,
            1 => CrashPlan::KeepAll,
            _ => CrashPlan::Random(random.next()),
        };
        let after = sim.crash(&plan);
        drop(db);
        let db = open(&after, small_options()).unwrap();
        // Numbers that a lost write had are given out again: the snapshot must not see what comes with them.
        for number in 0..200 {
            db.put(format!("{number}"), "later").unwrap();
        }
        match db.named_snapshot("name") {
            Ok(snapshot) => {
                assert!(!dropped, "cut {cut}: it was dropped");
                let expected: Table =
                    (0..50).map(|n| (n.to_string().into_bytes(), b"old".to_vec())).collect();
                assert_eq!(seen(&snapshot), expected, "cut {cut}, {plan:?}");
                kinds[0] += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                // It was dropped, or perhaps dropped, or never made.
                kinds[if made { 1 } else { 2 }] += 1;
            }
        }
        if cut > 50 {
            assert!(made && dropped);
        }
    }
    assert!(kinds.iter().all(|&count| count > 0), "{kinds:?}");
}

/// Recovery flushes too, and must keep what named snapshots see.
#[test]
fn a_log_that_is_flushed_while_it_is_replayed_keeps_what_they_see() {
    let sim = machine(4);
    let db = open(&sim, small_options().memtable_bytes(8 << 20)).unwrap();
    let mut expected = BTreeMap::new();
    for round in 0..5_u8 {
        for number in 0..300 {
            let value = vec![round; 200];
            db.put_with(format!("{number:03}"), value, &with(Durability::Buffered)).unwrap();
        }
        let name = format!("round {round}");
        expected.insert(name.clone(), seen(&db.create_named_snapshot(&name).unwrap()));
    }
    db.put("000", "last").unwrap();
    assert_eq!(db.stats().unwrap().flushes, 0);
    let after = sim.crash(&CrashPlan::ProcessKill);
    drop(db);
    // A memtable holds less than a round.
    let db = open(&after, small_options()).unwrap();
    assert!(db.stats().unwrap().table_bytes() > 0, "nothing was flushed");
    for (name, table) in &expected {
        assert!(seen(&db.named_snapshot(name).unwrap()) == *table, "{name}");
    }
    db.gc().unwrap();
    for (name, table) in &expected {
        assert!(seen(&db.named_snapshot(name).unwrap()) == *table, "{name} after gc");
    }
}

#[test]
fn gc_keeps_exactly_what_snapshots_need() {
    let sim = machine(5);
    let db = open(&sim, small_options()).unwrap();
    let write = |value: u8| {
        for number in 0..400 {
            let value = vec![value; 250];
            db.put_with(format!("{number:03}"), value, &with(Durability::Buffered)).unwrap();
        }
    };
    let one_version = 400 * 250;
    // Versions that are there, by the size of the tables.
    let versions = || (db.stats().unwrap().table_bytes() as f64 / f64::from(one_version)).round();
    write(1);
    let live = db.snapshot().unwrap();
    write(2);
    write(3);
    db.create_named_snapshot("three").unwrap();
    write(4);
    write(5);
    let info = db.gc().unwrap();
    assert_eq!(versions(), 3.0, "one for each snapshot, and the newest: {info:?}");
    assert_eq!(info.table_bytes_after, db.stats().unwrap().table_bytes());
    let stats = db.stats().unwrap();
    let holders: Vec<_> = stats
        .snapshot_holders
        .iter()
        .map(|it| (it.name.as_deref(), it.sequence, it.count))
        .collect();
    assert_eq!(holders, [(None, 400, 1), (Some("three"), 1200, 1)]);
    assert_eq!((stats.snapshots, stats.oldest_snapshot), (1, Some(400)));
    assert!(stats.to_string().contains("three"), "{stats}");
    assert_eq!(live.get("007").unwrap(), Some(vec![1; 250]));
    drop(live);
    db.gc().unwrap();
    assert_eq!(versions(), 2.0);
    let three = db.named_snapshot("three").unwrap();
    db.drop_named_snapshot("three").unwrap();
    db.gc().unwrap();
    assert_eq!(versions(), 2.0, "a reader is left");
    assert_eq!(three.get("007").unwrap(), Some(vec![3; 250]));
    drop(three);
    let info = db.gc().unwrap();
    assert_eq!(versions(), 1.0);
    assert!(info.table_bytes_before > info.table_bytes_after + 90_000, "{info:?}");
    db.clear().unwrap();
    db.gc().unwrap();
    assert_eq!(db.stats().unwrap().table_bytes(), 0, "tombstones go with what they hide");
}

#[test]
fn names_and_numbers_that_are_not_kept_say_so() {
    let sim = machine(6);
    let db = open(&sim, small_options()).unwrap();
    let kind = |result: rustlite_engine::Result<Snapshot>| result.unwrap_err().kind();
    for number in 0..10 {
        db.put("k", format!("{number}")).unwrap();
    }
    assert_eq!(kind(db.named_snapshot("n")), ErrorKind::NotFound);
    assert_eq!(db.drop_named_snapshot("n").unwrap_err().kind(), ErrorKind::NotFound);
    for name in ["", "a\0b", &"x".repeat(257)] {
        assert_eq!(kind(db.create_named_snapshot(name)), ErrorKind::InvalidArgument);
    }
    db.create_named_snapshot("n").unwrap();
    assert_eq!(kind(db.create_named_snapshot("n")), ErrorKind::AlreadyExists);
    let at = db.stats().unwrap().sequence;
    db.put("k", "after").unwrap();
    let live = db.snapshot().unwrap();
    db.put("k", "now").unwrap();
    let value = |sequence| db.snapshot_at(sequence).unwrap().get("k").unwrap().unwrap();
    assert_eq!(
        (value(at), value(at + 1), value(at + 2)),
        (b"9".into(), b"after".into(), b"now".into())
    );
    drop(live);
    let not_kept = |sequence| {
        let error = db.snapshot_at(sequence).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        error.to_string()
    };
    let (now, message) = (at + 2, not_kept(at + 1));
    assert!(message.contains(&format!("oldest that is kept is {at}")), "{message}");
    assert!(message.contains(&format!("around it {at} and {now}")), "{message}");
    let message = not_kept(at - 1);
    assert!(message.contains(&format!("is kept is {at}, none before it")), "{message}");
    assert_eq!(kind(db.snapshot_at(at + 3)), ErrorKind::InvalidArgument);
    for number in 1..rustlite_engine::NAMED_SNAPSHOTS_MAX {
        db.create_named_snapshot(&format!("{number}")).unwrap();
    }
    assert_eq!(kind(db.create_named_snapshot("one more")), ErrorKind::InvalidArgument);
    db.close().unwrap();
    assert_eq!(kind(db.named_snapshot("n")), ErrorKind::Closed);
    assert_eq!(kind(db.create_named_snapshot("m")), ErrorKind::Closed);
    drop(db);
    let reader = open(&sim, small_options().read_only(true)).unwrap();
    assert_eq!(reader.named_snapshot("n").unwrap().get("k").unwrap(), Some(b"9".to_vec()));
    assert_eq!(kind(reader.create_named_snapshot("m")), ErrorKind::ReadOnly);
    assert_eq!(reader.drop_named_snapshot("n").unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(reader.gc().unwrap_err().kind(), ErrorKind::ReadOnly);
}

#[test]
fn checkpoints_and_backups_have_them() {
    let sim = machine(7);
    let db = open(&sim, small_options()).unwrap();
    db.put("k", "old").unwrap();
    db.create_named_snapshot("n").unwrap();
    db.put("k", "new").unwrap();
    db.checkpoint("/copy").unwrap();
    let shared: Arc<dyn FileSystem> = Arc::<SimFileSystem>::clone(&sim);
    let backup = Backup::open_on(Arc::clone(&shared), "/backup").unwrap();
    backup.create(&db).unwrap();
    backup.restore_latest("/restored").unwrap();
    db.drop_named_snapshot("n").unwrap();
    db.gc().unwrap();
    for directory in ["/copy", "/restored"] {
        let copy = Database::open_on(Arc::clone(&shared), directory, small_options()).unwrap();
        copy.gc().unwrap();
        let named = copy.named_snapshot("n").unwrap();
        assert_eq!(named.get("k").unwrap(), Some(b"old".to_vec()), "{directory}");
    }
    assert!(sim.exists(Path::new(&path("CURRENT"))).unwrap());
}
