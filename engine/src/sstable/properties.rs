//! The facts that a table states about itself, so that a lost manifest can be rebuilt from tables.
//!
//! ```text
//! properties = records, deletes, range tombstones, raw bytes,
//!              smallest and largest sequence number    varints
//!              flags u8                                1: the largest key is exclusive; 2: values expire;
//!                                                      4: values lie in value files; 8 and 16: the filter
//!                                                      knows stems of a B-Tree, of a Hash index
//!              smallest key, largest key               length varint and bytes
//!              if values expire: how many, and when
//!              more than half of the records will have varints
//!              if values lie in value files: count, then for each file its number and
//!              the bytes that the table points to     varints
//!              file id u64                             drawn at random when the file is begun
//! ```
//!
//! The file id tells a table from any other that was written under the same number, as happens when a database is restored or
//! copied and both go on. Tables that end in front of it have the id 0, which says nothing.

use super::meta::TableMeta;
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::file_name::FileNumber;
use crate::index::{FilterKeys, IndexType};
use crate::values::format::{decode_shares, encode_shares};

const LARGEST_EXCLUSIVE: u8 = 1;
const EXPIRING: u8 = 2;
const SEPARATED: u8 = 4;
const BTREE_STEMS: u8 = 8;
const HASH_STEMS: u8 = 16;

/// What a table says about itself.
pub(super) struct Properties {
    pub(super) meta: TableMeta,
    pub(super) file_id: u64,
    /// What the filter knows, if there is one.
    pub(super) filter_keys: FilterKeys,
}

/// Appends the properties to `out`.
pub(super) fn encode_properties(
    meta: &TableMeta,
    file_id: u64,
    filter_keys: FilterKeys,
    out: &mut Vec<u8>,
) {
    for number in [
        meta.entries,
        meta.deletions,
        meta.range_tombstones,
        meta.raw_bytes,
        meta.smallest_sequence,
        meta.largest_sequence,
    ] {
        put_varint(out, number);
    }
    let exclusive = if meta.largest_exclusive { LARGEST_EXCLUSIVE } else { 0 };
    let expiring = if meta.expiring > 0 { EXPIRING } else { 0 };
    let separated = if meta.values.is_empty() { 0 } else { SEPARATED };
    let stems = match filter_keys {
        FilterKeys::Whole => 0,
        FilterKeys::Stems(IndexType::BTree) => BTREE_STEMS,
        FilterKeys::Stems(IndexType::Hash) => HASH_STEMS,
    };
    out.push(exclusive | expiring | separated | stems);
    put_bytes(out, &meta.smallest);
    put_bytes(out, &meta.largest);
    if meta.expiring > 0 {
        put_varint(out, meta.expiring);
        put_varint(out, meta.half_expired_at);
    }
    if !meta.values.is_empty() {
        encode_shares(&meta.values, out);
    }
    out.extend_from_slice(&file_id.to_le_bytes());
}

/// Reads properties of the table `number`, a file of `file_bytes`.
pub(super) fn decode_properties(
    payload: &[u8],
    number: FileNumber,
    file_bytes: u64,
) -> Option<Properties> {
    let mut fields = Decoder::new(payload);
    let mut meta = TableMeta {
        number,
        file_bytes,
        entries: fields.varint()?,
        deletions: fields.varint()?,
        range_tombstones: fields.varint()?,
        raw_bytes: fields.varint()?,
        smallest_sequence: fields.varint()?,
        largest_sequence: fields.varint()?,
        largest_exclusive: false,
        expiring: 0,
        half_expired_at: u64::MAX,
        values: Vec::new(),
        smallest: Vec::new(),
        largest: Vec::new(),
    };
    let flags = fields.u8()?;
    if flags & !(LARGEST_EXCLUSIVE | EXPIRING | SEPARATED | BTREE_STEMS | HASH_STEMS) != 0 {
        return None;
    }
    let filter_keys = match flags & (BTREE_STEMS | HASH_STEMS) {
        0 => FilterKeys::Whole,
        BTREE_STEMS => FilterKeys::Stems(IndexType::BTree),
        HASH_STEMS => FilterKeys::Stems(IndexType::Hash),
        _ => return None,
    };
    meta.largest_exclusive = flags & LARGEST_EXCLUSIVE != 0;
    meta.smallest = fields.bytes()?.to_vec();
    meta.largest = fields.bytes()?.to_vec();
    if flags & EXPIRING != 0 {
        meta.expiring = fields.varint().filter(|&count| count > 0)?;
        meta.half_expired_at = fields.varint()?;
    }
    if flags & SEPARATED != 0 {
        meta.values = decode_shares(&mut fields).filter(|shares| !shares.is_empty())?;
    }
    let file_id = if fields.is_empty() { 0 } else { fields.u64()? };
    fields.is_empty().then_some(Properties { meta, file_id, filter_keys })
}
