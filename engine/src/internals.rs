//! The one door to the engine's parts, for programs that look at one part alone: the benchmarks of
//! `bench-harness`. Only there with the feature `internals`; no promise of any kind is made for it.
//!
//! Keys here are full keys, as below the public API.

use std::sync::Arc;

pub use crate::sstable::internals::{Block, Filter, SortedTable};

use crate::cursor::Cursor as _;
use crate::error::Result;
use crate::key::{Sequence, Trailer, ValueKind, hash_key};
use crate::memtable::{Memtable, MemtableCursor, Splice};
use crate::read::merge::MergeCursor;
use crate::wal::entry::{Header, Seed, entry_bytes, payload_hash};

/// Number of the segment whose entries are encoded here.
const SEGMENT: u64 = 7;

/// The hash of a full key that filters and blocks use.
#[must_use]
pub fn hash(key: &[u8]) -> u64 {
    hash_key(key)
}

/// A memtable without a database around it.
pub struct Table(Arc<Memtable>);

impl Table {
    /// An empty one.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(Memtable::new(1 << 20)?)))
    }

    /// Adds a record. No other has the same key and sequence number.
    ///
    /// # Errors
    /// No memory.
    pub fn insert(&self, key: &[u8], sequence: Sequence, value: &[u8]) -> Result<()> {
        let trailer = Trailer::new(sequence, ValueKind::Put);
        self.0.insert(key, trailer, value, &mut Splice::default())?;
        if self.0.wants_upkeep() {
            self.0.upkeep();
        }
        Ok(())
    }

    /// Length of the newest value of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<usize> {
        let (_, span) = self.0.get(key, hash_key(key), crate::limits::SEQUENCE_MAX)?;
        Some(self.0.value(span).len())
    }
}

/// The merge of several memtables, as an iterator walks it.
pub struct Merge(MergeCursor<MemtableCursor>);

impl Merge {
    /// The merge of `tables`, among which no record is twice.
    #[must_use]
    pub fn new(tables: &[Table]) -> Self {
        Self(MergeCursor::new(tables.iter().map(|table| table.0.cursor()).collect()))
    }

    /// Walks all records forward and adds up the bytes of their values.
    ///
    /// # Errors
    /// None with memtables.
    pub fn sum(&mut self) -> Result<usize> {
        let mut bytes = 0;
        self.0.seek_to_first()?;
        while self.0.valid() {
            bytes += self.0.value().len();
            self.0.next()?;
        }
        Ok(bytes)
    }
}

/// Entries of the log, one behind the other as in a frame.
#[derive(Debug, Clone, Default)]
pub struct LogEntries {
    bytes: Vec<u8>,
}

impl LogEntries {
    /// Appends an entry with this payload.
    pub fn push(&mut self, payload: &[u8]) {
        let header = Header {
            payload_hash: payload_hash(payload),
            lsn: self.bytes.len() as u64,
            durable_lsn: 0,
            sequence: 1,
            count: 1,
            length: payload.len() as u32,
            ends_frame: false,
        };
        let end = self.bytes.len() + entry_bytes(payload.len());
        self.bytes.extend_from_slice(&header.encode(Seed::new(1, SEGMENT)));
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(end, 0);
    }

    /// Verifies all entries and adds up the bytes of their payloads; stops at the first that is
    /// none.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        let seed = Seed::new(1, SEGMENT);
        let (mut total, mut rest) = (0, self.bytes.as_slice());
        while let Some(header) = Header::decode(rest, seed) {
            let Some(payload) = header.payload(rest) else { break };
            total += payload.len();
            rest = rest.get(entry_bytes(payload.len())..).unwrap_or_default();
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memtables_merge_and_answer() {
        let tables: Vec<Table> = (0..3).map(|_| Table::new().unwrap()).collect();
        for number in 0..300u64 {
            let table = &tables[number as usize % 3];
            table.insert(&number.to_be_bytes(), number + 1, &[7; 10]).unwrap();
        }
        assert_eq!(tables[1].get(&4u64.to_be_bytes()), Some(10));
        assert_eq!(tables[1].get(&5u64.to_be_bytes()), None);
        assert_eq!(Merge::new(&tables).sum().unwrap(), 3000);
    }

    #[test]
    fn entries_are_read_back_up_to_the_damage() {
        let mut entries = LogEntries::default();
        for length in [1, 100, 1000] {
            entries.push(&vec![3; length]);
        }
        assert_eq!(entries.payload_bytes(), 1101);
        let last = entries.bytes.len() - 500;
        entries.bytes[last] ^= 1;
        assert_eq!(entries.payload_bytes(), 101);
    }
}
