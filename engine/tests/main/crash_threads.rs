//! Power cuts and kills while many threads write: nothing acknowledged as durable is lost, and the log keeps its order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustlite_engine::{Database, Durability, Options, WriteBatch};
use rustlite_io::CrashPlan;

use crate::support::{Random, budget, describe, machine, open, seed, small_options, with};

/// One acknowledged write of a thread.
#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    sync: bool,
    /// What the common counter said before the write began and after it had returned.
    begun: u64,
    done: u64,
}

/// What one thread knows about its own writes: those from number `acknowledged.len()` on failed.
struct Written {
    thread: usize,
    attempted: usize,
    acknowledged: Vec<Acknowledged>,
}

/// Makes the numbered batches of one thread: two keys that both hold the number.
struct Batches {
    thread: usize,
    random: Random,
    attempted: usize,
}

impl Batches {
    fn next(&mut self) -> (WriteBatch, bool) {
        let (thread, number) = (self.thread, self.attempted);
        self.attempted += 1;
        let sync = self.random.percent(50);
        let mut value = (number as u64).to_le_bytes().to_vec();
        value.resize(8 + self.random.below(1500), thread as u8);
        let mut batch = WriteBatch::new();
        batch.put(format!("a-{thread}"), &value).put(format!("z-{thread}-{}", number % 50), &value);
        (batch, sync)
    }
}

fn durability(sync: bool) -> Durability {
    if sync { Durability::Sync } else { Durability::Buffered }
}

/// Writes one batch after the other until one fails.
fn write_until_failure(db: &Database, mut batches: Batches, counter: &AtomicU64) -> Written {
    let mut acknowledged = Vec::new();
    while batches.attempted < 2000 {
        let (batch, sync) = batches.next();
        let begun = counter.fetch_add(1, Ordering::SeqCst);
        if db.write_with(&batch, &with(durability(sync))).is_err() {
            break;
        }
        let done = counter.fetch_add(1, Ordering::SeqCst);
        acknowledged.push(Acknowledged { sync, begun, done });
    }
    Written { thread: batches.thread, attempted: batches.attempted, acknowledged }
}

/// The same with up to `window` writes in flight behind futures.
fn write_ahead_until_failure(
    db: &Database,
    mut batches: Batches,
    counter: &AtomicU64,
    window: usize,
) -> Written {
    let mut acknowledged = Vec::new();
    let mut in_flight = VecDeque::new();
    while batches.attempted < 2000 || !in_flight.is_empty() {
        if batches.attempted < 2000 && in_flight.len() < window {
            let (batch, sync) = batches.next();
            let begun = counter.fetch_add(1, Ordering::SeqCst);
            in_flight.push_back((
                sync,
                begun,
                db.write_async_with(&batch, &with(durability(sync))),
            ));
            continue;
        }
        let Some((sync, begun, write)) = in_flight.pop_front() else { break };
        if write.wait().is_err() {
            break;
        }
        let done = counter.fetch_add(1, Ordering::SeqCst);
        acknowledged.push(Acknowledged { sync, begun, done });
    }
    // A later write must not succeed where an earlier one failed: they share one log.
    for (_, _, write) in in_flight {
        assert!(write.wait().is_err(), "thread {}", batches.thread);
    }
    Written { thread: batches.thread, attempted: batches.attempted, acknowledged }
}

/// How many writes of the thread the database holds. Panics if they are not exactly its first ones.
fn recovered_count(db: &Database, thread: usize, attempted: usize) -> usize {
    let newest = db.get(format!("a-{thread}")).unwrap();
    let number_in = |value: &[u8]| u64::from_le_bytes(value[..8].try_into().unwrap());
    let count = newest.map_or(0, |value| number_in(&value) + 1);
    assert!(count as usize <= attempted, "thread {thread} never wrote number {count}");
    for slot in 0..50 {
        let expected = (0..count).rev().find(|number| number % 50 == slot);
        let found = db.get(format!("z-{thread}-{slot}")).unwrap().map(|value| number_in(&value));
        assert_eq!(found, expected, "slot {slot} of thread {thread} after {count} writes");
    }
    count as usize
}

fn verify(db: &Database, all: &[Written], plan: CrashPlan) {
    let killed = plan == CrashPlan::ProcessKill;
    let syncs = all.iter().flat_map(|written| &written.acknowledged).filter(|write| write.sync);
    let last_sync_begun = syncs.map(|write| write.begun).max();
    for written in all {
        let Written { thread, attempted, acknowledged } = written;
        let count = recovered_count(db, *thread, *attempted);
        for (number, write) in acknowledged.iter().enumerate() {
            // What was acknowledged before a durable write began comes before it in the log.
            let precedes_sync = last_sync_begun.is_some_and(|begun| write.done < begun);
            if killed || write.sync || precedes_sync {
                assert!(number < count, "write {number} of thread {thread} is lost: {write:?}");
            }
        }
    }
}

fn crash_while_writing(seed: u64, options: &Options) {
    let mut random = Random::new(seed);
    let sim = machine(seed);
    let db = open(&sim, options.clone()).unwrap();
    let threads = 3 + random.below(6);
    sim.cut_power_at(sim.op_count() + random.below(1500) as u64);
    let counter = Arc::new(AtomicU64::new(0));
    let all: Vec<Written> = std::thread::scope(|scope| {
        let writer = |thread| {
            let (db, counter) = (&db, &counter);
            let random = Random::new(seed ^ thread as u64);
            let batches = Batches { thread, random, attempted: 0 };
            scope.spawn(move || match thread % 3 {
                2 => write_ahead_until_failure(db, batches, counter, 1 << (seed % 8)),
                _ => write_until_failure(db, batches, counter),
            })
        };
        let writers: Vec<_> = (0..threads).map(writer).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let plan = match random.below(4) {
        0 => CrashPlan::DropUnsynced,
        1..=2 => CrashPlan::Random(random.next()),
        _ => CrashPlan::ProcessKill,
    };
    let after = sim.crash(&plan);
    drop(db);
    println!("seed {seed}: {threads} threads, {plan:?}");
    let found = describe(&after);
    let reopened = open(&after, options.clone());
    let db = reopened.unwrap_or_else(|error| panic!("cannot open: {error}{found}"));
    verify(&db, &all, plan);
    db.put("goes", "on").unwrap();
    db.close().unwrap();
    let db = open(&after, options.clone()).unwrap();
    verify(&db, &all, plan);
}

#[test]
fn each_thread_finds_a_prefix_of_its_writes_with_all_durable_ones() {
    let seed = seed(201);
    for round in 0..budget(120) as u64 {
        crash_while_writing(seed.wrapping_add(round << 20), &small_options());
    }
}

#[test]
fn a_single_lane_and_large_memtables_keep_the_same_promises() {
    let seed = seed(202);
    let options = small_options().memtable_bytes(4 << 20).log_frames_in_flight(1);
    for round in 0..budget(60) as u64 {
        crash_while_writing(seed.wrapping_add(round << 20), &options);
    }
}
