//! Eight threads of random transactions, whose histories are checked for every anomaly that their level forbids.
//!
//! Registers are overwritten, deleted and deleted by the range; lists are appended to by reading and writing them. Transactions walk over
//! ranges, lock, roll back, and are run while everything is flushed and compacted. One test cuts the power in the middle.
//!
//! `RUSTLITE_HISTORY_TRANSACTIONS` sets how many transactions each thread begins. Thread schedules are not part of the seed.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rustlite_engine::{
    Database, Durability, Error, ErrorKind, IsolationLevel, Result, Transaction as Handle,
    TransactionOptions,
};

use crate::history::{
    Key, Op, Transaction, Value, check_committed, check_serializable, check_snapshots,
};
use crate::support::{Random, machine, number_from_env, open, seed, small_options};

const THREADS: u64 = 8;

/// Keys below are registers, the others lists.
const REGISTERS: usize = 20;
const KEYS: usize = 30;

fn name(key: Key) -> String {
    format!("key-{key:03}")
}

/// Values are made larger than they need be, so that memtables fill. The number of elements comes first.
fn encode(value: &[u64]) -> Vec<u8> {
    let mut bytes = (value.len() as u64).to_le_bytes().to_vec();
    value.iter().for_each(|element| bytes.extend_from_slice(&element.to_le_bytes()));
    bytes.resize(bytes.len() + 150, 0);
    bytes
}

fn decode(bytes: &[u8]) -> Value {
    let numbers: Vec<u64> =
        bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
    numbers[1..=numbers[0] as usize].to_vec()
}

fn key_of(bytes: &[u8]) -> Key {
    std::str::from_utf8(&bytes[4..]).unwrap().parse().unwrap()
}

/// What all threads share.
struct Shared {
    db: Database,
    options: TransactionOptions,
    /// The newest commit that has returned.
    returned: AtomicU64,
}

/// One thread.
struct Client<'s> {
    shared: &'s Shared,
    random: Random,
    /// The number of the next write; unique over all threads.
    next: u64,
    history: Vec<Transaction>,
    /// Commits whose outcome nobody knows, because the power went.
    unknown: Vec<Transaction>,
}

fn is_list(key: Key) -> bool {
    key >= REGISTERS
}

