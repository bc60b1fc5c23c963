//! The keys and values of an index's hidden keyspace.
//!
//! ```text
//! key = 0                                                          the index's state, see `state`
//!     | 1 | [hash of the index key, 8 bytes, big-endian] | escaped index key | 0 1 | [primary key]
//!         Hash indexes only                                                        not unique indexes only
//! value of an entry = primary key of a unique index; otherwise empty
//! ```
//!
//! Escaping writes each zero byte as `0 255`. So escaped keys followed by `0 1` are ordered as the index keys are, none is a prefix of
//! another, and `0 2` behind an escaped key is greater than all its entries.
//!
//! A unique index has one key for each index key: equality is a point lookup, and two writers of the same index key are in conflict like
//! two writers of any key.

use std::ops::{Bound, RangeBounds};

use crate::error::{Error, Result};
use crate::index::definition::{IndexDefinition, IndexType};
use crate::key::{KeyspaceId, hash_key};
use crate::limits::{FULL_KEY_BYTES_MAX, KEYSPACE_PREFIX_BYTES};
use crate::read::iter::prefix_range;
use crate::read::visible::KeyRange;

const STATE: u8 = 0;
const ENTRY: u8 = 1;
const AFTER_ENTRIES: u8 = 2;

/// Ends an escaped index key.
const END: [u8; 2] = [0, 1];

/// Greater than every ending.
const BEHIND: [u8; 2] = [0, 2];

/// The shape of an index's entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryFormat {
    /// The hidden keyspace.
    pub(super) keyspace: KeyspaceId,
    pub(super) index_type: IndexType,
    pub(super) unique: bool,
}

/// An entry, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The index key.
    pub key: Vec<u8>,
    /// The key of the row.
    pub primary_key: Vec<u8>,
}

impl EntryFormat {
    pub(super) fn new(keyspace: KeyspaceId, definition: &IndexDefinition) -> Self {
        Self { keyspace, index_type: definition.index_type, unique: definition.unique }
    }

    /// The full key of the index's state.
    pub(super) fn state_key(&self) -> Vec<u8> {
        self.start(STATE)
    }

    fn start(&self, kind: u8) -> Vec<u8> {
        let prefix = self.keyspace.prefix();
        [&prefix[..], &[kind]].concat()
    }

    /// The full key that all entries of an index key begin with, without its ending.
    fn escaped(&self, index_key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(index_key.len() + 48);
        self.write_escaped(index_key, &mut out);
        out
    }

    fn write_escaped(&self, index_key: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.keyspace.prefix());
        out.push(ENTRY);
        if self.index_type == IndexType::Hash {
            out.extend_from_slice(&hash_key(index_key).to_be_bytes());
        }
        if !index_key.contains(&0) {
            out.extend_from_slice(index_key);
            return;
        }
        for part in index_key.split_inclusive(|&byte| byte == 0) {
            out.extend_from_slice(part);
            if part.last() == Some(&0) {
                out.push(0xff);
            }
        }
    }

    /// The full key that all entries of an index key begin with; for a unique index it is the entry's.
    pub(super) fn stem(&self, index_key: &[u8]) -> Vec<u8> {
        let mut out = self.escaped(index_key);
        out.extend_from_slice(&END);
        out
    }

    /// The full key of the entry of a row.
    ///
    /// # Errors
    /// If it would be longer than keys may be.
    pub(super) fn entry_key(&self, index_key: &[u8], primary_key: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(index_key.len() + primary_key.len() + 48);
        self.write_entry_key(index_key, primary_key, &mut out)?;
        Ok(out)
    }

    /// Makes `out` the full key of the entry of a row.
    ///
    /// # Errors
    /// As [`entry_key`](Self::entry_key).
    pub(super) fn write_entry_key(
        &self,
        index_key: &[u8],
        primary_key: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.clear();
        self.write_escaped(index_key, out);
        out.extend_from_slice(&END);
        if !self.unique {
            out.extend_from_slice(primary_key);
        }
        if out.len() > FULL_KEY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "an index key of {} bytes is too long: escaped, and with the key of its row, it must \
                 fit into a key",
                index_key.len()
            )));
        }
        Ok(())
    }

    /// The value of the entry of a row.
    pub(super) fn entry_value<'p>(&self, primary_key: &'p [u8]) -> &'p [u8] {
        if self.unique { primary_key } else { &[] }
    }

    /// All entries.
    pub(super) fn all(&self) -> KeyRange {
        KeyRange { start: self.start(ENTRY), end: self.start(AFTER_ENTRIES) }
    }

    /// The entries of one index key.
    pub(super) fn equal(&self, index_key: &[u8]) -> KeyRange {
        let start = self.stem(index_key);
        let mut end = Vec::with_capacity(start.len());
        end.extend_from_slice(start.strip_suffix(&END).unwrap_or(&start));
        end.extend_from_slice(&BEHIND);
        KeyRange { start, end }
    }

    /// The entries between two index keys. Only for B-Tree indexes.
    pub(super) fn between<K: AsRef<[u8]>>(&self, bounds: &impl RangeBounds<K>) -> KeyRange {
        let all = self.all();
        let behind = |key: &K| [self.escaped(key.as_ref()).as_slice(), &BEHIND].concat();
        KeyRange {
            start: match bounds.start_bound() {
                Bound::Unbounded => all.start,
                Bound::Included(key) => self.stem(key.as_ref()),
                Bound::Excluded(key) => behind(key),
            },
            end: match bounds.end_bound() {
                Bound::Unbounded => all.end,
                Bound::Included(key) => behind(key),
                Bound::Excluded(key) => self.stem(key.as_ref()),
            },
        }
    }

    /// The entries whose index keys begin so. Only for B-Tree indexes.
    pub(super) fn prefix(&self, prefix: &[u8]) -> KeyRange {
        self.beginning_with(&self.escaped(prefix))
    }

    fn beginning_with(&self, full_key: &[u8]) -> KeyRange {
        let user_part = full_key.get(KEYSPACE_PREFIX_BYTES..).unwrap_or_default();
        prefix_range(self.keyspace, user_part)
    }

    /// Reads an entry from its key, without the keyspace, and its value. `None` if this is no entry of such an index.
    pub(super) fn decode(&self, key: &[u8], value: &[u8]) -> Option<IndexEntry> {
        let (stem, rest) = key.split_at_checked(stem_len(self.index_type, key)?)?;
        let (hash, escaped) = stem.get(1..)?.split_at_checked(hash_bytes(self.index_type))?;
        let escaped = escaped.strip_suffix(&END)?;
        let mut index_key: Vec<u8> = Vec::with_capacity(escaped.len());
        for part in escaped.split_inclusive(|&byte| byte == 0) {
            // What follows a zero byte is no part of the index key.
            let marks = usize::from(index_key.last() == Some(&0));
            index_key.extend_from_slice(part.get(marks..)?);
        }
        let (primary_key, nothing) = if self.unique { (value, rest) } else { (rest, value) };
        let sound = nothing.is_empty()
            && !primary_key.is_empty()
            && (hash.is_empty() || hash == hash_key(&index_key).to_be_bytes());
        sound.then(|| IndexEntry { key: index_key, primary_key: primary_key.to_vec() })
    }

    /// The primary key of an entry of an index that is not unique, given the length of its stem. `None` if this is no entry of such
    /// an index.
    pub(super) fn primary_key<'k>(
        full_key: &'k [u8],
        value: &[u8],
        stem_len: usize,
    ) -> Option<&'k [u8]> {
        full_key.get(stem_len..).filter(|key| !key.is_empty() && value.is_empty())
    }
}

