//! The manifest, read and judged: what is in force, what a crash tore off, and what is damage.
//!
//! A record that does not pass its checks is the torn tail of a crash if nothing sound follows it, because records are written one
//! at a time, each durable before the next. If a sound record follows, or the record belongs to the snapshot, something that had
//! been durable is damaged: that is corruption, named with file and offset.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustlite_io::{File, FileSystem, OpenMode};

use crate::coding::Decoder;
use crate::error::{Error, ErrorKind, Result};
use crate::file_name::{FileName, FileNumber};
use crate::limits::MANIFEST_RECORD_BYTES_MAX;
use crate::manifest::edit::{EditError, VersionEdit};
use crate::manifest::log::{
    CURRENT_BYTES, CURRENT_MAGIC, FORMAT_VERSION, HEADER_BYTES, MANIFEST_MAGIC,
    RECORD_HEADER_BYTES, RecordSeed, plain_check,
};
use crate::manifest::state::ManifestState;

/// Bytes read at once.
const WINDOW_BYTES: u64 = 256 << 10;

/// The number of the first manifest of every database.
pub(crate) const FIRST_MANIFEST: FileNumber = 1;

/// What a directory looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectoryContent {
    /// Nothing, or only what an attempt to create a database left before it was done: a database may be created here.
    Creatable,
    /// A database: `CURRENT` exists.
    Database,
    /// Files of a database, but no `CURRENT`.
    Headless,
    /// Other things, nothing of ours: creating a database here would probably be a mistake.
    Foreign,
}

impl DirectoryContent {
    /// Looks at the names in `directory`.
    pub(crate) fn of(fs: &dyn FileSystem, directory: &Path) -> Result<Self> {
        let mut foreign = false;
        let mut headless = false;
        for entry in fs.list(directory)? {
            match FileName::parse(&entry.name) {
                Some(FileName::Current) => return Ok(Self::Database),
                Some(FileName::Table(_) | FileName::Values(_) | FileName::Log(_)) => {
                    headless = true
                }
                Some(FileName::Manifest(number)) => headless |= number != FIRST_MANIFEST,
                Some(FileName::Lock | FileName::Temporary | FileName::SpareLog(_)) => {}
                None => foreign = true,
            }
        }
        Ok(match (headless, foreign) {
            (true, _) => Self::Headless,
            (false, true) => Self::Foreign,
            (false, false) => Self::Creatable,
        })
    }
}

/// Reads the manifest in force.
pub(crate) struct ManifestReader {
    file: Window,
    seed: RecordSeed,
    snapshot_end: u64,
}

impl ManifestReader {
    /// Follows `CURRENT` and replays the manifest that it names.
    pub(crate) fn read(fs: &dyn FileSystem, directory: &Path) -> Result<ManifestState> {
        let (database_id, number) = read_current(fs, directory)?;
        let path = FileName::Manifest(number).path(directory);
        let file = fs.open(&path, OpenMode::Read).map_err(|error| {
            if error.is_not_found() {
                Error::corruption(
                    &path,
                    0,
                    "manifest",
                    "CURRENT names this file, but it is missing",
                )
            } else {
                error.into()
            }
        })?;
        let mut file = Window::new(file, path)?;
        let seed = RecordSeed { database_id, manifest_number: number };
        let snapshot_end = check_header(&mut file, seed)?;
        Self { file, seed, snapshot_end }.replay()
    }

    fn replay(mut self) -> Result<ManifestState> {
        let mut state = ManifestState {
            manifest_number: self.seed.manifest_number,
            ..ManifestState::default()
        };
        state.facts.database_id = self.seed.database_id;
        let mut offset = HEADER_BYTES as u64;
        while offset < self.file.len {
            let Some(payload) = self.record(offset)? else {
                self.judge_damage(offset)?;
                state.torn_tail = Some((offset, self.file.len - offset));
                break;
            };
            let path = &self.file.path;
            let next = offset + (RECORD_HEADER_BYTES + payload.len()) as u64;
            let edit = VersionEdit::decode(&payload).map_err(|error| match error {
                EditError::Corrupt(what) => {
                    Error::corruption(path, offset, "version edit", format!("malformed {what}"))
                }
                EditError::Unsupported(what) => newer(path, &what),
            })?;
            state
                .apply(edit)
                .map_err(|detail| Error::corruption(path, offset, "version edit", detail))?;
            offset = next;
        }
        if offset < self.snapshot_end {
            let detail =
                format!("the file ends before its snapshot does, at {}", self.snapshot_end);
            return Err(Error::corruption(&self.file.path, offset, "manifest snapshot", detail));
        }
        Ok(state)
    }

