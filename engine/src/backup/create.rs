//! Adds a generation to a backup.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::backup::copy::{Place, copy, read};
use crate::backup::generation::{Generation, SavedFile};
use crate::backup::image::{Image, ImageFile, source};
use crate::backup::names::{BackupName, Content};
use crate::backup::repository::{Backup, BackupInfo, Progress, info, write_file};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::file_name::FileNumber;

/// What is known of the files that earlier generations saved.
#[derive(Default)]
struct Known {
    /// By what tells one file from all others.
    files: HashMap<FileKey, Content>,
    contents: BTreeSet<Content>,
    /// The largest number of a generation.
    last: u64,
}

/// Database id, file number, file id, length.
type FileKey = (u64, FileNumber, u64, u64);

impl Backup {
    /// Saves the state of `db`, as the next generation: everything committed before the call. Reads and writes go on meanwhile. Files
    /// that an earlier generation has are not read again.
    ///
    /// A crash or an error leaves all earlier generations as they were; what was copied is removed by the next call.
    ///
    /// # Errors
    /// `Corruption` if a table of the database is damaged, naming it: damage is not saved. `Locked` if generations are being added or
    /// removed by somebody else; `ReadOnly` if the database was opened read-only; `DiskFull`; errors of a flush.
    pub fn create(&self, db: &Database) -> Result<BackupInfo> {
        self.add(db, false)
    }

    /// Like [`create`](Self::create), but trusts nothing: every table of the database is read, and every file that would be shared with
    /// an earlier generation is read too, and replaced if it is damaged, for that generation as well.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_full(&self, db: &Database) -> Result<BackupInfo> {
        self.add(db, true)
    }

    fn add(&self, db: &Database, full: bool) -> Result<BackupInfo> {
        let _lock = self.lock()?;
        self.remove_unneeded()?;
        let mut known = self.known()?;
        let image = Image::take(db.handle())?;
        let files = image.files();
        let mut progress = self.progress(files.iter().map(|file| file.len));
        let mut saved = BTreeMap::new();
        for file in files {
            let content = self.save(db, &file, &known, full, &mut progress)?;
            progress.file();
            saved.insert(file.number(), SavedFile { file_id: file.file_id, content });
        }
        // The names of the files must be durable before something needs them.
        self.fs.sync_dir(&self.directory)?;
        let core = &db.handle().core;
        let generation = Generation {
            number: known.last + 1,
            database_id: core.env.database_id,
            created: core.file_system.clock().wall().as_millis() as u64,
            edits: image.edits,
            files: saved,
        };
        let name = BackupName::Generation(generation.number);
        write_file(&*self.fs, &self.directory, name, &generation.encode()?)?;
        Ok(info(&generation, &mut known.contents))
    }

    /// What the generations that can be read say.
    fn known(&self) -> Result<Known> {
        let mut known = Known::default();
        for number in self.numbers()? {
            known.last = known.last.max(number);
            let generation = match Generation::read(&*self.fs, &self.directory, number) {
                Ok(generation) => generation,
                // It only means that some tables are read again.
                Err(error) => {
                    tracing::warn!(%error, "a damaged generation is left alone");
                    continue;
                }
            };
            for (&number, file) in &generation.files {
                known.contents.insert(file.content);
                if file.file_id != 0 {
                    let len = file.content.len;
                    let key = (generation.database_id, number, file.file_id, len);
                    known.files.insert(key, file.content);
                }
            }
        }
        if known.last == u64::MAX {
            return Err(Error::invalid("the backup's generation numbers are used up"));
        }
        Ok(known)
    }

    /// Makes sure that the backup has the content of a file; gives it.
    fn save(
        &self,
        db: &Database,
        file: &ImageFile,
        known: &Known,
        full: bool,
        progress: &mut Progress<'_>,
    ) -> Result<Content> {
        let core = &db.handle().core;
        let len = file.len;
        let key = (core.env.database_id, file.number(), file.file_id, len);
        if let (Some(&content), false) = (known.files.get(&key), full)
            && self.has(content)?
        {
            progress.bytes(len);
            return Ok(content);
        }
        // Every checksum inside, so that damage is not copied. A value file is new with the first table that points to it.
        if let Some(table) = &file.table {
            table.verify()?;
        }
        let (fs, directory) = source(core);
        let from = file.name.path(directory);
        let temporary = self.path(BackupName::Temporary);
        let to = Place { fs: &*self.fs, path: &temporary };
        let hash = copy(Place { fs, path: &from }, to, len, &mut |bytes| progress.bytes(bytes))?;
        let content = Content { hash, len };
        let path = self.path(BackupName::File(content));
        if self.has(content)? && self.is_sound(content) {
            self.fs.remove(&temporary)?;
        } else {
            self.fs.rename(&temporary, &path)?;
        }
        Ok(content)
    }

    /// True if the file of this content is there, in its length.
    fn has(&self, content: Content) -> Result<bool> {
        let path = self.path(BackupName::File(content));
        if !self.fs.exists(&path)? {
            return Ok(false);
        }
        let file = self.fs.open(&path, rustlite_io::OpenMode::Read)?;
        Ok(file.len()? == content.len)
    }

    /// True if the file of this content can be read and holds it.
    fn is_sound(&self, content: Content) -> bool {
        let path = self.path(BackupName::File(content));
        let place = Place { fs: &*self.fs, path: &path };
        read(place, content.len, |_| Ok(())).is_ok_and(|hash| hash == content.hash)
    }
}
