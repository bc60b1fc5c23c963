//! `Database`: the handle that users hold.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustlite_io::{Backend, FileLock, FileSystem, RealFileSystem};

use crate::batch::{Origin, Records, WriteBatch};
use crate::commit::future::CommitFuture;
use crate::commit::pipeline::CommitTerms;
use crate::compaction::background;
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::index::Verification;
use crate::key::{KeyspaceId, Sequence};
use crate::keyspace::{DEFAULT_NAME, Identity, Keyspace};
use crate::options::{Durability, IoBackend, KeyspaceOptions, Options, WriteOptions};
use crate::read::visible::KeyRange;
use crate::recovery::open::{open, open_in_memory};
use crate::snapshot::Snapshot;
use crate::stats::Stats;
use crate::stripes::{Share, StripedArc};

/// An open database.
///
/// Cheap to clone, and usable from any number of threads: clones are handles to the same database. Everything that a [`Keyspace`]
/// can do, `Database` does on its default keyspace (it dereferences to it). The database closes when the last handle, keyspace
/// handles included, is dropped, or by [`close`](Self::close), which also reports errors.
///
/// ```
/// # fn main() -> Result<(), rustlite_engine::Error> {
/// # let directory = std::env::temp_dir().join(format!("rustlite-doc-{}", std::process::id()));
/// use rustlite_engine::Database;
/// let db = Database::open(&directory)?;
/// db.put("hello", "world")?;
/// assert_eq!(db.get("hello")?.as_deref(), Some(&b"world"[..]));
/// db.close()?;
/// # std::fs::remove_dir_all(&directory).ok();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Database {
    default: Keyspace,
    /// Of the handle, for transactions.
    shares: Arc<StripedArc<Handle>>,
}

impl Database {
    pub(crate) fn new(handle: Handle) -> Self {
        let handle = Arc::new(handle);
        let identity = Identity::new(KeyspaceId::DEFAULT, DEFAULT_NAME);
        let shares = Arc::new(StripedArc::new(&handle));
        Self { default: Keyspace::new(handle, identity), shares }
    }

