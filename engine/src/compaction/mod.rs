//! Background work that keeps the tree in shape: flushes and compactions.
//!
//! * [`flush`] writes the oldest frozen memtable as tables of level 0.
//! * [`picker`] looks at a version and decides, without any I/O, which tables to merge into which level: a [`plan`].
//! * [`read_cost`] lets readers say what level 0 costs them, until merging it away pays.
//! * [`space`] has level 0 merged when it wastes much space and writers pause.
//! * [`job`] carries a plan out: merges its inputs, in parallel over disjoint key ranges where that pays, into new tables.
//! * [`retention`] is the rule by which flushes and compactions drop versions that no reader can see any more.
//! * [`output`] cuts the merged records into tables; each is an [`open_table`] first, and [`separate`] moves large values out of it.
//! * [`precedence`] has compactions pause beside a flush where processors are few.
//! * [`rate_limiter`] bounds what compactions write per second.
//! * [`background`] owns the threads: one for the log, one for flushes, the rest for compactions.
//!
//! Glossary: a *run* is a set of tables with disjoint key ranges; *debt* is the bytes by which levels exceed their targets; a *trivial
//! move* hands a table to the next level without rewriting it; *grandparents* are the tables that a plan's output will overlap one level
//! further down.

pub(crate) mod background;
pub(crate) mod flush;
pub(crate) mod job;
pub(crate) mod open_table;
pub(crate) mod output;
pub(crate) mod picker;
pub(crate) mod plan;
pub(crate) mod precedence;
pub(crate) mod rate_limiter;
pub(crate) mod read_cost;
pub(crate) mod retention;
pub(crate) mod separate;
mod space;
pub(crate) mod targets;
