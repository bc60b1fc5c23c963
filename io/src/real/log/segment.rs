//! One WAL segment: a file of fixed size, every block of it written once already.
//!
//! It is open twice: through the page cache for stores and flushes, and past it for frames, where
//! the file system allows.

use std::any::Any;
use std::fmt::{self, Debug};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::super::file::{descriptor_len, sync_descriptor, write_full};
use super::super::open::{self, fail, refuse};
use super::flush::FlushGroup;
use super::geometry::{self, Geometry};
use super::stores::Stores;
use crate::buffer::AlignedBuffer;
use crate::error::Result;
use crate::file_system::{LogDeviceOptions, LogSegment, LogSync};

/// Bytes per write while a new segment is filled with zeros.
const FILL_LEN: usize = 1 << 20;

/// A segment open for writing.
pub(super) struct Segment {
    path: PathBuf,
    len: u64,
    block_len: usize,
    buffered: Arc<OwnedFd>,
    /// For frames past the page cache; `None` in flush mode.
    direct: Option<Arc<OwnedFd>>,
    stores: Stores,
    flushes: FlushGroup,
}

impl Segment {
    /// Creates a segment, leaving nothing behind if that fails.
    pub(super) fn create(
        path: &Path,
        len: u64,
        options: &LogDeviceOptions,
    ) -> Result<(Self, Geometry)> {
        let buffered = open::create(path)?;
        let created =
            geometry::negotiate(path, &buffered, options.sync).and_then(|mut geometry| {
                check_len(path, len, geometry.block_len)?;
                fill(path, &buffered, len, &mut geometry, options)?;
                Ok(geometry)
            });
        match created {
            Ok(geometry) => Ok((Self::new(path, len, buffered, &geometry), geometry)),
            Err(error) => {
                // The file would otherwise stand in the way of another attempt, and use up a full
                // disk.
                let _ = rustix::fs::unlink(path);
                Err(error)
            }
        }
    }

    /// Opens an existing segment.
    pub(super) fn open(path: &Path, options: &LogDeviceOptions) -> Result<(Self, Geometry)> {
        let buffered = open::open_regular(path, OFlags::RDWR)?;
        let geometry = geometry::negotiate(path, &buffered, options.sync)?;
        let len = descriptor_len(&buffered).map_err(|errno| fail("examine", path, errno))?;
        check_len(path, len, geometry.block_len)?;
        Ok((Self::new(path, len, buffered, &geometry), geometry))
    }

    fn new(path: &Path, len: u64, buffered: OwnedFd, geometry: &Geometry) -> Self {
        Self {
            path: path.to_path_buf(),
            len,
            block_len: geometry.block_len,
            buffered: Arc::new(buffered),
            direct: geometry.direct.as_ref().ok().cloned(),
            stores: Stores::new(len, geometry.may_map),
            flushes: FlushGroup::default(),
        }
    }

    /// The descriptor for durable direct writes, if frames are written so.
    pub(super) fn direct(&self) -> Option<&Arc<OwnedFd>> {
        self.direct.as_ref()
    }

