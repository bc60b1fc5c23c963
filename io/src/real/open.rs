//! Opening files by the rules that hold everywhere: private, close-on-exec, no symbolic links,
//! regular files only, and never on the numbers of the standard streams.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{IoError, Result};

/// The first descriptor number that data may live on. A process may have closed its standard
/// streams; a database file that took their numbers would be overwritten by the next message
/// printed to standard error.
const FIRST_SAFE_DESCRIPTOR: i32 = 3;

const COMMON: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NOCTTY);

/// An error of the operating system, with the operation and the path that it belongs to.
pub(super) fn fail(operation: &'static str, path: &Path, errno: Errno) -> IoError {
    IoError::new(operation, path, &io::Error::from(errno))
}

/// A refusal of our own, in words.
pub(super) fn refuse(
    operation: &'static str,
    path: &Path,
    kind: io::ErrorKind,
    why: impl Into<String>,
) -> IoError {
    IoError::new(operation, path, &io::Error::new(kind, why.into()))
}

/// Creates a new file for reading and writing.
pub(super) fn create(path: &Path) -> Result<OwnedFd> {
    let flags = COMMON | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR))
        .and_then(above_standard_streams)
        .map_err(|errno| fail("create", path, errno))
}

/// Opens a file for reading and writing, creating it if it is missing.
pub(super) fn open_or_create(path: &Path) -> Result<OwnedFd> {
    open_regular(path, OFlags::RDWR | OFlags::CREATE)
}

/// Opens an existing regular file; `flags` holds the access mode and extras such as `O_DIRECT`.
pub(super) fn open_regular(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let flags = COMMON | flags;
    // Non-blocking only while opening, because a named pipe in the file's place would otherwise
    // block forever. It has to go again: io_uring takes the flag as a wish to fail rather than to
    // wait.
    let opening = flags | OFlags::NONBLOCK;
    let fd = rustix::io::retry_on_intr(|| rustix::fs::open(path, opening, Mode::RUSR | Mode::WUSR))
        .and_then(above_standard_streams)
        .map_err(|errno| fail("open", path, errno))?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| fail("examine", path, errno))?;
    if !super::is_regular(&stat) {
        return Err(refuse("open", path, io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    rustix::fs::fcntl_setfl(&fd, flags).map_err(|errno| fail("open", path, errno))?;
    Ok(fd)
}

fn above_standard_streams(fd: OwnedFd) -> std::result::Result<OwnedFd, Errno> {
    if fd.as_raw_fd() >= FIRST_SAFE_DESCRIPTOR {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, FIRST_SAFE_DESCRIPTOR)
}
