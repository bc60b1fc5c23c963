//! The index of a table: one flat sorted array of separators, searched where it lies.
//!
//! ```text
//! index  = blocks u32
//!          prefix length u32
//!          heads [u64; blocks]         first 8 bytes of each separator after the prefix, as numbers, zero padded
//!          places [u64; blocks + 1]    codec << 56 | offset of each data block; last: their end
//!          rest ends [u32; blocks]     where the separator's bytes after the head end in `rests`
//!          head lengths [u8; blocks]   bytes of the separator that its head holds
//!          prefix                      what all separators begin with
//!          rests                       separators' bytes after prefix and head
//! ```
//!
//! The separator of a block is not before the block's last key and not after the next block's first key; it equals the latter
//! only if the versions of one key lie in both. A block with the first separator at or after a key is therefore where the key is,
//! and further blocks only matter if that separator is the key itself.

use std::cmp::Ordering;
use std::ops::Range;

use super::compression::Codec;
use super::format::BLOCK_TRAILER_BYTES;
use crate::key::{common_prefix_len, head_of};
use crate::simd::prefetch;

const HEADER_BYTES: usize = 8;
const HEAD_BYTES: usize = 8;
const OFFSET_BITS: u32 = 56;

/// Collects separators.
#[derive(Default)]
pub(super) struct IndexBuilder {
    separators: Vec<u8>,
    ends: Vec<usize>,
    places: Vec<u64>,
}

impl IndexBuilder {
    /// Adds the block at `offset`. `separator` fits between the block and the next.
    pub(super) fn add(&mut self, separator: &[u8], offset: u64, codec: Codec) {
        self.separators.extend_from_slice(separator);
        self.ends.push(self.separators.len());
        self.places.push(offset | (codec as u64) << OFFSET_BITS);
    }

    /// About the bytes that the index will take.
    pub(super) fn encoded_bytes(&self) -> usize {
        HEADER_BYTES + self.ends.len() * (HEAD_BYTES + 13) + self.separators.len()
    }

    fn separator(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.separators[start..self.ends[index]]
    }

    /// Appends the index of blocks that end at `data_end`. False if there is more of it than the format can address.
    pub(super) fn finish(&self, data_end: u64, out: &mut Vec<u8>) -> bool {
        let count = self.ends.len();
        let prefix_len = match count {
            0 => 0,
            _ => common_prefix_len(self.separator(0), self.separator(count - 1)),
        };
        let (Ok(blocks), Ok(_)) = (u32::try_from(count), u32::try_from(self.separators.len()))
        else {
            return false;
        };
        out.extend_from_slice(&blocks.to_le_bytes());
        out.extend_from_slice(&(prefix_len as u32).to_le_bytes());
        let suffixes = || (0..count).map(|index| &self.separator(index)[prefix_len..]);
        for suffix in suffixes() {
            out.extend_from_slice(&head_of(suffix).to_le_bytes());
        }
        for place in self.places.iter().chain([&data_end]) {
            out.extend_from_slice(&place.to_le_bytes());
        }
        let mut rest_end = 0_u32;
        for suffix in suffixes() {
            rest_end += suffix.len().saturating_sub(HEAD_BYTES) as u32;
            out.extend_from_slice(&rest_end.to_le_bytes());
        }
        out.extend(suffixes().map(|suffix| suffix.len().min(HEAD_BYTES) as u8));
        if count > 0 {
            out.extend_from_slice(&self.separator(0)[..prefix_len]);
        }
        for suffix in suffixes() {
            out.extend_from_slice(suffix.get(HEAD_BYTES..).unwrap_or_default());
        }
        true
    }
}

/// Puts a short key into `out` that is at least `last` and before `next`, where `last < next`.
pub(super) fn shortest_separator(last: &[u8], next: &[u8], out: &mut Vec<u8>) {
    debug_assert!(last < next);
    out.clear();
    let shared = common_prefix_len(last, next);
    // Up to the byte that tells them apart `next` may be too small a bite: it must not be reached.
    if shared < last.len() && shared + 1 < next.len() {
        out.extend_from_slice(&next[..=shared]);
    } else {
        out.extend_from_slice(last);
    }
}

/// Where a data block is, and how it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    /// End of the block, its trailer included.
    pub(super) end: u64,
    pub(super) codec: Codec,
}

