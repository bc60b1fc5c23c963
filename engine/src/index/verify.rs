//! Comparing indexes with what their rows say.

use std::sync::Arc;

use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::index::registry::IndexState;
use crate::read::iter::{Iter, ReadPoint, keyspace_range};

/// What [`Database::verify`] has checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// Bytes of tables and value files.
    pub bytes: u64,
    /// Index entries that were compared with rows.
    pub index_entries: u64,
    /// Names of indexes that were not compared with their rows, because their extractor is not registered or they are still being built.
    /// Those made by hand have no rows to be compared with, and are not named.
    pub unchecked_indexes: Vec<String>,
}

impl Database {
    /// Computes what every index must hold, row by row, and compares; gives the number of entries. Reads all rows of indexed keyspaces and
    /// all entries, as of one moment. Indexes that are being built, and those made by hand, have nothing to be compared with.
    ///
    /// # Errors
    /// [`Corruption`](ErrorKind::Corruption), naming the index and the row, if they disagree;
    /// [`ExtractorMissing`](ErrorKind::ExtractorMissing); if the database is closed, or a table cannot be read.
    pub fn verify_indexes(&self) -> Result<u64> {
        self.handle().check_open()?;
        let (entries, unchecked) = self.compare_indexes()?;
        for index in unchecked {
            index.extractor.check_registered(&index.name)?;
        }
        Ok(entries)
    }

    /// Compares what can be compared. Gives the number of entries, and the indexes that must wait: for their extractor or their builder.
    pub(crate) fn compare_indexes(&self) -> Result<(u64, Vec<Arc<IndexState>>)> {
        let snapshot = self.snapshot()?;
        let point = snapshot.read_point(&self.handle().core)?;
        let registry = self.handle().core.indexes.registry();
        let (mut entries, mut unchecked) = (0, Vec::new());
        for index in registry.all().filter(|index| !index.is_manual()) {
            let has_extractor = index.extractor.check_registered(&index.name).is_ok();
            if has_extractor && index.is_ready_at(point.sequence) {
                entries += verify(index, &point)?;
            } else {
                unchecked.push(Arc::clone(index));
            }
        }
        Ok((entries, unchecked))
    }
}

fn verify(index: &Arc<IndexState>, point: &ReadPoint) -> Result<u64> {
    let mut expected = 0;
    for row in Iter::new(point.clone(), keyspace_range(index.definition.keyspace)) {
        let (key, value) = row?;
        for index_key in index.keys(&key, &value)?.iter() {
            let entry = index.format.entry_key(index_key, &key)?;
            if point.get(&entry)?.as_deref() != Some(index.format.entry_value(&key)) {
                return Err(disagree(
                    index,
                    &format!("row \"{}\" lacks an entry", key.escape_ascii()),
                ));
            }
            expected += 1;
        }
    }
    // Each expected entry is there, and all are different. So anything else is too much.
    let found = index.count_entries(point.clone())?;
    if found != expected {
        return Err(disagree(index, &format!("{found} entries where rows have {expected}")));
    }
    Ok(found)
}

fn disagree(index: &IndexState, how: &str) -> Error {
    Error::new(
        ErrorKind::Corruption,
        format!(
            "index {:?} disagrees with its rows: {how}; drop the index and create it again, and see \
             that its extractor is the one that it was created with",
            index.name
        ),
    )
}
