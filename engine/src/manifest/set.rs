//! The version set: the current version, the keyspaces and the counters, and the one way to change them.
//!
//! [`VersionSet::apply`] checks an edit against what is there, makes it durable in the manifest, and only then lets anybody see it.
//! Edits are applied one at a time; reading what is current never waits for the disk.
//!
//! An edit for which the device has no room is cut off the manifest again: it is answered with `DiskFull`, changes nothing, and the next
//! one may be tried. Any other failed append leaves the manifest in an unknown state; the set stays read-only until the database is
//! reopened, and [`VersionSet::failure`] says why, so that no write is accepted whose fate would depend on that state.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustlite_io::FileSystem;

use crate::error::{Error, ErrorKind, Result};
use crate::file_name::{FileName, FileNumber};
use crate::index::definition::IndexDefinition;
use crate::key::{KeyspaceId, Sequence};
use crate::keyspace::{DEFAULT_NAME, check_name};
use crate::limits::KEYSPACES_MAX;
use crate::manifest::change::Change;
use crate::manifest::edit::{KeyspaceDescriptor, VersionEdit};
use crate::manifest::log::{ManifestWriter, SwitchError, switch_current};
use crate::manifest::obsolete::{self, LiveFiles, PendingFile};
use crate::manifest::reader::FIRST_MANIFEST;
use crate::manifest::recover::{next_file_number, open_tables};
use crate::manifest::run::TableHandle;
use crate::manifest::state::{Facts, ManifestState};
use crate::manifest::version::Version;
use crate::options::KeyspaceOptions;
use crate::sstable::Table;
use crate::sstable::meta::TableMeta;
use crate::wal::Lsn;
use crate::wal::segment::SegmentRegistry;

/// What the database consists of, and the manifest that says so.
pub(crate) struct VersionSet<T = Table> {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    database_id: u64,
    files: Arc<LiveFiles>,
    /// Only handed out, never compared with other memory, so `Relaxed` is enough.
    next_file: AtomicU64,
    /// `None` if opened read-only. Held while an edit is written; taken before `current`.
    writer: Mutex<Option<ManifestWriter>>,
    current: Mutex<Current<T>>,
}

pub(super) struct Current<T> {
    version: Arc<Version<T>>,
    pub(super) facts: Facts,
}

impl<T> VersionSet<T> {
    /// Creates the manifest of a new database in an existing directory that holds none.
    pub(crate) fn create(
        fs: Arc<dyn FileSystem>,
        directory: &Path,
        default_keyspace: KeyspaceOptions,
        files: &Arc<LiveFiles>,
    ) -> Result<Self> {
        let mut state = ManifestState::default();
        let edit = VersionEdit {
            database_id: Some(fs.random_u64().max(1)),
            next_file: Some(FIRST_MANIFEST + 1),
            keyspaces_created: vec![KeyspaceDescriptor {
                id: KeyspaceId::DEFAULT,
                name: DEFAULT_NAME.to_owned(),
                options: default_keyspace,
                index: None,
            }],
            ..VersionEdit::default()
        };
        state.apply(edit).map_err(Error::internal)?;
        // What an interrupted attempt left; without CURRENT nothing was promised.
        let leftover = FileName::Manifest(FIRST_MANIFEST).path(directory);
        if fs.exists(&leftover)? {
            fs.remove(&leftover)?;
        }
        let set = Self::with_state(fs, directory, state, Version::empty(), files)?;
        let writer = set.new_manifest(FIRST_MANIFEST)?;
        *set.writer()? = Some(writer);
        Ok(set)
    }

    /// Opens every table that the manifest names. If `writable`, a new manifest is put in force, so that nothing is ever appended
    /// after a torn tail.
    pub(crate) fn recover(
        fs: Arc<dyn FileSystem>,
        directory: &Path,
        state: ManifestState,
        writable: bool,
        files: &Arc<LiveFiles>,
        open_table: impl Fn(&TableMeta) -> Result<Arc<T>> + Sync,
    ) -> Result<Self>
    where
        T: Send + Sync,
    {
        let old = FileName::Manifest(state.manifest_number).path(directory);
        let inconsistent = |detail: String| Error::corruption(&old, 0, "manifest", detail);
        let handles = open_tables(directory, &state, files, &open_table)?;
        let version = Version::new(handles).map_err(inconsistent)?;
        version.check().map_err(inconsistent)?;
        let set = Self::with_state(fs, directory, state, version, files)?;
        if writable {
            let writer = set.new_manifest(set.new_file_number())?;
            *set.writer()? = Some(writer);
            let _ = set.fs.remove(&old);
        }
        Ok(set)
    }

