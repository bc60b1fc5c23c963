//! Segment files: their header, and the pool that has one ready before it is needed.
//!
//! ```text
//! offset  size  field (first block of the file; the rest of the block is zero)
//!      0     4  magic "RLWL"
//!      4     2  format version (1)
//!      6     2  reserved, zero
//!      8     4  block size: frames are whole multiples of it
//!     12     4  reserved, zero
//!     16     8  database id
//!     24     8  segment number, the one in the file name
//!     32     8  xxh3 of bytes 0..32
//! ```
//!
//! A segment is *prepared* (created or recycled, header durable, name durable), then *taken* by the log writer, then *retired* once
//! all its data is in tables: it gets a name that recovery does not read, until it is recycled under a new number. Recycling renames
//! before it rewrites the header, so a header whose number differs from the name marks a segment that was never used under that name.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustlite_io::processor::{self, Aside};
use rustlite_io::{AlignedBuffer, FileSystem, LogDevice, LogLane, LogSegment};
use xxhash_rust::xxh3::xxh3_64;

use crate::coding::Decoder;
use crate::error::{Error, ErrorKind, Result};
use crate::file_name::{FileName, FileNumber};
use crate::wal::entry::Seed;

/// Bytes of the header that mean something.
pub(crate) const HEADER_BYTES: usize = 40;

/// The log format this build writes, and the newest it reads.
pub(crate) const FORMAT_VERSION: u16 = 1;

const MAGIC: &[u8; 4] = b"RLWL";

/// A new database's first segment is small, so that opening is quick; each later one is this many times larger.
const GROWTH: u64 = 4;
const FIRST_SEGMENT_BYTES: u64 = 1 << 20;

/// What a segment's first block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) block_bytes: u32,
    pub(crate) database_id: u64,
    pub(crate) number: FileNumber,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(MAGIC);
        out[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[8..12].copy_from_slice(&self.block_bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.database_id.to_le_bytes());
        out[24..32].copy_from_slice(&self.number.to_le_bytes());
        let checksum = xxh3_64(&out[..32]);
        out[32..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads a header. `Ok(None)` if the bytes are not one.
    ///
    /// # Errors
    /// `UnsupportedFormat` if it is a sound header of a newer format.
    pub(crate) fn decode(input: &[u8], path: &Path) -> Result<Option<Self>> {
        let Some((version, header)) = decode_fields(input) else { return Ok(None) };
        if version > FORMAT_VERSION {
            return Err(Error::new(
                ErrorKind::UnsupportedFormat,
                format!(
                    "{} has log format {version}, and this version of RustLite reads formats up to \
                     {FORMAT_VERSION}: upgrade RustLite to open it",
                    path.display()
                ),
            ));
        }
        Ok((version > 0).then_some(header))
    }
}

fn decode_fields(input: &[u8]) -> Option<(u16, SegmentHeader)> {
    let covered = input.get(..32)?;
    let mut decoder = Decoder::new(input);
    let magic = decoder.take(4)?;
    let version = decoder.u16()?;
    decoder.u16()?;
    let block_bytes = decoder.u32()?;
    decoder.u32()?;
    let header = SegmentHeader { block_bytes, database_id: decoder.u64()?, number: decoder.u64()? };
    let sound = magic == MAGIC
        && decoder.u64()? == xxh3_64(covered)
        && block_bytes.is_power_of_two()
        && (512..=65_536).contains(&block_bytes);
    sound.then_some((version, header))
}

/// A prepared segment: header and name are durable, nothing else is in it.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) number: FileNumber,
    pub(crate) file: Arc<dyn LogSegment>,
    pub(crate) seed: Seed,
}

impl Segment {
    pub(crate) fn block_bytes(&self) -> u64 {
        self.file.block_size() as u64
    }

    /// Bytes of log stream that fit.
    pub(crate) fn capacity(&self) -> u64 {
        self.file.len() - self.block_bytes()
    }
}

