//! The engines: which there are, which are in this build, and which durability each of them has.
//!
//! Every adapter gives its engine the best sensible configuration for the work (no compression,
//! because records are incompressible; caches of the same size; durable or not as asked) and says
//! what it set. At `buffered`, each engine gets the cheapest configuration in which a write
//! survives `kill -9` of the process, even where that risks more at a power loss than RustLite's
//! own buffered mode does.

#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "leveldb")]
#[expect(unsafe_code, reason = "LevelDB is called through its C interface")]
mod leveldb;
#[cfg(feature = "lmdb")]
#[expect(
    unsafe_code,
    reason = "heed marks opening an environment as unsafe; see the comments there"
)]
mod lmdb;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod rustlite;
#[cfg(feature = "sqlite")]
mod sqlite;

use crate::error::{Error, Failure, Result};
use crate::store::{Durability, OpenSpec, Store};

/// Opens, or creates, the store of an engine.
pub type Opener = fn(&OpenSpec) -> std::result::Result<Box<dyn Store>, Failure>;

/// An engine that the harness knows, whether or not it is in this build.
#[derive(Debug)]
pub struct Engine {
    /// The name on the command line and in reports.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// The Cargo feature that brings it in; empty for RustLite, which is always there.
    pub feature: &'static str,
    open: Option<Opener>,
    /// Why a durability isn't to be had.
    refusal: fn(Durability) -> Option<&'static str>,
}

/// `Some(module::open)` if the feature is on.
macro_rules! opener {
    ($feature:literal, $open:path) => {{
        #[cfg(feature = $feature)]
        let open: Option<Opener> = Some($open);
        #[cfg(not(feature = $feature))]
        let open: Option<Opener> = None;
        open
    }};
}

/// An engine with both levels of durability.
const fn both_levels(_: Durability) -> Option<&'static str> {
    None
}

const fn redb_levels(durability: Durability) -> Option<&'static str> {
    match durability {
        Durability::Sync => None,
        Durability::Buffered => Some(
            "redb has no level equal to buffered: its only other level, Durability::None, keeps \
             commits in the memory of \
             the process, and `kill -9` loses them. Use --durability sync, or leave redb out",
        ),
    }
}

/// All engines, RustLite first.
pub const ENGINES: [Engine; 10] = [
    Engine {
        name: "rustlite",
        summary: "this project's LSM tree on io_uring",
        feature: "",
        open: Some(rustlite::open),
        refusal: both_levels,
    },
    Engine {
        name: "sqlite",
        summary: "SQLite, B-tree, WAL mode, prepared statements",
        feature: "sqlite",
        open: opener!("sqlite", sqlite::open),
        refusal: both_levels,
    },
    Engine {
        name: "rocksdb",
        summary: "RocksDB, LSM tree, tuned for this work",
        feature: "rocksdb",
        open: opener!("rocksdb", rocksdb::open_tuned),
        refusal: both_levels,
    },
    Engine {
        name: "rocksdb-mmap",
        summary: "the same, tables read through memory maps",
        feature: "rocksdb",
        open: opener!("rocksdb", rocksdb::open_mmap),
        refusal: both_levels,
    },
    Engine {
        name: "rocksdb-default",
        summary: "RocksDB as it comes, nothing tuned",
        feature: "rocksdb",
        open: opener!("rocksdb", rocksdb::open_default),
        refusal: both_levels,
    },
    Engine {
        name: "leveldb",
        summary: "LevelDB, LSM tree",
        feature: "leveldb",
        open: opener!("leveldb", leveldb::open),
        refusal: both_levels,
    },
    Engine {
        name: "fjall",
        summary: "fjall, LSM tree in Rust",
        feature: "fjall",
        open: opener!("fjall", fjall::open),
        refusal: both_levels,
    },
    Engine {
        name: "redb",
        summary: "redb, copy-on-write B-tree in Rust",
        feature: "redb",
        open: opener!("redb", redb::open),
        refusal: redb_levels,
    },
    Engine {
        name: "lmdb",
        summary: "LMDB through heed, memory-mapped copy-on-write B-tree",
        feature: "lmdb",
        open: opener!("lmdb", lmdb::open_default),
        refusal: both_levels,
    },
    Engine {
        name: "lmdb-writemap",
        summary: "the same with a writable map (MDB_WRITEMAP)",
        feature: "lmdb",
        open: opener!("lmdb", lmdb::open_write_map),
        refusal: both_levels,
    },
];

impl Engine {
    /// The engine of that name.
    ///
    /// # Errors
    /// [`Error::Usage`], listing the names there are.
    pub fn named(name: &str) -> Result<&'static Self> {
        ENGINES.iter().find(|engine| engine.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
            let names: Vec<&str> = ENGINES.iter().map(|engine| engine.name).collect();
            Error::Usage(format!("there is no engine {name:?}; there are {}", names.join(", ")))
        })
    }

    /// How to open its store.
    ///
    /// # Errors
    /// [`Error::Usage`] with the feature to add, if the engine isn't in this build.
    pub fn opener(&self) -> Result<Opener> {
        self.open.ok_or_else(|| {
            Error::Usage(format!(
                "{} is not in this build; build with `--features {}`, for example \
                 `cargo run --release -p rustlite-ycsb --features {} -- compare ...`",
                self.name, self.feature, self.feature
            ))
        })
    }

    /// Refuses a durability that the engine doesn't have: nothing is compared at unequal promises.
    ///
    /// # Errors
    /// [`Error::Usage`] with the reason.
    pub fn require(&self, durability: Durability) -> Result<()> {
        match (self.refusal)(durability) {
            None => Ok(()),
            Some(reason) => Err(Error::Usage(reason.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
