//! Writes one table front to back.
//!
//! Records go into data blocks, blocks go to the sink as they fill up, and what describes them follows at the end. Memory is
//! bounded by one block, the index and 8 bytes of hash for each key. An unfinished file has no footer and is never mistaken
//! for a table.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use rustlite_io::FileSink;

use super::block_builder::BlockBuilder;
use super::compression::{Codec, check_writable, compress};
use super::filter::{build_filter, filter_bytes};
use super::format::{BLOCK_TRAILER_BYTES, FOOTER_BYTES, Footer, Handle, Identity};
use super::index::{IndexBuilder, shortest_separator};
use super::meta::TableMeta;
use super::properties::encode_properties;
use super::table::TableEnv;
use super::tombstones::encode_tombstones;
use crate::error::{Error, Result};
use crate::file_name::{FileName, FileNumber};
use crate::index::FilterKeys;
use crate::key::{Trailer, ValueKind, compare_versions, hash_key};
use crate::kinds::expiry::{self, Millis};
use crate::manifest::KeyspaceDescriptor;
use crate::options::Compression;
use crate::range_tombstones::RangeTombstones;
use crate::values::{Pointer, ValueShare};

/// Uncompressed blocks end at multiples of this where that costs little: a block in one page costs one page to read.
pub(super) const PAGE_BYTES: usize = 4096;

/// A block that misses the end of a page by less than one part in so many is padded to it.
const PADDING_SHARE: usize = 16;

/// Filter and index begin at a cache line.
const LINE_BYTES: u64 = 64;

/// How a table is laid out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableOptions {
    pub(crate) block_bytes: usize,
    pub(crate) compression: Compression,
    pub(crate) filter_bits_per_key: u32,
    pub(crate) filter_keys: FilterKeys,
}

impl From<&KeyspaceDescriptor> for TableOptions {
    fn from(keyspace: &KeyspaceDescriptor) -> Self {
        let options = &keyspace.options;
        Self {
            block_bytes: options.block_bytes,
            compression: options.compression,
            filter_bits_per_key: options.filter_bits_per_key,
            filter_keys: FilterKeys::of_keyspace(keyspace),
        }
    }
}

/// A table in the making.
pub(crate) struct TableWriter {
    env: TableEnv,
    identity: Identity,
    /// Never 0.
    file_id: u64,
    options: TableOptions,
    codec: Codec,
    sink: Box<dyn FileSink>,
    /// Bytes given to the sink.
    offset: u64,
    block: BlockBuilder,
    /// Size at which the current block ends.
    block_limit: usize,
    /// The last block written, which waits for its separator.
    ended_block: Option<(u64, Codec)>,
    index: IndexBuilder,
    hashes: Vec<u64>,
    /// When each value that expires does so.
    expiries: Vec<Millis>,
    /// Bytes that records point to, by value file.
    pointed_to: BTreeMap<FileNumber, u64>,
    last_key: Vec<u8>,
    last_trailer: Trailer,
    tombstones: RangeTombstones,
    /// What is known so far; the bounds are filled in at the end.
    meta: TableMeta,
    /// Scratch: an encoded block, its compressed form, a separator.
    encoded: Vec<u8>,
    compressed: Vec<u8>,
    separator: Vec<u8>,
}

impl TableWriter {
    /// Creates the file of table `number`.
    pub(crate) fn create(
        env: &TableEnv,
        number: FileNumber,
        options: TableOptions,
    ) -> Result<Self> {
        let codec = Codec::from(options.compression);
        check_writable(codec)?;
        let path = FileName::Table(number).path(&env.directory);
        let sink = env.fs.create_sink(&path)?;
        let mut writer = Self {
            env: env.clone(),
            identity: Identity { path, database_id: env.database_id, number },
            file_id: env.fs.random_u64().max(1),
            options,
            codec,
            sink,
            offset: 0,
            block: BlockBuilder::default(),
            block_limit: 0,
            ended_block: None,
            index: IndexBuilder::default(),
            hashes: Vec::new(),
            expiries: Vec::new(),
            pointed_to: BTreeMap::new(),
            last_key: Vec::new(),
            last_trailer: Trailer::NEWEST,
            tombstones: RangeTombstones::empty(),
            meta: TableMeta {
                number,
                file_bytes: 0,
                entries: 0,
                deletions: 0,
                expiring: 0,
                half_expired_at: Millis::MAX,
                values: Vec::new(),
                range_tombstones: 0,
                raw_bytes: 0,
                smallest: Vec::new(),
                largest: Vec::new(),
                largest_exclusive: false,
                smallest_sequence: u64::MAX,
                largest_sequence: 0,
            },
            encoded: Vec::new(),
            compressed: Vec::new(),
            separator: Vec::new(),
        };
        writer.block_limit = writer.next_block_limit();
        Ok(writer)
    }

