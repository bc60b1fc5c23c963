//! The background threads: one for the log, one for flushes, one for what commits will need, the rest for compactions.
//!
//! Flushes have a thread of their own because writers wait for them; compactions only make writers slower, and take the processor only
//! where nobody else wants much of it (writers who are too quick for them are delayed, which is what gives them time). All threads look for work,
//! and when there is none, sleep until [`Signals`](crate::core::Signals) says that something has changed.
//!
//! Failures: a flush or compaction that cannot read or write a table (a full disk, a failing device, no file handles left) loses nothing:
//! its inputs stay, what it wrote is removed, it is tried again, and writers that would have to wait for it are told why. A manifest that
//! nobody can vouch for poisons the pipeline; one that is only full is as it was (see [`Core::recorded`]).

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustlite_io::processor::Aside;

use crate::commit::stall::Pressure;
use crate::compaction::flush::write_tables;
use crate::compaction::job::{self, JobContext};
use crate::compaction::output::{self, NewTable, OutputContext};
use crate::compaction::picker::{
    Bounds, Cursors, PickerInput, RangePick, Rewrite, level0_merge_bytes, pick, pick_range,
};
use crate::compaction::plan::{KeyRange as KeySpan, Plan, Reason, Running};
use crate::compaction::retention::Retention;
use crate::compaction::targets;
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyspaceId, Sequence};
use crate::limits::LEVELS;
use crate::manifest::{Version, VersionEdit};
use crate::options::Durability;
use crate::read::view::{FrozenMemtable, View};
use crate::read::visible::KeyRange;
use crate::sstable::{Table, TableMeta};
use crate::values::Movable;
use crate::wal::Lsn;

/// How long a thread without work sleeps at most.
const IDLE: Duration = Duration::from_secs(1);

/// How long to wait before trying again what failed.
const RETRY: Duration = Duration::from_millis(200);

/// How far threads step back behind writers and readers: so far that the system seldom takes a processor from those, not so far
/// that writers who use all processors wait for memory, or outrun compactions until they are delayed.
const FLUSH_STEPS_BACK: i32 = 5;
const AHEAD_STEPS_BACK: i32 = 5;
const COMPACTION_STEPS_BACK: i32 = 15;

/// What compactions are under way.
#[derive(Debug, Default)]
pub(crate) struct CompactionState {
    running: Running,
    cursors: Cursors,
    /// The last failure, until a compaction succeeds.
    failure: Option<Error>,
    /// What should move of the value files of the newest version.
    movable: Movable,
    /// When the last flush ended.
    flushed_at: Duration,
    /// How many wait until everything is settled: nobody is writing, they say.
    settling: usize,
}

/// Starts the threads of a database. None for one that is open read-only.
pub(crate) fn background_threads(core: &Arc<Core>) -> Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    if core.options.read_only {
        return Ok(threads);
    }
    let version = core.versions.current();
    core.update_pressure(&version);
    core.update_movable(&version);
    core.compactions().flushed_at = core.clock.monotonic();
    let mut start = |name: String, run: fn(&Core)| {
        start_thread(core, name, move |core| run(core)).map(|thread| threads.push(thread))
    };
    let mut started = start("rustlite-flush".into(), flush_loop)
        .and_then(|()| start("rustlite-ahead".into(), ahead_loop));
    if core.pool.is_some() {
        started = started.and_then(|()| start("rustlite-log".into(), log_loop));
    }
    for number in 0..core.options.background_threads {
        started =
            started.and_then(|()| start(format!("rustlite-compact-{number}"), compaction_loop));
    }
    if let Err(error) = started {
        core.signals.stop();
        core.pipeline.ahead().stop();
        threads.into_iter().for_each(|thread| drop(thread.join()));
        return Err(error);
    }
    Ok(threads)
}

