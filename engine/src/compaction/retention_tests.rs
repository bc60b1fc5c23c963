//! What stays of the versions of a key.

use std::sync::Arc;

use rustlite_io::{FileSystem as _, SimFileSystem};

use super::*;
use crate::key::KeyspaceId;
use crate::kinds::filter::{CompactionFilter, FilterDecision};
use crate::kinds::ready_made::Append;
use crate::manifest::LiveFiles;
use crate::manifest::edit::KeyspaceDescriptor;
use crate::options::{KeyspaceOptions, Options};
use crate::values::ValueFiles;

use ValueKind::{Delete, Merge, Put, PutExpiring};

type Kept = Vec<(String, Sequence, ValueKind)>;

/// Keys of another keyspace than the default one, whose operator is `Append`.
const LISTS: KeyspaceId = KeyspaceId(0x6c69_7374);

fn no_values() -> Arc<ValueFiles> {
    ValueFiles::new(&LiveFiles::new(|| ()))
}

fn rules() -> Arc<Rules> {
    let rules = Rules::new(SimFileSystem::new(1).clock(), &no_values(), &Options::new());
    let options = KeyspaceOptions::new().merge_operator(Append::NAME);
    rules.learn(&KeyspaceDescriptor { id: LISTS, name: "lists".into(), options, index: None });
    rules
}

fn retention(boundaries: &[Sequence], bottommost: bool) -> Retention {
    Retention::new(boundaries.to_vec(), bottommost, &rules())
}

/// What stays of records of which only the kind matters.
fn run(
    boundaries: &[Sequence],
    bottommost: bool,
    tombstones: &[(&str, &str, Sequence)],
    records: &[(&str, Sequence, ValueKind)],
) -> Kept {
    let records: Vec<_> =
        records.iter().map(|&(key, sequence, kind)| (key, sequence, kind, &b""[..])).collect();
    run_with_values(&retention(boundaries, bottommost), tombstones, &records)
}

fn run_with_values(
    retention: &Retention,
    tombstones: &[(&str, &str, Sequence)],
    records: &[(&str, Sequence, ValueKind, &[u8])],
) -> Kept {
    let tombstones = RangeTombstones::from_tombstones(
        tombstones.iter().map(|&(start, end, seq)| (start.into(), end.into(), seq)),
    );
    let mut filter = retention.filter(&tombstones);
    let mut kept = Vec::new();
    let mut emit = |key: &[u8], trailer: Trailer, _value: &[u8]| {
        let key = String::from_utf8(key.to_vec()).unwrap();
        kept.push((key, trailer.sequence(), trailer.kind().unwrap()));
        Ok(())
    };
    for &(key, sequence, kind, value) in records {
        filter.push(key.as_bytes(), Trailer::new(sequence, kind), value, &mut emit).unwrap();
    }
    filter.finish(&mut emit).unwrap();
    kept
}

#[test]
fn what_has_expired_becomes_a_delete_until_nothing_older_is_left() {
    let (past, future) = (1_u64.to_le_bytes(), u64::MAX.to_le_bytes());
    let records = [
        ("a", 9, PutExpiring, &past[..]),
        ("a", 3, Put, b""),
        ("b", 8, PutExpiring, &future[..]),
        ("b", 2, PutExpiring, &past[..]),
    ];
    let at = |boundaries: &[Sequence], bottommost| {
        run_with_values(&retention(boundaries, bottommost), &[], &records)
    };
    let (a, b) = (|seq, kind| ("a".into(), seq, kind), |seq, kind| ("b".into(), seq, kind));
    assert_eq!(at(&[10], false), vec![a(9, Delete), b(8, PutExpiring)]);
    assert_eq!(at(&[10], true), vec![b(0, PutExpiring)]);
    // A snapshot at 5 keeps the older versions, except those that are over for it too.
    assert_eq!(at(&[5, 10], true), vec![a(9, Delete), a(0, Put), b(8, PutExpiring)]);
    let seen = [a(9, Delete), a(3, Put), b(8, PutExpiring), b(2, Delete)];
    assert_eq!(at(&[5, 10], false), seen);
}

/// What stays of operands that append, as `kind sequence value`. The key is always the same.
fn merged(
    boundaries: &[Sequence],
    bottommost: bool,
    tombstones: &[Sequence],
    records: &[(Sequence, ValueKind, &str)],
) -> Vec<String> {
    let tombstones = tombstones.iter().map(|&seq| (b"list".to_vec(), b"listz".to_vec(), seq));
    let tombstones = RangeTombstones::from_tombstones(tombstones);
    let retention = retention(boundaries, bottommost);
    let mut filter = retention.filter(&tombstones);
    let mut kept = Vec::new();
    let mut emit = |key: &[u8], trailer: Trailer, value: &[u8]| {
        assert_eq!(key, b"list-");
        let value = String::from_utf8_lossy(value);
        kept.push(format!("{:?} {} {value}", trailer.kind().unwrap(), trailer.sequence()));
        Ok(())
    };
    for &(sequence, kind, value) in records {
        let trailer = Trailer::new(sequence, kind);
        filter.push(b"list-", trailer, value.as_bytes(), &mut emit).unwrap();
    }
    filter.finish(&mut emit).unwrap();
    kept
}

