//! A data block, searched where it lies.
//!
//! ```text
//! block  = count u16               records, at least 1
//!          prefix length u16
//!          reserved u32            zero
//!          tags [u8; count]        8 bits of each key's hash; zero padded to a multiple of 16
//!          prefix                  what all keys of the block begin with; zero padded to a multiple of 8
//!          heads [u64; count]      first 8 bytes of each key after the prefix, as numbers; missing bytes are zero
//!          offsets [u16; count]    where each record begins, counted from the first
//!          record*
//!          padding                 perhaps zeros up to the end of a page
//!
//! record = key length after the prefix varint
//!          sequence number varint, kind u8
//!          value length varint
//!          key bytes after prefix and head
//!          value
//! ```
//!
//! Count, prefix length and the tags of 48 records share the first cache line, so that a point read finds its record with one
//! line of tags, one of heads, one of offsets and the record itself. A seek is a binary search among the heads.
//! Nothing is believed: every access is checked against the block's bytes, and what does not fit is `None`.

use std::cmp::Ordering;
use std::ops::Range;

use crate::coding::{Decoder, varint_in};
use crate::key::{Sequence, Trailer, head_of};
use crate::limits::SEQUENCE_MAX;
use crate::simd::{TAG_LANES, match_tags, prefetch};

/// Count, prefix length and reserved bytes.
pub(super) const BLOCK_HEADER_BYTES: usize = 8;

/// Width of a head.
pub(super) const HEAD_BYTES: usize = 8;

/// Where the arrays of a block of one page mostly end.
const ARRAYS_BYTES: usize = 448;

/// Lines of a record that are brought in ahead: key and the begin of the value.
const RECORD_LINES: usize = 3;

/// Starts bringing in the arrays of a block that is about to be searched: a search touches a line of each in turn, and waiting
/// for them together is cheaper than one after the other.
#[inline]
pub(super) fn prefetch_arrays(block: &[u8]) {
    for line in block.chunks(64).take(ARRAYS_BYTES / 64) {
        prefetch(line);
    }
}

/// The tag of a key: bits of its hash that the filter does not use.
#[inline]
pub(super) fn tag_of(hash: u64) -> u8 {
    (hash >> 32) as u8
}

/// Where a block's arrays begin.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BlockLayout {
    count: u32,
    prefix_len: u32,
    prefix_at: u32,
    heads_at: u32,
    offsets_at: u32,
    records_at: u32,
}

impl BlockLayout {
    /// The layout of a block with `count` records and a prefix of `prefix_len` bytes.
    pub(super) fn new(count: usize, prefix_len: usize) -> Self {
        let prefix_at = BLOCK_HEADER_BYTES + count.next_multiple_of(TAG_LANES);
        let heads_at = prefix_at + prefix_len.next_multiple_of(8);
        let offsets_at = heads_at + HEAD_BYTES * count;
        Self {
            count: count as u32,
            prefix_len: prefix_len as u32,
            prefix_at: prefix_at as u32,
            heads_at: heads_at as u32,
            offsets_at: offsets_at as u32,
            records_at: (offsets_at + 2 * count) as u32,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    pub(super) fn prefix_len(&self) -> usize {
        self.prefix_len as usize
    }

    pub(super) fn records_at(&self) -> usize {
        self.records_at as usize
    }
}

/// A record, as it lies in its block.
#[derive(Debug, Clone)]
pub(super) struct Record<'a> {
    /// Length of the key after the prefix.
    pub(super) suffix_len: usize,
    pub(super) trailer: Trailer,
    /// The key after prefix and head.
    pub(super) rest: &'a [u8],
    /// Where the value is, counted from the start of the block. Its end is where the next record begins.
    pub(super) value: Range<usize>,
}

/// What a record begins with.
struct RecordHeader {
    suffix_len: usize,
    trailer: Trailer,
    value_len: usize,
    /// Bytes that all this takes.
    width: usize,
}

impl RecordHeader {
    /// Reads a header with a length of the key of one byte, a sequence number of up to seven, and a length of the value of up to two,
    /// all at once. `None` if it is another.
    #[inline(always)]
    fn read_usual(input: &[u8; 16]) -> Option<Self> {
        let input = u128::from_le_bytes(*input);
        let suffix_len = (input as u8 & 0x7f) as usize;
        let (sequence, sequence_width) = varint_in((input >> 8) as u64)?;
        let behind = (input >> (8 + 8 * sequence_width)) as u64;
        let (low, high) = ((behind >> 8) & 0x7f, (behind >> 9) & 0x3f80);
        let is_short = behind & 0x8000 == 0;
        if input as u8 >= 0x80 || (!is_short && behind & 0x80_0000 != 0) {
            return None;
        }
        Some(Self {
            suffix_len,
            trailer: Trailer(sequence << 8 | (behind & 0xff)),
            value_len: (if is_short { low } else { low | high }) as usize,
            width: sequence_width + if is_short { 3 } else { 4 },
        })
    }