    /// Opens the database in `directory` with the default [`Options`], creating it if it does not exist.
    ///
    /// # Errors
    /// See [`ErrorKind`]: each cause has its own kind, and nothing on disk is harmed by a failed attempt.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(directory, Options::default())
    }

    /// Opens the database in `directory`.
    ///
    /// # Errors
    /// As [`open`](Self::open), and for options outside their bounds.
    pub fn open_with(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        let backend = match options.io_backend {
            IoBackend::Auto => None,
            IoBackend::Uring => Some(Backend::Uring),
            IoBackend::Threads => Some(Backend::Threads),
        };
        let file_system = RealFileSystem::new(backend)?;
        open(file_system, directory.as_ref(), options)
    }

    /// Opens a database on another file system, such as the simulator of `rustlite-io`.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    #[doc(hidden)]
    pub fn open_on(
        file_system: Arc<dyn FileSystem>,
        directory: impl AsRef<Path>,
        options: Options,
    ) -> Result<Self> {
        open(file_system, directory.as_ref(), options)
    }

    /// A database in memory: no files, no log, gone when it is closed.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn in_memory() -> Result<Self> {
        Self::in_memory_with(Options::default())
    }

    /// A database in memory, with options (those about files and the log have no effect).
    ///
    /// # Errors
    /// As [`in_memory`](Self::in_memory), and for options outside their bounds.
    pub fn in_memory_with(options: Options) -> Result<Self> {
        open_in_memory(options)
    }

    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.default.handle
    }

    /// The handle, for something of which there are many.
    pub(crate) fn share(&self) -> Share<Handle> {
        self.shares.share()
    }

    /// Writes a batch, atomically, with the database's durability.
    ///
    /// # Errors
    /// What was wrong with the batch first; else as [`Keyspace::put`].
    pub fn write(&self, batch: WriteBatch) -> Result<()> {
        self.write_with(&batch, &WriteOptions::default())
    }

    /// Writes a batch, atomically, with options of this write. The batch can be used again.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_with(&self, batch: &WriteBatch, options: &WriteOptions) -> Result<()> {
        self.handle().write(batch, options).map(drop)
    }

    /// Starts to write a batch, atomically, and gives a future that resolves when the batch is visible and as durable as the
    /// database's durability asks for. One thread can keep thousands of durable writes in flight.
    ///
    /// The batch takes its place in the order of all writes now: two calls one after the other commit in that order, and a crash
    /// never keeps the second without the first. The call itself blocks only where a blocking write would be held back (compactions
    /// are far behind, memory is full), or while 4,096 commits are in flight already.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// use rustlite_engine::{Database, WriteBatch};
    /// let db = Database::in_memory()?;
    /// let mut in_flight = Vec::new();
    /// for number in 0..100 {
    ///     let mut batch = WriteBatch::new();
    ///     batch.put(format!("key {number}"), "value");
    ///     in_flight.push(db.write_async(batch));
    /// }
    /// for write in in_flight {
    ///     write.wait()?; // or `.await`, under any executor
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// None here: the future gives what [`write`](Self::write) would.
    pub fn write_async(&self, batch: WriteBatch) -> CommitFuture {
        self.write_async_with(&batch, &WriteOptions::default())
    }

    /// [`write_async`](Self::write_async) with options of this write. The batch can be used again at once.
    ///
    /// # Errors
    /// None here: the future gives what [`write_with`](Self::write_with) would.
    pub fn write_async_with(&self, batch: &WriteBatch, options: &WriteOptions) -> CommitFuture {
        let placed = self.handle().write_later(batch, options);
        placed.unwrap_or_else(|error| CommitFuture::settled(Err(error)))
    }

    /// The state of the whole database at this moment.
    ///
    /// # Errors
    /// If the database is closed.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.handle().check_open()?;
        Ok(Snapshot::take(&self.handle().core))
    }

    /// The keyspace of this name, created with default options if it does not exist.
    ///
    /// # Errors
    /// If the name is not acceptable, or the keyspace would have to be created and cannot be.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        self.handle().check_open()?;
        match self.existing_keyspace(name)? {
            Some(keyspace) => Ok(keyspace),
            None => self.create_keyspace(name, KeyspaceOptions::default()),
        }
    }

    /// The keyspace of this name, if it exists.
    ///
    /// # Errors
    /// If the database is closed.
    pub fn existing_keyspace(&self, name: &str) -> Result<Option<Keyspace>> {
        self.handle().check_open()?;
        let mut known = self.handle().known_keyspaces();
        let found = self.handle().core.versions.keyspace_named(name);
        Ok(found.map(|found| self.known_keyspace(&mut known, found.id, name)))
    }

    /// Creates a keyspace, or gives the existing one if it has the same options.
    ///
    /// # Errors
    /// `KeyspaceExists` if it has other options; otherwise as [`keyspace`](Self::keyspace).
    pub fn create_keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        self.handle().check_open()?;
        let mut known = self.handle().known_keyspaces();
        self.handle().core.rules.operator_of(&options)?;
        let core = &self.handle().core;
        let created = core.recorded(core.versions.create_keyspace(name, options))?;
        core.rules.learn(&created);
        Ok(self.known_keyspace(&mut known, created.id, name))
    }

    /// One identity per keyspace, so that dropping it reaches every handle.
    fn known_keyspace(&self, known: &mut Known, id: KeyspaceId, name: &str) -> Keyspace {
        if id == KeyspaceId::DEFAULT {
            return self.default.clone();
        }
        let identity = known.entry(id).or_insert_with(|| Identity::new(id, name));
        Keyspace::new(Arc::clone(self.handle()), Arc::clone(identity))
    }

    /// The names of all keyspaces, in the order of their creation. The first is `default`.
    ///
    /// # Errors
    /// If the database is closed.
    pub fn list_keyspaces(&self) -> Result<Vec<String>> {
        self.handle().check_open()?;
        let all = self.handle().core.versions.keyspaces();
        let ordinary = all.into_iter().filter(|keyspace| keyspace.index.is_none());
        Ok(ordinary.map(|keyspace| keyspace.name).collect())
    }

    /// Drops a keyspace with everything in it, and removes its files. Handles to it give `KeyspaceNotFound` from then on;
    /// iterators and snapshots keep what they see.
    ///
    /// # Errors
    /// If there is no such keyspace, it is the default one, or the change cannot be recorded.
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        let handle = self.handle();
        handle.check_open()?;
        let mut known = handle.known_keyspaces();
        let Some(found) = handle.core.versions.keyspace_named(name) else {
            return Err(Error::new(
                ErrorKind::KeyspaceNotFound,
                format!("there is no keyspace {name:?}"),
            ));
        };
        let _definitions = handle.core.indexes.lock_definitions();
        handle.drop_with_indexes(found.id)?;
        if let Some(identity) = known.remove(&found.id) {
            identity.dropped.store(true, Ordering::Release);
        }
        handle.dropped();
        Ok(())
    }

    /// Writes everything that is only in memory and in the log as tables. Returns when that is done.
    ///
    /// # Errors
    /// If the database is closed, read-only or poisoned, or tables cannot be written.
    pub fn flush(&self) -> Result<()> {
        self.handle().check_open()?;
        self.handle().flush()
    }

    /// Waits until no compaction is running or due. Those count, too, that would otherwise begin only when writers have paused for a while.
    ///
    /// # Errors
    /// If the database is closed, or compactions fail.
    pub fn wait_for_compactions(&self) -> Result<()> {
        self.handle().check_open()?;
        background::wait_until_settled(&self.handle().core)
    }

    /// Makes every acknowledged write durable, whatever durability it was written with.
    ///
    /// # Errors
    /// If the log cannot be synced; then the database refuses later writes.
    pub fn sync(&self) -> Result<()> {
        self.handle().check_open()?;
        self.handle().core.pipeline.sync()
    }

    /// Reads every table, and every value in value files, from the medium and not from caches, and checks every checksum, the order of
    /// all keys and the counts. Then compares indexes with their rows, as [`verify_indexes`](Self::verify_indexes) does, those left out
    /// that it cannot check: the report names them. Reads and writes go on meanwhile.
    ///
    /// # Errors
    /// [`Corruption`](ErrorKind::Corruption) of the first damage found, with file and offset, or of the first index that disagrees with its
    /// rows; read errors.
    pub fn verify(&self) -> Result<Verification> {
        self.handle().check_open()?;
        let view = self.handle().core.views.load();
        let tables = view.version.tables();
        let bytes = tables.map(|(_, handle)| handle.table.verify()).sum::<Result<u64>>()?;
        let (index_entries, unchecked) = self.compare_indexes()?;
        let unchecked_indexes = unchecked.iter().map(|index| index.name().to_owned()).collect();
        Ok(Verification { bytes, index_entries, unchecked_indexes })
    }

    /// Numbers about the database: sizes, memory, counts. See [`Stats`].
    ///
    /// # Errors
    /// If the database is closed.
    pub fn stats(&self) -> Result<Stats> {
        self.handle().check_open()?;
        Ok(Stats::gather(&self.handle().core))
    }

    /// Flushes, stops background work and releases the lock. Other handles get `Closed` from then on; iterators, snapshots and
    /// pinned values that exist go on working. Closing twice is fine.
    ///
    /// # Errors
    /// If the database was poisoned, or the log cannot be synced. It is closed all the same.
    pub fn close(&self) -> Result<()> {
        self.handle().close()
    }
}