fn hash_bytes(index_type: IndexType) -> usize {
    match index_type {
        IndexType::BTree => 0,
        IndexType::Hash => size_of::<u64>(),
    }
}

/// How many bytes of an entry's key, without the keyspace, all entries of its index key begin with. `None` if this is no entry of such an
/// index.
pub(super) fn stem_len(index_type: IndexType, key: &[u8]) -> Option<usize> {
    let mut rest = key.strip_prefix(&[ENTRY])?.get(hash_bytes(index_type)..)?;
    loop {
        let zero = rest.iter().position(|&byte| byte == 0)?;
        let (follows, behind) = rest.get(zero + 1..)?.split_first()?;
        rest = behind;
        match follows {
            1 => return Some(key.len() - rest.len()),
            0xff => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(index_type: IndexType, unique: bool) -> EntryFormat {
        EntryFormat { keyspace: KeyspaceId(7), index_type, unique }
    }

    const KEYS: [&[u8]; 10] =
        [b"", b"\0", b"\0\0", b"\0\x01", b"\0\xff", b"a", b"a\0", b"a\0b", b"ab", b"\xff\xff"];

    #[test]
    fn entries_come_back_and_anything_else_is_refused() {
        for index_type in [IndexType::BTree, IndexType::Hash] {
            for unique in [false, true] {
                let format = format(index_type, unique);
                for key in KEYS {
                    let full = format.entry_key(key, b"row\0").unwrap();
                    let value = format.entry_value(b"row\0");
                    let entry = format.decode(&full[4..], value).unwrap();
                    assert_eq!((entry.key.as_slice(), &*entry.primary_key), (key, &b"row\0"[..]));
                    for cut in 4..full.len() {
                        if let Some(other) = format.decode(&full[4..cut], value) {
                            assert_eq!(other.key, key, "only the primary key may be shorter");
                        }
                    }
                }
                assert_eq!(format.decode(&format.state_key()[4..], b""), None);
            }
        }
    }

    #[test]
    fn ranges_of_entries_hold_exactly_the_index_keys_between_the_bounds() {
        let format = format(IndexType::BTree, false);
        let inside = |range: &KeyRange, key: &[u8]| {
            [&b"\x01"[..], b"\xff\xff\xff"].iter().all(|row| {
                let full = format.entry_key(key, row).unwrap();
                range.start <= full && full < range.end
            })
        };
        for low in KEYS {
            for key in KEYS {
                assert_eq!(inside(&format.equal(low), key), key == low);
                assert_eq!(
                    inside(&format.prefix(low), key),
                    key.starts_with(low),
                    "{low:?} {key:?}"
                );
                for high in KEYS {
                    let bounds = [
                        (Bound::Included(low), Bound::Excluded(high)),
                        (Bound::Excluded(low), Bound::Included(high)),
                        (Bound::Unbounded, Bound::Included(high)),
                        (Bound::Excluded(low), Bound::Unbounded),
                    ];
                    for bounds in bounds {
                        let expected = RangeBounds::<&[u8]>::contains(&bounds, &key);
                        let range = format.between::<&[u8]>(&bounds);
                        assert_eq!(inside(&range, key), expected, "{bounds:?} {key:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_entry_must_fit_into_a_key() {
        let format = format(IndexType::BTree, false);
        format.entry_key(&[b'x'; 60_000], b"row").unwrap();
        let error = format.entry_key(&[0; 40_000], b"row").unwrap_err();
        assert!(error.to_string().contains("index key of 40000 bytes"), "{error}");
    }
}
