//! A lane: one frame on its way to the device.
//!
//! With io_uring and direct I/O, `submit` starts the write and returns; the device works while the
//! committer does. Each lane has a ring of its own, so lanes need no lock between them. A lane may
//! move between threads, therefore its ring makes no assumption about who uses it. Without
//! io_uring, `wait` does the write on the calling thread.
//!
//! In flush mode `submit` puts the frame in the page cache and `wait` joins the next common flush.
//! The flush is never linked to the write: it begins only after the write has been done in full.
//!
//! A write that ended short, or that the kernel put off, is repeated as a whole on the calling
//! thread: the same bytes to the same blocks. A write that *failed* is never repeated.

use std::fmt::{self, Debug};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use rustix::io::Errno;

use super::super::ring::{self, Ring};
use super::segment::Segment;
use crate::buffer::AlignedBuffer;
use crate::error::{IoError, Result};
use crate::file_system::{LogLane, LogSegment};

/// Carries one frame at a time.
pub(super) struct Lane {
    ring: Option<Ring>,
    job: Option<Job>,
}

struct Job {
    segment: Arc<dyn LogSegment>,
    frame: Range<u64>,
    state: State,
}

/// Whether the committer has something to do while the device writes. If not, one plain system call
/// is cheaper than a ring: the kernel completes a ring's durable write on a thread of its own
/// first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Overlapped,
    OnThisThread,
}

enum State {
    /// The ring has the buffer.
    InRing,
    /// To be written by `wait`.
    Held(AlignedBuffer),
    /// In the page cache, or not; the flush is still to come.
    Cached(AlignedBuffer, std::result::Result<(), Errno>),
    /// Refused: the frame does not fit the segment.
    Refused(AlignedBuffer, io::Error),
}

impl Lane {
    pub(super) fn new(ring: Option<Ring>) -> Self {
        Self { ring, job: None }
    }

    fn start(
        &mut self,
        segment: &dyn LogSegment,
        offset: u64,
        buffer: AlignedBuffer,
        mode: Mode,
    ) -> State {
        let Some(segment) = segment.as_any().downcast_ref::<Segment>() else {
            let why = "the segment belongs to another kind of file system";
            return State::Refused(buffer, io::Error::new(io::ErrorKind::InvalidInput, why));
        };
        if let Err(error) = segment.check_frame(offset, buffer.len()) {
            return State::Refused(buffer, error);
        }
        let Some(direct) = segment.direct() else {
            let written = segment.write_buffered(offset, &buffer);
            return State::Cached(buffer, written);
        };
        segment.frame_begins(offset..offset + buffer.len() as u64);
        match &mut self.ring {
            Some(ring) if mode == Mode::Overlapped => {
                ring.write(direct, offset, buffer, true, offset);
                State::InRing
            }
            _ => State::Held(buffer),
        }
    }

    fn begin(
        &mut self,
        segment: &Arc<dyn LogSegment>,
        offset: u64,
        frame: AlignedBuffer,
        mode: Mode,
    ) {
        assert!(self.job.is_none(), "a lane carries one frame at a time");
        let range = offset..offset.saturating_add(frame.len() as u64);
        let state = self.start(&**segment, offset, frame, mode);
        self.job = Some(Job { segment: Arc::clone(segment), frame: range, state });
    }

    fn complete(&mut self, job: Job) -> (AlignedBuffer, Result<()>) {
        let Job { segment: shared, frame, state } = job;
        let (buffer, result) = match (state, shared.as_any().downcast_ref::<Segment>()) {
            (State::Refused(buffer, error), _) => (buffer, Err(error)),
            (State::Cached(buffer, written), Some(segment)) => {
                let flushed = written.and_then(|()| segment.flush());
                (buffer, flushed.map_err(io::Error::from))
            }
            (State::Held(buffer), Some(segment)) => {
                let written = segment.write_direct(frame.start, &buffer);
                segment.frame_ends(&frame);
                (buffer, written.map_err(io::Error::from))
            }
            (State::InRing, Some(segment)) => {
                let done = self.complete_in_ring(segment, frame.start);
                segment.frame_ends(&frame);
                done
            }
            (_, None) => unreachable!("only frames for our own segments are accepted"),
        };
        let result = result.map_err(|error| {
            IoError::new("write log frame to", &shared.path(), &error).at(frame.start, buffer.len())
        });
        (buffer, result)
    }

    fn complete_in_ring(
        &mut self,
        segment: &Segment,
        offset: u64,
    ) -> (AlignedBuffer, io::Result<()>) {
        let ring = self.ring.as_mut().expect("the frame is in it");
        let done = ring.wait();
        let result = match done.result {
            Ok(count) if count == done.buffer.len() => Ok(()),
            Err(error) if !ring::is_transient(&error) => Err(error),
            _ => segment.write_direct(offset, &done.buffer).map_err(io::Error::from),
        };
        (done.buffer, result)
    }
}

impl LogLane for Lane {
    fn submit(&mut self, segment: &Arc<dyn LogSegment>, offset: u64, frame: AlignedBuffer) {
        self.begin(segment, offset, frame, Mode::Overlapped);
    }

    fn write(
        &mut self,
        segment: &Arc<dyn LogSegment>,
        offset: u64,
        frame: AlignedBuffer,
    ) -> (AlignedBuffer, Result<()>) {
        self.begin(segment, offset, frame, Mode::OnThisThread);
        self.wait()
    }

    fn wait(&mut self) -> (AlignedBuffer, Result<()>) {
        let job = self.job.take().expect("waiting needs a frame");
        self.complete(job)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            drop(self.complete(job));
        }
    }
}

impl Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("ring", &self.ring)
            .field("frame", &self.job.as_ref().map(|job| &job.frame))
            .finish()
    }
}
