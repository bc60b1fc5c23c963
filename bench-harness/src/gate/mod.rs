//! The gate against slowdowns: instruction counts compared with a checked-in baseline.
//!
//! 1. `scripts/perf-gate` runs the benchmarks of `benches/instructions` under callgrind.
//! 2. [`profile`] reads what callgrind wrote: instructions by benchmark and by function.
//! 3. [`baseline`] is what they were when somebody last said that they are right, and with which
//!    compiler, valgrind, C library and processor features: all of them change counts.
//! 4. [`compare`] says which benchmarks moved, and which functions moved them.
//!
//! Counts of another toolchain say nothing about the code. The gate says so then, with an exit code
//! of its own, rather than fail or pass; `scripts/perf-gate --against REVISION` counts both
//! revisions with the same tools, which works everywhere.

pub mod baseline;
pub mod cli;
pub mod compare;
pub mod profile;
