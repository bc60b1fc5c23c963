//! From a manifest's state to open tables.
//!
//! Nothing is changed on disk here. A table that is named and missing is corruption, named by its file.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustlite_io::FileSystem;

use crate::error::{Error, Result};
use crate::file_name::{FileName, FileNumber};
use crate::manifest::edit::FILE_NUMBER_MAX;
use crate::manifest::obsolete::LiveFiles;
use crate::manifest::run::TableHandle;
use crate::manifest::state::ManifestState;
use crate::sstable::meta::TableMeta;

/// From this number of tables on, several threads open them: each costs a few system calls and some reads that may wait.
const PARALLEL_FROM: usize = 64;
const OPEN_THREADS: usize = 8;

/// The next file number, given that files that were begun but reached no edit before a crash keep their numbers to themselves.
pub(super) fn next_file_number(
    fs: &dyn FileSystem,
    directory: &Path,
    recorded: FileNumber,
) -> Result<FileNumber> {
    let mut next = recorded;
    for entry in fs.list(directory)? {
        let number = match FileName::parse(&entry.name) {
            Some(
                FileName::Manifest(number)
                | FileName::Log(number)
                | FileName::SpareLog(number)
                | FileName::Table(number)
                | FileName::Values(number),
            ) => number,
            Some(FileName::Lock | FileName::Current | FileName::Temporary) | None => continue,
        };
        // Nobody ever gets that far: such a name is none of ours.
        if number < FILE_NUMBER_MAX {
            next = next.max(number + 1);
        }
    }
    Ok(next)
}

/// Opens every table of the state; the first error wins.
pub(super) fn open_tables<T: Send + Sync>(
    directory: &Path,
    state: &ManifestState,
    files: &Arc<LiveFiles>,
    open_table: &(impl Fn(&TableMeta) -> Result<Arc<T>> + Sync),
) -> Result<Vec<(usize, Arc<TableHandle<T>>)>> {
    let tables: Vec<&(usize, TableMeta)> = state.tables.values().collect();
    let next = AtomicUsize::new(0);
    let opened = Mutex::new(Ok(Vec::with_capacity(tables.len())));
    let work = || {
        while let Some((level, meta)) = tables.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = open_table(meta).map_err(|error| missing(directory, meta, error));
            let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *opened, result) {
                (Ok(handles), Ok(table)) => {
                    handles.push((*level, TableHandle::new(meta.clone(), table, files)));
                }
                (Ok(_), Err(error)) => {
                    *opened = Err(error);
                    return;
                }
                (Err(_), _) => return,
            }
        }
    };
    if tables.len() < PARALLEL_FROM {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..OPEN_THREADS {
                scope.spawn(work);
            }
        });
    }
    opened.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn missing(directory: &Path, meta: &TableMeta, error: Error) -> Error {
    if error.io_error().is_some_and(rustlite_io::IoError::is_not_found) {
        let path = FileName::Table(meta.number).path(directory);
        Error::corruption(&path, 0, "table", "the manifest names this file, but it is missing")
    } else {
        error
    }
}
