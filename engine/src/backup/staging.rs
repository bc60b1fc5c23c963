//! A directory in which a database is made before it gets its name.
//!
//! Beside the target `db` it is called `.db.rustlite-partial`. It is locked while it is used, and what an interrupted attempt left in it
//! is removed by the next.

use std::path::{Path, PathBuf};

use rustlite_io::{DirEntry, FileLock, FileSystem};

use crate::error::{Error, ErrorKind, Result};
use crate::file_name::FileName;
use crate::recovery::open::parent_of;

/// A database in the making. Dropped before [`publish`](Self::publish), it leaves nothing.
pub(super) struct Staging<'a> {
    fs: &'a dyn FileSystem,
    target: PathBuf,
    directory: PathBuf,
    lock: Option<Box<dyn FileLock>>,
}

impl<'a> Staging<'a> {
    /// Begins a database that will be `target`, which must not exist or be an empty directory.
    pub(super) fn begin(fs: &'a dyn FileSystem, target: &Path) -> Result<Self> {
        let Some(name) = target.file_name().and_then(|name| name.to_str()) else {
            let shown = target.display();
            return Err(Error::invalid(format!("{shown} does not end in the name of a directory")));
        };
        let parent = parent_of(target);
        if !fs.exists(parent)? {
            let message = format!("directory {} does not exist", parent.display());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        check_vacant(fs, target)?;
        let directory = parent.join(format!(".{name}.rustlite-partial"));
        clean_up_allowed(fs, &directory)?;
        fs.create_dir_all(&directory)?;
        let lock = fs.lock(&FileName::Lock.path(&directory)).map_err(|error| {
            if error.kind() == std::io::ErrorKind::WouldBlock {
                let shown = target.display();
                let message = format!("another checkpoint or restore to {shown} is under way");
                Error::new(ErrorKind::Locked, message)
            } else {
                Error::from(error)
            }
        })?;
        let staging = Self { fs, target: target.to_path_buf(), directory, lock: Some(lock) };
        staging.remove_files()?;
        Ok(staging)
    }

    /// Where the files go.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Gives the finished database its name. Its files must be durable, and what names them in the directory too.
    pub(super) fn publish(mut self) -> Result<()> {
        check_vacant(self.fs, &self.target)?;
        self.fs.rename(&self.directory, &self.target)?;
        // From here on the directory is the user's.
        self.lock = None;
        self.fs.sync_dir(parent_of(&self.target))?;
        Ok(())
    }

    /// Removes all files but the lock. What names the others goes first, so that what a crash leaves is no database.
    fn remove_files(&self) -> Result<()> {
        let current = FileName::Current.path(&self.directory);
        if self.fs.exists(&current)? {
            self.fs.remove(&current)?;
            self.fs.sync_dir(&self.directory)?;
        }
        for entry in self.fs.list(&self.directory)? {
            if FileName::parse(&entry.name) != Some(FileName::Lock) {
                self.fs.remove(&self.directory.join(entry.name))?;
            }
        }
        Ok(())
    }

    fn abandon(&self) -> Result<()> {
        self.remove_files()?;
        self.fs.remove(&FileName::Lock.path(&self.directory))?;
        Ok(self.fs.remove_dir(&self.directory)?)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        if let Err(error) = self.abandon() {
            tracing::warn!(%error, "an unfinished copy stays until the next attempt");
        }
    }
}

/// An error unless `target` does not exist or is an empty directory.
fn check_vacant(fs: &dyn FileSystem, target: &Path) -> Result<()> {
    if !fs.exists(target)? {
        return Ok(());
    }
    let shown = target.display();
    let exists = |what: &str| {
        Err(Error::new(ErrorKind::AlreadyExists, format!("{shown} {what}; nothing was changed")))
    };
    match entry_of(fs, target)? {
        Some(entry) if entry.is_dir => {}
        _ => return exists("exists and is not a directory"),
    }
    if fs.list(target)?.is_empty() { Ok(()) } else { exists("is not empty") }
}

/// An error if something stands where the staging directory goes that is not what an interrupted attempt leaves.
fn clean_up_allowed(fs: &dyn FileSystem, directory: &Path) -> Result<()> {
    let in_the_way = |what: &str| {
        let message = format!("{} {what}; remove it first", directory.display());
        Err(Error::new(ErrorKind::AlreadyExists, message))
    };
    match entry_of(fs, directory)? {
        None => return Ok(()),
        // In particular not a symbolic link: what it points at is none of ours.
        Some(entry) if !entry.is_dir => return in_the_way("is in the way"),
        Some(_) => {}
    }
    let ours = |entry: &DirEntry| entry.is_file && FileName::parse(&entry.name).is_some();
    if fs.list(directory)?.iter().all(ours) {
        Ok(())
    } else {
        in_the_way("holds files that are not those of a database")
    }
}

/// What the parent directory says about `path`, symbolic links not followed.
fn entry_of(fs: &dyn FileSystem, path: &Path) -> Result<Option<DirEntry>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Ok(fs.list(parent_of(path))?.into_iter().find(|entry| entry.name == name))
}
