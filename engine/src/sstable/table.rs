//! An open table: point reads in the map, and what cursors and streams need to find and check blocks.
//!
//! Opening reads and checks everything but the data blocks. A data block is brought into memory and its checksum verified when
//! it is first touched; a bit per block remembers that, so a hot read makes no system call and computes no checksum. A medium
//! that cannot deliver a block is an error to the reader that asked. Compressed blocks are verified each time they are
//! decompressed and then live in the block cache.

use std::fmt::{self, Debug};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustlite_io::{Advice, FileSystem, Mapping};

use super::block::{BlockView, prefetch_arrays};
use super::cache::{Block, BlockCache};
use super::compression::{Codec, decompress};
use super::cursor::TableCursor;
use super::filter::Filter;
use super::format::{BLOCK_TRAILER_BYTES, FOOTER_BYTES, Footer, Handle, Identity};
use super::index::{Index, Place};
use super::meta::TableMeta;
use super::properties::{Properties, decode_properties};
use super::residency::Residency;
use super::stream::TableStream;
use super::tombstones::decode_tombstones;
use super::writer::PAGE_BYTES;
use crate::error::{Error, Result};
use crate::file_name::FileName;
use crate::index::FilterKeys;
use crate::key::{Sequence, Trailer, compare_internal, hash_key};
use crate::range_tombstones::RangeTombstones;
use crate::values::{ValueFile, ValueFiles};

/// What all tables of a database share.
#[derive(Debug, Clone)]
pub(crate) struct TableEnv {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) directory: PathBuf,
    pub(crate) database_id: u64,
    pub(crate) cache: Arc<BlockCache>,
    /// The value files that are open.
    pub(crate) values: Arc<ValueFiles>,
    /// Verify checksums at every read of an uncompressed block, not only the first.
    pub(crate) verify_always: bool,
    /// Whether blocks are still in memory.
    pub(crate) residency: Arc<Residency>,
}

/// An open table. Keeps its file readable even after the file was removed.
pub(crate) struct Table {
    pub(super) env: TableEnv,
    pub(super) identity: Identity,
    pub(super) map: Mapping,
    pub(super) footer: Footer,
    pub(super) index: Index,
    filter: Option<Filter>,
    /// Which part of keys the filter knows.
    filter_keys: FilterKeys,
    tombstones: Arc<RangeTombstones>,
    /// What its records point to, kept open. In the order of `meta.values`.
    pub(super) values: Vec<Arc<ValueFile>>,
    /// What the file says about itself.
    pub(super) meta: TableMeta,
    file_id: u64,
    /// The sequence number of every record, if the manifest gave the table one when it was ingested; 0 if records have their own. Records
    /// of such a table are stored with the number 0, one for each key.
    given_sequence: Sequence,
    /// A bit for each data block that was brought in and verified. Relaxed: the bytes that it vouches for never change, and
    /// nothing else is published through it. At worst two threads verify the same block.
    verified: Box<[AtomicU64]>,
}

/// Where a value lies: in the table's map, or in a decompressed block that this keeps alive.
#[derive(Debug, Clone)]
pub(crate) struct TableValue {
    block: Option<Arc<Block>>,
    range: Range<usize>,
}

impl TableValue {
    /// The value without its first bytes.
    pub(crate) fn skip(mut self, bytes: usize) -> Self {
        self.range.start = (self.range.start + bytes).min(self.range.end);
        self
    }
}

/// Where a block lies in its table's map that a lookup will search.
pub(crate) struct BlockHint {
    range: Range<usize>,
}

/// The payload of a data block: a range of the map, or a decompressed block.
#[derive(Debug, Clone, Default)]
pub(super) struct DataBlock {
    pub(super) cached: Option<Arc<Block>>,
    pub(super) range: Range<usize>,
}

