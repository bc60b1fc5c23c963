//! The YCSB core workloads A to F: operation mixes, records and the choice of the next operation;
//! and workloads of a single operation, which YCSB doesn't have.
//!
//! What follows YCSB to the letter: the mixes; the request distributions with constant 0.99; keys
//! `user` + FNV hash of the record number (see [`keys`](crate::keys)); scan lengths uniform in 1 to 100; new records appended
//! to the number sequence, and chosen by readers only once they are acknowledged.
//!
//! What YCSB leaves to the binding: a record (10 fields of 100 bytes) is one value of
//! `--value-size` bytes, and an update writes the whole of it. YCSB's default of replacing a single
//! field would make key-value engines read the record first and would thus measure their reads;
//! workload F measures exactly that, and says so.

use std::time::Duration;

use crate::distribution::{Latest, ScrambledZipfian};
use crate::error::{Error, Result};
use crate::rng::Rng;
use serde::{Deserialize, Serialize};

/// Longest scan, in records; that of workload E may be as short as one.
pub const SCAN_RECORDS_MAX: u64 = 100;

/// Records of one [`Operation::ReadMany`].
pub const READ_MANY_RECORDS: usize = 32;

/// Records of one [`Operation::Transaction`].
pub const TRANSACTION_RECORDS: usize = 2;

/// Records among which [`Distribution::Hot`] chooses.
pub const HOT_RECORDS: u64 = 100;

/// Of the records that [`Operation::Turnover`] adds, as many are there at a time as the loaded ones
/// divided by this.
pub const TURNOVER_SHARE: u64 = 10;

/// How long records of [`Operation::InsertExpiring`] are there.
pub const LIFETIME: Duration = Duration::from_secs(2);

/// Bytes at the start of a record that name it, so that a wrong answer is told from a right one.
const STAMP_BYTES: usize = 8;

/// Random bytes that records are cut from. Larger than the window of any compressor in use here, so
/// that records don't compress against each other.
const POOL_BYTES: usize = 4 << 20;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Reads one record.
    Read,
    /// Replaces one record.
    Update,
    /// Adds a new record.
    Insert,
    /// Reads some records in key order: how many, the workload says.
    Scan,
    /// Reads one record, then replaces it; the latency covers both.
    ReadModifyWrite,
    /// Asks for one record that isn't there.
    ReadAbsent,
    /// Reads [`READ_MANY_RECORDS`] records in one call.
    ReadMany,
    /// Reads all records in key order.
    ScanForward,
    /// Reads all records in descending key order.
    ScanBackward,
    /// Adds a new record without waiting for it, if the engine can have several on their way.
    InsertInFlight,
    /// Reads [`TRANSACTION_RECORDS`] records and replaces them, in one transaction; the latency covers
    /// attempts that failed.
    Transaction,
    /// The same, without waiting for durability if the engine can have several commits on their way.
    TransactionInFlight,
    /// Adds a record that nobody asks for, and deletes one of those that were added so before: see
    /// [`TURNOVER_SHARE`].
    Turnover,
    /// Adds a record that nobody asks for and that is gone after [`LIFETIME`].
    InsertExpiring,
}

impl Operation {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 14] = [
        Self::Read,
        Self::Update,
        Self::Insert,
        Self::Scan,
        Self::ReadModifyWrite,
        Self::ReadAbsent,
        Self::ReadMany,
        Self::ScanForward,
        Self::ScanBackward,
        Self::InsertInFlight,
        Self::Transaction,
        Self::TransactionInFlight,
        Self::Turnover,
        Self::InsertExpiring,
    ];

    /// The name in lists.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Update => "update",
            Self::Insert => "insert",
            Self::Scan => "scan",
            Self::ReadModifyWrite => "read-modify-write",
            Self::ReadAbsent => "read of an absent key",
            Self::ReadMany => "read of 32 keys",
            Self::ScanForward => "full scan",
            Self::ScanBackward => "full scan backwards",
            Self::InsertInFlight => "insert in flight",
            Self::Transaction => "transaction",
            Self::TransactionInFlight => "transaction in flight",
            Self::Turnover => "insert and delete",
            Self::InsertExpiring => "insert that expires",
        }
    }

    /// Whether it changes the store.
    #[must_use]
    pub fn writes(self) -> bool {
        self.records_written() > 0
    }

    /// Records that it adds or replaces. That it deletes others is not counted.
    #[must_use]
    pub fn records_written(self) -> u64 {
        match self {
            Self::Update
            | Self::Insert
            | Self::ReadModifyWrite
            | Self::InsertInFlight
            | Self::Turnover
            | Self::InsertExpiring => 1,
            Self::Transaction | Self::TransactionInFlight => TRANSACTION_RECORDS as u64,
            _ => 0,
        }
    }

    /// Whether it is a transaction.
    #[must_use]
    pub fn transacts(self) -> bool {
        matches!(self, Self::Transaction | Self::TransactionInFlight)
    }

    /// Whether it may be under way when the next one begins.
    #[must_use]
    pub fn stays_in_flight(self) -> bool {
        matches!(self, Self::InsertInFlight | Self::TransactionInFlight)
    }
}

