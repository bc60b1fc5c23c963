//! The steps of opening, in order.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rustlite_io::{FileLock, FileSystem, LogDeviceOptions, SimFileSystem};

use crate::commit::log_writer::LogWriter;
use crate::commit::pipeline::{CommitLimits, CommitPipeline, CommitStart};
use crate::commit::stall::{Limits, Stall};
use crate::compaction::background::{CompactionState, background_threads};
use crate::compaction::precedence::{Precedence, processors};
use crate::compaction::rate_limiter::RateLimiter;
use crate::compaction::read_cost::ReadCost;
use crate::core::{Core, Counters, Signals};
use crate::database::{Database, Handle};
use crate::error::{Error, ErrorKind, Result};
use crate::file_name::FileName;
use crate::index;
use crate::index::registry::Indexes;
use crate::kinds::Rules;
use crate::manifest::edit::KeyspaceDescriptor;
use crate::manifest::{DirectoryContent, LiveFiles, ManifestReader, VersionSet};
use crate::memtable::MemtableMaker;
use crate::options::{Durability, Options};
use crate::read::snapshot::SnapshotList;
use crate::read::view::{View, ViewCell};
use crate::recovery::replay::{Replayed, replay_log, settle_log, sync_log_files};
use crate::sstable::{BlockCache, Table, TableEnv};
use crate::txn::counters::TransactionCounters;
use crate::txn::locks::LockTable;
use crate::values::ValueFiles;
use crate::wal::reader::{LogTail, check_formats, refuse_unknown_segments, spare_segments};
use crate::wal::segment::{PoolConfig, SegmentPool};

/// Footprints of recent commits may take one part in so many of a memtable: 1 MiB by default.
const FOOTPRINT_SHARE: usize = 64;

/// Opens the database in `directory`.
pub(crate) fn open(
    file_system: Arc<dyn FileSystem>,
    directory: &Path,
    options: Options,
) -> Result<Database> {
    options.validate()?;
    prepare_directory(&*file_system, directory, &options)?;
    let writable = !options.read_only;
    check_content(&*file_system, directory, &options)?;
    let lock = if writable { Some(take_lock(&*file_system, directory)?) } else { None };
    // Again, now that nobody else can change it.
    let content = check_content(&*file_system, directory, &options)?;
    let signals = Arc::new(Signals::default());
    let files = live_files(&signals);
    let values = ValueFiles::new(&files);
    let rules = Rules::new(file_system.clock(), &values, &options);
    let cache = Arc::new(BlockCache::new(options.block_cache_bytes));
    let mut env = TableEnv {
        fs: Arc::clone(&file_system),
        directory: directory.to_path_buf(),
        database_id: 0,
        cache,
        values,
        verify_always: options.verify_checksums_always,
        residency: Arc::default(),
    };
    let versions = if content == DirectoryContent::Creatable {
        // The directory may be what an attempt left that was killed before it came to this.
        file_system.sync_dir(parent_of(directory))?;
        let default = options.default_keyspace.clone();
        rules.operator_of(&default)?;
        let versions = VersionSet::create(Arc::clone(&file_system), directory, default, &files)?;
        tracing::info!(directory = %directory.display(), "created a database");
        env.database_id = versions.database_id();
        versions
    } else {
        let state = ManifestReader::read(&*file_system, directory)?;
        if writable {
            state.facts.keyspaces().try_for_each(|keyspace| require_operator(&rules, keyspace))?;
        }
        env.database_id = state.facts.database_id;
        if writable {
            check_formats(&*file_system, directory)?;
        }
        refuse_unknown_segments(&*file_system, directory, &state.facts)?;
        VersionSet::recover(Arc::clone(&file_system), directory, state, writable, &files, |meta| {
            Table::open(&env, meta)
        })?
    };
    if writable {
        sync_log_files(&*file_system, directory)?;
    }
    let memtables = MemtableMaker::new(options.memtable_bytes);
    for keyspace in versions.keyspaces() {
        rules.learn(&keyspace);
        memtables.learn(&keyspace);
    }
    let replayed = replay_log(&env, &versions, &rules, (&options, &memtables), writable)?;
    if writable {
        settle_log(&*file_system, directory, &replayed.tail)?;
        // Last, because the log may show that the manifest has lost its end, and then nothing must be thrown away.
        versions.remove_orphans()?;
    }
    report(directory, &replayed);
    let replayed = Some(replayed);
    assemble(Parts { env, options, versions, rules, signals, memtables, lock, replayed })
}

