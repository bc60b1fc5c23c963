//! Options of a database, a keyspace, a read and a write. Every default has its reason beside it.

use std::sync::Arc;
use std::time::Duration;

use rustlite_io::LogSync;

use crate::commit::log_writer::FRAME_BYTES_MAX;
use crate::compaction::precedence::processors;
use crate::error::{Error, Result};
use crate::index::IndexKeys;
use crate::index::extract::Extractors;
use crate::keyspace::check_name;
use crate::kinds::expiry::{Millis, lifetime};
use crate::kinds::filter::CompactionFilter;
use crate::kinds::operator::MergeOperator;
use crate::kinds::ready_made::ready_made;
use crate::limits::{BLOCK_BYTES_MAX, OPERATOR_NAME_BYTES_MAX, VALUE_BYTES_MAX};
use crate::values::{SEPARATION_BYTES_MIN, SEPARATION_BYTES_USUAL};

/// Memory of one flush or compaction thread: read-ahead of its inputs and write buffers of its output.
const BACKGROUND_BUFFER_BYTES: u64 = 32 << 20;

/// When a write counts as done, and what it survives from then on.
///
/// | level | process crash (`kill -9`) | kernel crash, power loss |
/// |---|---|---|
/// | `Sync` | survives | survives |
/// | `Buffered` | survives | the newest writes may be lost, always a suffix of the order of commits |
/// | `Periodic(interval)` | survives | as `Buffered`, but at most about `interval` of writes |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On stable storage before the call returns. The default: nobody should lose data by leaving a setting alone.
    #[default]
    Sync,
    /// Handed to the kernel before the call returns.
    Buffered,
    /// Like `Buffered`, and a background thread syncs the log at this interval.
    Periodic(Duration),
}

/// How blocks of tables are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all: blocks are searched in place in the memory map. The default, because it is the fastest to read.
    #[default]
    None,
    /// LZ4: smaller, and fast to read.
    Lz4,
    /// Zstandard: smaller, slower to write. Needs the Cargo feature `zstd`.
    Zstd,
}

/// Which I/O backend to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoBackend {
    /// io_uring where the kernel allows it, threads elsewhere. The environment variable `RUSTLITE_IO` (`uring` or `threads`)
    /// decides instead if it is set.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// Plain system calls on the calling threads.
    Threads,
}

/// Options of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    pub(crate) durability: Option<Durability>,
}

impl WriteOptions {
    /// The database's own durability.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The durability of this write. `Periodic` means `Buffered` here: only the database has an interval.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}

/// Options of a keyspace, stored with it.
#[derive(Debug, Clone)]
pub struct KeyspaceOptions {
    pub(crate) compression: Compression,
    pub(crate) filter_bits_per_key: u32,
    pub(crate) block_bytes: usize,
    /// 0 for ever.
    pub(crate) default_ttl_ms: Millis,
    /// The name of the merge operator.
    pub(crate) merge_operator: Option<String>,
    /// 0 for never, none for what suits the compression.
    pub(crate) value_separation_bytes: Option<usize>,
}

/// Equal if they mean the same, whether or not it was said.
impl PartialEq for KeyspaceOptions {
    fn eq(&self, other: &Self) -> bool {
        let meaning = |it: &Self| {
            let tables = (it.compression, it.filter_bits_per_key, it.block_bytes);
            (tables, it.default_ttl_ms, it.separated_from())
        };
        meaning(self) == meaning(other) && self.merge_operator == other.merge_operator
    }
}

impl Eq for KeyspaceOptions {}

impl Default for KeyspaceOptions {
    fn default() -> Self {
        Self {
            compression: Compression::None,
            filter_bits_per_key: 10,
            block_bytes: 4096,
            default_ttl_ms: 0,
            merge_operator: None,
            value_separation_bytes: None,
        }
    }
}

impl KeyspaceOptions {
    /// The defaults: no compression, filters of 10 bits a key (about 1 % false positives), blocks of 4 KiB (one page).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How the keyspace's tables are compressed.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Bits of filter for each key; 0 for no filters. 0 to 32.
    #[must_use]
    pub fn filter_bits_per_key(mut self, bits: u32) -> Self {
        self.filter_bits_per_key = bits;
        self
    }