    fn with_state(
        fs: Arc<dyn FileSystem>,
        directory: &Path,
        state: ManifestState,
        version: Version<T>,
        files: &Arc<LiveFiles>,
    ) -> Result<Self> {
        let next_file = next_file_number(&*fs, directory, state.facts.next_file)?;
        Ok(Self {
            fs,
            directory: directory.to_path_buf(),
            database_id: state.facts.database_id,
            files: Arc::clone(files),
            next_file: AtomicU64::new(next_file),
            writer: Mutex::new(None),
            current: Mutex::new(Current { version: Arc::new(version), facts: state.facts }),
        })
    }

    /// The version in force.
    pub(crate) fn current(&self) -> Arc<Version<T>> {
        Arc::clone(&self.lock_current().version)
    }

    /// The version in force, and edits that say from nothing what the database consists of, its log left out: the state after
    /// `last_sequence`, which is that of a prefix of all commits, because memtables are flushed whole and in
    /// their order.
    pub(crate) fn image(&self) -> (Arc<Version<T>>, Vec<VersionEdit>) {
        let (version, mut facts) = {
            let current = self.lock_current();
            (Arc::clone(&current.version), current.facts.clone())
        };
        facts.logs.clear();
        // After the version: no table of it has this number or a larger one.
        facts.next_file = self.next_file.load(Ordering::Relaxed);
        let edits = facts.snapshot(version.tables().map(|(level, table)| (level, &table.meta)));
        (version, edits)
    }

