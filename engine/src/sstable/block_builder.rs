//! Collects sorted records and lays them out as one data block.
//!
//! Keys and values are staged until the block is full, because only then the common prefix of its keys is known. The size of
//! the block to come is kept exact enough to end it before a limit. See [`block`](super::block) for the diagram.

use super::block::{BLOCK_HEADER_BYTES, BlockLayout, HEAD_BYTES, tag_of};
use crate::coding::{put_varint, varint_len};
use crate::key::{Trailer, common_prefix_len, head_of};

/// Prefix lengths are 16 bits wide.
const PREFIX_BYTES_MAX: usize = u16::MAX as usize;

/// Record counts are 16 bits wide.
const RECORDS_MAX: usize = u16::MAX as usize;

/// Record offsets are 16 bits wide.
const RECORD_OFFSET_MAX: usize = u16::MAX as usize;

struct Staged {
    key_end: usize,
    key_len: usize,
    value_end: usize,
    trailer: Trailer,
    tag: u8,
}

/// How large a block is, but for the number of its records.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    /// Length of the common prefix of all keys.
    prefix_len: usize,
    /// Bytes of all keys after prefix and head.
    rest_bytes: usize,
    /// Upper bound of the bytes of all records' lengths, sequence numbers and kinds.
    field_bytes: usize,
    value_bytes: usize,
    /// Upper bound of the last record's offset.
    offset: usize,
}

impl Extent {
    fn encoded_bytes(&self, records: usize) -> usize {
        let layout = BlockLayout::new(records, self.prefix_len);
        layout.records_at() + self.field_bytes + self.rest_bytes + self.value_bytes
    }
}

/// A data block in the making.
#[derive(Default)]
pub(super) struct BlockBuilder {
    keys: Vec<u8>,
    values: Vec<u8>,
    records: Vec<Staged>,
    extent: Extent,
}

impl BlockBuilder {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Size of the block as it stands; a few bytes too large at most.
    pub(super) fn encoded_bytes(&self) -> usize {
        self.extent.encoded_bytes(self.records.len())
    }

    /// The block as it would be with another record, which sorts last.
    pub(super) fn extent_with(&self, key: &[u8], trailer: Trailer, value: &[u8]) -> Extent {
        let prefix_len = self.prefix_with(key);
        let rest_before = self.rest_bytes_with(prefix_len);
        let rest_bytes = rest_before + rest_len(key.len(), prefix_len);
        let field_bytes = self.extent.field_bytes + field_bytes(key, trailer, value);
        let offset = self.extent.field_bytes + rest_before + self.values.len();
        let value_bytes = self.values.len() + value.len();
        Extent { prefix_len, rest_bytes, field_bytes, value_bytes, offset }
    }

    /// True if the record with which the block would have this extent makes it larger than `limit`, or does not fit the format. An empty
    /// block takes any record.
    pub(super) fn must_end_before(&self, with: &Extent, limit: usize) -> bool {
        let is_full = self.records.len() >= RECORDS_MAX || with.offset > RECORD_OFFSET_MAX;
        !self.is_empty() && (is_full || with.encoded_bytes(self.records.len() + 1) > limit)
    }

    /// Appends a record, with which the block has this extent. `hash` is the key's.
    pub(super) fn add(
        &mut self,
        with: Extent,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        hash: u64,
    ) {
        self.extent = with;
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value);
        self.records.push(Staged {
            key_end: self.keys.len(),
            key_len: key.len(),
            value_end: self.values.len(),
            trailer,
            tag: tag_of(hash),
        });
    }

    /// The length of the prefix once `key`, which sorts last, is in the block.
    fn prefix_with(&self, key: &[u8]) -> usize {
        if self.is_empty() {
            return key.len().min(PREFIX_BYTES_MAX);
        }
        // Keys are sorted: what the first and the last share, all share.
        let prefix = &self.keys[..self.extent.prefix_len];
        if key.starts_with(prefix) {
            return prefix.len();
        }
        common_prefix_len(prefix, key)
    }

    /// Bytes of the staged keys after a prefix of `prefix_len` and their heads.
    fn rest_bytes_with(&self, prefix_len: usize) -> usize {
        if prefix_len == self.extent.prefix_len {
            return self.extent.rest_bytes;
        }
        self.records.iter().map(|record| rest_len(record.key_len, prefix_len)).sum()
    }

    /// Appends the block to `out` and starts anew.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        let prefix_len = self.extent.prefix_len;
        let layout = BlockLayout::new(self.records.len(), prefix_len);
        out.reserve(self.encoded_bytes());
        out.extend_from_slice(&(self.records.len() as u16).to_le_bytes());
        out.extend_from_slice(&(prefix_len as u16).to_le_bytes());
        out.resize(start + BLOCK_HEADER_BYTES, 0);
        out.extend(self.records.iter().map(|record| record.tag));
        let tags_end = (out.len() - start - BLOCK_HEADER_BYTES).next_multiple_of(16);
        out.resize(start + BLOCK_HEADER_BYTES + tags_end, 0);
        out.extend_from_slice(&self.keys[..prefix_len]);
        let heads_at = start + layout.records_at() - self.records.len() * (HEAD_BYTES + 2);
        out.resize(heads_at, 0);
        for record in &self.records {
            let suffix = &self.keys[record.key_end - record.key_len + prefix_len..record.key_end];
            out.extend_from_slice(&head_of(suffix).to_le_bytes());
        }
        let offsets_at = out.len();
        let records_at = start + layout.records_at();
        out.resize(records_at, 0);
        let mut value_start = 0;
        for (index, record) in self.records.iter().enumerate() {
            let offset = (out.len() - records_at) as u16;
            let slot = offsets_at + index * 2;
            out[slot..slot + 2].copy_from_slice(&offset.to_le_bytes());
            let suffix = &self.keys[record.key_end - record.key_len + prefix_len..record.key_end];
            put_varint(out, suffix.len() as u64);
            put_varint(out, record.trailer.sequence());
            out.push(record.trailer.0 as u8);
            put_varint(out, (record.value_end - value_start) as u64);
            out.extend_from_slice(suffix.get(HEAD_BYTES..).unwrap_or_default());
            out.extend_from_slice(&self.values[value_start..record.value_end]);
            value_start = record.value_end;
        }
        self.clear();
    }

    fn clear(&mut self) {
        // One huge value must not be paid for until the table is finished.
        const KEEP_BYTES: usize = 1 << 20;
        self.keys.clear();
        self.values.clear();
        self.values.shrink_to(KEEP_BYTES);
        self.records.clear();
        self.extent = Extent::default();
    }
}

