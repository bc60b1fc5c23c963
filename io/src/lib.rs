//! Everything of RustLite that touches the kernel.
//!
//! The engine sees storage only through the traits of [`file_system`](FileSystem): it never calls `std::fs` or reads a clock. Two
//! worlds implement them. [`RealFileSystem`] uses io_uring where the kernel allows it and plain system calls where not;
//! [`SimFileSystem`] keeps files in memory and can cut the power, fail any operation and flip bits, all from one seed.
//!
//! The crate knows files, buffers, rings and clocks; it does not know keys.

#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "owns aligned memory")]
mod buffer;
mod clock;
mod error;
mod file_system;
mod mapping;
#[allow(unsafe_code, reason = "asks for the number of the processor")]
pub mod processor;
mod real;
mod sim;

pub use buffer::{AlignedBuffer, BUFFER_ALIGN};
pub use clock::{Clock, SystemClock};
pub use error::{IoError, Result};
pub use file_system::{
    DirEntry, File, FileLock, FileSink, FileStream, FileSystem, LogDevice, LogDeviceOptions,
    LogLane, LogSegment, LogSync, OpenMode,
};
pub use mapping::{Advice, Mapping, Pager};
pub use real::{Backend, RealFileSystem};
pub use sim::{CrashPlan, FaultRule, PageRequest, SimClock, SimFileSystem};