    /// A number that no file of the database has or had.
    pub(crate) fn new_file_number(&self) -> FileNumber {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a table that is about to be written. Keep the guard until [`apply`](Self::apply) has returned.
    pub(crate) fn new_table(&self) -> PendingFile {
        self.files.pending(self.new_file_number())
    }

    pub(crate) fn database_id(&self) -> u64 {
        self.database_id
    }

    /// The log segments that may hold commits.
    pub(crate) fn logs(&self) -> BTreeSet<FileNumber> {
        self.lock_current().facts.logs.clone()
    }

    /// Recovery replays the log from here.
    pub(crate) fn log_start(&self) -> Lsn {
        self.lock_current().facts.log_start
    }

    /// No table holds a newer sequence number.
    pub(crate) fn last_sequence(&self) -> Sequence {
        self.lock_current().facts.last_sequence
    }

    /// The id of the next keyspace to be created.
    pub(crate) fn next_keyspace(&self) -> u32 {
        self.lock_current().facts.next_keyspace
    }

    pub(crate) fn keyspace(&self, id: KeyspaceId) -> Option<KeyspaceDescriptor> {
        self.lock_current().facts.keyspace(id).cloned()
    }

    pub(crate) fn keyspace_named(&self, name: &str) -> Option<KeyspaceDescriptor> {
        self.lock_current().facts.keyspace_named(name).cloned()
    }

    /// All keyspaces, hidden ones included, by id.
    pub(crate) fn keyspaces(&self) -> Vec<KeyspaceDescriptor> {
        self.lock_current().facts.keyspaces().cloned().collect()
    }

    /// Makes a change durable, then current. `new_tables` are the readers of the added tables, in their order, except those that only
    /// change their level.
    ///
    /// Tables of keyspaces that were dropped meanwhile are left out, and their files removed. After an error the files of the added
    /// tables can be removed, unless there is a [`failure`](Self::failure): then nobody knows whether the manifest names them.
    pub(crate) fn apply(
        &self,
        edit: VersionEdit,
        new_tables: Vec<Arc<T>>,
    ) -> Result<Arc<Version<T>>> {
        self.apply_then(edit, new_tables, |_| ())
    }

    /// Like [`apply`](Self::apply), and calls `publish` with the new version before the next edit can be applied, so that versions are
    /// published in their order.
    pub(crate) fn apply_then(
        &self,
        edit: VersionEdit,
        new_tables: Vec<Arc<T>>,
        publish: impl FnOnce(&Arc<Version<T>>),
    ) -> Result<Arc<Version<T>>> {
        let mut writer = self.writer()?;
        let version = self.apply_locked(&mut writer, edit, new_tables)?;
        publish(&version);
        Ok(version)
    }

    /// Creates a keyspace, or gives the existing one of that name if it has the same options.
    pub(crate) fn create_keyspace(
        &self,
        name: &str,
        options: KeyspaceOptions,
    ) -> Result<KeyspaceDescriptor> {
        check_name("keyspace name", name)?;
        options.validate()?;
        let mut writer = self.writer()?;
        let next = {
            let current = self.lock_current();
            if let Some(existing) = current.facts.keyspace_named(name) {
                if existing.options == options {
                    return Ok(existing.clone());
                }
                let message = format!("keyspace {name:?} exists already with other options");
                return Err(Error::new(ErrorKind::KeyspaceExists, message));
            }
            if current.facts.keyspaces().len() >= KEYSPACES_MAX {
                return Err(Error::invalid(format!("there are {KEYSPACES_MAX} keyspaces already")));
            }
            current.facts.next_keyspace
        };
        let created = KeyspaceDescriptor {
            id: KeyspaceId(next),
            name: name.to_owned(),
            options,
            index: None,
        };
        let edit =
            VersionEdit { keyspaces_created: vec![created.clone()], ..VersionEdit::default() };
        self.apply_locked(&mut writer, edit, Vec::new())?;
        Ok(created)
    }

    /// Creates the hidden keyspace of an index.
    pub(crate) fn create_index(
        &self,
        name: &str,
        definition: IndexDefinition,
    ) -> Result<KeyspaceDescriptor> {
        check_name("index name", name)?;
        definition.check()?;
        let mut writer = self.writer()?;
        let (next, options) = {
            let current = self.lock_current();
            let facts = &current.facts;
            if facts.index_named(name).is_some() {
                return Err(Error::new(
                    ErrorKind::IndexExists,
                    format!("there is an index {name:?} already"),
                ));
            }
            let rows = facts.keyspace(definition.keyspace).ok_or_else(|| {
                Error::new(ErrorKind::KeyspaceNotFound, "the keyspace of the index was dropped")
            })?;
            if facts.keyspaces().len() >= KEYSPACES_MAX {
                return Err(Error::invalid(format!(
                    "there are {KEYSPACES_MAX} keyspaces and indexes already"
                )));
            }
            (facts.next_keyspace, rows.options.for_entries())
        };
        let (id, name, index) = (KeyspaceId(next), name.to_owned(), Some(definition));
        let created = KeyspaceDescriptor { id, name, options, index };
        let edit =
            VersionEdit { keyspaces_created: vec![created.clone()], ..VersionEdit::default() };
        self.apply_locked(&mut writer, edit, Vec::new())?;
        Ok(created)
    }

    /// Drops a keyspace, with its indexes, and their tables. Their ids are never used again.
    pub(crate) fn drop_keyspace(
        &self,
        id: KeyspaceId,
        publish: impl FnOnce(&Arc<Version<T>>),
    ) -> Result<Arc<Version<T>>> {
        if id == KeyspaceId::DEFAULT {
            return Err(Error::invalid("the default keyspace cannot be dropped"));
        }
        let mut writer = self.writer()?;
        let (exists, mut dropped) = {
            let current = self.lock_current();
            (current.facts.keyspace(id).is_some(), current.facts.indexes_of(id))
        };
        if !exists {
            return Err(Error::new(
                ErrorKind::KeyspaceNotFound,
                "the keyspace was dropped already",
            ));
        }
        dropped.push(id);
        let edit = VersionEdit { keyspaces_dropped: dropped, ..VersionEdit::default() };
        let version = self.apply_locked(&mut writer, edit, Vec::new())?;
        publish(&version);
        Ok(version)
    }

    pub(super) fn apply_locked(
        &self,
        writer: &mut Option<ManifestWriter>,
        edit: VersionEdit,
        new_tables: Vec<Arc<T>>,
    ) -> Result<Arc<Version<T>>> {
        let Some(writer) = writer else {
            return Err(Error::new(ErrorKind::ReadOnly, "the database was opened read-only"));
        };
        let (version, mut facts) = {
            let current = self.lock_current();
            (Arc::clone(&current.version), current.facts.clone())
        };
        // An edit that does not fit is a bug: what else in memory is wrong, nobody knows.
        let mut misfit = |error| writer.fail(error);
        facts.apply(&edit).map_err(Error::internal).map_err(&mut misfit)?;
        let change = Change::new(&version, &facts, edit, new_tables, &self.files);
        let mut change = change.map_err(&mut misfit)?;
        let next = version.with_changes(&change.removed, change.added);
        let next = next.map_err(Error::internal).map_err(&mut misfit)?;
        if change.edit == VersionEdit::default() {
            self.let_go(&change.gone, &next);
            return Ok(version);
        }
        self.make_room(writer)?;
        facts.next_file = self.next_file.load(Ordering::Relaxed);
        change.edit.next_file = Some(facts.next_file);
        writer.append(&change.edit)?;
        self.let_go(&change.gone, &next);
        let next = Arc::new(next);
        let old = {
            let mut current = self.lock_current();
            current.facts = facts;
            std::mem::replace(&mut current.version, Arc::clone(&next))
        };
        drop(old);
        Ok(next)
    }

    /// The manifest does not name these tables any more, nor what only they point to.
    fn let_go(&self, gone: &[Arc<TableHandle<T>>], next: &Version<T>) {
        gone.iter().for_each(|table| table.mark_obsolete());
        self.files.condemn_values(values_left_behind(gone, next));
    }

    /// Puts a new manifest in place of one that has grown long.
    fn make_room(&self, writer: &mut ManifestWriter) -> Result<()> {
        if !writer.should_roll_over() {
            return Ok(());
        }
        match self.new_manifest(self.new_file_number()) {
            Ok(new) => {
                let old = std::mem::replace(writer, new);
                let _ = self.fs.remove(&FileName::Manifest(old.number()).path(&self.directory));
                Ok(())
            }
            // The manifest in force is still good: it only stays longer than it should be.
            Err(SwitchError::Unchanged(error)) => {
                tracing::warn!(%error, "the manifest could not be replaced by a shorter one");
                Ok(())
            }
            Err(error) => Err(writer.fail(error.into())),
        }
    }

    /// Writes a manifest of what is current and makes CURRENT name it.
    fn new_manifest(&self, number: FileNumber) -> std::result::Result<ManifestWriter, SwitchError> {
        let (version, mut facts) = {
            let current = self.lock_current();
            (Arc::clone(&current.version), current.facts.clone())
        };
        facts.next_file = self.next_file.load(Ordering::Relaxed);
        let snapshot = facts.snapshot(version.tables().map(|(level, table)| (level, &table.meta)));
        let (fs, directory) = (&*self.fs, self.directory.as_path());
        let writer = ManifestWriter::create(fs, directory, number, self.database_id, &snapshot)
            .map_err(SwitchError::Unchanged)?;
        let switched = switch_current(fs, directory, self.database_id, number);
        if let Err(SwitchError::Unchanged(_)) = switched {
            let _ = fs.remove(&FileName::Manifest(number).path(directory));
        }
        switched.map(|()| writer)
    }

    /// Removes tables and value files that no version needs any more; gives how many. What cannot be removed is tried again at the next call.
    pub(crate) fn remove_obsolete(&self) -> Result<usize> {
        let mut names = self.files.take_obsolete();
        let mut removed = 0;
        while let Some(name) = names.pop() {
            match self.fs.remove(&name.path(&self.directory)) {
                Ok(()) => removed += 1,
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    names.push(name);
                    self.files.put_back(names);
                    return Err(error.into());
                }
            }
        }
        Ok(removed)
    }