impl Table {
    /// Opens the table that `meta` describes.
    pub(crate) fn open(env: &TableEnv, meta: &TableMeta) -> Result<Arc<Self>> {
        let number = meta.number;
        let path = FileName::Table(number).path(&env.directory);
        let map = env.fs.map(&path)?;
        let identity = Identity { path, database_id: env.database_id, number };
        let len = map.len() as u64;
        if len != meta.file_bytes {
            let detail = format!("{len} bytes instead of {}", meta.file_bytes);
            return Err(identity.corruption(len.min(meta.file_bytes), "table size", detail));
        }
        map.advise(Advice::Random, 0..map.len());
        map.populate(map.len().saturating_sub(FOOTER_BYTES)..map.len())?;
        let footer = Footer::decode(&identity, &map)?;
        let described = footer.data_end as usize..map.len();
        map.advise(Advice::WillNeed, described.clone());
        map.populate(described)?;

        let index = read_index(&identity, &map, &footer)?;
        let filter = read_filter(&identity, &map, footer.filter)?;
        let tombstones = read_tombstones(&identity, &map, footer.tombstones)?;
        let payload = section(&identity, &map, footer.properties, "table properties")?;
        let in_manifest = meta.largest_sequence;
        let properties = decode_properties(payload, number, len).ok_or_else(|| {
            identity.corruption(footer.properties.offset, "table properties", "malformed")
        })?;
        let Properties { meta, file_id, filter_keys } = properties;
        let values = meta.values.iter().map(|share| env.values.open(env, share.file));
        let values = values.collect::<Result<_>>()?;
        let given_sequence = if meta.largest_sequence == 0 { in_manifest } else { 0 };
        let words = index.count().div_ceil(u64::BITS as usize);
        Ok(Arc::new(Self {
            env: env.clone(),
            identity,
            map,
            footer,
            index,
            filter,
            filter_keys,
            tombstones: Arc::new(tombstones),
            values,
            meta,
            file_id,
            given_sequence,
            verified: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }))
    }

    /// Gives every record this sequence number. For a table whose records have none yet.
    pub(crate) fn set_sequence(&mut self, sequence: Sequence) {
        debug_assert_eq!(self.meta.largest_sequence, 0, "records have their own numbers");
        self.given_sequence = sequence;
    }

    /// What readers see in place of a stored trailer.
    #[inline]
    pub(super) fn effective(&self, stored: Trailer) -> Trailer {
        if self.given_sequence == 0 { stored } else { stored.with_sequence(self.given_sequence) }
    }

    /// True if a seek to (`key`, `trailer`) that found (`found_key`, `found`) must go one further, because the table's own sequence
    /// number puts the record in front of that place.
    #[inline]
    pub(super) fn is_before(
        &self,
        found_key: &[u8],
        found: Trailer,
        key: &[u8],
        trailer: Trailer,
    ) -> bool {
        self.given_sequence != 0
            && compare_internal(found_key, self.effective(found), key, trailer).is_lt()
    }

    /// A number that no other file has, whatever it is called and whichever copy of the database wrote it; 0 if it is not known.
    pub(crate) fn file_id(&self) -> u64 {
        self.file_id
    }

    /// The value files that the table points to.
    pub(crate) fn value_files(&self) -> &[Arc<ValueFile>] {
        &self.values
    }

    /// The table's range tombstones.
    pub(crate) fn range_tombstones(&self) -> &Arc<RangeTombstones> {
        &self.tombstones
    }

    /// Starts bringing in what [`may_contain`](Self::may_contain) or [`may_contain_stem`](Self::may_contain_stem) will read.
    #[inline]
    pub(crate) fn prefetch_filter(&self, hash: u64) {
        if let Some(filter) = &self.filter {
            filter.prefetch(&self.map, hash);
        }
    }

    /// False only if no record of the table has this key, whose hash this is.
    #[inline]
    pub(crate) fn may_contain(&self, key: &[u8], hash: u64) -> bool {
        let Some(filter) = &self.filter else { return true };
        let is_whole = self.filter_keys == FilterKeys::Whole;
        filter.may_contain(&self.map, if is_whole { hash } else { self.hash_of_part(key) })
    }

