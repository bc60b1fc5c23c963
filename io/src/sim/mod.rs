//! A file system in memory that one seed determines: it can cut the power, fail any operation and
//! flip bits.
//!
//! What it promises and what it takes away follows the rules that a real machine follows:
//!
//! * Written bytes are visible at once and durable after a sync of the file. Until then a power cut
//!   keeps, for each 512-byte sector, the outcome of any prefix of the writes to it, and any of the
//!   lengths that the file has had.
//! * A created, renamed, linked or removed name is durable after a sync of its directory. Until
//!   then a power cut keeps any of these operations, each whole. A synced file without a durable
//!   name is gone.
//! * A log frame is durable when its lane has waited for it; in flight, any of its sectors may have
//!   arrived.
//! * After a sync that failed, what it should have written is never made durable by another sync.
//! * A killed process loses nothing that it had written; frames in flight may have arrived or not.
//!   Its locks are released.
//!
//! It is stricter than a real system where a contract would be broken silently: overwriting a
//! mapped file and streams that go backwards are errors. [`SimFileSystem::volatile`] is the same
//! without the bookkeeping of durability, for databases that live in memory only.

mod clock;
mod control;
mod crash;
mod fault;
mod file_node;
mod handles;
mod image;
mod log;
mod names;
mod op;
mod paging;
mod random;
mod torn;
mod world;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use clock::SimClock;
pub use crash::CrashPlan;
pub use fault::FaultRule;
pub use paging::PageRequest;

use crate::clock::Clock;
use crate::error::{IoError, Result};
use crate::file_system::{
    DirEntry, File, FileLock, FileSink, FileStream, FileSystem, LogDevice, LogDeviceOptions,
    OpenMode,
};
use crate::mapping::{Mapping, Pager};
use handles::{Handle, SimFile, SimLock, SimSink, SimStream};
use names::{Entry, Names};
use op::Op;
use paging::SimPager;
use world::{Machine, World, os_error};

/// The block size of the log device, unless [`SimFileSystem::set_log_block_size`] says otherwise.
const LOG_BLOCK_SIZE: usize = 4096;

/// A [`FileSystem`] in memory. See the module text for what it simulates.
#[derive(Debug)]
pub struct SimFileSystem {
    world: Arc<World>,
}

impl SimFileSystem {
    /// An empty file system whose every choice follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        Self::boot(true, seed, Some(SimClock::new()))
    }

    /// An empty file system that keeps one copy of its data and nothing else: for databases in
    /// memory. Its time and its random numbers are real. Power cuts and faults can be asked of it,
    /// but nothing in it is ever durable.
    #[must_use]
    pub fn volatile() -> Arc<Self> {
        // The standard library's hash keys are the process's own randomness.
        Self::boot(false, RandomState::new().hash_one(0_u64), None)
    }

    fn boot(tracked: bool, seed: u64, clock: Option<SimClock>) -> Arc<Self> {
        let machine = Machine { seed, tracked, log_block_size: LOG_BLOCK_SIZE, capacity: None };
        Self::with_world(World::new(machine, clock, Names::new(tracked)))
    }

    fn with_world(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { world })
    }

    fn handle(&self, node: Arc<file_node::FileNode>, path: &Path) -> Handle {
        Handle { world: Arc::clone(&self.world), node, path: path.to_path_buf() }
    }

    fn create_handle(&self, path: &Path) -> Result<Handle> {
        let created =
            self.world.enter(Op::Create, path).and_then(|mut state| state.create_file(path));
        Ok(self.handle(created.map_err(failed(Op::Create, path))?, path))
    }

    fn open_handle(&self, op: Op, path: &Path) -> Result<Handle> {
        let found = self.world.enter(op, path).and_then(|state| state.names.file(path));
        Ok(self.handle(found.map_err(failed(op, path))?, path))
    }
}

/// Makes the error of an operation on a path.
fn failed(op: Op, path: &Path) -> impl Fn(io::Error) -> IoError {
    move |error| IoError::new(op.verb(), path, &error)
}