/// Opens a database that lives in memory only.
pub(crate) fn open_in_memory(options: Options) -> Result<Database> {
    options.validate()?;
    let file_system: Arc<dyn FileSystem> = SimFileSystem::volatile();
    let directory = Path::new("/database");
    file_system.create_dir_all(directory)?;
    let signals = Arc::new(Signals::default());
    let files = live_files(&signals);
    let values = ValueFiles::new(&files);
    let rules = Rules::new(file_system.clock(), &values, &options);
    let default = options.default_keyspace.clone();
    rules.operator_of(&default)?;
    let versions = VersionSet::create(Arc::clone(&file_system), directory, default, &files)?;
    let env = TableEnv {
        fs: file_system,
        directory: directory.to_path_buf(),
        database_id: versions.database_id(),
        cache: Arc::new(BlockCache::new(options.block_cache_bytes)),
        values,
        verify_always: options.verify_checksums_always,
        residency: Arc::default(),
    };
    let memtables = MemtableMaker::new(options.memtable_bytes);
    for keyspace in versions.keyspaces() {
        rules.learn(&keyspace);
        memtables.learn(&keyspace);
    }
    let (lock, replayed) = (None, None);
    assemble(Parts { env, options, versions, rules, signals, memtables, lock, replayed })
}

/// What a writer needs: without its operator, a keyspace would silently become something that nobody can read.
fn require_operator(rules: &Rules, keyspace: &KeyspaceDescriptor) -> Result<()> {
    let found = rules.operator_of(&keyspace.options);
    found.map(drop).map_err(|error| error.context(format!("keyspace {:?}", keyspace.name)))
}

fn live_files(signals: &Arc<Signals>) -> Arc<LiveFiles> {
    let signals = Arc::clone(signals);
    LiveFiles::new(move || signals.wake())
}

/// Makes the directory if it may be made.
fn prepare_directory(
    file_system: &dyn FileSystem,
    directory: &Path,
    options: &Options,
) -> Result<()> {
    if file_system.exists(directory)? {
        return Ok(());
    }
    if options.read_only || !options.create_if_missing {
        return Err(not_found(directory, "does not exist"));
    }
    let parent = parent_of(directory);
    if !file_system.exists(parent)? {
        return Err(not_found(parent, "does not exist, and only the last directory is created"));
    }
    file_system.create_dir_all(directory).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotADirectory => not_found(parent, "is not a directory"),
        _ => Error::from(error),
    })?;
    file_system.sync_dir(parent)?;
    Ok(())
}

/// The directory that `directory` is in.
pub(crate) fn parent_of(directory: &Path) -> &Path {
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn not_found(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("directory {} {what}", path.display()))
}

fn check_content(
    file_system: &dyn FileSystem,
    directory: &Path,
    options: &Options,
) -> Result<DirectoryContent> {
    let content = DirectoryContent::of(file_system, directory).map_err(|error| {
        let not_a_directory =
            error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotADirectory);
        if not_a_directory { not_a_database(directory, "is not a directory") } else { error }
    })?;
    match content {
        DirectoryContent::Creatable if options.read_only || !options.create_if_missing => {
            Err(not_found(directory, "holds no database, and creating one was not asked for"))
        }
        DirectoryContent::Foreign => {
            Err(not_a_database(directory, "holds files, but not those of a database"))
        }
        DirectoryContent::Database if options.error_if_exists => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("there is a database in {} already", directory.display()),
        )),
        content => Ok(content),
    }
}

fn not_a_database(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::NotADatabase, format!("{} {what}; nothing was changed", path.display()))
}

fn take_lock(file_system: &dyn FileSystem, directory: &Path) -> Result<Box<dyn FileLock>> {
    file_system.lock(&FileName::Lock.path(directory)).map_err(|error| {
        if error.kind() == std::io::ErrorKind::WouldBlock {
            Error::new(
                ErrorKind::Locked,
                format!(
                    "the database in {} is open already, in this process or another; clone the \
                     handle, or open it read-only",
                    directory.display()
                ),
            )
        } else {
            Error::from(error)
        }
    })
}

fn report(directory: &Path, replayed: &Replayed) {
    let tail = &replayed.tail;
    if tail.dropped_entries > 0 {
        tracing::warn!(
            directory = %directory.display(),
            entries = tail.dropped_entries,
            end_lsn = tail.end_lsn,
            "dropped log entries behind a torn tail; none of them was acknowledged as durable"
        );
    }
}

/// What the steps have produced.
struct Parts {
    env: TableEnv,
    options: Options,
    versions: VersionSet,
    rules: Arc<Rules>,
    signals: Arc<Signals>,
    memtables: MemtableMaker,
    lock: Option<Box<dyn FileLock>>,
    /// `None` for a database in memory.
    replayed: Option<Replayed>,
}

