//! The bytes of a generation, and of the marker of a backup directory.
//!
//! ```text
//! BACKUP     = magic "RLBD" | version u16 | reserved u16 | check u64
//!
//! generation = header | body | body check u64
//! header     = magic "RLBK" | version u16 | reserved u16 | generation u64 | database id u64 | created u64 | body bytes u64 | check u64
//!              created: milliseconds since the Unix epoch
//! body       = count | edit*                        edits in the form of the manifest, length-prefixed: they name the tables
//!              count | file*                        each table, and each value file that a table points to
//! file       = number | length (varints) | file id u64 | content hash u128
//!
//! All other numbers are little-endian; counts are varints. Checks are xxh3; that of the body is seeded with the generation's number.
//! ```
//!
//! There are no paths in it: where a file is read from follows from its content, and where it is restored to from its number, so that no
//! bytes can make a restore touch anything else. Nothing is allocated that the file is not long enough for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rustlite_io::{FileSystem, OpenMode};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::backup::copy::ContentHash;
use crate::backup::names::{BackupName, Content, GenerationNumber};
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::error::{Error, ErrorKind, Result};
use crate::file_name::{FileName, FileNumber};
use crate::limits::MANIFEST_RECORD_BYTES_MAX;
use crate::manifest::VersionEdit;
use crate::manifest::edit::EditError;
use crate::manifest::state::ManifestState;

/// The newest format that this code knows, and the one that it writes.
const FORMAT_VERSION: u16 = 1;
const MARKER_MAGIC: [u8; 4] = *b"RLBD";
const MAGIC: [u8; 4] = *b"RLBK";
const MARKER_BYTES: usize = 16;
const HEADER_BYTES: usize = 48;
const CHECK_BYTES: usize = 8;

/// The largest generation file: as many tables as the largest manifest record could name.
const GENERATION_BYTES_MAX: u64 = MANIFEST_RECORD_BYTES_MAX as u64;

/// A file of a generation: which file of the database it was, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SavedFile {
    pub(super) file_id: u64,
    pub(super) content: Content,
}

/// One state of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) number: GenerationNumber,
    pub(super) database_id: u64,
    /// Milliseconds since the Unix epoch.
    pub(super) created: u64,
    /// What the database consists of.
    pub(super) edits: Vec<VersionEdit>,
    /// The content of each table that the edits name, and of each value file that a table points to.
    pub(super) files: BTreeMap<FileNumber, SavedFile>,
}