#[test]
fn operands_are_applied_to_the_value_of_their_stripe() {
    let records = [(9, Merge, "c"), (7, Merge, "b"), (5, Put, "a"), (3, Put, "old")];
    assert_eq!(merged(&[10], false, &[], &records), ["Put 9 abc"]);
    assert_eq!(merged(&[10], true, &[], &records), ["Put 0 abc"]);
    // A snapshot between operands and value: both must stay apart.
    assert_eq!(merged(&[6, 10], false, &[], &records), ["Merge 9 bc", "Put 5 a"]);
    assert_eq!(merged(&[8, 10], true, &[], &records), ["Merge 9 c", "Put 0 ab"]);
    let deleted = [(9, Merge, "c"), (7, Delete, ""), (5, Put, "a")];
    assert_eq!(merged(&[10], false, &[], &deleted), ["Put 9 c"]);
}

#[test]
fn operands_become_a_value_where_nothing_is_below_and_stay_operands_elsewhere() {
    let records = [(9, Merge, "b"), (7, Merge, "a")];
    assert_eq!(merged(&[10], false, &[], &records), ["Merge 9 ab"]);
    assert_eq!(merged(&[10], true, &[], &records), ["Put 0 ab"]);
    assert_eq!(merged(&[8, 10], true, &[], &records), ["Merge 9 b", "Put 0 a"]);
    assert_eq!(merged(&[6, 10], true, &[], &records), ["Put 9 ab"], "unseen by the snapshot");
}

#[test]
fn a_range_tombstone_below_operands_is_a_beginning() {
    let records = [(9, Merge, "b"), (7, Merge, "a"), (3, Put, "old")];
    assert_eq!(merged(&[10], false, &[5], &records), ["Put 9 ab"]);
    assert_eq!(merged(&[10], false, &[8], &records), ["Put 9 b"]);
    assert_eq!(merged(&[4, 10], false, &[5], &records), ["Put 9 ab", "Put 3 old"]);
    assert_eq!(merged(&[10], false, &[5], &records[..2]), ["Put 9 ab"]);
    assert_eq!(merged(&[10], false, &[1], &records[..2]), ["Put 9 ab"]);
    assert_eq!(merged(&[10], false, &[10], &records), [""; 0]);
}

#[test]
fn what_the_operator_refuses_stays_as_it_is() {
    // The default keyspace has no operator.
    let records = [
        ("\0\0\0\0k", 9, Merge, &b"b"[..]),
        ("\0\0\0\0k", 7, Merge, b"a"),
        ("\0\0\0\0k", 5, Put, b"base"),
        ("\0\0\0\0k", 3, Put, b"old"),
        ("\0\0\0\0l", 3, Put, b"other"),
    ];
    let kept = run_with_values(&retention(&[10], true), &[], &records);
    let kept: Vec<_> = kept.into_iter().map(|(_, seq, kind)| (seq, kind)).collect();
    assert_eq!(kept, [(9, Merge), (7, Merge), (5, Put), (0, Put)]);
    // An expired value goes on hiding what is older.
    let expired = 1_u64.to_le_bytes();
    let records = [("\0\0\0\0k", 9, Merge, &b"b"[..]), ("\0\0\0\0k", 7, PutExpiring, &expired)];
    let kept = run_with_values(&retention(&[10], false), &[], &records);
    let kept: Vec<_> = kept.into_iter().map(|(_, seq, kind)| (seq, kind)).collect();
    assert_eq!(kept, [(9, Merge), (7, Delete)]);
}

/// Removes `x`, changes `y` to `z`.
struct Letters;

impl CompactionFilter for Letters {
    fn filter(&self, key: &[u8], value: &[u8]) -> FilterDecision {
        assert_eq!(key, b"k", "the key as the user wrote it");
        match value {
            b"x" => FilterDecision::Remove,
            b"y" => FilterDecision::Change(b"z".into()),
            b"?" => panic!("a question"),
            _ => FilterDecision::Keep,
        }
    }
}

/// What a filter leaves of versions of one key, as `kind sequence value`.
fn filtered(
    (boundaries, newest_snapshot): (&[Sequence], Option<Sequence>),
    bottommost: bool,
    records: &[(Sequence, ValueKind, &[u8])],
) -> Vec<String> {
    let options = Options::new().compaction_filter("default", Letters);
    let rules = Rules::new(SimFileSystem::new(1).clock(), &no_values(), &options);
    rules.learn(&KeyspaceDescriptor {
        id: KeyspaceId::DEFAULT,
        name: "default".into(),
        options: KeyspaceOptions::new().merge_operator(Append::NAME),
        index: None,
    });
    let retention = Retention::new(boundaries.to_vec(), bottommost, &rules);
    let retention = retention.with_filters(newest_snapshot);
    let tombstones = RangeTombstones::empty();
    let mut filter = retention.filter(&tombstones);
    let mut kept = Vec::new();
    let mut emit = |_: &[u8], trailer: Trailer, value: &[u8]| {
        let value = String::from_utf8_lossy(value.strip_prefix(&[0xff; 8]).unwrap_or(value));
        kept.push(format!("{:?} {} {value}", trailer.kind().unwrap(), trailer.sequence()));
        Ok(())
    };
    for &(sequence, kind, value) in records {
        filter.push(b"\0\0\0\0k", Trailer::new(sequence, kind), value, &mut emit).unwrap();
    }
    filter.finish(&mut emit).unwrap();
    kept
}