    /// Out of line, for the sake of tables whose filters know whole keys.
    #[inline(never)]
    fn hash_of_part(&self, key: &[u8]) -> u64 {
        hash_key(self.filter_keys.part_of(key))
    }

    /// False only if no record of the table has a key with the stem that has this hash. For tables of an index that is not unique.
    pub(crate) fn may_contain_stem(&self, hash: u64) -> bool {
        match (&self.filter, self.filter_keys) {
            (Some(filter), FilterKeys::Stems(_)) => filter.may_contain(&self.map, hash),
            // A filter from before filters knew stems.
            _ => true,
        }
    }

    /// The newest version of `key` with a sequence number of at most `snapshot`, be it a value or a delete. Asks neither
    /// the filter nor the range tombstones.
    pub(crate) fn get(
        &self,
        key: &[u8],
        hash: u64,
        snapshot: Sequence,
    ) -> Result<Option<(Trailer, TableValue)>> {
        self.get_from(self.find_block(key)?, key, hash, snapshot)
    }

    /// Like [`get`](Self::get), where [`find_block`](Self::find_block) gave `index` for the key.
    #[inline]
    pub(crate) fn get_from(
        &self,
        mut index: usize,
        key: &[u8],
        hash: u64,
        snapshot: Sequence,
    ) -> Result<Option<(Trailer, TableValue)>> {
        if self.given_sequence > snapshot {
            return Ok(None);
        }
        while let Some(place) = self.index.place(&self.map, index) {
            if lies_across_pages(place) && self.env.residency.asks(hash) {
                self.request_again(index, place);
            }
            let block = self.data_block(index, place)?;
            let bytes = self.bytes_of(&block);
            prefetch_arrays(bytes);
            let found = BlockView::parse(bytes)
                .and_then(|view| view.find(key, hash, snapshot))
                .ok_or_else(|| self.malformed_block(place.offset))?
                .map(|record| (self.effective(record.trailer), record.value));
            if let Some((trailer, value)) = found {
                let DataBlock { cached, range } = block;
                let base = if cached.is_some() { 0 } else { range.start };
                let range = base + value.start..base + value.end;
                return Ok(Some((trailer, TableValue { block: cached, range })));
            }
            if !self.index.separator_is(&self.map, index, key) {
                break;
            }
            index += 1;
        }
        Ok(None)
    }

    /// Starts bringing in the part of the index that [`find_block`](Self::find_block) will search for `key`.
    pub(crate) fn prefetch_index(&self, key: &[u8]) {
        self.index.prefetch(&self.map, key);
    }

    /// Starts bringing in the block that a [`get_from`](Self::get_from) `index` will search: from the medium, if it was never read or may have
    /// left the memory, and its arrays from there if it was read before.
    pub(crate) fn prefetch_block(&self, index: usize, hash: u64) -> Option<BlockHint> {
        let place = self.index.place(&self.map, index)?;
        if place.codec != Codec::None {
            if !self.env.cache.contains(self.identity.number, place.offset) {
                self.request(place);
            }
            return None;
        }
        if !self.is_verified(index) {
            self.request(place);
            return None;
        }
        if self.env.residency.asks(hash) {
            self.request(place);
        }
        let range = place.offset as usize..place.end as usize - BLOCK_TRAILER_BYTES;
        prefetch_arrays(self.map.get(range.clone())?);
        Some(BlockHint { range })
    }

    /// Starts bringing in the records of a block whose keys may have this hash.
    pub(crate) fn prefetch_record(&self, block: &BlockHint, hash: u64) {
        if let Some(view) = self.map.get(block.range.clone()).and_then(BlockView::parse) {
            view.prefetch_records(hash);
        }
    }

    /// True if the block was brought in and verified before.
    #[inline]
    pub(super) fn is_verified(&self, index: usize) -> bool {
        let bit = 1 << (index % u64::BITS as usize);
        let word = self.verified.get(index / u64::BITS as usize);
        word.is_some_and(|word| word.load(Relaxed) & bit != 0)
    }

