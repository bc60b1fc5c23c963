//! The advisory lock that keeps a second process, or a second handle of this process, out of a
//! database.
//!
//! `flock` belongs to the open file description: two opens conflict even inside one process, and
//! closing some other descriptor of the same file does not release it (as it would with `fcntl`
//! locks). It vanishes with the process.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FlockOperation};
use rustix::io::Errno;

use super::open::{self, fail, refuse};
use crate::error::Result;
use crate::file_system::FileLock;

/// How often a lock file may be replaced under us before we give up.
const ATTEMPTS_MAX: usize = 16;

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    fd: OwnedFd,
}

impl FileLock for Lock {}

impl Drop for Lock {
    /// Said explicitly, because closing is not enough: a child of this process shares the open file until it executes another
    /// program, and the lock would stay with it.
    fn drop(&mut self) {
        // The only failures are about the descriptor, which is ours.
        let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
    }
}

/// Takes the lock or fails at once.
pub(super) fn acquire(path: &Path) -> Result<Lock> {
    for _ in 0..ATTEMPTS_MAX {
        let fd = open::open_or_create(path)?;
        rustix::io::retry_on_intr(|| {
            rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)
        })
        .map_err(|errno| fail("lock", path, errno))?;
        if still_names(path, &fd)? {
            return Ok(Lock { fd });
        }
    }
    Err(refuse("lock", path, std::io::ErrorKind::WouldBlock, "the lock file keeps being replaced"))
}

/// A file that was removed or replaced between opening and locking guards nothing: the next comer
/// would lock another one.
fn still_names(path: &Path, fd: &OwnedFd) -> Result<bool> {
    let held = rustix::fs::fstat(fd).map_err(|errno| fail("lock", path, errno))?;
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => Ok(named.st_dev == held.st_dev && named.st_ino == held.st_ino),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(fail("lock", path, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_shares_the_open_file_does_not_keep_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("LOCK");
        let lock = acquire(&path).unwrap();
        assert!(acquire(&path).is_err());
        // What a child has between fork and exec.
        let inherited = rustix::io::dup(&lock.fd).unwrap();
        drop(lock);
        drop(acquire(&path).unwrap());
        drop(inherited);
    }
}
