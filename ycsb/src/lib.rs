//! YCSB core workloads on RustLite and the engines it wants to replace, side by side.
//!
//! | workload | operations | records asked for |
//! |---|---|---|
//! | A update heavy | 50 % read, 50 % update | zipfian |
//! | B read mostly | 95 % read, 5 % update | zipfian |
//! | C read only | 100 % read | zipfian |
//! | D read latest | 95 % read, 5 % insert | latest |
//! | E short ranges | 95 % scan of 1 to 100 records, 5 % insert | zipfian |
//! | F read-modify-write | 50 % read, 50 % read-modify-write | zipfian |
//!
//! What makes a comparison fair here, in the order in which data flows:
//! - [`adapters`]: every engine in its best sensible configuration, printed with the result, at one
//!   and the same durability; an engine that doesn't have that durability is refused by name;
//! - [`workload`], [`keys`], [`distribution`], [`counter`]: the operations, the same for every engine and
//!   seed;
//! - [`driver`], [`measure`], [`timeline`]: the clock, coordinated omission included at a target rate;
//! - [`step`], [`worker`], [`process`]: a process for every step, so that CPU, memory and bytes are
//!   the engine's own; [`memory_limit`]: less memory than data;
//! - [`compare`]: engines interleaved in rotating order on equally fresh data, the median of the
//!   rounds;
//! - [`report`], [`machine`]: one table or one JSON document, with the machine's description.
//!
//! The library exists for the `ycsb` binary and its tests.
#![expect(
    clippy::disallowed_methods,
    reason = "the harness measures real time on real files; there is nothing to simulate"
)]
#![deny(unsafe_code)]

pub mod adapters;
pub mod cli;
pub mod compare;
pub mod counter;
pub mod directory;
pub mod distribution;
pub mod driver;
pub mod error;
pub mod interrupt;
pub mod keys;
pub mod machine;
pub mod measure;
pub mod memory_limit;
pub mod process;
pub mod progress;
pub mod report;
pub mod rng;
pub mod step;
pub mod store;
pub mod timeline;
pub mod worker;
pub mod workload;

pub use error::{Error, Result};
