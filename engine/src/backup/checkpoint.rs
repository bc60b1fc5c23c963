//! `Database::checkpoint`: another database with the same content, made of links.

use std::path::Path;

use crate::backup::copy::{Place, copy, link};
use crate::backup::image::{Image, source, write_manifest};
use crate::backup::staging::Staging;
use crate::database::Database;
use crate::error::{Error, Result};

/// What a checkpoint consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// The sequence number of the last commit that it holds.
    pub sequence: u64,
    /// Its tables and value files.
    pub files: u64,
    /// Bytes of its tables and value files.
    pub bytes: u64,
    /// Files that had to be copied, because the file system could not link them.
    pub copied: u64,
}

impl Database {
    /// Makes another database in `directory` that holds everything committed before the call, and nothing written after it returns.
    ///
    /// Tables are linked, not copied, if `directory` is on the same file system: then the time and the space that it takes hardly depend
    /// on the size of the database. Both databases are independent from then on. The checkpoint is durable, and can be opened at
    /// once. Reads and writes go on meanwhile.
    ///
    /// `directory` must not exist, or be empty; its parent must exist. A crash or an error leaves a complete checkpoint or none.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// # let place = std::env::temp_dir().join(format!("rustlite-checkpoint-doc-{}", std::process::id()));
    /// # std::fs::create_dir_all(&place).unwrap();
    /// use rustlite_engine::Database;
    /// let db = Database::open(place.join("db"))?;
    /// db.put("k", "then")?;
    /// db.checkpoint(place.join("checkpoint"))?;
    /// db.put("k", "now")?;
    /// let then = Database::open(place.join("checkpoint"))?;
    /// assert_eq!(then.get("k")?.as_deref(), Some(&b"then"[..]));
    /// # drop((db, then));
    /// # std::fs::remove_dir_all(&place).ok();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `AlreadyExists` if something is in `directory`, `NotFound` if its parent is missing, `Locked` if another checkpoint to it is under
    /// way, `ReadOnly` if the database was opened read-only, `InvalidArgument` for a database in memory (a
    /// [`Backup`](crate::Backup) takes one), `DiskFull`, or errors of the flush.
    pub fn checkpoint(&self, directory: impl AsRef<Path>) -> Result<CheckpointInfo> {
        let handle = self.handle();
        handle.check_open()?;
        let core = &handle.core;
        if core.pool.is_none() && !core.options.read_only {
            return Err(Error::invalid(
                "a database in memory has no files to link; make a backup and restore it",
            ));
        }
        let (fs, from) = source(core);
        let staging = Staging::begin(fs, directory.as_ref())?;
        let image = Image::take(handle)?;
        let files = image.files();
        let mut info = CheckpointInfo {
            sequence: image.sequence(),
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.len).sum(),
            copied: 0,
        };
        for file in files {
            let (old, new) = (file.name.path(from), file.name.path(staging.directory()));
            if !link(fs, &old, &new)? {
                let (old, new) = (Place { fs, path: &old }, Place { fs, path: &new });
                copy(old, new, file.len, &mut |_| ())?;
                info.copied += 1;
            }
        }
        fs.sync_dir(staging.directory())?;
        write_manifest(fs, staging.directory(), core.env.database_id, &image.edits)?;
        staging.publish()?;
        Ok(info)
    }
}
