//! What the picker chooses, by example, and that no sequence of its choices ever hides a newer version behind an older one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::compaction::targets::{debt_bytes, level0_load};
use crate::key::Sequence;
use crate::manifest::LiveFiles;
use crate::manifest::tests::{Random, files, handle, key, meta};
use crate::values::ValueShare;

/// Unix time, in milliseconds.
const NOW: Millis = 1_000_000;

fn rewrite(before: FileNumber) -> Rewrite {
    Rewrite { before, clean_too: false }
}

fn options() -> Options {
    Options::new().table_bytes(1000).level_base_bytes(4000).level_ratio(4).l0_compaction_trigger(2)
}

/// Tables of 1000 bytes as (level, number, first key, last key); the number is also the age.
fn version(tables: &[(usize, u64, &str, &str)]) -> Version<()> {
    let tables = tables
        .iter()
        .map(|&(level, number, lo, hi)| (level, handle(meta(number, lo, hi, (number, number)))));
    Version::new(tables.collect()).unwrap()
}

fn shown(version: &Version<()>, running: &Running) -> String {
    shown_at(version, running, false, Duration::ZERO)
}

fn shown_to_readers(version: &Version<()>, running: &Running, reads_pay: bool) -> String {
    shown_at(version, running, reads_pay, Duration::ZERO)
}

fn shown_at(version: &Version<()>, running: &Running, reads_pay: bool, quiet: Duration) -> String {
    let options = options();
    let input = PickerInput {
        version,
        options: &options,
        running,
        cursors: &Cursors::default(),
        now: NOW,
        reads_pay,
        quiet,
        movable: &Movable::default(),
    };
    pick(input).map_or_else(|| "nothing".into(), |plan| plan.to_string())
}

#[test]
fn level0_is_merged_when_writers_pause_if_it_takes_much_of_the_space() {
    let quiet = |version: &Version<()>, reads_pay| {
        shown_at(version, &Running::default(), reads_pay, Duration::from_secs(1))
    };
    let little = version(&[(0, 9, "a", "m"), (6, 1, "a", "g"), (6, 2, "h", "z")]);
    assert_eq!(quiet(&little, false), "nothing");
    let much = version(&[(0, 9, "a", "m"), (6, 1, "a", "z")]);
    assert_eq!(shown(&much, &Running::default()), "nothing");
    assert_eq!(quiet(&much, false), "Space L0 [9] + L6 [1] below [] bottommost");
    assert_eq!(quiet(&much, true), "Reads L0 [9] + L6 [1] below [] bottommost");
    let full = version(&[(0, 9, "a", "m"), (0, 10, "a", "m"), (6, 1, "a", "z")]);
    assert_eq!(quiet(&full, false), "Level0 L0 [9 10] + L6 [1] below [] bottommost");
}

#[test]
fn readers_pay_for_merging_level0_where_they_gain_by_it() {
    let idle = Running::default();
    let alone = version(&[(0, 1, "a", "m")]);
    assert_eq!(shown_to_readers(&alone, &idle, true), "nothing");
    assert_eq!(level0_merge_bytes(&alone, &options()), None);
    let over_a_level = version(&[(0, 9, "a", "m"), (6, 1, "c", "z")]);
    assert_eq!(shown_to_readers(&over_a_level, &idle, false), "nothing");
    assert_eq!(
        shown_to_readers(&over_a_level, &idle, true),
        "Reads L0 [9] + L6 [1] below [] bottommost"
    );
    assert_eq!(level0_merge_bytes(&over_a_level, &options()), Some(2000));
    let level_only = version(&[(6, 1, "c", "z")]);
    assert_eq!(shown_to_readers(&level_only, &idle, true), "nothing");
}

#[test]
fn a_small_level0_is_left_alone_and_a_full_one_goes_to_the_last_level() {
    let idle = Running::default();
    assert_eq!(shown(&version(&[(0, 1, "a", "m")]), &idle), "nothing");
    let full = version(&[(0, 1, "a", "m"), (0, 2, "c", "z")]);
    assert_eq!(shown(&full, &idle), "Level0 L0 [1 2] + L6 [] below [] bottommost");
}