    /// Adds a record. Records come in internal-key order.
    pub(crate) fn add(&mut self, key: &[u8], trailer: Trailer, value: &[u8]) -> Result<()> {
        let first = self.meta.entries == 0;
        let (order, same_key) = compare_versions(&self.last_key, self.last_trailer, key, trailer);
        if !first && order.is_ge() {
            return Err(Error::internal("records reach a table writer out of order"));
        }
        let same_key = !first && same_key;
        let mut with = self.block.extent_with(key, trailer, value);
        if self.block.must_end_before(&with, self.block_limit) {
            self.end_block()?;
            with = self.block.extent_with(key, trailer, value);
        }
        if let Some((offset, codec)) = self.ended_block.take() {
            if same_key {
                self.index.add(key, offset, codec);
            } else {
                shortest_separator(&self.last_key, key, &mut self.separator);
                self.index.add(&self.separator, offset, codec);
            }
        }
        let hash = hash_key(key);
        if !same_key {
            if self.options.filter_bits_per_key > 0 {
                self.add_to_filter(key, hash);
            }
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
        }
        self.last_trailer = trailer;
        self.block.add(with, key, trailer, value, hash);
        if first {
            self.meta.smallest = key.to_vec();
        }
        self.meta.entries += 1;
        self.note_kind(trailer, value)?;
        self.meta.raw_bytes += (key.len() + value.len()) as u64;
        self.note_sequence(trailer.sequence());
        Ok(())
    }

    /// Adds a key with this hash to the filter.
    fn add_to_filter(&mut self, key: &[u8], hash: u64) {
        match self.options.filter_keys {
            FilterKeys::Whole => self.hashes.push(hash),
            keys @ FilterKeys::Stems(_) => {
                let hash = hash_key(keys.part_of(key));
                // Keys with the same stem follow each other.
                if self.hashes.last() != Some(&hash) {
                    self.hashes.push(hash);
                }
            }
        }
    }

