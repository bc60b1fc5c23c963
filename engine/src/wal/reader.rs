//! Finds where the log ends after a crash, and replays it up to there.
//!
//! The accepted log is the maximal contiguous prefix of valid entries from the manifest's starting LSN on. What follows the first
//! invalid position *p* was never acknowledged — unless an entry found behind *p* says that everything up to beyond *p* was durable when
//! it was made: then the device lost or changed acknowledged bytes, and opening fails with the file and offset of *p*.
//!
//! Contiguous means: each entry stands where the previous one ended (or at the start of the next segment, aligned) and its sequence
//! number follows the previous one's. Segments behind the end are named in the result; the caller removes them before it writes anything,
//! so that they cannot come back.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustlite_io::{FileSystem, OpenMode};

use crate::error::{Error, Result};
use crate::file_name::{FileName, FileNumber};
use crate::key::Sequence;
use crate::manifest::state::Facts;
use crate::wal::Lsn;
use crate::wal::entry::{self, Header, Seed};
use crate::wal::segment::{HEADER_BYTES, SegmentFile, SegmentHeader};

/// Every segment's first LSN is a multiple of this, so that block boundaries in the stream are block boundaries in the file
/// whatever the device.
pub(crate) const SEGMENT_LSN_ALIGN: u64 = 65_536;

/// Where the log ends and what its segments hold.
#[derive(Debug, Default)]
pub(crate) struct LogTail {
    /// The end of the last accepted entry; at least the LSN that replay started from.
    pub(crate) end_lsn: Lsn,
    /// The sequence number after the last accepted record.
    pub(crate) next_sequence: Sequence,
    /// Segments with accepted entries, in order, each with the LSN behind its last accepted entry.
    pub(crate) live: Vec<(SegmentFile, Lsn)>,
    /// Segments that hold nothing that matters: never used, or already in tables. They can be recycled.
    pub(crate) free: Vec<SegmentFile>,
    /// Segments behind a hole. They must be removed, durably, before anything is written: else they could come back.
    pub(crate) rejected: Vec<SegmentFile>,
    /// Entries that were found behind the end and dropped.
    pub(crate) dropped_entries: u64,
    /// Everything below was on stable storage when the last accepted entries were made.
    pub(crate) durable_lsn: Lsn,
    /// Accepted bytes of which the log does not say that they were ever on stable storage.
    pub(crate) unsettled: Vec<Unsettled>,
}

/// A part of a segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsettled {
    pub(crate) number: FileNumber,
    pub(crate) range: Range<u64>,
}

/// One segment file in memory.
struct Loaded {
    found: SegmentFile,
    path: PathBuf,
    bytes: Vec<u8>,
    block_bytes: u64,
    seed: Seed,
}

/// Replays the log of `directory`, which is in `segments`, from `start`: `visit` gets each accepted entry at or behind `start`, in order. The first of them
/// has the sequence number `next_sequence`.
///
/// # Errors
/// Corruption if acknowledged data is gone; `UnsupportedFormat`; read errors; whatever `visit` returns.
pub(crate) fn replay(
    file_system: &dyn FileSystem,
    directory: &Path,
    database_id: u64,
    start: Lsn,
    next_sequence: Sequence,
    segments: &BTreeSet<FileNumber>,
    mut visit: impl FnMut(&Header, &[u8], &Path) -> Result<()>,
) -> Result<LogTail> {
    let mut tail = LogTail { end_lsn: start, next_sequence, ..LogTail::default() };
    let mut accepted: Vec<(FileNumber, u64, Range<Lsn>)> = Vec::new();
    let mut hole: Option<(PathBuf, u64)> = None;
    // Where the entries accepted so far stop: the place to name if the next segment shows that some are missing.
    let mut stopped: Option<(PathBuf, u64)> = None;
    for &number in segments {
        let segment = load(file_system, directory, database_id, number)?;
        let Some(first) = segment.first_lsn() else {
            tail.free.push(segment.found);
            continue;
        };
        if hole.is_none() && !follows(&segment, first, start, &tail)? {
            let here = || (segment.path.clone(), segment.block_bytes);
            hole = Some(stopped.take().unwrap_or_else(here));
        }
        if hole.is_some() {
            let lost = |header: &Header| proves_loss_before(header, &tail);
            tail.dropped_entries +=
                refuse_lost_data(&segment, 0, tail.end_lsn, hole.as_ref(), lost)?;
            tail.rejected.push(segment.found);
            continue;
        }
        let end = accept(&segment, first, start, &mut tail, &mut visit)?;
        if end > start {
            tail.live.push((segment.found, end));
            tail.end_lsn = end;
            accepted.push((segment.found.number, segment.block_bytes, first..end));
        } else {
            // All of it is in tables already; it says nothing about where the log ends.
            tail.free.push(segment.found);
        }
        let stop = segment.block_bytes + (end - first);
        let at = Some((segment.path.clone(), stop));
        let end = tail.end_lsn;
        let lost = |header: &Header| header.durable_lsn > end;
        tail.dropped_entries += refuse_lost_data(&segment, stop as usize, end, at.as_ref(), lost)?;
        stopped = at;
    }
    for (number, block_bytes, Range { start: first, end }) in accepted {
        let from = first.max(tail.durable_lsn);
        if from < end {
            let range = block_bytes + (from - first)..block_bytes + (end - first);
            tail.unsettled.push(Unsettled { number, range });
        }
    }
    Ok(tail)
}

