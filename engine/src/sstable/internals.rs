//! What [`crate::internals`] shows of tables.

use std::path::Path;
use std::sync::Arc;

use rustlite_io::{FileSystem, SimFileSystem};

use super::block::BlockView;
use super::block_builder::BlockBuilder;
use super::filter::build_filter;
use super::{BlockCache, Table, TableEnv, TableOptions, TableWriter};
use crate::error::Result;
use crate::index::FilterKeys;
use crate::key::{Trailer, ValueKind, hash_key};
use crate::limits::SEQUENCE_MAX;
use crate::manifest::LiveFiles;
use crate::options::KeyspaceOptions;
use crate::values::ValueFiles;

/// Number of the only table.
const TABLE: u64 = 7;

/// A data block of its own.
#[derive(Debug, Clone)]
pub struct Block {
    bytes: Vec<u8>,
}

impl Block {
    /// A block of these records, whose keys ascend and fit into one.
    #[must_use]
    pub fn build(records: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut builder = BlockBuilder::default();
        for (number, (key, value)) in records.iter().enumerate() {
            let trailer = Trailer::new(number as u64 + 1, ValueKind::Put);
            let with = builder.extent_with(key, trailer, value);
            builder.add(with, key, trailer, value, hash_key(key));
        }
        let mut bytes = Vec::new();
        builder.finish(&mut bytes);
        Self { bytes }
    }

    /// Length of the value of `key`, found by its hash as a point read does.
    #[must_use]
    pub fn find(&self, key: &[u8], hash: u64) -> Option<usize> {
        let record = BlockView::parse(&self.bytes)?.find(key, hash, SEQUENCE_MAX)??;
        Some(record.value.len())
    }

    /// How many records come before `key`, found by the heads as a seek does.
    #[must_use]
    pub fn seek(&self, key: &[u8]) -> Option<usize> {
        BlockView::parse(&self.bytes)?.lower_bound(key, Trailer::NEWEST)
    }
}

/// A filter of its own.
#[derive(Debug, Clone)]
pub struct Filter {
    bytes: Vec<u8>,
    filter: super::filter::Filter,
}

impl Filter {
    /// The filter of the keys with these hashes, at least one.
    #[must_use]
    pub fn build(hashes: &[u64], bits_per_key: u32) -> Option<Self> {
        let mut bytes = Vec::new();
        build_filter(hashes, bits_per_key, &mut bytes);
        let filter = super::filter::Filter::parse(&bytes, 0)?;
        Some(Self { bytes, filter })
    }

    /// Whether a key with this hash may be among them.
    #[must_use]
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(&self.bytes, hash)
    }
}

/// A table in memory, without a database around it.
pub struct SortedTable(Arc<Table>);

impl SortedTable {
    /// A table of these records, whose keys ascend.
    ///
    /// # Errors
    /// None with such records.
    pub fn build(records: &[(Vec<u8>, Vec<u8>)]) -> Result<Self> {
        let fs: Arc<dyn FileSystem> = SimFileSystem::new(1);
        let directory = Path::new("/table").to_path_buf();
        fs.create_dir_all(&directory)?;
        let cache = Arc::new(BlockCache::new(1 << 20));
        let values = ValueFiles::new(&LiveFiles::new(|| ()));
        let env = TableEnv {
            fs,
            directory,
            database_id: 1,
            cache,
            values,
            verify_always: false,
            residency: Arc::default(),
        };
        let KeyspaceOptions { block_bytes, compression, filter_bits_per_key, .. } =
            KeyspaceOptions::default();
        let filter_keys = FilterKeys::Whole;
        let options = TableOptions { block_bytes, compression, filter_bits_per_key, filter_keys };
        let mut writer = TableWriter::create(&env, TABLE, options)?;
        for (number, (key, value)) in records.iter().enumerate() {
            writer.add(key, Trailer::new(number as u64 + 1, ValueKind::Put), value)?;
        }
        let meta = writer.finish()?;
        Ok(Self(Table::open(&env, &meta)?))
    }

    /// Length of the value of `key`, asking filter, index and block.
    ///
    /// # Errors
    /// None with a table of ours.
    pub fn get(&self, key: &[u8]) -> Result<Option<usize>> {
        let hash = hash_key(key);
        if !self.0.may_contain(key, hash) {
            return Ok(None);
        }
        let found = self.0.get(key, hash, SEQUENCE_MAX)?;
        Ok(found.map(|(_, value)| self.0.value(&value).len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<(Vec<u8>, Vec<u8>)> {
        (0..30u64).map(|number| (number.to_be_bytes().to_vec(), vec![1; number as usize])).collect()
    }

    #[test]
    fn block_filter_and_table_know_their_records() {
        let records = records();
        let (block, table) = (Block::build(&records), SortedTable::build(&records).unwrap());
        let hashes: Vec<u64> = records.iter().map(|(key, _)| hash_key(key)).collect();
        let filter = Filter::build(&hashes, 10).unwrap();
        for (number, (key, _)) in records.iter().enumerate() {
            assert_eq!(block.find(key, hash_key(key)), Some(number));
            assert_eq!(block.seek(key), Some(number));
            assert_eq!(table.get(key).unwrap(), Some(number));
            assert!(filter.may_contain(hash_key(key)));
        }
        let absent = 99u64.to_be_bytes();
        assert_eq!(block.find(&absent, hash_key(&absent)), None);
        assert_eq!(block.seek(&absent), Some(30));
        assert_eq!(table.get(&absent).unwrap(), None);
    }
}