    /// Says why a frame cannot be written, if it cannot.
    pub(super) fn check_frame(&self, offset: u64, len: usize) -> io::Result<()> {
        let block_len = self.block_len as u64;
        let whole = len > 0 && len.is_multiple_of(self.block_len);
        let end = offset.checked_add(len as u64);
        if whole && offset.is_multiple_of(block_len) && end.is_some_and(|end| end <= self.len) {
            return Ok(());
        }
        let why = format!(
            "a frame must be whole blocks of {block_len} bytes inside the segment of {} bytes",
            self.len
        );
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    pub(super) fn frame_begins(&self, frame: Range<u64>) {
        if self.direct.is_some() {
            self.stores.frame_begins(frame);
        }
    }

    pub(super) fn frame_ends(&self, frame: &Range<u64>) {
        if self.direct.is_some() {
            self.stores.frame_ends(frame);
        }
    }

    /// Writes a frame so that it survives the process; in flush mode, where [`flush`](Self::flush)
    /// makes it durable.
    pub(super) fn write_buffered(
        &self,
        offset: u64,
        frame: &[u8],
    ) -> std::result::Result<(), Errno> {
        write_full(&self.buffered, offset, frame, ReadWriteFlags::empty())
    }

    /// Writes a frame durably on the calling thread, past the page cache.
    pub(super) fn write_direct(&self, offset: u64, frame: &[u8]) -> std::result::Result<(), Errno> {
        let fd = self.direct.as_ref().ok_or(Errno::INVAL)?;
        write_full(fd, offset, frame, ReadWriteFlags::DSYNC)
    }

    /// Makes everything durable that went through the page cache before.
    pub(super) fn flush(&self) -> std::result::Result<(), Errno> {
        self.flushes.flush(|| sync_descriptor(&self.buffered))
    }
}

fn check_len(path: &Path, len: u64, block_len: usize) -> Result<()> {
    if len > 0 && len.is_multiple_of(block_len as u64) {
        return Ok(());
    }
    let why = format!("a segment of {len} bytes is not made of whole blocks of {block_len} bytes");
    Err(refuse("use", path, io::ErrorKind::InvalidInput, why))
}

/// Writes zeros to every block. Space that is only reserved would not do for frames: the first write
/// into it changes metadata, and the kernel's fast path for durable direct writes is closed to it.
/// For stores it does, as they are written back later and all at once.
fn fill(
    path: &Path,
    buffered: &OwnedFd,
    len: u64,
    geometry: &mut Geometry,
    options: &LogDeviceOptions,
) -> Result<()> {
    // Reserving first keeps the segment in one piece on the medium, and finds out at once that it
    // does not fit.
    let reserved = match rustix::io::retry_on_intr(|| {
        rustix::fs::fallocate(buffered, FallocateFlags::empty(), 0, len)
    }) {
        Ok(()) => true,
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => false,
        Err(errno) => return Err(fail("reserve space for", path, errno).at(0, len as usize)),
    };
    let mut zeros = AlignedBuffer::with_capacity(FILL_LEN);
    zeros.resize(FILL_LEN);
    if let Ok(direct) = &geometry.direct {
        // The very write that frames will use: a sandbox may lack the flag, a device may refuse the
        // alignment.
        let first = &zeros[..geometry.block_len];
        match write_full(direct, 0, first, ReadWriteFlags::DSYNC) {
            Ok(()) => {}
            Err(errno @ (Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS)) => {
                let why = io::Error::from(errno).to_string();
                if options.sync == LogSync::Direct {
                    return Err(geometry::no_direct_io(path, &why));
                }
                geometry.direct = Err(why);
            }
            Err(errno) => return Err(fail("write", path, errno).at(0, first.len())),
        }
    }
    // Past the page cache where possible, so that the first frames find no pages to drop.
    let fd = geometry.direct.as_ref().map_or(buffered, |direct| direct);
    let mut offset = if reserved && options.mostly_stores { len } else { 0 };
    while offset < len {
        let piece = &zeros[..FILL_LEN.min(usize::try_from(len - offset).unwrap_or(FILL_LEN))];
        write_full(fd, offset, piece, ReadWriteFlags::empty())
            .map_err(|errno| fail("write", path, errno).at(offset, piece.len()))?;
        offset += piece.len() as u64;
    }
    sync_descriptor(buffered).map_err(|errno| fail("sync", path, errno))
}

impl LogSegment for Segment {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn block_size(&self) -> usize {
        self.block_len
    }

    fn store(&self, offset: u64, data: &[u8]) -> Result<()> {
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > self.len) {
            let why = format!("the segment has only {} bytes", self.len);
            return Err(refuse("store to", &self.path, io::ErrorKind::InvalidInput, why)
                .at(offset, data.len()));
        }
        self.stores
            .store(&self.buffered, offset, data)
            .map_err(|errno| fail("store to", &self.path, errno).at(offset, data.len()))
    }

    fn prepare_stores(&self, offset: u64) {
        self.stores.prepare(&self.buffered, offset);
    }

    fn drop_cached(&self) {
        let _ = rustix::fs::fadvise(&self.buffered, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn sync(&self) -> Result<()> {
        self.flush().map_err(|errno| fail("sync", &self.path, errno))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("path", &self.path)
            .field("len", &self.len)
            .field("block_size", &self.block_len)
            .field("direct", &self.direct.is_some())
            .finish_non_exhaustive()
    }
}
