//! Loads many keys, overwrites half of them at random, deletes a range, reopens, and compares everything with a model, forward and
//! backward. Then checks memory and space against what is promised. Exits with an error if anything is not as expected.
//!
//! `cargo run --release --example soak [KEYS [DIRECTORY]]` (10,000,000 keys by default; `scripts/soak` does this)
//!
//! The model costs no memory: whether a key was overwritten or deleted, and what its value is, follows from its number and the seed.

#![expect(clippy::disallowed_methods, reason = "a program that measures time asks the clock")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustlite::{Database, Durability, Options};

const VALUE_BYTES: usize = 100;

type AnyError = Box<dyn std::error::Error>;

fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    let keys = arguments.next().map_or(Ok(10_000_000), |text| text.replace('_', "").parse())?;
    let seed = match std::env::var("RUSTLITE_TEST_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u64),
    };
    println!("RUSTLITE_TEST_SEED={seed}");
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = parent.join(format!("rustlite-soak-{}", std::process::id()));
    let result = soak(&directory, Model::new(keys, seed));
    std::fs::remove_dir_all(&directory).ok();
    result
}

fn soak(directory: &Path, model: Model) -> Result<(), AnyError> {
    let options = options(model.keys);
    let memory = MemoryWatch::start();
    let db = Database::open_with(directory, options.clone())?;
    let mut step = Steps::new();
    load(&db, model)?;
    step.done("loaded in random order");
    overwrite(&db, model)?;
    step.done("overwrote half at random");
    db.delete_range(Model::key(model.deleted.0), Model::key(model.deleted.1))?;
    db.close()?;
    drop(db);
    step.done("deleted a range and closed");

    let db = Database::open_with(directory, options.clone())?;
    step.done("reopened");
    check_forward(&db, model)?;
    step.done("compared forward");
    check_backward(&db, model)?;
    step.done("compared backward");
    check_lookups(&db, model)?;
    step.done("compared 100,000 lookups");
    println!("\n{}", db.stats()?);

    db.compact_range::<&str>(..)?;
    step.done("compacted");
    check_forward(&db, model)?;
    step.done("compared forward");
    check_space(&db, directory, model)?;
    db.close()?;
    memory.check(options.memory_bound_bytes())?;
    println!("everything as expected");
    Ok(())
}

/// The defaults; for few keys smaller ones, so that the tree gets several levels all the same.
fn options(keys: u64) -> Options {
    let options = Options::new().durability(Durability::Buffered);
    if keys >= 1_000_000 {
        return options;
    }
    options
        .memtable_bytes(1 << 20)
        .log_segment_bytes(1 << 20)
        .log_bytes_max(4 << 20)
        .table_bytes(256 << 10)
        .level_base_bytes(1 << 20)
        .block_cache_bytes(1 << 20)
}

/// What the database should hold.
#[derive(Debug, Clone, Copy)]
struct Model {
    keys: u64,
    seed: u64,
    /// First and end of the numbers of the keys that are deleted as a range.
    deleted: (u64, u64),
}

impl Model {
    fn new(keys: u64, seed: u64) -> Self {
        let start = mix(seed) % (keys / 2 + 1);
        Self { keys, seed, deleted: (start, start + keys / 10) }
    }

