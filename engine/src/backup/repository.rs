//! `Backup`: a directory of generations.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustlite_io::{FileLock, FileSystem, RealFileSystem};

use crate::backup::generation::{Generation, check_marker, encode_marker};
use crate::backup::image::last_sequence;
use crate::backup::names::{BackupName, Content, GenerationNumber};
use crate::error::{Error, ErrorKind, Result};
use crate::recovery::open::parent_of;

/// A directory with backups of a database, in generations.
///
/// A generation is the state of a database at one moment. Tables are immutable, so generations share those that they have in common:
/// [`create`](Self::create) copies what is new. Each file is named by a hash of its content, which
/// [`verify`](Self::verify) and [`restore`](Self::restore) check. Backups of databases in memory work too.
///
/// ```
/// # fn main() -> Result<(), rustlite_engine::Error> {
/// # let place = std::env::temp_dir().join(format!("rustlite-backup-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&place).unwrap();
/// use rustlite_engine::{Backup, Database};
/// let db = Database::open(place.join("db"))?;
/// let backup = Backup::open(place.join("backup"))?;
/// db.put("k", "first")?;
/// let first = backup.create(&db)?;
/// db.put("k", "second")?;
/// backup.create(&db)?; // copies only what is new
///
/// backup.verify()?;
/// backup.restore(first.generation, place.join("restored"))?;
/// let restored = Database::open(place.join("restored"))?;
/// assert_eq!(restored.get("k")?.as_deref(), Some(&b"first"[..]));
/// # drop((db, restored));
/// # std::fs::remove_dir_all(&place).ok();
/// # Ok(())
/// # }
/// ```
pub struct Backup {
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) directory: PathBuf,
    progress: Box<dyn Fn(BackupProgress) + Send + Sync>,
}

/// A generation of a [`Backup`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupInfo {
    /// Its number: later generations have larger ones.
    pub generation: u64,
    /// When it was made, as time since the Unix epoch.
    pub created: Duration,
    /// Which database it is of; copies and restored databases keep the number.
    pub database_id: u64,
    /// The sequence number of the last commit that it holds.
    pub sequence: u64,
    /// Its tables and value files.
    pub files: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of its files that no earlier generation has.
    pub new_bytes: u64,
}

/// How far a long operation of a [`Backup`] has come. Totals are known from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Files that are done.
    pub files_done: u64,
    /// Files in all.
    pub files_total: u64,
    /// Bytes of files that are done; shared files count when they are found to be there.
    pub bytes_done: u64,
    /// Bytes of files in all.
    pub bytes_total: u64,
}

impl Backup {
    /// Opens the backup in `directory`, creating the directory if it does not exist (its parent must).
    ///
    /// # Errors
    /// `NotADatabase` if the directory holds other things, `NotFound` if its parent is missing, `Corruption` or `UnsupportedFormat` if
    /// the file `BACKUP` in it is damaged or newer, I/O errors.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(RealFileSystem::new(None)?, directory)
    }

    /// Opens a backup on another file system, such as the simulator of `rustlite-io`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[doc(hidden)]
    pub fn open_on(file_system: Arc<dyn FileSystem>, directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref().to_path_buf();
        prepare(&*file_system, &directory)?;
        Ok(Self { fs: file_system, directory, progress: Box::new(|_| ()) })
    }

    /// Calls `progress` during creating, verifying and restoring, a few times for each megabyte at most. It should be quick.
    #[must_use]
    pub fn on_progress(
        mut self,
        progress: impl Fn(BackupProgress) + Send + Sync + 'static,
    ) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// The generations, oldest first.
    ///
    /// # Errors
    /// `Corruption` if a generation's own file is damaged, `UnsupportedFormat` if it is newer, I/O errors.
    pub fn list(&self) -> Result<Vec<BackupInfo>> {
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for number in self.numbers()? {
            let generation = Generation::read(&*self.fs, &self.directory, number)?;
            all.push(info(&generation, &mut seen));
        }
        Ok(all)
    }

    /// The numbers of all generations, ascending.
    pub(super) fn numbers(&self) -> Result<Vec<GenerationNumber>> {
        let mut numbers: Vec<_> = self
            .fs
            .list(&self.directory)?
            .iter()
            .filter_map(|entry| match BackupName::parse(&entry.name) {
                Some(BackupName::Generation(number)) => Some(number),
                _ => None,
            })
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn path(&self, name: BackupName) -> PathBuf {
        name.path(&self.directory)
    }

    /// Keeps others from adding and removing generations.
    pub(super) fn lock(&self) -> Result<Box<dyn FileLock>> {
        self.fs.lock(&self.path(BackupName::Lock)).map_err(|error| {
            if error.kind() == std::io::ErrorKind::WouldBlock {
                let shown = self.directory.display();
                let message = format!("the backup in {shown} is being changed by somebody else");
                Error::new(ErrorKind::Locked, message)
            } else {
                Error::from(error)
            }
        })
    }

    /// Starts to count work on files of these lengths.
    pub(super) fn progress(&self, lengths: impl Iterator<Item = u64>) -> Progress<'_> {
        let mut state =
            BackupProgress { files_done: 0, files_total: 0, bytes_done: 0, bytes_total: 0 };
        for len in lengths {
            state.files_total += 1;
            state.bytes_total += len;
        }
        (self.progress)(state);
        Progress { tell: &self.progress, state }
    }
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Counts, and tells.
pub(super) struct Progress<'a> {
    tell: &'a dyn Fn(BackupProgress),
    state: BackupProgress,
}