impl Client<'_> {
    fn number(&mut self) -> u64 {
        self.next += THREADS;
        self.next
    }

    fn register(&mut self) -> Key {
        self.random.below(REGISTERS)
    }

    fn read(&mut self, txn: &mut Handle, ops: &mut Vec<Op>, key: Key) -> Result<Option<Value>> {
        let bytes = if self.random.percent(5) {
            txn.get_for_update(name(key))?
        } else {
            txn.get(name(key))?
        };
        let value = bytes.map(|bytes| decode(&bytes));
        ops.push(Op::Read(key, value.clone()));
        Ok(value)
    }

    fn append(&mut self, txn: &mut Handle, ops: &mut Vec<Op>) -> Result<()> {
        let key = REGISTERS + self.random.below(KEYS - REGISTERS);
        let mut value = self.read(txn, ops, key)?.unwrap_or_default();
        value.push(self.number());
        txn.put(name(key), encode(&value))?;
        ops.push(Op::Write(key, Some(value)));
        Ok(())
    }

    /// Walks over a part of a range, from one of its ends.
    fn scan(&mut self, txn: &Handle, ops: &mut Vec<Op>) -> Result<()> {
        let start = self.random.below(KEYS);
        let end = start + 1 + self.random.below(8);
        let mut iter = txn.range(name(start)..name(end))?;
        let (forward, most) = (self.random.percent(60), 1 + self.random.below(8));
        let mut found = Vec::new();
        let mut walked: Range<Key> = start..end.min(KEYS);
        while let Some(item) = if forward { iter.next() } else { iter.next_back() } {
            let (key, value) = item?;
            found.push((key_of(&key), decode(&value)));
            if found.len() == most {
                let at = key_of(&key);
                walked = if forward { start..at + 1 } else { at..walked.end };
                break;
            }
        }
        ops.push(Op::Scan(walked.start, walked.end, found));
        Ok(())
    }

    fn operate(&mut self, txn: &mut Handle, ops: &mut Vec<Op>) -> Result<()> {
        match self.random.below(100) {
            0..30 => {
                let key = self.random.below(KEYS);
                self.read(txn, ops, key)?;
            }
            30..50 => self.scan(txn, ops)?,
            50..75 => {
                let (key, value) = (self.register(), vec![self.number()]);
                txn.put(name(key), encode(&value))?;
                ops.push(Op::Write(key, Some(value)));
            }
            75..80 => {
                let key = self.register();
                txn.delete(name(key))?;
                ops.push(Op::Write(key, None));
            }
            80..82 => {
                let start = self.register();
                let end = REGISTERS.min(start + 1 + self.random.below(3));
                txn.delete_range(name(start), name(end))?;
                ops.push(Op::DeleteRange(start, end));
            }
            _ => self.append(txn, ops)?,
        }
        Ok(())
    }

    /// One transaction. False when the database can do no more.
    fn transaction(&mut self) -> bool {
        let returned_before = self.shared.returned.load(Ordering::SeqCst);
        let mut txn = match self.shared.db.begin_with(self.shared.options) {
            Ok(txn) => txn,
            Err(error) => return may_go_on(&error),
        };
        let mut ops = Vec::new();
        let mut failure = None;
        for _ in 0..1 + self.random.below(6) {
            if let Err(error) = self.operate(&mut txn, &mut ops) {
                failure = Some(error);
                break;
            }
            if self.random.percent(30) {
                std::thread::yield_now();
            }
        }
        let snapshot = txn.snapshot_sequence();
        let wrote = ops.iter().any(|op| matches!(op, Op::Write(..) | Op::DeleteRange(..)));
        let result = match failure {
            Some(error) => Err(error),
            None if self.random.percent(8) => {
                txn.rollback();
                self.history.push(Transaction { snapshot, commit: None, returned_before, ops });
                return true;
            }
            None if self.random.percent(20) => txn.commit_async().wait(),
            None => txn.commit(),
        };
        let commit = result.as_ref().ok().copied();
        if let Some(commit) = commit {
            self.shared.returned.fetch_max(commit, Ordering::SeqCst);
        }
        let done = Transaction { snapshot, commit, returned_before, ops };
        match &result {
            Err(error) if !may_go_on(error) => {
                if wrote {
                    self.unknown.push(done);
                }
                return false;
            }
            _ => self.history.push(done),
        }
        true
    }
}

/// Transactions may fail because of each other; of a machine without power nobody expects more.
fn may_go_on(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Conflict | ErrorKind::Deadlock | ErrorKind::LockTimeout => true,
        ErrorKind::Poisoned | ErrorKind::Io => false,
        _ => panic!("{error:?}"),
    }
}

