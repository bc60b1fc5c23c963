//! Random transactions against a model that knows exactly what each read must give and which commits must fail: no anomaly, and no
//! conflict without a reason.
//!
//! Several transactions of all levels are open at a time, on one thread, with plain writes, flushes and compactions in between. The model
//! keeps the committed state, a copy of it for each transaction, and the keys and ranges that each transaction relies on.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use rustlite_engine::{
    Append, Database, ErrorKind, IsolationLevel, Iter, Keyspace, KeyspaceOptions, Options,
    Savepoint, Transaction, TransactionOptions, WriteBatch,
};

use crate::support::{Random, Table, budget, difference, dump, machine, open, seed, small_options};

const SPACES: usize = 2;
const PLAIN: usize = 0;
const MERGING: usize = 1;

/// A lifetime that no test sees the end of.
const LONG: Duration = Duration::from_secs(1_000_000);

const KEYS: usize = 60;

type Key = Vec<u8>;

/// A range of keys: inclusive start, exclusive end; `None` is no end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    start: Key,
    end: Option<Key>,
}

impl Stretch {
    fn contains(&self, key: &Key) -> bool {
        self.start <= *key && self.end.as_ref().is_none_or(|end| key < end)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let before = |end: &Option<Key>, start: &Key| end.as_ref().is_none_or(|end| start < end);
        before(&self.end, &other.start) && before(&other.end, &self.start)
    }
}

/// Keys and ranges of one keyspace.
#[derive(Debug, Clone, Default)]
struct Keys {
    points: BTreeSet<Key>,
    ranges: Vec<Stretch>,
}

impl Keys {
    fn meets(&self, other: &Self) -> bool {
        let inside = |points: &BTreeSet<Key>, ranges: &[Stretch]| {
            points.iter().any(|key| ranges.iter().any(|range| range.contains(key)))
        };
        !self.points.is_disjoint(&other.points)
            || inside(&self.points, &other.ranges)
            || inside(&other.points, &self.ranges)
            || self.ranges.iter().any(|a| other.ranges.iter().any(|b| a.overlaps(b)))
    }
}

#[derive(Debug, Clone)]
enum Write {
    Put(usize, Key, Vec<u8>),
    /// Into the keyspace that has no merge operator, for longer than the test runs.
    PutExpiring(Key, Vec<u8>),
    /// Into the one that has: appends.
    Merge(Key, Vec<u8>),
    Delete(usize, Key),
    DeleteRange(usize, Stretch),
}

impl Write {
    fn apply(&self, state: &mut [Table; SPACES]) {
        match self {
            Self::Put(space, key, value) => {
                state[*space].insert(key.clone(), value.clone());
            }
            Self::PutExpiring(key, value) => {
                state[PLAIN].insert(key.clone(), value.clone());
            }
            Self::Merge(key, operand) => {
                state[MERGING].entry(key.clone()).or_default().extend_from_slice(operand);
            }
            Self::Delete(space, key) => {
                state[*space].remove(key);
            }
            Self::DeleteRange(space, range) => state[*space].retain(|key, _| !range.contains(key)),
        }
    }

    fn note(&self, keys: &mut [Keys; SPACES]) {
        match self {
            Self::PutExpiring(key, _) => {
                keys[PLAIN].points.insert(key.clone());
            }
            Self::Merge(key, _) => {
                keys[MERGING].points.insert(key.clone());
            }
            Self::Put(space, key, _) | Self::Delete(space, key) => {
                keys[*space].points.insert(key.clone());
            }
            Self::DeleteRange(space, range) => keys[*space].ranges.push(range.clone()),
        }
    }
}

fn apply_all(writes: &[Write], state: &mut [Table; SPACES]) {
    writes.iter().for_each(|write| write.apply(state));
}

fn footprint(writes: &[Write]) -> [Keys; SPACES] {
    let mut keys = <[Keys; SPACES]>::default();
    writes.iter().for_each(|write| write.note(&mut keys));
    keys
}

/// An iterator of a transaction, and what it must give.
struct Walk {
    iter: Iter,
    space: usize,
    range: Stretch,
    /// What is left between the two ends.
    rest: Vec<(Key, Vec<u8>)>,
    front: Option<Key>,
    back: Option<Key>,
    ended: bool,
}

/// An open transaction, and what the model knows of it.
struct Open {
    txn: Transaction,
    level: IsolationLevel,
    read_only: bool,
    /// The state that it reads, but for `ReadCommitted`.
    base: [Table; SPACES],
    /// Number of commits before its snapshot.
    begun: usize,
    writes: Vec<Write>,
    savepoints: Vec<(Savepoint, usize)>,
    reads: [Keys; SPACES],
    walks: Vec<Walk>,
}

impl Open {
    fn snapshots(&self) -> bool {
        self.level >= IsolationLevel::RepeatableRead
    }