    /// Keys are in the order of their numbers.
    fn key(number: u64) -> [u8; 16] {
        let mut key = *b"key-000000000000";
        let mut rest = number;
        for digit in key[4..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        key
    }

    /// All numbers once, in an order that jumps about: each step is an odd constant that has no divisor in common with their count.
    fn shuffled(self) -> impl Iterator<Item = u64> {
        let (keys, mut step) = (self.keys, (self.keys as f64 * 0.618) as u64 | 1);
        while greatest_common_divisor(step, keys) != 1 {
            step += 2;
        }
        let start = mix(self.seed ^ 1) % keys.max(1);
        (0..keys).scan(start, move |at, _| {
            *at = (*at + step) % keys;
            Some(*at)
        })
    }

    fn is_overwritten(self, number: u64) -> bool {
        mix(self.seed ^ mix(number)) & 1 == 1
    }

    fn is_live(self, number: u64) -> bool {
        number < self.keys && !(self.deleted.0..self.deleted.1).contains(&number)
    }

    /// The value in generation 0 (loaded) or 1 (overwritten). Half of its bytes are random, so that it compresses a little.
    fn value(self, number: u64, generation: u64) -> [u8; VALUE_BYTES] {
        let mut value = [b'.'; VALUE_BYTES];
        let mut state = self.seed ^ mix(number ^ (generation << 60));
        for chunk in value[..VALUE_BYTES / 2].chunks_mut(8) {
            state = mix(state);
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
        value
    }

    fn expected(self, number: u64) -> [u8; VALUE_BYTES] {
        self.value(number, u64::from(self.is_overwritten(number)))
    }

    fn live_keys(self) -> u64 {
        self.keys - (self.deleted.1.min(self.keys) - self.deleted.0.min(self.keys))
    }
}

fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn load(db: &Database, model: Model) -> Result<(), AnyError> {
    for number in model.shuffled() {
        db.put(Model::key(number), model.value(number, 0))?;
    }
    Ok(())
}

fn overwrite(db: &Database, model: Model) -> Result<(), AnyError> {
    for number in model.shuffled().filter(|&number| model.is_overwritten(number)) {
        db.put(Model::key(number), model.value(number, 1))?;
    }
    Ok(())
}

fn check_record(model: Model, number: u64, key: &[u8], value: &[u8]) -> Result<(), AnyError> {
    if key != Model::key(number) {
        let found = String::from_utf8_lossy(key);
        return Err(format!("found key {found} where key {number} should be").into());
    }
    if value != model.expected(number) {
        return Err(format!("key {number} has a wrong value").into());
    }
    Ok(())
}

fn check_forward(db: &Database, model: Model) -> Result<(), AnyError> {
    let mut cursor = db.cursor()?;
    cursor.seek_to_first()?;
    for number in (0..model.keys).filter(|&number| model.is_live(number)) {
        check_record(model, number, cursor.key(), cursor.value())?;
        cursor.next()?;
    }
    if cursor.valid() { Err("there are more keys than there should be".into()) } else { Ok(()) }
}

fn check_backward(db: &Database, model: Model) -> Result<(), AnyError> {
    let mut numbers = (0..model.keys).rev().filter(|&number| model.is_live(number));
    for item in db.iter()?.rev() {
        let (key, value) = item?;
        let number = numbers.next().ok_or("there are more keys than there should be")?;
        check_record(model, number, &key, &value)?;
    }
    match numbers.next() {
        Some(number) => Err(format!("backward, key {number} is missing").into()),
        None => Ok(()),
    }
}

fn check_lookups(db: &Database, model: Model) -> Result<(), AnyError> {
    for round in 0..100_000 {
        // Some are behind the last key.
        let number = mix(model.seed ^ (round << 20)) % (model.keys + model.keys / 10 + 1);
        let expected = model.is_live(number).then(|| model.expected(number));
        let found = db.get_pinned(Model::key(number))?;
        if found.as_deref() != expected.as_ref().map(|value| &value[..]) {
            return Err(format!("a lookup of key {number} is wrong").into());
        }
    }
    Ok(())
}

/// After a compaction, tables take at most 1.3 times the live data; with much data, so does the whole directory.
fn check_space(db: &Database, directory: &Path, model: Model) -> Result<(), AnyError> {
    let live = model.live_keys() * (16 + VALUE_BYTES as u64);
    let tables = db.stats()?.table_bytes();
    // Table files that nobody needs any more are removed by a background thread.
    let begun = Instant::now();
    let mut total = directory_bytes(directory)?;
    while total > live * 13 / 10 && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
        total = directory_bytes(directory)?;
    }
    let ratio = |bytes: u64| bytes as f64 / live.max(1) as f64;
    println!("live data            {:>10.1} MiB", mib(live));
    println!("tables               {:>10.1} MiB, {:.3} times that", mib(tables), ratio(tables));
    println!("directory            {:>10.1} MiB, {:.3} times that", mib(total), ratio(total));
    if ratio(tables) > 1.3 {
        return Err("tables take more than 1.3 times the live data".into());
    }
    if model.keys >= 5_000_000 && ratio(total) > 1.3 {
        return Err("the directory takes more than 1.3 times the live data".into());
    }
    Ok(())
}

/// Bytes that the files of a directory occupy on the disk.
fn directory_bytes(directory: &Path) -> Result<u64, AnyError> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in std::fs::read_dir(directory)? {
        // A file may go away meanwhile.
        total += entry?.metadata().map_or(0, |metadata| metadata.blocks() * 512);
    }
    Ok(total)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Tells how long each step took.
struct Steps {
    begun: Instant,
}

impl Steps {
    fn new() -> Self {
        Self { begun: Instant::now() }
    }

    fn done(&mut self, what: &str) {
        let anonymous = mib(status_bytes("RssAnon:").unwrap_or(0));
        let time = self.begun.elapsed().as_secs_f64();
        println!("{time:>8.2} s  {what} ({anonymous:.1} MiB private)");
        self.begun = Instant::now();
    }
}

/// Watches the private memory of the process, from before the database is opened.
struct MemoryWatch {
    before: u64,
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl MemoryWatch {
    fn start() -> Self {
        let before = status_bytes("RssAnon:").unwrap_or(0);
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (peak, stop) = (Arc::clone(&peak), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    peak.fetch_max(status_bytes("RssAnon:").unwrap_or(0), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        Self { before, peak, stop, thread }
    }

    /// The bound is on private memory. Mapped tables count as resident too, and the kernel takes them back when memory is short.
    fn check(self, bound: u64) -> Result<(), AnyError> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the memory watch panicked")?;
        let private = self.peak.load(Ordering::Relaxed).saturating_sub(self.before);
        println!("peak private memory  {:>10.1} MiB", mib(private));
        println!("documented bound     {:>10.1} MiB", mib(bound));
        println!(
            "peak resident        {:>10.1} MiB, with mapped tables",
            mib(status_bytes("VmHWM:").unwrap_or(0))
        );
        if private > bound { Err("more private memory than the bound".into()) } else { Ok(()) }
    }
}

/// A line of the kernel's account of this process, in bytes.
fn status_bytes(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}
