//! A process that writes is killed at a random moment, again and again: no acknowledged write is lost, no batch is torn, and the
//! database opens every time.
//!
//! Each writer thread owns a part of the keys and carries out a sequence of operations that its seed determines, and tells its parent
//! the number of each operation that was acknowledged. Afterwards its part of the database must be what the sequence makes of it, up
//! to the last acknowledged operation, or including the one that was under way.
//!
//! `RUSTLITE_KILL_ROUNDS` sets the number of rounds, `RUSTLITE_TEST_SEED` replays a run (the moments of the kills are not replayed).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustlite::{Database, Durability, IoBackend, Options, WriteOptions};

use crate::child;
use crate::kill_model::{Operation, Part, SHARED};
use crate::random::{Random, seed};
use crate::support::{backends, small_options};

/// Writer threads of the process.
const THREADS: u64 = 4;

/// Rounds on one database before a new one is begun.
const ROUNDS_PER_DATABASE: u64 = 8;

/// The environment variable that hands the seed of a round to the process.
const ROUND_SEED: &str = "RUSTLITE_KILL_ROUND_SEED";

/// The environment variable that hands the process the name of its backend.
const ROUND_BACKEND: &str = "RUSTLITE_KILL_ROUND_BACKEND";

/// The name of that backend among [`backends`].
const IO_URING: &str = "io_uring";

/// The options of a round; both sides derive them from its seed.
fn round_options(round_seed: u64, backend: IoBackend) -> Options {
    let mut random = Random::new(&[round_seed, 1]);
    let durability = match random.below(3) {
        0 => Durability::Sync,
        1 => Durability::Buffered,
        _ => Durability::Periodic(Duration::from_millis(1 + random.below(20))),
    };
    small_options().durability(durability).io_backend(backend)
}

/// The role of the process that is killed.
pub(crate) fn write_until_killed(directory: &Path) {
    let round_seed = std::env::var(ROUND_SEED).unwrap().parse().unwrap();
    let uses_ring = std::env::var_os(ROUND_BACKEND).unwrap() == *IO_URING;
    let backend = if uses_ring { IoBackend::Uring } else { IoBackend::Threads };
    let db = Database::open_with(directory, round_options(round_seed, backend)).unwrap();
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
fn run_and_kill(directory: &Path, round_seed: u64, backend: &str) -> Round {
    let mut random = Random::new(&[round_seed, 2]);
    let mut process = child::command(&[], "write until killed", directory)
        .env(ROUND_SEED, round_seed.to_string())
        .env(ROUND_BACKEND, backend)
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
        "thread {thread}, {acknowledged} acknowledged operations: {without}\nwith the next one: {}",
        found.difference(model)
    );
}

#[test]
fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    let seed = seed();
    println!("RUSTLITE_TEST_SEED={seed}");
    let rounds: u64 =
        std::env::var("RUSTLITE_KILL_ROUNDS").map_or(25, |text| text.parse().unwrap());
    let backends = backends();
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
        // Written with one backend, recovered with another.
        let backend = |number: u64| backends[(number % backends.len() as u64) as usize];
        let Round { acknowledged } = run_and_kill(&path, round_seed, backend(round).0);
        let begun = Instant::now();
        // Every other time nothing is written, so that the next process recovers from the same log again.
        let options =
            round_options(!round_seed, backend(round / 2 + 1).1).read_only(round % 2 == 1);
        let db = Database::open_with(&path, options)
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
        db.close().unwrap();
    }
    println!("{rounds} kills, {total} acknowledged writes, none lost; slowest open {opening:?}");
    assert!(total > 0 || rounds == 0, "no round came as far as its first write");
}