/// Runs the threads; gives what is known of each transaction, and the commits of which nothing is known.
fn run(
    db: &Database,
    level: IsolationLevel,
    durability: Durability,
    seed: u64,
) -> (Vec<Transaction>, Vec<Transaction>) {
    let count = number_from_env("RUSTLITE_HISTORY_TRANSACTIONS").unwrap_or(1200);
    let options = TransactionOptions::from(level).durability(durability);
    let shared = Shared { db: db.clone(), options, returned: AtomicU64::new(0) };
    let clients: Vec<Client<'_>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let shared = &shared;
                scope.spawn(move || {
                    let random = Random::new(seed * THREADS + thread);
                    let (history, unknown) = (Vec::new(), Vec::new());
                    let mut client = Client { shared, random, next: thread, history, unknown };
                    let mut left = count;
                    while left > 0 && client.transaction() {
                        left -= 1;
                        if left % 400 == 7 && thread == 0 {
                            // The power may be gone.
                            let _ = shared.db.flush();
                        }
                    }
                    client
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut all = (Vec::new(), Vec::new());
    for client in clients {
        all.0.extend(client.history);
        all.1.extend(client.unknown);
    }
    all
}

/// How many transactions committed, and how many of those that tried.
fn report(history: &[Transaction]) -> (usize, usize) {
    let committed = history.iter().filter(|txn| txn.commit.is_some()).count();
    println!("{committed} of {} transactions committed", history.len());
    (committed, history.len())
}

fn checked_run(level: IsolationLevel, own_seed: u64) -> Vec<Transaction> {
    let seed = seed(own_seed);
    let db = open(&machine(seed), small_options()).unwrap();
    let (history, unknown) = run(&db, level, Durability::Buffered, seed);
    assert!(unknown.is_empty());
    let (committed, all) = report(&history);
    assert!(committed * 4 > all, "{level:?} refuses nearly everything: {committed} of {all}");
    check_committed(KEYS, &history).unwrap();
    if level >= IsolationLevel::RepeatableRead {
        check_snapshots(KEYS, &history).unwrap();
    }
    history
}

#[test]
fn histories_at_read_uncommitted_and_read_committed_hold_committed_reads_only() {
    checked_run(IsolationLevel::ReadUncommitted, 21);
    checked_run(IsolationLevel::ReadCommitted, 22);
}

#[test]
fn histories_at_repeatable_read_are_snapshot_isolated_and_no_more() {
    let history = checked_run(IsolationLevel::RepeatableRead, 23);
    let circle = check_serializable(KEYS, &history);
    assert!(circle.is_err(), "write skew is possible, so among so many it should occur");
}

#[test]
fn histories_at_serializable_are_serializable() {
    let history = checked_run(IsolationLevel::Serializable, 24);
    check_serializable(KEYS, &history).unwrap();
}

/// All that was appended to lists by these transactions.
fn appended(transactions: &[Transaction]) -> impl Iterator<Item = Vec<(Key, u64)>> {
    transactions.iter().map(|txn| {
        let of = |op: &Op| match op {
            Op::Write(key, Some(value)) if is_list(*key) => {
                Some((*key, *value.last().expect("something was appended")))
            }
            _ => None,
        };
        txn.ops.iter().filter_map(of).collect()
    })
}

#[test]
fn after_a_power_cut_every_durable_transaction_is_there_as_a_whole() {
    let seed = seed(25);
    for round in 0..6 {
        let sim = machine(seed + round);
        let db = open(&sim, small_options()).unwrap();
        sim.cut_power_at(sim.op_count() + 200 + 400 * round);
        let level = [IsolationLevel::RepeatableRead, IsolationLevel::Serializable];
        let level = level[round as usize % 2];
        let (history, unknown) = run(&db, level, Durability::Sync, seed + round);
        report(&history);
        assert!(!unknown.is_empty(), "the power went in the middle");
        check_snapshots(KEYS, &history).unwrap();
        let after = sim.crash(&rustlite_io::CrashPlan::Random(seed + round));
        drop(db);
        let db = open(&after, small_options()).unwrap();
        let found: Vec<Value> = (0..KEYS)
            .map(|key| db.get(name(key)).unwrap().map(|bytes| decode(&bytes)).unwrap_or_default())
            .collect();
        let there = |(key, number): &(Key, u64)| found[*key].contains(number);
        let (returned, failed): (Vec<_>, Vec<_>) =
            history.into_iter().partition(|txn| txn.commit.is_some());
        assert!(appended(&returned).flatten().all(|append| there(&append)), "one is lost");
        assert!(!appended(&failed).flatten().any(|append| there(&append)), "one came back");
        for appends in appended(&unknown) {
            let count = appends.iter().filter(|append| there(append)).count();
            assert!(count == 0 || count == appends.len(), "{appends:?} is torn");
        }
        let (_, unknown) = run(&db, level, Durability::Buffered, seed + 100 + round);
        assert!(unknown.is_empty(), "the database works on");
    }
}
