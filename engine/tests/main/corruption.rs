//! Damaged, cut, missing and newer files: right data, or an error that names the file. Never anything else.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustlite_engine::{
    Database, Durability, Error, ErrorKind, KeyspaceOptions, Options, Result, WriteBatch,
};
use rustlite_io::{CrashPlan, SimFileSystem};
use xxhash_rust::xxh3::xxh3_64;

use crate::support::{
    Files, Random, Table, budget, difference, dump, machine, names_a_file, open, path, seed,
    small_options, with,
};

/// A small database that was killed, and what it holds.
struct Victim {
    files: Files,
    /// The state after each commit that is only in the log; the last one is the whole.
    states: Vec<BTreeMap<String, Table>>,
}

impl Victim {
    fn whole(&self) -> &BTreeMap<String, Table> {
        self.states.last().unwrap()
    }
}

fn options() -> Options {
    // Nothing moves while the test looks.
    small_options()
        .memtable_bytes(4 << 20)
        .l0_compaction_trigger(1000)
        .l0_slowdown_trigger(2000)
        .l0_stop_trigger(3000)
}

fn value(number: usize) -> Vec<u8> {
    format!("value {number} {}", "x".repeat(number * 7 % 90)).into_bytes()
}

/// Makes a database with tables of two keyspaces (one compressed and with a value file, one with range tombstones) and some commits
/// in the log only.
fn victim(durability: Durability, log_only: usize) -> Victim {
    let sim = machine(3);
    let db = open(&sim, options()).unwrap();
    let options = KeyspaceOptions::new()
        .compression(rustlite_engine::Compression::Lz4)
        .value_separation_bytes(300);
    let packed = db.create_keyspace("packed", options).unwrap();
    let mut state = BTreeMap::from([("default".to_owned(), Table::new())]);
    state.insert("packed".to_owned(), Table::new());
    for number in 0..150 {
        let key = format!("key-{number:03}");
        db.put_with(&key, value(number), &with(Durability::Buffered)).unwrap();
        packed.put_with(&key, value(number), &with(Durability::Buffered)).unwrap();
        for table in state.values_mut() {
            table.insert(key.clone().into_bytes(), value(number));
        }
    }
    for number in 0..10 {
        let (key, value) = (format!("large-{number}"), value(number).repeat(40));
        packed.put_with(&key, &value, &with(Durability::Buffered)).unwrap();
        state.get_mut("packed").unwrap().insert(key.into_bytes(), value);
    }
    db.delete_range("key-020", "key-030").unwrap();
    let default = state.get_mut("default").unwrap();
    default.retain(|key, _| !(&b"key-020"[..]..&b"key-030"[..]).contains(&key.as_slice()));
    db.flush().unwrap();
    let mut states = vec![state.clone()];
    for number in 0..log_only {
        let key = format!("log-{number:03}");
        let mut batch = WriteBatch::new();
        batch.put(&key, value(number)).put_in(&packed, &key, value(number));
        db.write_with(&batch, &with(durability)).unwrap();
        for table in state.values_mut() {
            table.insert(key.clone().into_bytes(), value(number));
        }
        states.push(state.clone());
    }
    let after = sim.crash(&CrashPlan::KeepAll);
    drop((packed, db));
    Victim { files: Files::of(&after), states }
}

/// What reading a database gave.
enum Outcome {
    Refused(Error),
    Holds(BTreeMap<String, Table>),
}

/// Opens and reads everything: each way of reading must agree with the others or give an error.
fn read_everything(sim: &Arc<SimFileSystem>, read_only: bool) -> Outcome {
    let opened = open(sim, options().read_only(read_only).create_if_missing(false));
    match opened.and_then(|db| read_all(&db)) {
        Ok(all) => Outcome::Holds(all),
        Err(error) => Outcome::Refused(error),
    }
}

fn read_all(db: &Database) -> Result<BTreeMap<String, Table>> {
    let mut all = BTreeMap::new();
    for name in db.list_keyspaces()? {
        let keyspace = db.existing_keyspace(&name)?.expect("it was listed");
        let table = dump(&keyspace)?;
        for number in (0..150).step_by(7) {
            let key = format!("key-{number:03}").into_bytes();
            let got = keyspace.get(&key)?;
            assert_eq!(got.as_ref(), table.get(&key), "get and scan differ at {key:?}");
        }
        let backward: Result<Table> = keyspace.iter()?.rev().collect();
        assert!(backward? == table, "the two directions of a scan differ");
        all.insert(name, table);
    }
    Ok(all)
}

