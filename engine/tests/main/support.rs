//! What the test modules share: seeds, a generator, options small enough that everything happens, and copies of databases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustlite_engine::{
    Database, Durability, Error, Keyspace, Options, Result, WriteBatch, WriteOptions,
};
use rustlite_io::{Clock, CrashPlan, FileSystem, SimFileSystem, SystemClock};

/// Where every simulated database lives.
pub(crate) const DIRECTORY: &str = "/db";

/// Keys and values of one keyspace.
pub(crate) type Table = BTreeMap<Vec<u8>, Vec<u8>>;

/// The seed of a random test: from the environment, or the test's own. Printed, so that a failure can be replayed.
pub(crate) fn seed(own: u64) -> u64 {
    let seed = number_from_env("RUSTLITE_TEST_SEED").unwrap_or(own);
    println!("RUSTLITE_TEST_SEED={seed}");
    seed
}

/// How many states to visit: `normal`, or `RUSTLITE_CRASH_STATES` percent of it.
pub(crate) fn budget(normal: usize) -> usize {
    let percent = number_from_env("RUSTLITE_CRASH_STATES").unwrap_or(100) as usize;
    (normal * percent).div_ceil(100)
}

pub(crate) fn number_from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// A splitmix64 generator.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number in `0..bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// What a crash leaves behind: one kind as likely as the other.
pub(crate) fn random_plan(random: &mut Random) -> CrashPlan {
    match random.below(4) {
        0 => CrashPlan::DropUnsynced,
        1 => CrashPlan::KeepAll,
        2 => CrashPlan::ProcessKill,
        _ => CrashPlan::Random(random.next()),
    }
}

/// Time that passes, for bounds on how long a test may run.
pub(crate) struct Deadline(Duration);

impl Deadline {
    pub(crate) fn after(duration: Duration) -> Self {
        Self(SystemClock.monotonic() + duration)
    }

    pub(crate) fn has_passed(&self) -> bool {
        SystemClock.monotonic() >= self.0
    }
}

pub(crate) fn pause(duration: Duration) {
    SystemClock.sleep(duration);
}

/// Everything so small that a few hundred writes rotate and recycle the log, flush, and compact several levels.
pub(crate) fn small_options() -> Options {
    Options::new()
        .memtable_bytes(64 << 10)
        .log_segment_bytes(256 << 10)
        .log_bytes_max(512 << 10)
        .table_bytes(16 << 10)
        .level_base_bytes(64 << 10)
        .level_ratio(3)
        .l0_compaction_trigger(2)
        .log_frames_in_flight(4)
        .background_threads(1)
}

pub(crate) fn with(durability: Durability) -> WriteOptions {
    WriteOptions::new().durability(durability)
}

/// An empty simulated machine with the parent directory of databases.
pub(crate) fn machine(seed: u64) -> Arc<SimFileSystem> {
    SimFileSystem::new(seed)
}

/// Opens the database of a simulated machine.
pub(crate) fn open(sim: &Arc<SimFileSystem>, options: Options) -> Result<Database> {
    let file_system: Arc<dyn FileSystem> = Arc::<SimFileSystem>::clone(sim);
    Database::open_on(file_system, DIRECTORY, options)
}

/// Everything in a keyspace, read front to back.
pub(crate) fn dump(keyspace: &Keyspace) -> Result<Table> {
    keyspace.iter()?.collect()
}

/// Everything in every keyspace.
pub(crate) fn dump_all(db: &Database) -> Result<BTreeMap<String, Table>> {
    let mut all = BTreeMap::new();
    for name in db.list_keyspaces()? {
        let keyspace = db.existing_keyspace(&name)?.expect("it was listed");
        all.insert(name, dump(&keyspace)?);
    }
    Ok(all)
}

/// The files of a database, by name.
#[derive(Clone)]
pub(crate) struct Files(pub(crate) BTreeMap<String, Vec<u8>>);

impl Files {
    /// Copies the files out of a machine.
    pub(crate) fn of(sim: &Arc<SimFileSystem>) -> Self {
        // The directory itself may be gone.
        let listed = sim.list(Path::new(DIRECTORY)).unwrap_or_default();
        // An open database removes obsolete files whenever it likes, so a listed file may be gone.
        let read = |name: String| match sim.read_file(path(&name)) {
            Ok(bytes) => Some((name, bytes)),
            Err(error) if error.is_not_found() => None,
            Err(error) => panic!("{error}"),
        };
        let files = listed.into_iter().filter(|entry| entry.is_file);
        Self(files.filter_map(|entry| read(entry.name)).collect())
    }

