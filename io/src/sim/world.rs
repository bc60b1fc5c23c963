//! What all handles of one simulated file system share, and the gate that every operation passes.
//!
//! The gate counts operations, cuts the power at the chosen one, and asks the fault rules. An
//! operation that changes anything holds the state's lock from the gate to its end: a crash image
//! therefore contains each operation that returned before the crash, and none that returned an
//! error after it. Lock order: state, then one file.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clock::SimClock;
use super::fault::{Failure, FaultRule};
use super::file_node::{FileNode, Frame};
use super::image::FILE_LEN_MAX;
use super::names::Names;
use super::op::Op;
use super::paging::PageRequest;
use super::random::Random;
use crate::clock::{Clock, SystemClock};

/// What outlives a crash besides the disk's content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    pub(super) seed: u64,
    /// False for a volatile file system, which keeps no durable images and cannot crash.
    pub(super) tracked: bool,
    pub(super) log_block_size: usize,
    pub(super) capacity: Option<u64>,
}

/// The shared part of one simulated file system.
#[derive(Debug)]
pub(super) struct World {
    pub(super) tracked: bool,
    pub(super) seed: u64,
    /// `None` in a volatile file system, which lives in the real time.
    pub(super) sim_clock: Option<Arc<SimClock>>,
    // Written under the state's lock. Reads without it may be late by one operation, which is no
    // different from the operation having come a moment earlier: Relaxed is enough.
    power_off: AtomicBool,
    armed: AtomicBool,
    state: Mutex<State>,
}

/// Everything that changes, under one lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) names: Names,
    pub(super) random: Random,
    pub(super) op_count: u64,
    pub(super) cut_at: Option<u64>,
    pub(super) faults: Vec<FaultRule>,
    pub(super) capacity: Option<u64>,
    /// Ids of the files that are locked.
    pub(super) locked: std::collections::BTreeSet<u64>,
    pub(super) log_block_size: usize,
    pub(super) tracked: bool,
    /// What readers of maps asked for since pages were last taken out of memory; `None` if they
    /// never were.
    pub(super) requests: Option<Vec<PageRequest>>,
}

/// An operation past the gate: the locked state, and how the operation is to fail, if it is.
pub(super) struct Turn<'a> {
    pub(super) state: MutexGuard<'a, State>,
    pub(super) failure: Option<Failure>,
}

impl World {
    pub(super) fn new(machine: Machine, clock: Option<SimClock>, names: Names) -> Arc<Self> {
        Arc::new(Self {
            tracked: machine.tracked,
            seed: machine.seed,
            sim_clock: clock.map(Arc::new),
            power_off: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            state: Mutex::new(State {
                random: Random::new(machine.seed),
                op_count: 0,
                cut_at: None,
                faults: Vec::new(),
                capacity: machine.capacity,
                locked: std::collections::BTreeSet::new(),
                log_block_size: machine.log_block_size,
                tracked: machine.tracked,
                requests: None,
                names,
            }),
        })
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        match &self.sim_clock {
            Some(clock) => Arc::<SimClock>::clone(clock),
            None => Arc::new(SystemClock),
        }
    }

    /// The state, past no gate: for tests' controls.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A test thread that panics while it holds the lock must not hide its message behind a
        // poisoned lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing works from here on. Takes the state as proof that no operation is under way.
    pub(super) fn cut_power(&self, _state: &mut State) {
        self.power_off.store(true, Ordering::Relaxed);
    }

    /// Lets the operations that look no further than they must know whether there are rules.
    pub(super) fn arm(&self, state: &State) {
        self.armed.store(!state.faults.is_empty(), Ordering::Relaxed);
    }

    /// Passes the gate; the caller handles a failure, as some leave a partial effect.
    pub(super) fn turn(&self, op: Op, path: &Path) -> Turn<'_> {
        let mut state = self.state();
        let failure = self.judge(&mut state, op, path);
        Turn { state, failure }
    }

    /// Passes the gate; a failure has no effect.
    pub(super) fn enter(&self, op: Op, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        let turn = self.turn(op, path);
        match turn.failure {
            Some(failure) => Err(failure.error),
            None => Ok(turn.state),
        }
    }

    /// Passes the gate for an operation that needs no state: free while no rule is armed.
    pub(super) fn glance(&self, op: Op, path: &Path) -> io::Result<()> {
        if self.power_off.load(Ordering::Relaxed) {
            return Err(power_is_off());
        }
        if self.armed.load(Ordering::Relaxed) {
            drop(self.enter(op, path)?);
        }
        Ok(())
    }

    /// Asks the rules about a map that is brought into memory; maps work on after a power cut.
    pub(super) fn strike_map(&self, path: &Path) -> io::Result<()> {
        if !self.armed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let state = &mut *self.state();
        state.strike(Op::Populate, path).map_or(Ok(()), |failure| Err(failure.error))
    }

    fn judge(&self, state: &mut State, op: Op, path: &Path) -> Option<Failure> {
        let off = |partial| Failure { error: power_is_off(), partial, power: true };
        if self.power_off.load(Ordering::Relaxed) {
            return Some(off(false));
        }
        if op.changes_something() {
            let index = state.op_count;
            state.op_count += 1;
            if state.cut_at.is_some_and(|cut| index >= cut) {
                self.cut_power(state);
                return Some(off(true));
            }
        }
        state.strike(op, path)
    }
}

