//! Everything at once for a while: batches are seen whole, reads never go back in time, and a thread sees its own writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustlite_engine::{Database, Durability, Keyspace, Result, WriteBatch};
use rustlite_io::{FileSystem, SimFileSystem};

use crate::support::{Deadline, Random, pause, seed, small_options, with};

/// Groups of keys that are always written together.
const GROUPS: usize = 24;

/// Keys of a group, spread over the key space and two keyspaces.
const MEMBERS: usize = 5;

const WRITERS: usize = 3;

struct Arena {
    db: Database,
    other: Keyspace,
    stop: AtomicBool,
    /// Per group: a number that every later read must reach. Raised after a commit has returned.
    acknowledged: Vec<AtomicU64>,
    /// Reads and writes done, to show that the test tested something.
    reads: AtomicU64,
    writes: AtomicU64,
}

fn member_key(group: usize, member: usize) -> String {
    format!("{member}-group-{group:03}")
}

fn number_of(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

impl Arena {
    fn run(&self, mut work: impl FnMut() -> Result<()>) {
        while !self.stop.load(Ordering::Relaxed) {
            if let Err(error) = work() {
                self.stop.store(true, Ordering::Relaxed);
                panic!("{error:?}");
            }
        }
    }

    fn space(&self, member: usize) -> &Keyspace {
        if member == MEMBERS - 1 { &self.other } else { &self.db }
    }

    /// Writes the groups that belong to this writer, and reads each back at once.
    fn write(&self, writer: usize, seed: u64) {
        let mut random = Random::new(seed ^ writer as u64);
        let mut number = 0_u64;
        self.run(|| {
            number += 1;
            let group = writer + WRITERS * random.below(GROUPS / WRITERS);
            let mut value = number.to_le_bytes().to_vec();
            value.resize(8 + random.below(400), 1);
            let mut batch = WriteBatch::new();
            // The whole group is deleted first, in ways that have to be undone by the puts of the same batch.
            if random.percent(20) {
                for member in 0..MEMBERS {
                    let key = member_key(group, member);
                    let end = format!("{key}~");
                    batch.delete_range_in(self.space(member), &key, &end);
                }
            }
            for member in 0..MEMBERS {
                batch.put_in(self.space(member), member_key(group, member), &value);
            }
            let durability =
                if random.percent(30) { Durability::Sync } else { Durability::Buffered };
            self.db.write_with(&batch, &with(durability))?;
            self.acknowledged[group].fetch_max(number, Ordering::SeqCst);
            let member = random.below(MEMBERS);
            let own = self.space(member).get(member_key(group, member))?;
            assert_eq!(own.as_deref(), Some(value.as_slice()), "a thread's own write");
            self.writes.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
    }

    /// Single reads reach what was acknowledged before, and never go back.
    fn read(&self, seed: u64) {
        let mut random = Random::new(seed);
        let mut seen = [0; GROUPS];
        self.run(|| {
            let (group, member) = (random.below(GROUPS), random.below(MEMBERS));
            let floor = self.acknowledged[group].load(Ordering::SeqCst);
            let found = self.space(member).get_pinned(member_key(group, member))?;
            let number = found.as_deref().map_or(0, number_of);
            assert!(number >= floor, "group {group}: {number} after {floor} was acknowledged");
            assert!(number >= seen[group], "group {group}: {number} after {}", seen[group]);
            seen[group] = number;
            self.reads.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
    }

    /// In a snapshot every member of a group has the same value, now and later, by point reads and by scans.
    fn take_snapshots(&self, seed: u64) {
        let mut random = Random::new(seed);
        self.run(|| {
            let floors: Vec<u64> =
                self.acknowledged.iter().map(|number| number.load(Ordering::SeqCst)).collect();
            let snapshot = self.db.snapshot()?;
            let other = snapshot.keyspace(&self.other);
            let mut first: Option<Vec<u64>> = None;
            for round in 0..3 {
                let mut numbers = vec![Vec::new(); GROUPS];
                for item in snapshot.iter().chain(other.iter()) {
                    let (key, value) = item?;
                    let group: usize = String::from_utf8_lossy(&key[8..11]).parse().unwrap();
                    numbers[group].push(number_of(&value));
                }
                let group_number = |numbers: &Vec<u64>| {
                    let number = numbers.first().copied().unwrap_or(0);
                    let whole = numbers.is_empty() || numbers.len() == MEMBERS;
                    assert!(whole, "{} members in round {round}", numbers.len());
                    assert!(numbers.iter().all(|&one| one == number), "a torn batch: {numbers:?}");
                    number
                };
                let now: Vec<u64> = numbers.iter().map(group_number).collect();
                let is_old = now.iter().zip(&floors).any(|(number, floor)| number < floor);
                assert!(!is_old, "a snapshot misses what was acknowledged before it");
                assert_eq!(*first.get_or_insert_with(|| now.clone()), now, "a snapshot changed");
                let group = random.below(GROUPS);
                let got = snapshot.get(member_key(group, 0))?;
                assert_eq!(got.map_or(0, |value| number_of(&value)), now[group], "get and scan");
                pause(Duration::from_micros(200));
            }
            self.reads.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
    }

    /// An iterator sees one moment too, from both ends.
    fn iterate(&self) {
        self.run(|| {
            let forward: Vec<_> = self.db.iter()?.collect::<Result<_>>()?;
            let per_member = MEMBERS - 1;
            let mut numbers = std::collections::BTreeMap::<Vec<u8>, Vec<u64>>::new();
            for (key, value) in &forward {
                numbers.entry(key[1..].to_vec()).or_default().push(number_of(value));
            }
            for (group, numbers) in numbers {
                let whole = numbers.len() == per_member && numbers.iter().all(|n| *n == numbers[0]);
                assert!(whole, "{}: {numbers:?}", String::from_utf8_lossy(&group));
            }
            let mut backward = self.db.cursor()?;
            backward.seek_to_last()?;
            let mut count = 0;
            let mut last: Option<Vec<u8>> = None;
            while backward.valid() {
                let descends = last.as_ref().is_none_or(|last| last.as_slice() > backward.key());
                assert!(descends, "a cursor going back went forward");
                last = Some(backward.key().to_vec());
                count += 1;
                backward.prev()?;
            }
            assert!(count >= forward.len(), "keys are never gone for good");
            self.reads.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
    }

    fn maintain(&self, seed: u64) {
        let mut random = Random::new(seed);
        self.run(|| {
            match random.below(6) {
                0 => self.db.flush()?,
                1 => self.db.compact()?,
                2 => self.other.compact()?,
                3 => self.db.compact_range("1".."3")?,
                4 => self.db.sync()?,
                _ => drop(self.db.stats()?),
            }
            pause(Duration::from_millis(1));
            Ok(())
        });
    }

    /// Keyspaces that come and go beside everything else.
    fn churn_keyspaces(&self) {
        let mut round = 0_u32;
        self.run(|| {
            round += 1;
            let name = format!("short-lived-{}", round % 3);
            let space = self.db.keyspace(&name)?;
            for number in 0..20 {
                let key = format!("{number}");
                space.put_with(&key, round.to_le_bytes(), &with(Durability::Buffered))?;
            }
            assert_eq!(space.iter()?.count(), 20);
            self.db.drop_keyspace(&name)?;
            assert!(space.get("0").is_err(), "a dropped keyspace is read");
            pause(Duration::from_millis(3));
            Ok(())
        });
    }
}

fn everything_at_once(file_system: Arc<dyn FileSystem>, seed: u64, millis: u64) {
    let options = small_options().background_threads(2);
    let db = Database::open_on(Arc::clone(&file_system), "/db", options.clone()).unwrap();
    let arena = Arena {
        other: db.keyspace("other").unwrap(),
        db,
        stop: AtomicBool::new(false),
        acknowledged: (0..GROUPS).map(|_| AtomicU64::new(0)).collect(),
        reads: AtomicU64::new(0),
        writes: AtomicU64::new(0),
    };
    let shared = &arena;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || shared.write(writer, seed));
        }
        scope.spawn(move || shared.read(seed + 100));
        scope.spawn(move || shared.read(seed + 101));
        scope.spawn(move || shared.take_snapshots(seed + 200));
        scope.spawn(move || shared.iterate());
        scope.spawn(move || shared.maintain(seed + 300));
        scope.spawn(move || shared.churn_keyspaces());
        let end = Deadline::after(Duration::from_millis(millis));
        while !end.has_passed() && !shared.stop.load(Ordering::Relaxed) {
            pause(Duration::from_millis(20));
        }
        shared.stop.store(true, Ordering::Relaxed);
    });
    let (reads, writes) = (arena.reads.into_inner(), arena.writes.into_inner());
    println!("{reads} reads, {writes} writes");
    assert!(reads > 50 && writes > 50, "{reads} reads, {writes} writes: too few to mean anything");
    arena.db.close().unwrap();
    drop((arena.db, arena.other));
    let db = Database::open_on(file_system, "/db", options).unwrap();
    for (group, number) in arena.acknowledged.iter().enumerate() {
        let found = db.get(member_key(group, 0)).unwrap().map_or(0, |value| number_of(&value));
        assert_eq!(found, number.load(Ordering::SeqCst), "group {group} after reopening");
    }
}

#[test]
fn readers_writers_snapshots_flushes_and_compactions_agree_in_the_simulator() {
    let seed = seed(601);
    everything_at_once(SimFileSystem::new(seed), seed, 2000);
}

#[test]
fn readers_writers_snapshots_flushes_and_compactions_agree_in_memory() {
    let seed = seed(602);
    everything_at_once(SimFileSystem::volatile(), seed, 2000);
}

#[test]
fn a_snapshot_taken_after_a_write_sees_it_from_any_thread() {
    let sim = SimFileSystem::volatile();
    let db = Database::open_on(sim, "/db", small_options()).unwrap();
    let shared = &db;
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            scope.spawn(move || {
                for number in 0..3000_u32 {
                    let (key, value) = (thread.to_le_bytes(), number.to_le_bytes());
                    shared.put_with(key, value, &with(Durability::Buffered)).unwrap();
                    let snapshot = shared.snapshot().unwrap();
                    assert_eq!(snapshot.get(key).unwrap().unwrap(), value);
                    let mut cursor = shared.cursor().unwrap();
                    cursor.seek(key).unwrap();
                    assert_eq!(cursor.value(), value);
                }
            });
        }
    });
}

#[test]
fn a_flush_waits_for_what_was_there_and_not_for_what_quick_writers_add() {
    let sim = SimFileSystem::new(11);
    let file_system: Arc<dyn FileSystem> = sim;
    let db = Database::open_on(file_system, "/db", small_options().memtables_max(4)).unwrap();
    let stop = AtomicBool::new(false);
    // A flush that waits for the writers' sake must fail the test, not stop it.
    let patience = Deadline::after(Duration::from_secs(20));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (db, stop, patience) = (&db, &stop, &patience);
            scope.spawn(move || {
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) || patience.has_passed() {
                        return;
                    }
                    let key = format!("{writer}-{number}");
                    db.put_with(key, vec![b'.'; 2000], &with(Durability::Buffered)).unwrap();
                }
            });
        }
        let mut waited_for: Vec<u64> = Vec::new();
        while waited_for.len() < 30 && !patience.has_passed() {
            pause(Duration::from_millis(2));
            let before = db.stats().unwrap().flushes;
            db.flush().unwrap();
            waited_for.push(db.stats().unwrap().flushes - before);
        }
        stop.store(true, Ordering::Relaxed);
        waited_for.sort_unstable();
        // All that memory has room for, one that was being flushed, and a few before this thread gets to run again: now and then it
        // has to wait long for a processor, but not every other time.
        let median = waited_for[waited_for.len() / 2];
        assert!(median < 12, "waited for {waited_for:?} flushes");
    });
}
