//! From the log back into memtables, and, where they fill up, into tables.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rustlite_io::{FileSystem, OpenMode};

use crate::batch::Records;
use crate::compaction::flush::write_tables;
use crate::compaction::output::OutputContext;
use crate::compaction::retention::Retention;
use crate::error::{Error, Result};
use crate::file_name::FileName;
use crate::key::{KeyspaceId, Sequence, Trailer, ValueKind};
use crate::kinds::Rules;
use crate::manifest::{VersionEdit, VersionSet};
use crate::memtable::approaches::{Approaches, KEYS_MAX, NewRecord, insert_all};
use crate::memtable::{Memtable, MemtableMaker, Splice};
use crate::options::Options;
use crate::read::view::FrozenMemtable;
use crate::sstable::{Table, TableEnv};
use crate::wal::Lsn;
use crate::wal::entry::Header;
use crate::wal::reader::{LogTail, Unsettled, replay};

/// Bytes of the log that are written again at once.
const SETTLE_CHUNK_BYTES: usize = 1 << 20;

/// Records of so many bytes are not kept until more have come.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// What the log held beyond the tables.
pub(crate) struct Replayed {
    pub(crate) tail: LogTail,
    pub(crate) active: Arc<Memtable>,
    /// Only when nothing may be written; newest first.
    pub(crate) frozen: Vec<Arc<FrozenMemtable>>,
    /// Where the log stood when `active` was begun.
    pub(crate) active_begin: Lsn,
    /// The next record's sequence number.
    pub(crate) next_sequence: Sequence,
}

/// Makes the log's files durable as they are, so that recovery does not decide on bytes that a later crash takes back.
pub(crate) fn sync_log_files(file_system: &dyn FileSystem, directory: &Path) -> Result<()> {
    for entry in file_system.list(directory)? {
        if let Some(name @ FileName::Log(_)) = FileName::parse(&entry.name) {
            file_system.open(&name.path(directory), OpenMode::ReadWrite)?.sync_data()?;
        }
    }
    Ok(())
}

/// Writes accepted log entries again and syncs them, so far as nobody knows that they ever reached the medium.
///
/// They may have been read from a page cache that a failed sync left clean: then a sync does nothing, and only writing them anew
/// brings them to the medium. The bytes are the same, so that a crash meanwhile changes nothing.
pub(crate) fn settle_log(
    file_system: &dyn FileSystem,
    directory: &Path,
    tail: &LogTail,
) -> Result<()> {
    let mut buffer = vec![0; SETTLE_CHUNK_BYTES];
    for Unsettled { number, range } in &tail.unsettled {
        let file =
            file_system.open(&FileName::Log(*number).path(directory), OpenMode::ReadWrite)?;
        let mut at = range.start;
        while at < range.end {
            let wanted = (range.end - at).min(SETTLE_CHUNK_BYTES as u64) as usize;
            let chunk = &mut buffer[..wanted];
            let read = file.read_at(at, chunk)?;
            // The last entry's padding may lie past the end of a file that was cut.
            let Some(chunk) = chunk.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
            file.write_all_at(at, chunk)?;
            at += read as u64;
        }
        file.sync_data()?;
    }
    Ok(())
}

/// Replays the log. Full memtables become tables if `writable`, else they are kept.
pub(crate) fn replay_log(
    env: &TableEnv,
    versions: &VersionSet,
    rules: &Arc<Rules>,
    (options, memtables): (&Options, &MemtableMaker),
    writable: bool,
) -> Result<Replayed> {
    let start = versions.log_start();
    let mut target = Target {
        env,
        versions,
        rules,
        options,
        memtables,
        writable,
        keyspaces: versions.keyspaces().iter().map(|keyspace| keyspace.id).collect(),
        next_keyspace: versions.next_keyspace(),
        active: Arc::new(memtables.make()?),
        active_begin: start,
        frozen: Vec::new(),
        last_sequence: versions.last_sequence(),
        waiting: Vec::with_capacity(KEYS_MAX),
        waiting_bytes: Vec::new(),
        splice: Splice::default(),
        searches: Approaches::default(),
    };
    let next = versions.last_sequence() + 1;
    let mut visit = |header: &Header, payload: &[u8], path: &Path| {
        target.make_room(header.lsn)?;
        target.apply(header, payload, path)
    };
    let (fs, directory, logs) = (&*env.fs, env.directory.as_path(), versions.logs());
    let tail = replay(fs, directory, env.database_id, start, next, &logs, &mut visit)?;
    target.insert_waiting()?;
    Ok(Replayed {
        next_sequence: tail.next_sequence.max(versions.last_sequence() + 1),
        tail,
        active: target.active,
        frozen: target.frozen,
        active_begin: target.active_begin,
    })
}

struct Target<'a> {
    env: &'a TableEnv,
    versions: &'a VersionSet,
    rules: &'a Arc<Rules>,
    options: &'a Options,
    memtables: &'a MemtableMaker,
    writable: bool,
    keyspaces: HashSet<KeyspaceId>,
    /// No keyspace has had this id or a larger one.
    next_keyspace: u32,
    active: Arc<Memtable>,
    active_begin: Lsn,
    frozen: Vec<Arc<FrozenMemtable>>,
    last_sequence: Sequence,
    /// Records that are not in the memtable yet: most entries hold a single one, and several are inserted in less time together.
    waiting: Vec<Waiting>,
    /// Their keys, each followed by its value.
    waiting_bytes: Vec<u8>,
    splice: Splice,
    searches: Approaches,
}

