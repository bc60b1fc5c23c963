//! Integration tests of the engine: what survives crashes, faults, damage and concurrency.
//!
//! Every module states promises that users rely on and tries to break them on the simulator of `rustlite-io`. Random tests print
//! the seed that replays them; set `RUSTLITE_TEST_SEED` to it. `RUSTLITE_CRASH_STATES` scales how many crash states are visited.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod backup;
mod checkpoint;
mod compaction_filter;
mod concurrency;
mod corruption;
mod crash_points;
mod crash_threads;
mod descriptors;
mod expiry;
mod faults;
mod full_disk;
mod hermitage;
mod history;
mod index_build;
mod index_model;
mod index_support;
mod indexes;
mod ingest;
mod large_values;
mod log_shapes;
mod merge;
mod model;
mod model_check;
mod named_snapshots;
mod oracle;
mod paging;
mod space;
mod support;
mod tombstones;
mod transaction_black_box;
mod transaction_histories;
mod transaction_kinds;
mod transaction_model;
mod transactions;
mod unread_puts;
mod workload;
mod write_async;