/// The numbers of all segment files, ascending.
fn segment_numbers(file_system: &dyn FileSystem, directory: &Path) -> Result<Vec<FileNumber>> {
    let mut numbers = Vec::new();
    for entry in file_system.list(directory)?.into_iter().filter(|entry| entry.is_file) {
        if let Some(FileName::Log(number)) = FileName::parse(&entry.name) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Refuses segments of a newer format. Opening asks this before it changes anything on disk.
pub(crate) fn check_formats(file_system: &dyn FileSystem, directory: &Path) -> Result<()> {
    for number in segment_numbers(file_system, directory)? {
        let path = FileName::Log(number).path(directory);
        let mut bytes = [0; HEADER_BYTES];
        let read = file_system.open(&path, OpenMode::Read)?.read_at(0, &mut bytes)?;
        SegmentHeader::decode(bytes.get(..read).unwrap_or_default(), &path)?;
    }
    Ok(())
}

/// Refuses segments that hold entries although the manifest does not even know their numbers: a segment is named there before
/// anything is written to it, so the manifest has lost its end.
pub(crate) fn refuse_unknown_segments(
    file_system: &dyn FileSystem,
    directory: &Path,
    facts: &Facts,
) -> Result<()> {
    for number in segment_numbers(file_system, directory)? {
        if number < facts.next_file || facts.logs.contains(&number) {
            continue;
        }
        let segment = load(file_system, directory, facts.database_id, number)?;
        if let Some(at) = segment.find_entry(0) {
            let detail =
                "it holds commits, but the manifest does not know it: the manifest was cut";
            return Err(Error::corruption(&segment.path, at as u64, "log segment", detail));
        }
    }
    Ok(())
}

/// Spare segments, which hold nothing: number and size.
pub(crate) fn spare_segments(
    file_system: &dyn FileSystem,
    directory: &Path,
) -> Result<Vec<(FileNumber, u64)>> {
    let mut spares = Vec::new();
    for entry in file_system.list(directory)?.into_iter().filter(|entry| entry.is_file) {
        if let Some(FileName::SpareLog(number)) = FileName::parse(&entry.name) {
            spares.push((number, entry.len));
        }
    }
    Ok(spares)
}

fn load(
    file_system: &dyn FileSystem,
    directory: &Path,
    database_id: u64,
    number: FileNumber,
) -> Result<Loaded> {
    let path = FileName::Log(number).path(directory);
    let file = file_system.open(&path, OpenMode::Read).map_err(|error| {
        if error.is_not_found() {
            Error::corruption(
                &path,
                0,
                "log segment",
                "the manifest names this file, but it is missing",
            )
        } else {
            Error::from(error)
        }
    })?;
    let file_bytes = file.len()?;
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(file_bytes as usize)
        .map_err(|_| Error::invalid(format!("{} does not fit into memory", path.display())))?;
    bytes.resize(file_bytes as usize, 0);
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    let seed = Seed::new(database_id, number);
    let header = SegmentHeader::decode(&bytes, &path)?;
    let mut segment =
        Loaded { found: SegmentFile { number, file_bytes }, path, bytes, block_bytes: 0, seed };
    match header {
        Some(header) if header.database_id != database_id => {
            return Err(Error::corruption(
                &segment.path,
                16,
                "log segment header",
                format!(
                    "database id {:016x} expected, {:016x} found: the file belongs to another \
                     database",
                    database_id, header.database_id
                ),
            ));
        }
        Some(header) if header.number == number => {
            segment.block_bytes = u64::from(header.block_bytes);
        }
        // A sound header with an old number: renamed for recycling, never used under this name.
        Some(_) => segment.bytes.clear(),
        None => {
            if let Some(at) = segment.find_entry(0) {
                return Err(Error::corruption(
                    &segment.path,
                    0,
                    "log segment header",
                    format!("not a header, but there is a log entry at offset {at}"),
                ));
            }
            segment.bytes.clear();
        }
    }
    Ok(segment)
}

impl Loaded {
    fn header_at(&self, offset: usize) -> Option<Header> {
        Header::decode(self.bytes.get(offset..)?, self.seed)
    }

    /// A whole, valid entry at `offset`.
    fn entry_at(&self, offset: usize) -> Option<(Header, &[u8])> {
        let header = self.header_at(offset)?;
        let payload = header.payload(self.bytes.get(offset..)?)?;
        Some((header, payload))
    }

    fn first_lsn(&self) -> Option<Lsn> {
        if self.bytes.is_empty() {
            return None;
        }
        if let Some((header, _)) = self.entry_at(self.block_bytes as usize) {
            return header.lsn.is_multiple_of(SEGMENT_LSN_ALIGN).then_some(header.lsn);
        }
        // The first entry is gone; a later one still says where the segment stands in the stream.
        let at = self.find_entry(self.block_bytes as usize)?;
        let (header, _) = self.entry_at(at)?;
        header.lsn.checked_sub(at as u64 - self.block_bytes)
    }

    /// The offset of the first valid entry at or behind `from` (a multiple of 8).
    fn find_entry(&self, from: usize) -> Option<usize> {
        (from..self.bytes.len())
            .step_by(8)
            .filter(|&at| self.bytes.get(at..).is_some_and(entry::may_start))
            .find(|&at| self.entry_at(at).is_some())
    }
}

/// Whether the segment continues the log as accepted so far, or begins it. Segments below `start` may be missing: they are recycled in
/// any order.
fn follows(segment: &Loaded, first: Lsn, start: Lsn, tail: &LogTail) -> Result<bool> {
    let expected = tail.end_lsn.next_multiple_of(SEGMENT_LSN_ALIGN);
    if !tail.live.is_empty() && first < expected {
        return Err(Error::corruption(
            &segment.path,
            segment.block_bytes,
            "log segment",
            format!("begins at LSN {first}, inside the log that ends at {}", tail.end_lsn),
        ));
    }
    if first > start && first > expected {
        return Ok(false);
    }
    // Alignment may hide where the previous segment should have ended; sequence numbers do not.
    let entry = segment.entry_at(segment.block_bytes as usize);
    let continues = |header: &Header| header.lsn < start || header.sequence == tail.next_sequence;
    Ok(entry.is_none_or(|(header, _)| continues(&header)))
}

/// Accepts entries from the segment's beginning; gives the LSN behind the last one.
fn accept(
    segment: &Loaded,
    first: Lsn,
    start: Lsn,
    tail: &mut LogTail,
    visit: &mut impl FnMut(&Header, &[u8], &Path) -> Result<()>,
) -> Result<Lsn> {
    let mut lsn = first;
    loop {
        let offset = segment.block_bytes + (lsn - first);
        let Some((header, payload)) = segment.entry_at(offset as usize) else { return Ok(lsn) };
        if header.lsn != lsn {
            return Ok(lsn);
        }
        tail.durable_lsn = tail.durable_lsn.max(header.durable_lsn);
        if lsn >= start {
            if header.sequence != tail.next_sequence {
                return Ok(lsn);
            }
            visit(&header, payload, &segment.path)?;
            tail.next_sequence = header.sequence + u64::from(header.count);
        }
        lsn = header.end(segment.block_bytes);
    }
}

/// Whether an entry of a later segment proves that acknowledged entries are missing between it and the accepted end.
///
/// Between two segments the stream has a gap for the sake of alignment, and that the gap was "durable" says nothing. But an entry in
/// front of which everything was durable, and whose sequence number is not the next one, had predecessors.
fn proves_loss_before(header: &Header, tail: &LogTail) -> bool {
    let gap_end = tail.end_lsn.next_multiple_of(SEGMENT_LSN_ALIGN);
    let follows_durable = header.lsn == header.durable_lsn && header.lsn > tail.end_lsn;
    header.durable_lsn > gap_end || (follows_durable && header.sequence != tail.next_sequence)
}

/// Looks behind the accepted end for proof that acknowledged data is missing. Gives the number of entries dropped.
fn refuse_lost_data(
    segment: &Loaded,
    from: usize,
    end: Lsn,
    hole: Option<&(PathBuf, u64)>,
    is_lost: impl Fn(&Header) -> bool,
) -> Result<u64> {
    let mut dropped = 0;
    let mut at = from.next_multiple_of(8);
    while let Some(found) = segment.find_entry(at) {
        let Some(header) = segment.header_at(found) else { break };
        if header.lsn >= end {
            dropped += 1;
            if let (true, Some((path, offset))) = (is_lost(&header), hole) {
                return Err(Error::corruption(
                    path,
                    *offset,
                    "log",
                    format!(
                        "no valid entry for LSN {end}, although the log was durable up to LSN {}: \
                         acknowledged writes are damaged",
                        header.durable_lsn
                    ),
                ));
            }
        }
        at = found + 8;
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests;