/// Starts one thread of a database. A panic in it poisons the pipeline.
pub(crate) fn start_thread(
    core: &Arc<Core>,
    name: String,
    run: impl FnOnce(&Arc<Core>) + Send + 'static,
) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(core);
    let guarded = move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&shared)));
        if result.is_err() {
            let panic = Error::new(ErrorKind::Internal, "a background thread panicked");
            shared.pipeline.fail(panic);
        }
    };
    let spawned = std::thread::Builder::new().name(name).spawn(guarded);
    spawned.map_err(|error| Error::new(ErrorKind::Io, format!("cannot start a thread: {error}")))
}

/// Keeps a log segment ready, and syncs the log where the durability asks for it.
fn log_loop(core: &Core) {
    let Some(pool) = &core.pool else { return };
    let aside = Aside::of_this_thread();
    let patience = match core.options.durability {
        Durability::Periodic(interval) => interval,
        _ => IDLE,
    };
    while !core.signals.is_stopping() {
        if let Err(error) = pool.prepare_ahead(patience, &aside) {
            // A commit that needs the segment will try again and report it.
            tracing::warn!(%error, "no log segment could be prepared");
            core.signals.wait(core.signals.generation(), RETRY);
        }
        if matches!(core.options.durability, Durability::Periodic(_)) {
            // A failure poisons the pipeline, which tells everybody.
            let _ = core.pipeline.sync();
        }
    }
}

fn ahead_loop(core: &Core) {
    core.file_system.lower_priority(AHEAD_STEPS_BACK);
    core.pipeline.run_ahead();
}

fn flush_loop(core: &Core) {
    core.file_system.lower_priority(FLUSH_STEPS_BACK);
    loop {
        let seen = core.signals.generation();
        core.views.collect();
        if let Err(error) = core.versions.remove_obsolete() {
            tracing::warn!(%error, "an unneeded table could not be removed; trying again later");
        }
        let oldest = core.views.with(|view| view.frozen.last().cloned());
        let Some(oldest) = oldest else {
            if core.signals.is_stopping() {
                return;
            }
            core.signals.wait(seen, IDLE);
            continue;
        };
        if core.pipeline.failure().is_some() || !core.pipeline.wait_visible(oldest.last_sequence) {
            if core.signals.is_stopping() {
                return;
            }
            core.signals.wait(seen, IDLE);
            continue;
        }
        if let Err(error) = flush(core, &oldest) {
            tracing::warn!(%error, "a flush failed and will be tried again");
            core.pipeline.flush_failed(error);
            if core.signals.is_stopping() {
                return;
            }
            core.signals.wait(core.signals.generation(), RETRY);
        }
    }
}

/// Makes tables of a frozen memtable, and a version of the tables.
fn flush(core: &Core, frozen: &Arc<FrozenMemtable>) -> Result<()> {
    let _first = core.precedence.flush();
    let boundaries = core.snapshots.boundaries(|| core.pipeline.visible());
    let retention = Retention::new(boundaries, false, &core.rules);
    let tables = write_tables(&core.output_context(), frozen, &retention)?;
    let written: u64 = tables.iter().map(NewTable::bytes_written).sum();
    let edit = VersionEdit {
        log_start: core.pool.as_ref().map(|_| frozen.log_end),
        last_sequence: Some(frozen.last_sequence),
        ..VersionEdit::default()
    };
    core.install(edit, 0, &tables, Some(frozen))?;
    core.compactions().flushed_at = core.clock.monotonic();
    core.counters.flushes.fetch_add(1, Ordering::Relaxed);
    core.counters.flush_bytes_written.fetch_add(written, Ordering::Relaxed);
    let released = core.pipeline.flushed(frozen.log_end);
    if let Some(pool) = &core.pool
        && let Err(error) = pool.retire(&released)
    {
        tracing::warn!(%error, "log segments that nobody needs stay until the next open");
    }
    core.signals.wake();
    Ok(())
}

fn compaction_loop(core: &Core) {
    core.file_system.lower_priority(COMPACTION_STEPS_BACK);
    while !core.signals.is_stopping() {
        let seen = core.signals.generation();
        let Some(plan) = core.next_plan() else {
            core.signals.wait(seen, IDLE);
            continue;
        };
        if core.run_plan(&plan).is_err() {
            core.signals.wait(core.signals.generation(), RETRY);
        }
    }
}

