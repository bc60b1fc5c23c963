//! Places commits in the log: into a frame, or as a store; seals frames; knows what is durable.
//!
//! Everything here happens under the commit lock; frames and syncs are carried out without it. (Only when no segment is ready in time is
//! one prepared on the spot.) A *frame* is a run of entries that is written by one lane,
//! in whole blocks that no other frame shares. A *store* copies one entry into the mapped segment. See `commit/mod.rs` for when which
//! is used, and `wal/entry.rs` for the bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use rustlite_io::{AlignedBuffer, LogLane, LogSegment};

use crate::commit::gather::Gathering;
use crate::commit::publish::Ticket;
use crate::error::{Error, Result};
use crate::key::Sequence;
use crate::wal::Lsn;
use crate::wal::entry::{HEADER_BYTES, Header, entry_bytes};
use crate::wal::reader::SEGMENT_LSN_ALIGN;
use crate::wal::segment::{Segment, SegmentFile, SegmentPool};

/// A frame is sealed when it has grown to this many bytes, even if no lane is idle: larger writes gain nothing.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;

/// A frame of up to so many bytes is written by a plain system call: putting its leader's records into the memtable takes too little
/// time to be worth overlapping with the device.
const SMALL_FRAME_BYTES_MAX: usize = 16 << 10;

/// After so many bytes of stores, more pages of the segment are asked for.
const PAGES_STEP: u64 = 64 << 10;

/// One batch on its way into the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewEntry<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) payload_hash: u64,
    pub(crate) sequence: Sequence,
    pub(crate) count: u32,
    pub(crate) ticket: Ticket,
    /// Whether the committer waits for stable storage.
    pub(crate) sync: bool,
}

/// Where a batch was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// In a frame that ticket `first_ticket` began; published once the log is durable up to `end`.
    Frame { end: Lsn, first_ticket: Ticket },
    /// Stored. Published without any I/O, or, for a `Sync` commit, once a sync reaches the LSN.
    Store(Lsn),
}

/// Entries that a lane will write together.
struct Frame {
    file: Arc<dyn LogSegment>,
    offset: u64,
    buffer: AlignedBuffer,
    /// The last entry, re-encoded with the end-of-frame flag at sealing, and where it stands in the buffer.
    last: (Header, usize),
    /// Somebody who waits for this frame, to be asked to lead it.
    first_ticket: Ticket,
    commits: u32,
    end: Lsn,
}

/// A frame that its leader writes outside the lock.
#[derive(Debug)]
pub(crate) struct LeadFrame {
    lane: Box<dyn LogLane>,
    file: Arc<dyn LogSegment>,
    offset: u64,
    /// Here until the frame is submitted, and again when it is written.
    buffer: Option<AlignedBuffer>,
    is_small: bool,
    commits: u32,
    end: Lsn,
}

/// A sync of stores that its leader performs outside the lock.
#[derive(Debug)]
pub(crate) struct LeadSync {
    pub(crate) segments: Vec<Segment>,
    pub(crate) target: Lsn,
}

/// A segment whose data may still be needed by recovery.
struct Live {
    segment: SegmentFile,
    end: Lsn,
}

struct Current {
    segment: Segment,
    start: Lsn,
    /// How much of it was stored; the rest came in frames.
    stored_bytes: u64,
}

/// The state of the log's end.
pub(crate) struct LogWriter {
    pool: Arc<SegmentPool>,
    current: Option<Current>,
    /// Where the next entry goes.
    end: Lsn,
    /// Everything below is on stable storage.
    durable: Lsn,
    /// End of the newest store.
    stored: Lsn,
    /// Segments with stores that no sync has covered and that are still needed, oldest first.
    dirty: Vec<Segment>,
    open: Option<Frame>,
    sealed: VecDeque<Frame>,
    /// Ends of frames in flight, oldest first, each with whether it has completed.
    in_flight: VecDeque<(Lsn, bool)>,
    /// Those of them that are small, and how many of those there may be at once.
    small_in_flight: usize,
    small_in_flight_max: usize,
    /// Commits in frames that have not completed.
    commits_in_flight: u32,
    idle_lanes: Vec<Box<dyn LogLane>>,
    buffers: Vec<AlignedBuffer>,
    sync_running: bool,
    /// `Sync` commits that were stored and wait for a sync: ticket and LSN, in order.
    sync_waiters: VecDeque<(Ticket, Lsn)>,
    /// Older segments, oldest first.
    live: VecDeque<Live>,
    scratch: Vec<u8>,
    /// Offset in the current segment behind which pages are wanted, once stores have got near the end of those that were asked for.
    wanted_pages: Option<u64>,
    gathering: Arc<Gathering>,
}