fn same(expected: &BTreeMap<String, Table>, found: &BTreeMap<String, Table>) -> bool {
    expected.len() == found.len()
        && expected.iter().all(|(name, table)| {
            found.get(name).is_some_and(|found| difference(table, found).is_none())
        })
}

/// True if the error is one that damage may cause, and says where.
fn is_damage(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Corruption => names_a_file(error),
        ErrorKind::NotADatabase | ErrorKind::UnsupportedFormat => true,
        _ => false,
    }
}

/// Panics unless the damaged database gives one of its states from `least` on, or an error that names a file.
fn expect_state_or_damage(victim: &Victim, sim: &Arc<SimFileSystem>, least: usize, what: &str) {
    for read_only in [true, false] {
        match read_everything(sim, read_only) {
            Outcome::Refused(error) => assert!(is_damage(&error), "{what}: {error:?}"),
            Outcome::Holds(found) => {
                let fits = victim.states[least..].iter().any(|state| same(state, &found));
                assert!(fits, "{what} (read-only {read_only}): wrong data without an error");
            }
        }
    }
}

/// The bytes of a file worth flipping: all of the small ones, and of the large ones both ends and a sample.
fn places(bytes: &[u8], random: &mut Random, sample: usize) -> Vec<usize> {
    let len = bytes.len();
    if len <= 2 * sample {
        return (0..len).collect();
    }
    let ends = (0..sample / 4).chain(len - sample / 2..len);
    let middle: Vec<usize> = (0..sample).map(|_| random.below(len)).collect();
    ends.chain(middle).collect()
}

/// Flips bits of all files whose names fit; no flip may change what is read without an error.
fn flip_everywhere(begin: &str, end: &str, own_seed: u64, sample: usize) {
    let victim = victim(Durability::Sync, 12);
    let mut random = Random::new(seed(own_seed));
    let names = victim.files.names(begin, end);
    assert!(!names.is_empty(), "no file {begin}*{end}");
    for name in names {
        let bytes = &victim.files.0[&name];
        for place in places(bytes, &mut random, budget(sample)) {
            let sim = victim.files.boot();
            let bit = random.below(8) as u8;
            sim.flip_bit(path(&name), place as u64, bit).unwrap();
            let whole = victim.states.len() - 1;
            let what = format!("bit {bit} of byte {place} of {name}");
            expect_state_or_damage(&victim, &sim, whole, &what);
        }
    }
}

#[test]
fn a_flipped_bit_in_a_table_is_found_or_harmless() {
    flip_everywhere("", ".sst", 401, 150);
}

#[test]
fn a_flipped_bit_in_a_value_file_is_found_or_harmless() {
    flip_everywhere("", ".val", 405, 150);
}

#[test]
fn a_flipped_bit_in_the_manifest_is_found_or_harmless() {
    let victim = victim(Durability::Sync, 3);
    let name = &victim.files.names("MANIFEST-", "")[0];
    let last_record = last_manifest_record(&victim.files.0[name]);
    for place in 0..victim.files.0[name].len() {
        let sim = victim.files.boot();
        sim.flip_bit(path(name), place as u64, (place % 8) as u8).unwrap();
        match read_everything(&sim, true) {
            Outcome::Refused(error) => assert!(is_damage(&error), "byte {place}: {error:?}"),
            Outcome::Holds(found) => {
                // Damage to the last record looks like the end of a write that a crash cut short, and the log still holds
                // what its tables did.
                let may_go_on = place >= last_record && same(victim.whole(), &found);
                assert!(may_go_on, "byte {place} of {name}: no error");
            }
        }
    }
}

/// The offset of the last record of a manifest.
fn last_manifest_record(bytes: &[u8]) -> usize {
    let mut at = 40;
    loop {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if at + 16 + length >= bytes.len() {
            return at;
        }
        at += 16 + length;
    }
}

#[test]
fn a_flipped_bit_in_current_is_always_found() {
    let victim = victim(Durability::Sync, 3);
    for place in 0..victim.files.0["CURRENT"].len() {
        for bit in 0..8 {
            let sim = victim.files.boot();
            sim.flip_bit(path("CURRENT"), place as u64, bit).unwrap();
            let Outcome::Refused(error) = read_everything(&sim, true) else {
                // Bytes 6 and 7 are reserved, but the checksum covers them.
                panic!("bit {bit} of byte {place} of CURRENT was not found");
            };
            assert!(is_damage(&error), "byte {place}: {error:?}");
        }
    }
}

