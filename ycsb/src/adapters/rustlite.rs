//! RustLite, through its public API only: its defaults, with the durability that was asked for.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustlite::{
    CommitFuture, Database, Durability as Level, Error, Options, Transaction, TransactionCommit,
    WriteBatch,
};

use crate::error::Failure;
use crate::store::{
    Direction, Durability, IN_FLIGHT, OpenSpec, Rewrite, Store, TRANSACTIONS_IN_FLIGHT,
};

/// A handle is a clone of the database.
struct RustLite {
    database: Database,
    configuration: String,
    in_flight: VecDeque<CommitFuture>,
    commits: VecDeque<TransactionCommit>,
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
    Ok(Box::new(RustLite::new(database, configuration)))
}

impl RustLite {
    fn new(database: Database, configuration: String) -> Self {
        Self { database, configuration, in_flight: VecDeque::new(), commits: VecDeque::new() }
    }

    /// A transaction that has read and replaced all records, and is not committed.
    fn rewrite(&self, records: &mut [Rewrite]) -> Result<Transaction, Error> {
        let mut transaction = self.database.begin()?;
        for record in records.iter_mut() {
            record.set_found(transaction.get(&record.key)?.as_deref());
        }
        for record in records.iter() {
            transaction.put(&record.key, &record.value)?;
        }
        Ok(transaction)
    }
}

impl Store for RustLite {
    fn configuration(&self) -> String {
        self.configuration.clone()
    }

    fn handle(&self) -> Result<Box<dyn Store>, Failure> {
        Ok(Box::new(Self::new(self.database.clone(), String::new())))
    }

    fn read(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        Ok(self.database.get_into(key, value)?)
    }

    fn update(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        Ok(self.database.put(key, value)?)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Failure> {
        Ok(self.database.delete(key)?)
    }

    fn insert_expiring(
        &mut self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
    ) -> Result<(), Failure> {
        Ok(self.database.put_expiring(key, value, lifetime)?)
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

    fn transact(&mut self, records: &mut [Rewrite]) -> Result<u64, Failure> {
        let mut aborts = 0;
        loop {
            match self.rewrite(records)?.commit() {
                Ok(_) => return Ok(aborts),
                Err(error) if error.is_retryable() => aborts += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn transact_in_flight(&mut self, records: &mut [Rewrite]) -> Result<u64, Failure> {
        if self.commits.len() >= TRANSACTIONS_IN_FLIGHT
            && let Some(oldest) = self.commits.pop_front()
        {
            oldest.wait()?;
        }
        let mut aborts = 0;
        loop {
            let mut commit = self.rewrite(records)?.commit_async();
            // Whether it conflicts is known at once; what is pending is only the device.
            match Pin::new(&mut commit).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => self.commits.push_back(commit),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) if error.is_retryable() => {
                    aborts += 1;
                    continue;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
            return Ok(aborts);
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.in_flight.drain(..).try_for_each(CommitFuture::wait)?;
        Ok(self.commits.drain(..).try_for_each(|commit| commit.wait().map(drop))?)
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
        for (index, value) in self.database.multi_get_pinned(keys)?.iter().enumerate() {
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