/// Remembers, durably, which segments recovery must find: the manifest.
pub(crate) trait SegmentRegistry: Send + Sync {
    /// A number that no file of the database has or had.
    fn new_number(&self) -> FileNumber;

    /// From now on the segment may hold commits.
    fn add(&self, number: FileNumber) -> Result<()>;

    /// From now on recovery ignores the segments, whether their files are there or not.
    fn remove(&self, numbers: Vec<FileNumber>) -> Result<()>;
}

/// A segment's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentFile {
    pub(crate) number: FileNumber,
    pub(crate) file_bytes: u64,
}

impl From<&Segment> for SegmentFile {
    fn from(segment: &Segment) -> Self {
        Self { number: segment.number, file_bytes: segment.file.len() }
    }
}

/// Prepares, recycles and removes segments.
pub(crate) struct SegmentPool {
    file_system: Arc<dyn FileSystem>,
    device: Arc<dyn LogDevice>,
    directory: PathBuf,
    database_id: u64,
    segment_bytes: u64,
    /// Most retired segments kept for recycling.
    spares_max: usize,
    registry: Arc<dyn SegmentRegistry>,
    /// Relaxed: for speed only.
    mostly_stores: AtomicBool,
    /// The processor of the commit that took the last segment. Relaxed: a hint.
    taker: AtomicUsize,
    state: Mutex<State>,
    /// Signalled when a segment was taken, when one became ready, and at close.
    changed: Condvar,
}

struct State {
    ready: VecDeque<Segment>,
    /// Segments that were ready and turned out to be too small.
    unused: Vec<SegmentFile>,
    retired: Vec<(FileNumber, u64)>,
    next_bytes: u64,
    /// Writes headers. Away while somebody prepares a segment: preparation runs outside the lock, one at a time.
    lane: Option<Box<dyn LogLane>>,
    closed: bool,
}

/// Where a new segment comes from.
enum Origin {
    Recycled(FileNumber),
    Fresh(u64),
}

/// What a [`SegmentPool`] is made of.
pub(crate) struct PoolConfig {
    pub(crate) file_system: Arc<dyn FileSystem>,
    pub(crate) device: Arc<dyn LogDevice>,
    pub(crate) directory: PathBuf,
    pub(crate) database_id: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) log_bytes_max: u64,
    pub(crate) registry: Arc<dyn SegmentRegistry>,
    /// Most commits will be stores, as far as can be told before any was made.
    pub(crate) mostly_stores: bool,
    /// Writes segment headers.
    pub(crate) lane: Box<dyn LogLane>,
    /// Size of the largest segment that the directory has already; 0 for none.
    pub(crate) largest_bytes: u64,
    /// Spare segments that the directory has already: number and size.
    pub(crate) spares: Vec<(FileNumber, u64)>,
}