    /// Size of a data block before compression, in bytes. 512 to 32768.
    #[must_use]
    pub fn block_bytes(mut self, bytes: usize) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// From which length on values are separated; `None` for never.
    pub(crate) fn separated_from(&self) -> Option<usize> {
        let usual = if self.compression == Compression::None { SEPARATION_BYTES_USUAL } else { 0 };
        Some(self.value_separation_bytes.unwrap_or(usual)).filter(|&bytes| bytes > 0)
    }

    /// The options of the entries of an index on such a keyspace: where they lie, but not what becomes of values.
    pub(crate) fn for_entries(&self) -> Self {
        let own = Self::default();
        Self {
            default_ttl_ms: own.default_ttl_ms,
            merge_operator: own.merge_operator,
            value_separation_bytes: Some(0),
            ..self.clone()
        }
    }

    /// How long a value lives that is put without a lifetime of its own, in whole milliseconds, rounded up; zero, the default, for
    /// ever. See [`Keyspace::put_expiring`](crate::Keyspace::put_expiring).
    #[must_use]
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl_ms = lifetime(ttl);
        self
    }

    /// The merge operator of the keyspace, by its name: a ready-made one ([`U64Add`](crate::U64Add), [`Append`](crate::Append),
    /// [`Max`](crate::Max)), or one that is given to [`Options::merge_operator`] each time the database is opened. Default: none.
    /// Not together with expiry: what is merged would have no time of its own.
    #[must_use]
    pub fn merge_operator(mut self, name: impl Into<String>) -> Self {
        self.merge_operator = Some(name.into());
        self
    }

    /// From which length on values are kept in value files instead of tables, in bytes; 0 for never; else 256 to 1 GiB. Default: 8 KiB, or
    /// never where tables are compressed, because value files are not. Compactions then copy pointers instead of values, which saves
    /// most of their work where values are large; a read costs one more access, and a scan is no longer sequential. Space of
    /// overwritten values comes back once half of their file is garbage. Values that expire stay in tables.
    #[must_use]
    pub fn value_separation_bytes(mut self, bytes: usize) -> Self {
        self.value_separation_bytes = Some(bytes);
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if let Some(bytes) = self.separated_from() {
            check("value_separation_bytes", bytes, SEPARATION_BYTES_MIN, VALUE_BYTES_MAX)?;
        }
        if let Some(name) = &self.merge_operator {
            check_operator_name(name)?;
            if self.default_ttl_ms > 0 {
                return Err(Error::invalid(
                    "a keyspace has either a merge operator or a default lifetime, not both",
                ));
            }
        }
        check("filter_bits_per_key", self.filter_bits_per_key as usize, 0, 32)?;
        check("block_bytes", self.block_bytes, 512, BLOCK_BYTES_MAX)?;
        if self.compression == Compression::Zstd && !cfg!(feature = "zstd") {
            return Err(Error::invalid(
                "compression Zstd needs the Cargo feature `zstd` of the crate `rustlite`",
            ));
        }
        Ok(())
    }
}