/// Offset and length of every entry of the newest log segment, padding up to the next block included.
fn log_frames(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut frames = Vec::new();
    let mut at = 4096;
    while bytes.get(at + 48..at + 52) == Some(b"RLWE") {
        let length = u32::from_le_bytes(bytes[at + 44..at + 48].try_into().unwrap()) as usize;
        frames.push((at, 56 + length));
        let end = at + (56 + length).next_multiple_of(8);
        at = if bytes[at + 52] & 1 == 1 { end.next_multiple_of(4096) } else { end };
    }
    frames
}

#[test]
fn a_flipped_bit_in_an_acknowledged_log_entry_is_corruption_unless_it_is_the_last() {
    let victim = victim(Durability::Sync, 12);
    let name = victim.files.names("wal-", ".log").into_iter().next_back().unwrap();
    let name = victim
        .files
        .names("wal-", ".log")
        .into_iter()
        .find(|name| log_frames(&victim.files.0[name]).len() > 10)
        .unwrap_or(name);
    let frames = log_frames(&victim.files.0[&name]);
    let synced = &frames[frames.len() - 12..];
    let mut random = Random::new(seed(402));
    for (number, &(offset, length)) in synced.iter().enumerate() {
        // Every byte of the header, and some of the payload.
        let payload: Vec<usize> = (0..10).map(|_| 56 + random.below(length - 56)).collect();
        for place in (0..56).chain(payload) {
            let sim = victim.files.boot();
            sim.flip_bit(path(&name), (offset + place) as u64, random.below(8) as u8).unwrap();
            let what = format!("byte {place} of entry {number} in {name}");
            match read_everything(&sim, true) {
                Outcome::Refused(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error:?}");
                    assert!(error.to_string().contains(&name), "{what}: {error}");
                }
                Outcome::Holds(found) => {
                    assert_eq!(number, 11, "{what}: a damaged entry went by without an error");
                    let before = &victim.states[victim.states.len() - 2];
                    assert!(same(before, &found), "{what}: not the state before the last commit");
                }
            }
        }
    }
}

#[test]
fn flips_anywhere_in_the_log_leave_a_prefix_or_are_found() {
    // Nothing but the first state was promised.
    let victim = victim(Durability::Buffered, 30);
    let mut random = Random::new(seed(403));
    for name in victim.files.names("wal-", ".log") {
        let used = log_frames(&victim.files.0[&name]).last().map_or(64, |last| last.0 + last.1);
        for _ in 0..budget(150) {
            let sim = victim.files.boot();
            let (place, bit) = (random.below(used + 64), random.below(8) as u8);
            sim.flip_bit(path(&name), place as u64, bit).unwrap();
            let what = format!("bit {bit} of byte {place} of {name}");
            expect_state_or_damage(&victim, &sim, 0, &what);
        }
    }
}

