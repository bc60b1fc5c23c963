//! Long random sequences of every operation, compared with a model after each: reads of all kinds, snapshots and iterators that
//! are held across flushes and compactions, reopening.

use std::collections::VecDeque;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustlite_engine::{
    Append, Compression, Database, Durability, IoBackend, Iter, KeyValue, Keyspace,
    KeyspaceOptions, Options, PinnedValue, Snapshot, WriteBatch,
};
use rustlite_io::{FileSystem, SimClock, SimFileSystem};

use crate::model::{Model, range};
use crate::support::{
    Random, Table, budget, difference, dump, machine, open, seed, small_options, with,
};

/// Time passes in hours, so that the moments that the simulator adds by itself don't matter.
const HOUR: Duration = Duration::from_secs(3600);

const NAMES: [&str; 3] = ["default", "second", MERGING];

/// The keyspace with a merge operator, where nothing expires.
const MERGING: &str = "third";

/// How the database under test is opened.
type Opener = Box<dyn Fn(Options) -> Database>;

/// Something that must go on showing what it showed when it was taken.
enum Held {
    Snapshot(Snapshot, Model),
    /// With the hour at which each record expires.
    Iterator(Box<Iter>, VecDeque<(KeyValue, u64)>),
    Value(PinnedValue, Vec<u8>),
}

struct Checker {
    opener: Opener,
    options: Options,
    keyspace_options: KeyspaceOptions,
    random: Random,
    db: Option<Database>,
    spaces: Vec<Keyspace>,
    model: Model,
    held: Vec<Held>,
    /// Where time can be moved.
    clock: Option<Arc<SimClock>>,
    /// Hours that have passed.
    hour: u64,
}

impl Checker {
    fn new(seed: u64, opener: Opener, options: Options, keyspaces: KeyspaceOptions) -> Self {
        let options = options.default_keyspace(keyspaces.clone());
        let mut checker = Self {
            opener,
            options,
            keyspace_options: keyspaces,
            random: Random::new(seed),
            db: None,
            spaces: Vec::new(),
            model: Model::default(),
            held: Vec::new(),
            clock: None,
            hour: 0,
        };
        checker.open(false);
        checker
    }

    fn open(&mut self, read_only: bool) {
        let db = (self.opener)(self.options.clone().read_only(read_only));
        let space = |name: &&str| match *name {
            "default" => (*db).clone(),
            name if read_only => db.existing_keyspace(name).unwrap().unwrap(),
            name => db.create_keyspace(name, self.options_of(name)).unwrap(),
        };
        self.spaces = NAMES.iter().map(space).collect();
        self.db = Some(db);
    }

    fn options_of(&self, name: &str) -> KeyspaceOptions {
        match name {
            MERGING => self.keyspace_options.clone().merge_operator(Append::NAME),
            _ => self.keyspace_options.clone(),
        }
    }

