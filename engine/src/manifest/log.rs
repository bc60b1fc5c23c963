//! The manifest file and `CURRENT`, written: nothing is reported as done before it is durable.
//!
//! After an error nobody knows how much of the last record is in the file, so a [`ManifestWriter`] refuses everything after its first
//! failure. A full device is the exception: cutting the file back takes no space, and once that is durable it is known that the record
//! is not in it. So an error of kind `DiskFull` says that the edit is not in force, now and after a crash.
//!
//! ```text
//! MANIFEST = header | record*
//! header   = magic "RLMF" | version u16 | reserved u16 | database id u64 | manifest number u64 | snapshot bytes u64 | check u64
//! record   = length u32 | length check u32 | payload check u64 | payload (one version edit)
//!
//! CURRENT  = magic "RLCU" | version u16 | reserved u16 | database id u64 | manifest number u64 | check u64
//!
//! All numbers are little-endian. Checks are xxh3. Those of records are seeded with database id, manifest number and offset, so that
//! a record at another place or in another file does not pass. The first `snapshot bytes` after the header were durable before
//! `CURRENT` named the file; after them, only the last record can be torn. The length has a check of its own so that the end of a
//! damaged record, and whether sound ones follow, can be told.
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustlite_io::{File, FileSystem};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, ErrorKind, Result};
use crate::file_name::{FileName, FileNumber};
use crate::limits::MANIFEST_RECORD_BYTES_MAX;
use crate::manifest::edit::VersionEdit;

/// The newest manifest format that this code knows.
pub(super) const FORMAT_VERSION: u16 = 1;
pub(super) const MANIFEST_MAGIC: [u8; 4] = *b"RLMF";
pub(super) const CURRENT_MAGIC: [u8; 4] = *b"RLCU";
pub(super) const HEADER_BYTES: usize = 40;
pub(super) const CURRENT_BYTES: usize = 32;
pub(super) const RECORD_HEADER_BYTES: usize = 16;

/// The manifest grows to this size before it is replaced by a shorter one, however small its snapshot is.
const ROLL_OVER_BYTES: u64 = 4 << 20;

/// What the checks of a record are seeded with.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordSeed {
    pub(super) database_id: u64,
    pub(super) manifest_number: FileNumber,
}

impl RecordSeed {
    fn at(self, offset: u64) -> u64 {
        let mut place = [0_u8; 16];
        place[..8].copy_from_slice(&self.manifest_number.to_le_bytes());
        place[8..].copy_from_slice(&offset.to_le_bytes());
        xxh3_64_with_seed(&place, self.database_id)
    }

    /// The check of a record's length.
    pub(super) fn length_check(self, offset: u64, length: u32) -> u32 {
        xxh3_64_with_seed(&length.to_le_bytes(), self.at(offset)) as u32
    }

    /// The check of a record's payload.
    pub(super) fn payload_check(self, offset: u64, payload: &[u8]) -> u64 {
        xxh3_64_with_seed(payload, !self.at(offset))
    }
}

/// The check at the end of the header and of `CURRENT`, over what is before it.
pub(super) fn plain_check(bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, u64::from(FORMAT_VERSION))
}

/// Appends `edit` as a record that will lie at `offset`.
fn put_record(out: &mut Vec<u8>, seed: RecordSeed, offset: u64, edit: &VersionEdit) -> Result<()> {
    let start = out.len();
    out.resize(start + RECORD_HEADER_BYTES, 0);
    edit.encode(out);
    let (header, payload) = out[start..].split_at_mut(RECORD_HEADER_BYTES);
    if payload.len() > MANIFEST_RECORD_BYTES_MAX {
        let len = payload.len();
        return Err(Error::internal(format!("a version edit of {len} bytes is too large")));
    }
    let length = payload.len() as u32;
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..8].copy_from_slice(&seed.length_check(offset, length).to_le_bytes());
    header[8..].copy_from_slice(&seed.payload_check(offset, payload).to_le_bytes());
    Ok(())
}

/// Appends edits to one manifest file.
#[derive(Debug)]
pub(crate) struct ManifestWriter {
    file: Arc<dyn File>,
    number: FileNumber,
    seed: RecordSeed,
    bytes: u64,
    snapshot_bytes: u64,
    failure: Option<Error>,
}

