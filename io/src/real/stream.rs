//! Reads one file front to back, ahead of its consumer.
//!
//! The file is cut into chunks of [`CHUNK_LEN`] bytes. While the consumer works on one chunk,
//! io_uring reads the next; without io_uring a chunk is read when it is first needed. A range
//! inside one chunk is borrowed from it; one that straddles chunks, or is larger than a chunk, is
//! put together in a scratch buffer. The consumer may skip forward at will.

use std::io;
use std::ops::Range;
use std::path::Path;

use rustix::io::Errno;

use super::file::{RealFile, read_full};
use super::open::refuse;
use super::ring::{self, Completion, Issuer, Ring, RingSupport};
use crate::buffer::AlignedBuffer;
use crate::error::{IoError, Result};
use crate::file_system::{File, FileStream, OpenMode};

/// Bytes per read.
const CHUNK_LEN: usize = 512 << 10;
/// Reads in flight at once: the chunk that is needed and the one after it.
const READS_MAX: usize = 2;
/// Bytes of scratch memory that are kept from one read to the next.
const SCRATCH_KEPT: usize = 4 << 20;

/// A file being read.
#[derive(Debug)]
pub(super) struct Stream {
    file: RealFile,
    len: u64,
    ring: Option<Ring>,
    /// Numbers of the chunks being read.
    pending: Vec<u64>,
    /// Chunks in memory, at most one more than [`READS_MAX`].
    loaded: Vec<Chunk>,
    spare: Vec<AlignedBuffer>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Chunk {
    number: u64,
    bytes: AlignedBuffer,
}

impl Stream {
    pub(super) fn open(path: &Path, support: Option<RingSupport>) -> Result<Self> {
        let file = RealFile::open(path, OpenMode::Read)?;
        let len = file.len()?;
        // A file of one chunk leaves nothing to read ahead.
        let support = support.filter(|_| len > CHUNK_LEN as u64);
        let ring = support.and_then(|support| {
            Ring::new(READS_MAX, support, Issuer::OneThread)
                .inspect_err(|error| {
                    tracing::warn!("reading {} without io_uring: {error}", path.display());
                })
                .ok()
        });
        let (pending, loaded, spare, scratch) = Default::default();
        Ok(Self { file, len, ring, pending, loaded, spare, scratch })
    }

    /// The bytes of the file that a chunk holds.
    fn chunk_range(&self, number: u64) -> Range<u64> {
        let start = number * CHUNK_LEN as u64;
        start..(start + CHUNK_LEN as u64).min(self.len)
    }

    fn empty_buffer(&mut self, number: u64) -> AlignedBuffer {
        let range = self.chunk_range(number);
        let mut buffer =
            self.spare.pop().unwrap_or_else(|| AlignedBuffer::with_capacity(CHUNK_LEN));
        buffer.resize((range.end - range.start) as usize);
        buffer
    }

    /// Forgets all chunks but `first` and those that are read ahead of it.
    fn release_but(&mut self, first: u64) {
        let keep = first..=first + READS_MAX as u64;
        while let Some(index) = self.loaded.iter().position(|chunk| !keep.contains(&chunk.number)) {
            self.spare.push(self.loaded.swap_remove(index).bytes);
        }
        self.spare.truncate(READS_MAX);
    }

    fn is_loaded(&self, number: u64) -> bool {
        self.loaded.iter().any(|chunk| chunk.number == number)
    }

    /// Starts reading a chunk, if it exists and the ring has room.
    fn prefetch(&mut self, number: u64) {
        let start = number * CHUNK_LEN as u64;
        let idle = self.ring.as_ref().is_some_and(|ring| !ring.is_full());
        if !idle || start >= self.len || self.pending.contains(&number) || self.is_loaded(number) {
            return;
        }
        let buffer = self.empty_buffer(number);
        let ring = self.ring.as_mut().expect("checked above");
        ring.read(self.file.descriptor(), start, buffer, number);
        self.pending.push(number);
    }

