use super::*;
use crate::batch::Records;

const ORIGIN: Origin = Origin { database: 1, drops: 0 };

fn key(name: &str) -> Vec<u8> {
    [&KeyspaceId::DEFAULT.prefix()[..], name.as_bytes()].concat()
}

fn range(start: &str, end: &str) -> KeyRange {
    KeyRange { start: key(start), end: key(end) }
}

fn put(writes: &mut WriteSet, name: &str, value: &str) {
    writes.set(&key(name), Some(value.as_bytes())).unwrap();
}

/// The records of the batch, one letter for the kind.
fn records(writes: &WriteSet) -> Vec<String> {
    let batch = writes.to_batch(ORIGIN, |_| true);
    batch.check().unwrap();
    assert!(batch.size_bytes() <= writes.batch_bytes(), "the bound holds");
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[4..]).into_owned();
    Records::new(batch.bytes())
        .map(|record| record.unwrap())
        .map(|record| match record.kind {
            ValueKind::RangeDelete => format!("R {}-{}", text(record.key), text(record.value)),
            ValueKind::Delete => format!("D {}", text(record.key)),
            kind => {
                let letter = if kind == ValueKind::Merge { 'M' } else { 'P' };
                format!("{letter} {}={}", text(record.key), String::from_utf8_lossy(record.value))
            }
        })
        .collect()
}

#[test]
fn the_batch_says_what_the_writes_come_to() {
    let mut writes = WriteSet::new(10_000);
    put(&mut writes, "b", "1");
    put(&mut writes, "x", "1");
    writes.delete_range(&range("a", "c")).unwrap();
    put(&mut writes, "a", "2");
    put(&mut writes, "x", "2");
    writes.set(&key("y"), None).unwrap();
    assert_eq!(records(&writes), ["R a-c", "P a=2", "P x=2", "D y"]);
}

#[test]
fn a_range_over_two_keyspaces_becomes_one_record_for_each() {
    let mut writes = WriteSet::new(10_000);
    let (first, second) = (KeyspaceId(1).prefix(), KeyspaceId(2).prefix());
    let third = KeyspaceId(3).prefix();
    writes.delete_range(&KeyRange { start: first.to_vec(), end: second.to_vec() }).unwrap();
    let start = [&second[..], b"k"].concat();
    writes.delete_range(&KeyRange { start: second.to_vec(), end: start.clone() }).unwrap();
    let batch = writes.to_batch(ORIGIN, |_| true);
    let found: Vec<_> = Records::new(batch.bytes())
        .map(|record| record.unwrap())
        .map(|record| (record.key.to_vec(), record.value.to_vec()))
        .collect();
    assert_eq!(found, [(first.to_vec(), second.to_vec()), (second.to_vec(), start)]);
    writes.delete_range(&KeyRange { start: second.to_vec(), end: third.to_vec() }).unwrap();
    assert_eq!(writes.to_batch(ORIGIN, |_| true).len(), 2);
}

#[test]
fn rolling_back_restores_writes_ranges_and_sizes() {
    let mut writes = WriteSet::new(100_000);
    put(&mut writes, "a", "1");
    put(&mut writes, "m", "1");
    writes.delete_range(&range("f", "k")).unwrap();
    let (before, bytes) = (records(&writes), writes.batch_bytes());
    let outer = writes.set_savepoint();
    put(&mut writes, "a", "22");
    let inner = writes.set_savepoint();
    put(&mut writes, "a", "333");
    writes.delete_range(&range("a", "z")).unwrap();
    put(&mut writes, "n", "4");
    put(&mut writes, "n", "5");
    writes.rollback_to(inner).unwrap();
    assert_eq!(records(&writes), ["R f-k", "P a=22", "P m=1"]);
    writes.set(&key("m"), None).unwrap();
    writes.rollback_to(outer).unwrap();
    assert_eq!((records(&writes), writes.batch_bytes(), writes.undo_bytes), (before, bytes, 0));
    assert!(writes.rollback_to(inner).is_err(), "it is later than the one rolled back to");
    put(&mut writes, "m", "9");
    writes.release(outer).unwrap();
    assert_eq!(records(&writes), ["R f-k", "P a=1", "P m=9"]);
    assert!(writes.rollback_to(outer).is_err());
    assert_eq!(writes.undo_bytes, 0);
}

#[test]
fn a_write_set_never_grows_beyond_its_bound() {
    let mut writes = WriteSet::new(1000);
    put(&mut writes, "a", &"x".repeat(900));
    let error = writes.set(&key("b"), Some(&[0; 100])).unwrap_err();
    assert!(error.to_string().contains("larger than 1000 bytes"), "{error}");
    assert_eq!(records(&writes).len(), 1);
    // Savepoints count too: what they would restore is kept.
    writes.set_savepoint();
    assert!(writes.set(&key("a"), Some(&[0; 900])).is_err());
    writes.set(&key("b"), Some(b"small")).unwrap();
    assert!(writes.delete_range(&range(&"q".repeat(100), "r")).is_err());
}

#[test]
fn operands_wait_for_what_they_apply_to() {
    let mut writes = WriteSet::new(10_000);
    let merge = |writes: &mut WriteSet, name: &str, operand: &str| {
        writes.merge(&key(name), operand.as_bytes()).unwrap();
    };
    merge(&mut writes, "committed", "1");
    merge(&mut writes, "committed", "2");
    put(&mut writes, "own", "base");
    merge(&mut writes, "own", "3");
    writes.delete_range(&range("r", "s")).unwrap();
    merge(&mut writes, "r", "4");
    let (before, bytes) = (records(&writes), writes.batch_bytes());
    assert_eq!(
        before,
        ["R r-s", "M committed=1", "M committed=2", "P own=base", "M own=3", "D r", "M r=4"]
    );
    let savepoint = writes.set_savepoint();
    merge(&mut writes, "committed", "5");
    merge(&mut writes, "own", "6");
    put(&mut writes, "r", "7");
    assert_eq!(
        records(&writes)[3..],
        ["M committed=5", "P own=base", "M own=3", "M own=6", "P r=7"]
    );
    writes.rollback_to(savepoint).unwrap();
    assert_eq!((records(&writes), writes.batch_bytes(), writes.undo_bytes), (before, bytes, 0));
    let mut small = WriteSet::new(200);
    merge(&mut small, "k", &"x".repeat(100));
    let error = small.merge(&key("k"), &[0; 100]).unwrap_err();
    assert!(error.to_string().contains("larger than 200 bytes"), "{error}");
    assert_eq!(records(&small).len(), 1);
}

#[test]
fn a_lifetime_goes_into_the_batch() {
    let mut writes = WriteSet::new(1000);
    writes.write(&key("k"), OwnWrite::PutExpiring(5, Arc::from(&b"v"[..]))).unwrap();
    let batch = writes.to_batch(ORIGIN, |_| true);
    assert!(batch.is_special() && batch.size_bytes() <= writes.batch_bytes());
    let record = Records::new(batch.bytes()).next().unwrap().unwrap();
    let expected = [&5_u64.to_le_bytes()[..], b"v"].concat();
    assert_eq!((record.kind, record.value), (ValueKind::PutExpiring, &expected[..]));
}