    /// The bytes of a value that [`get`](Self::get) of this table found.
    #[inline]
    pub(crate) fn value<'a>(&'a self, value: &'a TableValue) -> &'a [u8] {
        let bytes: &[u8] = match &value.block {
            Some(block) => &block.bytes,
            None => &self.map,
        };
        bytes.get(value.range.clone()).expect("a value lies in the table that it came from")
    }

    /// A cursor over the map, for reads.
    pub(crate) fn cursor(self: &Arc<Self>) -> TableCursor {
        TableCursor::new(Arc::clone(self))
    }

    /// A forward-only cursor that reads the file front to back, for compactions.
    pub(crate) fn stream(self: &Arc<Self>) -> Result<TableStream> {
        TableStream::new(Arc::clone(self))
    }

    /// Bytes of data blocks before the one that `key` is or would be in.
    pub(crate) fn approximate_offset(&self, key: &[u8]) -> u64 {
        let place = |index| self.index.place(&self.map, index);
        let found = self.index.find(&self.map, key).and_then(place);
        found.map_or(self.index.data_end(), |place| place.offset)
    }

    /// Up to `parts - 1` ascending keys that cut the table into parts of about equal size. A part begins at its key.
    pub(crate) fn block_boundaries(&self, parts: usize) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let data_end = u128::from(self.index.data_end());
        for part in 1..parts {
            let target = (data_end * part as u128 / parts as u128) as u64;
            let block = self.index.blocks_before(&self.map, target);
            if block == 0 || block >= self.index.count() {
                continue;
            }
            if let Some(key) = self.index.separator(&self.map, block - 1)
                && keys.last().is_none_or(|last| *last < key)
            {
                keys.push(key);
            }
        }
        keys
    }

    /// Bytes of index and filter, which reads want in memory.
    pub(crate) fn index_and_filter_bytes(&self) -> u64 {
        self.footer.index.len + self.footer.filter.len
    }

    /// The first block that can hold `key`; the number of blocks if none can.
    #[inline]
    pub(crate) fn find_block(&self, key: &[u8]) -> Result<usize> {
        self.index.find(&self.map, key).ok_or_else(|| {
            self.identity.corruption(self.footer.index.offset, "table index", "malformed")
        })
    }

    /// Block `index`, which lies at `place`, in memory and verified.
    #[inline]
    pub(super) fn data_block(&self, index: usize, place: Place) -> Result<DataBlock> {
        if place.codec != Codec::None {
            return self.compressed_block(place);
        }
        if !self.is_verified(index) || self.env.verify_always {
            self.bring_in(place)?;
            if let Some(word) = self.verified.get(index / u64::BITS as usize) {
                word.fetch_or(1 << (index % u64::BITS as usize), Relaxed);
            }
        }
        let range = place.offset as usize..place.end as usize - BLOCK_TRAILER_BYTES;
        Ok(DataBlock { cached: None, range })
    }

    /// The payload of a block that [`data_block`](Self::data_block) gave.
    #[inline]
    pub(super) fn bytes_of<'a>(&'a self, block: &'a DataBlock) -> &'a [u8] {
        match &block.cached {
            Some(cached) => &cached.bytes,
            None => self.map.get(block.range.clone()).unwrap_or_default(),
        }
    }

    #[cold]
    pub(super) fn malformed_block(&self, offset: u64) -> Error {
        self.identity.corruption(offset, "data block", "lengths or offsets point outside of it")
    }

    fn compressed_block(&self, place: Place) -> Result<DataBlock> {
        let number = self.identity.number;
        if let Some(block) = self.env.cache.get(number, place.offset) {
            return Ok(DataBlock { cached: Some(block), range: 0..0 });
        }
        let payload = self.bring_in(place)?;
        let mut bytes = Vec::new();
        decompress(&self.identity, place.offset, place.codec, payload, &mut bytes)?;
        let block = Arc::new(Block { bytes });
        self.env.cache.insert(number, place.offset, Arc::clone(&block));
        Ok(DataBlock { cached: Some(block), range: 0..0 })
    }

    /// Whether a scan that begins in this block must expect to read blocks from the medium.
    #[inline]
    pub(super) fn doubts(&self, index: usize, place: Place) -> bool {
        if place.codec != Codec::None {
            // What counts for those is the block cache.
            return false;
        }
        let residency = &self.env.residency;
        if !self.is_verified(index) || residency.asks(index as u64) {
            residency.ask(&self.map, place.stored());
        }
        residency.is_doubtful()
    }

    /// Has the kernel begin to read the block, all of its pages at once, if they are not in memory.
    #[cold]
    fn request(&self, place: Place) {
        self.env.residency.request(&self.map, place.stored());
    }

    /// The same for a block that was read before and is searched in the map; others are requested when they are brought in.
    #[cold]
    fn request_again(&self, index: usize, place: Place) {
        if place.codec == Codec::None && self.is_verified(index) {
            self.request(place);
        }
    }

    /// Reads the block's pages in, verifies its checksum, gives its payload.
    #[cold]
    fn bring_in(&self, place: Place) -> Result<&[u8]> {
        let range = place.stored();
        if lies_across_pages(place) {
            self.request(place);
        }
        self.map.populate(range.clone())?;
        let block = self.map.get(range).unwrap_or_default();
        self.check_block(place, block)
    }

    /// The payload of the data block at `place`, whose bytes were read from anywhere.
    pub(super) fn check_block<'a>(&self, place: Place, block: &'a [u8]) -> Result<&'a [u8]> {
        let (codec, payload) = self.identity.unseal(place.offset, block, "data block")?;
        if codec != place.codec {
            let detail = format!("stored as {codec:?}, but its index says {:?}", place.codec);
            return Err(self.identity.corruption(place.offset, "data block", detail));
        }
        Ok(payload)
    }
}