impl State {
    fn strike(&mut self, op: Op, path: &Path) -> Option<Failure> {
        let random = &mut self.random;
        self.faults.iter_mut().find_map(|rule| rule.strike(op, path, random))
    }

    /// A number that no file, directory or frame of this world has had.
    pub(super) fn new_id(&mut self) -> u64 {
        self.names.new_id()
    }

    fn room(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.names.used))
    }

    /// Adds a new, empty file under `path`.
    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Arc<FileNode>> {
        let place = self.names.vacant_place(path)?;
        let node = FileNode::new(self.new_id());
        self.names.add_file(place, &node);
        Ok(node)
    }

    /// Writes to the live image; what does not fit on the disk is cut off and answered with
    /// `ENOSPC`.
    pub(super) fn write(&mut self, node: &FileNode, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut file = node.lock();
        let end = offset.checked_add(data.len() as u64).filter(|&end| end <= FILE_LEN_MAX);
        let end = end.ok_or_else(|| os_error(libc::EFBIG))?;
        file.check_not_mapped(offset)?;
        let len = file.live.len();
        let growth = if data.is_empty() { 0 } else { end.saturating_sub(len) };
        let missing = growth.saturating_sub(self.room());
        let fits = data.len().saturating_sub(usize::try_from(missing).unwrap_or(usize::MAX));
        file.write(offset, &data[..fits], self.tracked);
        if file.links > 0 {
            self.names.used += file.live.len() - len;
        }
        if missing > 0 { Err(os_error(libc::ENOSPC)) } else { Ok(()) }
    }

    /// Cuts or extends the live image. Space is accounted by length, so that extending can fail for
    /// want of it.
    pub(super) fn set_len(&mut self, node: &FileNode, len: u64) -> io::Result<()> {
        if len > FILE_LEN_MAX {
            return Err(os_error(libc::EFBIG));
        }
        let mut file = node.lock();
        let old = file.live.len();
        if len < old {
            file.check_not_mapped(len)?;
        }
        if len.saturating_sub(old) > self.room() {
            return Err(os_error(libc::ENOSPC));
        }
        file.set_len(len, self.tracked);
        if file.links > 0 {
            self.names.used = (self.names.used + len).saturating_sub(old);
        }
        Ok(())
    }

    /// Gives a new log segment its zeros, durable at once.
    pub(super) fn fill_segment(&mut self, node: &FileNode, len: u64) -> io::Result<()> {
        self.set_len(node, len)?;
        node.lock().sync();
        Ok(())
    }
}

impl Turn<'_> {
    /// Writes, or fails as the gate decided, with a part of the bytes written if it decided so.
    pub(super) fn write(mut self, node: &FileNode, offset: u64, data: &[u8]) -> io::Result<()> {
        let Some(failure) = self.failure else { return self.state.write(node, offset, data) };
        if failure.partial {
            let kept = self.state.random.below(data.len() as u64 + 1) as usize;
            // The injected error is what the caller hears, whatever else was wrong.
            let _ = self.state.write(node, offset, &data[..kept]);
        }
        Err(failure.error)
    }

    /// Makes a file's content durable, or fails; after an injected error what was pending is
    /// written off.
    pub(super) fn sync(self, node: &FileNode) -> io::Result<()> {
        match self.failure {
            None => node.lock().sync(),
            Some(failure) => {
                if !failure.power {
                    node.lock().write_off();
                }
                return Err(failure.error);
            }
        }
        Ok(())
    }

    /// Completes a frame, or fails: torn if the rule says so, still in flight if the power went.
    pub(super) fn complete(
        mut self,
        node: &FileNode,
        frame_id: u64,
        frame: Frame<'_>,
    ) -> io::Result<()> {
        let mut file = node.lock();
        let Some(failure) = self.failure else {
            file.in_flight.remove(&frame_id);
            file.check_not_mapped(frame.offset)?;
            file.write_durably(frame.offset, frame.data, self.state.tracked);
            return Ok(());
        };
        if !failure.power {
            file.in_flight.remove(&frame_id);
            if failure.partial {
                file.write_torn(frame, &mut self.state.random);
            }
        }
        Err(failure.error)
    }
}

pub(super) fn os_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

fn power_is_off() -> io::Error {
    io::Error::other("power is off")
}