impl SegmentPool {
    pub(crate) fn new(config: PoolConfig) -> Self {
        let largest = config.spares.iter().map(|&(_, bytes)| bytes).max().unwrap_or(0);
        Self {
            file_system: config.file_system,
            device: config.device,
            directory: config.directory,
            database_id: config.database_id,
            segment_bytes: config.segment_bytes,
            spares_max: (config.log_bytes_max / config.segment_bytes) as usize,
            registry: config.registry,
            mostly_stores: AtomicBool::new(config.mostly_stores),
            taker: AtomicUsize::new(usize::MAX),
            state: Mutex::new(State {
                ready: VecDeque::new(),
                unused: Vec::new(),
                retired: config.spares,
                next_bytes: FIRST_SEGMENT_BYTES
                    .max(config.largest_bytes.max(largest))
                    .min(config.segment_bytes),
                lane: Some(config.lane),
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn device(&self) -> &Arc<dyn LogDevice> {
        &self.device
    }

    /// True if most commits are stores, so that it pays to have pages ready for them.
    pub(crate) fn mostly_stores(&self) -> bool {
        self.mostly_stores.load(Ordering::Relaxed)
    }

    /// Says how a segment was used: the next ones will be used alike.
    pub(crate) fn used(&self, mostly_stores: bool) {
        if self.mostly_stores.swap(mostly_stores, Ordering::Relaxed) != mostly_stores {
            self.device.expect_stores(mostly_stores);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A prepared segment that holds at least `stream_bytes` of log. Prepares one on the spot if none is ready.
    pub(crate) fn take(&self, stream_bytes: u64) -> Result<Segment> {
        let mut state = self.lock();
        loop {
            // The order of the numbers must be that of the log: one that is too small cannot be left for later.
            while let Some(segment) = state.ready.pop_front() {
                if segment.capacity() >= stream_bytes {
                    self.taker.store(processor::current(), Ordering::Relaxed);
                    self.changed.notify_all();
                    return Ok(segment);
                }
                state.unused.push(SegmentFile::from(&segment));
            }
            match state.lane.take() {
                Some(lane) => {
                    let (returned, result) = self.prepare(state, lane, stream_bytes);
                    state = returned;
                    state.ready.push_back(result?);
                }
                None => state = self.wait(state, Duration::from_secs(1)),
            }
        }
    }

    /// Makes one segment ready if none is, else waits up to `patience` for one to be taken. For a background thread, which then leaves the processor of
    /// who took it.
    pub(crate) fn prepare_ahead(&self, patience: Duration, aside: &Aside) -> Result<()> {
        let mut state = self.lock();
        if !state.ready.is_empty() && !state.closed {
            state = self.wait(state, patience);
        }
        if state.closed || !state.ready.is_empty() {
            return Ok(());
        }
        let Some(lane) = state.lane.take() else { return Ok(()) };
        drop(state);
        aside.leave(self.taker.load(Ordering::Relaxed));
        let (mut state, result) = self.prepare(self.lock(), lane, 0);
        state.ready.push_back(result?);
        Ok(())
    }

    /// Ends the wait of the background thread.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, patience: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Takes back segments whose data is in tables. Some are kept, under a name that recovery does not read, to be recycled.
    ///
    /// If the manifest cannot be written they stay as they are, and the next open finds them.
    pub(crate) fn retire(&self, released: &[SegmentFile]) -> Result<()> {
        if released.is_empty() {
            return Ok(());
        }
        self.registry.remove(released.iter().map(|segment| segment.number).collect())?;
        let mut state = self.lock();
        for segment in released {
            let log = FileName::Log(segment.number).path(&self.directory);
            let spare = FileName::SpareLog(segment.number).path(&self.directory);
            let keep =
                segment.file_bytes >= state.next_bytes && state.retired.len() < self.spares_max;
            if keep && self.file_system.rename(&log, &spare).is_ok() {
                state.retired.push((segment.number, segment.file_bytes));
            } else {
                // A file that stays is ignored, and removed at the next open.
                let _ = self.file_system.remove(&log);
            }
        }
        Ok(())
    }

    /// Gives up what is only kept for speed, and `released`; called at close. One spare segment stays, so that the next open need not
    /// write one.
    pub(crate) fn trim(&self, mut released: Vec<SegmentFile>) -> Result<()> {
        {
            let mut state = self.lock();
            released.extend(state.ready.drain(..).map(|segment| SegmentFile::from(&segment)));
            released.append(&mut state.unused);
        }
        self.retire(&released)?;
        for (number, _) in self.lock().retired.drain(..).skip(1) {
            let _ = self.file_system.remove(&FileName::SpareLog(number).path(&self.directory));
        }
        Ok(())
    }

    /// Prepares a segment with the lock released. Gives the lock back.
    fn prepare<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        mut lane: Box<dyn LogLane>,
        stream_bytes: u64,
    ) -> (MutexGuard<'a, State>, Result<Segment>) {
        let needed = stream_bytes.saturating_add(65_536).next_multiple_of(65_536);
        // The newest: what it held is most likely still in the cache, where overwriting it costs least.
        let recyclable = state.retired.iter().rposition(|&(_, bytes)| bytes >= needed);
        let origin = match recyclable {
            Some(at) => Origin::Recycled(state.retired.remove(at).0),
            None => {
                let bytes = state.next_bytes.max(needed);
                state.next_bytes = (state.next_bytes * GROWTH).min(self.segment_bytes);
                Origin::Fresh(bytes)
            }
        };
        drop(state);
        let result = self.make(&origin, &mut lane);
        let mut state = self.lock();
        state.lane = Some(lane);
        self.changed.notify_all();
        (state, result)
    }

    fn make(&self, origin: &Origin, lane: &mut Box<dyn LogLane>) -> Result<Segment> {
        let number = self.registry.new_number();
        let path = FileName::Log(number).path(&self.directory);
        let made = self.make_at(&path, number, origin, lane);
        made.inspect_err(|error| {
            // The manifest does not name it, and space is what is wanted. After any other error nobody knows, and the file stays.
            if error.kind() == ErrorKind::DiskFull {
                let _ = self.file_system.remove(&path);
            }
        })
    }

    fn make_at(
        &self,
        path: &Path,
        number: FileNumber,
        origin: &Origin,
        lane: &mut Box<dyn LogLane>,
    ) -> Result<Segment> {
        let file = match *origin {
            Origin::Recycled(old) => {
                self.file_system.rename(&FileName::SpareLog(old).path(&self.directory), path)?;
                self.device.open_segment(path)?
            }
            Origin::Fresh(bytes) => self.create(path, bytes)?,
        };
        self.write_header(lane, &file, number)?;
        self.file_system.sync_dir(&self.directory)?;
        self.registry.add(number)?;
        if self.mostly_stores() {
            // Stores need what its former life left in the cache, and what they overwrite before it was written back is never written.
            file.prepare_stores(file.block_size() as u64);
        } else {
            file.drop_cached();
        }
        Ok(Segment { number, file, seed: Seed::new(self.database_id, number) })
    }

    fn create(&self, path: &Path, bytes: u64) -> Result<Arc<dyn LogSegment>> {
        self.device.create_segment(path, bytes).map_err(|error| {
            // A half-made segment (a full disk, say) must not stay in the way.
            let _ = self.file_system.remove(path);
            Error::from(error).context("cannot prepare a log segment")
        })
    }

    fn write_header(
        &self,
        lane: &mut Box<dyn LogLane>,
        file: &Arc<dyn LogSegment>,
        number: FileNumber,
    ) -> Result<()> {
        let header = SegmentHeader {
            block_bytes: file.block_size() as u32,
            database_id: self.database_id,
            number,
        };
        let mut block = AlignedBuffer::with_capacity(file.block_size());
        block.extend_from_slice(&header.encode());
        block.resize(file.block_size());
        lane.submit(file, 0, block);
        lane.wait().1.map_err(Error::from)
    }
}

impl std::fmt::Debug for SegmentPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentPool").field("directory", &self.directory).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_refuse_newer_formats_and_survive_any_flip() {
        let path = Path::new("wal-000009.log");
        let header = SegmentHeader { block_bytes: 4096, database_id: 5, number: 9 };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes, path).unwrap(), Some(header));
        for at in 0..bytes.len() {
            let mut flipped = bytes;
            flipped[at] ^= 1;
            assert_eq!(SegmentHeader::decode(&flipped, path).unwrap(), None, "flip at {at}");
        }
        let mut newer = bytes;
        newer[4] = 2;
        let checksum = xxh3_64(&newer[..32]);
        newer[32..].copy_from_slice(&checksum.to_le_bytes());
        let error = SegmentHeader::decode(&newer, path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedFormat);
    }
}
