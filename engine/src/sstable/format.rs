//! The bytes of a table file that are not records: block trailers, handles and the footer.
//!
//! ```text
//! file     = data block*             back to back from offset 0, described by the index
//!            filter block?           starts at a multiple of 64
//!            index block             starts at a multiple of 64
//!            range-tombstone block?
//!            properties block
//!            footer                  112 bytes, at the end of the file
//!
//! block    = payload
//!            codec u8                0 none, 1 lz4, 2 zstd
//!            xxh3 u64                of payload and codec, seeded with (database id, file number, block offset)
//!
//! footer   = filter, index, range tombstones, properties: 4 handles {offset u64, length u64}
//!            database id u64
//!            file number u64
//!            file length u64
//!            end of data blocks u64
//!            version u16, footer length u16, magic "RSSL"
//!            xxh3 u64                of the footer up to here
//! ```
//!
//! All numbers are little-endian. The last 16 bytes keep their place in every version, so that a newer file is told from a
//! damaged one. A handle's length includes the block's trailer; length 0 means that the block does not exist. Padding between
//! blocks is zero and never read. Because the checksum knows where the block belongs, a block that was written to the wrong
//! place, is left over from another file, or comes from another database fails like a damaged one.

use std::ops::Range;
use std::path::PathBuf;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::compression::Codec;
use crate::coding::Decoder;
use crate::error::{Error, ErrorKind, Result};
use crate::file_name::FileNumber;

/// The last word of every table.
const MAGIC: [u8; 4] = *b"RSSL";

/// The version that this code writes, and the newest that it reads.
const VERSION: u16 = 1;

/// Codec and checksum behind every block.
pub(crate) const BLOCK_TRAILER_BYTES: usize = 9;

/// Size of a footer of version 1.
pub(super) const FOOTER_BYTES: usize = 112;

/// Version, footer length, magic and checksum: what no version moves.
const TAIL_BYTES: usize = 16;

/// Which table or value file this is: what its checksums are seeded with and its errors name.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) path: PathBuf,
    pub(crate) database_id: u64,
    pub(crate) number: FileNumber,
}

impl Identity {
    /// The error for bytes at `offset` that are not what was written.
    #[cold]
    pub(crate) fn corruption(
        &self,
        offset: u64,
        what: &'static str,
        detail: impl Into<String>,
    ) -> Error {
        Error::corruption(&self.path, offset, what, detail)
    }

    /// What distinguishes the checksum of a block here from that of the same bytes anywhere else.
    fn seed(&self, offset: u64) -> u64 {
        let mut place = [0_u8; 24];
        place[..8].copy_from_slice(&self.database_id.to_le_bytes());
        place[8..16].copy_from_slice(&self.number.to_le_bytes());
        place[16..].copy_from_slice(&offset.to_le_bytes());
        xxh3_64(&place)
    }

    /// Appends the trailer of the block whose payload is all of `block` and which will be written at `offset`.
    pub(crate) fn seal(&self, offset: u64, codec: Codec, block: &mut Vec<u8>) {
        block.push(codec as u8);
        let checksum = xxh3_64_with_seed(block, self.seed(offset));
        block.extend_from_slice(&checksum.to_le_bytes());
    }

    /// The codec and payload of the block that was read from `offset`, if they are what was written.
    pub(crate) fn unseal<'a>(
        &self,
        offset: u64,
        block: &'a [u8],
        what: &'static str,
    ) -> Result<(Codec, &'a [u8])> {
        let Some((content, stored)) = block.split_last_chunk() else {
            return Err(self.corruption(offset, what, "shorter than its checksum"));
        };
        let computed = xxh3_64_with_seed(content, self.seed(offset));
        let stored = u64::from_le_bytes(*stored);
        if computed != stored {
            let detail = format!("checksum {stored:#018x} stored, {computed:#018x} computed");
            return Err(self.corruption(offset, what, detail));
        }
        let Some((&codec, payload)) = content.split_last() else {
            return Err(self.corruption(offset, what, "has no codec"));
        };
        match Codec::from_u8(codec) {
            Some(codec) => Ok((codec, payload)),
            None => Err(self.corruption(offset, what, format!("unknown codec {codec}"))),
        }
    }
}

/// Where a block is in its file, trailer included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Handle {
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Handle {
    /// The block's place in a map whose length was checked against the handle.
    pub(super) fn range(self) -> Range<usize> {
        self.offset as usize..(self.offset + self.len) as usize
    }
}

/// The last bytes of a table: where everything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) filter: Handle,
    pub(super) index: Handle,
    pub(super) tombstones: Handle,
    pub(super) properties: Handle,
    /// End of the last data block.
    pub(super) data_end: u64,
}