    /// The payload of the record at `offset`, if it is whole and sound.
    fn record(&mut self, offset: u64) -> Result<Option<Vec<u8>>> {
        let Some((length, check)) = self.record_header(offset)? else { return Ok(None) };
        let start = offset + RECORD_HEADER_BYTES as u64;
        let seed = self.seed;
        let payload = self.file.get(start..start + u64::from(length))?;
        let sound = payload.filter(|payload| seed.payload_check(offset, payload) == check);
        Ok(sound.map(<[u8]>::to_vec))
    }

    /// Length and payload check of the record at `offset`, if its length is sound and it fits into the file.
    fn record_header(&mut self, offset: u64) -> Result<Option<(u32, u64)>> {
        let end = offset + RECORD_HEADER_BYTES as u64;
        let file_len = self.file.len;
        let Some(bytes) = self.file.get(offset..end)? else { return Ok(None) };
        let mut decoder = Decoder::new(bytes);
        let (Some(length), Some(length_check), Some(check)) =
            (decoder.u32(), decoder.u32(), decoder.u64())
        else {
            return Ok(None);
        };
        let sound = length as usize <= MANIFEST_RECORD_BYTES_MAX
            && self.seed.length_check(offset, length) == length_check
            && end + u64::from(length) <= file_len;
        Ok(sound.then_some((length, check)))
    }

    /// Decides what the unsound record at `offset` is: a torn tail (`Ok`) or corruption.
    fn judge_damage(&mut self, offset: u64) -> Result<()> {
        let corrupt = |path: &Path, detail: String| {
            Err(Error::corruption(path, offset, "manifest record", detail))
        };
        if offset < self.snapshot_end {
            return corrupt(&self.file.path, "checksum mismatch inside the snapshot".into());
        }
        // If the length is sound, the place of the next record is known, and its header alone is proof enough.
        if let Some((length, _)) = self.record_header(offset)? {
            let next = offset + RECORD_HEADER_BYTES as u64 + u64::from(length);
            if self.record_header(next)?.is_some() {
                let detail = format!("checksum mismatch, but another record follows at {next}");
                return corrupt(&self.file.path, detail);
            }
        }
        // Elsewhere a length check may be sound by chance, but not often: a file made to keep us busy is damaged too.
        let mut budget = self.file.len.saturating_add(WINDOW_BYTES).saturating_mul(4);
        for candidate in offset + 1..self.file.len {
            let Some((length, _)) = self.record_header(candidate)? else { continue };
            let Some(rest) = budget.checked_sub(u64::from(length) + WINDOW_BYTES) else {
                return corrupt(&self.file.path, "many damaged records".into());
            };
            budget = rest;
            if self.record(candidate)?.is_some() {
                let detail =
                    format!("checksum mismatch, but a sound record follows at {candidate}");
                return corrupt(&self.file.path, detail);
            }
        }
        Ok(())
    }
}

/// Database id and manifest number in `CURRENT`.
fn read_current(fs: &dyn FileSystem, directory: &Path) -> Result<(u64, FileNumber)> {
    let path = FileName::Current.path(directory);
    let file = match fs.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Err(missing_current(fs, directory, &path)?),
        Err(error) => return Err(error.into()),
    };
    let mut file = Window::new(file, path)?;
    let len = file.len;
    let path = file.path.clone();
    let wrong = |offset, detail: &str| Error::corruption(&path, offset, "CURRENT", detail);
    let content = file.get(0..len.min(CURRENT_BYTES as u64))?.unwrap_or_default();
    let mut decoder = Decoder::new(content);
    if decoder.take(4) != Some(&CURRENT_MAGIC) {
        return Err(wrong(0, "the file does not begin with the magic RLCU"));
    }
    let version = decoder.u16().ok_or_else(|| wrong(4, "the file is too short"))?;
    if version > FORMAT_VERSION {
        return Err(newer(&path, &format!("format version {version}")));
    }
    if len != CURRENT_BYTES as u64 {
        return Err(wrong(0, &format!("{len} bytes instead of {CURRENT_BYTES}")));
    }
    decoder.u16();
    let (Some(database_id), Some(number), Some(check)) =
        (decoder.u64(), decoder.u64(), decoder.u64())
    else {
        return Err(wrong(0, "the file is too short"));
    };
    let checked = content.get(..CURRENT_BYTES - 8).unwrap_or_default();
    if plain_check(checked) != check || version == 0 {
        return Err(wrong(24, "checksum mismatch"));
    }
    Ok((database_id, number))
}

