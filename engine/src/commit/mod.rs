//! The write path: every put, delete, batch, transaction and SQL statement ends here, in [`pipeline::CommitPipeline::commit`].
//!
//! 1. **Stall** ([`stall`]): a delay that grows smoothly with compaction debt; a wait only when memory would be exceeded.
//! 2. **Enqueue** ([`enqueue`]), under the one commit lock: check a transaction's condition against what was written lately ([`recent`]), assign sequence numbers and a ticket, and place the batch in the log ([`log_writer`]).
//!    First there must be room for it in memory ([`room`]).
//!    A `Buffered` batch is *stored* (copied into the mapped segment: no system call). A `Sync` batch joins the open *frame*.
//! 3. **Lead** ([`lead`]): if a lane to the device is idle, the committer seals the open frame and submits it, once those who wrote lately have
//!    had a moment to join ([`gather`]). Up to K frames are in flight, one fewer of small ones. A small frame is written in stage 5, by a plain call.
//! 4. **Apply** the batch to the memtable while the device writes; members of a frame apply in parallel. `Buffered` puts in no order are
//!    in their places [`later`]: their searches go on during the next puts, and whoever reads finishes them first.
//! 5. **Wait** for the device (leader) or for the leader (everybody else).
//! 6. **Publish** ([`publish`]): tickets become visible strictly in order, each as soon as it is applied and as durable as it asked for.
//!    `visible = min(applied, durable)`: nobody sees what a crash can still take away.
//!
//! Two orders must hold: log order equals sequence order (both are assigned under the lock), and visibility order equals sequence
//! order (the publisher's ring).
//!
//! **Mixing levels.** Stores are durable only after `fdatasync`, frames are durable by themselves, and a frame must never be
//! acknowledged while bytes before it are not durable. So a frame is used only when nothing stored is unsynced; a `Sync` batch that
//! finds unsynced stores is stored too and synced with them; a `Buffered` batch that finds frames in flight joins the next frame.
//!
//! **Tables as a commit** ([`hold`]). An ingest brings finished tables. Writers are held back and the memtables flushed, so that
//! nothing older is in memory or in the log; then its one sequence number is used in the manifest instead of the log.
//!
//! **Failure.** A failed log write or sync poisons the pipeline: every waiter and every later write gets the first cause, nothing
//! later becomes visible, reads go on ([`refusal`]). A full disk is noticed when a segment is prepared, before anything is placed: that write fails,
//! and later ones succeed once there is space.
//!
//! **Futures.** A commit behind a [`future`] has no thread that could lead. It goes through stages 1, 2 and 4 on the caller's thread;
//! a [`driver`] thread, started with the first of them, leads their frames and syncs.
//!
//! **Ahead of need** ([`ahead`]). Memory, log pages and fences that the next commits will use are made ready by a thread, which
//! commits leave notes for.
//!
//! Lock order: commit lock, then the view lock, then leaf locks (segment pool, pending puts). The publisher has no lock.

pub(crate) mod ahead;
mod apply;
pub(crate) mod driver;
mod enqueue;
pub(crate) mod future;
pub(crate) mod gather;
mod hold;
pub(crate) mod later;
mod lead;
pub(crate) mod log_writer;
pub(crate) mod pipeline;
pub(crate) mod publish;
pub(crate) mod recent;
mod refusal;
mod room;
pub(crate) mod stall;
