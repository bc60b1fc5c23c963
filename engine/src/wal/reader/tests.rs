//! Logs made entry by entry, with the damage that each test is about.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rustlite_io::{FileSystem, SimFileSystem};

use super::{LogTail, SEGMENT_LSN_ALIGN, Unsettled, refuse_unknown_segments, replay};
use crate::error::{ErrorKind, Result};
use crate::file_name::{FileName, FileNumber};
use crate::key::Sequence;
use crate::manifest::state::Facts;
use crate::wal::Lsn;
use crate::wal::entry::{HEADER_BYTES, Header, Seed, payload_hash};
use crate::wal::segment::SegmentHeader;

const DATABASE_ID: u64 = 77;
const BLOCK: usize = 4096;

fn directory() -> &'static Path {
    Path::new("/db")
}

/// One segment under construction.
struct Builder {
    number: FileNumber,
    first: Lsn,
    bytes: Vec<u8>,
}

impl Builder {
    fn new(number: FileNumber, first: Lsn) -> Self {
        let header = SegmentHeader { block_bytes: BLOCK as u32, database_id: DATABASE_ID, number };
        let mut bytes = header.encode().to_vec();
        bytes.resize(BLOCK, 0);
        Self { number, first, bytes }
    }

    fn end(&self) -> Lsn {
        self.first + (self.bytes.len() - BLOCK) as u64
    }

    /// Adds a frame of one entry of one record; gives its offset in the file.
    fn entry(&mut self, sequence: Sequence, durable_lsn: Lsn) -> usize {
        let payload = sequence.to_le_bytes();
        let header = Header {
            payload_hash: payload_hash(&payload),
            lsn: self.end(),
            durable_lsn,
            sequence,
            count: 1,
            length: payload.len() as u32,
            ends_frame: true,
        };
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&header.encode(Seed::new(DATABASE_ID, self.number)));
        self.bytes.extend_from_slice(&payload);
        self.bytes.resize(at + BLOCK, 0);
        at
    }

    /// Adds an entry in front of which everything was durable.
    fn synced(&mut self, sequence: Sequence) -> usize {
        self.entry(sequence, self.end())
    }
}

fn machine(segments: &[&Builder]) -> Arc<SimFileSystem> {
    let sim = SimFileSystem::new(1);
    sim.create_dir_all(directory()).unwrap();
    for segment in segments {
        let mut bytes = segment.bytes.clone();
        // Room that was never written.
        bytes.resize(bytes.len() + 4 * BLOCK, 0);
        sim.write_file(FileName::Log(segment.number).path(directory()), bytes).unwrap();
    }
    sim
}

/// Replays from `start`; gives the sequence numbers of the accepted entries too.
fn read_from(
    segments: &[&Builder],
    start: Lsn,
    next_sequence: Sequence,
) -> Result<(Vec<Sequence>, LogTail)> {
    let sim = machine(segments);
    let named: BTreeSet<_> = segments.iter().map(|segment| segment.number).collect();
    let mut seen = Vec::new();
    let visit = |header: &Header, payload: &[u8], _: &Path| {
        assert_eq!(payload, header.sequence.to_le_bytes());
        seen.push(header.sequence);
        Ok(())
    };
    let tail = replay(&*sim, directory(), DATABASE_ID, start, next_sequence, &named, visit)?;
    Ok((seen, tail))
}

fn damage(segment: &mut Builder, at: usize) {
    segment.bytes[at + HEADER_BYTES] ^= 1;
}

/// Two segments: entries 1 to 3 in the first, 4 to 6 in the second, all synced. Gives the offsets too.
fn two_segments() -> (Builder, Builder, Vec<usize>, Vec<usize>) {
    let (mut first, mut second) = (Builder::new(5, 0), Builder::new(6, SEGMENT_LSN_ALIGN));
    let in_first = (1..=3).map(|sequence| first.synced(sequence)).collect();
    let in_second = (4..=6).map(|sequence| second.synced(sequence)).collect();
    (first, second, in_first, in_second)
}

#[test]
fn a_whole_log_is_replayed_across_segments() {
    let (first, second, ..) = two_segments();
    let (seen, tail) = read_from(&[&first, &second], 0, 1).unwrap();
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    assert_eq!((tail.end_lsn, tail.next_sequence), (second.end(), 7));
    assert_eq!(tail.live.len(), 2);
    // Only the last entry's own bytes are not known to be durable.
    let last = (second.bytes.len() - BLOCK) as u64..second.bytes.len() as u64;
    assert_eq!(tail.unsettled, [Unsettled { number: 6, range: last }]);
}

#[test]
fn replay_starts_where_the_tables_end() {
    let (first, second, ..) = two_segments();
    let (seen, tail) = read_from(&[&first, &second], 2 * BLOCK as u64, 3).unwrap();
    assert_eq!(seen, [3, 4, 5, 6]);
    assert_eq!(tail.live.len(), 2);
    let (seen, tail) = read_from(&[&first, &second], first.end(), 4).unwrap();
    assert_eq!(seen, [4, 5, 6]);
    assert_eq!(tail.free.iter().map(|segment| segment.number).collect::<Vec<_>>(), [5]);
}

#[test]
fn damage_in_front_of_acknowledged_entries_is_corruption_and_at_the_end_a_torn_tail() {
    for victim in 0..6 {
        let (mut first, mut second, in_first, in_second) = two_segments();
        let (number, at) = match victim {
            0..=2 => (5, in_first[victim]),
            _ => (6, in_second[victim - 3]),
        };
        damage(if number == 5 { &mut first } else { &mut second }, at);
        let result = read_from(&[&first, &second], 0, 1);
        if victim == 5 {
            let (seen, tail) = result.unwrap();
            assert_eq!((seen, tail.next_sequence), (vec![1, 2, 3, 4, 5], 6));
            continue;
        }
        let error = result.expect_err("an acknowledged entry is damaged");
        let place = error.corruption_details().unwrap();
        assert_eq!(place.file, FileName::Log(number).path(directory()), "entry {victim}");
        assert_eq!(place.offset, at as u64, "entry {victim}");
    }
}

