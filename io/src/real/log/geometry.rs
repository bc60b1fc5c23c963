//! What a segment's file system offers: direct I/O or not, the size of a block, and whether stores
//! may be mapped.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, OFlags, StatxFlags};

use super::super::open::{self, fail, refuse};
use crate::error::{IoError, Result};
use crate::file_system::LogSync;

/// Frames are never smaller, whatever the device says: a torn page of the cache must not reach into
/// a neighbour.
const BLOCK_LEN_MIN: usize = 4096;
/// The largest block that the log format allows for.
const BLOCK_LEN_MAX: usize = 65_536;

// Magic numbers of `statfs` for the file systems that we know something about.
const EXT_MAGIC: u64 = 0xEF53;
const XFS_MAGIC: u64 = 0x5846_5342;
const BTRFS_MAGIC: u64 = 0x9123_683E;
const F2FS_MAGIC: u64 = 0xF2F5_2010;
const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58F6;

/// How frames are written to one segment.
#[derive(Debug)]
pub(super) struct Geometry {
    /// The descriptor for direct writes, or why there is none.
    pub(super) direct: std::result::Result<Arc<OwnedFd>, String>,
    /// Frames are whole multiples of this.
    pub(super) block_len: usize,
    /// Overwriting a mapped page never needs new space, so a store cannot fail by a signal for lack
    /// of it.
    pub(super) may_map: bool,
}

/// What `statx` says about direct I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DirectAlignment {
    Unsupported,
    /// An older kernel, or a file system that does not say.
    Unknown,
    Known {
        memory: u32,
        offset: u32,
    },
}

/// Finds out how to write frames to the file `buffered`, which is also at `path`.
pub(super) fn negotiate(path: &Path, buffered: &OwnedFd, wish: LogSync) -> Result<Geometry> {
    let examine = |errno| fail("examine", path, errno);
    let magic = rustix::fs::fstatfs(buffered).map_err(examine)?.f_type as u64 & 0xFFFF_FFFF;
    let stat = rustix::fs::fstat(buffered).map_err(examine)?;
    let page_len = rustix::param::page_size();
    let fs_block = usize::try_from(stat.st_blksize).unwrap_or(0);
    let geometry = |direct, offset_align: usize| Geometry {
        direct,
        block_len: block_len(offset_align, fs_block, page_len),
        may_map: matches!(magic, EXT_MAGIC | XFS_MAGIC | TMPFS_MAGIC),
    };
    if wish == LogSync::Flush {
        return Ok(geometry(Err("asked for".into()), 0));
    }
    let offered = offset_align(magic, direct_alignment(buffered), wish);
    let opened = offered.and_then(|align| {
        open_direct(path, buffered).map(|fd| (fd, align)).map_err(|error| error.to_string())
    });
    match opened {
        Ok((fd, align)) => Ok(geometry(Ok(Arc::new(fd)), align)),
        Err(why) if wish == LogSync::Direct => Err(no_direct_io(path, &why)),
        Err(why) => Ok(geometry(Err(why), 0)),
    }
}

/// The error for those who insist on direct I/O.
pub(super) fn no_direct_io(path: &Path, why: &str) -> IoError {
    let why = format!("direct I/O is not possible: {why}");
    refuse("open for direct I/O", path, io::ErrorKind::Unsupported, why)
}

fn block_len(offset_align: usize, fs_block: usize, page_len: usize) -> usize {
    // A size that is no power of two, or beyond all blocks (network file systems tell their
    // preferred transfer), is a hint only.
    let fs_block = if fs_block.is_power_of_two() { fs_block } else { 0 };
    let len = BLOCK_LEN_MIN.max(offset_align).max(page_len);
    if fs_block <= BLOCK_LEN_MAX { len.max(fs_block) } else { len }.min(BLOCK_LEN_MAX)
}

fn direct_alignment(fd: &OwnedFd) -> DirectAlignment {
    let Ok(statx) = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return DirectAlignment::Unknown;
    };
    if statx.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return DirectAlignment::Unknown;
    }
    match (statx.stx_dio_mem_align, statx.stx_dio_offset_align) {
        (0, _) | (_, 0) => DirectAlignment::Unsupported,
        (memory, offset) => DirectAlignment::Known { memory, offset },
    }
}