impl Generation {
    /// The file's bytes.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        put_varint(&mut body, self.edits.len() as u64);
        for edit in &self.edits {
            let mut bytes = Vec::new();
            edit.encode(&mut bytes);
            put_bytes(&mut body, &bytes);
        }
        put_varint(&mut body, self.files.len() as u64);
        for (&number, file) in &self.files {
            put_varint(&mut body, number);
            put_varint(&mut body, file.content.len);
            body.extend_from_slice(&file.file_id.to_le_bytes());
            body.extend_from_slice(&file.content.hash.to_le_bytes());
        }
        let mut file = Vec::with_capacity(HEADER_BYTES + body.len() + CHECK_BYTES);
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        file.extend_from_slice(&[0; 2]);
        for number in [self.number, self.database_id, self.created, body.len() as u64] {
            file.extend_from_slice(&number.to_le_bytes());
        }
        let check = xxh3_64(&file);
        file.extend_from_slice(&check.to_le_bytes());
        let check = xxh3_64_with_seed(&body, self.number);
        file.extend_from_slice(&body);
        file.extend_from_slice(&check.to_le_bytes());
        if file.len() as u64 > GENERATION_BYTES_MAX {
            return Err(Error::invalid("the database has too many tables for one backup"));
        }
        Ok(file)
    }

    /// Reads the generation `number` of a backup directory.
    pub(super) fn read(
        fs: &dyn FileSystem,
        directory: &Path,
        number: GenerationNumber,
    ) -> Result<Self> {
        let path = BackupName::Generation(number).path(directory);
        let file = fs.open(&path, OpenMode::Read).map_err(|error| {
            if error.is_not_found() {
                let shown = directory.display();
                let message = format!("the backup in {shown} has no generation {number}");
                Error::new(ErrorKind::NotFound, message)
            } else {
                Error::from(error)
            }
        })?;
        let len = file.len()?;
        if len > GENERATION_BYTES_MAX {
            let detail = format!("{len} bytes, more than any generation has");
            return Err(Error::corruption(&path, 0, "backup generation", detail));
        }
        let mut bytes = vec![0; len as usize];
        let read = file.read_at(0, &mut bytes)?;
        Self::decode(bytes.get(..read).unwrap_or_default(), &path, number)
    }

    /// Reads and checks the bytes of the file `path`, which by its name is the generation `number`.
    pub(super) fn decode(bytes: &[u8], path: &Path, number: GenerationNumber) -> Result<Self> {
        let wrong = |offset: usize, detail: &str| {
            Error::corruption(path, offset as u64, "backup generation", detail)
        };
        check_magic_and_version(bytes, MAGIC, path, "backup generation")?;
        let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(wrong(bytes.len(), "the file is too short"));
        };
        let (covered, check) = header.split_at(HEADER_BYTES - CHECK_BYTES);
        if xxh3_64(covered).to_le_bytes() != check {
            return Err(wrong(HEADER_BYTES - CHECK_BYTES, "checksum mismatch in the header"));
        }
        let mut fields = Decoder::new(&covered[8..]);
        let mut field = || fields.u64().unwrap_or_default();
        let (stored_number, database_id, created, body_bytes) =
            (field(), field(), field(), field());
        if stored_number != number {
            return Err(wrong(8, &format!("the file was written as generation {stored_number}")));
        }
        if rest.len() as u64 != body_bytes.saturating_add(CHECK_BYTES as u64) {
            let len = bytes.len();
            return Err(wrong(32, &format!("{len} bytes do not fit a body of {body_bytes}")));
        }
        let (body, check) = rest.split_at(rest.len() - CHECK_BYTES);
        if xxh3_64_with_seed(body, number).to_le_bytes() != check {
            return Err(wrong(HEADER_BYTES, "checksum mismatch"));
        }
        let (edits, files) = decode_body(body).map_err(|problem| match problem {
            EditError::Corrupt(what) => wrong(HEADER_BYTES, &format!("malformed {what}")),
            EditError::Unsupported(what) => newer(path, &what),
        })?;
        let generation = Self { number, database_id, created, edits, files };
        generation.check().map_err(|detail| wrong(HEADER_BYTES, &detail))?;
        Ok(generation)
    }

    /// Checks that the edits make sense, and that there is a content for each of their tables and no other.
    fn check(&self) -> std::result::Result<(), String> {
        let mut state = ManifestState::default();
        for edit in self.edits.iter().cloned() {
            state.apply(edit)?;
        }
        if state.facts.database_id != self.database_id || self.database_id == 0 {
            return Err("the edits are those of another database".into());
        }
        if !state.facts.logs.is_empty() {
            return Err("log segments are named, and backups have none".into());
        }
        let value_files = value_files(&state);
        let (named, saved) = (state.tables.len() + value_files.len(), self.files.len());
        if named != saved {
            return Err(format!("{named} files are named, and {saved} are there"));
        }
        for (number, (_, meta)) in &state.tables {
            match self.files.get(number) {
                Some(file) if file.content.len == meta.file_bytes => {}
                _ => return Err(format!("table {number:06} is named, but not with this length")),
            }
        }
        for number in value_files {
            if state.tables.contains_key(&number) || !self.files.contains_key(&number) {
                return Err(format!("value file {number:06} is named, but not there"));
            }
        }
        Ok(())
    }

    /// The files by the names that they had, and get again.
    pub(super) fn named_files(&self) -> impl Iterator<Item = (FileName, Content)> {
        let edits = self.edits.iter();
        let tables: BTreeSet<FileNumber> =
            edits.flat_map(|edit| &edit.added).map(|(_, meta)| meta.number).collect();
        self.files.iter().map(move |(&number, file)| {
            let is_table = tables.contains(&number);
            let name = if is_table { FileName::Table } else { FileName::Values };
            (name(number), file.content)
        })
    }
}

