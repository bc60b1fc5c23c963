//! Small buffered writes are put into their places while nobody looks: whoever does look, in whatever way, must not notice.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustlite_engine::{Database, Durability, Keyspace, Options, WriteBatch};
use rustlite_io::SimFileSystem;

use crate::support::{Deadline, Files, Random, Table, dump, machine, open, pause, seed, with};

/// Enough records that searches are worth interrupting.
const RECORDS: usize = 6_000;

/// More than are made at once after a reader.
const BURST: usize = 140;

fn key_of(number: u64) -> Vec<u8> {
    // Distinct, in no order, and the same for the same number.
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes()
}

/// The last puts, deletes and merges before somebody looks.
struct Burst {
    db: Database,
    random: Random,
    model: Table,
    last: Vec<Vec<u8>>,
}

impl Burst {
    fn new(db: Database, seed: u64) -> Self {
        let mut burst =
            Self { db, random: Random::new(seed), model: Table::new(), last: Vec::new() };
        for number in 0..RECORDS as u64 {
            burst.put(key_of(number), number);
        }
        burst
    }

    fn put(&mut self, key: Vec<u8>, number: u64) {
        let value = number.to_le_bytes();
        self.db.put_with(&key, value, &with(Durability::Buffered)).unwrap();
        self.model.insert(key.clone(), value.to_vec());
        self.last.push(key);
    }

    /// Writes so much that the last of it waits, some keys several times.
    fn write(&mut self) {
        self.last.clear();
        let buffered = with(Durability::Buffered);
        for _ in 0..BURST + self.random.below(20) {
            let number = self.random.below(2 * RECORDS) as u64;
            let key = match self.last.last() {
                Some(again) if self.random.percent(10) => again.clone(),
                _ => key_of(number),
            };
            if self.random.percent(10) {
                let (other, number) =
                    (key_of(self.random.below(RECORDS) as u64), self.random.next());
                let mut batch = WriteBatch::new();
                batch.put(&other, number.to_le_bytes()).delete(&key);
                self.db.write_with(&batch, &buffered).unwrap();
                self.model.insert(other.clone(), number.to_le_bytes().to_vec());
                self.model.remove(&key);
                self.last.extend([other, key]);
            } else if self.random.percent(20) {
                self.db.delete_with(&key, &buffered).unwrap();
                self.model.remove(&key);
                self.last.push(key);
            } else {
                let number = self.random.next();
                self.put(key, number);
            }
        }
    }

    fn expect(&self, key: &[u8], found: Option<&[u8]>, how: &str) {
        assert_eq!(found, self.model.get(key).map(Vec::as_slice), "{how} of {key:?}");
    }

    /// Looks at the last keys in one of many ways.
    fn look(&self, way: usize) {
        let last = self.last.iter().rev().take(12);
        let db: &Keyspace = &self.db;
        match way {
            0 => last.for_each(|key| self.expect(key, db.get(key).unwrap().as_deref(), "get")),
            1 => last.for_each(|key| {
                assert_eq!(db.contains_key(key).unwrap(), self.model.contains_key(key));
            }),
            2 => {
                let keys: Vec<_> = last.collect();
                for (key, found) in keys.iter().zip(db.multi_get(&keys).unwrap()) {
                    self.expect(key, found.as_deref(), "multi_get");
                }
            }
            3 => assert_eq!(dump(db).unwrap(), self.model, "a scan"),
            4 => {
                let snapshot = self.db.snapshot().unwrap();
                last.for_each(|key| {
                    self.expect(key, snapshot.get(key).unwrap().as_deref(), "get in a snapshot");
                });
            }
            5 => {
                let mut transaction = self.db.begin().unwrap();
                for key in last {
                    let found = transaction.get_for_update(key).unwrap();
                    self.expect(key, found.as_deref(), "get for update");
                }
            }
            6 => {
                let (key, mut cursor) = (self.last.last().unwrap(), db.cursor().unwrap());
                cursor.seek(key).unwrap();
                let next = self.model.range(key.clone()..).next();
                assert_eq!(cursor.valid().then(|| cursor.key()), next.map(|(key, _)| &key[..]));
            }
            7 => {
                // A batch of several records has its own way in.
                let mut batch = WriteBatch::new();
                batch.put(b"~a", b"1").delete(b"~a");
                self.db.write_with(&batch, &with(Durability::Buffered)).unwrap();
                last.for_each(|key| self.expect(key, db.get(key).unwrap().as_deref(), "get"));
            }
            _ => {
                self.db.flush().unwrap();
                last.for_each(|key| self.expect(key, db.get(key).unwrap().as_deref(), "get"));
            }
        }
    }
}

#[test]
fn whoever_looks_next_finds_the_last_puts_in_whatever_way() {
    let mut burst = Burst::new(
        Database::open_on(SimFileSystem::volatile(), "/db", Options::new()).unwrap(),
        seed(71),
    );
    for round in 0..90 {
        burst.write();
        burst.look(round % 9);
        if round % 9 == 8 {
            // The memtable is empty after a flush, and small ones make no use of it.
            for number in 0..RECORDS as u64 / 2 {
                burst.put(key_of(number), number);
            }
        }
    }
}

#[test]
fn what_one_thread_was_told_another_finds() {
    let db = Database::open_on(SimFileSystem::volatile(), "/db", Options::new()).unwrap();
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let patience = Deadline::after(Duration::from_secs(2));
    let looks = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (db, acknowledged, stop, looks) = (&db, &acknowledged, &stop, &looks);
            let mut random = Random::new(seed(72) ^ reader);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Long enough for puts to be left for later again.
                    pause(Duration::from_micros(random.below(600) as u64));
                    let last = acknowledged.load(Ordering::SeqCst);
                    let first = last.saturating_sub(10).max(1);
                    if random.percent(50) {
                        for number in first..=last {
                            let found = db.get(key_of(number)).unwrap();
                            assert_eq!(found.as_deref(), Some(&number.to_le_bytes()[..]));
                        }
                    } else {
                        let snapshot = db.snapshot().unwrap();
                        for number in first..=last {
                            let found = snapshot.get(key_of(number)).unwrap();
                            assert_eq!(found.as_deref(), Some(&number.to_le_bytes()[..]));
                        }
                    }
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 1_u64.. {
            if patience.has_passed() {
                break;
            }
            let value = number.to_le_bytes();
            db.put_with(key_of(number), value, &with(Durability::Buffered)).unwrap();
            acknowledged.store(number, Ordering::SeqCst);
            if number % 100_000 == 0 {
                db.flush().unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(looks.load(Ordering::Relaxed) > 10, "the readers hardly looked");
    let written = acknowledged.load(Ordering::SeqCst);
    assert_eq!(dump(&db).unwrap().len() as u64, written);
}

#[test]
fn puts_that_nobody_looked_for_survive_closing_and_kills() {
    for killed in [false, true] {
        let sim = machine(seed(73));
        let db = open(&sim, Options::new()).unwrap();
        let mut burst = Burst::new(db, seed(73));
        burst.write();
        // Nothing reads here.
        burst.db.put_with(b"last", b"of all", &with(Durability::Sync)).unwrap();
        burst.write();
        burst.db.sync().unwrap();
        let mut expected = std::mem::take(&mut burst.model);
        expected.insert(b"last".to_vec(), b"of all".to_vec());
        let sim = if killed { Files::of(&sim).boot() } else { sim };
        drop(burst);
        let reopened = open(&sim, Options::new()).unwrap();
        assert_eq!(dump(&reopened).unwrap(), expected, "killed: {killed}");
    }
}
