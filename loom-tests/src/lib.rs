//! Models of the lock-free structures: loom runs each through all interleavings and all values that
//! the memory model lets an atomic load return.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p rustlite-loom-tests
//! ```
//!
//! The modules under test are the engine's own source files, compiled here against loom's atomics
//! (see the engine's `sync` module). That needs no door into the engine and keeps the rest of it
//! out of the models. Without `--cfg loom` this crate is empty.

#![cfg(loom)]
#![allow(dead_code, unreachable_pub, reason = "a model uses a part of each included file")]

#[path = "../../engine/src/key.rs"]
mod key;
mod later;
#[path = "../../engine/src/limits.rs"]
mod limits;
mod memtable;
mod publish;
#[path = "../../engine/src/read/snapshot_slots.rs"]
mod snapshot_slots;
#[path = "../../engine/src/sync/mod.rs"]
mod sync;
/// Positions in the log are numbers to the publisher.
mod wal {
    pub(crate) type Lsn = u64;
}

#[cfg(test)]
mod arena_reserve;
#[cfg(test)]
mod skiplist_insert;
#[cfg(test)]
mod skiplist_read;
#[cfg(test)]
#[path = "snapshot_slots.rs"]
mod snapshot_slots_models;

/// Runs `body` through all interleavings with at most so many preemptions, or all there are.
#[cfg(test)]
fn model(preemptions: Option<usize>, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(body);
}
