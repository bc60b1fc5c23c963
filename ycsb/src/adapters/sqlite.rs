//! SQLite in WAL mode: one table, clustered by the key, one connection for writes and one per
//! thread for reads.
//!
//! SQLite has one writer at a time and lets the others sleep in steps of milliseconds when it is
//! taken. Handing the one writing connection around under a mutex, as servers do, avoids that and
//! is the faster way.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use crate::error::Failure;
use crate::store::{Direction, Durability, OpenSpec, Rewrite, Store};

const READ: &str = "SELECT value FROM records WHERE key = ?1";
const UPDATE: &str = "UPDATE records SET value = ?2 WHERE key = ?1";
const INSERT: &str = "INSERT INTO records (key, value) VALUES (?1, ?2)";
const SCAN_FORWARD: &str = "SELECT key, value FROM records ORDER BY key";
const SCAN_BACKWARD: &str = "SELECT key, value FROM records ORDER BY key DESC";
const SCAN: &str = "SELECT key, value FROM records WHERE key >= ?1 ORDER BY key LIMIT ?2";

/// How long to wait for a lock of another connection, in milliseconds: only checkpoints take one
/// here.
const BUSY_TIMEOUT_MS: u32 = 60_000;

/// Everything that a further connection needs to know.
#[derive(Clone)]
struct Shape {
    spec: OpenSpec,
    page_bytes: usize,
}

struct Sqlite {
    shape: Shape,
    reader: Connection,
    writer: Arc<Mutex<Connection>>,
}

pub(super) fn open(spec: &OpenSpec) -> Result<Box<dyn Store>, Failure> {
    let shape = Shape { spec: spec.clone(), page_bytes: page_bytes(spec.value_size) };
    let writer = shape.connect()?;
    writer.execute_batch(
        "CREATE TABLE IF NOT EXISTS records (key BLOB PRIMARY KEY, value BLOB NOT NULL)
         WITHOUT ROWID",
    )?;
    let reader = shape.connect()?;
    Ok(Box::new(Sqlite { shape, reader, writer: Arc::new(Mutex::new(writer)) }))
}

/// The smallest page size in which a record still fits the B-tree page: of an index, which a table
/// without rowid is, SQLite moves whatever is longer than about a quarter of the page to overflow
/// pages.
fn page_bytes(value_size: usize) -> usize {
    let local_max = |page: usize| (page - 12) * 64 / 255 - 23;
    let sizes = [4096, 8192, 16_384];
    sizes.into_iter().find(|page| value_size + 40 <= local_max(*page)).unwrap_or(4096)
}

impl Shape {
    fn connect(&self) -> Result<Connection, rusqlite::Error> {
        let path = Path::new(&self.spec.directory).join("records.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        // The cache is per connection; what is asked for is for all of them together.
        let cache_kib = self.spec.cache_bytes / 1024 / (self.spec.threads as u64 + 1);
        connection.execute_batch(&format!(
            "PRAGMA page_size = {};
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = {};
             PRAGMA cache_size = -{};
             PRAGMA mmap_size = {};
             PRAGMA wal_autocheckpoint = {};
             PRAGMA busy_timeout = {BUSY_TIMEOUT_MS};",
            self.page_bytes,
            self.synchronous(),
            cache_kib.max(256),
            i32::MAX,
            self.spec.memtable_bytes / self.page_bytes as u64,
        ))?;
        connection.set_prepared_statement_cache_capacity(8);
        Ok(connection)
    }

    fn synchronous(&self) -> &'static str {
        match self.spec.durability {
            Durability::Sync => "FULL",
            Durability::Buffered => "OFF",
        }
    }
}

impl Sqlite {
    /// Executes a statement that must change exactly one row.
    fn write(&self, statement: &str, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match writer.prepare_cached(statement)?.execute(params![key, value])? {
            1 => Ok(()),
            changed => Err(format!("{changed} rows changed instead of one").into()),
        }
    }
}

impl Store for Sqlite {
    fn configuration(&self) -> String {
        format!(
            "SQLite {}, WAL, synchronous={}, page_size={}, cache_size={} MiB over all \
             connections, mmap_size=2 GiB, checkpoint at {} MiB, table WITHOUT ROWID, prepared \
             statements, one shared writing connection, a reading \
             one per thread",
            rusqlite::version(),
            self.shape.synchronous(),
            self.shape.page_bytes,
            self.shape.spec.cache_bytes >> 20,
            self.shape.spec.memtable_bytes >> 20,
        )
    }

    fn handle(&self) -> Result<Box<dyn Store>, Failure> {
        let reader = self.shape.connect()?;
        let writer = Arc::clone(&self.writer);
        Ok(Box::new(Self { shape: self.shape.clone(), reader, writer }))
    }

    fn read(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        let mut statement = self.reader.prepare_cached(READ)?;
        let mut rows = statement.query([key])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        value.clear();
        value.extend_from_slice(row.get_ref(0)?.as_blob()?);
        Ok(true)
    }

    fn update(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.write(UPDATE, key, value)
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.write(INSERT, key, value)
    }

    fn transact(&mut self, records: &mut [Rewrite]) -> Result<u64, Failure> {
        // One writer at a time: nobody can get in between.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut read = transaction.prepare_cached(READ)?;
            for record in records.iter_mut() {
                let mut rows = read.query([&record.key])?;
                match rows.next()? {
                    Some(row) => record.set_found(Some(row.get_ref(0)?.as_blob()?)),
                    None => record.set_found(None),
                }
            }
            let mut update = transaction.prepare_cached(UPDATE)?;
            for record in records.iter() {
                update.execute(params![record.key, record.value])?;
            }
        }
        transaction.commit()?;
        Ok(0)
    }

    fn scan(
        &mut self,
        start: &[u8],
        count: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        let mut statement = self.reader.prepare_cached(SCAN)?;
        let mut rows = statement.query(params![start, count as i64])?;
        while let Some(row) = rows.next()? {
            visit(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
        }
        Ok(())
    }

    fn read_many(
        &mut self,
        keys: &[Vec<u8>],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Failure> {
        // One transaction saves taking and releasing the read lock for each key.
        let transaction = self.reader.unchecked_transaction()?;
        let mut statement = transaction.prepare_cached(READ)?;
        for (index, key) in keys.iter().enumerate() {
            let mut rows = statement.query([key])?;
            match rows.next()? {
                Some(row) => visit(index, Some(row.get_ref(0)?.as_blob()?)),
                None => visit(index, None),
            }
        }
        drop(statement);
        Ok(transaction.finish()?)
    }

    fn scan_all(
        &mut self,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        let mut statement = self.reader.prepare_cached(match direction {
            Direction::Forward => SCAN_FORWARD,
            Direction::Backward => SCAN_BACKWARD,
        })?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            visit(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Failure> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let busy: i64 =
            writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy == 0 { Ok(()) } else { Err("the final checkpoint found the database busy".into()) }
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        let Self { reader, writer, .. } = *self;
        reader.close().map_err(|(_, error)| error)?;
        let writer =
            Arc::into_inner(writer).ok_or("a thread still holds the writing connection")?;
        let writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        writer.close().map_err(|(_, error)| error)?;
        Ok(())
    }
}
