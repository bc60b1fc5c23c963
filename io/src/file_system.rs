//! The seam between the engine and the world: what the engine may ask of storage.
//!
//! Three implementations keep the same promises: [`crate::RealFileSystem`] over io_uring, the same over a
//! caller's threads, and [`crate::SimFileSystem`], which also knows how to lose power. Each method states what is
//! durable when it returns; nothing else is.

use std::fmt::Debug;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::buffer::AlignedBuffer;
use crate::clock::Clock;
use crate::error::Result;
use crate::mapping::Mapping;

/// What a directory holds, one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name inside the directory (entries whose names are not UTF-8 are left out).
    pub name: String,
    /// Size in bytes; 0 for a directory.
    pub len: u64,
    /// True for a directory. Symbolic links are reported as what they are: neither directory nor regular file.
    pub is_dir: bool,
    /// True for a regular file.
    pub is_file: bool,
}

/// How to open an existing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reads only.
    Read,
    /// Reads and writes.
    ReadWrite,
}

/// Files, directories, maps, the log device, time and randomness.
pub trait FileSystem: Send + Sync + Debug + 'static {
    /// One line for logs and `stats`: which backend, and if it is a fallback, why.
    fn description(&self) -> String;

    /// The clock that belongs to this world.
    fn clock(&self) -> Arc<dyn Clock>;

    /// A random number, for epochs and identities. Deterministic in the simulator.
    fn random_u64(&self) -> u64;

    /// Has the calling thread step back for good, by so many steps of at most 19 in all: each gives it about a fifth less of a
    /// processor that others want too. As far as the system knows such a thing.
    fn lower_priority(&self, _steps: i32) {}

    /// Creates a directory and its missing parents. Not durable before the parent's [`sync_dir`](Self::sync_dir).
    fn create_dir_all(&self, path: &Path) -> Result<()>;

    /// The entries of a directory, in no particular order.
    fn list(&self, path: &Path) -> Result<Vec<DirEntry>>;

    /// True if something exists at `path`.
    fn exists(&self, path: &Path) -> Result<bool>;

    /// Makes the directory's entries (creations, renames, removals) durable.
    fn sync_dir(&self, path: &Path) -> Result<()>;

    /// Creates a new file, mode 0600, for reading and writing. Fails if it exists or is a symbolic link.
    fn create(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Opens an existing regular file. Does not follow a symbolic link in the last component.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>>;

    /// Removes a file. Maps and open files keep working.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> Result<()>;

    /// Replaces `to` by `from` atomically. Durable after [`sync_dir`](Self::sync_dir).
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Gives a file a second name.
    fn hard_link(&self, from: &Path, to: &Path) -> Result<()>;

    /// Takes an exclusive advisory lock on `path`, creating the file; released when the value is dropped or the process
    /// dies. Fails with [`std::io::ErrorKind::WouldBlock`] if another holder exists, in this process or another.
    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>>;

    /// Maps a whole file for reading. The file must never be truncated or overwritten while a map lives.
    fn map(&self, path: &Path) -> Result<Mapping>;

    /// Creates a new file and a sink that writes it front to back with several writes in flight.
    fn create_sink(&self, path: &Path) -> Result<Box<dyn FileSink>>;

    /// Opens a reader that streams a file front to back, reading ahead of the consumer.
    fn open_stream(&self, path: &Path) -> Result<Box<dyn FileStream>>;

    /// The log device: where WAL segments live and frames are written.
    fn log_device(&self, options: LogDeviceOptions) -> Result<Arc<dyn LogDevice>>;
}

/// An open file, for positional reads and writes from any thread.
#[expect(clippy::len_without_is_empty, reason = "the length of a file, not of a collection")]
pub trait File: Send + Sync + Debug {
    /// The path that it was opened under, for errors.
    fn path(&self) -> &Path;

    /// Its size in bytes.
    fn len(&self) -> Result<u64>;

    /// Reads up to `buf.len()` bytes at `offset`; short only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// Writes all of `data` at `offset`. Survives the process; not durable before [`sync_data`](Self::sync_data).
    fn write_all_at(&self, offset: u64, data: &[u8]) -> Result<()>;

    /// Makes content and size durable. After an error nobody knows what is on the medium: never retry and believe it.
    fn sync_data(&self) -> Result<()>;

    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> Result<()>;
}

/// An advisory lock; dropping it releases it.
pub trait FileLock: Send + Sync + Debug {}

/// Writes one new file front to back. Used by one thread at a time.
pub trait FileSink: Debug {
    /// Appends `data`. Errors of earlier writes may surface here.
    fn append(&mut self, data: &[u8]) -> Result<()>;

    /// Bytes appended so far.
    fn position(&self) -> u64;

    /// Waits for all writes and makes content and size durable (the directory entry is the caller's to sync).
    fn finish(&mut self) -> Result<()>;
}

/// Reads one file front to back with read-ahead. Used by one thread at a time.
#[expect(clippy::len_without_is_empty, reason = "the length of a file, not of a collection")]
pub trait FileStream: Debug {
    /// The size of the file in bytes.
    fn len(&self) -> u64;

