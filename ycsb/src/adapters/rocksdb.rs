//! RocksDB, once tuned for this work and once as it comes.

use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, Options, ReadOptions,
    WaitForCompactOptions, WriteOptions,
};

use crate::error::Failure;
use crate::store::{Durability, OpenSpec, Store};

/// Log files kept for reuse: overwriting one costs less to make durable than growing a new one.
const RECYCLED_LOGS: usize = 4;

struct RocksDb {
    database: Arc<DB>,
    write: WriteOptions,
    read: ReadOptions,
    sync: bool,
    configuration: String,
}

pub(super) fn open_tuned(spec: &OpenSpec) -> Result<Box<dyn Store>, Failure> {
    let cache = Cache::new_hyper_clock_cache(usize::try_from(spec.cache_bytes)?, 0);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    table.set_bloom_filter(10.0, false);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table.set_data_block_hash_ratio(0.75);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.increase_parallelism(i32::try_from(cores.max(2))?);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None);
    options.set_recycle_log_file_num(RECYCLED_LOGS);
    options.set_memtable_prefix_bloom_ratio(0.02);
    options.set_memtable_whole_key_filtering(true);
    options.set_bytes_per_sync(1 << 20);
    let text = format!(
        "tuned: no compression, hyper clock cache of {} MiB, bloom filters of 10 bits a \
         key, hash index in blocks, \
         {RECYCLED_LOGS} recycled logs, memtable bloom filter, {} background threads",
        spec.cache_bytes >> 20,
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
    let database = Arc::new(DB::open(options, &spec.directory)?);
    let sync = spec.durability == Durability::Sync;
    let configuration = format!("RocksDB, {text}, WriteOptions.sync={sync}");
    Ok(Box::new(RocksDb::new(database, sync, configuration)))
}

impl RocksDb {
    fn new(database: Arc<DB>, sync: bool, configuration: String) -> Self {
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
        let Some(found) = self.database.get_pinned_opt(key, &self.read)? else { return Ok(false) };
        value.clear();
        value.extend_from_slice(&found);
        Ok(true)
    }

    fn update(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        Ok(self.database.put_opt(key, value, &self.write)?)
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        Ok(self.database.put_opt(key, value, &self.write)?)
    }

    fn scan(
        &mut self,
        start: &[u8],
        count: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        let mut iterator = self.database.raw_iterator();
        iterator.seek(start);
        for position in 0..count {
            if position > 0 {
                iterator.next();
            }
            let Some((key, value)) = iterator.item() else { break };
            visit(key, value);
        }
        Ok(iterator.status()?)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        let mut options = WaitForCompactOptions::default();
        options.set_flush(true);
        Ok(self.database.wait_for_compact(&options)?)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        // The last reference closes the database.
        Arc::into_inner(self.database).map(drop).ok_or("a thread still holds the database".into())
    }
}
