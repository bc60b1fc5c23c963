//! What tests do to a simulated file system from outside: faults, power, capacity, damaged bytes.
//!
//! Nothing here passes the gate: it counts as no operation, meets no fault, and works after a power
//! cut.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::clock::SimClock;
use super::fault::FaultRule;
use super::file_node::FileData;
use super::image::{FILE_LEN_MAX, Image};
use super::op::Op;
use super::world::State;
use super::{SimFileSystem, failed};
use crate::error::Result;

impl SimFileSystem {
    /// The clock, for moving it; `None` in a volatile file system, whose time is real.
    #[must_use]
    pub fn sim_clock(&self) -> Option<Arc<SimClock>> {
        self.world.sim_clock.clone()
    }

    /// The number of operations so far that change something: each is a point where the power can
    /// go.
    #[must_use]
    pub fn op_count(&self) -> u64 {
        self.world.state().op_count
    }

    /// Cuts the power at the operation with this index (counted from 0 as
    /// [`op_count`](Self::op_count) does): it and all later ones fail with "power is off". A write
    /// cut so may leave a part of its bytes.
    pub fn cut_power_at(&self, op_index: u64) {
        self.world.state().cut_at = Some(op_index);
    }

    /// Adds a rule; those added first are asked first.
    pub fn add_fault(&self, rule: FaultRule) {
        let mut state = self.world.state();
        state.faults.push(rule);
        self.world.arm(&state);
    }

    /// Removes all rules.
    pub fn clear_faults(&self) {
        let mut state = self.world.state();
        state.faults.clear();
        self.world.arm(&state);
    }

    /// The most bytes that all named files may hold together; writes beyond fail with `ENOSPC`.
    pub fn set_disk_capacity(&self, bytes: Option<u64>) {
        self.world.state().capacity = bytes;
    }

    /// The block size of log devices opened from now on: a power of two from 512 to 65536.
    ///
    /// # Panics
    /// If it is not one.
    pub fn set_log_block_size(&self, bytes: usize) {
        let allowed = bytes.is_power_of_two() && (512..=65_536).contains(&bytes);
        assert!(allowed, "a log block is a power of two from 512 to 65536 bytes, not {bytes}");
        self.world.state().log_block_size = bytes;
    }

    /// Flips one bit (0 to 7) of a byte, on the medium and in what reads see. Maps taken before
    /// keep the old content.
    ///
    /// # Errors
    /// If there is no such file or byte.
    pub fn flip_bit(&self, path: impl AsRef<Path>, offset: u64, bit: u8) -> Result<()> {
        self.damage(path.as_ref(), |file| {
            if offset >= file.live.len() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            for image in [&mut file.live, &mut file.durable] {
                let mut byte = [0];
                if image.read(offset, &mut byte) == 1 {
                    image.write(offset, &[byte[0] ^ (1 << (bit % 8))]);
                }
            }
            Ok(())
        })
    }

    /// Cuts or extends a file and makes all that is left durable. Maps taken before keep the old
    /// content.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn truncate_file(&self, path: impl AsRef<Path>, len: u64) -> Result<()> {
        self.damage(path.as_ref(), |file| {
            if len > FILE_LEN_MAX {
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
            let mut image = file.live.clone();
            image.set_len(len);
            file.replace(image, self.world.tracked);
            Ok(())
        })
    }

    /// The content of a file as reads see it.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let node = self.world.state().names.file(path).map_err(failed(Op::Read, path))?;
        Ok(node.lock().live.to_vec())
    }

    /// Puts a file there, or replaces its content: everything about it durable.
    ///
    /// # Errors
    /// If its directory does not exist or the path is not a file's.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        let (path, bytes) = (path.as_ref(), bytes.as_ref());
        let mut state = self.world.state();
        let place = |state: &mut State| match state.names.file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => state.create_file(path),
            found => found,
        };
        place(&mut state)
            .and_then(|_| state.names.settle(path))
            .map_err(failed(Op::Write, path))?;
        drop(state);
        self.damage(path, |file| {
            let mut image = Image::new();
            image.write(0, bytes);
            file.replace(image, self.world.tracked);
            Ok(())
        })
    }

    /// Puts a symbolic link there, which every operation must refuse to follow.
    ///
    /// # Errors
    /// If the path is taken or its directory does not exist.
    pub fn plant_symlink(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.world.state().names.add_symlink(path).map_err(failed(Op::Create, path))
    }

    fn damage(
        &self,
        path: &Path,
        change: impl FnOnce(&mut FileData) -> io::Result<()>,
    ) -> Result<()> {
        let mut state = self.world.state();
        let damage = |state: &mut State| {
            let node = state.names.file(path)?;
            let mut file = node.lock();
            let old = file.live.len();
            change(&mut file)?;
            let new = file.live.len();
            state.names.used = (state.names.used + new).saturating_sub(old);
            Ok(())
        };
        damage(&mut state).map_err(failed(Op::Write, path))
    }
}
