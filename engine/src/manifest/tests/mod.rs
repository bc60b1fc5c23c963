//! Tests of the manifest and of versions, and what they and the tests of the picker share.

mod edit;
mod files;
mod reader;
mod set;
mod version;

use std::sync::Arc;

use crate::file_name::FileNumber;
use crate::key::{KeyspaceId, Sequence};
use crate::manifest::{LiveFiles, TableHandle};
use crate::sstable::meta::TableMeta;

/// A small generator whose whole run follows from one printed number.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn from_environment() -> Self {
        let seed = match std::env::var("RUSTLITE_TEST_SEED") {
            Ok(seed) => seed.parse().expect("RUSTLITE_TEST_SEED must be a number"),
            Err(_) => std::process::id().into(),
        };
        eprintln!("replay with RUSTLITE_TEST_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A full key of the default keyspace.
pub(crate) fn key(text: &str) -> Vec<u8> {
    [&KeyspaceId::DEFAULT.prefix()[..], text.as_bytes()].concat()
}

/// The facts of a table of the default keyspace that holds keys from `lo` to `hi`.
pub(crate) fn meta(
    number: FileNumber,
    lo: &str,
    hi: &str,
    sequences: (Sequence, Sequence),
) -> TableMeta {
    TableMeta {
        number,
        file_bytes: 1000,
        entries: 100,
        deletions: 0,
        expiring: 0,
        half_expired_at: u64::MAX,
        values: Vec::new(),
        range_tombstones: 0,
        raw_bytes: 2000,
        smallest: key(lo),
        largest: key(hi),
        largest_exclusive: false,
        smallest_sequence: sequences.0,
        largest_sequence: sequences.1,
    }
}

pub(crate) fn files() -> Arc<LiveFiles> {
    LiveFiles::new(|| ())
}

pub(crate) fn handle(meta: TableMeta) -> Arc<TableHandle<()>> {
    TableHandle::new(meta, Arc::new(()), &files())
}
