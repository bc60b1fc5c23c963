//! The simulated log device: frames become durable when they are waited for, stores when they are
//! synced.
//!
//! A submitted frame is in flight until its lane waits; a power cut meanwhile leaves any subset of
//! its sectors. Frames of different lanes complete in the order in which the lanes wait.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file_node::{FileNode, Frame};
use super::handles::Handle;
use super::op::Op;
use super::world::World;
use crate::buffer::AlignedBuffer;
use crate::error::{IoError, Result};
use crate::file_system::{LogDevice, LogLane, LogSegment};

/// [`LogDevice`] of the simulator.
#[derive(Debug)]
pub(super) struct SimLogDevice {
    world: Arc<World>,
    lanes: usize,
    block_size: usize,
}

impl SimLogDevice {
    pub(super) fn new(world: Arc<World>, lanes: usize, block_size: usize) -> Self {
        Self { world, lanes, block_size }
    }

    fn segment(&self, node: Arc<FileNode>, path: &Path, len: u64) -> Arc<dyn LogSegment> {
        let handle = Handle { world: Arc::clone(&self.world), node, path: path.to_path_buf() };
        Arc::new(SimSegment { handle, len, block_size: self.block_size })
    }

    fn check_len(&self, len: u64) -> io::Result<()> {
        if len.is_multiple_of(self.block_size as u64) {
            return Ok(());
        }
        Err(invalid("a segment is a whole number of blocks"))
    }
}

impl LogDevice for SimLogDevice {
    fn description(&self) -> String {
        format!("simulated, {}-byte blocks, {} lanes", self.block_size, self.lanes)
    }

    fn lanes(&self) -> Result<Vec<Box<dyn LogLane>>> {
        let lane = || SimLane { world: Arc::clone(&self.world), state: LaneState::Idle };
        Ok((0..self.lanes).map(|_| Box::new(lane()) as Box<dyn LogLane>).collect())
    }

    fn create_segment(&self, path: &Path, len: u64) -> Result<Arc<dyn LogSegment>> {
        let create = || {
            self.check_len(len)?;
            let mut state = self.world.enter(Op::Create, path)?;
            let node = state.create_file(path)?;
            state.fill_segment(&node, len)?;
            Ok(node)
        };
        let node = create().map_err(|error| IoError::new("create", path, &error))?;
        Ok(self.segment(node, path, len))
    }

    fn open_segment(&self, path: &Path) -> Result<Arc<dyn LogSegment>> {
        let open = || {
            let node = self.world.enter(Op::Open, path)?.names.file(path)?;
            let len = node.lock().live.len();
            self.check_len(len)?;
            Ok((node, len))
        };
        let (node, len) = open().map_err(|error| IoError::new("open", path, &error))?;
        Ok(self.segment(node, path, len))
    }
}

/// [`LogSegment`] of the simulator.
#[derive(Debug)]
struct SimSegment {
    handle: Handle,
    len: u64,
    block_size: usize,
}

impl SimSegment {
    fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(invalid("the range lies past the end of the segment")),
        }
    }

    fn check_frame(&self, offset: u64, len: usize) -> io::Result<()> {
        let aligned = offset.is_multiple_of(self.block_size as u64);
        if !aligned || len == 0 || !len.is_multiple_of(self.block_size) {
            return Err(invalid("a frame is whole blocks"));
        }
        self.check_range(offset, len)
    }
}

impl LogSegment for SimSegment {
    fn path(&self) -> PathBuf {
        self.handle.path.clone()
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn block_size(&self) -> usize {
        self.block_size
    }

    fn store(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.check_range(offset, data.len()).map_err(|error| {
            IoError::new("write", &self.handle.path, &error).at(offset, data.len())
        })?;
        self.handle.write(Op::Store, offset, data)
    }

    fn sync(&self) -> Result<()> {
        self.handle.sync()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// [`LogLane`] of the simulator.
#[derive(Debug)]
struct SimLane {
    world: Arc<World>,
    state: LaneState,
}

#[derive(Debug)]
enum LaneState {
    Idle,
    Submitted { handle: Handle, frame_id: u64, offset: u64, frame: AlignedBuffer },
    Refused { error: IoError, frame: AlignedBuffer },
}

impl SimLane {
    fn try_submit(
        &self,
        segment: &Arc<dyn LogSegment>,
        offset: u64,
        frame: &AlignedBuffer,
    ) -> Result<(Handle, u64)> {
        let path = segment.path();
        let failed =
            |error: io::Error| IoError::new("write", &path, &error).at(offset, frame.len());
        let segment = segment.as_any().downcast_ref::<SimSegment>();
        let segment = segment.ok_or_else(|| failed(invalid("a segment of another log device")))?;
        segment.check_frame(offset, frame.len()).map_err(failed)?;
        let handle = segment.handle.clone();
        let mut state = self.world.enter(Op::Submit, &handle.path).map_err(failed)?;
        let frame_id = state.new_id();
        if self.world.tracked {
            handle.node.lock().in_flight.insert(frame_id, (offset, frame.to_vec()));
        }
        drop(state);
        Ok((handle, frame_id))
    }
}

impl LogLane for SimLane {
    fn submit(&mut self, segment: &Arc<dyn LogSegment>, offset: u64, frame: AlignedBuffer) {
        assert!(matches!(self.state, LaneState::Idle), "a lane carries one frame at a time");
        self.state = match self.try_submit(segment, offset, &frame) {
            Ok((handle, frame_id)) => LaneState::Submitted { handle, frame_id, offset, frame },
            Err(error) => LaneState::Refused { error, frame },
        };
    }

    fn wait(&mut self) -> (AlignedBuffer, Result<()>) {
        match std::mem::replace(&mut self.state, LaneState::Idle) {
            LaneState::Idle => panic!("a lane waits for a frame that was never submitted"),
            LaneState::Refused { error, frame } => (frame, Err(error)),
            LaneState::Submitted { handle, frame_id, offset, frame } => {
                let turn = self.world.turn(Op::Frame, &handle.path);
                let result =
                    turn.complete(&handle.node, frame_id, Frame { offset, data: &frame }).map_err(
                        |error| IoError::new("write", &handle.path, &error).at(offset, frame.len()),
                    );
                (frame, result)
            }
        }
    }
}

impl Drop for SimLane {
    fn drop(&mut self) {
        if !matches!(self.state, LaneState::Idle) {
            // As on a real device: the buffer must outlive the write, whose outcome nobody asks
            // for.
            drop(self.wait());
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