impl Place {
    /// The bytes that the block takes in its file.
    #[inline]
    pub(super) fn stored(self) -> Range<usize> {
        self.offset as usize..self.end as usize
    }
}

/// Every so many heads there is one in [`Index::sample`]. Two cache lines of heads.
const SAMPLED: usize = 16;

/// Where the arrays of a table's index are in its file.
#[derive(Debug)]
pub(super) struct Index {
    count: usize,
    /// Every [`SAMPLED`]th head. A binary search touches the same few heads again and again, each on a cache line of its own; packed
    /// together they stay in the first-level cache, and a search waits for memory once, at its last step.
    sample: Box<[u64]>,
    prefix_len: usize,
    heads_at: usize,
    places_at: usize,
    rest_ends_at: usize,
    head_lens_at: usize,
    prefix_at: usize,
    rests_at: usize,
    data_end: u64,
}

impl Index {
    /// Checks the index whose payload begins at byte `at` of the file; data blocks end at `data_end`. The error says what is
    /// wrong.
    pub(super) fn parse(payload: &[u8], at: usize, data_end: u64) -> Result<Self, &'static str> {
        let header: &[u8; HEADER_BYTES] = payload.first_chunk().ok_or("too short")?;
        let [a, b, c, d, e, f, g, h] = *header;
        let count = u32::from_le_bytes([a, b, c, d]) as usize;
        let prefix_len = u32::from_le_bytes([e, f, g, h]) as usize;
        let places_at = HEADER_BYTES + HEAD_BYTES * count;
        let rest_ends_at = places_at + 8 * (count + 1);
        let head_lens_at = rest_ends_at + 4 * count;
        let prefix_at = head_lens_at + count;
        let rests_at = prefix_at + prefix_len;
        let rests = payload.get(rests_at..).ok_or("the arrays do not fit")?;
        let rest_ends = payload.get(rest_ends_at..head_lens_at).ok_or("the arrays do not fit")?;
        let mut last_end = 0;
        for &bytes in rest_ends.as_chunks::<4>().0 {
            let end = u32::from_le_bytes(bytes) as usize;
            if end < last_end || end > rests.len() {
                return Err("the ends of separators are out of order");
            }
            last_end = end;
        }
        let heads = payload.get(HEADER_BYTES..places_at).ok_or("the arrays do not fit")?;
        let sample = heads.as_chunks().0.iter().step_by(SAMPLED);
        let index = Self {
            count,
            sample: sample.map(|&bytes| u64::from_le_bytes(bytes)).collect(),
            prefix_len,
            heads_at: at + HEADER_BYTES,
            places_at: at + places_at,
            rest_ends_at: at + rest_ends_at,
            head_lens_at: at + head_lens_at,
            prefix_at: at + prefix_at,
            rests_at: at + rests_at,
            data_end,
        };
        index.check_places(payload.get(places_at..rest_ends_at).ok_or("the arrays do not fit")?)?;
        Ok(index)
    }

    /// Blocks must follow one another without gaps from the start of the file to the end of the data.
    fn check_places(&self, places: &[u8]) -> Result<(), &'static str> {
        let mut smallest = 0;
        for (index, &bytes) in places.as_chunks::<8>().0.iter().enumerate() {
            let place = u64::from_le_bytes(bytes);
            let offset = place & ((1 << OFFSET_BITS) - 1);
            let exact = index == 0 && offset != 0 || index == self.count && place != self.data_end;
            if exact || offset < smallest || offset > self.data_end {
                return Err("the places of data blocks are out of order");
            }
            if Codec::from_u8((place >> OFFSET_BITS) as u8).is_none() {
                return Err("unknown codec");
            }
            smallest = offset + BLOCK_TRAILER_BYTES as u64;
        }
        Ok(())
    }

    /// Number of data blocks.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// End of the last data block.
    pub(super) fn data_end(&self) -> u64 {
        self.data_end
    }

    fn raw_place(&self, file: &[u8], index: usize) -> Option<u64> {
        Some(u64::from_le_bytes(*file.get(self.places_at + index * 8..)?.first_chunk()?))
    }

    /// Where block `index` is.
    #[inline]
    pub(super) fn place(&self, file: &[u8], index: usize) -> Option<Place> {
        if index >= self.count {
            return None;
        }
        let pair: &[u8; 16] = file.get(self.places_at + index * 8..)?.first_chunk()?;
        let pair = u128::from_le_bytes(*pair);
        let (place, next) = (pair as u64, (pair >> 64) as u64);
        let mask = (1 << OFFSET_BITS) - 1;
        Some(Place {
            offset: place & mask,
            end: next & mask,
            codec: Codec::from_u8((place >> OFFSET_BITS) as u8)?,
        })
    }

    fn rest<'a>(&self, file: &'a [u8], index: usize) -> Option<&'a [u8]> {
        let end_of = |index: usize| -> Option<usize> {
            let at = self.rest_ends_at + index * 4;
            Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?) as usize)
        };
        let start = if index == 0 { 0 } else { end_of(index - 1)? };
        file.get(self.rests_at + start..self.rests_at + end_of(index)?)
    }

    fn prefix<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        file.get(self.prefix_at..)?.get(..self.prefix_len)
    }

    /// The order of separator `index` and a key that shares prefix and head with it; `suffix` is the key after the prefix.
    fn compare_after_head(&self, file: &[u8], index: usize, suffix: &[u8]) -> Option<Ordering> {
        let rest = self.rest(file, index)?;
        let head_len = usize::from(*file.get(self.head_lens_at + index)?).min(HEAD_BYTES);
        let order = rest.cmp(suffix.get(HEAD_BYTES..).unwrap_or_default());
        Some(order.then_with(|| (head_len + rest.len()).cmp(&suffix.len())))
    }

    /// Where the group of [`SAMPLED`] heads begins that ends the search for `head`. Starts bringing it in, and the places of its blocks.
    #[inline]
    fn group_of(&self, file: &[u8], head: u64) -> usize {
        let group = self.sample.partition_point(|&sampled| sampled < head).saturating_sub(1);
        let start = group * SAMPLED;
        for array_at in [self.heads_at, self.places_at] {
            let lines = file.get(array_at + start * 8..).unwrap_or_default().chunks(64);
            lines.take(SAMPLED * 8 / 64 + 1).for_each(prefetch);
        }
        start
    }

    /// Starts bringing in what [`find`](Self::find) will read.
    pub(super) fn prefetch(&self, file: &[u8], key: &[u8]) {
        if let Some(suffix) = self.prefix(file).and_then(|prefix| key.strip_prefix(prefix)) {
            self.group_of(file, head_of(suffix));
        }
    }

    /// The number of blocks whose separator is before `key`: the first block that can hold it, if there are as many.
    #[inline]
    pub(super) fn find(&self, file: &[u8], key: &[u8]) -> Option<usize> {
        let prefix = self.prefix(file)?;
        let Some(suffix) = key.strip_prefix(prefix) else {
            return Some(if key < prefix { 0 } else { self.count });
        };
        let head = head_of(suffix);
        let heads = file.get(self.heads_at..)?.get(..self.count * HEAD_BYTES)?.as_chunks().0;
        let start = self.group_of(file, head);
        let group = heads.get(start..)?;
        let group = group.get(..SAMPLED).unwrap_or(group);
        let first = start + group.partition_point(|&bytes| u64::from_le_bytes(bytes) < head);
        if heads.get(first) != Some(&head.to_le_bytes()) {
            return Some(first);
        }
        let equal = heads.get(first..)?;
        let mut low = first;
        let mut high = first + equal.partition_point(|&bytes| u64::from_le_bytes(bytes) == head);
        while low < high {
            let middle = low.midpoint(high);
            if self.compare_after_head(file, middle, suffix)?.is_lt() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(low)
    }

    /// True if the separator of block `index` is `key`: versions of it may lie in the next block too.
    #[inline]
    pub(super) fn separator_is(&self, file: &[u8], index: usize, key: &[u8]) -> bool {
        let equal = || {
            let suffix = key.strip_prefix(self.prefix(file)?)?;
            let head: [u8; HEAD_BYTES] =
                *file.get(self.heads_at + index * HEAD_BYTES..)?.first_chunk()?;
            Some(
                u64::from_le_bytes(head) == head_of(suffix)
                    && self.compare_after_head(file, index, suffix)?.is_eq(),
            )
        };
        equal().unwrap_or(false)
    }

    /// The separator of block `index`, put together.
    pub(super) fn separator(&self, file: &[u8], index: usize) -> Option<Vec<u8>> {
        let mut key = self.prefix(file)?.to_vec();
        let head: [u8; HEAD_BYTES] =
            *file.get(self.heads_at + index * HEAD_BYTES..)?.first_chunk()?;
        let head_len = usize::from(*file.get(self.head_lens_at + index)?);
        key.extend_from_slice(u64::from_le_bytes(head).to_be_bytes().get(..head_len)?);
        key.extend_from_slice(self.rest(file, index)?);
        Some(key)
    }

    /// The number of blocks that begin before `offset`.
    pub(super) fn blocks_before(&self, file: &[u8], offset: u64) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let begins = self.raw_place(file, middle).unwrap_or(0) & ((1 << OFFSET_BITS) - 1);
            if begins < offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(separators: &[&[u8]]) -> Vec<u8> {
        let mut builder = IndexBuilder::default();
        for (index, separator) in separators.iter().enumerate() {
            builder.add(separator, index as u64 * 100, Codec::None);
        }
        let mut out = vec![0xaa; 5];
        assert!(builder.finish(separators.len() as u64 * 100, &mut out));
        out
    }

    fn parse(file: &[u8], blocks: usize) -> Index {
        Index::parse(&file[5..], 5, blocks as u64 * 100).unwrap()
    }

    #[test]
    fn key_is_looked_for_in_the_first_block_whose_separator_is_not_before_it() {
        let separators: [&[u8]; 8] = [
            b"pre",
            b"pre\0",
            b"preabcdefgh",
            b"preabcdefgh\0",
            b"preabcdefghij",
            b"preb",
            b"preb\0\0\0\0\0\0\0\0\0",
            b"prez",
        ];
        let file = build(&separators);
        let index = parse(&file, separators.len());
        let mut keys: Vec<Vec<u8>> =
            vec![b"".to_vec(), b"pr".to_vec(), b"q".to_vec(), b"prf".to_vec()];
        for separator in separators {
            keys.push(separator.to_vec());
            keys.push([separator, b"\0"].concat());
            keys.push(separator[..separator.len() - 1].to_vec());
        }
        for key in keys {
            let expected = separators.partition_point(|separator| *separator < key.as_slice());
            assert_eq!(index.find(&file, &key), Some(expected), "{key:?}");
            for (block, separator) in separators.iter().enumerate() {
                assert_eq!(index.separator_is(&file, block, &key), *separator == key.as_slice());
                assert_eq!(index.separator(&file, block).as_deref(), Some(*separator));
            }
        }
        assert_eq!(index.blocks_before(&file, 101), 2);
        let place = Place { offset: 700, end: 800, codec: Codec::None };
        assert_eq!(index.place(&file, 7), Some(place));
        assert_eq!(index.place(&file, 8), None);
    }

    #[test]
    fn empty_index_sends_every_key_past_the_end() {
        let file = build(&[]);
        let index = parse(&file, 0);
        assert_eq!(index.find(&file, b"any"), Some(0));
        assert_eq!(index.place(&file, 0), None);
    }

    #[test]
    fn separators_lie_between_their_blocks() {
        let keys: [&[u8]; 9] =
            [b"a", b"a\0", b"ab", b"abc", b"abd", b"abdzzz", b"ac", b"acb", b"b"];
        let mut out = Vec::new();
        for (at, last) in keys.iter().enumerate() {
            for next in &keys[at + 1..] {
                shortest_separator(last, next, &mut out);
                assert!(*last <= out.as_slice() && out.as_slice() < *next, "{last:?} {next:?}");
            }
        }
        shortest_separator(b"user1234567890", b"user2234567890", &mut out);
        assert_eq!(out, b"user2");
    }

    #[test]
    fn damaged_or_cut_index_is_refused_or_stays_in_bounds() {
        let good = build(&[b"alpha", b"alpine-meadow", b"alps"]);
        for at in 5..good.len() {
            let mut file = good.clone();
            file[at] ^= 0xff;
            let Ok(index) = Index::parse(&file[5..], 5, 300) else { continue };
            let _ = index.find(&file, b"alpine-meadow");
            for block in 0..index.count() {
                let _ = index.separator(&file, block);
                if let Some(place) = index.place(&file, block) {
                    assert!(place.offset + BLOCK_TRAILER_BYTES as u64 <= place.end);
                    assert!(place.end <= 300);
                }
            }
        }
        for len in 5..good.len() {
            if let Ok(index) = Index::parse(&good[5..len], 5, 300) {
                let _ = index.find(&good[..len], b"alpine-meadow");
            }
        }
    }
}
