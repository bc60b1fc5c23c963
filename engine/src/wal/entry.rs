//! One commit in the log.
//!
//! ```text
//! offset  size  field
//!      0     8  checksum      xxh3 of bytes 8..56, seeded with (database id, segment number, LSN)
//!      8     8  payload hash  xxh3 of the payload, computed by the committer before it takes any lock
//!     16     8  lsn           where this entry stands in the stream
//!     24     8  durable lsn   everything below was on stable storage when this entry was made
//!     32     8  sequence      of the batch's first record
//!     40     4  count         records in the batch
//!     44     4  length        of the payload in bytes
//!     48     4  magic         "RLWE"
//!     52     4  flags         bit 0: the next entry starts at the next block boundary
//!     56     -  payload       the batch's bytes, then zeros up to a multiple of 8
//! ```
//!
//! Little-endian. Because the seed holds the segment's number, which is never reused, an entry of a recycled segment's earlier life
//! cannot be taken for one of the present. A frame is a run of entries that ends at a block boundary: the last one carries the flag.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::coding::Decoder;
use crate::file_name::FileNumber;
use crate::key::Sequence;
use crate::limits::{BATCH_BYTES_MAX, SEQUENCE_MAX};
use crate::wal::Lsn;

/// Bytes in front of the payload.
pub(crate) const HEADER_BYTES: usize = 56;

const MAGIC: u32 = u32::from_le_bytes(*b"RLWE");
const FLAG_ENDS_FRAME: u32 = 1;

/// What an entry's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) payload_hash: u64,
    pub(crate) lsn: Lsn,
    pub(crate) durable_lsn: Lsn,
    pub(crate) sequence: Sequence,
    pub(crate) count: u32,
    pub(crate) length: u32,
    pub(crate) ends_frame: bool,
}

/// The segment's share of every entry's checksum seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(u64);

impl Seed {
    pub(crate) fn new(database_id: u64, segment: FileNumber) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&database_id.to_le_bytes());
        bytes[8..].copy_from_slice(&segment.to_le_bytes());
        Self(xxh3_64(&bytes))
    }

    #[inline]
    fn checksum(self, lsn: Lsn, header: &[u8]) -> u64 {
        xxh3_64_with_seed(header, self.0 ^ lsn)
    }
}

/// Bytes that an entry with `payload` bytes takes in the stream.
pub(crate) fn entry_bytes(payload: usize) -> usize {
    (HEADER_BYTES + payload).next_multiple_of(8)
}

/// The hash of a payload, for [`Header::payload_hash`].
#[inline]
pub(crate) fn payload_hash(payload: &[u8]) -> u64 {
    xxh3_64(payload)
}

impl Header {
    /// The header's bytes.
    #[inline]
    pub(crate) fn encode(&self, seed: Seed) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let flags = if self.ends_frame { FLAG_ENDS_FRAME } else { 0 };
        out[8..16].copy_from_slice(&self.payload_hash.to_le_bytes());
        out[16..24].copy_from_slice(&self.lsn.to_le_bytes());
        out[24..32].copy_from_slice(&self.durable_lsn.to_le_bytes());
        out[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        out[40..44].copy_from_slice(&self.count.to_le_bytes());
        out[44..48].copy_from_slice(&self.length.to_le_bytes());
        out[48..52].copy_from_slice(&MAGIC.to_le_bytes());
        out[52..56].copy_from_slice(&flags.to_le_bytes());
        let checksum = seed.checksum(self.lsn, &out[8..]);
        out[..8].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads and verifies a header; `None` if the bytes are not one.
    #[inline]
    pub(crate) fn decode(input: &[u8], seed: Seed) -> Option<Self> {
        let header = input.get(..HEADER_BYTES)?;
        let mut decoder = Decoder::new(header);
        let checksum = decoder.u64()?;
        let payload_hash = decoder.u64()?;
        let lsn = decoder.u64()?;
        let durable_lsn = decoder.u64()?;
        let sequence = decoder.u64()?;
        let count = decoder.u32()?;
        let length = decoder.u32()?;
        let magic = decoder.u32()?;
        let flags = decoder.u32()?;
        let sound = magic == MAGIC
            && flags & !FLAG_ENDS_FRAME == 0
            && length as usize <= BATCH_BYTES_MAX
            && sequence <= SEQUENCE_MAX
            && checksum == seed.checksum(lsn, header.get(8..)?);
        sound.then_some(Self {
            payload_hash,
            lsn,
            durable_lsn,
            sequence,
            count,
            length,
            ends_frame: flags & FLAG_ENDS_FRAME != 0,
        })
    }

    /// The payload behind a header at the start of `input`, if it is all there and is what the header promised.
    #[inline]
    pub(crate) fn payload<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        let payload = input.get(HEADER_BYTES..)?.get(..self.length as usize)?;
        (payload_hash(payload) == self.payload_hash).then_some(payload)
    }

    /// The LSN just behind this entry, given the segment's block size.
    #[inline]
    pub(crate) fn end(&self, block_bytes: u64) -> Lsn {
        let end = self.lsn + entry_bytes(self.length as usize) as u64;
        if self.ends_frame { end.next_multiple_of(block_bytes) } else { end }
    }
}

/// True if a header may start here, judged by its magic alone: the cheap test when searching behind a hole.
pub(crate) fn may_start(input: &[u8]) -> bool {
    input.get(48..52).is_some_and(|magic| magic == MAGIC.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_only_accepted_where_it_was_written() {
        let payload = b"some batch";
        let header = Header {
            payload_hash: payload_hash(payload),
            lsn: 8192,
            durable_lsn: 4096,
            sequence: 77,
            count: 3,
            length: payload.len() as u32,
            ends_frame: true,
        };
        let seed = Seed::new(1, 2);
        let mut bytes = header.encode(seed).to_vec();
        bytes.extend_from_slice(payload);
        assert!(may_start(&bytes));
        assert_eq!(Header::decode(&bytes, seed), Some(header));
        assert_eq!(header.payload(&bytes), Some(&payload[..]));
        assert_eq!(header.end(4096), 12_288);
        assert_eq!(Header::decode(&bytes, Seed::new(1, 3)), None, "another segment");
        assert_eq!(Header::decode(&bytes, Seed::new(2, 2)), None, "another database");
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            let accepted = Header::decode(&flipped, seed)
                .is_some_and(|header| header.payload(&flipped).is_some());
            assert!(!accepted, "flip at {at}");
        }
    }
}