impl Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({}, {} blocks)", self.identity.path.display(), self.index.count())
    }
}

/// A block within one page is read in with one request whoever asks for it.
#[inline]
fn lies_across_pages(place: Place) -> bool {
    const PAGE: u64 = PAGE_BYTES as u64;
    place.offset / PAGE != place.end.saturating_sub(1) / PAGE
}

/// The payload of a block that is never compressed.
fn section<'a>(
    identity: &Identity,
    file: &'a [u8],
    handle: Handle,
    what: &'static str,
) -> Result<&'a [u8]> {
    let block = file.get(handle.range()).unwrap_or_default();
    match identity.unseal(handle.offset, block, what)? {
        (Codec::None, payload) => Ok(payload),
        (codec, _) => {
            Err(identity.corruption(handle.offset, what, format!("stored with codec {codec:?}")))
        }
    }
}

fn read_index(identity: &Identity, file: &[u8], footer: &Footer) -> Result<Index> {
    let payload = section(identity, file, footer.index, "table index")?;
    Index::parse(payload, footer.index.offset as usize, footer.data_end)
        .map_err(|detail| identity.corruption(footer.index.offset, "table index", detail))
}

fn read_filter(identity: &Identity, file: &[u8], handle: Handle) -> Result<Option<Filter>> {
    if handle.len == 0 {
        return Ok(None);
    }
    let payload = section(identity, file, handle, "table filter")?;
    match Filter::parse(payload, handle.offset as usize) {
        Some(filter) => Ok(Some(filter)),
        None => Err(identity.corruption(handle.offset, "table filter", "malformed")),
    }
}

fn read_tombstones(identity: &Identity, file: &[u8], handle: Handle) -> Result<RangeTombstones> {
    const WHAT: &str = "range tombstones";
    if handle.len == 0 {
        return Ok(RangeTombstones::empty());
    }
    let payload = section(identity, file, handle, WHAT)?;
    decode_tombstones(payload)
        .ok_or_else(|| identity.corruption(handle.offset, WHAT, "malformed or out of order"))
}
