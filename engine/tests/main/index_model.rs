//! Indexes against a model: random puts, deletes, batches, transactions with savepoints, range deletes and clears, with flushes,
//! compactions, reopens and crashes between them. After each, every look-up must find what the rows say.

use std::sync::Arc;

use rustlite_engine::{
    Database, ErrorKind, IsolationLevel, Keyspace, Result, Transaction, WriteBatch,
};
use rustlite_io::{CrashPlan, SimFileSystem};

use crate::index_support::{KINDS, options, random_key, random_value, table};
use crate::support::{Random, Table, budget, machine, open, seed};

/// A change of rows.
#[derive(Debug, Clone)]
enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    Clear,
}

impl Change {
    fn random(random: &mut Random) -> Self {
        match random.below(40) {
            0..=25 => Self::Put(random_key(random), random_value(random)),
            26..=34 => Self::Delete(random_key(random)),
            35..=38 => {
                let (low, high) = (random_key(random), random_key(random));
                Self::DeleteRange(low.clone().min(high.clone()), low.max(high))
            }
            _ => Self::Clear,
        }
    }

    fn apply(&self, rows: &mut Table) {
        match self {
            Self::Put(key, value) => drop(rows.insert(key.clone(), value.clone())),
            Self::Delete(key) => drop(rows.remove(key)),
            Self::DeleteRange(low, high) => rows.retain(|key, _| key < low || key >= high),
            Self::Clear => rows.clear(),
        }
    }

    fn add(&self, batch: &mut WriteBatch, rows: &Keyspace) {
        match self {
            Self::Put(key, value) => batch.put_in(rows, key, value),
            Self::Delete(key) => batch.delete_in(rows, key),
            Self::DeleteRange(low, high) => batch.delete_range_in(rows, low, high),
            Self::Clear => batch.clear_keyspace(rows),
        };
    }

    fn run(&self, txn: &mut Transaction, rows: &Keyspace) -> Result<()> {
        match self {
            Self::Put(key, value) => txn.put_in(rows, key, value),
            Self::Delete(key) => txn.delete_in(rows, key),
            Self::DeleteRange(low, high) => txn.delete_range_in(rows, low, high),
            Self::Clear => txn.clear_keyspace(rows),
        }
    }
}

struct Run {
    sim: Arc<SimFileSystem>,
    db: Database,
    rows: Keyspace,
    model: Table,
    random: Random,
}

impl Run {
    fn open(sim: Arc<SimFileSystem>, model: Table, random: Random) -> Self {
        let db = open(&sim, options()).unwrap();
        let rows = db.keyspace("rows").unwrap();
        Self { sim, db, rows, model, random }
    }

    fn new(seed: u64) -> Self {
        let run = Self::open(machine(seed), Table::new(), Random::new(seed));
        KINDS.iter().for_each(|kind| drop(kind.create(&run.db, &run.rows).unwrap()));
        run
    }

    /// Settles with the model what came of a write that means `next`.
    fn settle(&mut self, result: Result<()>, next: Table) {
        let violated = KINDS.iter().any(|kind| kind.is_violated(&next));
        match result {
            Ok(()) => {
                assert!(!violated, "two rows have the same unique key");
                self.model = next;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::UniqueViolation, "{error}");
                assert!(violated, "{error}");
            }
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=7 => self.plain(),
            8..=12 => self.batch(),
            13..=17 => self.transaction(),
            18 => self.db.flush().unwrap(),
            _ => match self.random.below(4) {
                0 => self.rows.compact().unwrap(),
                1 => self.recreate(),
                _ => self.reopen(),
            },
        }
    }

    fn plain(&mut self) {
        let change = Change::random(&mut self.random);
        let mut next = self.model.clone();
        change.apply(&mut next);
        let result = match &change {
            Change::Put(key, value) => self.rows.put(key, value),
            Change::Delete(key) => self.rows.delete(key),
            Change::DeleteRange(low, high) => self.rows.delete_range(low, high),
            Change::Clear => self.rows.clear(),
        };
        self.settle(result, next);
    }

    fn batch(&mut self) {
        let (mut batch, mut next) = (WriteBatch::new(), self.model.clone());
        for _ in 0..self.random.below(8) {
            let change = Change::random(&mut self.random);
            change.add(&mut batch, &self.rows);
            change.apply(&mut next);
        }
        if self.random.percent(30) {
            self.exchange_tags(&mut batch, &mut next);
        }
        let result = if self.random.percent(30) {
            self.db.write_async(batch).wait()
        } else {
            self.db.write(batch)
        };
        self.settle(result, next);
    }

    /// Two rows exchange their values, and so their unique keys.
    fn exchange_tags(&mut self, batch: &mut WriteBatch, next: &mut Table) {
        let (one, other) = (random_key(&mut self.random), random_key(&mut self.random));
        let (Some(a), Some(b)) = (next.get(&one).cloned(), next.get(&other).cloned()) else {
            return;
        };
        for change in [Change::Put(one, b), Change::Put(other, a)] {
            change.add(batch, &self.rows);
            change.apply(next);
        }
    }

    fn transaction(&mut self) {
        let levels = [
            IsolationLevel::ReadCommitted,
            IsolationLevel::RepeatableRead,
            IsolationLevel::Serializable,
        ];
        let mut txn = self.db.begin_with(levels[self.random.below(3)]).unwrap();
        let mut next = self.model.clone();
        let mut savepoint = None;
        for _ in 0..1 + self.random.below(10) {
            match self.random.below(10) {
                0 => savepoint = Some((txn.set_savepoint().unwrap(), next.clone())),
                1 => {
                    if let Some((savepoint, then)) = &savepoint {
                        txn.rollback_to(savepoint).unwrap();
                        next = then.clone();
                    }
                }
                _ => {
                    let change = Change::random(&mut self.random);
                    change.run(&mut txn, &self.rows).unwrap();
                    change.apply(&mut next);
                }
            }
            let kind = &KINDS[self.random.below(KINDS.len())];
            // As long as two rows have the same unique key, only one of them can be found.
            if !kind.is_violated(&next) {
                let reader = self.db.index(kind.name).unwrap().within(&txn).unwrap();
                kind.check(&reader, &next, &mut self.random);
            }
        }
        if self.random.percent(20) {
            txn.rollback();
            return;
        }
        let result = txn.commit().map(drop);
        self.settle(result, next);
    }

    fn recreate(&mut self) {
        let kind = &KINDS[self.random.below(KINDS.len())];
        self.db.drop_index(kind.name).unwrap();
        kind.create(&self.db, &self.rows).unwrap();
    }

    fn reopen(&mut self) {
        self.db.close().unwrap();
        let (model, random) = (self.model.clone(), self.random.clone());
        *self = Self::open(Arc::clone(&self.sim), model, random);
    }

    fn check(&mut self) {
        assert_eq!(table(&self.rows), self.model);
        let mut entries = 0;
        for kind in &KINDS {
            let reader = self.db.index(kind.name).unwrap().now().unwrap();
            kind.check(&reader, &self.model, &mut self.random);
            entries += kind.entries(&self.model).len() as u64;
        }
        assert_eq!(self.db.verify_indexes().unwrap(), entries);
    }
}