impl Progress<'_> {
    pub(super) fn bytes(&mut self, count: u64) {
        self.state.bytes_done += count;
        (self.tell)(self.state);
    }

    pub(super) fn file(&mut self) {
        self.state.files_done += 1;
        (self.tell)(self.state);
    }
}

/// What users see of a generation. `seen` has the tables of all earlier ones, and takes its own.
pub(super) fn info(generation: &Generation, seen: &mut BTreeSet<Content>) -> BackupInfo {
    let contents = || generation.files.values().map(|file| file.content);
    let new = contents().filter(|content| seen.insert(*content)).map(|content| content.len).sum();
    BackupInfo {
        generation: generation.number,
        created: Duration::from_millis(generation.created),
        database_id: generation.database_id,
        sequence: last_sequence(&generation.edits),
        files: generation.files.len() as u64,
        bytes: contents().map(|content| content.len).sum(),
        new_bytes: new,
    }
}

/// Makes sure that `directory` is one of backups, or makes it one if it is new or empty.
fn prepare(fs: &dyn FileSystem, directory: &Path) -> Result<()> {
    let shown = directory.display();
    let parent = parent_of(directory);
    if !fs.exists(directory)? {
        if !fs.exists(parent)? {
            let message = format!("directory {} does not exist", parent.display());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        fs.create_dir_all(directory)?;
    }
    let marker = BackupName::Marker.path(directory);
    if fs.exists(&marker)? {
        return check_marker(fs, &marker);
    }
    // What an interrupted attempt to create it left is fine; anything else makes it somebody else's.
    let entries = fs.list(directory)?;
    if entries.iter().any(|entry| BackupName::parse(&entry.name) != Some(BackupName::Temporary)) {
        let message =
            format!("{shown} holds files, but not those of a backup; nothing was changed");
        return Err(Error::new(ErrorKind::NotADatabase, message));
    }
    fs.sync_dir(parent)?;
    write_file(fs, directory, BackupName::Marker, &encode_marker())
}

/// Writes a small file, whole or not at all, durably.
pub(super) fn write_file(
    fs: &dyn FileSystem,
    directory: &Path,
    name: BackupName,
    content: &[u8],
) -> Result<()> {
    let temporary = BackupName::Temporary.path(directory);
    // A leftover would be in the way.
    let _ = fs.remove(&temporary);
    let written = fs.create(&temporary).and_then(|file| {
        file.write_all_at(0, content)?;
        file.sync_data()
    });
    let renamed = written.and_then(|()| fs.rename(&temporary, &name.path(directory)));
    if let Err(error) = renamed {
        let _ = fs.remove(&temporary);
        return Err(error.into());
    }
    Ok(fs.sync_dir(directory)?)
}
