//! Writes one new file front to back, in large buffers, without waiting for each.
//!
//! With io_uring up to [`WRITES_MAX`] buffers are in flight while the caller fills the next. The
//! ring belongs to the thread that uses the sink and is set up by the first full buffer, so that
//! small files cost none. Without io_uring each full buffer is one `pwrite`. Either way the pages
//! stay in the page cache, where the maps of the finished table will find them.
//!
//! The first error sticks: nothing is written after it, and `finish` reports it again. `finish`
//! syncs only after every write has completed in full.

use std::io;
use std::path::Path;

use rustix::io::{Errno, ReadWriteFlags};

use super::file::{RealFile, write_full};
use super::open::refuse;
use super::ring::{self, Completion, Issuer, Ring, RingSupport};
use crate::buffer::AlignedBuffer;
use crate::error::{IoError, Result};
use crate::file_system::{File, FileSink};

/// Bytes per write.
const BUFFER_LEN: usize = 512 << 10;
/// Writes in flight at once.
const WRITES_MAX: usize = 4;

/// A file being written.
#[derive(Debug)]
pub(super) struct Sink {
    file: RealFile,
    current: AlignedBuffer,
    /// Bytes appended so far; the last `current.len()` of them are still in the buffer.
    position: u64,
    support: Option<RingSupport>,
    ring: Option<Ring>,
    /// Buffers that came back from the ring.
    spare: Vec<AlignedBuffer>,
    failure: Option<IoError>,
    finished: bool,
}

impl Sink {
    pub(super) fn create(path: &Path, support: Option<RingSupport>) -> Result<Self> {
        Ok(Self {
            file: RealFile::create(path)?,
            current: AlignedBuffer::with_capacity(BUFFER_LEN),
            position: 0,
            support,
            ring: None,
            spare: Vec::new(),
            failure: None,
            finished: false,
        })
    }

    /// Makes all later writes fail.
    #[cfg(test)]
    pub(super) fn break_for_test(&mut self) {
        self.file.break_for_test();
    }

    fn check(&self) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.finished {
            let why = "the file was finished already";
            return Err(refuse("append to", self.file.path(), io::ErrorKind::InvalidInput, why));
        }
        Ok(())
    }

    /// Remembers the first error for all later calls.
    fn latch<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.failure.get_or_insert_with(|| error.clone());
        }
        result
    }

    fn append_buffered(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let room = BUFFER_LEN - self.current.len();
            let (now, later) = data.split_at(room.min(data.len()));
            self.current.extend_from_slice(now);
            self.position += now.len() as u64;
            data = later;
            if self.current.len() == BUFFER_LEN {
                self.write_current()?;
            }
        }
        Ok(())
    }

    /// Hands the current buffer to the kernel and takes an empty one.
    fn write_current(&mut self) -> Result<()> {
        let offset = self.position - self.current.len() as u64;
        self.ensure_ring();
        if self.ring.is_none() {
            self.file.write_all_at(offset, &self.current)?;
            self.current.clear();
            return Ok(());
        }
        if self.ring.as_ref().is_some_and(Ring::is_full) {
            self.reap()?;
        }
        let mut empty =
            self.spare.pop().unwrap_or_else(|| AlignedBuffer::with_capacity(BUFFER_LEN));
        empty.clear();
        let full = std::mem::replace(&mut self.current, empty);
        let ring = self.ring.as_mut().expect("set up above");
        ring.write(self.file.descriptor(), offset, full, false, offset);
        Ok(())
    }

    fn ensure_ring(&mut self) {
        let (None, Some(support)) = (&self.ring, self.support) else { return };
        match Ring::new(WRITES_MAX, support, Issuer::OneThread) {
            Ok(ring) => self.ring = Some(ring),
            Err(error) => {
                // Out of descriptors or of memory for one more ring: slower, but no reason to fail.
                tracing::warn!("writing {} without io_uring: {error}", self.file.path().display());
                self.support = None;
            }
        }
    }

    /// Waits for one write and finishes it if it ended short.
    fn reap(&mut self) -> Result<()> {
        let ring = self.ring.as_mut().expect("only called with writes in flight");
        let Completion { token: offset, buffer, result } = ring.wait();
        let written = match result {
            Ok(count) => Ok(count),
            Err(error) if ring::is_transient(&error) => Ok(0),
            Err(error) => Err(error),
        };
        let outcome = written.and_then(|count| {
            let rest = &buffer[count.min(buffer.len())..];
            let fd = self.file.descriptor();
            let at = offset.checked_add(count as u64).ok_or(Errno::FBIG)?;
            Ok(write_full(fd, at, rest, ReadWriteFlags::empty())?)
        });
        let len = buffer.len();
        self.spare.push(buffer);
        outcome.map_err(|error| IoError::new("write", self.file.path(), &error).at(offset, len))
    }

    fn write_out_and_sync(&mut self) -> Result<()> {
        let in_flight =
            |ring: &Option<Ring>| ring.as_ref().is_some_and(|ring| ring.in_flight() > 0);
        if !self.current.is_empty() {
            if in_flight(&self.ring) {
                self.write_current()?;
            } else {
                let offset = self.position - self.current.len() as u64;
                self.file.write_all_at(offset, &self.current)?;
                self.current.clear();
            }
        }
        while in_flight(&self.ring) {
            self.reap()?;
        }
        self.file.sync_data()
    }
}

impl FileSink for Sink {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        self.check()?;
        let result = self.append_buffered(data);
        self.latch(result)
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn finish(&mut self) -> Result<()> {
        self.check()?;
        let result = self.write_out_and_sync();
        self.finished = result.is_ok();
        // The ring and the buffers are of no more use; with an error, dropping the ring waits for
        // what is still in flight.
        self.ring = None;
        self.spare = Vec::new();
        self.latch(result)
    }
}
