//! A process that writes is killed at a random moment, again and again: no acknowledged write is lost, no batch is torn, and the
//! database opens every time.
//!
//! Each writer thread owns a part of the keys and carries out a sequence of operations that its seed determines, and tells its parent
//! the number of each operation that was acknowledged. Afterwards its part of the database must be what the sequence makes of it, up
//! to the last acknowledged operation, or including the one that was under way.
//!
//! `RUSTLITE_KILL_ROUNDS` sets the number of rounds, `RUSTLITE_TEST_SEED` replays a run (the moments of the kills are not replayed).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustlite::{Database, Durability, Options, Result, WriteBatch, WriteOptions};

use crate::child;
use crate::random::{Random, seed};
use crate::support::{backends, small_options};

/// Writer threads of the process.
const THREADS: u64 = 4;

/// Keys that a thread uses in each keyspace.
const KEYS: u64 = 400;

/// Keyspaces that all threads write to. The third is the default one.
const SHARED: [&str; 3] = ["accounts", "history", "default"];

/// Rounds on one database before a new one is begun.
const ROUNDS_PER_DATABASE: u64 = 8;

/// The environment variable that hands the seed of a round to the process.
const ROUND_SEED: &str = "RUSTLITE_KILL_ROUND_SEED";

/// One operation of a thread: it happens as a whole or not at all.
#[derive(Debug, Clone)]
enum Operation {
    Put { keyspace: usize, key: String, value: Vec<u8> },
    Delete { keyspace: usize, key: String },
    DeleteRange { keyspace: usize, start: String, end: String },
    /// The same value under the same key in every shared keyspace, and a delete.
    Batch { key: String, value: Vec<u8>, deleted: String },
    CreateKeyspace,
    /// A write to the thread's own keyspace.
    PutOwn { key: String, value: Vec<u8> },
    DropKeyspace,
}

fn key(thread: u64, number: u64) -> String {
    format!("thread {thread} key {number:04}")
}

fn own_name(thread: u64) -> String {
    format!("only of thread {thread}")
}

impl Operation {
    /// The operation number `number` of a thread in a round.
    fn of(round_seed: u64, thread: u64, number: u64) -> Self {
        let mut random = Random::new(&[round_seed, thread, number]);
        let keyspace = random.below(SHARED.len() as u64) as usize;
        let at = random.below(KEYS);
        let length = if random.one_in(50) { 20_000 } else { random.below(300) };
        let value: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        match random.below(200) {
            0 => Self::CreateKeyspace,
            1 => Self::DropKeyspace,
            2..=11 => Self::PutOwn { key: key(thread, at), value },
            12..=15 => {
                let end = key(thread, at + 1 + random.below(20));
                Self::DeleteRange { keyspace, start: key(thread, at), end }
            }
            16..=45 => Self::Delete { keyspace, key: key(thread, at) },
            46..=105 => {
                let deleted = key(thread, random.below(KEYS));
                Self::Batch { key: key(thread, at), value, deleted }
            }
            _ => Self::Put { keyspace, key: key(thread, at), value },
        }
    }

    fn carry_out(&self, db: &Database, thread: u64, write: &WriteOptions) -> Result<()> {
        let open = |number: usize| db.keyspace(SHARED[number]);
        match self {
            Self::Put { keyspace, key, value } => open(*keyspace)?.put_with(key, value, write),
            Self::Delete { keyspace, key } => open(*keyspace)?.delete_with(key, write),
            Self::DeleteRange { keyspace, start, end } => {
                open(*keyspace)?.delete_range(start, end)
            }
            Self::Batch { key, value, deleted } => {
                let mut batch = WriteBatch::new();
                for number in 0..SHARED.len() {
                    batch.put_in(&open(number)?, key, value);
                }
                batch.delete_in(&open(0)?, deleted);
                db.write_with(&batch, write)
            }
            Self::CreateKeyspace => db.keyspace(&own_name(thread)).map(drop),
            Self::PutOwn { key, value } => match db.existing_keyspace(&own_name(thread))? {
                Some(own) => own.put_with(key, value, write),
                None => Ok(()),
            },
            Self::DropKeyspace => match db.existing_keyspace(&own_name(thread))? {
                Some(_) => db.drop_keyspace(&own_name(thread)),
                None => Ok(()),
            },
        }
    }
}

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a thread's part of the database holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Part {
    shared: [Content; SHARED.len()],
    own: Option<Content>,
}

