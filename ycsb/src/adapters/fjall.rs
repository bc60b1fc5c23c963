//! fjall, an LSM tree in Rust.

use std::time::Duration;

use fjall::config::HashRatioPolicy;
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::error::Failure;
use crate::store::{Direction, Durability, OpenSpec, Store};

/// What fjall allows its log by default.
const JOURNAL_BYTES_DEFAULT: u64 = 512 << 20;

/// How often to look whether background work is done.
const POLL: Duration = Duration::from_millis(5);

struct Fjall {
    database: Database,
    records: Keyspace,
    sync: bool,
    cache_bytes: u64,
    memtable_bytes: u64,
}

pub(super) fn open(spec: &OpenSpec) -> Result<Box<dyn Store>, Failure> {
    // A log that is full forces flushes, so it must hold a few memtables.
    let journal_bytes = JOURNAL_BYTES_DEFAULT.max(4 * spec.memtable_bytes);
    let database = Database::builder(&spec.directory)
        .cache_size(spec.cache_bytes)
        .max_journaling_size(journal_bytes)
        .open()?;
    // Point reads of cached blocks are what most workloads do, and the hash index is what speeds
    // them up.
    let options = || {
        KeyspaceCreateOptions::default()
            .data_block_hash_ratio_policy(HashRatioPolicy::all(1.33))
            .max_memtable_size(spec.memtable_bytes)
    };
    let records = database.keyspace("records", options)?;
    let sync = spec.durability == Durability::Sync;
    let (cache_bytes, memtable_bytes) = (spec.cache_bytes, spec.memtable_bytes);
    Ok(Box::new(Fjall { database, records, sync, cache_bytes, memtable_bytes }))
}

impl Fjall {
    fn write(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.records.insert(key, value)?;
        if self.sync {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Store for Fjall {
    fn configuration(&self) -> String {
        let persist = if self.sync {
            "persist(SyncData) after every write"
        } else {
            "journal handed to the kernel at every write"
        };
        format!(
            "cache of {} MiB, memtables of {} MiB, no compression, hash index in blocks, \
             default filters, {persist}",
            self.cache_bytes >> 20,
            self.memtable_bytes >> 20,
        )
    }

    fn handle(&self) -> Result<Box<dyn Store>, Failure> {
        Ok(Box::new(Self {
            database: self.database.clone(),
            records: self.records.clone(),
            sync: self.sync,
            cache_bytes: self.cache_bytes,
            memtable_bytes: self.memtable_bytes,
        }))
    }

    fn read(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        let Some(found) = self.records.get(key)? else { return Ok(false) };
        value.clear();
        value.extend_from_slice(&found);
        Ok(true)
    }

    fn update(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.write(key, value)
    }

    fn scan(
        &mut self,
        start: &[u8],
        count: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        for guard in self.records.range(start..).take(count) {
            let (key, value) = guard.into_inner()?;
            visit(&key, &value);
        }
        Ok(())
    }

    fn scan_all(
        &mut self,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        let mut show = |guard: Guard| {
            let (key, value) = guard.into_inner()?;
            visit(&key, &value);
            Ok(())
        };
        let mut all = self.records.iter();
        match direction {
            Direction::Forward => all.try_for_each(&mut show),
            Direction::Backward => all.rev().try_for_each(&mut show),
        }
    }

    fn settle(&mut self) -> Result<(), Failure> {
        self.records.rotate_memtable_and_wait()?;
        while self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0 {
            std::thread::sleep(POLL);
        }
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        // Dropping the last handle ends the background threads.
        Ok(())
    }
}
