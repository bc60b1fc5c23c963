//! What a copy of a database is made from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rustlite_io::FileSystem;

use crate::core::Core;
use crate::database::Handle;
use crate::error::Result;
use crate::file_name::{FileName, FileNumber};
use crate::key::Sequence;
use crate::manifest::log::{ManifestWriter, switch_current};
use crate::manifest::reader::FIRST_MANIFEST;
use crate::manifest::{Version, VersionEdit};
use crate::sstable::Table;

/// The tables of one moment, pinned, and what the manifest says about them.
pub(super) struct Image {
    /// Keeps the files of its tables.
    pub(super) version: Arc<Version>,
    /// What the database consists of, from nothing; without a log.
    pub(super) edits: Vec<VersionEdit>,
}

impl Image {
    /// Flushes, so that everything committed before the call is in tables, and pins them.
    pub(super) fn take(handle: &Handle) -> Result<Self> {
        handle.check_open()?;
        handle.flush()?;
        let (version, edits) = handle.core.versions.image();
        Ok(Self { version, edits })
    }

    /// The sequence number of the last commit in the image.
    pub(super) fn sequence(&self) -> Sequence {
        last_sequence(&self.edits)
    }

    /// Every file that the image needs: tables, and the value files that they point to.
    pub(super) fn files(&self) -> Vec<ImageFile> {
        let mut files = BTreeMap::new();
        for (_, handle) in self.version.tables() {
            let file = ImageFile {
                name: FileName::Table(handle.number()),
                len: handle.meta.file_bytes,
                file_id: handle.table.file_id(),
                table: Some(Arc::clone(&handle.table)),
            };
            files.insert(handle.number(), file);
            for values in handle.table.value_files() {
                files.entry(values.number()).or_insert_with(|| ImageFile {
                    name: FileName::Values(values.number()),
                    len: values.file_bytes(),
                    file_id: values.file_id(),
                    table: None,
                });
            }
        }
        files.into_values().collect()
    }
}

/// A file of an image.
pub(super) struct ImageFile {
    pub(super) name: FileName,
    pub(super) len: u64,
    /// What tells it from any other file that was written under this number; 0 if that is not known.
    pub(super) file_id: u64,
    /// What can check a table, and the values that it points to.
    pub(super) table: Option<Arc<Table>>,
}

impl ImageFile {
    pub(super) fn number(&self) -> FileNumber {
        match self.name {
            FileName::Table(number) | FileName::Values(number) => number,
            _ => 0,
        }
    }
}

/// The sequence number of the last commit that the edits speak of.
pub(super) fn last_sequence(edits: &[VersionEdit]) -> Sequence {
    edits.iter().filter_map(|edit| edit.last_sequence).max().unwrap_or(0)
}

/// Makes a database of the tables in `directory`, durably: writes the manifest that names them, and then what names the manifest.
pub(super) fn write_manifest(
    fs: &dyn FileSystem,
    directory: &Path,
    database_id: u64,
    edits: &[VersionEdit],
) -> Result<()> {
    // A number that no table has.
    let number: FileNumber =
        edits.iter().filter_map(|edit| edit.next_file).max().unwrap_or(0).max(FIRST_MANIFEST + 1);
    ManifestWriter::create(fs, directory, number, database_id, edits)?;
    switch_current(fs, directory, database_id, number)?;
    Ok(())
}

/// Where the tables of an open database are.
pub(super) fn source(core: &Core) -> (&dyn FileSystem, &Path) {
    (&*core.file_system, &core.directory)
}
