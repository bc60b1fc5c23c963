//! Integration tests of `rustlite-io`: what every file system promises, and what the simulator
//! adds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod contract;
mod contract_log;
mod contract_streams;
mod crash_image;
mod faults;
mod power_cut;
mod support;