#[test]
fn level0_takes_what_it_overlaps_below() {
    let version = version(&[
        (0, 11, "a", "m"),
        (0, 12, "c", "h"),
        (6, 1, "a", "b"),
        (6, 2, "f", "g"),
        (6, 3, "m", "p"),
        (6, 4, "q", "r"),
    ]);
    assert_eq!(
        shown(&version, &Running::default()),
        "Level0 L0 [11 12] + L6 [1 2 3] below [] bottommost"
    );
}

#[test]
fn sequential_flushes_are_moved_not_rewritten() {
    let tables = [(0, 1, "a", "b"), (0, 2, "c", "d"), (0, 3, "e", "f"), (0, 4, "g", "h")];
    assert_eq!(
        shown(&version(&tables), &Running::default()),
        "Level0 L0 [1 2 3 4] + L6 [] below [] move bottommost"
    );
}

#[test]
fn level0_is_owed_by_its_runs_or_by_its_bytes_whichever_is_more() {
    let apart = [(0, 1, "a", "b"), (0, 2, "c", "d"), (0, 3, "e", "f"), (0, 4, "g", "h")];
    let above = |number| (0, number, "a", "z");
    let owed = |tables: &[(usize, u64, &str, &str)], memtable| {
        let (version, options) = (version(tables), options().memtable_bytes(memtable));
        (level0_load(&version, &options), debt_bytes(&version, &options))
    };
    assert_eq!(owed(&apart, 8000), (1, 0), "one run, as large as half a memtable");
    assert_eq!(owed(&apart, 2000), (4, 0), "as much as four memtables that were half full");
    let runs = [above(5), above(6), above(7)];
    assert_eq!(owed(&runs, 8000), (3, 1000), "one run more than the trigger");
    let both = [&apart[..], &runs[..1], &[(6, 9, "a", "z")]].concat();
    assert_eq!(owed(&both, 8000), (2, 1000), "5000 bytes where 4000 are allowed");
}

#[test]
fn a_base_level_appears_when_the_last_level_outgrows_its_base() {
    let letters: Vec<String> = ('a'..='i').map(String::from).collect();
    let mut tables: Vec<_> = letters
        .iter()
        .zip(1..)
        .map(|(letter, number)| (6, number, letter.as_str(), letter.as_str()))
        .collect();
    let options = options();
    let targets = LevelTargets::of(&version(&tables), &options);
    assert_eq!((targets.base_level, targets.bytes(5), targets.bytes(6)), (5, 2250, 9000));
    tables.extend([(0, 20, "a", "c"), (0, 21, "b", "d")]);
    let version = version(&tables);
    assert_eq!(shown(&version, &Running::default()), "Level0 L0 [20 21] + L5 [] below [1 2 3 4]");
    assert_eq!(debt_bytes(&version, &options), 0);
}

#[test]
fn a_level_over_its_target_sends_down_the_table_that_costs_least() {
    let letters: Vec<String> = ('a'..='i').map(String::from).collect();
    let mut tables: Vec<_> = letters
        .iter()
        .zip(1..)
        .map(|(letter, number)| (6, number, letter.as_str(), letter.as_str()))
        .collect();
    tables.extend([(5, 20, "a", "c"), (5, 21, "d", "e"), (5, 22, "ea", "ez"), (5, 23, "g", "k")]);
    let version = version(&tables);
    assert_eq!(debt_bytes(&version, &options()), 1750);
    let mut running = Running::default();
    assert_eq!(shown(&version, &running), "LevelSize L5 [22] + L6 [] below [] move bottommost");
    let busy = plan_for_tables(&version, (5, 6), &[22]);
    running.add(&busy);
    assert_eq!(shown(&version, &running), "LevelSize L5 [21] + L6 [4 5] below [] bottommost");
    running.add(&plan_for_tables(&version, (5, 6), &[21]));
    assert_eq!(shown(&version, &running), "nothing");
    running.remove(&busy);
    assert!(!running.is_busy(22) && running.is_busy(21) && running.len() == 1);
}

fn plan_for_tables(version: &Version<()>, levels: (usize, usize), numbers: &[u64]) -> Plan<()> {
    let inputs: Vec<_> = version
        .level_tables(levels.0)
        .filter(|table| numbers.contains(&table.number()))
        .cloned()
        .collect();
    Plan::new(version, levels, inputs, Reason::Manual, u64::MAX).unwrap()
}

