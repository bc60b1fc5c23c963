//! Which files nobody needs: the tables that are in use, the files being written, and the queue of those to remove.
//!
//! A table file is removed only if an edit that removes it is durable and no version in memory uses it, or if at a scan of the directory
//! no version uses it and no job is writing it. Files with foreign names, directories and symbolic links are never touched, and log
//! segments are the log's own business.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustlite_io::{DirEntry, FileSystem};

use crate::error::Result;
use crate::file_name::{FileName, FileNumber};

/// The table files that somebody needs, and those that nobody needs any more.
pub(crate) struct LiveFiles {
    state: Mutex<State>,
    notify: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    live: HashSet<FileNumber>,
    pending: HashSet<FileNumber>,
    obsolete: Vec<FileNumber>,
}

impl LiveFiles {
    /// `notify` is called, on any thread, each time a file has been queued for removal. It must be quick, and must not apply an edit: a
    /// reader that drops a snapshot may be the one who calls it, or the thread that is applying one.
    pub(crate) fn new(notify: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), notify: Box::new(notify) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each method leaves the sets consistent whatever happens, so a panic elsewhere says nothing about them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_live(&self, number: FileNumber) {
        self.state().live.insert(number);
    }

    pub(super) fn remove_live(&self, number: FileNumber, obsolete: bool) {
        {
            let mut state = self.state();
            state.live.remove(&number);
            if !obsolete {
                return;
            }
            state.obsolete.push(number);
        }
        (self.notify)();
    }

    /// Protects a file from scans while a job writes it and until a version has it.
    pub(crate) fn pending(self: &Arc<Self>, number: FileNumber) -> PendingFile {
        self.state().pending.insert(number);
        PendingFile { number, files: Arc::clone(self) }
    }

    /// Tables to remove now. The caller removes the files, or gives the numbers back with [`put_back`](Self::put_back).
    pub(crate) fn take_obsolete(&self) -> Vec<FileNumber> {
        std::mem::take(&mut self.state().obsolete)
    }

    /// For numbers whose files could not be removed yet.
    pub(crate) fn put_back(&self, numbers: Vec<FileNumber>) {
        self.state().obsolete.extend(numbers);
    }

    /// True if some version uses the table or some job writes it.
    pub(crate) fn is_needed(&self, number: FileNumber) -> bool {
        let state = self.state();
        state.live.contains(&number) || state.pending.contains(&number)
    }
}

impl std::fmt::Debug for LiveFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        f.debug_struct("LiveFiles")
            .field("live", &state.live.len())
            .field("pending", &state.pending)
            .field("obsolete", &state.obsolete)
            .finish()
    }
}

/// The number of a file that is being written. Keep it until the file is in a version or has been removed.
#[derive(Debug)]
pub(crate) struct PendingFile {
    number: FileNumber,
    files: Arc<LiveFiles>,
}

impl PendingFile {
    pub(crate) fn number(&self) -> FileNumber {
        self.number
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        self.files.state().pending.remove(&self.number);
    }
}

/// The files of `directory` that can be removed: unneeded tables, manifests other than `manifest`, unfinished files.
///
/// The directory is listed before `is_needed` is asked: a file that appears in the list and was pending then is either still pending
/// or already in a version when asked. The other way round a file finished in between would be taken for garbage.
pub(crate) fn scan(
    fs: &dyn FileSystem,
    directory: &Path,
    manifest: FileNumber,
    is_needed: impl Fn(FileNumber) -> bool,
) -> Result<Vec<PathBuf>> {
    let listed = fs.list(directory)?;
    let names = removable(&listed, manifest, is_needed);
    Ok(names.map(|name| directory.join(name)).collect())
}

fn removable<'a>(
    listed: &'a [DirEntry],
    manifest: FileNumber,
    is_needed: impl Fn(FileNumber) -> bool + 'a,
) -> impl Iterator<Item = &'a str> {
    let regular = listed.iter().filter(|entry| entry.is_file);
    regular.map(|entry| entry.name.as_str()).filter(move |name| match FileName::parse(name) {
        Some(FileName::Table(number)) => !is_needed(number),
        Some(FileName::Manifest(number)) => number != manifest,
        Some(FileName::Temporary) => true,
        Some(FileName::Lock | FileName::Current | FileName::Log(_) | FileName::SpareLog(_)) => {
            false
        }
        None => false,
    })
}
