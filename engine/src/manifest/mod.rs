//! Which files are the database: the manifest on disk, and the version in memory.
//!
//! ```text
//! CURRENT ----names----> MANIFEST-000007 = snapshot of everything | edit | edit | edit ...
//!                                             |                        |
//!                                             +--------> Version ------+   (levels of open tables)
//! ```
//!
//! A [`VersionEdit`] says how the set of tables, the keyspaces or the start of the log change. [`VersionSet::apply`] makes it
//! durable first and visible second, so that whatever a reader has seen is found again after a crash. What no edit names is not
//! part of the database, whatever lies in the directory.
//!
//! The switch to a new manifest is atomic, and at each point a crash leaves one complete manifest in force:
//!
//! 1. write `MANIFEST-n` with a snapshot, sync it, sync the directory (nothing names it yet);
//! 2. write `CURRENT.tmp`, sync it, rename it to `CURRENT`, sync the directory;
//! 3. remove the old manifest.
//!
//! * [`edit`]: the edit and its bytes.
//! * [`state`]: what a sequence of edits amounts to, without opening a table.
//! * [`log`]: the manifest file and `CURRENT`, written.
//! * [`reader`]: the same, read and judged.
//! * [`run`] and [`version`]: open tables by level, immutable, for readers and compactions.
//! * [`set`]: the one place where edits are applied; [`change`] checks them first, [`recover`] begins with the tables of a manifest.
//! * [`named`]: named snapshots, which are part of the manifest.
//! * [`obsolete`]: which files nobody needs any more.

mod change;
pub(crate) mod edit;
pub(crate) mod log;
pub(crate) mod named;
pub(crate) mod obsolete;
pub(crate) mod reader;
mod recover;
pub(crate) mod run;
pub(crate) mod set;
pub(crate) mod state;
pub(crate) mod version;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use edit::{KeyspaceDescriptor, VersionEdit};
pub(crate) use obsolete::{LiveFiles, PendingFile};
pub(crate) use reader::{DirectoryContent, ManifestReader};
pub(crate) use run::{Run, TableHandle};
pub(crate) use set::VersionSet;
pub(crate) use version::Version;