impl Footer {
    /// The footer of the table `identity`, which begins at `offset` of the file.
    pub(super) fn encode(&self, identity: &Identity, offset: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        for handle in [self.filter, self.index, self.tombstones, self.properties] {
            out.extend_from_slice(&handle.offset.to_le_bytes());
            out.extend_from_slice(&handle.len.to_le_bytes());
        }
        let file_bytes = offset + FOOTER_BYTES as u64;
        for number in [identity.database_id, identity.number, file_bytes, self.data_end] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(FOOTER_BYTES as u16).to_le_bytes());
        out.extend_from_slice(&MAGIC);
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        debug_assert_eq!(out.len(), FOOTER_BYTES);
        out
    }

    /// Reads and checks the footer at the end of `file`; every handle it gives lies inside the file.
    pub(super) fn decode(identity: &Identity, file: &[u8]) -> Result<Self> {
        let end = file.len() as u64;
        let tail_at = end.saturating_sub(TAIL_BYTES as u64);
        let fail = |detail: String| Err(identity.corruption(tail_at, "table footer", detail));
        let Some((_, tail)) = file.split_last_chunk::<TAIL_BYTES>() else {
            return fail(format!("the file has only {end} bytes"));
        };
        let mut fields = Decoder::new(tail);
        let (Some(version), Some(footer_bytes), Some(magic), Some(stored)) =
            (fields.u16(), fields.u16(), fields.take(MAGIC.len()), fields.u64())
        else {
            return fail("too short".into());
        };
        if magic != MAGIC {
            return fail(format!("magic {magic:02x?} instead of {MAGIC:02x?}"));
        }
        let footer_bytes = usize::from(footer_bytes);
        let footer = match file.len().checked_sub(footer_bytes).and_then(|at| file.get(at..)) {
            Some(footer) if footer_bytes >= TAIL_BYTES => footer,
            _ => return fail(format!("length {footer_bytes} in a file of {end} bytes")),
        };
        let covered = footer.get(..footer_bytes - 8).unwrap_or_default();
        let computed = xxh3_64(covered);
        if computed != stored {
            return fail(format!("checksum {stored:#018x} stored, {computed:#018x} computed"));
        }
        if version > VERSION {
            let message = format!(
                "{} has table format {version}, and this version of RustLite reads formats up to \
                 {VERSION}: upgrade RustLite to open it",
                identity.path.display()
            );
            return Err(Error::new(ErrorKind::UnsupportedFormat, message));
        }
        if version != VERSION || footer_bytes != FOOTER_BYTES {
            return fail(format!("version {version} with a footer of {footer_bytes} bytes"));
        }
        match Self::decode_fields(identity, covered, end) {
            Ok(footer) => Ok(footer),
            Err(detail) => fail(detail),
        }
    }

    fn decode_fields(
        identity: &Identity,
        covered: &[u8],
        end: u64,
    ) -> std::result::Result<Self, String> {
        let mut fields = Decoder::new(covered);
        let mut number = || fields.u64().ok_or_else(|| String::from("too short"));
        let mut handle = || Ok::<_, String>(Handle { offset: number()?, len: number()? });
        let footer = Self {
            filter: handle()?,
            index: handle()?,
            tombstones: handle()?,
            properties: handle()?,
            data_end: 0,
        };
        let (database_id, file_number, file_bytes, data_end) =
            (number()?, number()?, number()?, number()?);
        if database_id != identity.database_id {
            return Err(format!(
                "the table belongs to database {database_id:016x}, not to {:016x}",
                identity.database_id
            ));
        }
        if file_number != identity.number {
            return Err(format!("the table was written as number {file_number}"));
        }
        if file_bytes != end {
            return Err(format!("the file has {end} bytes, but {file_bytes} were written"));
        }
        let blocks_end = end - FOOTER_BYTES as u64;
        if data_end > blocks_end {
            return Err(format!("data blocks end at {data_end}"));
        }
        let mut at = data_end;
        for handle in [footer.filter, footer.index, footer.tombstones, footer.properties] {
            let handle_end = handle.offset.checked_add(handle.len);
            if handle.len == 0 {
                continue;
            }
            match handle_end {
                Some(handle_end) if handle.offset >= at && handle_end <= blocks_end => {
                    at = handle_end;
                }
                _ => return Err(format!("block at {} with length {}", handle.offset, handle.len)),
            }
        }
        Ok(Self { data_end, ..footer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { path: PathBuf::from("000007.sst"), database_id: 99, number: 7 }
    }

    #[test]
    fn sealed_block_opens_only_in_its_own_place() {
        let mut block = b"payload".to_vec();
        identity().seal(4096, Codec::Lz4, &mut block);
        let (codec, payload) = identity().unseal(4096, &block, "block").unwrap();
        assert_eq!((codec, payload), (Codec::Lz4, &b"payload"[..]));
        let elsewhere = [
            (identity(), 8192),
            (Identity { number: 8, ..identity() }, 4096),
            (Identity { database_id: 98, ..identity() }, 4096),
        ];
        for (other, offset) in elsewhere {
            let error = other.unseal(offset, &block, "block").unwrap_err();
            assert_eq!(error.corruption_details().unwrap().offset, offset);
        }
    }

    #[test]
    fn newer_version_is_refused_but_a_damaged_version_is_corruption() {
        let footer = Footer {
            filter: Handle::default(),
            index: Handle { offset: 0, len: 20 },
            tombstones: Handle::default(),
            properties: Handle { offset: 20, len: 30 },
            data_end: 0,
        };
        let mut file = vec![0; 50];
        file.extend(footer.encode(&identity(), 50));
        assert_eq!(Footer::decode(&identity(), &file).unwrap(), footer);

        let version_at = file.len() - TAIL_BYTES;
        file[version_at] = 2;
        let error = Footer::decode(&identity(), &file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        let sum = xxh3_64(&file[50..file.len() - 8]);
        let sum_at = file.len() - 8;
        file[sum_at..].copy_from_slice(&sum.to_le_bytes());
        let error = Footer::decode(&identity(), &file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedFormat);
        assert!(error.to_string().contains("000007.sst"), "{error}");
    }
}