impl FileSystem for SimFileSystem {
    fn description(&self) -> String {
        match self.world.tracked {
            true => format!("simulated, seed {}", self.world.seed),
            false => "in memory".to_owned(),
        }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.world.clock()
    }

    fn random_u64(&self) -> u64 {
        self.world.state().random.next()
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let create = || self.world.enter(Op::Create, path)?.names.create_dirs(path);
        create().map_err(failed(Op::Create, path))
    }

    fn list(&self, path: &Path) -> Result<Vec<DirEntry>> {
        let state = self.world.enter(Op::List, path).map_err(failed(Op::List, path))?;
        let entries = state.names.list(path).map_err(failed(Op::List, path))?;
        let describe = |(name, entry): (&String, &Entry)| DirEntry {
            name: name.clone(),
            len: match entry {
                Entry::File(node) => node.lock().live.len(),
                Entry::Dir(_) | Entry::Symlink => 0,
            },
            is_dir: matches!(entry, Entry::Dir(_)),
            is_file: matches!(entry, Entry::File(_)),
        };
        Ok(entries.iter().map(describe).collect())
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let found = self.world.enter(Op::Open, path).and_then(|state| state.names.find(path));
        match found {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(Op::Open, path)(error)),
        }
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let sync = || {
            let mut state = self.world.enter(Op::SyncDir, path)?;
            let dir = state.names.dir(path)?;
            state.names.sync_dir(dir);
            Ok(())
        };
        sync().map_err(failed(Op::SyncDir, path))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        Ok(Arc::new(SimFile { handle: self.create_handle(path)?, writable: true }))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        let handle = self.open_handle(Op::Open, path)?;
        Ok(Arc::new(SimFile { handle, writable: mode == OpenMode::ReadWrite }))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let remove = || self.world.enter(Op::Remove, path)?.names.remove(path);
        remove().map_err(failed(Op::Remove, path))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        let remove = || self.world.enter(Op::Remove, path)?.names.remove_dir(path);
        remove().map_err(failed(Op::Remove, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let rename = || self.world.enter(Op::Rename, from)?.names.rename(from, to);
        rename().map_err(failed(Op::Rename, from))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        let link = || self.world.enter(Op::Link, from)?.names.hard_link(from, to);
        link().map_err(failed(Op::Link, from))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        let lock = || {
            let mut state = self.world.enter(Op::Lock, path)?;
            let node = match state.names.file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => state.create_file(path)?,
                found => found?,
            };
            match state.locked.insert(node.id) {
                true => Ok(node),
                false => Err(os_error(libc::EWOULDBLOCK)),
            }
        };
        let node = lock().map_err(failed(Op::Lock, path))?;
        Ok(Box::new(SimLock { handle: self.handle(node, path) }))
    }

    fn map(&self, path: &Path) -> Result<Mapping> {
        let handle = self.open_handle(Op::Map, path)?;
        let (bytes, token) = handle.node.lock().map();
        let pager = SimPager { handle, _still_mapped: token };
        let pager = self.world.tracked.then(|| Box::new(pager) as Box<dyn Pager>);
        Ok(Mapping::heap(path.to_path_buf(), bytes, pager))
    }

    fn create_sink(&self, path: &Path) -> Result<Box<dyn FileSink>> {
        Ok(Box::new(SimSink { handle: self.create_handle(path)?, position: 0 }))
    }

    fn open_stream(&self, path: &Path) -> Result<Box<dyn FileStream>> {
        Ok(Box::new(SimStream::new(self.open_handle(Op::Open, path)?)))
    }

    fn log_device(&self, options: LogDeviceOptions) -> Result<Arc<dyn LogDevice>> {
        if !(1..=64).contains(&options.lanes) {
            let refused = io::Error::new(io::ErrorKind::InvalidInput, "lanes must be 1 to 64");
            return Err(IoError::new("open", &PathBuf::from("log device"), &refused));
        }
        let block_size = self.world.state().log_block_size;
        Ok(Arc::new(log::SimLogDevice::new(Arc::clone(&self.world), options.lanes, block_size)))
    }
}
