//! An open value file.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustlite_io::{Advice, Mapping};

use super::SEPARATION_BYTES_MIN;
use super::format::{HEADER_BYTES, Pointer, check_header};
use crate::error::{Error, Result};
use crate::file_name::{FileName, FileNumber};
use crate::manifest::LiveFiles;
use crate::sstable::{BLOCK_TRAILER_BYTES, Codec, Identity, TableEnv};

/// Values of one file, in its memory map. Keeps them readable even after the file was removed.
pub(crate) struct ValueFile {
    env: TableEnv,
    identity: Identity,
    file_id: u64,
    map: Mapping,
    /// A bit for each stretch of `SEPARATION_BYTES_MIN` bytes: the value that begins in it was brought in and verified. Relaxed: the
    /// bytes that it vouches for never change. At worst two threads verify the same value.
    verified: Box<[AtomicU64]>,
    files: Arc<LiveFiles>,
}

/// A verified value of a file.
#[derive(Debug, Clone)]
pub(crate) struct PinnedRange {
    file: Arc<ValueFile>,
    range: Range<usize>,
}

impl PinnedRange {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.file.map.get(self.range.clone()).expect("the range was checked against the map")
    }
}

impl ValueFile {
    /// Opens value file `number`. One that is missing is corruption: a table points to it.
    pub(super) fn open(
        env: &TableEnv,
        number: FileNumber,
        files: &Arc<LiveFiles>,
    ) -> Result<Arc<Self>> {
        let path = FileName::Values(number).path(&env.directory);
        let identity = Identity { path, database_id: env.database_id, number };
        let map = env.fs.map(&identity.path).map_err(|error| {
            if error.is_not_found() {
                identity.corruption(0, "value file", "tables point to this file, but it is missing")
            } else {
                Error::from(error)
            }
        })?;
        map.advise(Advice::Random, 0..map.len());
        map.populate(0..map.len().min(HEADER_BYTES))?;
        let file_id = check_header(&identity, &map)?;
        let words = map.len().div_ceil(SEPARATION_BYTES_MIN * u64::BITS as usize);
        files.add_live(number);
        Ok(Arc::new(Self {
            env: env.clone(),
            identity,
            file_id,
            map,
            verified: (0..words).map(|_| AtomicU64::new(0)).collect(),
            files: Arc::clone(files),
        }))
    }

    /// Its number.
    pub(crate) fn number(&self) -> FileNumber {
        self.identity.number
    }

    /// A number that no other file has, whatever it is called and whichever copy of the database wrote it.
    pub(crate) fn file_id(&self) -> u64 {
        self.file_id
    }

    /// Size of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Bytes that values take, live or not.
    pub(crate) fn value_bytes(&self) -> u64 {
        self.file_bytes().saturating_sub(HEADER_BYTES as u64)
    }

    /// The value at `pointer`, which belongs to this file.
    pub(crate) fn value(self: Arc<Self>, pointer: Pointer) -> Result<PinnedRange> {
        let stored = pointer.range();
        if stored.end > self.file_bytes() || stored.start < HEADER_BYTES as u64 {
            return Err(self.outside(pointer));
        }
        let (start, end) = (stored.start as usize, stored.end as usize);
        let stretch = start / SEPARATION_BYTES_MIN;
        let bit = 1 << (stretch % u64::BITS as usize);
        let word = self.verified.get(stretch / u64::BITS as usize);
        let verified = word.is_some_and(|word| word.load(Relaxed) & bit != 0);
        if !verified || self.env.verify_always {
            self.env.residency.request(&self.map, start..end);
            self.map.populate(start..end)?;
            self.check(pointer, self.map.get(start..end).unwrap_or_default())?;
            if let Some(word) = word {
                word.fetch_or(bit, Relaxed);
            }
        } else if self.env.residency.asks(stretch as u64) {
            self.env.residency.request(&self.map, start..end);
        }
        Ok(PinnedRange { range: start..end - BLOCK_TRAILER_BYTES, file: self })
    }

    fn outside(&self, pointer: Pointer) -> Error {
        let detail = format!("{} bytes in a file of {}", pointer.len, self.file_bytes());
        self.identity.corruption(pointer.offset, "value", detail)
    }

    fn check(&self, pointer: Pointer, stored: &[u8]) -> Result<()> {
        match self.identity.unseal(pointer.offset, stored, "value")? {
            (Codec::None, _) => Ok(()),
            (codec, _) => {
                let detail = format!("stored with codec {codec:?}");
                Err(self.identity.corruption(pointer.offset, "value", detail))
            }
        }
    }

    /// Reads the values at `pointers`, ascending, from the medium and not from the map, and checks them.
    pub(crate) fn verify(&self, pointers: &[Pointer]) -> Result<u64> {
        let mut stream = self.env.fs.open_stream(&self.identity.path)?;
        let mut bytes = 0;
        for &pointer in pointers {
            if pointer.range().end > stream.len() {
                return Err(self.outside(pointer));
            }
            self.check(pointer, stream.read(pointer.range())?)?;
            bytes += pointer.stored_bytes();
        }
        Ok(bytes)
    }
}

impl Drop for ValueFile {
    fn drop(&mut self) {
        self.files.release_values(self.identity.number);
    }
}

impl std::fmt::Debug for ValueFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ValueFile({})", self.identity.path.display())
    }
}