/// Options of a database. Build, then pass to `Database::open_with`.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) create_if_missing: bool,
    pub(crate) error_if_exists: bool,
    pub(crate) read_only: bool,
    pub(crate) durability: Durability,
    pub(crate) memtable_bytes: usize,
    pub(crate) memtables_max: usize,
    pub(crate) block_cache_bytes: u64,
    pub(crate) log_segment_bytes: u64,
    pub(crate) log_bytes_max: u64,
    pub(crate) log_sync: LogSync,
    pub(crate) log_frames_in_flight: usize,
    pub(crate) table_bytes: u64,
    pub(crate) level_base_bytes: u64,
    pub(crate) level_ratio: u64,
    pub(crate) l0_compaction_trigger: usize,
    pub(crate) l0_slowdown_trigger: usize,
    pub(crate) l0_stop_trigger: usize,
    pub(crate) background_threads: usize,
    pub(crate) compaction_bytes_per_second: u64,
    pub(crate) verify_checksums_always: bool,
    pub(crate) default_keyspace: KeyspaceOptions,
    pub(crate) io_backend: IoBackend,
    pub(crate) merge_operators: Vec<Operator>,
    pub(crate) compaction_filters: Vec<Filter>,
    pub(crate) extractors: Extractors,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create_if_missing: true,
            error_if_exists: false,
            read_only: false,
            durability: Durability::Sync,
            // Large enough that flushes are long sequential writes, small enough for a server with many databases.
            memtable_bytes: 64 << 20,
            // One being filled, one being flushed, one to absorb a burst.
            memtables_max: 3,
            // Only compressed blocks need it: uncompressed ones are read from the page cache in place.
            block_cache_bytes: 64 << 20,
            // Large enough that a new one is seldom needed, small enough that little of the log is kept longer than its memtable.
            log_segment_bytes: 16 << 20,
            log_bytes_max: 1 << 30,
            log_sync: LogSync::Auto,
            log_frames_in_flight: 2,
            table_bytes: 32 << 20,
            // What level 0 holds when it has its runs of full memtables.
            level_base_bytes: 512 << 20,
            level_ratio: 10,
            l0_compaction_trigger: 8,
            l0_slowdown_trigger: 20,
            l0_stop_trigger: 36,
            // One where a second would have to share a processor with a writer.
            background_threads: processors().saturating_sub(1).clamp(1, 2),
            compaction_bytes_per_second: 0,
            verify_checksums_always: false,
            default_keyspace: KeyspaceOptions::default(),
            io_backend: IoBackend::Auto,
            merge_operators: Vec::new(),
            compaction_filters: Vec::new(),
            extractors: Extractors::default(),
        }
    }
}