impl ManifestWriter {
    /// Writes a new manifest that begins with `snapshot`, durable with its directory entry; nothing names it yet. After an error the
    /// file is gone, or is an unnamed file that the next scan of the directory removes.
    pub(crate) fn create(
        fs: &dyn FileSystem,
        directory: &Path,
        number: FileNumber,
        database_id: u64,
        snapshot: &[VersionEdit],
    ) -> Result<Self> {
        let seed = RecordSeed { database_id, manifest_number: number };
        let mut content = vec![0; HEADER_BYTES];
        for edit in snapshot {
            let offset = content.len() as u64;
            put_record(&mut content, seed, offset, edit)?;
        }
        let snapshot_bytes = (content.len() - HEADER_BYTES) as u64;
        let header = header(seed, snapshot_bytes);
        content[..HEADER_BYTES].copy_from_slice(&header);
        let path = FileName::Manifest(number).path(directory);
        let file = fs.create(&path)?;
        let written = file
            .write_all_at(0, &content)
            .and_then(|()| file.sync_data())
            .and_then(|()| fs.sync_dir(directory));
        if let Err(error) = written {
            let _ = fs.remove(&path);
            return Err(Error::from(error).context("cannot write a new manifest"));
        }
        Ok(Self { file, number, seed, bytes: content.len() as u64, snapshot_bytes, failure: None })
    }

    /// Appends one edit; it is durable on return. After `DiskFull` it is not in the file, and the next edit may be tried; after any
    /// other error nobody knows, and every later call fails.
    pub(crate) fn append(&mut self, edit: &VersionEdit) -> Result<()> {
        if let Some(first) = &self.failure {
            return Err(Error::poisoned(first));
        }
        let mut record = Vec::new();
        put_record(&mut record, self.seed, self.bytes, edit).map_err(|error| self.fail(error))?;
        let written = self.file.write_all_at(self.bytes, &record);
        let Err(error) = written.and_then(|()| self.file.sync_data()) else {
            self.bytes += record.len() as u64;
            return Ok(());
        };
        let is_cut_off = error.is_disk_full() && self.cut_off();
        let error = Error::from(error).context("cannot record a change of the tables");
        Err(if is_cut_off { error } else { self.fail(error) })
    }

    /// Takes what may be there of a record that did not fit out of the file. False if nobody knows whether that has succeeded.
    fn cut_off(&self) -> bool {
        let cut = self.file.set_len(self.bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = &cut {
            tracing::error!(%error, "a record that did not fit could not be cut off the manifest");
        }
        cut.is_ok()
    }

    pub(crate) fn number(&self) -> FileNumber {
        self.number
    }

    /// The first failure; nothing was appended since.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// Refuses everything from now on, because of `error`. Gives what the caller is told: never `DiskFull`, which would promise that
    /// writes go on when there is space.
    pub(super) fn fail(&mut self, error: Error) -> Error {
        let first = self.failure.get_or_insert_with(|| error.clone());
        if error.kind() == ErrorKind::DiskFull { Error::poisoned(first) } else { error }
    }

    /// True if the edits have outgrown the snapshot, so that a new manifest would be much shorter.
    pub(crate) fn should_roll_over(&self) -> bool {
        self.bytes > ROLL_OVER_BYTES.max(self.snapshot_bytes.saturating_mul(2))
    }
}

fn header(seed: RecordSeed, snapshot_bytes: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MANIFEST_MAGIC);
    header[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&seed.database_id.to_le_bytes());
    header[16..24].copy_from_slice(&seed.manifest_number.to_le_bytes());
    header[24..32].copy_from_slice(&snapshot_bytes.to_le_bytes());
    let check = plain_check(&header[..32]);
    header[32..].copy_from_slice(&check.to_le_bytes());
    header
}

/// How far a failed switch of `CURRENT` got.
#[derive(Debug)]
pub(crate) enum SwitchError {
    /// `CURRENT` names what it named before.
    Unchanged(Error),
    /// Nobody knows which manifest `CURRENT` names after a crash.
    Unknown(Error),
}

/// Makes `CURRENT` name the manifest `number`, durably and atomically.
pub(crate) fn switch_current(
    fs: &dyn FileSystem,
    directory: &Path,
    database_id: u64,
    number: FileNumber,
) -> std::result::Result<(), SwitchError> {
    let mut content = [0; CURRENT_BYTES];
    content[..4].copy_from_slice(&CURRENT_MAGIC);
    content[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    content[8..16].copy_from_slice(&database_id.to_le_bytes());
    content[16..24].copy_from_slice(&number.to_le_bytes());
    let check = plain_check(&content[..24]);
    content[24..].copy_from_slice(&check.to_le_bytes());
    let temporary: PathBuf = FileName::Temporary.path(directory);
    // A leftover of a crash, or of a switch that failed, would be in the way.
    let _ = fs.remove(&temporary);
    let prepared = fs.create(&temporary).and_then(|file| {
        file.write_all_at(0, &content)?;
        file.sync_data()
    });
    if let Err(error) = prepared {
        let _ = fs.remove(&temporary);
        return Err(SwitchError::Unchanged(error.into()));
    }
    fs.rename(&temporary, &FileName::Current.path(directory))
        .and_then(|()| fs.sync_dir(directory))
        .map_err(|error| SwitchError::Unknown(error.into()))
}

impl From<SwitchError> for Error {
    fn from(error: SwitchError) -> Self {
        let (SwitchError::Unchanged(error) | SwitchError::Unknown(error)) = error;
        error.context("cannot switch to a new manifest")
    }
}
