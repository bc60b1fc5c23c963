//! A seeded sequence of everything that one can do to a database, reported to the oracle.

use std::collections::BTreeMap;
use std::time::Duration;

use rustlite_engine::{
    Append, Database, Durability, Error, ErrorKind, Keyspace, KeyspaceOptions, Result, WriteBatch,
};

use crate::oracle::{Oracle, Space, Write, default_space};
use crate::support::{Random, with};

/// Keys of the workload: few enough that most are overwritten and deleted several times.
const KEYS: usize = 160;

/// Largest value, most of the time.
const VALUE_BYTES: usize = 3000;

/// Names of the keyspaces that come and go.
const NAMES: [&str; 2] = ["left", MERGING];

/// The keyspace with a merge operator.
const MERGING: &str = "right";

/// Runs operations on one database and tells the oracle.
pub(crate) struct Runner<'a> {
    db: &'a Database,
    pub(crate) oracle: &'a mut Oracle,
    random: Random,
    handles: BTreeMap<Space, Keyspace>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(db: &'a Database, oracle: &'a mut Oracle, seed: u64) -> Self {
        Self { db, oracle, random: Random::new(seed), handles: BTreeMap::new() }
    }

    /// Runs so many operations, or up to the first error.
    pub(crate) fn run(&mut self, operations: usize) -> Result<()> {
        (0..operations).try_for_each(|_| self.step())
    }

    /// One operation.
    pub(crate) fn step(&mut self) -> Result<()> {
        match self.random.below(100) {
            0..=39 => self.put(),
            40..=49 => self.delete(),
            50..=74 => self.batch(),
            75..=78 => self.batch_of(vec![Kind::DeleteRange]),
            79..=81 => self.flush(),
            82..=84 => self.sync(),
            85 => self.compact(),
            86..=88 => self.toggle_keyspace(),
            89 => self.ingest(),
            _ => self.read(),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        format!("key-{:04}", self.random.below(KEYS)).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.below(200) {
            // Larger than a log segment.
            0 => 270 << 10,
            1..=120 => self.random.below(100),
            _ => self.random.below(VALUE_BYTES),
        };
        let mut value = format!("{:08x}", self.random.next() as u32).into_bytes();
        value.resize(value.len() + len, b'.');
        value
    }

    fn space(&mut self) -> Space {
        let alive = self.oracle.alive();
        alive[self.random.below(alive.len())].clone()
    }

    fn handle(&mut self, space: &Space) -> Result<Keyspace> {
        if let Some(handle) = self.handles.get(space) {
            return Ok(handle.clone());
        }
        let handle = self.db.existing_keyspace(&space.0)?.expect("the oracle knows it to be there");
        self.handles.insert(space.clone(), handle.clone());
        Ok(handle)
    }

    fn durability(&mut self) -> Durability {
        if self.random.percent(40) { Durability::Sync } else { Durability::Buffered }
    }

    fn commit(&mut self, writes: Vec<Write>) -> Result<()> {
        let mut batch = WriteBatch::new();
        for write in &writes {
            match write {
                Write::Put(space, key, value) => {
                    let handle = self.handle(space)?;
                    if self.random.percent(20) && space.0 != MERGING {
                        // Longer than any test.
                        batch.put_expiring_in(&handle, key, value, Duration::from_secs(86_400));
                    } else {
                        batch.put_in(&handle, key, value);
                    }
                }
                Write::Delete(space, key) => {
                    let handle = self.handle(space)?;
                    if self.random.percent(20) && space.0 != MERGING {
                        // What expires at once is as good as deleted.
                        batch.put_expiring_in(&handle, key, "expired", Duration::ZERO);
                    } else {
                        batch.delete_in(&handle, key);
                    }
                }
                Write::Merge(space, key, operand) => {
                    batch.merge_in(&self.handle(space)?, key, operand);
                }
                Write::DeleteRange(space, start, end) => {
                    batch.delete_range_in(&self.handle(space)?, start, end);
                }
            }
        }
        let durability = self.durability();
        let result = self.db.write_with(&batch, &with(durability));
        // A range delete of nothing adds nothing, and a commit of nothing promises nothing.
        if !batch.is_empty() {
            let sync = durability == Durability::Sync;
            self.oracle.committed(writes, sync, result.as_ref().copied());
        }
        result
    }

    fn put(&mut self) -> Result<()> {
        self.batch_of(vec![Kind::Put])
    }

    fn delete(&mut self) -> Result<()> {
        self.batch_of(vec![Kind::Delete])
    }

    fn batch(&mut self) -> Result<()> {
        let count = 2 + self.random.below(6);
        let kinds = (0..count).map(|_| match self.random.below(10) {
            0..=6 => Kind::Put,
            7..=8 => Kind::Delete,
            _ => Kind::DeleteRange,
        });
        let kinds = kinds.collect();
        self.batch_of(kinds)
    }

    fn batch_of(&mut self, kinds: Vec<Kind>) -> Result<()> {
        let writes = kinds
            .into_iter()
            .map(|kind| {
                let (space, key) = (self.space(), self.key());
                match kind {
                    Kind::Put if space.0 == MERGING && self.random.percent(60) => {
                        let operand = self.random.below(40);
                        Write::Merge(space, key, self.random.bytes(operand))
                    }
                    Kind::Put => Write::Put(space, key, self.value()),
                    Kind::Delete => Write::Delete(space, key),
                    Kind::DeleteRange => {
                        let end = [&key[..7], b"5"].concat();
                        Write::DeleteRange(space, key.clone().min(end.clone()), key.max(end))
                    }
                }
            })
            .collect();
        self.commit(writes)
    }

    fn flush(&mut self) -> Result<()> {
        self.db.flush()?;
        self.oracle.synced("flush");
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.db.sync()?;
        self.oracle.synced("sync");
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        let space = self.space();
        self.handle(&space)?.compact()?;
        // It flushes first.
        self.oracle.synced("compact");
        Ok(())
    }

    /// One commit of many puts, durable when it returns.
    fn ingest(&mut self) -> Result<()> {
        let space = self.space();
        let mut keys: Vec<Vec<u8>> = (0..self.random.below(60)).map(|_| self.key()).collect();
        keys.sort();
        keys.dedup();
        let items: Vec<_> = keys.into_iter().map(|key| (key, self.value())).collect();
        let result = self.handle(&space)?.ingest(items.clone()).map(drop);
        let writes = items.into_iter().map(|(key, value)| Write::Put(space.clone(), key, value));
        let writes: Vec<Write> = writes.collect();
        if !writes.is_empty() {
            self.oracle.committed(writes, true, result.as_ref().copied());
        }
        result
    }

    fn toggle_keyspace(&mut self) -> Result<()> {
        let name = NAMES[self.random.below(NAMES.len())];
        let mut alive = self.oracle.alive().to_vec();
        let result = match alive.iter().position(|space| space.0 == name) {
            Some(at) => {
                alive.remove(at);
                self.db.drop_keyspace(name)
            }
            None => {
                alive.push(self.oracle.new_space(name));
                let options = KeyspaceOptions::new();
                let options = match name {
                    MERGING => options.merge_operator(Append::NAME),
                    // Half of the larger values.
                    _ => options.value_separation_bytes(1500),
                };
                self.db.create_keyspace(name, options).map(drop)
            }
        };
        self.oracle.changed_spaces(alive, result.is_ok());
        result
    }

    /// Reads a key, or everything, and compares.
    fn read(&mut self) -> Result<()> {
        let (space, key) = (self.space(), self.key());
        let handle = self.handle(&space)?;
        let found = handle.get(&key)?;
        assert_eq!(found.as_ref(), self.oracle.get(&space, &key), "get of {key:?} in {space:?}");
        if self.random.percent(20) {
            let all = crate::support::dump(&handle)?;
            let difference = crate::support::difference(&self.oracle.table(&space), &all);
            assert_eq!(difference, None, "scan of {space:?}");
        }
        Ok(())
    }

    /// Every key of the default keyspace reads as acknowledged, whatever happened to writes.
    pub(crate) fn check_reads(&mut self) -> Result<()> {
        for key in 0..KEYS {
            let key = format!("key-{key:04}").into_bytes();
            let found = self.db.get(&key)?;
            assert_eq!(found.as_ref(), self.oracle.get(&default_space(), &key), "get of {key:?}");
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Put,
    Delete,
    DeleteRange,
}

/// True if the error is one that a failing device may cause.
pub(crate) fn is_device_error(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Io | ErrorKind::DiskFull | ErrorKind::Poisoned | ErrorKind::ReadOnly
    )
}