/// Which records are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// A few records often, spread over the key space (constant 0.99, scrambled).
    Zipfian,
    /// The newest records most often.
    Latest,
    /// All records alike.
    Uniform,
    /// The first [`HOT_RECORDS`] records alike, the others never.
    Hot,
}

/// One workload: how often each operation occurs, and on which records.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// `a` to `f`, or a name of [`SINGLES`].
    pub name: &'static str,
    /// What it stands for, in YCSB's words.
    pub title: &'static str,
    /// Operations with their shares; the shares add up to 1.
    pub mix: &'static [(Operation, f64)],
    /// The request distribution.
    pub distribution: Distribution,
    /// Fewest records of a scan; the most is [`SCAN_RECORDS_MAX`].
    pub scan_records_min: u64,
}

/// The core workloads.
pub const WORKLOADS: [Workload; 6] = [
    Workload {
        name: "a",
        title: "update heavy",
        mix: &[(Operation::Read, 0.5), (Operation::Update, 0.5)],
        distribution: Distribution::Zipfian,
        scan_records_min: 1,
    },
    Workload {
        name: "b",
        title: "read mostly",
        mix: &[(Operation::Read, 0.95), (Operation::Update, 0.05)],
        distribution: Distribution::Zipfian,
        scan_records_min: 1,
    },
    Workload {
        name: "c",
        title: "read only",
        mix: &[(Operation::Read, 1.0)],
        distribution: Distribution::Zipfian,
        scan_records_min: 1,
    },
    Workload {
        name: "d",
        title: "read latest",
        mix: &[(Operation::Read, 0.95), (Operation::Insert, 0.05)],
        distribution: Distribution::Latest,
        scan_records_min: 1,
    },
    Workload {
        name: "e",
        title: "short ranges",
        mix: &[(Operation::Scan, 0.95), (Operation::Insert, 0.05)],
        distribution: Distribution::Zipfian,
        scan_records_min: 1,
    },
    Workload {
        name: "f",
        title: "read-modify-write",
        mix: &[(Operation::Read, 0.5), (Operation::ReadModifyWrite, 0.5)],
        distribution: Distribution::Zipfian,
        scan_records_min: 1,
    },
];

/// A workload of one operation on uniformly chosen records.
const fn single(
    name: &'static str,
    title: &'static str,
    mix: &'static [(Operation, f64)],
) -> Workload {
    let (distribution, scan_records_min) = (Distribution::Uniform, SCAN_RECORDS_MAX);
    Workload { name, title, mix, distribution, scan_records_min }
}