/// Runs compactions on the calling thread until everything between two keys is in one level, without anything that nobody can see.
pub(crate) fn compact_range(core: &Core, range: &KeyRange) -> Result<()> {
    let rewrite = Rewrite {
        before: core.versions.new_file_number(),
        // A filter wants to see everything, also what needs no other change.
        clean_too: KeyspaceId::of(&range.start)
            .is_some_and(|keyspace| core.rules.of(keyspace).filter.is_some()),
    };
    let bounds = Bounds { lo: Some(&range.start), hi: Some(&range.end) };
    loop {
        let seen = core.signals.generation();
        if let Some(failure) = core.pipeline.failure() {
            return Err(Error::poisoned(failure));
        }
        if core.signals.is_stopping() {
            return Err(Error::new(ErrorKind::Closed, "the database is closed"));
        }
        let picked = {
            let mut state = core.compactions();
            let version = core.versions.current();
            let picked = pick_range(core.picker_input(&version, &state), bounds, rewrite);
            if let RangePick::Plan(plan) = &picked {
                state.running.add(plan);
            }
            picked
        };
        match picked {
            RangePick::Plan(plan) => core.run_plan(&plan)?,
            RangePick::Busy => core.signals.wait(seen, IDLE),
            RangePick::Done => return Ok(()),
        }
    }
}

/// The lowest level for a table that is newer than everything: nothing of its range may lie above or beside it.
fn ingest_level(version: &Version, running: &Running, meta: &TableMeta) -> usize {
    let range = KeySpan::of(meta);
    if running.touches(&range) {
        return 0;
    }
    let free = |level: &usize| range.overlapping_in(version, *level).is_empty();
    (0..LEVELS).take_while(free).last().unwrap_or(0)
}

/// Waits until no compaction is running and none is due, also none that would wait for a pause of the writers.
pub(crate) fn wait_until_settled(core: &Core) -> Result<()> {
    let _settling = Settling::begin(core);
    loop {
        let seen = core.signals.generation();
        if let Some(failure) = core.pipeline.failure() {
            return Err(Error::poisoned(failure));
        }
        {
            let state = core.compactions();
            if let Some(failure) = &state.failure {
                return Err(failure.clone().context("compactions fail"));
            }
            let version = core.versions.current();
            let idle =
                state.running.is_empty() && pick(core.picker_input(&version, &state)).is_none();
            if idle && core.views.with(|view| view.frozen.is_empty()) {
                return Ok(());
            }
        }
        core.signals.wait(seen, IDLE);
    }
}

/// Somebody waits until everything is settled, until this is dropped.
struct Settling<'a>(&'a Core);

impl<'a> Settling<'a> {
    fn begin(core: &'a Core) -> Self {
        core.compactions().settling += 1;
        core.signals.wake();
        Self(core)
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.compactions().settling -= 1;
    }
}

