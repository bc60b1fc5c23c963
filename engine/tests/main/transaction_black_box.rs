//! Eight threads of random transactions whose histories a checker from elsewhere judges, which knows nothing of this engine: `adya`, after
//! Jepsen's Elle. It infers from the values that were read which transaction must come before which, and looks for the anomalies that
//! the level forbids, the order of time included.
//!
//! Lists are appended to, by operands or by reading and writing; registers are overwritten. Transactions fail and are rolled back, and
//! one test cuts the power in the middle. What it cannot see (ranges) is the business of `transaction_histories`.
//!
//! `RUSTLITE_HISTORY_TRANSACTIONS` sets how many transactions each thread begins. Thread schedules are not part of the seed.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use adya::{History, Opts, Report, Valid, Workload, check};
use rustlite_engine::{
    Append, Database, Durability, ErrorKind, IsolationLevel, Keyspace, KeyspaceOptions, Result,
    Transaction, TransactionOptions,
};
use rustlite_io::{CrashPlan, SimFileSystem};

use crate::support::{Random, machine, number_from_env, open, seed, small_options};

const THREADS: u64 = 8;

/// Keys in use at a time, and after how many transactions they are replaced by others, so that lists stay short.
const KEYS: u64 = 10;
const TRANSACTIONS_PER_KEYS: u64 = 400;

/// The models of each level. A snapshot holds every commit that has returned before, hence the strong ones.
const LEVELS: [(IsolationLevel, &str); 4] = [
    (IsolationLevel::ReadUncommitted, "read-committed"),
    (IsolationLevel::ReadCommitted, "read-committed"),
    (IsolationLevel::RepeatableRead, "strong-snapshot-isolation"),
    (IsolationLevel::Serializable, "strict-serializable"),
];

#[derive(Debug, Clone)]
enum Op {
    Append(u64, u64),
    Write(u64, u64),
    /// Nothing is known of what it finds before it is done.
    Read(u64, Option<Vec<u64>>),
}

/// All that clients have asked for and got, in one order, as lines of Jepsen's JSON.
#[derive(Debug)]
struct Record {
    workload: Workload,
    lines: Mutex<Vec<String>>,
    /// The place in the order of commits of each completed transaction that wrote, by line.
    commits: Mutex<HashMap<u64, i64>>,
    begun: AtomicU64,
    seed: u64,
}

impl Record {
    fn new(workload: Workload, seed: u64) -> Self {
        let (lines, commits) = (Mutex::default(), Mutex::default());
        Self { workload, lines, commits, begun: AtomicU64::new(0), seed }
    }

    fn add(&self, kind: &str, process: u64, ops: &[Op], commit: Option<u64>) {
        let mut value = String::new();
        for op in ops {
            let comma = if value.is_empty() { "" } else { "," };
            let _ = match op {
                Op::Append(key, element) => write!(value, "{comma}[\"append\",{key},{element}]"),
                Op::Write(key, number) => write!(value, "{comma}[\"w\",{key},{number}]"),
                Op::Read(key, Some(list)) if self.workload == Workload::ListAppend => {
                    write!(value, "{comma}[\"r\",{key},{list:?}]")
                }
                Op::Read(key, Some(one)) => write!(value, "{comma}[\"r\",{key},{}]", one[0]),
                Op::Read(key, None) => write!(value, "{comma}[\"r\",{key},null]"),
            };
        }
        let mut lines = self.lines.lock().unwrap();
        let index = lines.len() as u64;
        lines.push(format!(
            "{{\"type\":\"{kind}\",\"process\":{process},\"index\":{index},\"value\":[{value}]}}"
        ));
        if let Some(commit) = commit {
            self.commits.lock().unwrap().insert(index, commit as i64);
        }
    }

    fn judge(&self, model: &str) -> Report {
        let history = History::from_json(&self.lines.lock().unwrap().join("\n")).unwrap();
        let transaction_order = Some(self.commits.lock().unwrap().clone());
        let models = vec![model.to_owned()];
        check(&history, self.workload, &Opts { models, transaction_order, ..Opts::default() })
    }