    fn db(&self) -> &Database {
        self.db.as_ref().unwrap()
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.random.below(300);
        match self.random.below(20) {
            // Keys that are prefixes of others, and keys of extreme bytes.
            0 => vec![b'k'; 1 + number % 5],
            1 => vec![0xff; 1 + number % 4],
            2 => vec![0; 1 + number % 3],
            3 => format!("k{}-{}", number % 10, "long".repeat(40)).into_bytes(),
            _ => format!("k{number:03}").into_bytes(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.below(40) {
            0 => 20_000,
            1..=4 => 0,
            5..=20 => self.random.below(40),
            _ => self.random.below(900),
        };
        // Half noise, half repetition, so that compression has something to do.
        let mut value = self.random.bytes(len / 2);
        value.resize(len, b'=');
        value
    }

    fn step(&mut self) {
        let which = self.random.below(NAMES.len());
        match self.random.below(1000) {
            0..=269 => self.put(which),
            270..=319 if NAMES[which] == MERGING => self.merge(which),
            270..=319 => self.put_expiring(which),
            320..=329 => self.pass_time(),
            330..=409 => self.delete(which),
            410..=509 => self.batch(),
            510..=529 => self.delete_range(which),
            530..=531 => self.clear(which),
            532..=700 => self.get(which),
            701..=740 => self.multi_get(which),
            741..=790 => self.ranges(which),
            791..=820 => self.meet_in_the_middle(which),
            821..=880 => self.cursor_walk(which),
            881..=920 => self.hold(which),
            921..=960 => self.check_held(),
            961..=974 => self.db().flush().unwrap(),
            975..=980 => self.compact(which),
            981..=990 => self.db().sync().unwrap(),
            991..=994 => self.reopen(),
            995 => self.ingest(which),
            _ => self.compare_all(),
        }
    }

    fn durability(&mut self) -> Durability {
        if self.random.percent(10) { Durability::Sync } else { Durability::Buffered }
    }

    fn put(&mut self, which: usize) {
        let (key, value, durability) = (self.key(), self.value(), self.durability());
        self.spaces[which].put_with(&key, &value, &with(durability)).unwrap();
        self.model.put(NAMES[which], &key, &value);
    }

    fn put_expiring(&mut self, which: usize) {
        let (key, value, durability) = (self.key(), self.value(), self.durability());
        let hours = self.random.below(4) as u64;
        let ttl = HOUR * hours as u32;
        self.spaces[which].put_expiring_with(&key, &value, ttl, &with(durability)).unwrap();
        self.model.put_until(NAMES[which], &key, &value, self.hour + hours);
        self.model.expire(self.hour);
    }

    fn merge(&mut self, which: usize) {
        let (key, durability, len) = (self.key(), self.durability(), self.random.below(30));
        let operand = self.random.bytes(len);
        self.spaces[which].merge_with(&key, &operand, &with(durability)).unwrap();
        self.model.append(NAMES[which], &key, &operand);
    }

    fn pass_time(&mut self) {
        let Some(clock) = &self.clock else { return };
        clock.advance(HOUR);
        self.hour += 1;
        self.model.expire(self.hour);
        for held in &mut self.held {
            match held {
                Held::Snapshot(_, model) => model.expire(self.hour),
                Held::Iterator(_, rest) => rest.retain(|(_, until)| *until > self.hour),
                Held::Value(..) => {}
            }
        }
    }

    fn ingest(&mut self, which: usize) {
        let items: Table = (0..self.random.below(80)).map(|_| (self.key(), self.value())).collect();
        let info = self.spaces[which].ingest(&items).unwrap();
        assert_eq!(info.records, items.len() as u64);
        items.iter().for_each(|(key, value)| self.model.put(NAMES[which], key, value));
    }

    fn delete(&mut self, which: usize) {
        let (key, durability) = (self.key(), self.durability());
        self.spaces[which].delete_with(&key, &with(durability)).unwrap();
        self.model.delete(NAMES[which], &key);
    }

    fn delete_range(&mut self, which: usize) {
        let (start, end) = (self.key(), self.key());
        self.spaces[which].delete_range(&start, &end).unwrap();
        if start < end {
            self.model.delete_range(NAMES[which], &start, &end);
        }
    }

    fn clear(&mut self, which: usize) {
        self.spaces[which].clear().unwrap();
        self.model.clear(NAMES[which]);
    }

    fn batch(&mut self) {
        let mut batch = WriteBatch::new();
        for _ in 0..1 + self.random.below(12) {
            let which = self.random.below(NAMES.len());
            let (name, key) = (NAMES[which], self.key());
            match self.random.below(10) {
                0..=2 if name == MERGING => {
                    let operand = self.value();
                    batch.merge_in(&self.spaces[which], &key, &operand);
                    self.model.append(name, &key, &operand);
                }
                0 => {
                    let value = self.value();
                    batch.put_expiring_in(&self.spaces[which], &key, &value, HOUR);
                    self.model.put_until(name, &key, &value, self.hour + 1);
                }
                1..=6 => {
                    let value = self.value();
                    batch.put_in(&self.spaces[which], &key, &value);
                    self.model.put(name, &key, &value);
                }
                7..=8 => {
                    batch.delete_in(&self.spaces[which], &key);
                    self.model.delete(name, &key);
                }
                _ => {
                    let end = self.key();
                    batch.delete_range_in(&self.spaces[which], &key, &end);
                    if key < end {
                        self.model.delete_range(name, &key, &end);
                    }
                }
            }
        }
        let durability = self.durability();
        self.db().write_with(&batch, &with(durability)).unwrap();
    }

    fn get(&mut self, which: usize) {
        let key = self.key();
        let (space, table) = (&self.spaces[which], self.model.table(NAMES[which]));
        let expected = table.get(&key);
        assert_eq!(space.get(&key).unwrap().as_ref(), expected, "get {key:?}");
        let pinned = space.get_pinned(&key).unwrap();
        assert_eq!(pinned.as_deref(), expected.map(Vec::as_slice), "get_pinned {key:?}");
        assert_eq!(space.contains_key(&key).unwrap(), expected.is_some(), "contains {key:?}");
    }

    fn multi_get(&mut self, which: usize) {
        let keys: Vec<Vec<u8>> = (0..10).map(|_| self.key()).collect();
        let table = self.model.table(NAMES[which]);
        let expected: Vec<_> = keys.iter().map(|key| table.get(key).cloned()).collect();
        assert_eq!(self.spaces[which].multi_get(&keys).unwrap(), expected);
    }

    fn ranges(&mut self, which: usize) {
        let (low, high) = (self.key(), self.key());
        let pick = |random: &mut Random, key: &Vec<u8>| match random.below(3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(key.clone()),
            _ => Bound::Excluded(key.clone()),
        };
        let bounds = (pick(&mut self.random, &low), pick(&mut self.random, &high));
        let (space, table) = (&self.spaces[which], self.model.table(NAMES[which]));
        let slice = |bound: &Bound<Vec<u8>>| bound.clone();
        let (start, end) = (slice(&bounds.0), slice(&bounds.1));
        let expected =
            range(table, start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
        let forward: Vec<_> = space.range(bounds.clone()).unwrap().map(Result::unwrap).collect();
        assert!(forward == expected, "range {bounds:?}");
        let mut backward: Vec<_> =
            space.range(bounds.clone()).unwrap().rev().map(Result::unwrap).collect();
        backward.reverse();
        assert!(backward == expected, "range {bounds:?} backward");
        let prefix = &low[..self.random.below(low.len() + 1)];
        let begins = |(key, _): &(&Vec<u8>, &Vec<u8>)| key.starts_with(prefix);
        let expected: Vec<_> =
            table.iter().filter(begins).map(|(key, value)| (key.clone(), value.clone())).collect();
        let found: Vec<_> = space.prefix(prefix).unwrap().map(Result::unwrap).collect();
        assert!(found == expected, "prefix {prefix:?}");
    }

    /// Takes from both ends of one iterator in random order: each record comes once.
    fn meet_in_the_middle(&mut self, which: usize) {
        let mut items = self.spaces[which].iter().unwrap();
        let table = self.model.table(NAMES[which]);
        let mut expected: VecDeque<_> = table.iter().collect();
        loop {
            let front = self.random.percent(50);
            let (got, want) = match front {
                true => (items.next(), expected.pop_front()),
                false => (items.next_back(), expected.pop_back()),
            };
            let got = got.map(Result::unwrap);
            let got = got.as_ref().map(|(key, value)| (key, value));
            assert_eq!(got, want, "from both ends, front: {front}");
            if want.is_none() {
                return;
            }
        }
    }

    /// Seeks and steps in random directions.
    fn cursor_walk(&mut self, which: usize) {
        let mut cursor = self.spaces[which].cursor().unwrap();
        let mut at: Option<Vec<u8>> = None;
        for _ in 0..30 {
            let key = self.key();
            let move_ = self.random.below(10);
            let table = self.model.table(NAMES[which]);
            let after = |key: &Vec<u8>| {
                let bounds = (Bound::Excluded(key.clone()), Bound::Unbounded);
                table.range(bounds).next().map(|(key, _)| key.clone())
            };
            let before =
                |key: &Vec<u8>| table.range(..key.clone()).next_back().map(|(key, _)| key.clone());
            match move_ {
                0 => cursor.seek_to_first().unwrap(),
                1 => cursor.seek_to_last().unwrap(),
                2 => cursor.seek(&key).unwrap(),
                3 => cursor.seek_before(&key).unwrap(),
                4..=6 => cursor.next().unwrap(),
                _ => cursor.prev().unwrap(),
            }
            at = match move_ {
                0 => table.keys().next().cloned(),
                1 => table.keys().next_back().cloned(),
                2 => table.range(key..).next().map(|(key, _)| key.clone()),
                3 => before(&key),
                4..=6 => at.as_ref().and_then(after),
                _ => at.as_ref().and_then(before),
            };
            assert_eq!(cursor.valid(), at.is_some(), "move {move_}");
            if let Some(key) = &at {
                assert_eq!(cursor.key(), key, "move {move_}");
                assert_eq!(cursor.value(), &table[key], "move {move_}");
            }
        }
    }

    fn hold(&mut self, which: usize) {
        if self.held.len() > 12 {
            self.held.swap_remove(self.random.below(12));
        }
        let key = self.key();
        let space = &self.spaces[which];
        let held = match self.random.below(3) {
            0 => Some(Held::Snapshot(self.db().snapshot().unwrap(), self.model.clone())),
            1 => {
                let table = self.model.table(NAMES[which]);
                let until = |key: &[u8]| self.model.expiry(NAMES[which], key);
                let timed =
                    |(key, value): (&Vec<u8>, &Vec<u8>)| ((key.clone(), value.clone()), until(key));
                let rest = table.iter().map(timed).collect();
                Some(Held::Iterator(Box::new(space.iter().unwrap()), rest))
            }
            _ => space.get_pinned(&key).unwrap().map(|value| {
                let copy = value.to_vec();
                Held::Value(value, copy)
            }),
        };
        self.held.extend(held);
    }

    fn check_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let index = self.random.below(self.held.len());
        let (key, steps) = (self.key(), self.random.below(20));
        match &mut self.held[index] {
            Held::Snapshot(snapshot, model) => {
                for (space, name) in self.spaces.iter().zip(NAMES) {
                    let view = snapshot.keyspace(space);
                    let table = model.table(name);
                    assert_eq!(view.get(&key).unwrap().as_ref(), table.get(&key), "at a snapshot");
                    let all: Table = view.iter().collect::<Result<_, _>>().unwrap();
                    assert_eq!(difference(table, &all), None, "{name} at a snapshot");
                    let back: Table = view.iter().rev().collect::<Result<_, _>>().unwrap();
                    assert_eq!(difference(table, &back), None, "{name} at a snapshot, backward");
                }
            }
            Held::Iterator(items, rest) => {
                for step in 0..steps {
                    let front = (step + steps) % 3 != 0;
                    let (got, want) = match front {
                        true => (items.next(), rest.pop_front()),
                        false => (items.next_back(), rest.pop_back()),
                    };
                    let want = want.map(|(record, _)| record);
                    assert_eq!(got.map(Result::unwrap), want, "an iterator that was held");
                }
            }
            Held::Value(value, copy) => assert_eq!(value.as_ref(), copy.as_slice()),
        }
    }

    fn compact(&mut self, which: usize) {
        let (low, high) = (self.key(), self.key());
        match self.random.below(4) {
            0 => self.spaces[which].compact().unwrap(),
            1 => self.db().wait_for_compactions().unwrap(),
            2 => self.spaces[which].compact_range(low..).unwrap(),
            _ => self.spaces[which]
                .compact_range(low.clone().min(high.clone())..low.max(high))
                .unwrap(),
        }
    }

    fn reopen(&mut self) {
        // Iterators and values outlive the database; snapshots are taken of it, so they go with it here.
        self.held.retain(|held| !matches!(held, Held::Snapshot(..)));
        self.spaces.clear();
        let db = self.db.take().unwrap();
        if self.random.percent(50) {
            db.close().unwrap()
        } else {
            drop(db)
        }
        if self.random.percent(30) {
            self.open(true);
            self.compare_all();
            let refused = self.db().put("k", "v").unwrap_err();
            assert_eq!(refused.kind(), rustlite_engine::ErrorKind::ReadOnly);
            self.spaces.clear();
            self.db.take();
        }
        self.open(false);
        self.compare_all();
    }

    fn compare_all(&mut self) {
        for (space, name) in self.spaces.iter().zip(NAMES) {
            let found = dump(space).unwrap();
            assert_eq!(difference(self.model.table(name), &found), None, "{name}");
        }
    }

    fn run(mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
        self.held.clear();
        self.compare_all();
        self.reopen();
    }
}

/// On a simulated machine, whose time the checker moves.
fn on_simulator(seed: u64, options: Options, keyspaces: KeyspaceOptions) -> Checker {
    let sim = machine(seed);
    let clock = sim.sim_clock();
    let opener: Opener = Box::new(move |options| open(&sim, options).unwrap());
    Checker { clock, ..Checker::new(seed, opener, options, keyspaces) }
}

fn on_disk(directory: &Path, backend: IoBackend) -> Opener {
    let directory = directory.to_path_buf();
    Box::new(move |options| Database::open_with(&directory, options.io_backend(backend)).unwrap())
}

const STEPS: usize = 6000;

#[test]
fn plain_blocks_agree_with_the_model() {
    let seed = seed(501);
    on_simulator(seed, small_options(), KeyspaceOptions::new()).run(budget(STEPS));
}

#[test]
fn compressed_blocks_and_a_small_cache_agree_with_the_model() {
    let seed = seed(502);
    let keyspaces = KeyspaceOptions::new().compression(Compression::Lz4).block_bytes(1024);
    let options = small_options().block_cache_bytes(32 << 10).verify_checksums_always(true);
    on_simulator(seed, options, keyspaces).run(budget(STEPS));
}

#[test]
fn tiny_blocks_without_filters_agree_with_the_model() {
    let seed = seed(503);
    let keyspaces = KeyspaceOptions::new().block_bytes(512).filter_bits_per_key(0);
    let options = small_options().background_threads(2).l0_compaction_trigger(1);
    on_simulator(seed, options, keyspaces).run(budget(STEPS));
}

#[test]
fn separated_values_agree_with_the_model() {
    let seed = seed(507);
    let keyspaces = KeyspaceOptions::new().value_separation_bytes(300);
    on_simulator(seed, small_options(), keyspaces).run(budget(STEPS));
    let keyspaces = KeyspaceOptions::new()
        .value_separation_bytes(256)
        .compression(Compression::Lz4)
        .block_bytes(512);
    let options = small_options().background_threads(2).l0_compaction_trigger(1);
    on_simulator(seed + 1, options, keyspaces).run(budget(STEPS));
}

#[test]
fn a_memtable_that_is_never_full_agrees_with_the_model() {
    let seed = seed(504);
    let options = small_options().memtable_bytes(64 << 20).log_bytes_max(64 << 20);
    on_simulator(seed, options, KeyspaceOptions::new()).run(budget(STEPS));
}

#[test]
fn real_files_agree_with_the_model_on_both_backends() {
    let seed = seed(505);
    for backend in [IoBackend::Auto, IoBackend::Threads] {
        let directory = tempfile::tempdir().unwrap();
        let opener = on_disk(&directory.path().join("db"), backend);
        Checker::new(seed, opener, small_options(), KeyspaceOptions::new()).run(budget(1500));
    }
}

#[test]
fn a_volatile_file_system_agrees_with_the_model() {
    let seed = seed(506);
    let sim = SimFileSystem::volatile();
    let opener: Opener = Box::new(move |options| {
        let file_system: Arc<dyn FileSystem> = Arc::<SimFileSystem>::clone(&sim);
        Database::open_on(file_system, "/db", options).unwrap()
    });
    Checker::new(seed, opener, small_options(), KeyspaceOptions::new()).run(budget(3000));
}
