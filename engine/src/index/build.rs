//! Building an index on rows that are there already, while others go on writing.
//!
//! Each step is a serializable transaction over the next rows: it fails, and is repeated with fewer rows, if anybody has written among
//! them. It writes their entries and how far the build has come. So entries are right whoever wrote last, the builder or a writer of
//! rows; and after a crash the build goes on behind the last step that the log has kept.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::compaction::background::start_thread;
use crate::core::Core;
use crate::database::Handle;
use crate::error::{Error, ErrorKind, Result};
use crate::index::extract::{Extractor, RowKeys};
use crate::index::maintain::{add_changes, user_part};
use crate::index::registry::IndexState;
use crate::index::state::Progress;
use crate::options::Durability;
use crate::read::iter::keyspace_range;
use crate::read::visible::KeyRange;
use crate::stripes::Share;
use crate::txn::{IsolationLevel, Transaction, TransactionOptions};

/// Most rows of one step.
const STEP_ROWS_MAX: usize = 512;

/// A step ends with the row that makes it longer, in bytes of keys and values.
const STEP_BYTES_MAX: usize = 1 << 20;

/// How long to wait before trying again when the device is full.
const RETRY: std::time::Duration = std::time::Duration::from_millis(200);

/// Reads how far the indexes of a database that is being opened are.
pub(crate) fn load_states(core: &Core) -> Result<()> {
    for index in core.indexes.registry().all() {
        if !index.is_manual() {
            core.rules.check_indexable(index.definition.keyspace)?;
        }
        let record = core.read_point().get(&index.format.state_key())?;
        if Progress::decode(&index.name, record.as_deref())? == Progress::Ready {
            index.set_ready(0);
        }
        if let Extractor::Missing(extractor) = &index.extractor {
            tracing::warn!(
                index = index.name,
                extractor,
                "the extractor of an index is not registered; writes to its keyspace will fail"
            );
        }
    }
    Ok(())
}

/// Starts a thread that goes on with what a crash or a close has interrupted.
pub(crate) fn resume(core: &Arc<Core>) -> Result<Option<JoinHandle<()>>> {
    let registry = core.indexes.registry();
    let waiting = registry.all().any(|index| !index.is_ready());
    if core.options.read_only || !waiting {
        return Ok(None);
    }
    start_thread(core, "rustlite-index".into(), |core| resume_all(&Handle::beside(core))).map(Some)
}

fn resume_all(handle: &Arc<Handle>) {
    for index in handle.core.indexes.registry().all().filter(|index| !index.is_ready()) {
        while !handle.core.signals.is_stopping() {
            match build(handle, index) {
                Err(error) if error.kind() == ErrorKind::DiskFull => {
                    let core = &handle.core;
                    core.signals.wait(core.signals.generation(), RETRY);
                }
                Err(error) => {
                    tracing::error!(index = index.name, %error, "an index could not be built");
                    break;
                }
                Ok(()) => break,
            }
        }
    }
}

/// Builds an index. If rows forbid it, the index is dropped; after any other error the next open goes on.
pub(super) fn build(handle: &Arc<Handle>, index: &Arc<IndexState>) -> Result<()> {
    let result = run(handle, index);
    if let Err(error) = &result
        && matches!(error.kind(), ErrorKind::UniqueViolation | ErrorKind::InvalidArgument)
    {
        handle.drop_index(index)?;
    }
    result.map_err(|error| error.context(format!("index {:?} is not complete", index.name)))
}

fn run(handle: &Arc<Handle>, index: &Arc<IndexState>) -> Result<()> {
    let (mut rows, mut conflicts) = (STEP_ROWS_MAX, 0);
    while !index.is_ready() {
        if handle.core.signals.is_stopping() {
            return Err(Error::new(ErrorKind::Closed, "the database is closed"));
        }
        match handle.core.indexes.attempt(conflicts, |alone| step(handle, index, rows, alone)) {
            Ok(()) => (rows, conflicts) = (STEP_ROWS_MAX.min(rows * 2), 0),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                (rows, conflicts) = ((rows / 4).max(1), conflicts + 1);
            }
            Err(_) if index.is_dropped() => {
                return Err(Error::new(
                    ErrorKind::IndexNotFound,
                    format!("index {:?} was dropped while it was built", index.name),
                ));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives the next rows their entries.
fn step(handle: &Arc<Handle>, index: &Arc<IndexState>, rows: usize, alone: bool) -> Result<()> {
    // What a power cut takes of this it takes of the progress too.
    let options = TransactionOptions::from(IsolationLevel::Serializable);
    let mut txn = Transaction::begin(Share::new(handle), options.durability(Durability::Buffered))?;
    txn.indexing.iter_mut().for_each(|indexing| indexing.alone = alone);
    let point = txn.read_point()?;
    let state_key = index.format.state_key();
    let range = keyspace_range(index.definition.keyspace);
    let start = match Progress::decode(&index.name, point.get(&state_key)?.as_deref())? {
        Progress::Ready => return Ok(()),
        Progress::Building(None) => range.start,
        Progress::Building(Some(last)) => [&range.start[..], &last, &[0]].concat(),
    };
    let (mut changes, mut bytes, mut count) = (Vec::new(), 0, 0);
    let mut last = Vec::new();
    let mut rest = point.cursor(KeyRange { start, end: range.end });
    rest.seek_to_first()?;
    while rest.valid() && bytes < STEP_BYTES_MAX && count < rows {
        let (key, value) = (user_part(rest.key()), rest.value());
        if rest.expires() {
            return Err(goes_by_itself(key));
        }
        let new = index.keys(key, value)?;
        add_changes(index, key, &RowKeys::NONE, &new, &mut changes)?;
        (bytes, count) = (bytes + key.len() + value.len(), count + 1);
        last.clear();
        last.extend_from_slice(key);
        rest.next()?;
    }
    let complete = !rest.valid();
    drop(rest);
    txn.change_entries(changes)?;
    let progress = if complete { Progress::Ready } else { Progress::Building(Some(last)) };
    txn.writes.set(&state_key, Some(&progress.encode()))?;
    if complete {
        txn.options = txn.options.durability(handle.core.options.durability);
    }
    let committed = txn.commit()?;
    if complete {
        index.set_ready(committed);
    }
    Ok(())
}

/// No write would remove the entries of such a row when its time has come.
fn goes_by_itself(key: &[u8]) -> Error {
    Error::invalid(format!(
        "row \"{}\" has a lifetime, and its entries would stay when it goes; write it again without \
         one, or delete it, before the index is created",
        key.escape_ascii()
    ))
}
