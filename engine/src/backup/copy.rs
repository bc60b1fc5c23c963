//! Files copied, linked and hashed.

use std::io::ErrorKind as IoKind;
use std::path::Path;

use rustlite_io::{FileSystem, IoError};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};

/// Bytes read and written at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// The hash of a file's content, 128 bits wide: two files of one backup are the same if their hashes and lengths are.
pub(super) type ContentHash = u128;

/// A file on some file system.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) fs: &'a dyn FileSystem,
    pub(super) path: &'a Path,
}

/// Reads a file of `len` bytes, in pieces for `each`; gives the hash of its content.
pub(super) fn read(
    from: Place<'_>,
    len: u64,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<ContentHash> {
    let mut stream = from.fs.open_stream(from.path)?;
    if stream.len() != len {
        let detail = format!("{} bytes instead of {len}", stream.len());
        return Err(Error::corruption(from.path, stream.len().min(len), "file size", detail));
    }
    let mut hash = Xxh3::new();
    let mut at = 0;
    while at < len {
        let end = len.min(at + CHUNK_BYTES);
        let bytes = stream.read(at..end)?;
        hash.update(bytes);
        each(bytes)?;
        at = end;
    }
    Ok(hash.digest128())
}

/// Copies a file of `len` bytes to a new file; its content is durable on return, the directory is the caller's to sync. Gives the hash
/// of the content. After an error there is no new file, or one that the caller's cleaning finds.
pub(super) fn copy(
    from: Place<'_>,
    to: Place<'_>,
    len: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<ContentHash> {
    let mut sink = to.fs.create_sink(to.path)?;
    let copied = read(from, len, |bytes| {
        sink.append(bytes)?;
        progress(bytes.len() as u64);
        Ok(())
    });
    let copied = copied.and_then(|hash| {
        sink.finish()?;
        Ok(hash)
    });
    drop(sink);
    copied.inspect_err(|_| {
        let _ = to.fs.remove(to.path);
    })
}

/// Gives a file a second name. False if the file system cannot, so that a copy has to do.
pub(super) fn link(fs: &dyn FileSystem, from: &Path, to: &Path) -> Result<bool> {
    match fs.hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if must_copy(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Another file system, one without links, too many links of one file, or a kernel that protects links.
fn must_copy(error: &IoError) -> bool {
    matches!(
        error.kind(),
        IoKind::CrossesDevices
            | IoKind::TooManyLinks
            | IoKind::Unsupported
            | IoKind::PermissionDenied
    )
}
