//! The lock-free parts of the memtable; the rest of it needs no model.

#[path = "../../engine/src/memtable/arena.rs"]
pub(crate) mod arena;
#[path = "../../engine/src/memtable/fences.rs"]
pub(crate) mod fences;
#[path = "../../engine/src/memtable/link.rs"]
pub(crate) mod link;
#[path = "../../engine/src/memtable/pages.rs"]
pub(crate) mod pages;
#[path = "../../engine/src/memtable/skiplist.rs"]
pub(crate) mod skiplist;
#[path = "../../engine/src/memtable/stock.rs"]
pub(crate) mod stock;