    fn observes(&self) -> bool {
        self.level == IsolationLevel::Serializable && !self.read_only
    }

    /// What it must see.
    fn state(&self, committed: &[Table; SPACES]) -> [Table; SPACES] {
        let mut state = if self.snapshots() { self.base.clone() } else { committed.clone() };
        apply_all(&self.writes, &mut state);
        state
    }

    /// Whether what it reads of the key follows from its own writes alone.
    fn has_written(&self, space: usize, key: &Key) -> bool {
        let all = self.writes.iter().filter(|write| !matches!(write, Write::Merge(..)));
        let written = &footprint(&all.cloned().collect::<Vec<_>>())[space];
        written.points.contains(key) || written.ranges.iter().any(|range| range.contains(key))
    }
}

struct Model {
    db: Database,
    spaces: [Keyspace; SPACES],
    committed: [Table; SPACES],
    /// What each commit wrote, in order.
    commits: Vec<[Keys; SPACES]>,
    open: Vec<Open>,
    random: Random,
    conflicts: usize,
    successes: usize,
}

impl Model {
    fn new(db: Database, seed: u64) -> Self {
        let appending = KeyspaceOptions::new().merge_operator(Append::NAME);
        let spaces = [(*db).clone(), db.create_keyspace("other", appending).unwrap()];
        Self {
            db,
            spaces,
            committed: Default::default(),
            commits: Vec::new(),
            open: Vec::new(),
            random: Random::new(seed),
            conflicts: 0,
            successes: 0,
        }
    }

    fn key(&mut self) -> Key {
        format!("key-{:02}", self.random.below(KEYS)).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        let len = self.random.below(if self.random.clone().percent(5) { 3000 } else { 60 });
        self.random.bytes(len)
    }

    fn write(&mut self) -> Write {
        let space = self.random.below(SPACES);
        match self.random.below(12) {
            0..5 => Write::Put(space, self.key(), self.value()),
            5..6 => Write::PutExpiring(self.key(), self.value()),
            6..8 => Write::Merge(self.key(), self.value()),
            8..11 => Write::Delete(space, self.key()),
            _ => {
                let (a, b) = (self.key(), self.key());
                let range = Stretch { start: a.clone().min(b.clone()), end: Some(a.max(b)) };
                if self.random.percent(90) && range.start != *range.end.as_ref().unwrap() {
                    Write::DeleteRange(space, range)
                } else {
                    Write::DeleteRange(space, Stretch { start: Vec::new(), end: None })
                }
            }
        }
    }

    /// A commit that is no transaction.
    fn plain_write(&mut self) {
        let writes: Vec<Write> = (0..1 + self.random.below(4)).map(|_| self.write()).collect();
        let mut batch = WriteBatch::new();
        for write in &writes {
            match write {
                Write::Put(space, key, value) => batch.put_in(&self.spaces[*space], key, value),
                Write::PutExpiring(key, value) => {
                    batch.put_expiring_in(&self.spaces[PLAIN], key, value, LONG)
                }
                Write::Merge(key, operand) => batch.merge_in(&self.spaces[MERGING], key, operand),
                Write::Delete(space, key) => batch.delete_in(&self.spaces[*space], key),
                Write::DeleteRange(space, Stretch { start, end: Some(end) }) => {
                    batch.delete_range_in(&self.spaces[*space], start, end)
                }
                Write::DeleteRange(space, _) => batch.clear_keyspace(&self.spaces[*space]),
            };
        }
        self.db.write(batch).unwrap();
        self.commit_in_model(&writes);
    }

    fn commit_in_model(&mut self, writes: &[Write]) {
        apply_all(writes, &mut self.committed);
        self.commits.push(footprint(writes));
    }

    fn begin(&mut self) {
        let level = match self.random.below(8) {
            0 => IsolationLevel::ReadUncommitted,
            1 => IsolationLevel::ReadCommitted,
            2..5 => IsolationLevel::RepeatableRead,
            _ => IsolationLevel::Serializable,
        };
        let read_only = self.random.percent(10);
        let options = TransactionOptions::new().isolation(level).read_only(read_only);
        self.open.push(Open {
            txn: self.db.begin_with(options).unwrap(),
            level,
            read_only,
            base: self.committed.clone(),
            begun: self.commits.len(),
            writes: Vec::new(),
            savepoints: Vec::new(),
            reads: Default::default(),
            walks: Vec::new(),
        });
    }

