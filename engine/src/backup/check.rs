//! Verifies backups, and makes databases of them again.

use std::collections::BTreeSet;
use std::path::Path;

use crate::backup::copy::{ContentHash, Place, copy, read};
use crate::backup::generation::Generation;
use crate::backup::image::write_manifest;
use crate::backup::names::{BackupName, Content};
use crate::backup::repository::Backup;
use crate::backup::staging::Staging;
use crate::error::{Error, ErrorKind, Result};

impl Backup {
    /// Reads every file of every generation and checks that it holds what was saved. Gives the number of bytes read.
    ///
    /// # Errors
    /// [`Corruption`](ErrorKind::Corruption), naming the first file that is damaged or missing; read errors.
    pub fn verify(&self) -> Result<u64> {
        let mut contents = BTreeSet::new();
        for number in self.numbers()? {
            contents.extend(self.contents_of(number)?);
        }
        self.verify_contents(&contents)
    }

    /// [`verify`](Self::verify) of the files that one generation needs.
    ///
    /// # Errors
    /// As [`verify`](Self::verify); `NotFound` if there is no such generation.
    pub fn verify_generation(&self, generation: u64) -> Result<u64> {
        self.verify_contents(&self.contents_of(generation)?)
    }

    fn contents_of(&self, number: u64) -> Result<BTreeSet<Content>> {
        let generation = Generation::read(&*self.fs, &self.directory, number)?;
        Ok(generation.files.values().map(|file| file.content).collect())
    }

    fn verify_contents(&self, contents: &BTreeSet<Content>) -> Result<u64> {
        let mut progress = self.progress(contents.iter().map(|content| content.len));
        for &content in contents {
            let path = self.path(BackupName::File(content));
            let place = Place { fs: &*self.fs, path: &path };
            let read = read(place, content.len, |bytes| {
                progress.bytes(bytes.len() as u64);
                Ok(())
            });
            check_hash(read.map_err(|error| missing(&path, error))?, content, &path)?;
            progress.file();
        }
        Ok(contents.iter().map(|content| content.len).sum())
    }

    /// Makes a database of a generation, in `directory`, which must not exist or be empty; its parent must exist. The database is
    /// durable, and complete or not there. Every byte is checked on the way.
    ///
    /// # Errors
    /// `AlreadyExists` if something is in `directory`; `NotFound` if its parent, or the generation, is missing;
    /// [`Corruption`](ErrorKind::Corruption), naming the file, if a file of the backup is damaged or missing; `Locked` if another restore
    /// to `directory` is under way; `DiskFull`; I/O errors.
    pub fn restore(&self, generation: u64, directory: impl AsRef<Path>) -> Result<()> {
        let generation = Generation::read(&*self.fs, &self.directory, generation)?;
        let fs = &*self.fs;
        let staging = Staging::begin(fs, directory.as_ref())?;
        let mut progress = self.progress(generation.files.values().map(|file| file.content.len));
        for (name, content) in generation.named_files() {
            let from = self.path(BackupName::File(content));
            let to = name.path(staging.directory());
            let (source, target) = (Place { fs, path: &from }, Place { fs, path: &to });
            let hash = copy(source, target, content.len, &mut |bytes| progress.bytes(bytes));
            check_hash(hash.map_err(|error| missing(&from, error))?, content, &from)?;
            progress.file();
        }
        fs.sync_dir(staging.directory())?;
        write_manifest(fs, staging.directory(), generation.database_id, &generation.edits)?;
        staging.publish()
    }

    /// [`restore`](Self::restore) of the newest generation; gives its number.
    ///
    /// # Errors
    /// As [`restore`](Self::restore); `NotFound` if there is no generation.
    pub fn restore_latest(&self, directory: impl AsRef<Path>) -> Result<u64> {
        let Some(&latest) = self.numbers()?.last() else {
            let message = format!("the backup in {} is empty", self.directory.display());
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        self.restore(latest, directory)?;
        Ok(latest)
    }
}

fn check_hash(found: ContentHash, content: Content, path: &Path) -> Result<()> {
    if found == content.hash {
        return Ok(());
    }
    let detail = format!("the content has hash {found:032x}, not the one in its name");
    Err(Error::corruption(path, 0, "backup file", detail))
}

/// A file of a generation that is gone is damage of the backup.
fn missing(path: &Path, error: Error) -> Error {
    match error.io_error() {
        Some(io) if io.is_not_found() && io.path() == path => {
            Error::corruption(path, 0, "backup file", "a generation needs it, but it is missing")
        }
        _ => error,
    }
}