#[test]
fn indexes_find_what_the_rows_say_whatever_was_done() {
    let first = seed(400);
    for seed in first..first + budget(6) as u64 {
        let mut run = Run::new(seed);
        let (before, then) = (run.db.snapshot().unwrap(), run.model.clone());
        for _ in 0..250 {
            run.step();
            run.check();
        }
        let reader = run.db.index("words");
        // A snapshot of an earlier handle is of another open database after a reopen.
        if let Ok(reader) = reader.and_then(|index| index.at(&before)) {
            KINDS[0].check(&reader, &then, &mut run.random);
        }
    }
}

#[test]
fn a_snapshot_keeps_its_index_entries() {
    let seed = seed(450);
    let mut run = Run::new(seed);
    for _ in 0..20 {
        let (snapshot, then) = (run.db.snapshot().unwrap(), run.model.clone());
        for _ in 0..10 {
            run.plain();
        }
        run.db.flush().unwrap();
        run.rows.compact().unwrap();
        for kind in &KINDS {
            let reader = run.db.index(kind.name).unwrap().at(&snapshot).unwrap();
            kind.check(&reader, &then, &mut run.random);
        }
    }
}

#[test]
fn indexes_agree_with_their_rows_after_every_crash() {
    let first = seed(500);
    for state in 0..budget(60) as u64 {
        let mut run = Run::new(first);
        run.random = Random::new(first + state);
        let steps = 20 + run.random.below(150);
        for _ in 0..steps {
            run.step();
        }
        let plan = match run.random.below(3) {
            0 => CrashPlan::ProcessKill,
            1 => CrashPlan::DropUnsynced,
            _ => CrashPlan::Random(run.random.next()),
        };
        let after = run.sim.crash(&plan);
        let (model, random) = (run.model.clone(), run.random.clone());
        // Everything was acknowledged as durable.
        let mut run = Run::open(after, model, random);
        run.check();
        run.step();
        run.check();
    }
}

#[test]
fn indexes_agree_with_their_rows_when_the_power_goes_during_a_write() {
    let first = seed(600);
    for state in 0..budget(80) as u64 {
        let run = Run::new(first);
        let mut random = Random::new(first + state);
        run.sim.cut_power_at(run.sim.op_count() + random.below(60) as u64);
        for _ in 0..200 {
            let mut batch = WriteBatch::new();
            for _ in 0..1 + random.below(5) {
                Change::random(&mut random).add(&mut batch, &run.rows);
            }
            match run.db.write(batch) {
                Err(error) if error.kind() != ErrorKind::UniqueViolation => break,
                _ => {}
            }
            if random.percent(10) && run.db.flush().is_err() {
                break;
            }
        }
        let after = run.sim.crash(&CrashPlan::Random(random.next()));
        drop(run);
        let db = open(&after, options()).unwrap();
        db.verify_indexes().unwrap_or_else(|error| panic!("state {state}: {error}"));
        let rows = db.keyspace("rows").unwrap();
        let found = table(&rows);
        let random = &mut random;
        for kind in &KINDS {
            kind.check(&db.index(kind.name).unwrap().now().unwrap(), &found, random);
        }
    }
}
