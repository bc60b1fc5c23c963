//! Power cuts and kills at every point of a workload: what is found afterwards is a prefix of what was committed, at least as
//! long as promised, and the database goes on from there, through further crashes and crashes during recovery.

use std::sync::Arc;

use rustlite_engine::Options;
use rustlite_io::{CrashPlan, SimFileSystem};

use crate::oracle::Oracle;
use crate::support::{Random, budget, describe, machine, open, seed, small_options};
use crate::workload::Runner;

/// Crashes of one history, the ones during recovery included.
const CRASHES_MAX: usize = 4;

/// One sequence of lives and crashes of a database.
struct History {
    /// What the first life does.
    workload: u64,
    random: Random,
    options: Options,
    oracle: Oracle,
    /// True if power was lost since the oracle last looked.
    power_was_lost: bool,
    /// What happened, for the report of a failure.
    story: Vec<String>,
}

impl History {
    fn new(seed: u64, options: Options) -> Self {
        Self {
            workload: seed,
            random: Random::new(seed),
            options,
            oracle: Oracle::new(),
            power_was_lost: false,
            story: Vec::new(),
        }
    }

    fn plan(&mut self) -> CrashPlan {
        match self.random.below(8) {
            0..=1 => CrashPlan::DropUnsynced,
            2 => CrashPlan::KeepAll,
            3..=5 => CrashPlan::Random(self.random.next()),
            _ => CrashPlan::ProcessKill,
        }
    }

    fn crash(&mut self, sim: &Arc<SimFileSystem>) -> Arc<SimFileSystem> {
        let plan = self.plan();
        self.power_was_lost |= plan != CrashPlan::ProcessKill;
        self.story.push(format!("{plan:?} at operation {}", sim.op_count()));
        sim.crash(&plan)
    }

    /// Opens, checks, writes and crashes. The power goes by itself at `cut`, if that is given.
    fn live(
        &mut self,
        sim: &Arc<SimFileSystem>,
        cut: Option<u64>,
        operations: usize,
    ) -> Arc<SimFileSystem> {
        if let Some(cut) = cut {
            self.story.push(format!("cut at {cut}"));
            sim.cut_power_at(cut);
        }
        let is_cut = || cut.is_some_and(|cut| sim.op_count() > cut);
        let db = match open(sim, self.options.clone()) {
            Ok(db) => db,
            Err(error) => {
                assert!(is_cut(), "{:?}: cannot open: {error}", self.story);
                return self.crash(sim);
            }
        };
        match self.oracle.check(&db, self.power_was_lost) {
            Ok(oracle) => {
                self.oracle = oracle;
                self.power_was_lost = false;
                let seed = std::mem::replace(&mut self.workload, self.random.next());
                let result = Runner::new(&db, &mut self.oracle, seed).run(operations);
                if let Err(error) = result {
                    assert!(is_cut(), "{:?}: {error}", self.story);
                }
            }
            // Reads fail when the power is off.
            Err(problem) => assert!(is_cut(), "{:?}: {problem}", self.story),
        }
        let after = self.crash(sim);
        drop(db);
        after
    }

    /// A whole history whose first life ends at `cut`.
    fn run(mut self, cut: Option<u64>, operations: usize) {
        let mut sim = self.live(&machine(7), cut, operations);
        for _ in 1..1 + self.random.below(CRASHES_MAX) {
            // Half of the time during or soon after recovery.
            let cut = match self.random.below(4) {
                0..=1 => Some(self.random.below(25) as u64),
                2 => Some(self.random.below(150) as u64),
                _ => None,
            };
            let operations = self.random.below(60);
            sim = self.live(&sim, cut, operations);
        }
        let found = describe(&sim);
        let db = open(&sim, self.options.clone())
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.story));
        let settled = self.oracle.check(&db, self.power_was_lost);
        let mut settled =
            settled.unwrap_or_else(|problem| panic!("{:?}: {problem}{found}", self.story));
        Runner::new(&db, &mut settled, 1).run(10).unwrap();
        db.close().unwrap_or_else(|error| panic!("{:?}: {error}", self.story));
        let db = open(&sim, self.options.clone()).unwrap();
        settled.check_now(&db).unwrap_or_else(|problem| panic!("{:?}: {problem}", self.story));
    }
}

/// Operations that change something in a run without a crash.
fn operations_of(seed: u64, options: &Options, operations: usize) -> u64 {
    let sim = machine(7);
    let mut history = History::new(seed, options.clone());
    history.live(&sim, None, operations);
    sim.op_count()
}

fn sweep(own_seed: u64, options: &Options, operations: usize, states: usize) {
    let seed = seed(own_seed);
    let total = operations_of(seed, options, operations);
    let mut random = Random::new(seed);
    let states = budget(states);
    for state in 0..states {
        // All points of a short workload, an even sample of a long one.
        let cut = if states as u64 >= total {
            state as u64 % total
        } else {
            (state as u64 * total + random.next() % total) / states as u64
        };
        let mut history = History::new(seed, options.clone());
        // The first life is the same each time; what follows is not.
        history.random = Random::new(seed ^ (state as u64) << 32);
        history.story.push(format!("seed {seed}, state {state}"));
        history.run(Some(cut), operations);
    }
}

#[test]
fn every_cut_of_a_short_workload_leaves_a_prefix_of_its_commits() {
    sweep(101, &small_options(), 40, 500);
}

#[test]
fn cuts_across_flushes_rotations_and_compactions_leave_a_prefix() {
    sweep(102, &small_options(), 600, 220);
}

#[test]
fn cuts_with_one_frame_in_flight_and_the_smallest_limits_leave_a_prefix() {
    let options = small_options().log_frames_in_flight(1).memtables_max(2);
    sweep(103, &options, 300, 180);
}