impl Part {
    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Put { keyspace, key, value } => {
                self.shared[keyspace].insert(key.into_bytes(), value);
            }
            Operation::Delete { keyspace, key } => {
                self.shared[keyspace].remove(key.as_bytes());
            }
            Operation::DeleteRange { keyspace, start, end } => {
                let covered = start.into_bytes()..end.into_bytes();
                self.shared[keyspace].retain(|key, _| !covered.contains(key));
            }
            Operation::Batch { key, value, deleted } => {
                for content in &mut self.shared {
                    content.insert(key.clone().into_bytes(), value.clone());
                }
                self.shared[0].remove(deleted.as_bytes());
            }
            Operation::CreateKeyspace => {
                self.own.get_or_insert_default();
            }
            Operation::PutOwn { key, value } => {
                if let Some(own) = &mut self.own {
                    own.insert(key.into_bytes(), value);
                }
            }
            Operation::DropKeyspace => self.own = None,
        }
    }

    fn read(db: &Database, thread: u64) -> Self {
        let prefix = format!("thread {thread} ");
        let shared = SHARED.map(|name| {
            let items = db.keyspace(name).unwrap().prefix(&prefix).unwrap();
            items.map(|item| item.expect("everything can be read after a kill")).collect()
        });
        let own = db.existing_keyspace(&own_name(thread)).unwrap();
        Self { shared, own: own.map(|own| crate::support::collect(own.iter().unwrap())) }
    }

    /// Where two parts differ, in words.
    fn difference(&self, other: &Self) -> String {
        for (number, name) in SHARED.iter().enumerate() {
            let (ours, theirs) = (&self.shared[number], &other.shared[number]);
            for key in ours.keys().chain(theirs.keys()) {
                if ours.get(key) != theirs.get(key) {
                    let show = |found: Option<&Vec<u8>>| match found {
                        Some(value) => format!("{} bytes {:02x?}", value.len(), value.get(..8)),
                        None => "nothing".to_owned(),
                    };
                    let key_text = String::from_utf8_lossy(key);
                    let (found, wanted) = (show(ours.get(key)), show(theirs.get(key)));
                    return format!("{name}: {key_text}: found {found}, expected {wanted}");
                }
            }
        }
        let size = |own: &Option<Content>| own.as_ref().map(BTreeMap::len);
        format!("own keyspace: found {:?}, expected {:?}", size(&self.own), size(&other.own))
    }
}

/// The options of a round; both sides derive them from its seed.
fn round_options(round_seed: u64) -> Options {
    let mut random = Random::new(&[round_seed, 1]);
    let durability = match random.below(3) {
        0 => Durability::Sync,
        1 => Durability::Buffered,
        _ => Durability::Periodic(Duration::from_millis(1 + random.below(20))),
    };
    let backends = backends();
    let (_, backend) = backends[random.below(backends.len() as u64) as usize];
    small_options().durability(durability).io_backend(backend)
}

/// The role of the process that is killed.
pub(crate) fn write_until_killed(directory: &Path) {
    let round_seed = std::env::var(ROUND_SEED).unwrap().parse().unwrap();
    let db = Database::open_with(directory, round_options(round_seed)).unwrap();
    for name in SHARED {
        db.keyspace(name).unwrap();
    }
    let barrier = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, barrier) = (db.clone(), &barrier);
            scope.spawn(move || {
                barrier.wait();
                for number in 0.. {
                    let operation = Operation::of(round_seed, thread, number);
                    let write = match number % 5 {
                        0 => WriteOptions::new().durability(Durability::Sync),
                        1 => WriteOptions::new().durability(Durability::Buffered),
                        _ => WriteOptions::new(),
                    };
                    if let Err(error) = operation.carry_out(&db, thread, &write) {
                        acknowledge(&format!("failed {error}\n"));
                        return;
                    }
                    acknowledge(&format!("ack {thread} {number}\n"));
                }
            });
        }
    });
}