    #[inline(never)]
    fn read_any(input: &[u8]) -> Option<Self> {
        let mut fields = Decoder::new(input);
        let suffix_len = fields.varint_max(input.len() + HEAD_BYTES)?;
        let sequence = fields.varint().filter(|&sequence| sequence <= SEQUENCE_MAX)?;
        let kind = fields.u8()?;
        let value_len = fields.varint_max(input.len())?;
        let trailer = Trailer(sequence << 8 | u64::from(kind));
        let width = input.len() - fields.remaining();
        Some(Self { suffix_len, trailer, value_len, width })
    }
}

impl Record<'_> {
    /// The order of this record's key and `suffix`, both after the prefix, given that their heads are equal.
    #[inline]
    fn compare_after_head(&self, suffix: &[u8]) -> Ordering {
        let rest = suffix.get(HEAD_BYTES..).unwrap_or_default();
        // Heads pad with zeros: of two keys with the same bytes so far, the shorter one sorts first.
        self.rest.cmp(rest).then_with(|| self.suffix_len.cmp(&suffix.len()))
    }
}

/// Where a key lies relative to the keys of a block.
enum Place<'k> {
    Before,
    After,
    /// Shares the prefix; this is what follows it.
    Within(&'k [u8]),
}

/// A block's bytes and where its arrays begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockView<'a> {
    bytes: &'a [u8],
    layout: BlockLayout,
}