/// One operation alone each, and mixes for long runs: not YCSB's, but what tells which part of an
/// engine is fast, and whether it stays so.
pub const SINGLES: [Workload; 15] = [
    single("get", "random reads", &[(Operation::Read, 1.0)]),
    single("get-absent", "reads of absent keys", &[(Operation::ReadAbsent, 1.0)]),
    single("multi-get", "reads of 32 keys at once", &[(Operation::ReadMany, 1.0)]),
    single("scan-100", "scans of 100 records", &[(Operation::Scan, 1.0)]),
    single("scan-forward", "scans of everything", &[(Operation::ScanForward, 1.0)]),
    single("scan-backward", "the same from the end", &[(Operation::ScanBackward, 1.0)]),
    single("put", "inserts of new records", &[(Operation::Insert, 1.0)]),
    single("put-in-flight", "inserts, many in flight", &[(Operation::InsertInFlight, 1.0)]),
    single("overwrite", "updates of random records", &[(Operation::Update, 1.0)]),
    single("transactions", "2 reads and 2 writes as one", &[(Operation::Transaction, 1.0)]),
    Workload {
        distribution: Distribution::Hot,
        ..single("transactions-hot", "the same of 100 records", &[(Operation::Transaction, 1.0)])
    },
    single(
        "transactions-in-flight",
        "the same of all, many in flight",
        &[(Operation::TransactionInFlight, 1.0)],
    ),
    // What goes on for hours in a server: see the long runs of `rustlite-bench`.
    Workload {
        distribution: Distribution::Zipfian,
        ..single(
            "mixed",
            "A with a fifth of inserts and deletes",
            &[(Operation::Read, 0.4), (Operation::Update, 0.4), (Operation::Turnover, 0.2)],
        )
    },
    single(
        "scan-deleting",
        "scans of 100 records among deleted ones",
        &[(Operation::Scan, 0.5), (Operation::Turnover, 0.5)],
    ),
    single(
        "scan-expiring",
        "scans of 100 records among expired ones",
        &[(Operation::Scan, 0.5), (Operation::InsertExpiring, 0.5)],
    ),
];

impl Workload {
    /// The workload of that name, in either case.
    ///
    /// # Errors
    /// [`Error::Usage`], listing the names there are.
    pub fn named(name: &str) -> Result<&'static Self> {
        let mut all = WORKLOADS.iter().chain(&SINGLES);
        all.find(|workload| workload.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
            Error::Usage(format!(
                "there is no workload {name:?}; the core workloads are a, b, c, d, e and f \
                 (see `ycsb list`)"
            ))
        })
    }

    /// Whether any of its operations changes the store.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.mix.iter().any(|(operation, _)| operation.writes())
    }

    /// Whether any of its operations is a transaction.
    #[must_use]
    pub fn transacts(&self) -> bool {
        self.mix.iter().any(|(operation, _)| operation.transacts())
    }

    /// Share of inserts.
    #[must_use]
    pub fn insert_share(&self) -> f64 {
        let is_insert = |operation: &Operation| {
            matches!(operation, Operation::Insert | Operation::InsertInFlight)
        };
        let inserts = self.mix.iter().filter(|(operation, _)| is_insert(operation));
        inserts.map(|(_, share)| share).sum()
    }

    /// Draws the next operation.
    pub fn choose(&self, rng: &mut Rng) -> Operation {
        let mut point = rng.next_f64();
        for (operation, share) in self.mix {
            if point < *share {
                return *operation;
            }
            point -= share;
        }
        // The shares add up to one; rounding may leave a hair, which belongs to the last.
        self.mix.last().expect("a workload has operations").0
    }
}

/// Draws the record that an operation is about.
#[derive(Debug, Clone)]
pub enum KeyChooser {
    /// Scrambled zipfian over the loaded records and those a run is expected to add.
    Zipfian(ScrambledZipfian),
    /// Newest most often.
    Latest(Latest),
    /// All alike.
    Uniform,
    /// A few alike.
    Hot,
}

impl KeyChooser {
    /// A chooser for a store of `records` records into which about `inserts` more are going to be
    /// inserted.
    #[must_use]
    pub fn new(distribution: Distribution, records: u64, inserts: u64) -> Self {
        match distribution {
            // YCSB reserves twice the expected number, and draws again whatever isn't there yet.
            Distribution::Zipfian => Self::Zipfian(ScrambledZipfian::new(
                records.saturating_add(inserts.saturating_mul(2)),
            )),
            Distribution::Latest => Self::Latest(Latest::new(records)),
            Distribution::Uniform => Self::Uniform,
            Distribution::Hot => Self::Hot,
        }
    }

    /// The next record number, below `acknowledged`, which must not be 0.
    pub fn draw(&mut self, rng: &mut Rng, acknowledged: u64) -> u64 {
        match self {
            Self::Zipfian(scrambled) => loop {
                let drawn = scrambled.draw(rng);
                if drawn < acknowledged {
                    return drawn;
                }
            },
            Self::Latest(latest) => latest.draw(rng, acknowledged),
            Self::Uniform => rng.below(acknowledged),
            Self::Hot => rng.below(acknowledged.min(HOT_RECORDS)),
        }
    }
}

/// Makes and checks the content of records.
#[derive(Debug)]
pub struct Records {
    pool: Vec<u8>,
    value_size: usize,
}