/// Writes a line with one system call, so that a line is whole or not there.
fn acknowledge(line: &str) {
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// What a round did.
struct Round {
    /// For each thread, how many operations were acknowledged.
    acknowledged: [u64; THREADS as usize],
}

/// Starts the process and kills it after `patience`, counted from its start or its first acknowledgement.
fn run_and_kill(directory: &Path, round_seed: u64) -> Round {
    let mut random = Random::new(&[round_seed, 2]);
    let mut process = child::command(&[], "write until killed", directory)
        .env(ROUND_SEED, round_seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap());
    let first_acknowledged = AtomicU64::new(0);
    let begun = Instant::now();
    let acknowledged = std::thread::scope(|scope| {
        let first = &first_acknowledged;
        let listener = scope.spawn(move || listen(lines, || first.store(1, Ordering::SeqCst)));
        // One kill in six comes while the database is opened or the threads begin.
        if !random.one_in(6) {
            while first.load(Ordering::SeqCst) == 0 && begun.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        std::thread::sleep(Duration::from_micros(random.below(300_000)));
        process.kill().unwrap();
        process.wait().unwrap();
        listener.join().unwrap()
    });
    Round { acknowledged }
}

/// Counts the acknowledgements of each thread until the pipe is closed.
fn listen(lines: impl BufRead, mut on_first: impl FnMut()) -> [u64; THREADS as usize] {
    let mut acknowledged = [0; THREADS as usize];
    for line in lines.split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        assert!(!line.starts_with("failed"), "a write failed: {line}");
        // The test harness talks too, and its line has no end before our first one.
        let Some((_, numbers)) = line.split_once("ack ") else { continue };
        let (thread, number) = numbers.split_once(' ').unwrap();
        let (thread, number): (usize, u64) = (thread.parse().unwrap(), number.parse().unwrap());
        assert_eq!(number, acknowledged[thread], "acknowledgements come in order");
        acknowledged[thread] = number + 1;
        on_first();
    }
    acknowledged
}

/// Compares a thread's part of the database with what its operations make of it. Updates the model.
fn verify(db: &Database, round_seed: u64, thread: u64, acknowledged: u64, model: &mut Part) {
    for number in 0..acknowledged {
        model.apply(Operation::of(round_seed, thread, number));
    }
    let found = Part::read(db, thread);
    if found == *model {
        return;
    }
    let without = found.difference(model);
    // The operation under way may have happened too.
    model.apply(Operation::of(round_seed, thread, acknowledged));
    assert!(
        found == *model,
        "thread {thread}, {acknowledged} acknowledged operations: {without}\nwith the next one \
         ({:?}): {}",
        Operation::of(round_seed, thread, acknowledged),
        found.difference(model)
    );
}

#[test]
fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    let seed = seed();
    println!("RUSTLITE_TEST_SEED={seed}");
    let rounds: u64 =
        std::env::var("RUSTLITE_KILL_ROUNDS").map_or(25, |text| text.parse().unwrap());
    let mut directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut models = vec![Part::default(); THREADS as usize];
    let (mut total, mut opening) = (0, Duration::ZERO);
    for round in 0..rounds {
        if round % ROUNDS_PER_DATABASE == 0 {
            directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            models = vec![Part::default(); THREADS as usize];
        }
        let round_seed = Random::new(&[seed, round]).next();
        let path = directory.path().join("db");
        let Round { acknowledged } = run_and_kill(&path, round_seed);
        let begun = Instant::now();
        // Other options than those it was written with, the other backend among them.
        let db = Database::open_with(&path, round_options(!round_seed))
            .unwrap_or_else(|error| panic!("round {round}: cannot open: {error}"));
        opening = opening.max(begun.elapsed());
        for thread in 0..THREADS {
            let count = acknowledged[thread as usize];
            verify(&db, round_seed, thread, count, &mut models[thread as usize]);
            total += count;
        }
        println!(
            "round {:>3}/{rounds}: {acknowledged:?} acknowledged, {} tables, opened in {:?}",
            round + 1,
            db.stats().unwrap().levels.iter().map(|level| level.tables).sum::<usize>(),
            begun.elapsed(),
        );
        // Closed, or left to be recovered once more from the same log.
        if round % 2 == 0 {
            db.close().unwrap();
        }
    }
    println!("{rounds} kills, {total} acknowledged writes, none lost; slowest open {opening:?}");
    assert!(total > 0 || rounds == 0, "no round came as far as its first write");
}
