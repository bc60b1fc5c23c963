//! Tests of the driver against stores in memory that are right, slow, forgetful or broken on
//! purpose.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use super::*;
use crate::workload::{SINGLES, WORKLOADS};

/// What is wrong with a store.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Every tenth read finds nothing.
    Forgets,
    /// Reads give another record's content.
    Confuses,
    /// Scans give one record too many.
    Overshoots,
    /// Every write fails.
    Fails,
    /// One read in the middle takes this long.
    Stalls(Duration),
}

#[derive(Clone)]
struct Memory {
    records: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
    reads: Arc<AtomicU64>,
    fault: Fault,
}

fn memory(fault: Fault) -> Memory {
    Memory { records: Arc::default(), reads: Arc::default(), fault }
}

impl Store for Memory {
    fn configuration(&self) -> String {
        "in memory".into()
    }

    fn handle(&self) -> std::result::Result<Box<dyn Store>, Failure> {
        Ok(Box::new(self.clone()))
    }

    fn read(&mut self, key: &[u8], value: &mut Vec<u8>) -> std::result::Result<bool, Failure> {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::Forgets if number % 10 == 9 => return Ok(false),
            Fault::Stalls(time) if number == 100 => std::thread::sleep(time),
            _ => {}
        }
        let records = self.records.lock().unwrap();
        let Some(found) = records.get(key) else { return Ok(false) };
        value.clear();
        value.extend_from_slice(found);
        if self.fault == Fault::Confuses {
            value[0] ^= 1;
        }
        Ok(true)
    }

    fn update(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), Failure> {
        if self.fault == Fault::Fails {
            return Err("the disk is on fire".into());
        }
        self.records.lock().unwrap().insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> std::result::Result<(), Failure> {
        self.records.lock().unwrap().remove(key);
        Ok(())
    }

    /// Nothing here lives long enough to expire.
    fn insert_expiring(
        &mut self,
        key: &[u8],
        value: &[u8],
        _lifetime: Duration,
    ) -> std::result::Result<(), Failure> {
        self.update(key, value)
    }

    /// One step after the other: whoever gets in between writes the same values.
    fn transact(&mut self, records: &mut [Rewrite]) -> std::result::Result<u64, Failure> {
        for record in records.iter_mut() {
            let mut found = Vec::new();
            let was_there = self.read(&record.key, &mut found)?;
            record.set_found(was_there.then_some(&found[..]));
        }
        for record in records.iter() {
            self.update(&record.key, &record.value)?;
        }
        Ok(1)
    }

    fn scan(
        &mut self,
        start: &[u8],
        count: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> std::result::Result<(), Failure> {
        let records = self.records.lock().unwrap();
        let count = if self.fault == Fault::Overshoots { count + 1 } else { count };
        let range = records.range::<[u8], _>((Bound::Included(start), Bound::Unbounded));
        range.take(count).for_each(|(key, value)| visit(key, value));
        Ok(())
    }

    fn scan_all(
        &mut self,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> std::result::Result<(), Failure> {
        let records = self.records.lock().unwrap();
        let skip = usize::from(self.fault == Fault::Forgets);
        match direction {
            Direction::Forward => records.iter().skip(skip).for_each(|(k, v)| visit(k, v)),
            // Confused stores scan the wrong way round.
            Direction::Backward if self.fault == Fault::Confuses => {
                records.iter().for_each(|(k, v)| visit(k, v));
            }
            Direction::Backward => records.iter().rev().skip(skip).for_each(|(k, v)| visit(k, v)),
        }
        Ok(())
    }

    fn settle(&mut self) -> std::result::Result<(), Failure> {
        Ok(())
    }

    fn close(self: Box<Self>) -> std::result::Result<(), Failure> {
        Ok(())
    }
}

fn plan(workload: Option<&str>) -> Drive {
    Drive {
        workload: workload.map(|name| Workload::named(name).unwrap()),
        distribution: None,
        records: 2000,
        operations: Some(4001),
        seconds: None,
        threads: 3,
        target_rate: None,
        seed: 42,
        value_size: 100,
        keys: KeyShape::Ycsb,
        order: LoadOrder::Random,
    }
}

fn loaded(fault: Fault) -> Memory {
    let mut store = memory(Fault::None);
    drive("memory", &store, &plan(None), &mut |_| true).unwrap();
    store.fault = fault;
    store
}

#[test]
fn load_inserts_every_record_once() {
    let store = memory(Fault::None);
    let driven = drive("memory", &store, &plan(None), &mut |_| true).unwrap();
    assert_eq!(driven.measures.count(), 2000);
    assert_eq!(driven.records, 2000);
    assert_eq!(store.records.lock().unwrap().len(), 2000);
    assert!(driven.elapsed > Duration::ZERO);
}

#[test]
fn every_workload_does_exactly_the_operations_asked_for_and_finds_what_is_there() {
    for workload in &WORKLOADS {
        let store = loaded(Fault::None);
        let driven = drive("memory", &store, &plan(Some(workload.name)), &mut |_| true).unwrap();
        assert_eq!(driven.measures.count(), 4001, "workload {}", workload.name);
        assert_eq!((driven.missing, driven.wrong), (0, 0), "workload {}", workload.name);
        let by_operation = driven.measures.by_operation();
        assert_eq!(by_operation.len(), workload.mix.len(), "workload {}", workload.name);
        let inserted = by_operation.get(&Operation::Insert).map_or(0, |summary| summary.count);
        assert_eq!(driven.records, 2000 + inserted);
        assert_eq!(store.records.lock().unwrap().len() as u64, driven.records);
    }
}

#[test]
fn single_operations_find_what_is_there_and_nothing_else() {
    for workload in &SINGLES {
        let plan = Drive { operations: Some(40), threads: 1, ..plan(Some(workload.name)) };
        let driven = drive("memory", &loaded(Fault::None), &plan, &mut |_| true).unwrap();
        assert_eq!((driven.missing, driven.wrong), (0, 0), "workload {}", workload.name);
        let per_operation = match workload.name {
            "get" => 1..=1,
            "multi-get" => 32..=32,
            // Scans that begin in the last hundred records find fewer.
            "scan-100" => 80..=100,
            "scan-forward" | "scan-backward" => 2000..=2000,
            // About half of the operations scan.
            "scan-deleting" | "scan-expiring" => 25..=75,
            _ if workload.transacts() => 2..=2,
            _ => 0..=0,
        };
        assert!(per_operation.contains(&(driven.found / 40)), "workload {}", workload.name);
        assert_eq!(driven.aborts, if workload.transacts() { 40 } else { 0 });
        let gap = driven.timeline.summary().longest_write_gap_us;
        assert_eq!(gap.is_some(), workload.writes(), "workload {}", workload.name);
    }
}

#[test]
fn records_that_come_and_go_are_a_tenth_of_the_loaded_ones_at_a_time() {
    let plan = Drive { operations: Some(2000), threads: 2, ..plan(Some("scan-deleting")) };
    let store = loaded(Fault::None);
    let driven = drive("memory", &store, &plan, &mut |_| true).unwrap();
    assert_eq!(driven.records, 2000, "readers know of the loaded ones only");
    assert!(driven.measures.by_operation()[&Operation::Turnover].count > 500);
    assert_eq!(store.records.lock().unwrap().len(), 2200);
}

#[test]
fn lost_and_wrong_records_of_single_operations_are_counted() {
    let run = |fault, workload| {
        let plan = Drive { operations: Some(20), threads: 1, ..plan(Some(workload)) };
        drive("memory", &loaded(fault), &plan, &mut |_| true).unwrap()
    };
    assert_eq!(run(Fault::Forgets, "multi-get").missing, 64);
    assert_eq!(run(Fault::Confuses, "multi-get").wrong, 640);
    let forgetful = run(Fault::Forgets, "scan-forward");
    assert_eq!((forgetful.missing, forgetful.wrong), (20, 20));
    assert_eq!(run(Fault::Confuses, "scan-backward").wrong, 20);
    assert_eq!(run(Fault::Forgets, "transactions").missing, 4);
    assert_eq!(run(Fault::Confuses, "transactions").wrong, 40);
}

#[test]
fn transactions_over_too_few_records_are_refused() {
    let load = Drive { records: 1, ..plan(None) };
    let store = memory(Fault::None);
    drive("memory", &store, &load, &mut |_| true).unwrap();
    let plan = Drive { records: 1, ..plan(Some("transactions")) };
    let error = drive("memory", &store, &plan, &mut |_| true).unwrap_err();
    assert!(error.to_string().contains("at least 2 records"), "{error}");
}

#[test]
fn loads_of_every_order_insert_every_record_once() {
    for keys in [KeyShape::Uuid, KeyShape::Sequential, KeyShape::LongPrefix] {
        for order in [LoadOrder::Key, LoadOrder::Random] {
            let store = memory(Fault::None);
            let load = Drive { keys, order, ..plan(None) };
            drive("memory", &store, &load, &mut |_| true).unwrap();
            assert_eq!(store.records.lock().unwrap().len(), 2000);
            let scan = Drive { operations: Some(1), ..plan(Some("scan-forward")) };
            let scan = Drive { keys, threads: 1, ..scan };
            let driven = drive("memory", &store, &scan, &mut |_| true).unwrap();
            assert_eq!((driven.missing, driven.wrong), (0, 0), "{keys:?} {order:?}");
        }
    }
}

#[test]
fn lost_and_wrong_records_are_counted() {
    let run = |fault, workload| {
        drive("memory", &loaded(fault), &plan(Some(workload)), &mut |_| true).unwrap()
    };
    let forgetful = run(Fault::Forgets, "c");
    assert_eq!((forgetful.missing, forgetful.wrong), (400, 0));
    let confused = run(Fault::Confuses, "c");
    assert_eq!((confused.missing, confused.wrong), (0, 4001));
    let overshooting = run(Fault::Overshoots, "e");
    assert!(overshooting.wrong > 3000, "{}", overshooting.wrong);
}

#[test]
fn an_engine_error_ends_the_run_and_names_engine_and_operation() {
    let error =
        drive("memory", &loaded(Fault::Fails), &plan(Some("a")), &mut |_| true).unwrap_err();
    assert_eq!(error.to_string(), "memory: an update failed: the disk is on fire");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn time_limit_ends_a_run_without_an_operation_count() {
    let limited = Drive { operations: None, seconds: Some(0.2), ..plan(Some("d")) };
    let driven = drive("memory", &loaded(Fault::None), &limited, &mut |_| true).unwrap();
    assert!(driven.measures.count() > 100);
    let elapsed = driven.elapsed.as_secs_f64();
    assert!((0.2..2.0).contains(&elapsed), "{elapsed}");
}

#[test]
fn target_rate_is_kept() {
    let paced = Drive { operations: Some(400), target_rate: Some(1000.0), ..plan(Some("c")) };
    let driven = drive("memory", &loaded(Fault::None), &paced, &mut |_| true).unwrap();
    let elapsed = driven.elapsed.as_secs_f64();
    assert!((0.38..1.5).contains(&elapsed), "400 operations at 1000 a second took {elapsed} s");
}

#[test]
fn a_stall_is_charged_to_every_operation_that_it_delayed() {
    let stall = Duration::from_millis(200);
    let base = Drive { operations: Some(400), threads: 1, ..plan(Some("c")) };
    let paced = Drive { target_rate: Some(1000.0), ..base.clone() };
    let corrected = drive("memory", &loaded(Fault::Stalls(stall)), &paced, &mut |_| true).unwrap();
    // Operations fell due every millisecond during the stall: about half of all 400 waited, 100 ms
    // on average.
    assert!(corrected.measures.overall().p95 > 100_000.0, "{:?}", corrected.measures.overall());
    let closed = drive("memory", &loaded(Fault::Stalls(stall)), &base, &mut |_| true).unwrap();
    assert!(closed.measures.overall().p95 < 100_000.0);
    assert!(closed.measures.overall().max >= 200_000.0);
}

#[test]
fn progress_that_says_no_breaks_the_run_off() {
    let endless = Drive { operations: None, seconds: Some(60.0), ..plan(Some("c")) };
    let started = Instant::now();
    drive("memory", &loaded(Fault::None), &endless, &mut |_| false).unwrap();
    assert!(started.elapsed() < Duration::from_secs(20));
}
