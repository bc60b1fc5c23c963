//! Copies of a database: checkpoints, and backups in generations.
//!
//! Both begin with an [`image`]: the memtables are flushed, and the tables of one version, with the facts about them, are pinned. That
//! is the state after a prefix of all commits, it does not change while it is copied, and no file of it is removed meanwhile. Writers go
//! on; what they write is not in the copy.
//!
//! ```text
//! checkpoint   database --link tables, write a manifest--> another database, usable at once
//!
//! backup       database --copy tables that it lacks------> tables named by their content, shared by generations
//!                       --write generation-000003.rlbk---> which tables, under which numbers; and the manifest's edits
//!
//! restore      generation --copy tables, write a manifest-> a database
//! ```
//!
//! A database that is being made stands in a [`staging`] directory until it is complete and durable; then the directory gets its real
//! name, atomically. So a crash leaves a whole database or none.
//!
//! * [`copy`] copies, links and hashes files.
//! * [`checkpoint`] makes a database of links.
//! * [`names`] has the names of the files of a backup, [`generation`] the bytes of a generation and of the marker of the directory.
//! * [`repository`] has the handle, [`Backup`]; [`create`] adds a generation; [`check`] verifies and restores; [`prune`] removes.

mod check;
mod checkpoint;
mod copy;
mod create;
mod generation;
mod image;
mod names;
mod prune;
mod repository;
mod staging;

#[cfg(test)]
mod tests;

pub use checkpoint::CheckpointInfo;
pub use repository::{Backup, BackupInfo, BackupProgress};
