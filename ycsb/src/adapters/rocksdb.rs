//! RocksDB: tuned for this work, the same with tables read through memory maps, and as it comes.
//!
//! For transactions it is opened as an `OptimisticTransactionDB`. Their reads are
//! `get_for_update`s: that a record is what it was read is checked at commit, and no snapshot is
//! needed.

use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, Cache, ChecksumType, ColumnFamilyDescriptor, DB, DBCompressionType,
    DataBlockIndexType, ErrorKind, OptimisticTransactionDB, OptimisticTransactionOptions, Options,
    ReadOptions, WaitForCompactOptions, WriteOptions,
};

use crate::error::Failure;
use crate::store::{Direction, Durability, OpenSpec, Rewrite, Store};

/// Log files kept for reuse: overwriting one costs less to make durable than growing a new one.
const RECYCLED_LOGS: usize = 4;

/// An open database.
enum Database {
    Plain(DB),
    Optimistic(OptimisticTransactionDB),
}

/// Does something with the database, whichever it is: both have the same methods, but no trait in
/// common that could be named.
macro_rules! each {
    ($database:expr, $inner:ident => $action:expr) => {
        match $database {
            Database::Plain($inner) => $action,
            Database::Optimistic($inner) => $action,
        }
    };
}

struct RocksDb {
    database: Arc<Database>,
    write: WriteOptions,
    read: ReadOptions,
    sync: bool,
    configuration: String,
}

/// The column family that a database always has.
const DEFAULT_FAMILY: &str = "default";

pub(super) fn open_tuned(spec: &OpenSpec) -> Result<Box<dyn Store>, Failure> {
    open_with_tuning(spec, false)
}

pub(super) fn open_mmap(spec: &OpenSpec) -> Result<Box<dyn Store>, Failure> {
    open_with_tuning(spec, true)
}

fn open_with_tuning(spec: &OpenSpec, mmap_reads: bool) -> Result<Box<dyn Store>, Failure> {
    let cache = Cache::new_hyper_clock_cache(usize::try_from(spec.cache_bytes)?, 0);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    table.set_bloom_filter(10.0, false);
    table.set_checksum_type(ChecksumType::XXH3);
    table.set_optimize_filters_for_memory(true);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table.set_data_block_hash_ratio(0.75);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.increase_parallelism(i32::try_from(cores.max(2))?);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None);
    options.set_recycle_log_file_num(RECYCLED_LOGS);
    options.set_allow_mmap_reads(mmap_reads);
    options.set_write_buffer_size(usize::try_from(spec.memtable_bytes)?);
    options.set_memtable_prefix_bloom_ratio(0.02);
    options.set_memtable_whole_key_filtering(true);
    options.set_bytes_per_sync(1 << 20);
    let text = format!(
        "tuned: no compression, {}hyper clock cache of {} MiB, bloom filters of 10 bits a \
         key, hash index in blocks, xxh3, memtables of {} MiB, \
         {RECYCLED_LOGS} recycled logs, memtable bloom filter, {} background threads",
        if mmap_reads { "tables read through memory maps, " } else { "" },
        spec.cache_bytes >> 20,
        spec.memtable_bytes >> 20,
        cores.max(2),
    );
    open(spec, &options, &text)
}

pub(super) fn open_default(spec: &OpenSpec) -> Result<Box<dyn Store>, Failure> {
    let mut options = Options::default();
    options.create_if_missing(true);
    open(spec, &options, "defaults")
}

