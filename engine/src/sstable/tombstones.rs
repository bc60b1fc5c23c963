//! The block of a table's range tombstones.
//!
//! ```text
//! block    = fragments varint, fragment*
//! fragment = start, end          length varint and bytes each
//!            count varint        at least 1
//!            sequence number*    varints, newest first
//! ```
//!
//! Fragments are sorted and do not overlap. That is checked, and so is the memory that all tombstones would take one by one,
//! because a small hostile block could otherwise ask for far more memory than it has bytes.

use crate::coding::{Decoder, put_bytes, put_varint};
use crate::key::Sequence;
use crate::limits::{BLOCK_ENCODED_BYTES_MAX, SEQUENCE_MAX};
use crate::range_tombstones::RangeTombstones;

/// Appends the fragments of `set` to `out`.
pub(super) fn encode_tombstones(set: &RangeTombstones, out: &mut Vec<u8>) {
    put_varint(out, set.len() as u64);
    for (start, end, sequences) in set.fragments() {
        put_bytes(out, start);
        put_bytes(out, end);
        put_varint(out, sequences.len() as u64);
        for &sequence in sequences {
            put_varint(out, sequence);
        }
    }
}

/// Reads what [`encode_tombstones`] wrote; `None` if it is anything else.
pub(super) fn decode_tombstones(payload: &[u8]) -> Option<RangeTombstones> {
    let mut fields = Decoder::new(payload);
    let count = fields.varint()?;
    let mut tombstones: Vec<(Vec<u8>, Vec<u8>, Sequence)> = Vec::new();
    let mut last_end: &[u8] = &[];
    let mut memory = 0_usize;
    for _ in 0..count {
        let (start, end) = (fields.bytes()?, fields.bytes()?);
        if start >= end || start < last_end {
            return None;
        }
        last_end = end;
        let sequences = fields.varint()?;
        let mut newer = SEQUENCE_MAX + 1;
        for _ in 0..sequences {
            let sequence = fields.varint()?;
            if sequence >= newer {
                return None;
            }
            newer = sequence;
            memory += start.len() + end.len();
            if memory > BLOCK_ENCODED_BYTES_MAX {
                return None;
            }
            tombstones.push((start.to_vec(), end.to_vec(), sequence));
        }
        if newer > SEQUENCE_MAX {
            return None;
        }
    }
    fields.is_empty().then(|| RangeTombstones::from_tombstones(tombstones))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> RangeTombstones {
        let range = |start: &[u8], end: &[u8], sequence| (start.to_vec(), end.to_vec(), sequence);
        RangeTombstones::from_tombstones([
            range(b"a", b"m", 5),
            range(b"c", b"z", 9),
            range(b"zz", b"zzz", 1),
        ])
    }

    #[test]
    fn tombstones_round_trip() {
        let mut bytes = Vec::new();
        encode_tombstones(&set(), &mut bytes);
        assert_eq!(decode_tombstones(&bytes), Some(set()));
    }

    #[test]
    fn any_damage_gives_a_set_or_nothing() {
        let mut good = Vec::new();
        encode_tombstones(&set(), &mut good);
        for len in 0..good.len() {
            assert_eq!(decode_tombstones(&good[..len]), None, "{len}");
        }
        for at in 0..good.len() {
            for flip in [1, 0x40, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                let _ = decode_tombstones(&bytes);
            }
        }
    }

    #[test]
    fn overlapping_fragments_are_refused() {
        let mut bytes = vec![2];
        for (start, end) in [(b"a", b"k"), (b"b", b"c")] {
            put_bytes(&mut bytes, start);
            put_bytes(&mut bytes, end);
            bytes.extend([1, 7]);
        }
        assert_eq!(decode_tombstones(&bytes), None);
    }
}