#[test]
fn the_last_entry_of_a_segment_is_missed_even_if_only_one_entry_follows() {
    let (mut first, mut second) = (Builder::new(5, 0), Builder::new(6, SEGMENT_LSN_ALIGN));
    let at = [1, 2, 3].map(|sequence| first.synced(sequence))[2];
    second.synced(4);
    damage(&mut first, at);
    let error = read_from(&[&first, &second], 0, 1).unwrap_err();
    assert_eq!(error.corruption_details().unwrap().offset, at as u64);
}

#[test]
fn entries_behind_a_hole_that_nobody_was_promised_are_dropped_with_their_segments() {
    let (mut first, mut second) = (Builder::new(5, 0), Builder::new(6, SEGMENT_LSN_ALIGN));
    first.synced(1);
    // Stored without a sync: nothing says that any of it was durable.
    let at = first.entry(2, BLOCK as u64);
    first.entry(3, BLOCK as u64);
    second.entry(4, BLOCK as u64);
    damage(&mut first, at);
    let (seen, tail) = read_from(&[&first, &second], 0, 1).unwrap();
    assert_eq!((seen, tail.next_sequence, tail.dropped_entries), (vec![1], 2, 2));
    assert_eq!(tail.end_lsn, BLOCK as u64);
    let rejected: Vec<_> = tail.rejected.iter().map(|segment| segment.number).collect();
    assert_eq!(rejected, [6]);
}

#[test]
fn a_hole_at_the_very_start_does_not_let_later_segments_in() {
    // Everything in front of the first segment's second entry is in tables.
    let (mut first, mut second) = (Builder::new(5, 0), Builder::new(6, SEGMENT_LSN_ALIGN));
    first.synced(1);
    let at = first.entry(2, 0);
    second.entry(3, 0);
    damage(&mut first, at);
    let (seen, tail) = read_from(&[&first, &second], BLOCK as u64, 2).unwrap();
    assert_eq!((seen, tail.next_sequence), (vec![], 2));
    assert_eq!(tail.rejected.len(), 1);
}

#[test]
fn a_gap_for_alignment_is_no_proof_of_loss() {
    // The middle segment lost all of its unsynced entries; the last one says that the gap in front of the middle one was durable.
    let (mut first, mut last) = (Builder::new(5, 0), Builder::new(7, 2 * SEGMENT_LSN_ALIGN));
    let middle = Builder::new(6, SEGMENT_LSN_ALIGN);
    first.synced(1);
    last.entry(3, SEGMENT_LSN_ALIGN);
    let (seen, tail) = read_from(&[&first, &middle, &last], 0, 1).unwrap();
    assert_eq!((seen, tail.rejected.len()), (vec![1], 1));
    // But if all in front of its own place was durable, the middle segment's entries were.
    let mut last = Builder::new(7, 2 * SEGMENT_LSN_ALIGN);
    last.synced(3);
    let error = read_from(&[&first, &middle, &last], 0, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

#[test]
fn entries_of_an_earlier_life_of_a_recycled_segment_are_not_seen() {
    let mut old = Builder::new(4, 0);
    for sequence in 10..14 {
        old.synced(sequence);
    }
    let mut first = Builder::new(5, 0);
    first.synced(1);
    first.bytes.extend_from_slice(&old.bytes[2 * BLOCK..]);
    let (seen, tail) = read_from(&[&first], 0, 1).unwrap();
    assert_eq!((seen, tail.dropped_entries), (vec![1], 0));
    // Renamed but not yet given a new header: a segment without entries.
    let renamed = Builder { number: 9, ..old };
    let (seen, tail) = read_from(&[&first, &renamed], 0, 1).unwrap();
    assert_eq!((seen, tail.free.len()), (vec![1], 1));
}

#[test]
fn any_flip_in_a_segment_gives_a_prefix_or_corruption() {
    let (mut first, second, ..) = two_segments();
    for at in (0..first.bytes.len()).step_by(13) {
        first.bytes[at] ^= 0x20;
        match read_from(&[&first, &second], 0, 1) {
            Ok((seen, _)) => assert!([1, 2, 3, 4, 5, 6].starts_with(&seen), "flip at {at}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption, "flip at {at}"),
        }
        first.bytes[at] ^= 0x20;
    }
}

#[test]
fn a_segment_with_entries_that_the_manifest_never_knew_is_refused() {
    let (first, ..) = two_segments();
    let sim = machine(&[&first]);
    let facts = |next_file, named: &[FileNumber]| {
        let mut facts = Facts::default();
        facts.database_id = DATABASE_ID;
        facts.next_file = next_file;
        facts.logs.extend(named);
        facts
    };
    refuse_unknown_segments(&*sim, directory(), &facts(5, &[5])).unwrap();
    // Given up long ago, and not yet removed.
    refuse_unknown_segments(&*sim, directory(), &facts(6, &[])).unwrap();
    let error = refuse_unknown_segments(&*sim, directory(), &facts(5, &[])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("wal-000005.log"), "{error}");
    // Prepared, but nothing was written to it before it was named.
    let sim = machine(&[&Builder::new(8, 0)]);
    refuse_unknown_segments(&*sim, directory(), &facts(5, &[])).unwrap();
}
