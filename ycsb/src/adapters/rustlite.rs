//! RustLite, through its public API only: its defaults, with the durability that was asked for.

use rustlite::{Database, Durability as Level, Options};

use crate::error::Failure;
use crate::store::{Durability, OpenSpec, Store};

/// A handle is a clone of the database.
struct RustLite {
    database: Database,
    configuration: String,
}

pub(super) fn open(spec: &OpenSpec) -> Result<Box<dyn Store>, Failure> {
    let level = match spec.durability {
        Durability::Sync => Level::Sync,
        Durability::Buffered => Level::Buffered,
    };
    let options = Options::new().durability(level).block_cache_bytes(spec.cache_bytes);
    let database = Database::open_with(&spec.directory, options)?;
    let configuration = format!(
        "defaults with durability {level:?}; tables memory-mapped, not compressed, checksummed; \
         memtables of 64 MiB"
    );
    Ok(Box::new(RustLite { database, configuration }))
}

impl Store for RustLite {
    fn configuration(&self) -> String {
        self.configuration.clone()
    }

    fn handle(&self) -> Result<Box<dyn Store>, Failure> {
        let database = self.database.clone();
        Ok(Box::new(Self { database, configuration: String::new() }))
    }

    fn read(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        let Some(found) = self.database.get_pinned(key)? else { return Ok(false) };
        value.clear();
        value.extend_from_slice(&found);
        Ok(true)
    }

    fn update(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        Ok(self.database.put(key, value)?)
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        Ok(self.database.put(key, value)?)
    }

    fn scan(
        &mut self,
        start: &[u8],
        count: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        let mut cursor = self.database.cursor()?;
        cursor.seek(start)?;
        for position in 0..count {
            if position > 0 {
                cursor.next()?;
            }
            if !cursor.valid() {
                break;
            }
            visit(cursor.key(), cursor.value());
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Failure> {
        self.database.flush()?;
        Ok(self.database.wait_for_compactions()?)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.database.close()?)
    }
}
