//! The log device: preallocated segments that are overwritten in place, with several durable frames
//! in flight.
//!
//! ```text
//!   LogDevice ── makes ──> lanes (one ring each)     LogDevice ── opens ──> segments
//!                            │                                                │
//!             frame = whole blocks, durable         store = any bytes, in the page cache
//!                            │                                                │
//!                            └────> O_DIRECT + RWF_DSYNC       shared mapping <┘
//!                                   (or write + fdatasync)     (or small writes)
//! ```
//!
//! Overwriting blocks that were really written before changes no metadata, so the file system's
//! journal stays out of the commit path; direct durable writes of different lanes reach the device
//! side by side, where one flush serves many. Where a file system has no direct I/O, frames are
//! ordinary writes, and one `fdatasync` serves all lanes that wait.
//!
//! [`stores`] explains why frames and stores may share a file.

mod device;
mod flush;
mod geometry;
mod lane;
mod segment;
mod stores;

pub(super) use device::Device;

#[cfg(test)]
mod tests;