impl Core {
    fn compactions(&self) -> MutexGuard<'_, CompactionState> {
        self.compactions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn picker_input<'a>(
        &'a self,
        version: &'a Version,
        state: &'a CompactionState,
    ) -> PickerInput<'a> {
        PickerInput {
            version,
            options: &self.options,
            running: &state.running,
            cursors: &state.cursors,
            now: self.rules.now(),
            reads_pay: self.read_cost.is_paid(),
            quiet: match state.settling {
                0 => self.clock.monotonic().saturating_sub(state.flushed_at),
                _ => Duration::MAX,
            },
            movable: &state.movable,
        }
    }

    /// The next compaction that is due, marked as running.
    fn next_plan(&self) -> Option<Plan> {
        if self.pipeline.failure().is_some() {
            return None;
        }
        let mut state = self.compactions();
        let version = self.versions.current();
        let plan = pick(self.picker_input(&version, &state))?;
        state.running.add(&plan);
        state.cursors.advance(&plan);
        if plan.reason == Reason::Reads {
            self.read_cost.reset();
        }
        Some(plan)
    }

    /// Carries out a plan that was marked as running.
    fn run_plan(&self, plan: &Plan) -> Result<()> {
        let result = self.carry_out(plan);
        let mut state = self.compactions();
        state.running.remove(plan);
        state.failure = match &result {
            Ok(()) => None,
            Err(error) if error.kind() == ErrorKind::Closed => None,
            Err(error) => Some(error.clone()),
        };
        drop(state);
        if let Some(error) = result.as_ref().err().filter(|error| error.kind() != ErrorKind::Closed)
        {
            tracing::error!(%error, %plan, "a compaction failed; its inputs stay");
        }
        self.signals.wake();
        result
    }

    fn carry_out(&self, plan: &Plan) -> Result<()> {
        let edit = VersionEdit { removed: plan.removals(), ..VersionEdit::default() };
        if plan.is_trivial_move() {
            let moved = plan.inputs.iter().map(|handle| (plan.output_level, handle.meta.clone()));
            let edit = VersionEdit { added: moved.collect(), ..edit };
            self.apply(edit, Vec::new(), None)?;
            self.counters.trivial_moves.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let boundaries = self.snapshots.boundaries(|| self.pipeline.visible());
        let retention = Retention::new(boundaries, plan.bottommost, &self.rules)
            .with_filters(self.snapshots.newest());
        let (running, moving) = {
            let state = self.compactions();
            let shares = plan.all_inputs().flat_map(|table| &table.meta.values);
            (state.running.len(), state.movable.moving(shares))
        };
        let context = JobContext {
            output: OutputContext { limiter: Some(&self.limiter), moving, ..self.output_context() },
            retention: &retention,
            threads: (self.options.background_threads / running.max(1)).max(1),
            stop: self.signals.stop_flag(),
            precedence: &self.precedence,
        };
        let tables = job::run(&context, plan)?;
        let written: u64 = tables.iter().map(NewTable::bytes_written).sum();
        self.install(edit, plan.output_level, &tables, None)?;
        let count = |counter: &AtomicU64, by: u64| counter.fetch_add(by, Ordering::Relaxed);
        count(&self.counters.compactions, 1);
        count(&self.counters.compaction_bytes_read, plan.input_bytes());
        count(&self.counters.compaction_bytes_written, written);
        let values = tables.iter().map(NewTable::value_bytes_written).sum();
        count(&self.counters.compaction_value_bytes_written, values);
        Ok(())
    }

    /// For tables that somebody waits for.
    pub(crate) fn output_context(&self) -> OutputContext<'_> {
        OutputContext {
            env: &self.env,
            versions: &self.versions,
            limiter: None,
            table_bytes: self.options.table_bytes,
            moving: HashSet::new(),
        }
    }

    /// Opens new tables and makes them part of the database at `level`, together with the rest of `edit`.
    fn install(
        &self,
        mut edit: VersionEdit,
        level: usize,
        tables: &[NewTable],
        flushed: Option<&Arc<FrozenMemtable>>,
    ) -> Result<()> {
        edit.added = tables.iter().map(|new| (level, new.meta.clone())).collect();
        let installed = self.open_new(tables).and_then(|opened| self.apply(edit, opened, flushed));
        installed.inspect_err(|_| self.discard(tables))
    }

    /// Makes the names of new tables durable, and opens them.
    pub(crate) fn open_new(&self, tables: &[NewTable]) -> Result<Vec<Arc<Table>>> {
        if !tables.is_empty() {
            self.env.fs.sync_dir(&self.directory)?;
        }
        tables.iter().map(|new| Table::open(&self.env, &new.meta)).collect()
    }

    /// Removes the files of tables that have not become part of the database. They stay if the manifest may name them.
    pub(crate) fn discard(&self, tables: &[NewTable]) {
        if self.versions.failure().is_none() {
            tables.iter().for_each(|table| output::remove(&self.env, table));
        }
    }

    /// Makes the tables of an ingest part of the database, with `sequence` for all of their records, each in the lowest level that fits.
    /// Nothing is in memory, and nothing in the log below `log_end` is needed.
    pub(crate) fn install_ingested(
        &self,
        tables: &[NewTable],
        mut opened: Vec<Arc<Table>>,
        sequence: Sequence,
        log_end: Lsn,
    ) -> Result<()> {
        for table in &mut opened {
            let table = Arc::get_mut(table)
                .ok_or_else(|| Error::internal("a table is shared before it is installed"))?;
            table.set_sequence(sequence);
        }
        let given = |meta: &TableMeta| TableMeta {
            smallest_sequence: sequence,
            largest_sequence: sequence,
            ..meta.clone()
        };
        let levels = self.reserve_levels(tables);
        let metas = tables.iter().map(|new| given(&new.meta));
        let edit = VersionEdit {
            added: levels.into_iter().zip(metas).collect(),
            log_start: self.pool.as_ref().map(|_| log_end),
            last_sequence: Some(sequence),
            ..VersionEdit::default()
        };
        let result = self.apply(edit, opened, None);
        let mut state = self.compactions();
        tables.iter().for_each(|new| state.running.release(new.meta.number));
        drop(state);
        self.signals.wake();
        result?;
        let bytes = tables.iter().map(NewTable::bytes_written).sum();
        self.counters.ingest_bytes_written.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// For each of these new tables the lowest level that fits. No compaction begins that could write to its place there before it is
    /// released.
    fn reserve_levels(&self, tables: &[NewTable]) -> Vec<usize> {
        let mut state = self.compactions();
        let version = self.versions.current();
        // All first: what is reserved for one must not count as running for the next.
        let levels: Vec<usize> =
            tables.iter().map(|new| ingest_level(&version, &state.running, &new.meta)).collect();
        for (new, &level) in tables.iter().zip(&levels) {
            state.running.reserve(new.meta.number, level, KeySpan::of(&new.meta));
        }
        levels
    }

    /// Makes an edit durable and shows readers what comes of it.
    fn apply(
        &self,
        edit: VersionEdit,
        new_tables: Vec<Arc<Table>>,
        flushed: Option<&Arc<FrozenMemtable>>,
    ) -> Result<()> {
        let publish = |version: &Arc<Version>| self.publish(version, flushed);
        self.recorded(self.versions.apply_then(edit, new_tables, publish))?;
        self.views.collect();
        Ok(())
    }

    /// Shows readers a new version, and takes the memtable that was flushed into it away. Called in the order of the versions.
    pub(crate) fn publish(&self, version: &Arc<Version>, flushed: Option<&Arc<FrozenMemtable>>) {
        self.views.update(|view| {
            let stays = |frozen: &&Arc<FrozenMemtable>| {
                !flushed.is_some_and(|flushed| Arc::ptr_eq(frozen, flushed))
            };
            let frozen = view.frozen.iter().filter(stays).cloned().collect();
            View::new(
                Arc::clone(&view.active),
                frozen,
                Arc::clone(version),
                Arc::clone(&view.rules),
                Arc::clone(&view.read_cost),
            )
        });
        self.update_pressure(version);
        self.update_movable(version);
    }

    fn update_movable(&self, version: &Version) {
        let usage = self.rules.values.usage(version, self.options.table_bytes);
        self.compactions().movable = usage.movable;
    }

    fn update_pressure(&self, version: &Version) {
        self.read_cost.set_bytes(level0_merge_bytes(version, &self.options));
        self.pipeline.stall().set(Pressure {
            l0_runs: targets::level0_load(version, &self.options),
            debt_bytes: self.debt_bytes(version),
        });
    }

    /// Bytes by which levels exceed their targets.
    pub(crate) fn debt_bytes(&self, version: &Version) -> u64 {
        targets::debt_bytes(version, &self.options)
    }
}