impl LogWriter {
    /// A log that continues at `end`, everything below it being durable. `live` are the segments that recovery read.
    pub(crate) fn new(
        pool: Arc<SegmentPool>,
        lanes: Vec<Box<dyn LogLane>>,
        end: Lsn,
        live: impl IntoIterator<Item = (SegmentFile, Lsn)>,
    ) -> Self {
        let live = live.into_iter().map(|(segment, end)| Live { segment, end }).collect();
        Self {
            pool,
            current: None,
            end,
            durable: end,
            stored: end,
            dirty: Vec::new(),
            open: None,
            sealed: VecDeque::new(),
            in_flight: VecDeque::new(),
            small_in_flight: 0,
            small_in_flight_max: lanes.len().saturating_sub(1).max(1),
            commits_in_flight: 0,
            idle_lanes: lanes,
            buffers: Vec::new(),
            sync_running: false,
            sync_waiters: VecDeque::new(),
            live,
            scratch: Vec::new(),
            wanted_pages: None,
            gathering: Arc::default(),
        }
    }

    /// What says how long a leader lets a frame fill.
    pub(crate) fn gathering(&self) -> &Arc<Gathering> {
        &self.gathering
    }

    /// Commits in frames that nobody leads yet.
    fn waiting_commits(&self) -> u32 {
        self.sealed.iter().chain(&self.open).map(|frame| frame.commits).sum()
    }

    /// Where the next entry goes.
    pub(crate) fn end(&self) -> Lsn {
        self.end
    }

    /// Bytes of log from `from` to the end.
    pub(crate) fn bytes_since(&self, from: Lsn) -> u64 {
        self.end.saturating_sub(from)
    }