#[test]
fn a_file_that_was_cut_is_found_or_was_not_promised() {
    let victim = victim(Durability::Buffered, 12);
    let mut random = Random::new(seed(404));
    for (name, bytes) in &victim.files.0 {
        if name == "LOCK" {
            continue;
        }
        let len = bytes.len();
        let mut lengths: Vec<usize> = (0..64.min(len)).collect();
        lengths.extend((len.saturating_sub(130)..len).chain((0..30).map(|_| random.below(len))));
        lengths.extend([511, 512, 4095, 4096, 4097].into_iter().filter(|&cut| cut < len));
        for cut in lengths {
            let sim = victim.files.boot();
            sim.truncate_file(path(name), cut as u64).unwrap();
            let what = format!("{name} cut from {len} to {cut}");
            // Bytes of the log behind the first state were not promised; all others were.
            expect_state_or_damage(&victim, &sim, 0, &what);
            if name.ends_with(".sst") || name.ends_with(".val") {
                let Outcome::Refused(error) = read_everything(&sim, true) else {
                    panic!("{what}: opened without an error");
                };
                assert!(error.to_string().contains(name.as_str()), "{what}: {error}");
            }
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let victim = victim(Durability::Sync, 6);
    for name in victim.files.0.keys().filter(|name| *name != "LOCK") {
        let mut files = victim.files.clone();
        files.0.remove(name);
        match read_everything(&files.boot(), false) {
            Outcome::Refused(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "without {name}: {error:?}");
                assert!(error.to_string().contains(name.as_str()), "without {name}: {error}");
            }
            Outcome::Holds(found) => {
                assert!(name.ends_with(".log"), "opened without {name}");
                let unused = log_frames(&victim.files.0[name]).is_empty();
                assert!(unused && same(victim.whole(), &found), "data is missing without {name}");
            }
        }
    }
}

#[test]
fn a_log_segment_missing_between_others_is_found() {
    let sim = machine(8);
    let db = open(&sim, options().log_bytes_max(64 << 20)).unwrap();
    // Three segments of 256 KiB and a bit.
    for number in 0..70 {
        db.put(format!("k{number}"), vec![7; 12_000]).unwrap();
    }
    let after = sim.crash(&CrashPlan::KeepAll);
    drop(db);
    let files = Files::of(&after);
    let used: Vec<String> = files
        .names("wal-", ".log")
        .into_iter()
        .filter(|name| !log_frames(&files.0[name]).is_empty())
        .collect();
    assert!(used.len() >= 3, "{used:?}");
    for name in &used[..used.len() - 1] {
        let mut without = files.clone();
        without.0.remove(name);
        let Outcome::Refused(error) = read_everything(&without.boot(), false) else {
            panic!("opened without {name}");
        };
        assert_eq!(error.kind(), ErrorKind::Corruption, "without {name}: {error:?}");
        assert!(error.to_string().contains("/wal-"), "without {name}: {error}");
    }
}

#[test]
fn files_of_newer_formats_are_refused_as_such() {
    let victim = victim(Durability::Sync, 6);
    // Where the version stands, and where the checksum that covers it.
    for (name, bytes) in &victim.files.0 {
        let len = bytes.len();
        let (version_at, covered) = match name.as_str() {
            "LOCK" => continue,
            "CURRENT" => (4, None),
            name if name.starts_with("MANIFEST-") => (4, None),
            name if name.ends_with(".sst") => (len - 16, Some((len - 112, len - 8))),
            name if name.ends_with(".val") => (4, Some((0, 32))),
            _ => (4, Some((0, 32))),
        };
        let mut newer = bytes.clone();
        newer[version_at] = 2;
        if let Some((from, to)) = covered {
            let checksum = xxh3_64(&newer[from..to]);
            newer[to..to + 8].copy_from_slice(&checksum.to_le_bytes());
        }
        let mut files = victim.files.clone();
        files.0.insert(name.clone(), newer);
        let Outcome::Refused(error) = read_everything(&files.boot(), true) else {
            panic!("{name} of a newer format was read");
        };
        assert_eq!(error.kind(), ErrorKind::UnsupportedFormat, "{name}: {error:?}");
        assert!(error.to_string().contains(name.as_str()), "{name}: {error}");
    }
}

#[test]
fn files_of_another_database_are_refused() {
    let ours = victim(Durability::Sync, 6);
    let sim = SimFileSystem::new(99);
    let db = open(&sim, options()).unwrap();
    db.create_keyspace("packed", KeyspaceOptions::new()).unwrap();
    for number in 0..300 {
        db.put(format!("alien-{number}"), value(number)).unwrap();
    }
    let after = sim.crash(&CrashPlan::KeepAll);
    drop(db);
    let theirs = Files::of(&after);
    let log = theirs.names("wal-", ".log").remove(0);
    let names = [".log", ".sst", ".val"].map(|end| ours.files.names("", end)).concat();
    for name in names {
        let mut files = ours.files.clone();
        files.0.insert(name.clone(), theirs.0[&log].clone());
        match read_everything(&files.boot(), true) {
            Outcome::Refused(error) => assert!(is_damage(&error), "{name}: {error:?}"),
            Outcome::Holds(_) => {
                panic!("{name} was replaced by another database's file, unnoticed")
            }
        }
    }
}

#[test]
fn an_undamaged_copy_reads_whole() {
    for durability in [Durability::Sync, Durability::Buffered] {
        let victim = victim(durability, 12);
        let sim = victim.files.boot();
        let last = victim.states.len() - 1;
        expect_state_or_damage(&victim, &sim, last, "an undamaged copy");
    }
}
