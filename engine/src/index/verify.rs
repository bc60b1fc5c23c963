//! Comparing indexes with what their rows say.

use std::sync::Arc;

use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::index::registry::IndexState;
use crate::read::iter::{Iter, ReadPoint, keyspace_range};

impl Database {
    /// Computes what every index must hold, row by row, and compares; gives the number of entries. Reads all rows of indexed keyspaces and
    /// all entries, as of one moment. Indexes that are being built, and those made by hand, have nothing to be compared with.
    ///
    /// # Errors
    /// [`Corruption`](ErrorKind::Corruption), naming the index and the row, if they disagree;
    /// [`ExtractorMissing`](ErrorKind::ExtractorMissing); if the database is closed, or a table cannot be read.
    pub fn verify_indexes(&self) -> Result<u64> {
        self.handle().check_open()?;
        let snapshot = self.snapshot()?;
        let point = snapshot.read_point(&self.handle().core)?;
        let registry = self.handle().core.indexes.registry();
        let comparable =
            registry.all().filter(|index| !index.is_manual() && index.is_ready_at(point.sequence));
        comparable.map(|index| verify(index, &point)).sum()
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