/// Generates one builder method per option.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = $name;
            self
        })*
    };
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Whether to create the database (its directory too, but not the parents of that) if it does not exist. Default: true.
        create_if_missing: bool;
        /// Whether an existing database is an error. Default: false.
        error_if_exists: bool;
        /// Whether to open without changing anything on disk; writes give an error. Default: false.
        read_only: bool;
        /// Durability of writes that do not say otherwise. Default: [`Durability::Sync`].
        durability: Durability;
        /// Size at which a memtable is flushed, in bytes. 64 KiB to 4 GiB. Default: 64 MiB.
        memtable_bytes: usize;
        /// Most memtables in memory, the one being written included; writers wait beyond. 2 to 16. Default: 3.
        memtables_max: usize;
        /// Memory for decompressed blocks of compressed tables, in bytes. Default: 64 MiB.
        block_cache_bytes: u64;
        /// Size of a log segment, in bytes; a multiple of 64 KiB, 256 KiB to 4 GiB. Default: 16 MiB.
        log_segment_bytes: u64;
        /// Log that makes a memtable be flushed even if it is not full: `Sync` commits take whole blocks of log each. In bytes; at
        /// least two segments. The log on disk can be larger by what belongs to memtables that are being flushed. Default: 1 GiB.
        log_bytes_max: u64;
        /// How the log is made durable. Default: [`LogSync::Auto`].
        log_sync: LogSync;
        /// Most log frames in flight at once: more of them, each with fewer commits, pay where processors are many and the device is
        /// fast. 1 to 63. Default: 2.
        log_frames_in_flight: usize;
        /// Size at which a table is finished and the next one begun, in bytes. 16 KiB to 4 GiB. Default: 32 MiB.
        table_bytes: u64;
        /// Largest target of the first sorted level, and the size at which level 0 is compacted whatever its runs, in bytes. Default: 512 MiB,
        /// eight full memtables.
        level_base_bytes: u64;
        /// How many times larger each level is than the one above. 2 to 100. Default: 10.
        level_ratio: u64;
        /// Overlapping runs in level 0 that start a compaction. Default: 8.
        l0_compaction_trigger: usize;
        /// Overlapping runs in level 0, or half memtables if it holds more of those, from which on writes are delayed, smoothly. Default: 20.
        l0_slowdown_trigger: usize;
        /// Overlapping runs in level 0 at which the delay is at its largest. Default: 36.
        l0_stop_trigger: usize;
        /// Threads for compactions; flushes have one of their own. 1 to 64. Default: 2, and 1 where there are only two processors.
        background_threads: usize;
        /// Bound on what compactions write, in bytes a second; 0 for none. Default: 0.
        compaction_bytes_per_second: u64;
        /// Whether to verify a block's checksum at every read instead of the first. Default: false.
        verify_checksums_always: bool;
        /// Options of the default keyspace, when the database is created.
        default_keyspace: KeyspaceOptions;
        /// Which I/O backend to use. Default: [`IoBackend::Auto`].
        io_backend: IoBackend;
    }

    /// Registers a merge operator, for the keyspaces that name it. May be called several times. See [`MergeOperator`].
    #[must_use]
    pub fn merge_operator(mut self, operator: impl MergeOperator) -> Self {
        self.merge_operators.push(Operator(Arc::new(operator)));
        self
    }

    /// Registers a compaction filter for the keyspace of this name, which need not exist yet. See [`CompactionFilter`].
    #[must_use]
    pub fn compaction_filter(
        mut self,
        keyspace: impl Into<String>,
        filter: impl CompactionFilter,
    ) -> Self {
        self.compaction_filters.push(Filter { keyspace: keyspace.into(), code: Arc::new(filter) });
        self
    }

    /// Registers code that gives the index keys of a row, for [`IndexSource::Extractor`](crate::IndexSource::Extractor). Must be
    /// registered under the same name, and do the same, whenever a database with such an index is opened: without it, writes to the
    /// keyspace fail.
    ///
    /// It gets the row's key, its value, and where to add index keys: any number, none included. It must depend on nothing else, and not
    /// use the database.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// use rustlite_engine::{Database, IndexSource, IndexType, Options};
    /// let options = Options::new().index_extractor("words", |_key, value, keys| {
    ///     value.split(|byte| *byte == b' ').for_each(|word| keys.add(word));
    /// });
    /// let db = Database::in_memory_with(options)?;
    /// let index = db.create_index("words", &db, IndexType::BTree, IndexSource::extractor("words"))?;
    /// db.put("1", "a rose is a rose")?;
    /// assert_eq!(index.find("rose")?, [b"1"]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn index_extractor(
        mut self,
        name: impl Into<String>,
        extract: impl Fn(&[u8], &[u8], &mut IndexKeys) + Send + Sync + 'static,
    ) -> Self {
        self.extractors.register(name.into(), extract);
        self
    }

    /// The bound on private memory that these options set, in bytes: memtables, block cache, and the buffers of flushes and compactions.
    /// Tables, with their indexes and filters, are memory-mapped files: they count as resident while they are used, and the kernel
    /// takes them back when memory is short.
    #[must_use]
    pub fn memory_bound_bytes(&self) -> u64 {
        // A memtable may pass its limit by the last batch and by one allocation unit of its arena; and it has a filter.
        let memtable = self.memtable_bytes as u64;
        let memtables = self.memtables_max as u64 * (memtable + memtable / 128 + (4 << 20));
        let frames = self.log_frames_in_flight as u64 * FRAME_BYTES_MAX as u64;
        // While a table is written, its index and the hashes for its filter are in memory: at most half its size for tiny records.
        let thread = BACKGROUND_BUFFER_BYTES + self.table_bytes / 2;
        // One thread flushes, the others compact; `compact_range` adds its caller.
        let background = (self.background_threads as u64 + 2) * thread;
        memtables + frames + self.block_cache_bytes + background
    }

    /// Checks every option and how they fit together.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument), naming the option, its value and its bounds.
    pub fn validate(&self) -> Result<()> {
        check("memtable_bytes", self.memtable_bytes, 64 << 10, 4 << 30)?;
        check("memtables_max", self.memtables_max, 2, 16)?;
        check("log_segment_bytes", self.log_segment_bytes as usize, 256 << 10, 4 << 30)?;
        if !self.log_segment_bytes.is_multiple_of(64 << 10) {
            return Err(Error::invalid("option log_segment_bytes must be a multiple of 65536"));
        }
        let log_floor = self.log_segment_bytes.saturating_mul(2) as usize;
        check("log_bytes_max", self.log_bytes_max as usize, log_floor, usize::MAX)?;
        check("log_frames_in_flight", self.log_frames_in_flight, 1, 63)?;
        check("table_bytes", self.table_bytes as usize, 16 << 10, 4 << 30)?;
        check("level_base_bytes", self.level_base_bytes as usize, 64 << 10, 1 << 40)?;
        check("level_ratio", self.level_ratio as usize, 2, 100)?;
        check("l0_compaction_trigger", self.l0_compaction_trigger, 1, 1000)?;
        check("l0_slowdown_trigger", self.l0_slowdown_trigger, self.l0_compaction_trigger, 10_000)?;
        check("l0_stop_trigger", self.l0_stop_trigger, self.l0_slowdown_trigger + 1, 100_000)?;
        check("background_threads", self.background_threads, 1, 64)?;
        if let Durability::Periodic(interval) = self.durability {
            check("durability interval (ms)", interval.as_millis() as usize, 1, 3_600_000)?;
        }
        for (index, Operator(operator)) in self.merge_operators.iter().enumerate() {
            let name = operator.name();
            check_operator_name(name)?;
            let others = self.merge_operators.iter().take(index).map(|Operator(other)| other);
            if others.chain(&ready_made()).any(|other| other.name() == name) {
                return Err(Error::invalid(format!("there are two merge operators {name:?}")));
            }
        }
        for (index, filter) in self.compaction_filters.iter().enumerate() {
            check_name("keyspace name", &filter.keyspace)?;
            let mut others = self.compaction_filters.iter().take(index);
            if others.any(|other| other.keyspace == filter.keyspace) {
                let name = &filter.keyspace;
                return Err(Error::invalid(format!("keyspace {name:?} has two filters")));
            }
        }
        self.default_keyspace.validate()
    }
}

