//! RustLite, through its public API only: its defaults, with the durability that was asked for.

use std::collections::VecDeque;

use rustlite::{CommitFuture, Database, Durability as Level, Options, WriteBatch};

use crate::error::Failure;
use crate::store::{Direction, Durability, IN_FLIGHT, OpenSpec, Store};

/// A handle is a clone of the database.
struct RustLite {
    database: Database,
    configuration: String,
    in_flight: VecDeque<CommitFuture>,
}

pub(super) fn open(spec: &OpenSpec) -> Result<Box<dyn Store>, Failure> {
    let level = match spec.durability {
        Durability::Sync => Level::Sync,
        Durability::Buffered => Level::Buffered,
    };
    let options = Options::new()
        .durability(level)
        .block_cache_bytes(spec.cache_bytes)
        .memtable_bytes(usize::try_from(spec.memtable_bytes)?);
    let database = Database::open_with(&spec.directory, options)?;
    let configuration = format!(
        "defaults with durability {level:?}; tables memory-mapped, not compressed, checksummed; \
         memtables of {} MiB",
        spec.memtable_bytes >> 20
    );
    Ok(Box::new(RustLite { database, configuration, in_flight: VecDeque::new() }))
}

impl Store for RustLite {
    fn configuration(&self) -> String {
        self.configuration.clone()
    }

    fn handle(&self) -> Result<Box<dyn Store>, Failure> {
        let database = self.database.clone();
        let in_flight = VecDeque::with_capacity(IN_FLIGHT);
        Ok(Box::new(Self { database, configuration: String::new(), in_flight }))
    }

    fn read(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        Ok(self.database.get_into(key, value)?)
    }

    fn update(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        Ok(self.database.put(key, value)?)
    }

    fn insert_in_flight(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        if self.in_flight.len() >= IN_FLIGHT
            && let Some(oldest) = self.in_flight.pop_front()
        {
            oldest.wait()?;
        }
        let mut batch = WriteBatch::with_capacity(key.len() + value.len() + 16);
        batch.put(key, value);
        self.in_flight.push_back(self.database.write_async(batch));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.in_flight.drain(..).try_for_each(CommitFuture::wait)?)
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

    fn read_many(
        &mut self,
        keys: &[Vec<u8>],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Failure> {
        for (index, value) in self.database.multi_get(keys)?.iter().enumerate() {
            visit(index, value.as_deref());
        }
        Ok(())
    }

    fn scan_all(
        &mut self,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        let mut cursor = self.database.cursor()?;
        match direction {
            Direction::Forward => cursor.seek_to_first()?,
            Direction::Backward => cursor.seek_to_last()?,
        }
        while cursor.valid() {
            visit(cursor.key(), cursor.value());
            match direction {
                Direction::Forward => cursor.next()?,
                Direction::Backward => cursor.prev()?,
            }
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