#[test]
fn a_filter_decides_about_values_that_no_snapshot_sees() {
    let now = (&[10][..], None);
    assert_eq!(filtered(now, false, &[(9, Put, b"x"), (5, Put, b"a")]), ["Delete 9 "]);
    assert_eq!(filtered(now, true, &[(9, Put, b"x"), (5, Put, b"a")]), [""; 0]);
    assert_eq!(filtered(now, true, &[(9, Put, b"y")]), ["Put 0 z"]);
    assert_eq!(filtered(now, false, &[(9, Put, b"?")]), ["Put 9 ?"], "a panic keeps the value");
    assert_eq!(filtered(now, false, &[(9, Delete, b"")]), ["Delete 9 "]);
    let expiring = |value: &[u8]| [&[0xff; 8], value].concat();
    let changed = filtered(now, false, &[(9, PutExpiring, &expiring(b"y"))]);
    assert_eq!(changed, ["PutExpiring 9 z"], "it keeps its time");
    let removed = filtered(now, false, &[(9, PutExpiring, &expiring(b"x"))]);
    assert_eq!(removed, ["Delete 9 "]);
}

#[test]
fn a_filter_sees_what_operands_amount_to_and_nothing_less() {
    let now = (&[10][..], None);
    assert_eq!(filtered(now, true, &[(9, Merge, b"x")]), [""; 0]);
    assert_eq!(filtered(now, false, &[(9, Merge, b"x"), (3, Delete, b"")]), ["Delete 9 "]);
    assert_eq!(filtered(now, true, &[(9, Merge, b"x"), (3, Put, b"a")]), ["Put 0 ax"]);
    assert_eq!(filtered(now, false, &[(9, Merge, b"x")]), ["Merge 9 x"]);
}

#[test]
fn a_filter_does_not_touch_what_a_snapshot_sees() {
    let snapshot = (&[6, 10][..], Some(6));
    let records = [(9, Put, &b"x"[..]), (5, Put, b"x"), (3, Put, b"x")];
    assert_eq!(filtered(snapshot, true, &records), ["Delete 9 ", "Put 0 x"]);
    assert_eq!(filtered((&[10], Some(10)), true, &records), ["Put 0 x"]);
    assert_eq!(filtered((&[10], None), true, &[(0, Put, b"x")]), [""; 0]);
}

#[test]
fn a_record_without_its_time_of_expiry_is_corruption() {
    let tombstones = RangeTombstones::empty();
    let retention = retention(&[10], true);
    let mut filter = retention.filter(&tombstones);
    let trailer = Trailer::new(3, PutExpiring);
    let error = filter.push(b"a", trailer, b"1234567", &mut |_, _, _| Ok(())).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Corruption);
}

#[test]
fn without_snapshots_only_the_newest_version_stays() {
    let records = [("a", 9, Put), ("a", 5, Put), ("b", 7, Delete), ("b", 2, Put)];
    let kept = run(&[10], false, &[], &records);
    assert_eq!(kept, vec![("a".into(), 9, Put), ("b".into(), 7, Delete)]);
    assert_eq!(run(&[10], true, &[], &records), vec![("a".into(), 0, Put)]);
}

#[test]
fn every_snapshot_keeps_the_version_that_it_sees() {
    let records = [("a", 9, Put), ("a", 8, Put), ("a", 5, Delete), ("a", 4, Put), ("a", 1, Put)];
    let kept = run(&[4, 6, 10], true, &[], &records);
    assert_eq!(kept, vec![("a".into(), 9, Put), ("a".into(), 5, Delete), ("a".into(), 0, Put)]);
}

#[test]
fn a_range_tombstone_drops_what_it_covers_in_its_own_stripe_only() {
    let records = [("a", 9, Put), ("b", 3, Put), ("c", 3, Put)];
    assert_eq!(run(&[10], false, &[("a", "c", 5)], &records).len(), 2);
    assert_eq!(run(&[4, 10], false, &[("a", "c", 5)], &records).len(), 3, "a snapshot at 4");
    let with_snapshot = retention(&[4, 10], true);
    let set = RangeTombstones::from_tombstones([(b"a".to_vec(), b"c".to_vec(), 5)]);
    assert!(!with_snapshot.tombstones(&set).is_empty(), "the snapshot's version must stay hidden");
    assert!(retention(&[10], true).tombstones(&set).is_empty());
}
