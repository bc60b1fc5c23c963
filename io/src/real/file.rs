//! An open file over `pread` and `pwrite`, which need no lock between threads.
//!
//! Interrupted and short transfers are finished here, so that callers see all of a range, the end
//! of the file, or an error.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};

use super::open::{self, fail};
use crate::error::Result;
use crate::file_system::{File, OpenMode};

/// A regular file and the path that it was opened under.
#[derive(Debug)]
pub(super) struct RealFile {
    path: PathBuf,
    fd: Arc<OwnedFd>,
}

impl RealFile {
    pub(super) fn create(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_path_buf(), fd: Arc::new(open::create(path)?) })
    }

    pub(super) fn open(path: &Path, mode: OpenMode) -> Result<Self> {
        let access = match mode {
            OpenMode::Read => OFlags::RDONLY,
            OpenMode::ReadWrite => OFlags::RDWR,
        };
        Ok(Self { path: path.to_path_buf(), fd: Arc::new(open::open_regular(path, access)?) })
    }

    /// Replaces the descriptor by one that refuses writes.
    #[cfg(test)]
    pub(super) fn break_for_test(&mut self) {
        self.fd = Arc::new(open::open_regular(&self.path, OFlags::RDONLY).expect("it exists"));
    }

    /// The descriptor, shared with requests in flight.
    pub(super) fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.fd
    }
}

impl File for RealFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        descriptor_len(&self.fd).map_err(|errno| fail("examine", &self.path, errno))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        read_full(&self.fd, offset, buf)
            .map_err(|errno| fail("read", &self.path, errno).at(offset, buf.len()))
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        write_full(&self.fd, offset, data, ReadWriteFlags::empty())
            .map_err(|errno| fail("write", &self.path, errno).at(offset, data.len()))
    }

    fn sync_data(&self) -> Result<()> {
        sync_descriptor(&self.fd).map_err(|errno| fail("sync", &self.path, errno))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&*self.fd, len))
            .map_err(|errno| fail("set the length of", &self.path, errno))
    }
}

/// The size of an open file.
pub(super) fn descriptor_len(fd: &OwnedFd) -> std::result::Result<u64, Errno> {
    rustix::fs::fstat(fd).map(|stat| u64::try_from(stat.st_size).unwrap_or(0))
}

/// Reads until `buf` is full or the file ends.
pub(super) fn read_full(
    fd: &OwnedFd,
    offset: u64,
    buf: &mut [u8],
) -> std::result::Result<usize, Errno> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset.checked_add(done as u64).ok_or(Errno::OVERFLOW)?;
        match rustix::io::pread(fd, &mut buf[done..], at) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Writes all of `data`, with `flags` such as `RWF_DSYNC` on every piece.
pub(super) fn write_full(
    fd: &OwnedFd,
    offset: u64,
    data: &[u8],
    flags: ReadWriteFlags,
) -> std::result::Result<(), Errno> {
    let mut done = 0;
    while done < data.len() {
        let at = offset.checked_add(done as u64).ok_or(Errno::FBIG)?;
        let rest = &data[done..];
        let written = if flags.is_empty() {
            rustix::io::pwrite(fd, rest, at)
        } else {
            rustix::io::pwritev2(fd, &[io::IoSlice::new(rest)], at, flags)
        };
        match written {
            // A write that makes no progress and gives no reason would loop forever.
            Ok(0) => return Err(Errno::IO),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// `fdatasync`. An interruption comes before the call has reported anything, so it alone may be
/// repeated.
pub(super) fn sync_descriptor(fd: &OwnedFd) -> std::result::Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::fs::fdatasync(fd))
}
