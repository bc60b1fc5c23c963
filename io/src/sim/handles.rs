//! What the simulator hands out: open files, locks, sinks and streams.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file_node::FileNode;
use super::op::Op;
use super::world::{World, os_error};
use crate::error::{IoError, Result};
use crate::file_system::{File, FileLock, FileSink, FileStream};

/// An open file: its world, its content, and the path for errors.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub(super) world: Arc<World>,
    pub(super) node: Arc<FileNode>,
    pub(super) path: PathBuf,
}

impl Handle {
    fn error(&self, op: Op, source: &io::Error) -> IoError {
        IoError::new(op.verb(), &self.path, source)
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.world
            .glance(Op::Read, &self.path)
            .map_err(|error| self.error(Op::Read, &error).at(offset, buf.len()))?;
        Ok(self.node.lock().live.read(offset, buf))
    }

    pub(super) fn write(&self, op: Op, offset: u64, data: &[u8]) -> Result<()> {
        self.world
            .turn(op, &self.path)
            .write(&self.node, offset, data)
            .map_err(|error| self.error(op, &error).at(offset, data.len()))
    }

    pub(super) fn sync(&self) -> Result<()> {
        let result = self.world.turn(Op::Sync, &self.path).sync(&self.node);
        result.map_err(|error| self.error(Op::Sync, &error))
    }
}

/// [`File`] of the simulator.
#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) handle: Handle,
    pub(super) writable: bool,
}

impl SimFile {
    fn check_writable(&self) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(self.handle.error(Op::Write, &os_error(libc::EBADF)))
    }
}

impl File for SimFile {
    fn path(&self) -> &Path {
        &self.handle.path
    }

    fn len(&self) -> Result<u64> {
        let glance = self.handle.world.glance(Op::Open, &self.handle.path);
        glance.map_err(|error| self.handle.error(Op::Open, &error))?;
        Ok(self.handle.node.lock().live.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.handle.read(offset, buf)
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.check_writable()?;
        self.handle.write(Op::Write, offset, data)
    }

    fn sync_data(&self) -> Result<()> {
        self.handle.sync()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.check_writable()?;
        let handle = &self.handle;
        let result = handle
            .world
            .enter(Op::Write, &handle.path)
            .and_then(|mut state| state.set_len(&handle.node, len));
        result.map_err(|error| handle.error(Op::Write, &error).at(len, 0))
    }
}

/// [`FileLock`] of the simulator.
#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) handle: Handle,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.handle.world.state().locked.remove(&self.handle.node.id);
    }
}

/// [`FileSink`] of the simulator.
#[derive(Debug)]
pub(super) struct SimSink {
    pub(super) handle: Handle,
    pub(super) position: u64,
}

impl FileSink for SimSink {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        self.handle.write(Op::Write, self.position, data)?;
        self.position += data.len() as u64;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn finish(&mut self) -> Result<()> {
        self.handle.sync()
    }
}

/// [`FileStream`] of the simulator.
#[derive(Debug)]
pub(super) struct SimStream {
    handle: Handle,
    len: u64,
    /// The content, if the file is in one piece already (because it was mapped).
    whole: Option<Arc<[u8]>>,
    buffer: Vec<u8>,
    last_start: u64,
}

impl SimStream {
    pub(super) fn new(handle: Handle) -> Self {
        let (len, whole) = {
            let file = handle.node.lock();
            (file.live.len(), file.live.whole())
        };
        Self { handle, len, whole, buffer: Vec::new(), last_start: 0 }
    }

    fn check(&self, range: &Range<u64>) -> io::Result<()> {
        if range.start > range.end || range.start < self.last_start {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a stream only goes forwards"));
        }
        if range.end > self.len {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        self.handle.world.glance(Op::Read, &self.handle.path)
    }
}

impl FileStream for SimStream {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self, range: Range<u64>) -> Result<&[u8]> {
        let count = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let failed = |error: &io::Error| {
            IoError::new("read", &self.handle.path, error).at(range.start, count)
        };
        self.check(&range).map_err(|error| failed(&error))?;
        self.last_start = range.start;
        if let Some(bytes) = &self.whole {
            return Ok(&bytes[range.start as usize..range.end as usize]);
        }
        self.buffer.resize(count, 0);
        let got = self.handle.node.lock().live.read(range.start, &mut self.buffer);
        if got < count {
            let cut_meanwhile = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(failed(&cut_meanwhile));
        }
        Ok(&self.buffer)
    }
}
