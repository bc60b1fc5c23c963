//! What an index is, as its creator declares it and the manifest keeps it.
//!
//! ```text
//! definition = keyspace id (varint) | type (varint: 0 B-Tree, 1 Hash) | flags (varint: bit 0 unique)
//!              | source (varint: 0 manual, 1 extractor, 2 bytes of the key, 3 bytes of the value) | source's own
//! extractor's own = name (length-prefixed)
//! bytes' own      = start (varint) | 0 for "to the end", or end + 1 (varint)
//! ```

use std::ops::{Bound, RangeBounds};

use crate::coding::{Decoder, put_bytes, put_varint};
use crate::error::{Error, Result};
use crate::key::KeyspaceId;
use crate::keyspace::check_name;
use crate::limits::VALUE_BYTES_MAX;

/// How an index is ordered, and so what it can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IndexType {
    /// Ordered by index key: equality, ranges and prefixes, forward and backward.
    BTree,
    /// Ordered by a 64-bit hash of the index key: equality only. Entries of keys with a long common prefix do not crowd together.
    Hash,
}

/// Where the index keys of a row come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexSource {
    /// Code, registered under this name with [`Options::index_extractor`](crate::Options::index_extractor) at every open. It may give
    /// a row any number of index keys, none included.
    Extractor(String),
    /// Bytes of the row's key. A row that is too short has no entry.
    KeyBytes(ByteRange),
    /// Bytes of the row's value. A row that is too short has no entry.
    ValueBytes(ByteRange),
    /// Nothing: entries are made and removed by hand, with [`index_insert`](crate::Database::index_insert) and
    /// [`index_remove`](crate::Database::index_remove).
    Manual,
}

/// Some bytes of a key or a value: from `start` (inclusive) to `end` (exclusive), or all from `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    start: usize,
    end: Option<usize>,
}

impl IndexSource {
    /// The extractor registered under `name`.
    #[must_use]
    pub fn extractor(name: impl Into<String>) -> Self {
        Self::Extractor(name.into())
    }

    /// Bytes of the row's key, for example `key_bytes(0..8)`.
    #[must_use]
    pub fn key_bytes(range: impl RangeBounds<usize>) -> Self {
        Self::KeyBytes(ByteRange::new(&range))
    }

    /// Bytes of the row's value, for example `value_bytes(4..)`.
    #[must_use]
    pub fn value_bytes(range: impl RangeBounds<usize>) -> Self {
        Self::ValueBytes(ByteRange::new(&range))
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::Extractor(name) => check_name("extractor name", name),
            Self::KeyBytes(range) | Self::ValueBytes(range) => range.check(),
            Self::Manual => Ok(()),
        }
    }
}

impl ByteRange {
    fn new(range: &impl RangeBounds<usize>) -> Self {
        Self {
            start: match range.start_bound() {
                Bound::Included(&start) => start,
                Bound::Excluded(&before) => before.saturating_add(1),
                Bound::Unbounded => 0,
            },
            end: match range.end_bound() {
                Bound::Included(&last) => Some(last.saturating_add(1)),
                Bound::Excluded(&end) => Some(end),
                Bound::Unbounded => None,
            },
        }
    }

    fn check(&self) -> Result<()> {
        let end = self.end.unwrap_or(VALUE_BYTES_MAX + 1);
        if self.start < end && end <= VALUE_BYTES_MAX + 1 {
            return Ok(());
        }
        Err(Error::invalid(format!("the byte range {self:?} of the index holds no bytes")))
    }

    /// These bytes of `row`, if it is long enough to have them.
    pub(super) fn of<'r>(&self, row: &'r [u8]) -> Option<&'r [u8]> {
        match self.end {
            Some(end) => row.get(self.start..end),
            None => row.get(self.start..).filter(|bytes| !bytes.is_empty()),
        }
    }
}

/// An index as the manifest knows it; its id, name and options are those of the hidden keyspace of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexDefinition {
    /// The keyspace of the rows.
    pub(crate) keyspace: KeyspaceId,
    pub(crate) index_type: IndexType,
    pub(crate) unique: bool,
    pub(crate) source: IndexSource,
}

impl IndexDefinition {
    pub(crate) fn check(&self) -> Result<()> {
        self.source.check()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.keyspace.0));
        put_varint(out, u64::from(self.index_type == IndexType::Hash));
        put_varint(out, u64::from(self.unique));
        match &self.source {
            IndexSource::Manual => put_varint(out, 0),
            IndexSource::Extractor(name) => {
                put_varint(out, 1);
                put_bytes(out, name.as_bytes());
            }
            IndexSource::KeyBytes(range) => encode_range(out, 2, range),
            IndexSource::ValueBytes(range) => encode_range(out, 3, range),
        }
    }

    /// Reads what [`encode`](Self::encode) has written. `Err(None)` if it is damaged; otherwise what is too new.
    pub(crate) fn decode(field: &mut Decoder<'_>) -> std::result::Result<Self, Option<String>> {
        let keyspace = field.varint().and_then(|id| u32::try_from(id).ok()).ok_or(None)?;
        let index_type = match field.varint().ok_or(None)? {
            0 => IndexType::BTree,
            1 => IndexType::Hash,
            other => return Err(Some(format!("index type {other}"))),
        };
        let flags = field.varint().ok_or(None)?;
        if flags > 1 {
            return Err(Some(format!("index flags {flags:#x}")));
        }
        let source = match field.varint().ok_or(None)? {
            0 => IndexSource::Manual,
            1 => {
                let name = field.bytes().and_then(|name| std::str::from_utf8(name).ok());
                IndexSource::Extractor(name.ok_or(None)?.to_owned())
            }
            2 => IndexSource::KeyBytes(decode_range(field).ok_or(None)?),
            3 => IndexSource::ValueBytes(decode_range(field).ok_or(None)?),
            other => return Err(Some(format!("index source {other}"))),
        };
        source.check().map_err(|_| None)?;
        Ok(Self { keyspace: KeyspaceId(keyspace), index_type, unique: flags == 1, source })
    }
}

fn encode_range(out: &mut Vec<u8>, source: u64, range: &ByteRange) {
    put_varint(out, source);
    put_varint(out, range.start as u64);
    put_varint(out, range.end.map_or(0, |end| end as u64 + 1));
}

fn decode_range(field: &mut Decoder<'_>) -> Option<ByteRange> {
    let start = field.varint_max(VALUE_BYTES_MAX)?;
    let end = field.varint_max(VALUE_BYTES_MAX + 2)?.checked_sub(1);
    Some(ByteRange { start, end })
}
