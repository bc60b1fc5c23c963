//! RustLite against its peers over time, and the gate against slowdowns.
//!
//! Two kinds of numbers, for two questions:
//! - *Is RustLite faster than the others?* `bench compare` measures time, on a machine that does
//!   nothing else. [`experiment`] names what is measured, [`session`] measures it with the worker
//!   processes, drivers and engine adapters of `ycsb`, [`statistics`] says how sure the numbers
//!   are, [`target`] what they should be, [`report`] prints them and [`plot`] draws them.
//!   [`build_time`] is what a user waits for a build.
//! - *Did a change make RustLite slower?* The [`gate`] counts instructions, which are the same on
//!   two runs and on a busy machine.
//!
//! The library exists for the `bench` and `perf-gate` binaries and their tests.
#![expect(
    clippy::disallowed_methods,
    reason = "the harness measures real time on real files; there is nothing to simulate"
)]
#![forbid(unsafe_code)]

pub mod build_time;
pub mod cli;
pub mod experiment;
pub mod gate;
pub mod pauses;
pub mod plot;
pub mod report;
pub mod session;
pub mod statistics;
pub mod target;