#[test]
fn tables_of_tombstones_go_down_until_nothing_is_below_them() {
    let dense = TableMeta { deletions: 90, ..meta(9999, "a", "c", (9, 9)) };
    let idle = Running::default();
    let letters: Vec<String> = ('a'..='i').map(String::from).collect();
    let below =
        letters.iter().zip(1..).map(|(at, number)| (6, handle(meta(number, at, at, (1, 1)))));
    let mut tables: Vec<_> = below.collect();
    tables.push((5, handle(dense.clone())));
    let version = Version::new(tables).unwrap();
    assert_eq!(shown(&version, &idle), "Tombstones L5 [9999] + L6 [1 2 3] below [] bottommost");
    let version = Version::new(vec![(6, handle(dense))]).unwrap();
    assert_eq!(shown(&version, &idle), "nothing");
}

#[test]
fn tombstones_go_before_a_level_that_is_full_and_after_one_that_is_pressing() {
    let dense = TableMeta { deletions: 90, ..meta(9999, "h", "i", (9, 9)) };
    let letters: Vec<String> = ('a'..='i').map(String::from).collect();
    let below =
        letters.iter().zip(1..).map(|(at, number)| (6, handle(meta(number, at, at, (1, 1)))));
    let mut tables: Vec<_> = below.collect();
    tables.push((5, handle(dense)));
    tables.push((0, handle(meta(20, "a", "c", (20, 20)))));
    let next = |number, tables: &mut Vec<_>| {
        tables.push((0, handle(meta(number, "b", "d", (number, number)))));
        shown(&Version::new(tables.clone()).unwrap(), &Running::default())
    };
    let tombstones = "Tombstones L5 [9999] + L6 [8 9] below [] bottommost";
    assert_eq!(next(21, &mut tables), tombstones);
    assert_eq!(next(22, &mut tables), tombstones);
    let level0 = "Level0 L0 [20 21 22 23] + L5 [] below [1 2 3 4]";
    assert_eq!(next(23, &mut tables), level0);
}

#[test]
fn tombstones_of_level0_go_down_where_they_hide_much_of_what_is_below() {
    let picked = |deletions, entries, entries_below| {
        let newest =
            TableMeta { deletions, entries, smallest: key("a"), ..meta(9, "a", "c", (9, 9)) };
        let below = TableMeta { entries: entries_below, ..meta(1, "b", "b", (1, 1)) };
        let tables = vec![(0, handle(newest)), (6, handle(below))];
        shown(&Version::new(tables).unwrap(), &Running::default())
    };
    let (many, wanted) = (TOMBSTONES_MIN, "Tombstones L0 [9] + L6 [1] below [] bottommost");
    assert_eq!(picked(many, many, 4 * many), wanted);
    assert_eq!(picked(many, many, 4 * many + 1), "nothing", "too much to rewrite for them");
    assert_eq!(picked(many - 1, many - 1, many), "nothing", "too few to matter");
    assert_eq!(picked(many, 2 * many, many), "nothing", "not dense");
    let alone = TableMeta { deletions: many, entries: many, ..meta(9, "a", "c", (9, 9)) };
    let version = Version::new(vec![(0, handle(alone))]).unwrap();
    assert_eq!(shown(&version, &Running::default()), "nothing", "they hide nothing");
}

#[test]
fn a_table_of_level0_waits_for_an_older_one_that_is_being_compacted() {
    let version = version(&[
        (0, 1, "a", "m"),
        (0, 2, "c", "z"),
        (0, 3, "x", "z"),
        (0, 4, "0", "1"),
        (0, 5, "0", "2"),
    ]);
    let mut running = Running::default();
    running.add(&plan_for_tables(&version, (0, 6), &[1]));
    // 2 overlaps 1, and 3 overlaps 2; only the other cluster is free.
    assert_eq!(shown(&version, &running), "Level0 L0 [4 5] + L6 [] below [] bottommost");
}