    /// Exactly the bytes of `range`. Ranges must not go backwards by their start; gaps are allowed.
    /// Fails with [`std::io::ErrorKind::UnexpectedEof`] past the end of the file.
    fn read(&mut self, range: Range<u64>) -> Result<&[u8]>;
}

/// How log frames are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogSync {
    /// [`Direct`](Self::Direct) where the file system has it, [`Flush`](Self::Flush) elsewhere.
    #[default]
    Auto,
    /// `O_DIRECT` writes with `RWF_DSYNC`.
    Direct,
    /// Ordinary writes followed by `fdatasync`.
    Flush,
}

/// Options of a [`LogDevice`].
#[derive(Debug, Clone, Copy)]
pub struct LogDeviceOptions {
    /// How frames are made durable.
    pub sync: LogSync,
    /// The most frames in flight at once (1 to 64).
    pub lanes: usize,
    /// Most commits will be stores, until [`LogDevice::expect_stores`] says otherwise: new segments reserve their space without
    /// writing it. Frames are possible, and slower, until a segment was used once.
    pub mostly_stores: bool,
}

impl Default for LogDeviceOptions {
    fn default() -> Self {
        Self { sync: LogSync::Auto, lanes: 16, mostly_stores: false }
    }
}

/// Where WAL segments live: preallocated, already written files that are recycled.
///
/// A *lane* carries one frame at a time. A committer takes a lane, submits a frame, does other work while the device
/// writes, and waits; up to `lanes` committers do so at once and their frames complete in any order.
pub trait LogDevice: Send + Sync + Debug {
    /// One line for logs and `stats`, such as `io_uring, O_DIRECT + RWF_DSYNC, 4096-byte blocks, 16 lanes`.
    fn description(&self) -> String;

    /// Makes the lanes, as many as the options asked for. Called once.
    fn lanes(&self) -> Result<Vec<Box<dyn LogLane>>>;

    /// Says what new segments will mostly be used for, from now on: stores, or frames. See [`LogDeviceOptions::mostly_stores`].
    fn expect_stores(&self, _mostly: bool) {}

    /// Creates a segment of `len` bytes of zeros, durable, all of them really written so that later overwrites change no
    /// metadata (or only reserved, see [`LogDeviceOptions::mostly_stores`]). The directory entry is the caller's to sync. Fails if the
    /// file exists.
    fn create_segment(&self, path: &Path, len: u64) -> Result<Arc<dyn LogSegment>>;

    /// Opens an existing segment for overwriting (a recycled one, after its rename).
    fn open_segment(&self, path: &Path) -> Result<Arc<dyn LogSegment>>;
}

/// One WAL segment, open for writing.
#[expect(clippy::len_without_is_empty, reason = "the length of a file, not of a collection")]
pub trait LogSegment: Send + Sync + Debug {
    /// Its path, for errors.
    fn path(&self) -> PathBuf;

    /// Its size in bytes; a multiple of [`block_size`](Self::block_size).
    fn len(&self) -> u64;

    /// Frames start at multiples of this many bytes and are whole multiples long (a power of two, 512 to 65536).
    fn block_size(&self) -> usize;

    /// Stores bytes so that they survive the process (a shared mapping, or a plain write): no durability, no system call in
    /// the common case. One caller at a time, and never a range that a frame covers while that frame is in flight.
    fn store(&self, offset: u64, data: &[u8]) -> Result<()>;

    /// Has pages ready for the stores behind `offset`, and gives up those before it, where that makes a difference. For another
    /// thread than the one that stores: a store finds what it needs or sees to it itself.
    fn prepare_stores(&self, _offset: u64) {}

    /// Gives up what the page cache has of the segment, for one that will mostly get frames: they would have to drop it piece by piece.
    fn drop_cached(&self) {}

    /// Makes everything stored before the call durable. May run beside `store` and frames in flight.
    fn sync(&self) -> Result<()>;

    /// For implementations to get at themselves behind the trait.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// Carries one frame at a time to the device.
pub trait LogLane: Send + Debug {
    /// Starts writing `frame` (whole blocks) at `offset` of `segment`. The lane must be idle. A submission error is reported by
    /// [`wait`](Self::wait), so that the frame's buffer always comes back.
    fn submit(&mut self, segment: &Arc<dyn LogSegment>, offset: u64, frame: AlignedBuffer);

    /// [`submit`](Self::submit) and [`wait`](Self::wait) in one, for a committer with nothing to do in between: the calling
    /// thread does the write itself where that is faster.
    fn write(
        &mut self,
        segment: &Arc<dyn LogSegment>,
        offset: u64,
        frame: AlignedBuffer,
    ) -> (AlignedBuffer, Result<()>) {
        self.submit(segment, offset, frame);
        self.wait()
    }

    /// Blocks until the frame is durable or failed; gives the buffer back. The lane is idle again.
    ///
    /// # Panics
    /// If no frame was submitted.
    fn wait(&mut self) -> (AlignedBuffer, Result<()>);
}