    /// Size of all segments in use, in bytes.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live.iter().map(|live| live.segment.file_bytes).sum::<u64>()
            + self.current.as_ref().map_or(0, |current| current.segment.file.len())
    }

    /// Places one batch.
    ///
    /// # Errors
    /// If a new segment is needed and cannot be prepared; then nothing was placed and the log is as before.
    pub(crate) fn place(&mut self, entry: &NewEntry<'_>) -> Result<Placement> {
        self.make_room(entry_bytes(entry.payload.len()))?;
        let aligned = self.end.is_multiple_of(self.block_bytes());
        let frames_busy =
            self.open.is_some() || !self.sealed.is_empty() || !self.in_flight.is_empty();
        if frames_busy || (entry.sync && self.stored <= self.durable && aligned) {
            Ok(self.append_to_frame(entry))
        } else {
            self.store(entry).map(Placement::Store)
        }
    }

    fn block_bytes(&self) -> u64 {
        self.current.as_ref().map_or(SEGMENT_LSN_ALIGN, |current| current.segment.block_bytes())
    }

    /// Offset of an LSN in the current segment's file.
    fn offset_of(&self, lsn: Lsn) -> u64 {
        let current = self.current.as_ref().expect("make_room leaves a current segment");
        current.segment.block_bytes() + (lsn - current.start)
    }

    fn make_room(&mut self, bytes: usize) -> Result<()> {
        let bytes = bytes as u64;
        if let Some(current) = &self.current {
            let block = current.segment.block_bytes();
            let used = self.end - current.start;
            // A frame may grow by its padding when it is sealed.
            if (used + bytes).next_multiple_of(block) <= current.segment.capacity() {
                return Ok(());
            }
        }
        let next = self.pool.take(bytes)?;
        self.seal_open();
        if let Some(full) = self.current.take() {
            self.pool.used(2 * full.stored_bytes > self.end - full.start);
            self.live.push_back(Live { segment: SegmentFile::from(&full.segment), end: self.end });
        }
        let nothing_stored = self.stored <= self.durable;
        let frames_idle = self.sealed.is_empty() && self.in_flight.is_empty();
        self.end = self.end.next_multiple_of(SEGMENT_LSN_ALIGN);
        if nothing_stored && frames_idle {
            // The gap up to the new segment holds no data.
            self.durable = self.durable.max(self.end);
            self.stored = self.stored.max(self.durable);
        }
        self.current = Some(Current { start: self.end, segment: next, stored_bytes: 0 });
        self.wanted_pages = None;
        Ok(())
    }

    fn header(&self, entry: &NewEntry<'_>, ends_frame: bool) -> Header {
        Header {
            payload_hash: entry.payload_hash,
            lsn: self.end,
            durable_lsn: self.durable,
            sequence: entry.sequence,
            count: entry.count,
            length: entry.payload.len() as u32,
            ends_frame,
        }
    }

    fn append_to_frame(&mut self, entry: &NewEntry<'_>) -> Placement {
        if self.open.as_ref().is_some_and(|open| {
            open.buffer.len() + entry_bytes(entry.payload.len()) > FRAME_BYTES_MAX
        }) {
            self.seal_open();
        }
        let header = self.header(entry, false);
        let offset = self.offset_of(self.end);
        let current = self.current.as_ref().expect("make_room leaves a current segment");
        let seed = current.segment.seed;
        let open = self.open.get_or_insert_with(|| {
            let mut buffer =
                self.buffers.pop().unwrap_or_else(|| AlignedBuffer::with_capacity(16 << 10));
            buffer.clear();
            Frame {
                file: Arc::clone(&current.segment.file),
                offset,
                buffer,
                last: (header, 0),
                first_ticket: entry.ticket,
                commits: 0,
                end: 0,
            }
        });
        let at = open.buffer.len();
        open.last = (header, at);
        open.commits += 1;
        open.buffer.extend_from_slice(&header.encode(seed));
        open.buffer.extend_from_slice(entry.payload);
        open.buffer.resize(at + entry_bytes(entry.payload.len()));
        let first_ticket = open.first_ticket;
        self.end += entry_bytes(entry.payload.len()) as u64;
        self.gathering.set_gathered(self.waiting_commits());
        Placement::Frame { end: self.end, first_ticket }
    }

    /// Closes the open frame at a block boundary and queues it.
    fn seal_open(&mut self) {
        let Some(mut frame) = self.open.take() else { return };
        let current = self.current.as_ref().expect("a frame is open in the current segment");
        let (mut header, at) = frame.last;
        header.ends_frame = true;
        frame.buffer[at..at + HEADER_BYTES].copy_from_slice(&header.encode(current.segment.seed));
        let whole = frame.buffer.len().next_multiple_of(current.segment.block_bytes() as usize);
        frame.buffer.resize(whole);
        self.end = self.end.next_multiple_of(current.segment.block_bytes());
        frame.end = self.end;
        self.sealed.push_back(frame);
    }

    fn store(&mut self, entry: &NewEntry<'_>) -> Result<Lsn> {
        // A synced store ends at a block boundary, so that frames can follow.
        let header = self.header(entry, entry.sync);
        let offset = self.offset_of(self.end);
        let current = self.current.as_mut().expect("make_room leaves a current segment");
        self.scratch.clear();
        self.scratch.extend_from_slice(&header.encode(current.segment.seed));
        self.scratch.extend_from_slice(entry.payload);
        self.scratch.resize(entry_bytes(entry.payload.len()), 0);
        current.segment.file.store(offset, &self.scratch)?;
        current.stored_bytes += self.scratch.len() as u64;
        let stored_to = offset + self.scratch.len() as u64;
        if self.scratch.capacity() > FRAME_BYTES_MAX {
            self.scratch = Vec::new();
        }
        if self.dirty.last().is_none_or(|last| last.number != current.segment.number) {
            self.dirty.push(current.segment.clone());
        }
        if offset / PAGES_STEP != stored_to / PAGES_STEP && self.pool.mostly_stores() {
            self.wanted_pages = Some(stored_to);
        }
        self.end = header.end(current.segment.block_bytes());
        self.stored = self.end;
        if entry.sync {
            self.sync_waiters.push_back((entry.ticket, self.end));
        }
        Ok(self.end)
    }

    /// The segment and the offset behind which stores will soon need pages, each told once.
    #[inline]
    pub(crate) fn take_wanted_pages(&mut self) -> Option<(Arc<dyn LogSegment>, u64)> {
        let offset = self.wanted_pages.take()?;
        self.current.as_ref().map(|current| (Arc::clone(&current.segment.file), offset))
    }

    /// True if the oldest waiting frame could be led at once.
    ///
    /// One lane is kept for large frames, so that small ones need not wait for them. Beside another small one a small frame had better
    /// fill: two take the device longer than one, and those who are about to come back would have to wait for both.
    pub(crate) fn may_lead(&self) -> bool {
        let is_small =
            self.sealed.is_empty() && self.open.as_ref().is_none_or(|open| is_small(&open.buffer));
        let beside_too_many = is_small && self.small_in_flight >= self.small_in_flight_max;
        !self.idle_lanes.is_empty() && !beside_too_many
    }

    /// Hands out the oldest waiting frame, if there is one and it may be led.
    pub(crate) fn lead_frame(&mut self) -> Option<LeadFrame> {
        if !self.may_lead() {
            return None;
        }
        if self.sealed.is_empty() {
            self.seal_open();
        }
        let frame = self.sealed.pop_front()?;
        let lane = self.idle_lanes.pop().expect("checked above");
        self.in_flight.push_back((frame.end, false));
        self.small_in_flight += usize::from(is_small(&frame.buffer));
        self.commits_in_flight += frame.commits;
        self.gathering.set_gathered(self.waiting_commits());
        Some(LeadFrame {
            lane,
            file: frame.file,
            offset: frame.offset,
            is_small: is_small(&frame.buffer),
            buffer: Some(frame.buffer),
            commits: frame.commits,
            end: frame.end,
        })
    }

    /// Takes a written frame back. Gives the LSN up to which the log is durable now, and whom to ask to lead the next frame.
    pub(crate) fn frame_done(&mut self, frame: LeadFrame) -> (Lsn, Option<Ticket>) {
        self.idle_lanes.push(frame.lane);
        self.small_in_flight -= usize::from(frame.is_small);
        self.buffers.extend(frame.buffer.filter(|buffer| buffer.capacity() <= FRAME_BYTES_MAX));
        for flight in self.in_flight.iter_mut().filter(|flight| flight.0 == frame.end) {
            flight.1 = true;
        }
        while let Some(&(end, true)) = self.in_flight.front() {
            self.in_flight.pop_front();
            self.durable = self.durable.max(end);
        }
        // Counted before its own are taken off: who has just been served and who is still in flight will both be back.
        self.gathering.expect(self.commits_in_flight + self.waiting_commits());
        self.commits_in_flight -= frame.commits;
        let waiting = self.sealed.front().or(self.open.as_ref());
        (self.durable, waiting.map(|frame| frame.first_ticket))
    }

    /// Hands out the sync that stored `Sync` commits wait for, if there is one and none is running.
    pub(crate) fn lead_sync(&mut self) -> Option<LeadSync> {
        if self.sync_running || self.sync_waiters.is_empty() { None } else { self.begin_sync() }
    }

    /// Hands out a sync of everything stored so far. `None` if another is running or nothing is unsynced.
    pub(crate) fn begin_sync(&mut self) -> Option<LeadSync> {
        if self.sync_running || self.stored <= self.durable {
            return None;
        }
        self.sync_running = true;
        Some(LeadSync { segments: self.dirty.clone(), target: self.stored })
    }

    /// True if stores are not yet synced.
    pub(crate) fn has_unsynced_stores(&self) -> bool {
        self.stored > self.durable
    }

    /// True while a sync that was handed out is not back.
    pub(crate) fn is_sync_running(&self) -> bool {
        self.sync_running
    }

    /// Takes a finished sync back. Gives the LSN up to which the log is durable now, and whom to ask to lead the next sync.
    pub(crate) fn sync_done(&mut self, done: &LeadSync) -> (Lsn, Option<Ticket>) {
        self.sync_running = false;
        self.durable = self.durable.max(done.target);
        if self.stored <= self.durable {
            self.dirty.clear();
        } else {
            // Stores that came during the sync are in the newest segment, or in newer ones still.
            let newest = done.segments.last().map_or(0, |newest| newest.number);
            self.dirty.retain(|segment| segment.number >= newest);
        }
        while self.sync_waiters.front().is_some_and(|&(_, lsn)| lsn <= self.durable) {
            self.sync_waiters.pop_front();
        }
        (self.durable, self.sync_waiters.front().map(|&(ticket, _)| ticket))
    }

    /// Gives up every segment whose data is in tables, the current one too. For the end of the log's life.
    pub(crate) fn release_all(&mut self, flushed_up_to: Lsn) -> Vec<SegmentFile> {
        let mut released = self.release_below(flushed_up_to);
        if self.end <= flushed_up_to {
            released.extend(self.current.take().map(|current| SegmentFile::from(&current.segment)));
        }
        released
    }

    /// Gives up every older segment that ends at or below `lsn`: its data is in tables.
    pub(crate) fn release_below(&mut self, lsn: Lsn) -> Vec<SegmentFile> {
        let mut released = Vec::new();
        while self.live.front().is_some_and(|oldest| oldest.end <= lsn) {
            released.extend(self.live.pop_front().map(|oldest| oldest.segment));
        }
        // They need no sync, because what they held is durable in tables. Held on to, each would keep two descriptors and a map of a file that
        // has long been recycled.
        if let Some(newest) = released.last() {
            self.dirty.retain(|segment| segment.number > newest.number);
        }
        released
    }
}

/// Whether a frame is written by its leader's own call.
fn is_small(frame: &AlignedBuffer) -> bool {
    frame.len() <= SMALL_FRAME_BYTES_MAX
}

impl LeadFrame {
    /// Hands the frame to the device, unless [`wait`](Self::wait) does better to write it on the calling thread: the kernel completes a
    /// ring's durable writes on a thread of its own first.
    pub(crate) fn submit(&mut self) {
        if self.is_small {
            return;
        }
        let buffer = self.buffer.take().expect("a frame is submitted once");
        self.lane.submit(&self.file, self.offset, buffer);
    }

    /// Blocks until the frame is durable or failed.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let (buffer, result) = match self.buffer.take() {
            Some(buffer) => self.lane.write(&self.file, self.offset, buffer),
            None => self.lane.wait(),
        };
        self.buffer = Some(buffer);
        result.map_err(|error| Error::from(error).context("cannot write the log"))
    }
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogWriter")
            .field("end", &self.end)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