    fn write_in(&mut self, index: usize) {
        let write = self.write();
        let (open, spaces) = (&mut self.open[index], &self.spaces);
        let result = match &write {
            Write::Put(space, key, value) => open.txn.put_in(&spaces[*space], key, value),
            Write::PutExpiring(key, value) => {
                open.txn.put_expiring_in(&spaces[PLAIN], key, value, LONG)
            }
            Write::Merge(key, operand) => open.txn.merge_in(&spaces[MERGING], key, operand),
            Write::Delete(space, key) => open.txn.delete_in(&spaces[*space], key),
            Write::DeleteRange(space, Stretch { start, end: Some(end) }) => {
                open.txn.delete_range_in(&spaces[*space], start, end)
            }
            Write::DeleteRange(space, _) => open.txn.clear_keyspace(&spaces[*space]),
        };
        if open.read_only {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnly);
        } else {
            result.unwrap();
            open.writes.push(write);
        }
    }

    fn get_in(&mut self, index: usize) {
        let (space, keys) = (self.random.below(SPACES), [self.key(), self.key()]);
        let (open, keyspace) = (&mut self.open[index], &self.spaces[space]);
        let state = open.state(&self.committed);
        let found = if self.random.percent(50) {
            open.txn.multi_get_in(keyspace, &keys).unwrap()
        } else {
            let present = open.txn.contains_key_in(keyspace, &keys[0]).unwrap();
            assert_eq!(present, state[space].contains_key(&keys[0]));
            keys.iter().map(|key| open.txn.get_in(keyspace, key).unwrap()).collect()
        };
        for (key, found) in keys.iter().zip(&found) {
            assert_eq!(found.as_ref(), state[space].get(key), "{}", key.escape_ascii());
            if open.observes() && !open.has_written(space, key) {
                open.reads[space].points.insert(key.clone());
            }
        }
    }

    fn walk_in(&mut self, index: usize) {
        let (space, a, b) = (self.random.below(SPACES), self.key(), self.key());
        let open = &mut self.open[index];
        let keyspace = &self.spaces[space];
        let state = open.state(&self.committed);
        let (iter, range) = match self.random.below(3) {
            0 => {
                let range = Stretch { start: Vec::new(), end: None };
                (open.txn.iter_in(keyspace).unwrap(), range)
            }
            1 => {
                let prefix = b"key-3".to_vec();
                let range = Stretch { start: prefix.clone(), end: Some(b"key-4".to_vec()) };
                (open.txn.prefix_in(keyspace, &prefix).unwrap(), range)
            }
            _ => {
                let (start, end) = (a.clone().min(b.clone()), a.max(b));
                let range = Stretch { start: start.clone(), end: Some(end.clone()) };
                (open.txn.range_in(keyspace, start..end).unwrap(), range)
            }
        };
        let inside = state[space].iter().filter(|(key, _)| range.contains(key));
        let rest = inside.map(|(key, value)| (key.clone(), value.clone())).collect();
        open.walks.push(Walk { iter, space, range, rest, front: None, back: None, ended: false });
    }

    /// Moves an iterator, which sees what it saw when it was made.
    fn step_in(&mut self, index: usize) {
        let open = &mut self.open[index];
        let observes = open.observes();
        if open.walks.is_empty() {
            return self.walk_in(index);
        }
        let chosen = self.random.below(open.walks.len());
        let walk = &mut open.walks[chosen];
        for _ in 0..1 + self.random.below(12) {
            let forward = self.random.percent(60);
            let found = if forward { walk.iter.next() } else { walk.iter.next_back() };
            let expected = match walk.rest.len() {
                0 => None,
                _ if forward => Some(walk.rest.remove(0)),
                _ => walk.rest.pop(),
            };
            assert_eq!(found.transpose().unwrap(), expected);
            match expected {
                Some((key, _)) if forward => walk.front = Some(key),
                Some((key, _)) => walk.back = Some(key),
                None => walk.ended = true,
            }
        }
        if observes {
            let read = &mut open.reads[walk.space].ranges;
            if walk.ended {
                read.push(walk.range.clone());
            }
            if let Some(front) = &walk.front {
                let end = [front.as_slice(), &[0]].concat();
                read.push(Stretch { start: walk.range.start.clone(), end: Some(end) });
            }
            if let Some(back) = &walk.back {
                read.push(Stretch { start: back.clone(), end: walk.range.end.clone() });
            }
        }
    }

    /// A cursor jumps to a place and looks around.
    fn seek_in(&mut self, index: usize) {
        let (space, key) = (self.random.below(SPACES), self.key());
        let open = &mut self.open[index];
        let state = open.state(&self.committed);
        let mut cursor = open.txn.cursor_in(&self.spaces[space]).unwrap();
        let backward = self.random.percent(50);
        if backward {
            cursor.seek_before(&key).unwrap();
        } else {
            cursor.seek(&key).unwrap();
        }
        let table = &state[space];
        let expected = if backward {
            table.range::<Key, _>((Bound::Unbounded, Bound::Excluded(&key))).next_back()
        } else {
            table.range(key.clone()..).next()
        };
        let found = cursor.valid().then(|| (cursor.key().to_vec(), cursor.value().to_vec()));
        assert_eq!(found.as_ref().map(|(key, value)| (key, value)), expected);
        if open.observes() {
            let found = found.map(|(key, _)| key);
            let read = if backward {
                Stretch { start: found.unwrap_or_default(), end: Some(key) }
            } else {
                Stretch { start: key, end: found.map(|key| [key.as_slice(), &[0]].concat()) }
            };
            open.reads[space].ranges.push(read);
        }
    }

    fn savepoint_in(&mut self, index: usize) {
        let open = &mut self.open[index];
        if open.read_only {
            assert_eq!(open.txn.set_savepoint().unwrap_err().kind(), ErrorKind::ReadOnly);
            return;
        }
        if open.savepoints.is_empty() || self.random.percent(50) {
            let savepoint = open.txn.set_savepoint().unwrap();
            open.savepoints.push((savepoint, open.writes.len()));
            return;
        }
        let chosen = self.random.below(open.savepoints.len());
        let (savepoint, len) = open.savepoints[chosen];
        if self.random.percent(70) {
            open.txn.rollback_to(&savepoint).unwrap();
            open.writes.truncate(len);
            open.savepoints.truncate(chosen + 1);
        } else {
            open.txn.release_savepoint(&savepoint).unwrap();
            open.savepoints.truncate(chosen);
        }
    }

    fn end(&mut self, index: usize) {
        let open = self.open.swap_remove(index);
        if self.random.percent(20) {
            return open.txn.rollback();
        }
        let relies_on: [Keys; SPACES] = {
            let mut keys = footprint(&open.writes);
            for (keys, read) in keys.iter_mut().zip(&open.reads) {
                keys.points.extend(read.points.iter().cloned());
                keys.ranges.extend(read.ranges.iter().cloned());
            }
            keys
        };
        let disturbed = self.commits[open.begun..]
            .iter()
            .any(|commit| commit.iter().zip(&relies_on).any(|(wrote, needs)| wrote.meets(needs)));
        let must_fail = open.snapshots() && !open.writes.is_empty() && disturbed;
        match open.txn.commit() {
            Ok(_) => {
                assert!(!must_fail, "{:?}: a conflict was not noticed", open.level);
                self.successes += 1;
                if !open.writes.is_empty() {
                    self.commit_in_model(&open.writes);
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
                assert!(must_fail, "{:?}: a conflict without a reason: {error}", open.level);
                self.conflicts += 1;
            }
        }
    }

    fn step(&mut self) {
        let count = self.open.len();
        match self.random.below(100) {
            0..5 => self.plain_write(),
            5..6 if self.random.percent(20) => self.db.flush().unwrap(),
            5..6 if self.random.percent(20) => self.db.compact().unwrap(),
            6..16 if count < 5 => self.begin(),
            _ if count == 0 => self.begin(),
            choice => {
                let index = self.random.below(count);
                match choice {
                    16..45 => self.write_in(index),
                    45..60 => self.get_in(index),
                    60..66 => self.walk_in(index),
                    66..76 => self.step_in(index),
                    76..80 => self.seek_in(index),
                    80..88 => self.savepoint_in(index),
                    _ => self.end(index),
                }
            }
        }
    }

    fn check(&self) {
        for (keyspace, expected) in self.spaces.iter().zip(&self.committed) {
            assert_eq!(difference(expected, &dump(keyspace).unwrap()), None);
        }
    }
}