#[test]
fn keyspaces_are_never_mixed_in_a_plan() {
    let other = |number, lo: &str, hi: &str| {
        let bound = |text: &str| [&[0, 0, 0, 1], text.as_bytes()].concat();
        TableMeta {
            smallest: bound(lo),
            largest: bound(hi),
            ..meta(number, "", "", (number, number))
        }
    };
    let mut to_the_end = meta(1, "a", "", (1, 1));
    to_the_end.largest = vec![0, 0, 0, 1];
    to_the_end.largest_exclusive = true;
    let tables = [to_the_end, meta(2, "b", "c", (2, 2)), other(3, "", "c"), other(4, "b", "d")];
    let version = Version::new(tables.map(|meta| (0, handle(meta))).into()).unwrap();
    let plan = shown(&version, &Running::default());
    assert!(
        [
            "Level0 L0 [1 2] + L6 [] below [] bottommost",
            "Level0 L0 [3 4] + L6 [] below [] bottommost"
        ]
        .contains(&plan.as_str()),
        "{plan}"
    );
}

#[test]
fn a_requested_range_sinks_to_its_bottom_and_is_rewritten_there_once() {
    let idle = Running::default();
    let options = options();
    let (lo, hi) = (key("b"), key("d"));
    let bounds = Bounds { lo: Some(&lo), hi: Some(&hi) };
    let shown = |version: &Version<()>, running: &Running, before| {
        let input = PickerInput {
            version,
            options: &options,
            running,
            cursors: &Cursors::default(),
            now: NOW,
            reads_pay: false,
            quiet: Duration::ZERO,
            movable: &Movable::default(),
        };
        match pick_range(input, bounds, rewrite(before)) {
            RangePick::Plan(plan) => plan.to_string(),
            other => format!("{other:?}"),
        }
    };
    let mut tables = vec![
        (0, 9, "a", "c"),
        (4, 5, "d", "e"),
        (4, 6, "x", "z"),
        (6, 1, "a", "b"),
        (6, 2, "c", "q"),
    ];
    let first = version(&tables);
    assert_eq!(shown(&first, &idle, 100), "Manual L0 [9] + L4 [] below [] move");
    let mut running = Running::default();
    running.add(&plan_for_tables(&first, (0, 4), &[9]));
    assert_eq!(shown(&first, &running, 100), "Busy");
    tables.remove(0);
    assert_eq!(shown(&version(&tables), &idle, 100), "Manual L4 [5] + L5 [] below [2] move");
    tables.remove(0);
    assert_eq!(shown(&version(&tables), &idle, 100), "Manual L6 [1 2] + L6 [] below [] bottommost");
    assert_eq!(shown(&version(&tables), &idle, 1), "Done");
}

/// A table of the model: its records, as key and sequence number.
type Records = Vec<(u64, Sequence)>;

/// A tree whose tables hold their records, driven by the picker.
struct Model {
    version: Version<Records>,
    files: Arc<LiveFiles>,
    newest: BTreeMap<u64, Sequence>,
    sequence: Sequence,
    number: u64,
    running: Running,
    nothing: Movable,
    plans: Vec<Plan<Records>>,
    cursors: Cursors,
}

impl Model {
    fn new() -> Self {
        Self {
            version: Version::empty(),
            files: files(),
            newest: BTreeMap::new(),
            sequence: 0,
            number: 0,
            running: Running::default(),
            nothing: Movable::default(),
            plans: Vec::new(),
            cursors: Cursors::default(),
        }
    }

    fn table(
        &mut self,
        records: &[(u64, Sequence)],
        random: &mut Random,
    ) -> Arc<TableHandle<Records>> {
        self.number += 1;
        let text = |record: &(u64, Sequence)| format!("{:04}", record.0);
        let sequences = records.iter().map(|record| record.1);
        let bounds = (sequences.clone().min().unwrap(), sequences.max().unwrap());
        let (lo, hi) = (text(&records[0]), text(&records[records.len() - 1]));
        let mut facts = meta(self.number, &lo, &hi, bounds);
        facts.file_bytes = records.len() as u64 * 100;
        facts.entries = records.len() as u64;
        facts.deletions = random.below(2) * random.below(facts.entries + 1);
        TableHandle::new(facts, Arc::new(records.to_vec()), &self.files)
    }

