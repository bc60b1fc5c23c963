//! Drives a store: the load phase and the run phase, with any number of threads, closed loop or at
//! a target rate.
//!
//! How time is measured: one clock reading per operation. In a closed loop an operation starts
//! where the one before it ended, so the driver's own work (drawing the operation, writing the key,
//! some tens of nanoseconds) is inside the latency of every engine alike. At a target rate an
//! operation starts when its schedule says it should have, whether or not the one before it was
//! done by then: a stall is charged to every operation it delayed (no coordinated omission).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, mpsc};
use std::time::{Duration, Instant};

use crate::counter::InsertCounter;
use crate::error::{Error, Failure, Result};
use crate::keys::{KeyShape, LoadOrder};
use crate::measure::Measures;
use crate::rng::Rng;
use crate::store::{Direction, Rewrite, Store};
use crate::timeline::Timeline;
use crate::workload::{
    Distribution, KeyChooser, LIFETIME, Operation, READ_MANY_RECORDS, Records, SCAN_RECORDS_MAX,
    TRANSACTION_RECORDS, TURNOVER_SHARE, Workload,
};

/// How often the caller hears of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Operations between two updates of the shared progress counter.
const PROGRESS_BATCH: u64 = 64;

/// How long before its due time a paced thread stops sleeping and spins: longer than a timer
/// usually oversleeps.
const SPIN: Duration = Duration::from_micros(80);

/// Records in the store that a run with a time limit, but no operation count, expects to see
/// inserted: this fraction.
const TIMED_INSERT_FRACTION: u64 = 10;

/// What to drive.
#[derive(Debug, Clone)]
pub struct Drive {
    /// The workload, or `None` to load `records` records.
    pub workload: Option<&'static Workload>,
    /// Overrides the workload's request distribution.
    pub distribution: Option<Distribution>,
    /// Records to load, or already loaded.
    pub records: u64,
    /// Operations of a run, all threads together; `None` for no bound but the time.
    pub operations: Option<u64>,
    /// Time limit of a run.
    pub seconds: Option<f64>,
    /// Threads.
    pub threads: usize,
    /// Operations per second of all threads together; `None` for as fast as possible.
    pub target_rate: Option<f64>,
    /// Seed of everything random.
    pub seed: u64,
    /// Size of a record, in bytes.
    pub value_size: usize,
    /// What keys look like.
    pub keys: KeyShape,
    /// In which order a load inserts them.
    pub order: LoadOrder,
}

/// What came of it.
#[derive(Debug)]
pub struct Driven {
    /// Latencies.
    pub measures: Measures,
    /// When operations were done.
    pub timeline: Timeline,
    /// Records that reads and scans have found.
    pub found: u64,
    /// From the start of the first thread to the end of the last operation.
    pub elapsed: Duration,
    /// Reads that didn't find a record that is surely there.
    pub missing: u64,
    /// Reads and scans that found something else than what was written, or in the wrong order, or
    /// too much.
    pub wrong: u64,
    /// Attempts of transactions that failed because of others, and were made again.
    pub aborts: u64,
    /// Records in the store now.
    pub records: u64,
}

/// State shared by the threads of a phase.
struct Shared<'a> {
    drive: &'a Drive,
    data: Records,
    /// The records of a load in their order, if it isn't that of their numbers.
    order: Option<Vec<u64>>,
    inserts: InsertCounter,
    chooser: KeyChooser,
    /// Held for writing until all threads exist; then says whether to begin. A barrier would leave
    /// the others waiting for ever when the system refuses one more thread.
    begin: RwLock<bool>,
    /// The zero of all timelines.
    origin: Instant,
    done: AtomicU64,
    stop: AtomicBool,
}

/// What one thread brings home.
struct ThreadResult {
    measures: Measures,
    timeline: Timeline,
    found: u64,
    started: Instant,
    ended: Instant,
    missing: u64,
    wrong: u64,
    aborts: u64,
}