/// Puts the parts together and starts the threads.
fn assemble(parts: Parts) -> Result<Database> {
    let Parts { env, options, versions, rules, signals, memtables, lock, replayed } = parts;
    let clock = env.fs.clock();
    let versions = Arc::new(versions);
    let log = match &replayed {
        Some(replayed) if !options.read_only => {
            Some(start_log(&env, &options, &versions, &replayed.tail)?)
        }
        _ => None,
    };
    let (pool, log) = log.unzip();
    let replayed = match replayed {
        Some(replayed) => replayed,
        None => nothing_replayed(&memtables)?,
    };
    let read_cost = Arc::new(ReadCost::new(&signals));
    let view = View::new(
        replayed.active,
        replayed.frozen,
        versions.current(),
        Arc::clone(&rules),
        Arc::clone(&read_cost),
    );
    let views = Arc::new(ViewCell::new(view));
    let wake = Arc::clone(&signals);
    let indexes = Indexes::new(&versions.keyspaces(), options.extractors.clone());
    let pipeline = CommitPipeline::new(CommitStart {
        next_sequence: replayed.next_sequence,
        log,
        views: Arc::clone(&views),
        memtables,
        limits: commit_limits(&options),
        stall: Stall::new(stall_limits(&options)),
        clock: Arc::clone(&clock),
        rules: Arc::clone(&rules),
        wake_background: Box::new(move || wake.wake()),
        memtable_begin: replayed.active_begin,
        refusal: options
            .read_only
            .then(|| Error::new(ErrorKind::ReadOnly, "the database was opened read-only")),
        index_generation: indexes.generation(),
    });
    let named = versions.named_snapshots();
    let snapshots = SnapshotList::new(Arc::clone(&clock), named.into_iter());
    let core = Arc::new(Core {
        file_system: Arc::clone(&env.fs),
        directory: env.directory.clone(),
        limiter: RateLimiter::new(options.compaction_bytes_per_second, Arc::clone(&clock)),
        precedence: Precedence::new(options.background_threads, processors()),
        locks: LockTable::new(Arc::clone(&clock)),
        transactions: TransactionCounters::default(),
        indexes,
        clock,
        options,
        env,
        versions,
        rules,
        views,
        pipeline,
        snapshots,
        pool,
        signals,
        read_cost,
        compactions: Mutex::new(CompactionState::default()),
        counters: Counters::default(),
    });
    index::build::load_states(&core)?;
    let mut threads = background_threads(&core)?;
    threads.extend(index::build::resume(&core)?);
    Ok(Database::new(Handle::new(core, threads, lock)))
}

fn commit_limits(options: &Options) -> CommitLimits {
    CommitLimits {
        memtable_bytes: options.memtable_bytes,
        memtables_max: options.memtables_max,
        log_bytes_max: options.log_bytes_max,
        footprint_bytes_max: options.memtable_bytes / FOOTPRINT_SHARE,
    }
}

fn stall_limits(options: &Options) -> Limits {
    Limits {
        l0_slowdown: options.l0_slowdown_trigger,
        l0_stop: options.l0_stop_trigger,
        debt_slowdown: options.level_base_bytes.saturating_mul(4),
        debt_stop: options.level_base_bytes.saturating_mul(16),
    }
}

fn nothing_replayed(memtables: &MemtableMaker) -> Result<Replayed> {
    Ok(Replayed {
        tail: LogTail::default(),
        active: Arc::new(memtables.make()?),
        frozen: Vec::new(),
        active_begin: 0,
        next_sequence: 1,
    })
}

/// The log device, the segment pool, and the log's end.
fn start_log(
    env: &TableEnv,
    options: &Options,
    versions: &Arc<VersionSet>,
    tail: &LogTail,
) -> Result<(Arc<SegmentPool>, LogWriter)> {
    let mostly_stores = options.durability != Durability::Sync;
    let device = env.fs.log_device(LogDeviceOptions {
        sync: options.log_sync,
        mostly_stores,
        // One more for segment headers, which are written beside frames.
        lanes: options.log_frames_in_flight + 1,
    })?;
    let mut lanes = device.lanes()?;
    let lane =
        lanes.pop().ok_or_else(|| Error::internal("the log device has fewer lanes than asked"))?;
    let all = tail.free.iter().chain(tail.live.iter().map(|(segment, _)| segment));
    let registry = Arc::clone(versions);
    let pool = Arc::new(SegmentPool::new(PoolConfig {
        file_system: Arc::clone(&env.fs),
        device,
        directory: env.directory.clone(),
        database_id: env.database_id,
        segment_bytes: options.log_segment_bytes,
        log_bytes_max: options.log_bytes_max,
        registry,
        mostly_stores,
        lane,
        spares: spare_segments(&*env.fs, &env.directory)?,
        largest_bytes: all.map(|segment| segment.file_bytes).max().unwrap_or(0),
    }));
    // Durably, and before anything is written: what was rejected must not come back.
    pool.retire(&[tail.free.as_slice(), tail.rejected.as_slice()].concat())?;
    let log = LogWriter::new(Arc::clone(&pool), lanes, tail.end_lsn, tail.live.iter().copied());
    Ok((pool, log))
}
