//! Secondary indexes: entries that are in the same commit as their rows, or not at all.
//!
//! An index is a hidden keyspace of the tree, which the manifest knows together with what it is an index of ([`definition`]). For each
//! row, code or a declared byte range gives any number of index keys ([`extract`]), and for each of them the hidden keyspace has an entry
//! that leads to the row ([`entry`]).
//!
//! ```text
//! keyspace "users"                      index "by city" (B-Tree), extractor = city
//!   7 -> Ada, London                      1 | London 0 1 | 7 ->
//!   8 -> Alan, London                     1 | London 0 1 | 8 ->
//!   9 -> Kurt, Brno                       1 | Brno 0 1 | 9 ->
//!
//! put 8 -> Alan, Manchester             the batch:  put    users 8 -> Alan, Manchester
//!                                                   delete index 1 | London 0 1 | 8
//!                                                   put    index 1 | Manchester 0 1 | 8
//! ```
//!
//! **Writing** ([`maintain`]). Which entries go is known only from the row as it was. So rows of indexed keyspaces are written by
//! transactions, which read the old row, add the changes of entries to their own writes, and are validated in the commit pipeline: if
//! anybody has written the row meanwhile, they do not commit. A plain put, delete or batch on such a keyspace ([`write`]) gets its entries
//! the same way, but without the transaction around it ([`complete`]); if it loses against others, or is not simple, it is run as a small
//! transaction, again and again until it succeeds. A batch that concerns no index never sees any of this; what tells is one integer
//! ([`registry`]).
//!
//! **Building** ([`build`]). From the moment when an index exists, writers keep its entries. The builder walks the rows that were there
//! before, some at a time, each time in a serializable transaction that also says how far it has come ([`state`]). So a crash costs nothing
//! but the transaction under way: the next open goes on. Until the last row has its entries, look-ups are refused.
//!
//! **Reading** ([`lookup`]) is reading the hidden keyspace, in a snapshot or in a transaction as anywhere else. So a transaction
//! finds its own writes, and a serializable one is protected against phantoms in an index.
//!
//! [`catalog`] creates, drops and lists indexes, [`manual`] has entries that are made by hand, [`verify`] compares indexes with rows.

pub(crate) mod build;
mod catalog;
mod complete;
pub(crate) mod definition;
mod entry;
pub(crate) mod extract;
mod filter_keys;
mod lookup;
mod maintain;
mod manual;
pub(crate) mod registry;
mod state;
mod verify;
mod write;

pub use catalog::IndexInfo;
pub use definition::{ByteRange, IndexSource, IndexType};
pub use entry::IndexEntry;
pub use extract::IndexKeys;
pub(crate) use filter_keys::FilterKeys;
pub use lookup::{Index, IndexIter, IndexReader};
pub(crate) use maintain::Indexing;
pub use verify::Verification;