    /// Waits until a chunk is in memory.
    fn load(&mut self, number: u64) -> Result<()> {
        self.prefetch(number);
        while !self.is_loaded(number) {
            if self.pending.is_empty() {
                let mut bytes = self.empty_buffer(number);
                self.fill(number, &mut bytes, 0)?;
                self.loaded.push(Chunk { number, bytes });
                return Ok(());
            }
            self.reap(number)?;
            self.prefetch(number);
        }
        Ok(())
    }

    /// Takes one completed read. A failure of a chunk that was passed over, or that is only read
    /// ahead, concerns nobody now: if the chunk is needed it is read again, and the failure
    /// reported then.
    fn reap(&mut self, needed: u64) -> Result<()> {
        let ring = self.ring.as_mut().expect("reads are in flight");
        let Completion { token: number, mut buffer, result } = ring.wait();
        self.pending.retain(|&pending| pending != number);
        let filled = match result {
            Ok(count) => self.fill(number, &mut buffer, count),
            Err(error) if ring::is_transient(&error) => self.fill(number, &mut buffer, 0),
            Err(error) => Err(self.error(number, &error)),
        };
        match filled {
            Ok(()) if number >= needed => self.loaded.push(Chunk { number, bytes: buffer }),
            Err(error) if number == needed => return Err(error),
            _ => self.spare.push(buffer),
        }
        Ok(())
    }

    /// Reads what a short read left out.
    fn fill(&self, number: u64, buffer: &mut AlignedBuffer, done: usize) -> Result<()> {
        let done = done.min(buffer.len());
        let rest = &mut buffer[done..];
        let at = self.chunk_range(number).start + done as u64;
        let wanted = rest.len();
        let more = read_full(self.file.descriptor(), at, rest)
            .map_err(|errno: Errno| self.error(number, &io::Error::from(errno)))?;
        if more == wanted {
            return Ok(());
        }
        let why = io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter");
        Err(self.error(number, &why))
    }

    fn error(&self, number: u64, error: &io::Error) -> IoError {
        let range = self.chunk_range(number);
        let len = (range.end - range.start) as usize;
        IoError::new("read", self.file.path(), error).at(range.start, len)
    }

    fn loaded(&self, number: u64) -> &[u8] {
        let chunk = self.loaded.iter().find(|chunk| chunk.number == number);
        &chunk.expect("loaded before").bytes
    }
}

/// The part of `range` that lies in the chunk that starts at `start`, counted from there.
fn inside(range: &Range<u64>, start: u64, chunk_len: usize) -> Range<usize> {
    let from = range.start.saturating_sub(start) as usize;
    let to = (range.end - start).min(chunk_len as u64) as usize;
    from..to
}

impl FileStream for Stream {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self, range: Range<u64>) -> Result<&[u8]> {
        if range.start > range.end || range.end > self.len {
            let (kind, why) = if range.start > range.end {
                (io::ErrorKind::InvalidInput, "the range ends before it starts")
            } else {
                (io::ErrorKind::UnexpectedEof, "the range ends past the end of the file")
            };
            let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            return Err(refuse("read", self.file.path(), kind, why).at(range.start, len));
        }
        if range.is_empty() {
            return Ok(&[]);
        }
        let first = range.start / CHUNK_LEN as u64;
        let last = (range.end - 1) / CHUNK_LEN as u64;
        self.release_but(first);
        if first == last {
            self.load(first)?;
            self.prefetch(first + 1);
            let start = self.chunk_range(first).start;
            let chunk = self.loaded(first);
            return Ok(&chunk[inside(&range, start, chunk.len())]);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        // One huge range must not hold its memory until the end of the file.
        scratch.shrink_to(SCRATCH_KEPT.max((range.end - range.start) as usize));
        for number in first..=last {
            self.release_but(number);
            self.load(number)?;
            self.prefetch(number + 1);
            let start = self.chunk_range(number).start;
            let chunk = self.loaded(number);
            scratch.extend_from_slice(&chunk[inside(&range, start, chunk.len())]);
        }
        self.scratch = scratch;
        Ok(&self.scratch)
    }
}
