//! The bytes of a value file that are not values, and of pointers to values.

use xxhash_rust::xxh3::xxh3_64;

use crate::coding::{Decoder, put_varint};
use crate::error::{Error, ErrorKind, Result};
use crate::file_name::FileNumber;
use crate::limits::VALUE_BYTES_MAX;
use crate::manifest::edit::FILE_NUMBER_MAX;
use crate::sstable::{BLOCK_TRAILER_BYTES, Identity};

/// The first word of every value file.
const MAGIC: [u8; 4] = *b"RLVF";

/// The version that this code writes, and the newest that it reads.
const VERSION: u16 = 1;

/// Size of a header of version 1.
pub(crate) const HEADER_BYTES: usize = 40;

/// Where a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pointer {
    pub(crate) file: FileNumber,
    pub(crate) offset: u64,
    /// Of the user's bytes.
    pub(crate) len: u64,
}

impl Pointer {
    /// Appends the pointer's bytes.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        put_varint(out, self.file);
        put_varint(out, self.offset);
        put_varint(out, self.len);
    }

    /// Reads a pointer that takes all of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_fields(bytes).ok_or_else(|| {
            Error::new(ErrorKind::Corruption, "a record's pointer to its value is malformed")
        })
    }

    fn decode_fields(bytes: &[u8]) -> Option<Self> {
        let mut fields = Decoder::new(bytes);
        let file = fields.varint().filter(|&file| file < FILE_NUMBER_MAX)?;
        let offset = fields.varint().filter(|&offset| offset < 1 << 62)?;
        let len = fields.varint().filter(|&len| len <= VALUE_BYTES_MAX as u64)?;
        fields.is_empty().then_some(Self { file, offset, len })
    }

    /// Bytes that the value takes in its file.
    pub(crate) fn stored_bytes(self) -> u64 {
        self.len + BLOCK_TRAILER_BYTES as u64
    }

    /// Where the value's bytes are in its file, trailer included.
    pub(crate) fn range(self) -> std::ops::Range<u64> {
        self.offset..self.offset + self.stored_bytes()
    }
}

/// How much of a value file a table points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueShare {
    pub(crate) file: FileNumber,
    /// Bytes that the values take in the file.
    pub(crate) bytes: u64,
}

/// Appends how much of which files, in ascending order of their numbers.
pub(crate) fn encode_shares(shares: &[ValueShare], out: &mut Vec<u8>) {
    put_varint(out, shares.len() as u64);
    for share in shares {
        put_varint(out, share.file);
        put_varint(out, share.bytes);
    }
}

/// Reads what [`encode_shares`] wrote.
pub(crate) fn decode_shares(fields: &mut Decoder<'_>) -> Option<Vec<ValueShare>> {
    // Each share takes at least two bytes, which bounds what a damaged count can make us do.
    let count = fields.varint_max(fields.remaining() / 2)?;
    let mut shares: Vec<ValueShare> = Vec::with_capacity(count);
    for _ in 0..count {
        let file = fields.varint().filter(|&file| file < FILE_NUMBER_MAX)?;
        let bytes = fields.varint().filter(|&bytes| bytes < 1 << 62)?;
        if shares.last().is_some_and(|last| last.file >= file) {
            return None;
        }
        shares.push(ValueShare { file, bytes });
    }
    Some(shares)
}

/// The first bytes of the value file `identity`.
pub(crate) fn encode_header(identity: &Identity, file_id: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
    out.extend_from_slice(&identity.database_id.to_le_bytes());
    out.extend_from_slice(&identity.number.to_le_bytes());
    out.extend_from_slice(&file_id.to_le_bytes());
    let checksum = xxh3_64(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    debug_assert_eq!(out.len(), HEADER_BYTES);
    out
}

/// Checks the header at the start of `file`; gives the file id.
pub(crate) fn check_header(identity: &Identity, file: &[u8]) -> Result<u64> {
    let fail = |detail: String| Err(identity.corruption(0, "value file header", detail));
    let mut fields = Decoder::new(file);
    let (Some(magic), Some(version), Some(header_bytes)) =
        (fields.take(MAGIC.len()), fields.u16(), fields.u16())
    else {
        return fail(format!("the file has only {} bytes", file.len()));
    };
    if magic != MAGIC {
        return fail(format!("magic {magic:02x?} instead of {MAGIC:02x?}"));
    }
    let Some((covered, stored)) =
        file.get(..usize::from(header_bytes)).and_then(<[u8]>::split_last_chunk::<8>)
    else {
        return fail(format!("a header of {header_bytes} bytes"));
    };
    let (computed, stored) = (xxh3_64(covered), u64::from_le_bytes(*stored));
    if computed != stored {
        return fail(format!("checksum {stored:#018x} stored, {computed:#018x} computed"));
    }
    if version > VERSION {
        let message = format!(
            "{} has value file format {version}, and this version of RustLite reads formats up to \
             {VERSION}: upgrade RustLite to open it",
            identity.path.display()
        );
        return Err(Error::new(ErrorKind::UnsupportedFormat, message));
    }
    if version != VERSION || usize::from(header_bytes) != HEADER_BYTES {
        return fail(format!("version {version} with a header of {header_bytes} bytes"));
    }
    let (database_id, number) = (fields.u64(), fields.u64());
    if database_id != Some(identity.database_id) {
        return fail("the file belongs to another database".into());
    }
    if number != Some(identity.number) {
        return fail(format!("the file was written as number {}", number.unwrap_or_default()));
    }
    Ok(fields.u64().unwrap_or_default())
}
