//! Named snapshots in the manifest.

use crate::error::{Error, ErrorKind, Result};
use crate::keyspace::check_name;
use crate::limits::NAMED_SNAPSHOTS_MAX;
use crate::manifest::edit::VersionEdit;
use crate::manifest::set::VersionSet;
use crate::read::snapshot::NamedSnapshot;

impl<T> VersionSet<T> {
    /// All named snapshots, by name.
    pub(crate) fn named_snapshots(&self) -> Vec<NamedSnapshot> {
        self.lock_current().facts.snapshots().values().cloned().collect()
    }

    /// An error if a snapshot cannot get this name.
    pub(crate) fn check_snapshot_name(&self, name: &str) -> Result<()> {
        check_name("snapshot name", name)?;
        let current = self.lock_current();
        let snapshots = current.facts.snapshots();
        if snapshots.contains_key(name) {
            let message = format!("there is a snapshot {name:?} already; drop it first");
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        if snapshots.len() >= NAMED_SNAPSHOTS_MAX {
            let message = format!("there are {NAMED_SNAPSHOTS_MAX} named snapshots already");
            return Err(Error::invalid(message));
        }
        Ok(())
    }

    /// Remembers a snapshot, durably; then `publish` is called, before the next change.
    pub(crate) fn name_snapshot(
        &self,
        snapshot: &NamedSnapshot,
        publish: impl FnOnce(),
    ) -> Result<()> {
        let mut writer = self.writer()?;
        self.check_snapshot_name(&snapshot.name)?;
        let edit =
            VersionEdit { snapshots_named: vec![snapshot.clone()], ..VersionEdit::default() };
        self.apply_locked(&mut writer, edit, Vec::new())?;
        publish();
        Ok(())
    }

    /// Forgets a snapshot, durably; then `publish` is called, before the next change.
    pub(crate) fn drop_snapshot(&self, name: &str, publish: impl FnOnce()) -> Result<()> {
        let mut writer = self.writer()?;
        if !self.lock_current().facts.snapshots().contains_key(name) {
            return Err(no_snapshot(name));
        }
        let edit =
            VersionEdit { snapshots_dropped: vec![name.to_owned()], ..VersionEdit::default() };
        self.apply_locked(&mut writer, edit, Vec::new())?;
        publish();
        Ok(())
    }
}

/// The error for a name that no snapshot has.
pub(crate) fn no_snapshot(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no snapshot {name:?}"))
}
