//! redb, a copy-on-write B-tree in Rust: a transaction for each operation.

use std::sync::Arc;

use redb::{Database, Durability as Level, ReadableDatabase, ReadableTable, TableDefinition};

use crate::error::Failure;
use crate::store::{Direction, Durability, OpenSpec, Rewrite, Store};

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

struct Redb {
    database: Arc<Database>,
    cache_bytes: u64,
    level: Level,
}

pub(super) fn open(spec: &OpenSpec) -> Result<Box<dyn Store>, Failure> {
    let database = Database::builder()
        .set_cache_size(usize::try_from(spec.cache_bytes)?)
        .create(spec.directory.join("records.redb"))?;
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.commit()?;
    // `buffered` is asked for only where nothing depends on it: in reads, and in loads that prepare
    // them (see `Engine::require`).
    let level = match spec.durability {
        Durability::Sync => Level::Immediate,
        Durability::Buffered => Level::None,
    };
    Ok(Box::new(Redb { database: Arc::new(database), cache_bytes: spec.cache_bytes, level }))
}

impl Redb {
    fn write(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.level)?;
        transaction.open_table(RECORDS)?.insert(key, value)?;
        Ok(transaction.commit()?)
    }
}

impl Store for Redb {
    fn configuration(&self) -> String {
        format!(
            "cache of {} MiB, Durability::{:?}, a transaction per operation",
            self.cache_bytes >> 20,
            self.level,
        )
    }

    fn handle(&self) -> Result<Box<dyn Store>, Failure> {
        let database = Arc::clone(&self.database);
        Ok(Box::new(Self { database, cache_bytes: self.cache_bytes, level: self.level }))
    }

    fn read(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        let Some(found) = table.get(key)? else { return Ok(false) };
        value.clear();
        value.extend_from_slice(found.value());
        Ok(true)
    }

    fn update(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.write(key, value)
    }

    fn transact(&mut self, records: &mut [Rewrite]) -> Result<u64, Failure> {
        // One writer at a time: nobody can get in between.
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.level)?;
        let mut table = transaction.open_table(RECORDS)?;
        for record in records.iter_mut() {
            let found = table.get(record.key.as_slice())?;
            record.set_found(found.as_ref().map(|found| found.value()));
        }
        for record in records.iter() {
            table.insert(record.key.as_slice(), record.value.as_slice())?;
        }
        drop(table);
        transaction.commit()?;
        Ok(0)
    }

    fn scan(
        &mut self,
        start: &[u8],
        count: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        for entry in table.range(start..)?.take(count) {
            let (key, value) = entry?;
            visit(key.value(), value.value());
        }
        Ok(())
    }

    fn read_many(
        &mut self,
        keys: &[Vec<u8>],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Failure> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        for (index, key) in keys.iter().enumerate() {
            visit(index, table.get(key.as_slice())?.as_ref().map(|found| found.value()));
        }
        Ok(())
    }

    fn scan_all(
        &mut self,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        let mut all = table.iter()?;
        loop {
            let entry = match direction {
                Direction::Forward => all.next(),
                Direction::Backward => all.next_back(),
            };
            let Some(entry) = entry else { return Ok(()) };
            let (key, value) = entry?;
            visit(key.value(), value.value());
        }
    }

    fn settle(&mut self) -> Result<(), Failure> {
        // An empty commit makes those before it final, which at `Sync` they are already.
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Level::Immediate)?;
        Ok(transaction.commit()?)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        let database = Arc::into_inner(self.database).ok_or("a thread still holds the database")?;
        Ok(database.close()?)
    }
}