    fn flush(&mut self, random: &mut Random) {
        let mut records = BTreeMap::new();
        let (from, span) = (random.below(300), random.below(200) + 1);
        for _ in 0..=random.below(15) {
            self.sequence += 1;
            records.insert(from + random.below(span), self.sequence);
        }
        self.newest.extend(&records);
        let records: Records = records.into_iter().collect();
        let cut = records.len().div_ceil(random.below(3) as usize + 1);
        let tables = records.chunks(cut).map(|part| (0, self.table(part, random))).collect();
        self.version = self.version.with_changes(&[], tables).unwrap();
    }

    fn start(&mut self, plan: Plan<Records>) {
        assert!(!self.running.conflicts(&plan), "{plan}");
        self.running.add(&plan);
        self.cursors.advance(&plan);
        self.plans.push(plan);
    }

    /// Carries out a running plan, in any order, against the version of now.
    fn finish(&mut self, random: &mut Random) {
        let plan = self.plans.swap_remove(random.below(self.plans.len() as u64) as usize);
        let outputs: Vec<_> = if plan.is_trivial_move() {
            plan.inputs.clone()
        } else {
            let mut merged: BTreeMap<u64, Sequence> = BTreeMap::new();
            for &(key, sequence) in plan.all_inputs().flat_map(|table| table.table.iter()) {
                let newest = merged.entry(key).or_default();
                *newest = sequence.max(*newest);
            }
            let merged: Records = merged.into_iter().collect();
            let size = random.below(12) as usize + 4;
            merged.chunks(size).map(|part| self.table(part, random)).collect()
        };
        if plan.bottommost {
            // A table below may span a key meanwhile, where an output closed the gap between two inputs, but must not hold it.
            for &(number, _) in plan.all_inputs().flat_map(|table| table.table.iter()) {
                for level in plan.output_level + 1..LEVELS {
                    let found = self.version.run(level).find(&key(&format!("{number:04}")));
                    let hidden = found.filter(|table| table.table.iter().any(|at| at.0 == number));
                    assert!(hidden.is_none(), "{plan} has {hidden:?} below it, with key {number}");
                }
            }
        }
        let added = outputs.into_iter().map(|table| (plan.output_level, table)).collect();
        self.version = self.version.with_changes(&plan.removals(), added).unwrap();
        self.running.remove(&plan);
    }

    fn check(&self) {
        self.version.check().unwrap();
        for (&key_number, &expected) in &self.newest {
            let probe = key(&format!("{key_number:04}"));
            let found = self.version.sources().find_map(|run| {
                let table = run.find(&probe)?;
                table.table.iter().find(|record| record.0 == key_number).map(|record| record.1)
            });
            assert_eq!(found, Some(expected), "key {key_number} in {:?}", self.version);
        }
    }

    fn input<'a>(&'a self, options: &'a Options) -> PickerInput<'a, Records> {
        PickerInput {
            version: &self.version,
            options,
            running: &self.running,
            cursors: &self.cursors,
            now: NOW,
            reads_pay: false,
            quiet: Duration::ZERO,
            movable: &self.nothing,
        }
    }
}

#[test]
fn no_order_of_flushes_and_concurrent_compactions_hides_a_newer_version() {
    let mut random = Random::from_environment();
    let (mut moves, mut beside) = (0, 0);
    for _ in 0..60 {
        let mut model = Model::new();
        let options = Options::new()
            .table_bytes(random.below(2000) + 200)
            .level_base_bytes(random.below(6000) + 500)
            .level_ratio(random.below(6) + 2)
            .l0_compaction_trigger(random.below(4) as usize + 1);
        for _ in 0..80 {
            match random.below(5) {
                0 | 1 => model.flush(&mut random),
                2 | 3 => {
                    let picked = if random.below(8) == 0 {
                        let (lo, hi) = (key("0100"), key("0250"));
                        let bounds = Bounds { lo: Some(&lo), hi: Some(&hi) };
                        match pick_range(model.input(&options), bounds, rewrite(model.number)) {
                            RangePick::Plan(plan) => Some(plan),
                            RangePick::Busy | RangePick::Done => None,
                        }
                    } else {
                        pick(model.input(&options))
                    };
                    if let Some(plan) = picked {
                        moves += u64::from(plan.is_trivial_move());
                        beside += u64::from(!model.plans.is_empty());
                        model.start(plan);
                    }
                }
                _ if !model.plans.is_empty() => model.finish(&mut random),
                _ => {}
            }
            model.check();
        }
    }
    assert!(moves > 20 && beside > 20, "{moves} moves, {beside} plans beside others: too few");
}

