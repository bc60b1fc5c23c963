//! Keys as the tree orders them.
//!
//! ```text
//! full key     = keyspace id (4 bytes, big-endian) | user key (1 to 65536 bytes)
//! internal key = full key | trailer
//! trailer      = sequence number (56 bits) << 8 | kind (8 bits)
//! ```
//!
//! Internal keys are ordered by full key ascending (bytes, unsigned), then by trailer **descending**, so that the newest
//! version of a key comes first. Every layer below the public API speaks of *full keys*; `key: &[u8]` there means one.

use std::cmp::Ordering;

use crate::limits::{KEYSPACE_PREFIX_BYTES, SEQUENCE_MAX};

/// A position in the order of all writes; 0 is before the first.
pub(crate) type Sequence = u64;

/// What a record says about its key. The numbers are part of every file format since version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum ValueKind {
    /// The key is gone.
    Delete = 0,
    /// The key has this value.
    Put = 1,
    /// The merge operator of the keyspace applies this operand to the version below.
    Merge = 2,
    /// The key has a value, which lies in a value file: see `values/mod.rs`. Only in tables.
    ValuePointer = 3,
    /// The key has a value that expires: see `kinds/expiry.rs`.
    PutExpiring = 4,
    /// All keys from the key (inclusive) to the value (exclusive) are gone.
    RangeDelete = 5,
}

impl ValueKind {
    /// The kind with this number, if there is one.
    pub(crate) fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Delete,
            1 => Self::Put,
            2 => Self::Merge,
            3 => Self::ValuePointer,
            4 => Self::PutExpiring,
            5 => Self::RangeDelete,
            _ => return None,
        })
    }
}

/// Sequence number and kind in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Trailer(pub(crate) u64);

impl Trailer {
    /// Sorts before every version of a key, whatever its sequence number.
    pub(crate) const NEWEST: Self = Self(u64::MAX);

    /// Sorts after every version of a key.
    pub(crate) const OLDEST: Self = Self(0);

    /// Joins a sequence number and a kind.
    pub(crate) fn new(sequence: Sequence, kind: ValueKind) -> Self {
        debug_assert!(sequence <= SEQUENCE_MAX, "sequence {sequence} out of range");
        Self(sequence << 8 | kind as u64)
    }

    /// The trailer to seek with, to find the newest version that a reader at `sequence` may see.
    pub(crate) fn seek(sequence: Sequence) -> Self {
        Self(sequence << 8 | 0xff)
    }

    /// The same kind with another sequence number.
    pub(crate) fn with_sequence(self, sequence: Sequence) -> Self {
        debug_assert!(sequence <= SEQUENCE_MAX, "sequence {sequence} out of range");
        Self(sequence << 8 | (self.0 & 0xff))
    }

    /// The sequence number.
    pub(crate) fn sequence(self) -> Sequence {
        self.0 >> 8
    }

    /// The kind, if the low byte is a known one.
    pub(crate) fn kind(self) -> Option<ValueKind> {
        ValueKind::from_u8((self.0 & 0xff) as u8)
    }
}

/// The order of internal keys.
#[inline]
pub(crate) fn compare_internal(
    a_key: &[u8],
    a_trailer: Trailer,
    b_key: &[u8],
    b_trailer: Trailer,
) -> Ordering {
    compare_versions(a_key, a_trailer, b_key, b_trailer).0
}

/// The order of internal keys, and whether they are versions of one key.
#[inline]
pub(crate) fn compare_versions(
    a_key: &[u8],
    a_trailer: Trailer,
    b_key: &[u8],
    b_trailer: Trailer,
) -> (Ordering, bool) {
    let keys = a_key.cmp(b_key);
    (keys.then_with(|| b_trailer.cmp(&a_trailer)), keys.is_eq())
}

/// A keyspace's number, the first part of each of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyspaceId(pub(crate) u32);

impl KeyspaceId {
    /// The keyspace that exists from the start and that `Database`'s own methods use.
    pub(crate) const DEFAULT: Self = Self(0);

    /// The bytes in front of each of the keyspace's keys.
    pub(crate) fn prefix(self) -> [u8; KEYSPACE_PREFIX_BYTES] {
        self.0.to_be_bytes()
    }

    /// The keyspace that a full key belongs to.
    pub(crate) fn of(full_key: &[u8]) -> Option<Self> {
        full_key.first_chunk().map(|prefix| Self(u32::from_be_bytes(*prefix)))
    }
}

/// The first 8 bytes of `bytes` as a number that compares as the bytes do; missing bytes count as zero.
#[inline]
pub(crate) fn head_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(padded(bytes))
}

/// The first bytes of `bytes`; missing ones are zero.
#[inline]
pub(crate) fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    if let Some(chunk) = bytes.first_chunk() {
        return *chunk;
    }
    let mut padded = [0; N];
    padded[..bytes.len()].copy_from_slice(bytes);
    padded
}

/// How many bytes two keys begin with in common.
pub(crate) fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    // Words first: keys may have hundreds of bytes in common.
    let (a_words, b_words) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let words = a_words.iter().zip(b_words).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[8 * words..], &b[8 * words..]);
    8 * words + a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The one hash of a full key: filters, tags and conflict tables all use its bits.
#[inline]
pub(crate) fn hash_key(full_key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(full_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_sort_first_and_heads_compare_as_bytes() {
        let new = Trailer::new(9, ValueKind::Put);
        let old = Trailer::new(8, ValueKind::Delete);
        assert_eq!(compare_internal(b"a", new, b"a", old), Ordering::Less);
        assert_eq!(compare_internal(b"a", old, b"b", new), Ordering::Less);
        assert!(Trailer::seek(9) > new && Trailer::seek(8) < new);
        let mut keys: Vec<&[u8]> = vec![b"", b"a", b"ab", b"abcdefgh", b"abcdefgz", b"b", b"\xff"];
        keys.sort();
        assert!(keys.windows(2).all(|pair| head_of(pair[0]) <= head_of(pair[1])));
    }

    #[test]
    fn common_prefixes_end_where_keys_differ_or_one_ends() {
        let key: Vec<u8> = (0..40).collect();
        for len in 0..=key.len() {
            assert_eq!(common_prefix_len(&key, &key[..len]), len);
            let mut other = key.clone();
            if let Some(byte) = other.get_mut(len) {
                *byte ^= 0x80;
            }
            assert_eq!(common_prefix_len(&other, &key), len);
        }
    }

    #[test]
    fn kinds_survive_their_number() {
        for byte in 0..=255 {
            if let Some(kind) = ValueKind::from_u8(byte) {
                assert_eq!(kind as u8, byte);
                assert_eq!(Trailer::new(7, kind).kind(), Some(kind));
            }
        }
        assert_eq!(ValueKind::from_u8(6), None);
    }
}