/// The value files that the tables point to.
fn value_files(state: &ManifestState) -> BTreeSet<FileNumber> {
    let tables = state.tables.values();
    tables.flat_map(|(_, meta)| &meta.values).map(|share| share.file).collect()
}

type Body = (Vec<VersionEdit>, BTreeMap<FileNumber, SavedFile>);

fn decode_body(body: &[u8]) -> std::result::Result<Body, EditError> {
    let mut fields = Decoder::new(body);
    let mut edits = Vec::new();
    let count = fields.varint().ok_or(EditError::Corrupt("count of edits"))?;
    for _ in 0..count {
        let bytes = fields.bytes().ok_or(EditError::Corrupt("edit"))?;
        edits.push(VersionEdit::decode(bytes)?);
    }
    let mut files = BTreeMap::new();
    let count = fields.varint().ok_or(EditError::Corrupt("count of files"))?;
    for _ in 0..count {
        let (number, file) = decode_file(&mut fields).ok_or(EditError::Corrupt("file"))?;
        if files.insert(number, file).is_some() {
            return Err(EditError::Corrupt("file that is there twice"));
        }
    }
    if fields.is_empty() { Ok((edits, files)) } else { Err(EditError::Corrupt("end")) }
}

fn decode_file(fields: &mut Decoder<'_>) -> Option<(FileNumber, SavedFile)> {
    let (number, len) = (fields.varint()?, fields.varint()?);
    let file_id = fields.u64()?;
    let hash = ContentHash::from_le_bytes(fields.take(16)?.try_into().ok()?);
    Some((number, SavedFile { file_id, content: Content { hash, len } }))
}

/// The bytes of the file that says that a directory holds backups.
pub(super) fn encode_marker() -> Vec<u8> {
    let mut marker = MARKER_MAGIC.to_vec();
    marker.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    marker.extend_from_slice(&[0; 2]);
    let check = xxh3_64(&marker);
    marker.extend_from_slice(&check.to_le_bytes());
    marker
}

/// Checks the file that says that a directory holds backups.
pub(super) fn check_marker(fs: &dyn FileSystem, path: &Path) -> Result<()> {
    let file = fs.open(path, OpenMode::Read)?;
    let mut bytes = [0; MARKER_BYTES];
    let read = file.read_at(0, &mut bytes)?;
    let bytes = bytes.get(..read).unwrap_or_default();
    check_magic_and_version(bytes, MARKER_MAGIC, path, "backup marker")?;
    if bytes != encode_marker() || file.len()? != MARKER_BYTES as u64 {
        return Err(Error::corruption(path, 0, "backup marker", "checksum mismatch"));
    }
    Ok(())
}

/// The first bytes of both files: a newer one is told from a damaged one.
fn check_magic_and_version(
    bytes: &[u8],
    magic: [u8; 4],
    path: &Path,
    what: &'static str,
) -> Result<()> {
    let mut fields = Decoder::new(bytes);
    if fields.take(magic.len()) != Some(&magic) {
        return Err(Error::corruption(path, 0, what, "the file does not begin with its magic"));
    }
    match fields.u16() {
        Some(FORMAT_VERSION) => Ok(()),
        Some(version) if version > FORMAT_VERSION => {
            Err(newer(path, &format!("format version {version}")))
        }
        _ => Err(Error::corruption(path, 4, what, "format version 0 or none")),
    }
}

fn newer(path: &Path, what: &str) -> Error {
    let shown = path.display();
    let message = format!("{shown} has {what}, which a newer version of RustLite wrote: upgrade");
    Error::new(ErrorKind::UnsupportedFormat, message)
}