/// A record whose key and value were copied.
struct Waiting {
    trailer: Trailer,
    key: Range<usize>,
    value: Range<usize>,
}

impl Target<'_> {
    /// Before the entry at `lsn`: replaces a full memtable.
    fn make_room(&mut self, lsn: Lsn) -> Result<()> {
        if self.active.memory_usage() < self.options.memtable_bytes || self.active.is_empty() {
            return Ok(());
        }
        self.insert_waiting()?;
        let next = self.memtables.make()?;
        let full = Arc::new(FrozenMemtable {
            memtable: std::mem::replace(&mut self.active, Arc::new(next)),
            last_sequence: self.last_sequence,
            log_end: lsn,
        });
        self.active_begin = lsn;
        if self.writable {
            flush_recovered(self, &full)
        } else {
            self.frozen.insert(0, full);
            Ok(())
        }
    }

    fn apply(&mut self, header: &Header, payload: &[u8], path: &Path) -> Result<()> {
        let malformed = |detail: &str| {
            Error::corruption(path, header.lsn, "log entry", format!("{detail}, at this LSN"))
        };
        let mut count = 0;
        for record in Records::new(payload) {
            let record = record.map_err(|_| malformed("the batch does not decode"))?;
            let sequence = header.sequence + u64::from(count);
            count += 1;
            if count > header.count {
                break;
            }
            let keyspace = KeyspaceId::of(record.key).unwrap_or(KeyspaceId::DEFAULT);
            if keyspace.0 >= self.next_keyspace {
                return Err(malformed(
                    "a record belongs to a keyspace that the manifest never created",
                ));
            }
            // Writes to a keyspace that was dropped later.
            if !self.keyspaces.contains(&keyspace) {
                continue;
            }
            if record.kind == ValueKind::RangeDelete {
                self.active.add_range_tombstone(record.key, record.value, sequence);
            } else {
                self.wait_for_others(
                    record.key,
                    Trailer::new(sequence, record.kind),
                    record.value,
                )?;
            }
        }
        if count != header.count {
            return Err(malformed("the batch has another number of records than its header"));
        }
        self.last_sequence = header.sequence + u64::from(count).saturating_sub(1);
        Ok(())
    }

    /// Keeps a record until some have come together.
    fn wait_for_others(&mut self, key: &[u8], trailer: Trailer, value: &[u8]) -> Result<()> {
        let begin = self.waiting_bytes.len();
        self.waiting_bytes.extend_from_slice(key);
        self.waiting_bytes.extend_from_slice(value);
        let (middle, end) = (begin + key.len(), self.waiting_bytes.len());
        self.waiting.push(Waiting { trailer, key: begin..middle, value: middle..end });
        if self.waiting.len() >= KEYS_MAX || end >= WAITING_BYTES_MAX {
            self.insert_waiting()?;
        }
        Ok(())
    }

    fn insert_waiting(&mut self) -> Result<()> {
        let mut records = [NewRecord::default(); KEYS_MAX];
        for (record, waiting) in records.iter_mut().zip(&self.waiting) {
            let Waiting { trailer, key, value } = waiting;
            let (key, value) =
                (&self.waiting_bytes[key.clone()], &self.waiting_bytes[value.clone()]);
            *record = NewRecord { key, trailer: *trailer, value };
        }
        let records = &records[..self.waiting.len()];
        insert_all(&self.active, records, &mut self.splice, &mut self.searches)?;
        self.waiting.clear();
        self.waiting_bytes.clear();
        if self.active.wants_upkeep() {
            self.active.upkeep();
        }
        Ok(())
    }
}

/// Writes a memtable as tables and makes them part of the database, before there is anybody to see it.
fn flush_recovered(target: &Target<'_>, full: &FrozenMemtable) -> Result<()> {
    let Target { env, versions, rules, options, .. } = *target;
    let context = OutputContext {
        env,
        versions,
        limiter: None,
        table_bytes: options.table_bytes,
        moving: HashSet::new(),
    };
    let named = versions.named_snapshots().into_iter().map(|named| named.sequence);
    let mut boundaries: Vec<_> = named.chain(std::iter::once(full.last_sequence)).collect();
    boundaries.sort_unstable();
    boundaries.dedup();
    let retention = Retention::new(boundaries, false, rules);
    let tables = write_tables(&context, full, &retention)?;
    env.fs.sync_dir(&env.directory)?;
    let opened: Result<Vec<_>> = tables.iter().map(|new| Table::open(env, &new.meta)).collect();
    let edit = VersionEdit {
        added: tables.iter().map(|new| (0, new.meta.clone())).collect(),
        log_start: Some(full.log_end),
        last_sequence: Some(full.last_sequence),
        ..VersionEdit::default()
    };
    versions.apply(edit, opened?)?;
    Ok(())
}