    fn must_be(&self, model: &str) {
        let Report { valid, anomalies, .. } = self.judge(model);
        let explain = || {
            let all = anomalies.values().flatten();
            all.map(|anomaly| format!("{}: {}", anomaly.kind, anomaly.explanation)).next()
        };
        assert_eq!(valid, Valid::True, "not {model}: {:?}", explain());
    }

    fn count(&self, kind: &str) -> usize {
        let start = format!("{{\"type\":\"{kind}\"");
        self.lines.lock().unwrap().iter().filter(|line| line.starts_with(&start)).count()
    }
}

/// One thread.
struct Client<'r> {
    record: &'r Record,
    db: Database,
    keyspace: Keyspace,
    options: TransactionOptions,
    /// Whether operands alone are used to append: where nothing is checked at commit, reading and writing would lose some.
    only_merges: bool,
    process: u64,
    random: Random,
    /// The number of the next write; unique over all threads.
    next: u64,
}

fn decode(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect()
}

impl Client<'_> {
    fn plan(&mut self) -> Vec<Op> {
        let turn = self.record.begun.fetch_add(1, Ordering::Relaxed) / TRANSACTIONS_PER_KEYS;
        let count = 1 + self.random.below(5);
        let mut ops: Vec<Op> = Vec::new();
        for _ in 0..count {
            let key = turn * KEYS + self.random.below(KEYS as usize) as u64;
            let appended = |op: &Op| matches!(op, Op::Append(other, _) if *other == key);
            // Where operands do not conflict, others may still get in before them, so what is read between is not what will come of it.
            let foretells = self.only_merges && ops.iter().any(appended);
            if self.random.percent(50) && !foretells {
                ops.push(Op::Read(key, None));
                continue;
            }
            self.next += THREADS;
            ops.push(match self.record.workload {
                Workload::ListAppend => Op::Append(key, self.next),
                Workload::RwRegister => Op::Write(key, self.next),
            });
        }
        ops
    }

    fn operate(&mut self, txn: &mut Transaction, op: &mut Op) -> Result<()> {
        match op {
            Op::Read(key, found) => {
                let key = key.to_be_bytes();
                let value = if self.random.percent(5) {
                    txn.get_for_update_in(&self.keyspace, key)?
                } else {
                    txn.get_in(&self.keyspace, key)?
                };
                *found = value.map(|bytes| decode(&bytes));
                Ok(())
            }
            Op::Write(key, number) => {
                txn.put_in(&self.keyspace, key.to_be_bytes(), number.to_le_bytes())
            }
            Op::Append(key, element) => {
                let (key, element) = (key.to_be_bytes(), element.to_le_bytes());
                if self.only_merges || self.random.percent(50) {
                    return txn.merge_in(&self.keyspace, key, element);
                }
                let mut list = txn.get_in(&self.keyspace, key)?.unwrap_or_default();
                list.extend_from_slice(&element);
                txn.put_in(&self.keyspace, key, list)
            }
        }
    }

    /// One transaction. False when the database can do no more.
    fn transaction(&mut self) -> bool {
        let planned = self.plan();
        self.record.add("invoke", self.process, &planned, None);
        let mut done = planned.clone();
        let result = self.attempt(&mut done);
        let wrote = planned.iter().any(|op| !matches!(op, Op::Read(..)));
        match result {
            Ok(Some(commit)) => {
                self.record.add("ok", self.process, &done, wrote.then_some(commit));
                true
            }
            Ok(None) => {
                self.record.add("fail", self.process, &planned, None);
                true
            }
            Err(ErrorKind::Conflict | ErrorKind::Deadlock | ErrorKind::LockTimeout) => {
                self.record.add("fail", self.process, &planned, None);
                true
            }
            // The power went: the transaction may have happened.
            Err(ErrorKind::Poisoned | ErrorKind::Io) => {
                self.record.add("info", self.process, &planned, None);
                false
            }
            Err(kind) => panic!("{kind:?}"),
        }
    }

    /// Gives the commit's place in the order, `None` after a rollback.
    fn attempt(&mut self, ops: &mut [Op]) -> std::result::Result<Option<u64>, ErrorKind> {
        let mut txn = self.db.begin_with(self.options).map_err(|error| error.kind())?;
        for op in ops {
            self.operate(&mut txn, op).map_err(|error| error.kind())?;
            if self.random.percent(30) {
                std::thread::yield_now();
            }
        }
        if self.random.percent(5) {
            txn.rollback();
            return Ok(None);
        }
        let sequence =
            if self.random.percent(20) { txn.commit_async().wait() } else { txn.commit() };
        sequence.map(Some).map_err(|error| error.kind())
    }
}

