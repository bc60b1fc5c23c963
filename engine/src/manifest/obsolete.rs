//! Which files nobody needs: the tables and value files that are in use, the files being written, and the queue of those to remove.
//!
//! A table or value file is removed only if an edit that removes it is durable and no version in memory uses it, or if at a scan of the directory
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
    /// Value files that no later version points to, but somebody still reads.
    condemned: HashSet<FileNumber>,
    obsolete: Vec<FileName>,
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

    pub(crate) fn add_live(&self, number: FileNumber) {
        self.state().live.insert(number);
    }

    pub(super) fn remove_live(&self, number: FileNumber, obsolete: bool) {
        {
            let mut state = self.state();
            state.live.remove(&number);
            if !obsolete {
                return;
            }
            state.obsolete.push(FileName::Table(number));
        }
        (self.notify)();
    }

    /// Says that no table of the current or a later version points to these value files.
    pub(super) fn condemn_values(&self, numbers: impl IntoIterator<Item = FileNumber>) {
        let mut unread = false;
        {
            let mut state = self.state();
            for number in numbers {
                if state.live.contains(&number) {
                    state.condemned.insert(number);
                } else {
                    state.obsolete.push(FileName::Values(number));
                    unread = true;
                }
            }
        }
        if unread {
            (self.notify)();
        }
    }

    /// Says that nobody reads the value file any more.
    pub(crate) fn release_values(&self, number: FileNumber) {
        {
            let mut state = self.state();
            state.live.remove(&number);
            if !state.condemned.remove(&number) {
                return;
            }
            state.obsolete.push(FileName::Values(number));
        }
        (self.notify)();
    }

    /// Protects a file from scans while a job writes it and until a version has it.
    pub(crate) fn pending(self: &Arc<Self>, number: FileNumber) -> PendingFile {
        self.state().pending.insert(number);
        PendingFile { number, files: Arc::clone(self) }
    }

    /// Files to remove now. The caller removes the files, or gives the numbers back with [`put_back`](Self::put_back).
    pub(crate) fn take_obsolete(&self) -> Vec<FileName> {
        std::mem::take(&mut self.state().obsolete)
    }

    /// For files that could not be removed yet.
    pub(crate) fn put_back(&self, names: Vec<FileName>) {
        self.state().obsolete.extend(names);
    }

    /// True if some version uses the file or some job writes it.
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
        Some(FileName::Table(number) | FileName::Values(number)) => !is_needed(number),
        Some(FileName::Manifest(number)) => number != manifest,
        Some(FileName::Temporary) => true,
        Some(FileName::Lock | FileName::Current | FileName::Log(_) | FileName::SpareLog(_)) => {
            false
        }
        None => false,
    })
}