#[test]
fn compacting_until_nothing_is_left_ends_within_the_targets() {
    let mut random = Random::from_environment();
    for _ in 0..20 {
        let mut model = Model::new();
        let options = options();
        for _ in 0..60 {
            model.flush(&mut random);
        }
        let mut steps = 0;
        while let Some(plan) = pick(model.input(&options)) {
            model.start(plan);
            model.finish(&mut random);
            steps += 1;
            assert!(steps < 2000, "compactions go on for ever: {:?}", model.version);
        }
        model.check();
        assert_eq!(debt_bytes(&model.version, &options), 0);
        let everything = Bounds { lo: None, hi: None };
        let before = model.number + 1;
        loop {
            match pick_range(model.input(&options), everything, rewrite(before)) {
                RangePick::Plan(plan) => model.start(plan),
                RangePick::Busy => panic!("nothing runs"),
                RangePick::Done => break,
            }
            model.finish(&mut random);
            steps += 1;
            assert!(steps < 4000, "the range is never done: {:?}", model.version);
        }
        model.check();
        let filled = (0..LEVELS).filter(|&level| model.version.level_len(level) > 0).count();
        assert_eq!(filled, 1, "everything is in one level");
        let records: usize = model.version.tables().map(|(_, table)| table.table.len()).sum();
        assert_eq!(records, model.newest.len(), "no old version is left");
    }
}

#[test]
fn tables_that_have_expired_are_rewritten_in_place_and_left_alone_before() {
    let idle = Running::default();
    let expiring = |number, lo: &str, hi: &str, when| TableMeta {
        expiring: 100,
        half_expired_at: when,
        ..meta(number, lo, hi, (number, number))
    };
    let shown_with = |level, when| {
        let letters: Vec<String> = ('a'..='i').map(String::from).collect();
        let below = letters.iter().zip(1..);
        let below = below.map(|(letter, number)| (6, meta(number, letter, letter, (1, 1))));
        let tables = below.chain([(level, expiring(20, "a", "c", when))]);
        let tables = tables.map(|(level, meta)| (level, handle(meta))).collect();
        shown(&Version::new(tables).unwrap(), &idle)
    };
    assert_eq!(shown_with(5, NOW + 1), "nothing");
    assert_eq!(shown_with(5, NOW), "Expired L5 [20] + L5 [] below [1 2 3]");
    assert_eq!(shown_with(0, NOW + 1), "nothing");
    assert_eq!(shown_with(0, NOW), "Expired L0 [20] + L5 [] below [1 2 3] move");
    let last = Version::new(vec![(6, handle(expiring(9, "a", "c", NOW)))]).unwrap();
    assert_eq!(shown(&last, &idle), "Expired L6 [9] + L6 [] below [] bottommost");
}

#[test]
fn tables_that_point_to_garbage_or_many_small_files_are_rewritten_in_place() {
    let values = (70..74).map(|file| ValueShare { file, bytes: 5 }).collect();
    let pointing = TableMeta { values, ..meta(20, "a", "c", (1, 1)) };
    let version = Version::new(vec![(6, handle(pointing))]).unwrap();
    let picked = |to_empty: &[FileNumber], small: &[FileNumber]| {
        let movable = Movable {
            to_empty: to_empty.iter().copied().collect(),
            small: small.iter().copied().collect(),
        };
        let input = PickerInput {
            version: &version,
            options: &options(),
            running: &Running::default(),
            cursors: &Cursors::default(),
            now: NOW,
            reads_pay: false,
            quiet: Duration::ZERO,
            movable: &movable,
        };
        pick(input).map_or_else(|| "nothing".into(), |plan| plan.to_string())
    };
    let rewritten = "Values L6 [20] + L6 [] below [] bottommost";
    assert_eq!(picked(&[74], &[]), "nothing");
    assert_eq!(picked(&[71], &[]), rewritten);
    assert_eq!(picked(&[], &[70, 71, 72, 74]), "nothing", "it points to three of them");
    assert_eq!(picked(&[], &[70, 71, 72, 73]), rewritten);
}