    /// Counts what is more than a value.
    fn note_kind(&mut self, trailer: Trailer, value: &[u8]) -> Result<()> {
        match trailer.kind() {
            Some(ValueKind::Delete) => self.meta.deletions += 1,
            Some(ValueKind::PutExpiring) => self.expiries.push(expiry::split(value)?.0),
            Some(ValueKind::ValuePointer) => {
                let pointer = Pointer::decode(value)?;
                *self.pointed_to.entry(pointer.file).or_default() += pointer.stored_bytes();
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds range tombstones, at any time and in any order.
    pub(crate) fn add_range_tombstones(&mut self, set: &RangeTombstones) {
        if !set.is_empty() {
            self.tombstones = RangeTombstones::union([&self.tombstones, set]);
        }
    }

    /// About the size of the file if it were finished now.
    pub(crate) fn estimated_bytes(&self) -> u64 {
        let filter = match self.hashes.len() {
            0 => 0,
            keys => filter_bytes(keys, self.options.filter_bits_per_key),
        };
        let block = if self.block.is_empty() { 0 } else { self.block.encoded_bytes() };
        self.offset + (block + filter + self.index.encoded_bytes() + FOOTER_BYTES) as u64
    }

    /// True if nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.meta.entries == 0 && self.tombstones.is_empty()
    }

    /// The key of the last record; empty if there is none.
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Writes what describes the records and makes the content durable; the directory is the caller's to sync. On an
    /// error the file is removed.
    pub(crate) fn finish(mut self) -> Result<TableMeta> {
        match self.write_rest() {
            Ok(()) => Ok(self.meta),
            Err(error) => {
                self.abandon();
                Err(error)
            }
        }
    }

    /// Gives up and removes the file. Should that fail, the file is an orphan that the next open removes.
    pub(crate) fn abandon(self) {
        let Self { env, identity, sink, .. } = self;
        drop(sink);
        if let Err(error) = env.fs.remove(&identity.path) {
            tracing::warn!(%error, "an unfinished table stays behind");
        }
    }

    fn note_sequence(&mut self, sequence: u64) {
        self.meta.smallest_sequence = self.meta.smallest_sequence.min(sequence);
        self.meta.largest_sequence = self.meta.largest_sequence.max(sequence);
    }

    /// The size that the next block should not exceed, its trailer not counted.
    fn next_block_limit(&self) -> usize {
        let target = self.options.block_bytes;
        let mut limit = target;
        if self.codec == Codec::None && target >= PAGE_BYTES {
            // End where a page ends, even if the block before did not.
            let into_page = (self.offset % PAGE_BYTES as u64) as usize;
            limit = (into_page + target) / PAGE_BYTES * PAGE_BYTES - into_page;
            if limit < target / 2 {
                limit += PAGE_BYTES;
            }
        }
        limit - BLOCK_TRAILER_BYTES
    }

    /// Writes the current block. Its separator follows when the next key is known.
    fn end_block(&mut self) -> Result<()> {
        self.encoded.clear();
        self.block.finish(&mut self.encoded);
        let compressed = compress(self.codec, &self.encoded, &mut self.compressed);
        let (bytes, codec) = if compressed {
            (&mut self.compressed, self.codec)
        } else {
            let end = self.offset as usize + self.encoded.len() + BLOCK_TRAILER_BYTES;
            let padding = end.next_multiple_of(PAGE_BYTES) - end;
            if self.codec == Codec::None && padding <= self.options.block_bytes / PADDING_SHARE {
                self.encoded.resize(self.encoded.len() + padding, 0);
            }
            (&mut self.encoded, Codec::None)
        };
        self.identity.seal(self.offset, codec, bytes);
        self.sink.append(bytes)?;
        self.ended_block = Some((self.offset, codec));
        self.offset += bytes.len() as u64;
        self.block_limit = self.next_block_limit();
        Ok(())
    }

    fn write_rest(&mut self) -> Result<()> {
        if self.is_empty() {
            return Err(Error::internal("an empty table must be abandoned, not finished"));
        }
        if !self.block.is_empty() {
            self.end_block()?;
        }
        if let Some((offset, codec)) = self.ended_block.take() {
            self.index.add(&self.last_key, offset, codec);
        }
        self.settle_bounds();
        self.settle_expiry();
        let shares = self.pointed_to.iter();
        self.meta.values = shares.map(|(&file, &bytes)| ValueShare { file, bytes }).collect();
        let data_end = self.offset;
        let filter = self.write_filter()?;
        let mut payload = Vec::new();
        if !self.index.finish(data_end, &mut payload) {
            return Err(Error::internal("a table's index has outgrown its format"));
        }
        self.align()?;
        let index = self.write_block(payload)?;
        let tombstones = if self.tombstones.is_empty() {
            Handle::default()
        } else {
            let mut payload = Vec::new();
            encode_tombstones(&self.tombstones, &mut payload);
            self.write_block(payload)?
        };
        let mut payload = Vec::new();
        encode_properties(&self.meta, self.file_id, self.options.filter_keys, &mut payload);
        let properties = self.write_block(payload)?;
        let footer = Footer { filter, index, tombstones, properties, data_end };
        self.sink.append(&footer.encode(&self.identity, self.offset))?;
        self.meta.file_bytes = self.offset + FOOTER_BYTES as u64;
        self.sink.finish()?;
        Ok(())
    }

    /// Fills in the smallest and largest key, which a range tombstone may be the one to set.
    fn settle_bounds(&mut self) {
        self.meta.largest.clone_from(&self.last_key);
        let no_records = self.meta.entries == 0;
        let tombstones = std::mem::replace(&mut self.tombstones, RangeTombstones::empty());
        for (start, end, sequences) in tombstones.fragments() {
            self.meta.range_tombstones += sequences.len() as u64;
            for &sequence in sequences {
                self.note_sequence(sequence);
            }
            if self.meta.smallest.is_empty() || start < self.meta.smallest.as_slice() {
                self.meta.smallest = start.to_vec();
            }
            let order = end.cmp(&self.meta.largest);
            if no_records || order == Ordering::Greater {
                self.meta.largest = end.to_vec();
                self.meta.largest_exclusive = true;
            }
        }
        self.tombstones = tombstones;
    }

    /// When the table will be worth rewriting for what has expired in it.
    fn settle_expiry(&mut self) {
        self.meta.expiring = self.expiries.len() as u64;
        let half = (self.meta.entries / 2) as usize;
        if half < self.expiries.len() {
            self.meta.half_expired_at = *self.expiries.select_nth_unstable(half).1;
        }
    }

    fn write_filter(&mut self) -> Result<Handle> {
        if self.hashes.is_empty() {
            return Ok(Handle::default());
        }
        self.align()?;
        let mut payload = Vec::new();
        build_filter(&self.hashes, self.options.filter_bits_per_key, &mut payload);
        self.write_block(payload)
    }

    fn write_block(&mut self, mut payload: Vec<u8>) -> Result<Handle> {
        self.identity.seal(self.offset, Codec::None, &mut payload);
        self.sink.append(&payload)?;
        let handle = Handle { offset: self.offset, len: payload.len() as u64 };
        self.offset += handle.len;
        Ok(handle)
    }

    fn align(&mut self) -> Result<()> {
        let padding = self.offset.next_multiple_of(LINE_BYTES) - self.offset;
        self.sink.append(&[0; LINE_BYTES as usize][..padding as usize])?;
        self.offset += padding;
        Ok(())
    }
}