    /// A machine that holds exactly these files.
    pub(crate) fn boot(&self) -> Arc<SimFileSystem> {
        let sim = machine(1);
        sim.create_dir_all(Path::new(DIRECTORY)).unwrap();
        for (name, bytes) in &self.0 {
            sim.write_file(path(name), bytes).unwrap();
        }
        sim
    }

    /// The names that begin and end so.
    pub(crate) fn names(&self, begin: &str, end: &str) -> Vec<String> {
        let fits = |name: &&String| name.starts_with(begin) && name.ends_with(end);
        self.0.keys().filter(fits).cloned().collect()
    }
}

/// Waits until the directory holds exactly the tables and value files of the version.
pub(crate) fn no_file_is_left(db: &Database, sim: &Arc<SimFileSystem>, story: &str) {
    let patience = Deadline::after(Duration::from_secs(10));
    loop {
        // One that failed is remembered until another succeeds, and none may be due.
        let _ = db.wait_for_compactions();
        let stats = db.stats().unwrap();
        let tables: usize = stats.levels.iter().map(|level| level.tables).sum();
        let named = (tables, stats.value_files);
        let files = Files::of(sim);
        let found = (files.names("", ".sst").len(), files.names("", ".val").len());
        if found == named {
            return;
        }
        assert!(!patience.has_passed(), "{story}: {found:?} tables and value files, not {named:?}");
        pause(Duration::from_millis(1));
    }
}

/// The path of a file of the simulated database.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// The first difference between two tables, in words.
pub(crate) fn difference(expected: &Table, found: &Table) -> Option<String> {
    let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    for (key, value) in expected {
        match found.get(key) {
            None => return Some(format!("{} is missing", text(key))),
            Some(other) if other != value => {
                let (want, got) =
                    (text(&value[..value.len().min(24)]), text(&other[..other.len().min(24)]));
                return Some(format!("{} is {got}.. instead of {want}..", text(key)));
            }
            Some(_) => {}
        }
    }
    found
        .keys()
        .find(|key| !expected.contains_key(*key))
        .map(|key| format!("{} is extra", text(key)))
}

/// True if the error says which file is damaged, and the name is in its text.
pub(crate) fn names_a_file(error: &Error) -> bool {
    error.corruption_details().is_some_and(|at| {
        let name = at.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        !name.is_empty() && error.to_string().contains(&name)
    })
}

/// The files of a database and what stands in its log, for the report of a failure.
pub(crate) fn describe(sim: &Arc<SimFileSystem>) -> String {
    let files = Files::of(sim);
    let mut text = String::new();
    for (name, bytes) in &files.0 {
        text += &format!("\n{name}: {} bytes", bytes.len());
        if !name.starts_with("wal-") {
            continue;
        }
        for at in (0..bytes.len().saturating_sub(56)).step_by(8) {
            if bytes[at + 48..at + 52] == *b"RLWE" {
                let number = |from: usize| {
                    u64::from_le_bytes(bytes[at + from..at + from + 8].try_into().unwrap())
                };
                text += &format!(
                    "\n  at {at}: lsn {} durable {} sequence {} count {} length {} flags {}",
                    number(16),
                    number(24),
                    number(32),
                    number(40) as u32,
                    number(40) >> 32,
                    bytes[at + 52],
                );
            }
        }
    }
    text
}

/// Writes numbered batches, each the same in two keyspaces, until told to stop: what a copy that was taken meanwhile holds must be a
/// prefix of them, and equal in both.
pub(crate) fn write_twin_batches(
    db: &Database,
    twins: [&Keyspace; 2],
    thread: u8,
    value_bytes: usize,
    stop: &AtomicBool,
) {
    for number in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut batch = WriteBatch::new();
        for space in twins {
            batch.put_in(space, [thread], number.to_be_bytes());
            let key = [&[thread][..], &number.to_be_bytes()].concat();
            batch.put_in(space, key, vec![thread; value_bytes]);
        }
        db.write_with(&batch, &with(Durability::Buffered)).unwrap();
    }
}