    /// Removes files that a crash or a failed job left in the directory; gives their paths.
    pub(crate) fn remove_orphans(&self) -> Result<Vec<PathBuf>> {
        let writer = self.writer()?;
        // A manifest that failed may name tables that no version in memory has.
        let Some(writer) = writer.as_ref().filter(|writer| writer.failure().is_none()) else {
            return Ok(Vec::new());
        };
        let orphans = obsolete::scan(&*self.fs, &self.directory, writer.number(), |number| {
            self.files.is_needed(number)
        })?;
        for path in &orphans {
            match self.fs.remove(path) {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(orphans)
    }

    /// Why nobody can say what is in the manifest, if that has happened: nothing is written to it again.
    pub(crate) fn failure(&self) -> Option<Error> {
        match self.writer() {
            Ok(writer) => writer.as_ref().and_then(|writer| writer.failure().cloned()),
            Err(panic) => Some(panic),
        }
    }

    pub(super) fn writer(&self) -> Result<MutexGuard<'_, Option<ManifestWriter>>> {
        self.writer.lock().map_err(|_| {
            let panic = Error::new(ErrorKind::Internal, "a panic interrupted a change of tables");
            Error::poisoned(&panic)
        })
    }

    pub(super) fn lock_current(&self) -> MutexGuard<'_, Current<T>> {
        // Replaced as a whole, never half changed.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value files that tables which go point to, and no table of the next version.
fn values_left_behind<T>(gone: &[Arc<TableHandle<T>>], next: &Version<T>) -> HashSet<FileNumber> {
    let files = |table: &TableHandle<T>| -> Vec<FileNumber> {
        table.meta.values.iter().map(|share| share.file).collect()
    };
    let mut left: HashSet<FileNumber> = gone.iter().flat_map(|table| files(table)).collect();
    if !left.is_empty() {
        for file in next.tables().flat_map(|(_, table)| files(table)) {
            left.remove(&file);
        }
    }
    left
}

impl<T: Send + Sync> SegmentRegistry for VersionSet<T> {
    fn new_number(&self) -> FileNumber {
        self.new_file_number()
    }

    fn add(&self, number: FileNumber) -> Result<()> {
        let edit = VersionEdit { logs_added: vec![number], ..VersionEdit::default() };
        self.apply(edit, Vec::new()).map(drop)
    }

    fn remove(&self, numbers: Vec<FileNumber>) -> Result<()> {
        let edit = VersionEdit { logs_removed: numbers, ..VersionEdit::default() };
        self.apply(edit, Vec::new()).map(drop)
    }
}

impl<T> std::fmt::Debug for VersionSet<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VersionSet").field("directory", &self.directory).finish_non_exhaustive()
    }
}
