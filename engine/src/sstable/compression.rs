//! Compression of single blocks.
//!
//! ```text
//! compressed payload = raw length u32 | codec's own bytes
//! ```
//!
//! A block is stored compressed only where that saves an eighth. The raw length is bounded before memory is asked for, so
//! a hostile file cannot make the process run out of it.

use super::format::Identity;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::BLOCK_ENCODED_BYTES_MAX;
use crate::options::Compression;

/// How a block's payload is stored. The numbers are part of the file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Codec {
    None = 0,
    Lz4 = 1,
    Zstd = 2,
}

impl Codec {
    pub(super) fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::None,
            1 => Self::Lz4,
            2 => Self::Zstd,
            _ => return None,
        })
    }
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd => Self::Zstd,
        }
    }
}

/// The level that zstd compresses with: beyond it, time grows much faster than size shrinks.
#[cfg(feature = "zstd")]
const ZSTD_LEVEL: i32 = 3;

/// LZ4 cannot expand a byte to more than this many.
const LZ4_RATIO_MAX: usize = 256;

/// Puts the compressed payload of `raw` into `out` if that is worthwhile. False: store `raw` as it is.
pub(super) fn compress(codec: Codec, raw: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(raw_len) = u32::try_from(raw.len()) else { return false };
    let worthwhile = raw.len() - raw.len() / 8;
    let written = match codec {
        Codec::None => None,
        Codec::Lz4 => {
            // Room for the worst case; what does not compress well is thrown away below.
            out.resize(4 + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
            out.get_mut(4..).and_then(|room| lz4_flex::block::compress_into(raw, room).ok())
        }
        Codec::Zstd => compress_zstd(raw, worthwhile, out),
    };
    match written {
        Some(written) if 4 + written <= worthwhile => {
            out.truncate(4 + written);
            if let Some(length) = out.first_chunk_mut() {
                *length = raw_len.to_le_bytes();
            }
            true
        }
        _ => false,
    }
}

#[cfg(feature = "zstd")]
fn compress_zstd(raw: &[u8], room: usize, out: &mut Vec<u8>) -> Option<usize> {
    out.resize(4 + room, 0);
    zstd::bulk::compress_to_buffer(raw, out.get_mut(4..)?, ZSTD_LEVEL).ok()
}

#[cfg(not(feature = "zstd"))]
fn compress_zstd(_raw: &[u8], _room: usize, _out: &mut Vec<u8>) -> Option<usize> {
    None
}

/// Undoes [`compress`] into `out`. `offset` is the block's, for errors.
pub(super) fn decompress(
    identity: &Identity,
    offset: u64,
    codec: Codec,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    let fail = |detail: String| identity.corruption(offset, "compressed block", detail);
    let Some((raw_len, data)) = payload.split_first_chunk() else {
        return Err(fail("shorter than its length".into()));
    };
    let raw_len = u32::from_le_bytes(*raw_len) as usize;
    let bound = match codec {
        Codec::Lz4 => BLOCK_ENCODED_BYTES_MAX.min(data.len().saturating_mul(LZ4_RATIO_MAX)),
        Codec::None | Codec::Zstd => BLOCK_ENCODED_BYTES_MAX,
    };
    if raw_len > bound {
        return Err(fail(format!("raw length {raw_len} from {} bytes", data.len())));
    }
    out.clear();
    if out.try_reserve_exact(raw_len).is_err() {
        return Err(fail(format!("no memory for its raw length {raw_len}")));
    }
    let written = match codec {
        Codec::None => return Err(fail("not compressed".into())),
        Codec::Lz4 => {
            out.resize(raw_len, 0);
            lz4_flex::block::decompress_into(data, out).map_err(|error| error.to_string())
        }
        Codec::Zstd => decompress_zstd(identity, data, out)?,
    };
    match written {
        Ok(written) if written == raw_len => Ok(()),
        Ok(written) => Err(fail(format!("{written} raw bytes instead of {raw_len}"))),
        Err(detail) => Err(fail(detail)),
    }
}

/// The outer error means that this build cannot read zstd at all; the inner one that the data is bad.
#[cfg(feature = "zstd")]
fn decompress_zstd(
    _identity: &Identity,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<std::result::Result<usize, String>> {
    // Into the vector's spare room, not a slice: what a hostile raw length reserves is then never touched.
    let decompressor = zstd::bulk::Decompressor::new();
    let written = decompressor.and_then(|mut context| context.decompress_to_buffer(data, out));
    Ok(written.map_err(|error| error.to_string()))
}

#[cfg(not(feature = "zstd"))]
fn decompress_zstd(
    identity: &Identity,
    _data: &[u8],
    _out: &mut Vec<u8>,
) -> Result<std::result::Result<usize, String>> {
    Err(Error::new(
        ErrorKind::UnsupportedFormat,
        format!(
            "{} is compressed with zstd: build with the Cargo feature `zstd` to read it",
            identity.path.display()
        ),
    ))
}

/// Refuses a codec that this build cannot write.
pub(super) fn check_writable(codec: Codec) -> Result<()> {
    if codec == Codec::Zstd && !cfg!(feature = "zstd") {
        let message = "compression Zstd needs the Cargo feature `zstd`";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { path: "000001.sst".into(), database_id: 1, number: 1 }
    }

    fn codecs() -> Vec<Codec> {
        if cfg!(feature = "zstd") { vec![Codec::Lz4, Codec::Zstd] } else { vec![Codec::Lz4] }
    }

    #[test]
    fn compressible_bytes_round_trip_and_others_stay_raw() {
        let text = b"tables are sorted runs of records; ".repeat(100);
        let noise: Vec<u8> =
            (0..4096_u64).map(|i| (crate::key::hash_key(&i.to_le_bytes()) >> 32) as u8).collect();
        for codec in codecs() {
            let (mut packed, mut raw) = (Vec::new(), Vec::new());
            assert!(compress(codec, &text, &mut packed), "{codec:?}");
            assert!(packed.len() < text.len() / 2, "{codec:?} {}", packed.len());
            decompress(&identity(), 0, codec, &packed, &mut raw).unwrap();
            assert_eq!(raw, text);
            assert!(!compress(codec, &noise, &mut packed), "{codec:?}");
        }
    }

    #[test]
    fn hostile_lengths_and_cut_payloads_are_corruption() {
        for codec in codecs() {
            let mut packed = Vec::new();
            assert!(compress(codec, &[7; 3000], &mut packed));
            let mut raw = Vec::new();
            for cut in 0..packed.len() {
                let error = decompress(&identity(), 64, codec, &packed[..cut], &mut raw);
                assert_eq!(error.unwrap_err().kind(), ErrorKind::Corruption, "{codec:?} {cut}");
            }
            packed[..4].copy_from_slice(&u32::MAX.to_le_bytes());
            let error = decompress(&identity(), 64, codec, &packed, &mut raw).unwrap_err();
            assert!(error.to_string().contains("raw length"), "{error}");
        }
    }

    #[cfg(not(feature = "zstd"))]
    #[test]
    fn zstd_without_its_feature_is_an_unsupported_format() {
        let error = decompress(&identity(), 0, Codec::Zstd, &[0; 16], &mut Vec::new());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::UnsupportedFormat);
        assert_eq!(check_writable(Codec::Zstd).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