fn rest_len(key_len: usize, prefix_len: usize) -> usize {
    key_len.saturating_sub(prefix_len + HEAD_BYTES)
}

fn field_bytes(key: &[u8], trailer: Trailer, value: &[u8]) -> usize {
    let lengths = varint_len(key.len() as u64) + varint_len(value.len() as u64);
    lengths + varint_len(trailer.sequence()) + 1
}

#[cfg(test)]
mod tests {
    use super::super::block::BlockView;
    use super::*;
    use crate::key::{ValueKind, hash_key};

    fn build(records: &[(&[u8], u64, &[u8])]) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        for &(key, sequence, value) in records {
            let trailer = Trailer::new(sequence, ValueKind::Put);
            let with = builder.extent_with(key, trailer, value);
            builder.add(with, key, trailer, value, hash_key(key));
        }
        let estimate = builder.encoded_bytes();
        let mut out = Vec::new();
        builder.finish(&mut out);
        assert!(out.len() <= estimate && estimate <= out.len() + 2 * records.len());
        assert!(builder.is_empty());
        out
    }

    #[test]
    fn keys_that_are_prefixes_or_zero_padded_forms_of_each_other_are_told_apart() {
        let keys: [&[u8]; 9] = [
            b"p",
            b"p\0",
            b"p\0\0\0\0\0\0\0",
            b"p\0\0\0\0\0\0\0\0",
            b"p\0\0\0\0\0\0\0\0\0",
            b"pabcdefgh",
            b"pabcdefgh\0",
            b"pabcdefghi",
            b"pz",
        ];
        let records: Vec<_> = keys.iter().map(|&key| (key, 0, key)).collect();
        let bytes = build(&records);
        let block = BlockView::parse(&bytes).unwrap();
        assert_eq!(block.prefix(), Some(&b"p"[..]));
        for (index, key) in keys.iter().enumerate() {
            let record = block.find(key, hash_key(key), 0).unwrap().unwrap();
            assert_eq!(&bytes[record.value], *key);
            assert_eq!(block.lower_bound(key, Trailer::NEWEST), Some(index));
            assert_eq!(block.lower_bound(key, Trailer::OLDEST), Some(index + 1));
            let after = [*key, b"\0"].concat();
            let next = keys.partition_point(|&other| other < after.as_slice());
            assert_eq!(block.lower_bound(&after, Trailer::NEWEST), Some(next));
        }
        for absent in [&b""[..], b"o", b"q", b"pabc", b"p\0\0"] {
            assert!(block.find(absent, hash_key(absent), 9).unwrap().is_none());
        }
    }

    #[test]
    fn reader_sees_the_newest_version_at_or_before_its_snapshot() {
        let bytes =
            build(&[(b"a", 5, b"a5"), (b"k", 9, b"k9"), (b"k", 7, b"k7"), (b"k", 2, b"k2")]);
        let block = BlockView::parse(&bytes).unwrap();
        let at = |snapshot| {
            let found = block.find(b"k", hash_key(b"k"), snapshot).unwrap();
            found.map(|record| bytes[record.value].to_vec())
        };
        assert_eq!(at(100).as_deref(), Some(&b"k9"[..]));
        assert_eq!(at(8).as_deref(), Some(&b"k7"[..]));
        assert_eq!(at(6).as_deref(), Some(&b"k2"[..]));
        assert_eq!(at(1), None);
    }

    #[test]
    fn any_bytes_parse_to_records_inside_the_block_or_to_nothing() {
        let good = build(&[(b"key1", 1, b"one"), (b"key22", 300, b"two"), (b"key3", 3, b"")]);
        for at in 0..good.len() {
            for flip in [1_u8, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                let Some(block) = BlockView::parse(&bytes) else { continue };
                for index in 0..block.count() {
                    if let Some(record) = block.record(index) {
                        assert!(record.value.end <= bytes.len());
                    }
                }
                let _ = block.lower_bound(b"key22", Trailer::NEWEST);
                let _ = block.find(b"key22", hash_key(b"key22"), 400);
            }
        }
        for len in 0..good.len() {
            if let Some(block) = BlockView::parse(&good[..len]) {
                let _ = block.find(b"key3", hash_key(b"key3"), 400);
            }
        }
    }
}