fn missing_current(fs: &dyn FileSystem, directory: &Path, path: &Path) -> Result<Error> {
    let shown = directory.display();
    Ok(match DirectoryContent::of(fs, directory)? {
        DirectoryContent::Headless => Error::corruption(
            path,
            0,
            "CURRENT",
            "the file is missing, although the directory holds files of a database",
        ),
        DirectoryContent::Database => Error::corruption(path, 0, "CURRENT", "not a regular file"),
        DirectoryContent::Creatable | DirectoryContent::Foreign => {
            Error::new(ErrorKind::NotADatabase, format!("{shown} holds no database (no CURRENT)"))
        }
    })
}

/// Checks the manifest's header; gives the end of the snapshot.
fn check_header(file: &mut Window, seed: RecordSeed) -> Result<u64> {
    let path = file.path.clone();
    let wrong = |offset, detail: &str| Error::corruption(&path, offset, "manifest header", detail);
    let len = file.len.min(HEADER_BYTES as u64);
    let content = file.get(0..len)?.unwrap_or_default();
    let mut decoder = Decoder::new(content);
    if decoder.take(4) != Some(&MANIFEST_MAGIC) {
        return Err(wrong(0, "the file does not begin with the magic RLMF"));
    }
    let version = decoder.u16().ok_or_else(|| wrong(4, "the file is too short"))?;
    if version > FORMAT_VERSION {
        return Err(newer(&path, &format!("format version {version}")));
    }
    decoder.u16();
    let (Some(database_id), Some(number), Some(snapshot_bytes), Some(check)) =
        (decoder.u64(), decoder.u64(), decoder.u64(), decoder.u64())
    else {
        return Err(wrong(0, "the file is too short"));
    };
    let checked = content.get(..HEADER_BYTES - 8).unwrap_or_default();
    if plain_check(checked) != check || version == 0 {
        return Err(wrong(32, "checksum mismatch"));
    }
    if database_id != seed.database_id || number != seed.manifest_number {
        return Err(wrong(8, "the file belongs to another database or had another number"));
    }
    Ok(snapshot_bytes.saturating_add(HEADER_BYTES as u64))
}

fn newer(path: &Path, what: &str) -> Error {
    let shown = path.display();
    let message = format!("{shown} has {what}, which a newer version of RustLite wrote: upgrade");
    Error::new(ErrorKind::UnsupportedFormat, message)
}

/// A file seen through a buffer that can go anywhere.
struct Window {
    file: Arc<dyn File>,
    path: PathBuf,
    len: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl Window {
    fn new(file: Arc<dyn File>, path: PathBuf) -> Result<Self> {
        let len = file.len()?;
        Ok(Self { file, path, len, start: 0, buffer: Vec::new() })
    }

    /// The bytes of `range`; `None` if the file ends before.
    fn get(&mut self, range: Range<u64>) -> Result<Option<&[u8]>> {
        if range.end > self.len || range.start > range.end {
            return Ok(None);
        }
        if range.start < self.start || range.end > self.start + self.buffer.len() as u64 {
            let wanted = (range.end - range.start).max(WINDOW_BYTES).min(self.len - range.start);
            self.start = range.start;
            self.buffer.clear();
            self.buffer.resize(wanted as usize, 0);
            let read = match self.file.read_at(range.start, &mut self.buffer) {
                Ok(read) => read,
                Err(error) => {
                    self.buffer.clear();
                    return Err(error.into());
                }
            };
            self.buffer.truncate(read);
        }
        let (from, to) = (range.start - self.start, range.end - self.start);
        Ok(self.buffer.get(from as usize..to as usize))
    }
}
