//! The facts that a table states about itself, so that a lost manifest can be rebuilt from tables.
//!
//! ```text
//! properties = records, deletes, range tombstones, raw bytes,
//!              smallest and largest sequence number    varints
//!              flags u8                                1: the largest key is exclusive
//!              smallest key, largest key               length varint and bytes
//! ```

use super::meta::TableMeta;
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::file_name::FileNumber;

const LARGEST_EXCLUSIVE: u8 = 1;

/// Appends the properties to `out`.
pub(super) fn encode_properties(meta: &TableMeta, out: &mut Vec<u8>) {
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
    out.push(if meta.largest_exclusive { LARGEST_EXCLUSIVE } else { 0 });
    put_bytes(out, &meta.smallest);
    put_bytes(out, &meta.largest);
}

/// Reads properties of the table `number`, a file of `file_bytes`.
pub(super) fn decode_properties(
    payload: &[u8],
    number: FileNumber,
    file_bytes: u64,
) -> Option<TableMeta> {
    let mut fields = Decoder::new(payload);
    let meta = TableMeta {
        number,
        file_bytes,
        entries: fields.varint()?,
        deletions: fields.varint()?,
        range_tombstones: fields.varint()?,
        raw_bytes: fields.varint()?,
        smallest_sequence: fields.varint()?,
        largest_sequence: fields.varint()?,
        largest_exclusive: match fields.u8()? {
            0 => false,
            LARGEST_EXCLUSIVE => true,
            _ => return None,
        },
        smallest: fields.bytes()?.to_vec(),
        largest: fields.bytes()?.to_vec(),
    };
    fields.is_empty().then_some(meta)
}
