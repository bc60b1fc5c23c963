//! Instructions of the engine's work, counted by callgrind: the same on every run and on a busy
//! machine, so that a change of two percent is a change of the code.
//!
//! ```text
//! scripts/perf-gate             compares with the baseline
//! cargo bench -p rustlite-bench --bench instructions      prints the counts alone
//! ```
//!
//! What makes them repeat: one thread does the measured work; databases live in the simulator, with
//! fixed seeds and a clock that stands still; flushes and compactions are over before the
//! measurement begins; callgrind counts only inside the measured function, on the thread that
//! calls it; and allocations cost the same whatever happened before ([`allocator`]).
#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "an allocator hands out raw memory")]
mod allocator;
mod database;
mod parts;
mod recovery;
mod simulated;

use gungraun::Callgrind;
use gungraun::prelude::*;

use database::{reads, writes};
use parts::pieces;
use recovery::opening;

#[global_allocator]
static ALLOCATOR: allocator::Bump = allocator::Bump;

main!(
    // No cache simulation: instructions are what the gate compares, and they take half the time.
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=no", "--branch-sim=no"])),
    library_benchmark_groups = [reads, writes, pieces, opening]
);