impl Deref for Database {
    type Target = Keyspace;

    fn deref(&self) -> &Keyspace {
        &self.default
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("core", &self.handle().core).finish_non_exhaustive()
    }
}

type Known = HashMap<KeyspaceId, Arc<Identity>>;

/// What all handles share: the core, and what must be given up at close.
///
/// Handles come and go, so it is not on the cache line where they are counted.
#[repr(align(128))]
pub(crate) struct Handle {
    pub(crate) core: Arc<Core>,
    /// Tells this open database apart from all others of the process.
    number: u64,
    /// How many keyspaces were dropped.
    drops: AtomicU64,
    closed: AtomicBool,
    /// True once a thread leads for commits behind futures, or none is needed. Relaxed: the lock of `resources` decides.
    has_driver: AtomicBool,
    resources: Mutex<Resources>,
    keyspaces: Mutex<Known>,
    /// True for a handle that a background thread uses: it does not keep the database open.
    beside: bool,
}

struct Resources {
    threads: Vec<JoinHandle<()>>,
    lock: Option<Box<dyn FileLock>>,
}

thread_local! {
    /// The batch that single writes are built in.
    static SCRATCH: RefCell<WriteBatch> = RefCell::new(WriteBatch::new());
}

/// A scratch batch that has grown beyond this is given back to the system.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