impl Records {
    /// Records of `value_size` bytes, at least one, with incompressible content.
    #[must_use]
    pub fn new(value_size: usize, seed: u64) -> Self {
        let mut pool = vec![0; POOL_BYTES + value_size];
        Rng::new(seed, u64::MAX).fill(&mut pool);
        Self { pool, value_size }
    }

    /// Writes a new version of `record` into `value`.
    pub fn write(&self, value: &mut Vec<u8>, record: u64, rng: &mut Rng) {
        let start = rng.below((self.pool.len() - self.value_size) as u64) as usize;
        value.clear();
        value.extend_from_slice(&self.pool[start..start + self.value_size]);
        let stamp = record.to_le_bytes();
        let stamped = self.value_size.min(STAMP_BYTES);
        value[..stamped].copy_from_slice(&stamp[..stamped]);
    }

    /// Whether `value` is some version of `record`, as far as its length and its stamp tell.
    #[must_use]
    pub fn matches(&self, value: &[u8], record: u64) -> bool {
        let stamped = self.value_size.min(STAMP_BYTES);
        value.len() == self.value_size && value[..stamped] == record.to_le_bytes()[..stamped]
    }

    /// The record number in `value`'s stamp, if records are long enough to hold all of it.
    #[must_use]
    pub fn stamp(&self, value: &[u8]) -> Option<u64> {
        value.first_chunk::<STAMP_BYTES>().map(|stamp| u64::from_le_bytes(*stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_those_of_ycsb_and_draws_follow_them() {
        const DRAWS: u32 = 200_000;
        for workload in WORKLOADS.iter().chain(&SINGLES) {
            let total: f64 = workload.mix.iter().map(|(_, share)| share).sum();
            assert!((total - 1.0).abs() < 1e-12, "workload {}", workload.name);
            let mut rng = Rng::new(11, 0);
            let mut seen = [0u32; Operation::ALL.len()];
            for _ in 0..DRAWS {
                seen[workload.choose(&mut rng) as usize] += 1;
            }
            for operation in Operation::ALL {
                let share = workload.mix.iter().find(|(other, _)| *other == operation);
                let expected = share.map_or(0.0, |(_, share)| *share);
                let observed = f64::from(seen[operation as usize]) / f64::from(DRAWS);
                assert!((observed - expected).abs() < 0.005, "{}: {operation:?}", workload.name);
            }
        }
    }

    #[test]
    fn choosers_never_leave_what_is_acknowledged() {
        let mut rng = Rng::new(5, 0);
        for distribution in [Distribution::Zipfian, Distribution::Latest, Distribution::Uniform] {
            let mut chooser = KeyChooser::new(distribution, 100, 50);
            for step in 0..20_000 {
                let acknowledged = 100 + step / 200;
                assert!(chooser.draw(&mut rng, acknowledged) < acknowledged, "{distribution:?}");
            }
        }
    }

    #[test]
    fn inserted_records_are_asked_for_too() {
        let mut rng = Rng::new(6, 0);
        for distribution in [Distribution::Zipfian, Distribution::Latest, Distribution::Uniform] {
            let mut chooser = KeyChooser::new(distribution, 100, 50);
            let newer = (0..20_000).filter(|_| chooser.draw(&mut rng, 150) >= 100).count();
            assert!(newer > 1000, "{distribution:?}: {newer}");
        }
    }

    #[test]
    fn records_match_themselves_and_no_other() {
        let mut rng = Rng::new(1, 1);
        let mut value = Vec::new();
        for size in [1, 7, 8, 9, 1000] {
            let records = Records::new(size, 3);
            records.write(&mut value, 77, &mut rng);
            assert_eq!(value.len(), size);
            assert!(records.matches(&value, 77), "size {size}");
            assert!(!records.matches(&value, 78), "size {size}");
            assert!(!records.matches(&value[1..], 77), "size {size}");
        }
        let records = Records::new(1000, 3);
        records.write(&mut value, 77, &mut rng);
        let first = value.clone();
        records.write(&mut value, 77, &mut rng);
        assert_ne!(first, value, "an update must change the record");
    }

    #[test]
    fn unknown_workload_is_refused_with_the_list() {
        assert_eq!(Workload::named("F").unwrap().name, "f");
        let error = Workload::named("g").unwrap_err();
        assert!(error.to_string().contains("a, b, c, d, e and f"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
