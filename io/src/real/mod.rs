//! The real world: every trait of the seam over the Linux kernel, with io_uring or with plain
//! system calls.
//!
//! What it guarantees: nothing is durable before the method that promises it returns; every
//! descriptor is close-on-exec and above the standard streams; symbolic links are never followed in
//! the last component; files are private to their owner.
//!
//! The two backends differ only where several requests are in flight at once: table files written
//! by a [`sink`], files read ahead by a [`stream`], and frames of the [`log`]. All else is the same
//! plain system calls. [`probe`] chooses the backend. Unsafe code lives in two places below this
//! module: [`ring`], which lends buffers to the kernel, and [`map`].

mod file;
mod lock;
mod log;
#[allow(unsafe_code, reason = "maps files and writes through raw memory")]
mod map;
mod open;
mod probe;
#[allow(unsafe_code, reason = "hands buffers to the kernel")]
mod ring;
mod sink;
mod stream;

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use crate::clock::{Clock, SystemClock};
use crate::error::{IoError, Result};
use crate::file_system::{
    DirEntry, File, FileLock, FileSink, FileStream, FileSystem, LogDevice, LogDeviceOptions,
    OpenMode,
};
use crate::mapping::Mapping;
use file::RealFile;
pub(crate) use map::is_resident;
use open::fail;
pub use probe::Backend;
use ring::RingSupport;

/// The file system of the machine.
#[derive(Debug)]
pub struct RealFileSystem {
    choice: probe::Choice,
    clock: Arc<SystemClock>,
}

impl RealFileSystem {
    /// Chooses a backend and proves that it works.
    ///
    /// With `None` the environment variable `RUSTLITE_IO` (`uring` or `threads`) decides; where it
    /// is not set, io_uring is probed and plain system calls take its place if the kernel refuses,
    /// which is told once in the log and by [`description`](FileSystem::description).
    ///
    /// # Errors If io_uring is asked for and the kernel refuses it, or `RUSTLITE_IO` holds anything
    /// else.
    pub fn new(choice: Option<Backend>) -> Result<Arc<Self>> {
        let wish = std::env::var_os("RUSTLITE_IO");
        let choice = probe::choose(choice, wish.as_deref(), ring::probe)?;
        Ok(Arc::new(Self { choice, clock: Arc::new(SystemClock) }))
    }

    /// The backend in use.
    #[must_use]
    pub fn backend(&self) -> Backend {
        if self.ring().is_some() { Backend::Uring } else { Backend::Threads }
    }

    fn ring(&self) -> Option<RingSupport> {
        self.choice.ring
    }
}

impl FileSystem for RealFileSystem {
    fn description(&self) -> String {
        self.choice.description.clone()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(8) => u64::from_le_bytes(bytes),
            // A sandbox without the system call: the standard library has found its own source of
            // keys by now.
            _ => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u64),
        }
    }

    fn lower_priority(&self, steps: i32) {
        // Of the calling thread alone, on Linux. Refused in some sandboxes, and then things are as they were.
        let _ = rustix::process::nice(steps);
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| IoError::new("create directory", path, &error))
    }

    fn list(&self, path: &Path) -> Result<Vec<DirEntry>> {
        list(path).map_err(|error| IoError::new("list", path, &error))
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(fail("examine", path, errno)),
        }
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))
            .map_err(|errno| fail("open directory", path, errno))?;
        rustix::io::retry_on_intr(|| rustix::fs::fsync(&dir))
            .map_err(|errno| fail("sync directory", path, errno))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile::create(path)?))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile::open(path, mode)?))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        rustix::fs::unlink(path).map_err(|errno| fail("remove", path, errno))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR)
            .map_err(|errno| fail("remove directory", path, errno))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        rustix::fs::rename(from, to).map_err(|errno| fail("rename", from, errno))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        rustix::fs::link(from, to).map_err(|errno| fail("link", to, errno))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        Ok(Box::new(lock::acquire(path)?))
    }

    fn map(&self, path: &Path) -> Result<Mapping> {
        map::map_file(path)
    }

    fn create_sink(&self, path: &Path) -> Result<Box<dyn FileSink>> {
        Ok(Box::new(sink::Sink::create(path, self.ring())?))
    }

    fn open_stream(&self, path: &Path) -> Result<Box<dyn FileStream>> {
        Ok(Box::new(stream::Stream::open(path, self.ring())?))
    }

    fn log_device(&self, options: LogDeviceOptions) -> Result<Arc<dyn LogDevice>> {
        Ok(Arc::new(log::Device::new(options, self.ring())?))
    }
}

fn list(path: &Path) -> std::io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed since the directory was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let (is_dir, is_file) = (metadata.is_dir(), metadata.is_file());
        let len = if is_dir { 0 } else { metadata.len() };
        entries.push(DirEntry { name, len, is_dir, is_file });
    }
    Ok(entries)
}

/// True if the mode bits of `stat` name a regular file.
fn is_regular(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

#[cfg(test)]
mod tests;