/// The alignment of offsets that direct I/O needs, or why it is not to be used.
fn offset_align(
    magic: u64,
    alignment: DirectAlignment,
    wish: LogSync,
) -> std::result::Result<usize, String> {
    match alignment {
        DirectAlignment::Unsupported => Err("the file system says it has none".into()),
        DirectAlignment::Known { memory, offset } => {
            let (memory, offset) = (memory as usize, offset as usize);
            if !crate::BUFFER_ALIGN.is_multiple_of(memory)
                || !offset.is_power_of_two()
                || offset > BLOCK_LEN_MAX
            {
                return Err(format!(
                    "its alignment is {memory} in memory and {offset} in the file"
                ));
            }
            Ok(offset)
        }
        DirectAlignment::Unknown => match magic {
            // These accept the flag and copy to the page cache all the same.
            TMPFS_MAGIC | RAMFS_MAGIC => Err("the file system lives in memory".into()),
            EXT_MAGIC | XFS_MAGIC | BTRFS_MAGIC | F2FS_MAGIC => Ok(BLOCK_LEN_MIN),
            // Whether a network or user-space file system honours RWF_DSYNC on direct writes cannot
            // be found out; all of them know fdatasync. Who asks for direct I/O by name knows
            // better.
            _ if wish == LogSync::Direct => Ok(BLOCK_LEN_MIN),
            _ => Err("the file system does not say what it supports".into()),
        },
    }
}

/// Opens the same file a second time, past the page cache.
fn open_direct(path: &Path, buffered: &OwnedFd) -> Result<OwnedFd> {
    let direct = open::open_regular(path, OFlags::RDWR | OFlags::DIRECT)?;
    let examine = |errno| fail("examine", path, errno);
    let (a, b) = (
        rustix::fs::fstat(buffered).map_err(examine)?,
        rustix::fs::fstat(&direct).map_err(examine)?,
    );
    if (a.st_dev, a.st_ino) != (b.st_dev, b.st_ino) {
        let why = "the file was replaced while it was being opened";
        return Err(refuse("open", path, io::ErrorKind::InvalidInput, why));
    }
    Ok(direct)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_covers_device_file_system_and_page_and_stays_within_the_format() {
        assert_eq!(block_len(512, 4096, 4096), 4096);
        assert_eq!(block_len(512, 16_384, 4096), 16_384);
        assert_eq!(block_len(8192, 4096, 4096), 8192);
        assert_eq!(block_len(512, 4096, 65_536), 65_536);
        assert_eq!(block_len(512, 1 << 20, 4096), 4096, "a preferred transfer is not a block");
        assert_eq!(block_len(0, 0, 4096), 4096);
        assert_eq!(block_len(0, 12_345, 4096), 4096);
    }

    #[test]
    fn direct_io_is_used_only_where_it_is_known_to_hold() {
        let known = |memory, offset| DirectAlignment::Known { memory, offset };
        assert_eq!(offset_align(EXT_MAGIC, known(512, 512), LogSync::Auto), Ok(512));
        assert!(offset_align(EXT_MAGIC, known(8192, 512), LogSync::Auto).is_err());
        assert!(offset_align(EXT_MAGIC, known(4, 1 << 20), LogSync::Auto).is_err());
        assert!(offset_align(EXT_MAGIC, DirectAlignment::Unsupported, LogSync::Direct).is_err());
        assert!(offset_align(TMPFS_MAGIC, DirectAlignment::Unknown, LogSync::Direct).is_err());
        assert!(offset_align(0x6969, DirectAlignment::Unknown, LogSync::Auto).is_err());
        assert_eq!(offset_align(0x6969, DirectAlignment::Unknown, LogSync::Direct), Ok(4096));
        assert_eq!(offset_align(XFS_MAGIC, DirectAlignment::Unknown, LogSync::Auto), Ok(4096));
    }
}
