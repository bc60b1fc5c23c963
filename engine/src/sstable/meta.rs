//! What the manifest remembers of a table: enough to decide, without opening the file, whether a read or a compaction needs it.

use std::cmp::Ordering;

use crate::file_name::FileNumber;
use crate::key::{KeyspaceId, Sequence};
use crate::kinds::expiry::Millis;
use crate::values::ValueShare;

/// Facts of one finished table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableMeta {
    pub(crate) number: FileNumber,
    /// Size of the file.
    pub(crate) file_bytes: u64,
    /// Point records.
    pub(crate) entries: u64,
    /// Point records that are deletes.
    pub(crate) deletions: u64,
    /// Point records whose value expires.
    pub(crate) expiring: u64,
    /// When more than half of the point records will have expired; the largest number if that never happens.
    pub(crate) half_expired_at: Millis,
    /// What point records point to, by file number.
    pub(crate) values: Vec<ValueShare>,
    /// Range tombstones.
    pub(crate) range_tombstones: u64,
    /// Bytes of full keys and values of all point records, before compression.
    pub(crate) raw_bytes: u64,
    /// The smallest full key that the table says anything about.
    pub(crate) smallest: Vec<u8>,
    /// The largest full key, or the exclusive end of the last range tombstone.
    pub(crate) largest: Vec<u8>,
    /// True if `largest` itself is not covered.
    pub(crate) largest_exclusive: bool,
    /// The oldest record.
    pub(crate) smallest_sequence: Sequence,
    /// The newest record.
    pub(crate) largest_sequence: Sequence,
}

impl TableMeta {
    /// True if more than half of the records have expired at `now`.
    pub(crate) fn is_expired(&self, now: Millis) -> bool {
        self.expiring > 0 && self.half_expired_at <= now
    }

    /// The keyspace of all its keys: tables never hold more than one.
    pub(crate) fn keyspace(&self) -> KeyspaceId {
        KeyspaceId::of(&self.smallest).unwrap_or(KeyspaceId::DEFAULT)
    }

    /// True if every key of the table sorts before `key`.
    #[inline]
    pub(crate) fn ends_before(&self, key: &[u8]) -> bool {
        match self.largest.as_slice().cmp(key) {
            Ordering::Less => true,
            Ordering::Equal => self.largest_exclusive,
            Ordering::Greater => false,
        }
    }

    /// True if the table may say something about `key`.
    #[cfg(test)]
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        self.smallest.as_slice() <= key && !self.ends_before(key)
    }

    /// True if the key ranges of the two tables meet.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        !self.ends_before(&other.smallest) && !other.ends_before(&self.smallest)
    }
}