fn run(db: Database, seed: u64, steps: usize) -> (usize, usize) {
    let mut model = Model::new(db, seed);
    for step in 0..steps {
        model.step();
        if step % 200 == 0 {
            model.check();
        }
    }
    while !model.open.is_empty() {
        model.end(0);
    }
    model.check();
    (model.successes, model.conflicts)
}

fn run_all(own_seed: u64, open: impl Fn(u64) -> Database) {
    let seed = seed(own_seed);
    for round in 0..budget(3) as u64 {
        let (successes, conflicts) = run(open(seed + round), seed + round, 20_000);
        println!("{successes} commits, {conflicts} conflicts");
        assert!(successes > 500 && conflicts > 100, "{successes} commits, {conflicts} conflicts");
    }
}

#[test]
fn transactions_behave_as_the_model_says_while_everything_is_flushed_and_compacted() {
    run_all(11, |seed| open(&machine(seed), small_options()).unwrap());
}

#[test]
fn transactions_behave_as_the_model_says_in_memory_with_large_memtables() {
    run_all(12, |_| Database::in_memory_with(Options::new()).unwrap());
}

#[test]
fn transactions_behave_as_the_model_says_in_memory_with_tiny_memtables() {
    run_all(13, |_| Database::in_memory_with(small_options()).unwrap());
}
