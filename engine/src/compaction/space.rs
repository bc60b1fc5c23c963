//! What level 0 wastes of the space, and when it is given back.
//!
//! Level 0 is compacted when it has so many runs or bytes. Of a large database that is a small share; of a small one it is several times the
//! database, most of it older versions of the same records. While writers go on, that is what keeps write amplification low: one merge for
//! many flushes. When they pause, nothing is saved by waiting, and space is all that a further run costs.
//!
//! So level 0 is merged when it holds much for what lies below it *and* no flush has come for ten times as long as the merge takes.
//! (Ski rental again, as in [`read_cost`](super::read_cost): writers that go on in the meantime pay nothing, those who write so slowly that
//! every flush is followed by a pause have at most a tenth of a processor spent on merging.)

use std::time::Duration;

use crate::compaction::read_cost::MERGED_BYTES_A_MICRO;
use crate::limits::LEVELS;
use crate::manifest::Version;

/// Level 0 may be this share of what lies below it: it is merged when it is more than a half.
const SHARE: u64 = 2;

/// A pause has to be this many times as long as the merge takes.
const PAUSE_FACTOR: u32 = 10;

/// Where nothing lies below, one of so many writes must have replaced a record of the same memtable to say that there are old versions.
const WRITES_PER_REPLACED: u64 = 16;

/// Whether level 0 should be merged to give back space, if the last flush ended `quiet` ago.
pub(super) fn is_due<T>(version: &Version<T>, quiet: Duration) -> bool {
    wasteful_bytes(version).is_some_and(|bytes| quiet >= pause(bytes))
}

/// How long it has to be quiet for a merge of so many bytes.
fn pause(bytes: u64) -> Duration {
    Duration::from_micros(bytes / MERGED_BYTES_A_MICRO).saturating_mul(PAUSE_FACTOR)
}

/// The bytes that merging level 0 away takes, if it holds much for what lies below.
fn wasteful_bytes<T>(version: &Version<T>) -> Option<u64> {
    let level0 = version.level_bytes(0);
    let below: u64 = (1..LEVELS).map(|level| version.level_bytes(level)).sum();
    let is_wasteful = if below > 0 {
        level0 > below / SHARE
    } else {
        // A load looks the same, and nothing would be gained by merging that.
        let largest = version.l0().iter().map(|run| run.bytes()).max().unwrap_or(0);
        level0 - largest > largest / SHARE && has_replaced(version)
    };
    is_wasteful.then_some(level0 + below)
}

/// Whether the memtables that became level 0 held many versions of the same records: each write has taken a sequence number, and flushes kept
/// one record of each key.
fn has_replaced<T>(version: &Version<T>) -> bool {
    let tables = || version.level_tables(0).map(|table| &table.meta);
    let kept: u64 = tables().map(|meta| meta.entries).sum();
    let newest = tables().map(|meta| meta.largest_sequence).max().unwrap_or(0);
    let oldest = tables().map(|meta| meta.smallest_sequence).min().unwrap_or(0);
    let writes = newest.saturating_sub(oldest) + 1;
    writes.saturating_sub(kept) > writes / WRITES_PER_REPLACED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::{handle, meta};
    use crate::sstable::TableMeta;

    const MIB: u64 = 1 << 20;

    /// Tables that all overlap, as (level, mebibytes, records); the memtables held 1000 writes each.
    fn version(tables: &[(usize, u64, u64)]) -> Version<()> {
        let tables = tables.iter().zip(1..).map(|(&(level, mib, entries), number)| {
            let sequences = (number * 1000, number * 1000 + 999);
            let facts = meta(number, "a", "z", sequences);
            (level, handle(TableMeta { file_bytes: mib * MIB, entries, ..facts }))
        });
        Version::new(tables.collect()).unwrap()
    }

    #[test]
    fn level0_is_wasteful_if_it_is_more_than_half_of_what_lies_below() {
        assert_eq!(wasteful_bytes(&version(&[])), None);
        assert_eq!(wasteful_bytes(&version(&[(6, 100, 900)])), None);
        assert_eq!(wasteful_bytes(&version(&[(0, 30, 900), (0, 20, 900), (6, 100, 900)])), None);
        let more = version(&[(0, 30, 900), (0, 21, 900), (6, 80, 900), (5, 20, 900)]);
        assert_eq!(wasteful_bytes(&more), Some(151 * MIB));
    }

    #[test]
    fn a_load_is_not_wasteful_and_overwriting_what_was_just_loaded_is() {
        let flushes = |entries| version(&[(0, 40, entries), (0, 40, entries), (0, 40, entries)]);
        assert_eq!(wasteful_bytes(&flushes(1000)), None);
        assert_eq!(wasteful_bytes(&flushes(940)), None);
        assert_eq!(wasteful_bytes(&flushes(930)), Some(120 * MIB));
        assert_eq!(wasteful_bytes(&version(&[(0, 40, 300)])), None, "one run has nothing twice");
    }

    #[test]
    fn the_pause_must_be_ten_times_as_long_as_the_merge_takes() {
        let small = version(&[(0, 6, 900), (6, 10, 900)]);
        let merge = Duration::from_micros(16 * MIB / MERGED_BYTES_A_MICRO);
        assert!(!is_due(&small, merge * 9));
        assert!(is_due(&small, merge * 11));
        assert!(!is_due(&version(&[(0, 4, 900), (6, 10, 900)]), Duration::MAX));
        assert!(is_due(&version(&[(0, 600, 900), (6, 1000, 900)]), Duration::MAX));
        assert!(
            pause(1 << 30) > Duration::from_secs(5) && pause(1 << 30) < Duration::from_secs(60)
        );
    }
}