impl<'a> BlockView<'a> {
    /// Reads the header; `None` if the arrays do not fit into `bytes`.
    #[inline]
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; BLOCK_HEADER_BYTES] = bytes.first_chunk()?;
        let [count_low, count_high, prefix_low, prefix_high, ..] = *header;
        let count = usize::from(u16::from_le_bytes([count_low, count_high]));
        let prefix_len = usize::from(u16::from_le_bytes([prefix_low, prefix_high]));
        let layout = BlockLayout::new(count, prefix_len);
        (count > 0 && layout.records_at() <= bytes.len()).then_some(Self { bytes, layout })
    }

    /// A block whose header was read before.
    #[inline]
    pub(super) fn with_layout(bytes: &'a [u8], layout: BlockLayout) -> Self {
        Self { bytes, layout }
    }

    pub(super) fn layout(&self) -> BlockLayout {
        self.layout
    }

    pub(super) fn count(&self) -> usize {
        self.layout.count()
    }

    #[inline]
    pub(super) fn prefix(&self) -> Option<&'a [u8]> {
        self.bytes.get(self.layout.prefix_at as usize..)?.get(..self.layout.prefix_len())
    }

    #[inline]
    fn heads(&self) -> Option<&'a [[u8; HEAD_BYTES]]> {
        let heads =
            self.bytes.get(self.layout.heads_at as usize..self.layout.offsets_at as usize)?;
        Some(heads.as_chunks().0)
    }

    #[inline]
    pub(super) fn head(&self, index: usize) -> Option<u64> {
        let at = self.layout.heads_at as usize + index * HEAD_BYTES;
        Some(u64::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }

    pub(super) fn tag(&self, index: usize) -> Option<u8> {
        self.bytes.get(BLOCK_HEADER_BYTES + index).copied()
    }

    /// Where record `index` begins, counted from the start of the block.
    #[inline]
    pub(super) fn record_offset(&self, index: usize) -> Option<usize> {
        let at = self.layout.offsets_at as usize + index * 2;
        let offset = u16::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?);
        Some(self.layout.records_at() + usize::from(offset))
    }

    /// The record that begins at byte `at` of the block.
    #[inline(always)]
    pub(super) fn record_at(&self, at: usize) -> Option<Record<'a>> {
        let input = self.bytes.get(at..)?;
        let header = match input.first_chunk().and_then(RecordHeader::read_usual) {
            Some(header) => header,
            None => RecordHeader::read_any(input)?,
        };
        let rest_at = at + header.width;
        let value_at = rest_at + header.suffix_len.saturating_sub(HEAD_BYTES);
        let value_end = value_at + header.value_len;
        if value_end > self.bytes.len() {
            return None;
        }
        Some(Record {
            suffix_len: header.suffix_len,
            trailer: header.trailer,
            rest: self.bytes.get(rest_at..value_at)?,
            value: value_at..value_end,
        })
    }

    /// Record `index`.
    #[inline]
    pub(super) fn record(&self, index: usize) -> Option<Record<'a>> {
        self.record_at(self.record_offset(index)?)
    }

    #[inline]
    fn place<'k>(&self, key: &'k [u8]) -> Option<Place<'k>> {
        let prefix = self.prefix()?;
        if let Some(suffix) = key.strip_prefix(prefix) {
            return Some(Place::Within(suffix));
        }
        // Not equal to the prefix where both have bytes, or too short: then it sorts before the prefix.
        Some(if key < prefix { Place::Before } else { Place::After })
    }

    /// The newest version of `key` with a sequence number of at most `snapshot`.
    #[inline]
    pub(super) fn find(
        &self,
        key: &[u8],
        hash: u64,
        snapshot: Sequence,
    ) -> Option<Option<Record<'a>>> {
        let Place::Within(suffix) = self.place(key)? else { return Some(None) };
        let head = head_of(suffix);
        let tags = self.bytes.get(BLOCK_HEADER_BYTES..self.layout.prefix_at as usize)?;
        let (groups, _) = tags.as_chunks::<TAG_LANES>();
        for (group, tags) in groups.iter().enumerate() {
            let mut matches = match_tags(tags, tag_of(hash));
            while matches != 0 {
                let index = group * TAG_LANES + matches.trailing_zeros() as usize;
                matches &= matches - 1;
                // Padding can match too: it lies behind the last record.
                if index >= self.count() {
                    return Some(None);
                }
                if self.head(index)? != head {
                    continue;
                }
                let record = self.record(index)?;
                if record.compare_after_head(suffix).is_eq() {
                    if record.trailer.sequence() <= snapshot {
                        return Some(Some(record));
                    }
                    return self.find_older(key, suffix, snapshot);
                }
            }
        }
        Some(None)
    }

    /// Starts bringing in the records whose tag is that of `hash`: mostly one.
    pub(super) fn prefetch_records(&self, hash: u64) {
        let tags = self.bytes.get(BLOCK_HEADER_BYTES..self.layout.prefix_at as usize);
        let (groups, _) = tags.unwrap_or_default().as_chunks::<TAG_LANES>();
        for (group, tags) in groups.iter().enumerate() {
            let mut matches = match_tags(tags, tag_of(hash));
            while matches != 0 {
                let index = group * TAG_LANES + matches.trailing_zeros() as usize;
                matches &= matches - 1;
                let record = self.record_offset(index).and_then(|at| self.bytes.get(at..));
                let lines = record.unwrap_or_default().chunks(64);
                lines.take(RECORD_LINES).for_each(prefetch);
            }
        }
    }

    /// Like [`find`](Self::find), where the newest version in the block is too new.
    #[cold]
    fn find_older(
        &self,
        key: &[u8],
        suffix: &[u8],
        snapshot: Sequence,
    ) -> Option<Option<Record<'a>>> {
        let index = self.lower_bound(key, Trailer::seek(snapshot))?;
        if index >= self.count() || self.head(index)? != head_of(suffix) {
            return Some(None);
        }
        let record = self.record(index)?;
        Some(record.compare_after_head(suffix).is_eq().then_some(record))
    }

    /// The number of records strictly before (`key`, `trailer`) in internal-key order.
    pub(super) fn lower_bound(&self, key: &[u8], trailer: Trailer) -> Option<usize> {
        let suffix = match self.place(key)? {
            Place::Before => return Some(0),
            Place::After => return Some(self.count()),
            Place::Within(suffix) => suffix,
        };
        let head = head_of(suffix);
        let heads = self.heads()?;
        let first = heads.partition_point(|&bytes| u64::from_le_bytes(bytes) < head);
        let equal = heads.get(first..)?;
        let mut low = first;
        let mut high = match equal.get(1) {
            // Mostly at most one key has this head.
            Some(&second) if u64::from_le_bytes(second) == head => {
                first + equal.partition_point(|&bytes| u64::from_le_bytes(bytes) == head)
            }
            _ => first + usize::from(equal.first() == Some(&head.to_le_bytes())),
        };
        while low < high {
            let middle = low.midpoint(high);
            let record = self.record(middle)?;
            let order =
                record.compare_after_head(suffix).then_with(|| trailer.cmp(&record.trailer));
            if order.is_lt() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding::put_varint;

    #[test]
    fn a_header_that_is_read_at_once_says_what_its_fields_say() {
        let lengths = [0_u64, 1, 7, 8, 9, 127, 128, 16_383, 16_384, 40_000];
        let sequences = (0..56).flat_map(|bits| [1 << bits, (2 << bits) - 1]);
        let mut usual = 0;
        for sequence in sequences.chain([0, SEQUENCE_MAX + 1]) {
            for (suffix_len, value_len) in lengths.iter().flat_map(|&a| lengths.map(|b| (a, b))) {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, suffix_len);
                put_varint(&mut bytes, sequence);
                bytes.push(0xf1);
                put_varint(&mut bytes, value_len);
                let width = bytes.len();
                bytes.resize(100_000, 0xff);
                let fields = |header: RecordHeader| {
                    (header.suffix_len, header.trailer, header.value_len, header.width)
                };
                let any = RecordHeader::read_any(&bytes).map(fields);
                let trailer = Trailer(sequence << 8 | 0xf1);
                let written = (suffix_len as usize, trailer, value_len as usize, width);
                assert_eq!(any, (sequence <= SEQUENCE_MAX).then_some(written));
                if let Some(header) = RecordHeader::read_usual(bytes.first_chunk().unwrap()) {
                    assert_eq!(any, Some(fields(header)));
                    usual += 1;
                }
            }
        }
        // Six lengths of keys and eight of values are short enough, and all sequence numbers but the one that there cannot be.
        assert_eq!(usual, 113 * 6 * 8);
    }
}