/// Lets all threads work on a database. `generation` tells processes before and after a crash apart.
fn run(db: &Database, record: &Record, options: (IsolationLevel, Durability), generation: u64) {
    let count = number_from_env("RUSTLITE_HISTORY_TRANSACTIONS").unwrap_or(500);
    let (level, durability) = options;
    let keyspace = db.keyspace("keys").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut client = Client {
                record,
                db: db.clone(),
                keyspace: keyspace.clone(),
                options: TransactionOptions::from(level).durability(durability),
                only_merges: level < IsolationLevel::RepeatableRead,
                process: generation * THREADS + thread,
                random: Random::new(record.seed * THREADS + generation * 1000 + thread),
                next: generation * 1_000_000 + thread,
            };
            scope.spawn(move || {
                let mut left = count;
                while left > 0 && client.transaction() {
                    left -= 1;
                    if left % 200 == 7 && thread == 0 {
                        // The power may be gone.
                        let _ = client.db.flush();
                    }
                }
            });
        }
    });
}

fn open_keys(sim: &Arc<SimFileSystem>) -> Database {
    let db = open(sim, small_options()).unwrap();
    db.create_keyspace("keys", KeyspaceOptions::new().merge_operator(Append::NAME)).unwrap();
    db
}

fn recorded(level: IsolationLevel, workload: Workload, own_seed: u64) -> Record {
    let seed = seed(own_seed);
    let record = Record::new(workload, seed);
    run(&open_keys(&machine(seed)), &record, (level, Durability::Buffered), 0);
    assert_eq!(record.count("info"), 0);
    let (committed, failed) = (record.count("ok"), record.count("fail"));
    println!("{level:?}, {workload:?}: {committed} committed, {failed} failed");
    assert!(committed * 3 > failed, "{level:?} refuses nearly everything");
    record
}

#[test]
fn lists_are_as_consistent_as_each_level_promises() {
    for (level, model) in LEVELS {
        recorded(level, Workload::ListAppend, 31).must_be(model);
    }
}

#[test]
fn registers_are_as_consistent_as_each_level_promises() {
    for (level, model) in LEVELS {
        recorded(level, Workload::RwRegister, 32).must_be(model);
    }
}

/// If it found nothing here, it would prove nothing above.
#[test]
fn the_checker_finds_what_the_lower_levels_allow() {
    let history = recorded(IsolationLevel::RepeatableRead, Workload::ListAppend, 33);
    assert_eq!(history.judge("serializable").valid, Valid::False, "write skew is possible");
    let history = recorded(IsolationLevel::ReadCommitted, Workload::ListAppend, 34);
    assert_eq!(history.judge("snapshot-isolation").valid, Valid::False, "so is read skew");
}

#[test]
fn histories_with_a_power_cut_in_the_middle_are_as_consistent() {
    for (number, (level, model)) in LEVELS.into_iter().enumerate() {
        let seed = seed(35 + number as u64);
        let record = Record::new(Workload::ListAppend, seed);
        let sim = machine(seed);
        let db = open_keys(&sim);
        sim.cut_power_at(sim.op_count() + 800);
        run(&db, &record, (level, Durability::Sync), 0);
        assert!(record.count("info") > 0, "the power went in the middle");
        let after = sim.crash(&CrashPlan::Random(seed));
        drop(db);
        let db = open(&after, small_options()).unwrap();
        let before = record.count("ok");
        run(&db, &record, (level, Durability::Sync), 1);
        println!("{level:?}: {before} committed before, {} in all", record.count("ok"));
        assert!(before > 100 && record.count("ok") > before);
        record.must_be(model);
    }
}