/// Runs the phase to its end. `progress` hears the number of operations done, several times a
/// second; if it returns false, the phase is broken off.
///
/// # Errors
/// The first error of any thread; the others stop then.
pub fn drive(
    engine: &'static str,
    store: &dyn Store,
    drive: &Drive,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Driven> {
    let failed = |action, source| Error::Engine { engine, action, source };
    let mut handles = Vec::with_capacity(drive.threads);
    for _ in 0..drive.threads {
        handles.push(store.handle().map_err(|source| failed("opening a handle", source))?);
    }
    let shared = Shared::new(drive);
    let (sender, receiver) = mpsc::channel();
    let mut results = Vec::with_capacity(drive.threads);
    let mut first_error = None;
    std::thread::scope(|scope| {
        let mut begin = shared.begin.write().unwrap_or_else(PoisonError::into_inner);
        *begin = true;
        for (number, handle) in handles.into_iter().enumerate() {
            let (sender, shared) = (sender.clone(), &shared);
            let work = move || {
                let result = Worker::new(shared, number, handle).work();
                if result.is_err() {
                    shared.stop.store(true, Ordering::Relaxed);
                }
                // The receiver outlives the scope, so this can't fail.
                let _ = sender.send(result);
            };
            if let Err(source) = std::thread::Builder::new().spawn_scoped(scope, work) {
                first_error = Some(("starting a thread", source.into()));
                *begin = false;
                break;
            }
        }
        drop(begin);
        drop(sender);
        loop {
            match receiver.recv_timeout(PROGRESS_INTERVAL) {
                Ok(Ok(result)) => results.push(result),
                Ok(Err(error)) => first_error = first_error.take().or(Some(error)),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if !progress(shared.done.load(Ordering::Relaxed)) {
                        shared.stop.store(true, Ordering::Relaxed);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    if let Some((action, source)) = first_error {
        return Err(failed(action, source));
    }
    Ok(collect(&results, &shared))
}

fn collect(results: &[ThreadResult], shared: &Shared<'_>) -> Driven {
    let (mut measures, mut timeline) = (Measures::new(), Timeline::new());
    for result in results {
        measures.merge(&result.measures);
        timeline.merge(&result.timeline);
    }
    let started = results.iter().map(|result| result.started).min();
    let ended = results.iter().map(|result| result.ended).max();
    let elapsed = match (started, ended) {
        (Some(started), Some(ended)) => ended.duration_since(started),
        _ => Duration::ZERO,
    };
    Driven {
        measures,
        timeline,
        found: results.iter().map(|result| result.found).sum(),
        elapsed,
        missing: results.iter().map(|result| result.missing).sum(),
        wrong: results.iter().map(|result| result.wrong).sum(),
        aborts: results.iter().map(|result| result.aborts).sum(),
        records: shared.inserts.acknowledged(),
    }
}

impl<'a> Shared<'a> {
    fn new(drive: &'a Drive) -> Self {
        let (present, chooser) = match drive.workload {
            None => (0, KeyChooser::Uniform),
            Some(workload) => {
                let expected = match drive.operations {
                    Some(operations) => operations as f64 * workload.insert_share(),
                    None if workload.insert_share() > 0.0 => {
                        (drive.records / TIMED_INSERT_FRACTION) as f64
                    }
                    None => 0.0,
                };
                let distribution = drive.distribution.unwrap_or(workload.distribution);
                (drive.records, KeyChooser::new(distribution, drive.records, expected as u64))
            }
        };
        Self {
            drive,
            data: Records::new(drive.value_size, drive.seed),
            order: match drive.workload {
                None => drive.keys.load_order(drive.order, drive.records, drive.seed),
                Some(_) => None,
            },
            inserts: InsertCounter::new(present),
            chooser,
            begin: RwLock::new(false),
            origin: Instant::now(),
            done: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// The operations of thread `number`: an even share, the remainder to the first threads.
    fn quota(&self, number: usize) -> u64 {
        let total = match self.drive.workload {
            None => Some(self.drive.records),
            Some(_) => self.drive.operations,
        };
        let threads = self.drive.threads as u64;
        total.map_or(u64::MAX, |total| {
            total / threads + u64::from((number as u64) < total % threads)
        })
    }
}

/// The due times of one thread's operations.
struct Pace {
    start: Instant,
    interval_ns: f64,
}

impl Pace {
    /// When operation `index` is due.
    fn due(&self, index: u64) -> Instant {
        self.start + Duration::from_nanos((index as f64 * self.interval_ns) as u64)
    }

    /// Waits until then, if it isn't past already; false if told to stop meanwhile.
    fn wait_until(due: Instant, stop: &AtomicBool) -> bool {
        loop {
            let remaining = due.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return true;
            }
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            if remaining > SPIN {
                std::thread::sleep((remaining - SPIN).min(PROGRESS_INTERVAL));
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// One thread at work: its handle and its reused buffers.
struct Worker<'a> {
    shared: &'a Shared<'a>,
    number: usize,
    store: Box<dyn Store>,
    rng: Rng,
    chooser: KeyChooser,
    key: Vec<u8>,
    value: Vec<u8>,
    found: Vec<u8>,
    last_key: Vec<u8>,
    many_records: Vec<u64>,
    many_keys: Vec<Vec<u8>>,
    rewrites: Vec<Rewrite>,
    /// Records that this thread has added which come and go.
    passing: u64,
    records_found: u64,
    missing: u64,
    wrong: u64,
    aborts: u64,
}

type OperationResult<T> = std::result::Result<T, (&'static str, Failure)>;

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>, number: usize, store: Box<dyn Store>) -> Self {
        Self {
            shared,
            number,
            store,
            rng: Rng::new(shared.drive.seed, number as u64),
            chooser: shared.chooser.clone(),
            key: Vec::with_capacity(32),
            value: Vec::with_capacity(shared.drive.value_size),
            found: Vec::with_capacity(shared.drive.value_size),
            last_key: Vec::with_capacity(32),
            many_records: Vec::new(),
            many_keys: vec![Vec::new(); READ_MANY_RECORDS],
            rewrites: std::iter::repeat_with(Rewrite::default).take(TRANSACTION_RECORDS).collect(),
            passing: 0,
            records_found: 0,
            missing: 0,
            wrong: 0,
            aborts: 0,
        }
    }

    fn work(mut self) -> OperationResult<ThreadResult> {
        let drive = self.shared.drive;
        let quota = self.shared.quota(self.number);
        let limit = drive.seconds.filter(|_| drive.workload.is_some());
        let limit = limit.map_or(Duration::MAX, Duration::from_secs_f64);
        let (mut measures, mut timeline) = (Measures::new(), Timeline::new());
        let origin = self.shared.origin;
        let begin = *self.shared.begin.read().unwrap_or_else(PoisonError::into_inner);
        let quota = if begin { quota } else { 0 };
        let started = Instant::now();
        let pace = drive.target_rate.map(|rate| {
            let interval_ns = 1e9 * drive.threads as f64 / rate;
            // The threads take turns instead of all being due at the same moments.
            let offset = interval_ns * self.number as f64 / drive.threads as f64;
            Pace { start: started + Duration::from_nanos(offset as u64), interval_ns }
        });
        let mut previous = started;
        for index in 0..quota {
            if previous.duration_since(started) >= limit || self.shared.stop.load(Ordering::Relaxed)
            {
                break;
            }
            if let Some(pace) = &pace {
                let due = pace.due(index);
                if due.duration_since(started) >= limit {
                    break;
                }
                if !Pace::wait_until(due, &self.shared.stop) {
                    break;
                }
                previous = due;
            }
            let operation = self.step()?;
            let now = Instant::now();
            measures.record(operation, now.duration_since(previous).as_nanos() as u64);
            timeline.record(now.duration_since(origin), operation.writes());
            previous = now;
            if index % PROGRESS_BATCH == PROGRESS_BATCH - 1 {
                self.shared.done.fetch_add(PROGRESS_BATCH, Ordering::Relaxed);
            }
        }
        // Writes in flight count once they are there.
        self.store.finish().map_err(|source| ("a write in flight", source))?;
        let ended = if self.may_have_writes_in_flight() { Instant::now() } else { previous };
        let Self { missing, wrong, aborts, records_found: found, .. } = self;
        Ok(ThreadResult { measures, timeline, found, started, ended, missing, wrong, aborts })
    }

    /// One operation.
    fn step(&mut self) -> OperationResult<Operation> {
        let Some(workload) = self.shared.drive.workload else {
            return self.insert(Operation::Insert);
        };
        let operation = workload.choose(&mut self.rng);
        match operation {
            Operation::Insert | Operation::InsertInFlight => return self.insert(operation),
            Operation::Turnover | Operation::InsertExpiring => return self.pass(operation),
            _ => {}
        }
        let acknowledged = self.shared.inserts.acknowledged();
        let record = self.chooser.draw(&mut self.rng, acknowledged);
        let keys = self.shared.drive.keys;
        keys.write(&mut self.key, record);
        match operation {
            Operation::Scan => self.scan(record, workload.scan_records_min)?,
            Operation::Update => self.update(record)?,
            Operation::Read => self.read(record)?,
            Operation::ReadModifyWrite => {
                self.read(record)?;
                self.update(record)?;
            }
            Operation::ReadAbsent => {
                keys.write_absent(&mut self.key, record);
                let found = self.store.read(&self.key, &mut self.found);
                self.wrong += u64::from(found.map_err(|source| ("a read", source))?);
            }
            Operation::ReadMany => self.read_many(record, acknowledged)?,
            Operation::ScanForward => self.scan_all(Direction::Forward)?,
            Operation::ScanBackward => self.scan_all(Direction::Backward)?,
            Operation::Transaction | Operation::TransactionInFlight => {
                self.transact(operation, record, acknowledged)?;
            }
            Operation::Insert
            | Operation::InsertInFlight
            | Operation::Turnover
            | Operation::InsertExpiring => unreachable!("inserts returned above"),
        }
        Ok(operation)
    }

    fn may_have_writes_in_flight(&self) -> bool {
        let mix = self.shared.drive.workload.map_or(&[][..], |workload| workload.mix);
        mix.iter().any(|(operation, _)| operation.stays_in_flight())
    }

    /// One insert. In flight, it is acknowledged before it is there: workloads that insert so don't
    /// read.
    fn insert(&mut self, operation: Operation) -> OperationResult<Operation> {
        let number = self.shared.inserts.take();
        let order = self.shared.order.as_ref();
        let record = order.and_then(|order| order.get(number as usize)).copied().unwrap_or(number);
        self.shared.drive.keys.write(&mut self.key, record);
        self.shared.data.write(&mut self.value, record, &mut self.rng);
        let inserted = match operation {
            Operation::InsertInFlight => self.store.insert_in_flight(&self.key, &self.value),
            _ => self.store.insert(&self.key, &self.value),
        };
        inserted.map_err(|source| ("an insert", source))?;
        self.shared.inserts.acknowledge(number);
        Ok(operation)
    }

    /// The number of a record that comes and goes: behind all loaded ones, and of this thread only.
    fn passing_record(&self, index: u64) -> u64 {
        let drive = self.shared.drive;
        drive.records + index * drive.threads as u64 + self.number as u64
    }

    /// Adds a record that comes and goes. Readers only ask for loaded ones, so none of them is
    /// surprised; what they pass over is what counts.
    fn pass(&mut self, operation: Operation) -> OperationResult<Operation> {
        let drive = self.shared.drive;
        let record = self.passing_record(self.passing);
        drive.keys.write(&mut self.key, record);
        self.shared.data.write(&mut self.value, record, &mut self.rng);
        if operation == Operation::InsertExpiring {
            let inserted = self.store.insert_expiring(&self.key, &self.value, LIFETIME);
            inserted.map_err(|source| ("an insert that expires", source))?;
        } else {
            self.store.insert(&self.key, &self.value).map_err(|source| ("an insert", source))?;
            let kept = (drive.records / TURNOVER_SHARE / drive.threads as u64).max(1);
            if let Some(oldest) = self.passing.checked_sub(kept) {
                let oldest = self.passing_record(oldest);
                drive.keys.write(&mut self.key, oldest);
                self.store.delete(&self.key).map_err(|source| ("a delete", source))?;
            }
        }
        self.passing += 1;
        Ok(operation)
    }

    fn read(&mut self, record: u64) -> OperationResult<()> {
        let read = self.store.read(&self.key, &mut self.found);
        if !read.map_err(|source| ("a read", source))? {
            self.missing += 1;
        } else if !self.shared.data.matches(&self.found, record) {
            self.wrong += 1;
        } else {
            self.records_found += 1;
        }
        Ok(())
    }

    /// Draws more records to be used together with `first`; may they be the same, or must they be distinct?
    fn draw_more(&mut self, first: u64, count: usize, acknowledged: u64, distinct: bool) {
        self.many_records.clear();
        self.many_records.push(first);
        while self.many_records.len() < count {
            let record = self.chooser.draw(&mut self.rng, acknowledged);
            if !distinct || !self.many_records.contains(&record) {
                self.many_records.push(record);
            }
        }
    }

    fn read_many(&mut self, first: u64, acknowledged: u64) -> OperationResult<()> {
        self.draw_more(first, READ_MANY_RECORDS, acknowledged, false);
        let Self { store, shared, many_records, many_keys, found, .. } = self;
        for (key, record) in many_keys.iter_mut().zip(many_records.iter()) {
            shared.drive.keys.write(key, *record);
        }
        let (mut right, mut missing, mut wrong) = (0, 0, 0);
        let visit = &mut |index: usize, value: Option<&[u8]>| match value {
            None => missing += 1,
            Some(value) => {
                found.clear();
                found.extend_from_slice(value);
                let expected = many_records.get(index).copied();
                let matches = expected.is_some_and(|record| shared.data.matches(found, record));
                *if matches { &mut right } else { &mut wrong } += 1;
            }
        };
        store.read_many(many_keys, visit).map_err(|source| ("a read of many keys", source))?;
        let seen: u64 = right + missing + wrong;
        self.records_found += right;
        self.missing += missing;
        // An engine that leaves keys out, or answers one twice, is wrong too.
        self.wrong += wrong + seen.abs_diff(READ_MANY_RECORDS as u64);
        Ok(())
    }

    /// Reads everything. Checked are the number of records, their order by the first eight bytes of
    /// the keys, and that their stamps add up: little work for each, so that the engine's shows.
    fn scan_all(&mut self, direction: Direction) -> OperationResult<()> {
        let Self { store, shared, .. } = self;
        let expected = shared.inserts.acknowledged();
        let (mut seen, mut sum, mut in_order, mut last_head) = (0u64, 0u64, true, None);
        let visit = &mut |key: &[u8], value: &[u8]| {
            let mut head = [0; 8];
            let length = key.len().min(8);
            head[..length].copy_from_slice(&key[..length]);
            let head = u64::from_be_bytes(head);
            in_order &= last_head.is_none_or(|last| match direction {
                Direction::Forward => last <= head,
                Direction::Backward => last >= head,
            });
            last_head = Some(head);
            seen += 1;
            sum = sum.wrapping_add(shared.data.stamp(value).unwrap_or(0));
        };
        store.scan_all(direction, visit).map_err(|source| ("a full scan", source))?;
        let whole = shared.drive.value_size >= 8;
        let right_sum = u128::from(expected) * u128::from(expected.saturating_sub(1)) / 2;
        self.records_found += seen;
        self.missing += expected.saturating_sub(seen);
        self.wrong += u64::from(seen > expected || !in_order || (whole && sum != right_sum as u64));
        Ok(())
    }

    fn update(&mut self, record: u64) -> OperationResult<()> {
        self.shared.data.write(&mut self.value, record, &mut self.rng);
        self.store.update(&self.key, &self.value).map_err(|source| ("an update", source))
    }

    /// Rewrites several different records, `first` among them, in one transaction.
    fn transact(
        &mut self,
        operation: Operation,
        first: u64,
        acknowledged: u64,
    ) -> OperationResult<()> {
        if acknowledged < TRANSACTION_RECORDS as u64 {
            let too_few = format!("it takes at least {TRANSACTION_RECORDS} records");
            return Err(("a transaction", too_few.into()));
        }
        self.draw_more(first, TRANSACTION_RECORDS, acknowledged, true);
        let Self { store, shared, many_records, rewrites, rng, .. } = self;
        for (rewrite, record) in rewrites.iter_mut().zip(many_records.iter()) {
            shared.drive.keys.write(&mut rewrite.key, *record);
            shared.data.write(&mut rewrite.value, *record, rng);
        }
        let committed = match operation {
            Operation::TransactionInFlight => store.transact_in_flight(rewrites),
            _ => store.transact(rewrites),
        };
        self.aborts += committed.map_err(|source| ("a transaction", source))?;
        for (rewrite, record) in rewrites.iter().zip(many_records.iter()) {
            let matches = shared.data.matches(&rewrite.found, *record);
            self.missing += u64::from(!rewrite.was_there);
            self.wrong += u64::from(rewrite.was_there && !matches);
            self.records_found += u64::from(rewrite.was_there && matches);
        }
        Ok(())
    }

    fn scan(&mut self, record: u64, records_min: u64) -> OperationResult<()> {
        let spread = SCAN_RECORDS_MAX + 1 - records_min;
        let count = (records_min + self.rng.below(spread)) as usize;
        let Self { store, key, found, last_key, shared, .. } = self;
        let (mut seen, mut in_order, mut first_is_it) = (0usize, true, false);
        let visit = &mut |found_key: &[u8], found_value: &[u8]| {
            found.clear();
            found.extend_from_slice(found_value);
            if seen == 0 {
                first_is_it = found_key == key && shared.data.matches(found, record);
            } else {
                in_order &= found_key > last_key.as_slice();
            }
            last_key.clear();
            last_key.extend_from_slice(found_key);
            seen += 1;
        };
        store.scan(key, count, visit).map_err(|source| ("a scan", source))?;
        self.records_found += seen as u64;
        // A scan starts at a record that is there.
        self.missing += u64::from(seen == 0);
        self.wrong += u64::from(seen > count || !in_order || (seen > 0 && !first_is_it));
        Ok(())
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