fn open(spec: &OpenSpec, options: &Options, text: &str) -> Result<Box<dyn Store>, Failure> {
    // Naming the family gives a handle of it, which the batched read of several keys needs.
    let family = ColumnFamilyDescriptor::new(DEFAULT_FAMILY, options.clone());
    let database = if spec.transactions {
        let opened =
            OptimisticTransactionDB::open_cf_descriptors(options, &spec.directory, [family]);
        Database::Optimistic(opened?)
    } else {
        Database::Plain(DB::open_cf_descriptors(options, &spec.directory, [family])?)
    };
    let sync = spec.durability == Durability::Sync;
    let kind = if spec.transactions { " with optimistic transactions" } else { "" };
    let configuration = format!("RocksDB{kind}, {text}, WriteOptions.sync={sync}");
    Ok(Box::new(RocksDb::new(Arc::new(database), sync, configuration)))
}

impl RocksDb {
    fn new(database: Arc<Database>, sync: bool, configuration: String) -> Self {
        let mut write = WriteOptions::default();
        write.set_sync(sync);
        Self { database, write, read: ReadOptions::default(), sync, configuration }
    }
}

impl Store for RocksDb {
    fn configuration(&self) -> String {
        self.configuration.clone()
    }

    fn handle(&self) -> Result<Box<dyn Store>, Failure> {
        Ok(Box::new(Self::new(Arc::clone(&self.database), self.sync, String::new())))
    }

    fn read(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        let Some(found) =
            each!(&*self.database, database => database.get_pinned_opt(key, &self.read))?
        else {
            return Ok(false);
        };
        value.clear();
        value.extend_from_slice(&found);
        Ok(true)
    }

    fn update(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        Ok(each!(&*self.database, database => database.put_opt(key, value, &self.write))?)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Failure> {
        Ok(each!(&*self.database, database => database.delete_opt(key, &self.write))?)
    }

    fn transact(&mut self, records: &mut [Rewrite]) -> Result<u64, Failure> {
        let Database::Optimistic(database) = &*self.database else {
            return Err("the database was not opened for transactions".into());
        };
        let options = OptimisticTransactionOptions::default();
        let mut aborts = 0;
        loop {
            let transaction = database.transaction_opt(&self.write, &options);
            for record in records.iter_mut() {
                let found = transaction.get_pinned_for_update_opt(&record.key, true, &self.read)?;
                record.set_found(found.as_deref());
            }
            for record in records.iter() {
                transaction.put(&record.key, &record.value)?;
            }
            match transaction.commit() {
                Ok(()) => return Ok(aborts),
                Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::TryAgain) => {
                    aborts += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn scan(
        &mut self,
        start: &[u8],
        count: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        each!(&*self.database, database => {
            let mut iterator = database.raw_iterator();
            iterator.seek(start);
            for position in 0..count {
                if position > 0 {
                    iterator.next();
                }
                let Some((key, value)) = iterator.item() else { break };
                visit(key, value);
            }
            Ok(iterator.status()?)
        })
    }

    fn read_many(
        &mut self,
        keys: &[Vec<u8>],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Failure> {
        each!(&*self.database, database => {
            let family = database.cf_handle(DEFAULT_FAMILY).ok_or("no default column family")?;
            let found = database.batched_multi_get_cf_opt(&family, keys, false, &self.read);
            for (index, value) in found.into_iter().enumerate() {
                visit(index, value?.as_deref());
            }
            Ok(())
        })
    }

    fn scan_all(
        &mut self,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        each!(&*self.database, database => {
            let mut iterator = database.raw_iterator();
            match direction {
                Direction::Forward => iterator.seek_to_first(),
                Direction::Backward => iterator.seek_to_last(),
            }
            while let Some((key, value)) = iterator.item() {
                visit(key, value);
                match direction {
                    Direction::Forward => iterator.next(),
                    Direction::Backward => iterator.prev(),
                }
            }
            Ok(iterator.status()?)
        })
    }

    fn settle(&mut self) -> Result<(), Failure> {
        let mut options = WaitForCompactOptions::default();
        options.set_flush(true);
        Ok(each!(&*self.database, database => database.wait_for_compact(&options))?)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        // The last reference closes the database.
        Arc::into_inner(self.database).map(drop).ok_or("a thread still holds the database".into())
    }
}