impl Handle {
    pub(crate) fn new(
        core: Arc<Core>,
        threads: Vec<JoinHandle<()>>,
        lock: Option<Box<dyn FileLock>>,
    ) -> Self {
        Self::with(core, Resources { threads, lock }, false)
    }

    /// A handle for a background thread of an open database.
    pub(crate) fn beside(core: &Arc<Core>) -> Arc<Self> {
        let nothing = Resources { threads: Vec::new(), lock: None };
        Arc::new(Self::with(Arc::clone(core), nothing, true))
    }

    fn with(core: Arc<Core>, resources: Resources, beside: bool) -> Self {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        // Without a log nothing ever waits for a device.
        let no_log = core.pool.is_none();
        Self {
            core,
            number: OPENED.fetch_add(1, Ordering::Relaxed),
            drops: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            resources: Mutex::new(resources),
            has_driver: AtomicBool::new(no_log),
            keyspaces: Mutex::default(),
            beside,
        }
    }

    fn known_keyspaces(&self) -> MutexGuard<'_, Known> {
        self.keyspaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Closed, "the database is closed"));
        }
        Ok(())
    }

    /// Says that keyspaces were dropped.
    pub(crate) fn dropped(&self) {
        self.drops.fetch_add(1, Ordering::Release);
        self.core.views.collect();
    }

    /// What a batch remembers when it uses a keyspace of this database.
    pub(crate) fn origin(&self) -> Origin {
        Origin { database: self.number, drops: self.drops.load(Ordering::Acquire) }
    }

    /// An error if the batch names keyspaces of another database, or keyspaces that were dropped since.
    ///
    /// A drop at this very moment is not seen; what is written then goes the way of everything in the keyspace.
    pub(crate) fn check_origin(&self, batch: &WriteBatch) -> Result<()> {
        batch.check()?;
        let Some(origin) = batch.origin() else { return Ok(()) };
        let current = self.origin();
        if origin.database != current.database {
            return Err(Error::invalid(
                "the batch uses a keyspace of another open database; get the keyspace from the \
                 database that the batch is written to",
            ));
        }
        if origin.drops == current.drops {
            return Ok(());
        }
        let mut known = KeyspaceId::DEFAULT;
        for record in Records::new(batch.bytes()).flatten() {
            let id = KeyspaceId::of(record.key).unwrap_or(known);
            if id != known && self.core.versions.keyspace(id).is_none() {
                return Err(Error::new(
                    ErrorKind::KeyspaceNotFound,
                    "the batch writes to a keyspace that was dropped meanwhile",
                ));
            }
            known = id;
        }
        Ok(())
    }

    /// Writes a batch if a condition holds when it gets its place. Gives the sequence number of its last record.
    pub(crate) fn commit_batch(
        &self,
        batch: &WriteBatch,
        options: &WriteOptions,
        terms: CommitTerms<'_>,
    ) -> Result<Sequence> {
        self.check_origin(batch)?;
        let terms = CommitTerms { durability: self.durability(options), ..terms };
        let last = self.core.pipeline.commit(batch, terms)?;
        self.count_written(batch);
        Ok(last)
    }

    /// Starts to write a batch, if a condition holds when it gets its place.
    pub(crate) fn commit_batch_later(
        &self,
        batch: &WriteBatch,
        options: &WriteOptions,
        terms: CommitTerms<'_>,
    ) -> Result<CommitFuture> {
        self.check_origin(batch)?;
        self.start_driver()?;
        let terms = CommitTerms { durability: self.durability(options), ..terms };
        let placed = self.core.pipeline.commit_later(batch, terms)?;
        self.count_written(batch);
        Ok(placed.map_or_else(
            || CommitFuture::settled(Ok(())),
            |(ticket, last)| CommitFuture::new(Arc::clone(&self.core), ticket, last),
        ))
    }

    fn durability(&self, options: &WriteOptions) -> Durability {
        match options.durability.unwrap_or(self.core.options.durability) {
            Durability::Periodic(_) => Durability::Buffered,
            other => other,
        }
    }

    fn count_written(&self, batch: &WriteBatch) {
        let bytes = batch.size_bytes() as u64;
        self.core.counters.user_bytes_written.own().fetch_add(bytes, Ordering::Relaxed);
    }

    /// Starts the thread that leads for commits behind futures, if it is not there yet.
    fn start_driver(&self) -> Result<()> {
        if self.has_driver.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut resources = self.resources.lock().unwrap_or_else(PoisonError::into_inner);
        // After the lock: a close that has taken the threads down already was marked before.
        self.check_open()?;
        if !self.has_driver.load(Ordering::Relaxed) {
            let thread = background::start_thread(&self.core, "rustlite-commit".into(), |core| {
                core.pipeline.drive();
            })?;
            resources.threads.push(thread);
            self.has_driver.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes what `fill` puts into a batch, without allocating one.
    pub(crate) fn write_one(
        self: &Arc<Self>,
        options: &WriteOptions,
        fill: impl FnOnce(&mut WriteBatch),
    ) -> Result<()> {
        SCRATCH.with(|scratch| {
            // A key's `AsRef` that writes to a database itself finds the scratch taken.
            let Ok(mut batch) = scratch.try_borrow_mut() else {
                let mut batch = WriteBatch::new();
                fill(&mut batch);
                return self.write(&batch, options).map(drop);
            };
            batch.clear();
            fill(&mut batch);
            let result = self.write(&batch, options).map(drop);
            if batch.size_bytes() > SCRATCH_BYTES_MAX {
                *batch = WriteBatch::new();
            }
            result
        })
    }

    /// An error if the database is closed or was opened read-only.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        self.check_not_read_only()
    }

    fn check_not_read_only(&self) -> Result<()> {
        if self.core.options.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the database was opened read-only"));
        }
        Ok(())
    }

    pub(crate) fn flush(&self) -> Result<()> {
        self.check_not_read_only()?;
        let up_to = self.core.pipeline.freeze_active()?;
        self.core.pipeline.wait_until_flushed(up_to)
    }

    pub(crate) fn compact(&self, range: &KeyRange) -> Result<()> {
        self.flush()?;
        background::compact_range(&self.core, range)
    }

    fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let core = &self.core;
        core.pipeline.close();
        let result = if core.options.read_only { Ok(()) } else { self.settle_data() };
        core.signals.stop();
        core.pipeline.stop_driver();
        core.pipeline.ahead().stop();
        if let Some(pool) = &core.pool {
            pool.close();
        }
        let mut resources = self.resources.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in resources.threads.drain(..) {
            // A panic of a background thread has poisoned the pipeline already.
            let _ = thread.join();
        }
        // What the last compaction has replaced: the threads were the last to hold it.
        core.views.collect_last();
        if let Err(error) = core.versions.remove_obsolete() {
            tracing::warn!(%error, "an unneeded table stays until the next open");
        }
        if let (Some(pool), None) = (&core.pool, core.pipeline.failure()) {
            let released = core.pipeline.release_log(core.versions.log_start());
            if let Err(error) = pool.trim(released) {
                tracing::warn!(%error, "log segments that nobody needs stay until the next open");
            }
        }
        resources.lock = None;
        result
    }

    /// Brings everything into tables, or at least onto the disk.
    fn settle_data(&self) -> Result<()> {
        if let Some(first) = self.core.pipeline.failure() {
            return Err(Error::poisoned(first));
        }
        let Err(error) = self.flush() else { return Ok(()) };
        tracing::warn!(%error, "closing without a flush: the log will be replayed at the next open");
        self.core.pipeline.sync()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.beside {
            return;
        }
        if let Err(error) = self.close() {
            tracing::error!(%error, "the database did not close cleanly");
        }
    }
}