/// A merge operator, as options hold it.
#[derive(Clone)]
pub(crate) struct Operator(pub(crate) Arc<dyn MergeOperator>);

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

/// A compaction filter, as options hold it.
#[derive(Clone)]
pub(crate) struct Filter {
    pub(crate) keyspace: String,
    pub(crate) code: Arc<dyn CompactionFilter>,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "filter of {:?}", self.keyspace)
    }
}

/// Whether a keyspace can remember a merge operator by this name.
pub(crate) fn check_operator_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > OPERATOR_NAME_BYTES_MAX {
        let message =
            format!("the name of a merge operator has 1 to {OPERATOR_NAME_BYTES_MAX} bytes");
        return Err(Error::invalid(message));
    }
    Ok(())
}

fn check(name: &str, value: usize, min: usize, max: usize) -> Result<()> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(Error::invalid(format!("option {name} is {value}; it must be between {min} and {max}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_bad_values_name_the_option() {
        Options::new().validate().unwrap();
        let error = Options::new().memtables_max(1).validate().unwrap_err();
        assert!(error.to_string().contains("memtables_max is 1"), "{error}");
        let bad = Options::new().default_keyspace(KeyspaceOptions::new().block_bytes(1));
        assert!(bad.validate().unwrap_err().to_string().contains("block_bytes"));
    }

    /// Or one of the two triggers of level 0 would decide alone, and a load of large records be merged while one of small records is not.
    #[test]
    fn level0_is_full_by_runs_and_by_bytes_at_once() {
        let options = Options::new();
        let full_runs = options.l0_compaction_trigger * options.memtable_bytes;
        assert_eq!(options.level_base_bytes, full_runs as u64);
    }
}
