//! LMDB through heed: a memory-mapped copy-on-write B-tree, a transaction for each operation.

use std::ops::Bound;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

use crate::error::Failure;
use crate::store::{Direction, Durability, OpenSpec, Rewrite, Store};

/// Address space to reserve beyond the data. The file is sparse, so that only what is used takes
/// space.
const MAP_FLOOR_BYTES: usize = 8 << 30;

/// Space per record, as a multiple of its size: half-full pages, old versions that readers still
/// see, room for inserts.
const MAP_FACTOR: usize = 6;

#[derive(Clone)]
struct Lmdb {
    environment: Env,
    records: Database<'static, Bytes, Bytes>,
    flags: &'static str,
}

/// With the map writable, which saves copies but lets stray writes of the process reach the data.
pub(super) fn open_write_map(spec: &OpenSpec) -> Result<Box<dyn Store>, Failure> {
    open(spec, EnvFlags::WRITE_MAP)
}

/// With a map that is only read.
pub(super) fn open_default(spec: &OpenSpec) -> Result<Box<dyn Store>, Failure> {
    open(spec, EnvFlags::empty())
}

fn open(spec: &OpenSpec, map: EnvFlags) -> Result<Box<dyn Store>, Failure> {
    let record = spec.value_size + 4096;
    let data = usize::try_from(spec.records)?.saturating_mul(record).saturating_mul(MAP_FACTOR);
    let map_size = data.saturating_add(MAP_FLOOR_BYTES).next_multiple_of(1 << 20);
    let mut options = EnvOpenOptions::new();
    options.map_size(map_size).max_readers(u32::try_from(spec.threads)? + 16);
    let sync = match spec.durability {
        Durability::Sync => EnvFlags::empty(),
        Durability::Buffered => EnvFlags::NO_SYNC,
    };
    // SAFETY: NO_SYNC gives up consistency after a crash of the machine, which `buffered` doesn't
    // promise; WRITE_MAP gives up protection of the map from stray writes of this process, and the
    // harness has no unsafe code that could make any.
    unsafe { options.flags(map | sync) };
    // SAFETY: the file is in a directory of the harness's own, in which no other process is
    // working, and it is opened once in this process.
    let environment = unsafe { options.open(&spec.directory) }?;
    let transaction = environment.write_txn()?;
    let created = environment.create_databases_and_commit(transaction, |opener, transaction| {
        opener.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
    })?;
    let CommitOrAbort::Commit(records) = created else {
        return Err("the database was not created".into());
    };
    let flags = match (map, spec.durability) {
        (EnvFlags::WRITE_MAP, Durability::Sync) => "MDB_WRITEMAP",
        (EnvFlags::WRITE_MAP, Durability::Buffered) => "MDB_NOSYNC | MDB_WRITEMAP",
        (_, Durability::Sync) => "default flags (two writes and syncs per commit)",
        (_, Durability::Buffered) => "MDB_NOSYNC",
    };
    Ok(Box::new(Lmdb { environment, records, flags }))
}

impl Store for Lmdb {
    fn configuration(&self) -> String {
        format!(
            "LMDB through heed, {}, a transaction per operation, cached by the kernel only",
            self.flags
        )
    }

    fn handle(&self) -> Result<Box<dyn Store>, Failure> {
        Ok(Box::new(self.clone()))
    }

    fn read(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        let transaction = self.environment.read_txn()?;
        let Some(found) = self.records.get(&transaction, key)? else { return Ok(false) };
        value.clear();
        value.extend_from_slice(found);
        Ok(true)
    }

    fn update(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let mut transaction = self.environment.write_txn()?;
        self.records.put(&mut transaction, key, value)?;
        Ok(transaction.commit()?)
    }

    fn transact(&mut self, records: &mut [Rewrite]) -> Result<u64, Failure> {
        // One writer at a time: nobody can get in between.
        let mut transaction = self.environment.write_txn()?;
        for record in records.iter_mut() {
            let found = self.records.get(&transaction, &record.key)?;
            record.set_found(found);
        }
        for record in records.iter() {
            self.records.put(&mut transaction, &record.key, &record.value)?;
        }
        transaction.commit()?;
        Ok(0)
    }

    fn scan(
        &mut self,
        start: &[u8],
        count: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        let transaction = self.environment.read_txn()?;
        let range = (Bound::Included(start), Bound::Unbounded);
        for entry in self.records.range(&transaction, &range)?.take(count) {
            let (key, value) = entry?;
            visit(key, value);
        }
        Ok(())
    }

    fn read_many(
        &mut self,
        keys: &[Vec<u8>],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Failure> {
        let transaction = self.environment.read_txn()?;
        for (index, key) in keys.iter().enumerate() {
            visit(index, self.records.get(&transaction, key)?);
        }
        Ok(())
    }

    fn scan_all(
        &mut self,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        let transaction = self.environment.read_txn()?;
        let mut show =
            |entry: heed::Result<(&[u8], &[u8])>| entry.map(|(key, value)| visit(key, value));
        match direction {
            Direction::Forward => self.records.iter(&transaction)?.try_for_each(&mut show)?,
            Direction::Backward => self.records.rev_iter(&transaction)?.try_for_each(&mut show)?,
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Failure> {
        Ok(self.environment.force_sync()?)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.environment.prepare_for_closing().wait();
        Ok(())
    }
}
