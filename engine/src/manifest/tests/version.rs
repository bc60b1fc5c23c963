//! The arrangement of level 0, the search inside runs, and what versions refuse.

use std::sync::Arc;

use super::{Random, handle, key, meta};
use crate::manifest::{Run, TableHandle, Version};

fn numbers(run: &Run<()>) -> Vec<u64> {
    run.tables().iter().map(|table| table.number()).collect()
}

fn level0(tables: &[(u64, &str, &str)]) -> Version<()> {
    let tables =
        tables.iter().map(|&(number, lo, hi)| (0, handle(meta(number, lo, hi, (number, number)))));
    Version::new(tables.collect()).unwrap()
}

#[test]
fn flushes_that_do_not_overlap_share_one_run() {
    let version = level0(&[(1, "a", "b"), (2, "c", "d"), (3, "e", "f")]);
    assert_eq!(version.l0().len(), 1);
    assert_eq!(numbers(&version.l0()[0]), [1, 2, 3]);
}

#[test]
fn a_table_sits_one_above_the_highest_older_table_that_it_overlaps() {
    let version =
        level0(&[(1, "a", "c"), (2, "b", "d"), (3, "x", "z"), (4, "d", "y"), (5, "f", "g")]);
    let runs: Vec<_> = version.l0().iter().map(|run| numbers(run)).collect();
    assert_eq!(runs, [vec![5], vec![4], vec![2], vec![1, 3]]);
    version.check().unwrap();
}

#[test]
fn newest_first_search_of_level0_meets_newer_tables_earlier() {
    let mut random = Random::from_environment();
    for _ in 0..200 {
        let mut version: Version<()> = Version::empty();
        for number in 1..=random.below(30) + 1 {
            let (lo, len) = (random.below(50), random.below(12));
            let (lo, hi) = (format!("{lo:02}"), format!("{:02}", lo + len));
            let mut facts = meta(number, &lo, &hi, (number, number));
            facts.largest_exclusive = lo != hi && random.below(3) == 0;
            version = version.with_changes(&[], vec![(0, handle(facts))]).unwrap();
            // Any table whose older neighbours are all gone may leave; here: the oldest one.
            if random.below(4) == 0 {
                let oldest = version.level_tables(0).map(|table| table.number()).min().unwrap();
                version = version.with_changes(&[(0, oldest)], Vec::new()).unwrap();
            }
            version.check().unwrap();
        }
        for probe in 0..65 {
            let probe = key(&format!("{probe:02}"));
            let found: Vec<u64> = version
                .sources()
                .filter_map(|run| run.find(&probe))
                .map(|table| table.number())
                .collect();
            let mut expected: Vec<u64> = version
                .level_tables(0)
                .filter(|table| table.meta.covers(&probe))
                .map(|table| table.number())
                .collect();
            expected.sort_unstable_by(|a, b| b.cmp(a));
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn find_agrees_with_asking_every_table() {
    let mut random = Random::from_environment();
    // Long shared prefixes and short tails make equal heads, empty heads and bounds that are prefixes of each other common.
    let word = |random: &mut Random| -> String {
        let shared = ["", "user", "user00000000"][random.below(3) as usize];
        let tail: String =
            (0..random.below(11)).map(|_| ['\0', 'a', 'b'][random.below(3) as usize]).collect();
        format!("{shared}{tail}")
    };
    for _ in 0..300 {
        let mut words: Vec<String> = (0..random.below(40) + 2).map(|_| word(&mut random)).collect();
        words.sort();
        words.dedup();
        let mut tables: Vec<Arc<TableHandle<()>>> = Vec::new();
        for (index, pair) in words.chunks(2).enumerate() {
            let mut facts = meta(index as u64 + 1, &pair[0], &pair[pair.len() - 1], (1, 1));
            facts.largest_exclusive = pair.len() == 2 && random.below(3) == 0;
            tables.push(handle(facts));
        }
        let run = Run::new(tables.clone()).unwrap();
        let probes: Vec<_> = (0..100).map(|_| word(&mut random)).chain(words).collect();
        for probe in probes {
            let probe = key(&probe);
            let expected = tables.iter().find(|table| table.meta.covers(&probe));
            assert_eq!(
                run.find(&probe).map(|table| table.number()),
                expected.map(|table| table.number())
            );
            let bound = tables.iter().position(|table| !table.meta.ends_before(&probe));
            assert_eq!(run.lower_bound(&probe), bound.unwrap_or(tables.len()));
        }
        assert!(run.find(b"").is_none() && run.find(&[0, 0, 0, 1, b'a']).is_none());
    }
}

#[test]
fn overlapping_gives_the_tables_that_meet_the_bounds() {
    let tables = [(1, "b", "d"), (2, "f", "h"), (3, "j", "l")];
    let tables = tables.map(|(number, lo, hi)| (2, handle(meta(number, lo, hi, (1, 1)))));
    let version = Version::new(tables.into()).unwrap();
    for (lo, hi, expected) in [
        (None, None, vec![1, 2, 3]),
        (Some("d"), Some("f"), vec![1, 2]),
        (Some("e"), Some("e"), vec![]),
        (Some("g"), None, vec![2, 3]),
        (None, Some("a"), vec![]),
        (Some("z"), Some("a"), vec![]),
    ] {
        let (lo, hi) = (lo.map(key), hi.map(key));
        let found = version.overlapping(2, lo.as_deref(), hi.as_deref());
        let found: Vec<_> = found.iter().map(|table| table.number()).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn contradictions_are_refused_with_the_tables_named() {
    let version = level0(&[(1, "a", "b")]);
    let error = version.with_changes(&[(0, 2)], Vec::new()).unwrap_err();
    assert!(error.contains("000002"), "{error}");
    let error = version.with_changes(&[(1, 1)], Vec::new()).unwrap_err();
    assert!(error.contains("not in level 1"), "{error}");
    let overlapping =
        vec![(1, handle(meta(7, "a", "c", (1, 1)))), (1, handle(meta(8, "c", "d", (1, 1))))];
    let error = version.with_changes(&[], overlapping).unwrap_err();
    assert!(error.contains("000007") && error.contains("000008"), "{error}");
    let twice = version.with_changes(&[], vec![(1, handle(meta(1, "a", "b", (1, 1))))]).unwrap();
    assert!(twice.check().unwrap_err().contains("000001"));
}

#[test]
fn runs_that_do_not_change_are_shared_between_versions() {
    let version = Version::new(vec![(1, handle(meta(1, "a", "b", (1, 1))))]).unwrap();
    let next = version.with_changes(&[], vec![(2, handle(meta(2, "a", "b", (1, 1))))]).unwrap();
    assert!(Arc::ptr_eq(version.run(1), next.run(1)));
    assert!(!Arc::ptr_eq(version.run(2), next.run(2)));
}
