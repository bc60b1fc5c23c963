//! The anomalies of Adya's theory, as the Hermitage tests provoke them: for each isolation level, whether they can happen.
//!
//! Every scenario is one interleaving of transactions over the keys `1` (with value 10) and `2` (with value 20), and says whether the
//! anomaly occurred. Where a level allows an anomaly, the test demands that it does occur: a level that is stricter than its name would
//! make its users pay for nothing, and a scenario that never finds anything would test nothing.

use rustlite_engine::{Database, ErrorKind, IsolationLevel, Result, Transaction};

/// Whether a scenario showed its anomaly.
#[derive(Debug, PartialEq, Eq)]
enum Anomaly {
    Occurred,
    Prevented,
}

fn occurred(yes: bool) -> Anomaly {
    if yes { Anomaly::Occurred } else { Anomaly::Prevented }
}

fn database() -> Database {
    let db = Database::in_memory().unwrap();
    db.put("1", "10").unwrap();
    db.put("2", "20").unwrap();
    db
}

fn begin<const N: usize>(db: &Database, level: IsolationLevel) -> [Transaction; N] {
    std::array::from_fn(|_| db.begin_with(level).unwrap())
}

fn number(value: &[u8]) -> i64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

fn get(txn: &Transaction, key: &str) -> Option<i64> {
    txn.get(key).unwrap().map(|value| number(&value))
}

fn put(txn: &mut Transaction, key: &str, value: i64) {
    txn.put(key, value.to_string()).unwrap();
}

/// The rows that a predicate over values selects.
fn select(txn: &Transaction, predicate: impl Fn(i64) -> bool) -> Vec<(String, i64)> {
    txn.iter()
        .unwrap()
        .map(|item| item.unwrap())
        .map(|(key, value)| (String::from_utf8(key).unwrap(), number(&value)))
        .filter(|(_, value)| predicate(*value))
        .collect()
}

/// True if the commit succeeded; it may only fail because of a conflict.
fn committed(result: Result<u64>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::Conflict => false,
        Err(error) => panic!("{error:?}"),
    }
}

fn state(db: &Database) -> Vec<(String, i64)> {
    select(&db.begin().unwrap(), |_| true)
}

fn rows(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected.iter().map(|&(key, value)| (key.to_owned(), value)).collect()
}

/// G0: the writes of two transactions are mixed.
fn dirty_write(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [mut first, mut second] = begin(&db, level);
    put(&mut first, "1", 11);
    put(&mut second, "1", 12);
    put(&mut first, "2", 21);
    assert!(committed(first.commit()));
    assert_eq!(state(&db), rows(&[("1", 11), ("2", 21)]));
    put(&mut second, "2", 22);
    let expected =
        if committed(second.commit()) { [("1", 12), ("2", 22)] } else { [("1", 11), ("2", 21)] };
    occurred(state(&db) != rows(&expected))
}

/// G1a: a write that is rolled back is read.
fn aborted_read(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [mut first, second] = begin(&db, level);
    put(&mut first, "1", 101);
    let before = select(&second, |_| true);
    first.rollback();
    let after = select(&second, |_| true);
    let expected = rows(&[("1", 10), ("2", 20)]);
    assert!(committed(second.commit()));
    occurred(before != expected || after != expected)
}

/// G1b: a write is read that its transaction later overwrites.
fn intermediate_read(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [mut first, second] = begin(&db, level);
    put(&mut first, "1", 101);
    let before = get(&second, "1");
    put(&mut first, "1", 11);
    assert!(committed(first.commit()));
    let after = get(&second, "1");
    occurred(before == Some(101) || after == Some(101))
}

/// G1c: two transactions read each other's writes.
fn circular_information_flow(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [mut first, mut second] = begin(&db, level);
    put(&mut first, "1", 11);
    put(&mut second, "2", 22);
    let (of_second, of_first) = (get(&first, "2"), get(&second, "1"));
    let both = committed(first.commit()) & committed(second.commit());
    occurred(both && of_second == Some(22) && of_first == Some(11))
}

/// OTV: after a transaction's write was seen, the state before it is seen.
fn observed_transaction_vanishes(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [mut first, mut second, third] = begin(&db, level);
    put(&mut first, "1", 11);
    put(&mut first, "2", 19);
    put(&mut second, "1", 12);
    assert!(committed(first.commit()));
    let early = (get(&third, "1"), get(&third, "2"));
    put(&mut second, "2", 18);
    let middle = (get(&third, "1"), get(&third, "2"));
    let _ = committed(second.commit());
    let late = (get(&third, "2"), get(&third, "1"));
    let torn = |one: Option<i64>, two: Option<i64>| {
        ![(10, 20), (11, 19), (12, 18)].contains(&(one.unwrap(), two.unwrap()))
    };
    occurred(torn(early.0, early.1) || torn(middle.0, middle.1) || torn(late.1, late.0))
}

/// PMP, read predicate: what a predicate selects changes while a transaction runs.
fn predicate_many_preceders(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [first, mut second] = begin(&db, level);
    assert!(select(&first, |value| value == 30).is_empty());
    put(&mut second, "3", 30);
    assert!(committed(second.commit()));
    occurred(!select(&first, |value| value % 3 == 0).is_empty())
}

/// PMP, write predicate: a transaction deletes what a predicate selected, after another has changed it.
fn predicate_many_preceders_on_write(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [mut first, mut second] = begin(&db, level);
    for (key, value) in select(&first, |_| true) {
        put(&mut first, &key, value + 10);
    }
    let selected = select(&second, |value| value == 20);
    assert!(committed(first.commit()));
    for (key, _) in selected {
        second.delete(key).unwrap();
    }
    // The row with the value 20 would be there still, and the one with the value 30 deleted.
    let deleted = committed(second.commit());
    assert_eq!(deleted, state(&db) == rows(&[("1", 20)]));
    occurred(deleted)
}

/// P4: two transactions update what they have read, and one update is lost.
fn lost_update(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [mut first, mut second] = begin(&db, level);
    let (a, b) = (get(&first, "1").unwrap(), get(&second, "1").unwrap());
    put(&mut first, "1", a + 1);
    put(&mut second, "1", b + 1);
    assert!(committed(first.commit()));
    occurred(committed(second.commit()) && get(&db.begin().unwrap(), "1") == Some(11))
}

/// G-single: a transaction reads one key before and another after a transaction that wrote both.
fn read_skew(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [first, mut second] = begin(&db, level);
    assert_eq!(get(&first, "1"), Some(10));
    put(&mut second, "1", 12);
    put(&mut second, "2", 18);
    assert!(committed(second.commit()));
    let skewed = get(&first, "2") == Some(18);
    occurred(skewed && committed(first.commit()))
}

/// G-single with predicates.
fn read_skew_over_predicates(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [first, mut second] = begin(&db, level);
    assert_eq!(select(&first, |value| value % 5 == 0).len(), 2);
    for (key, _) in select(&second, |value| value == 10) {
        put(&mut second, &key, 12);
    }
    assert!(committed(second.commit()));
    let skewed = !select(&first, |value| value % 3 == 0).is_empty();
    occurred(skewed && committed(first.commit()))
}

/// G-single where the second read is the predicate of a write.
fn read_skew_before_a_write(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [mut first, mut second] = begin(&db, level);
    assert_eq!(get(&first, "1"), Some(10));
    put(&mut second, "1", 12);
    put(&mut second, "2", 18);
    assert!(committed(second.commit()));
    for (key, _) in select(&first, |value| value == 18) {
        first.delete(key).unwrap();
    }
    let deleted = !first.contains_key("2").unwrap();
    occurred(committed(first.commit()) && deleted)
}

/// G2-item: two transactions read both keys, and each writes another one.
fn write_skew(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [mut first, mut second] = begin(&db, level);
    for txn in [&first, &second] {
        assert_eq!(txn.multi_get(&["1", "2"]).unwrap().len(), 2);
    }
    put(&mut first, "1", 11);
    put(&mut second, "2", 21);
    occurred(committed(first.commit()) & committed(second.commit()))
}

/// G2: two transactions find nothing, and each writes what the other would have found.
fn predicate_write_skew(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [mut first, mut second] = begin(&db, level);
    for txn in [&first, &second] {
        assert!(select(txn, |value| value % 3 == 0).is_empty());
    }
    put(&mut first, "3", 30);
    put(&mut second, "4", 42);
    occurred(committed(first.commit()) & committed(second.commit()))
}

/// G2 with two edges: a transaction that only reads sees a state that no order of the two writing ones explains.
fn read_only_anomaly(level: IsolationLevel) -> Anomaly {
    let db = database();
    let [mut first] = begin(&db, level);
    assert_eq!(select(&first, |_| true), rows(&[("1", 10), ("2", 20)]));
    let [mut second] = begin(&db, level);
    put(&mut second, "2", 25);
    assert!(committed(second.commit()));
    let [third] = begin(&db, level);
    assert_eq!(select(&third, |_| true), rows(&[("1", 10), ("2", 25)]));
    assert!(committed(third.commit()));
    put(&mut first, "1", 0);
    occurred(committed(first.commit()))
}

/// A test for each level.
macro_rules! anomaly {
    ($($name:ident: $ru:ident, $rc:ident, $rr:ident, $s:ident;)*) => {$(
        mod $name {
            use super::Anomaly::{Occurred, Prevented};
            use rustlite_engine::IsolationLevel::*;

            #[test]
            fn at_read_uncommitted() {
                assert_eq!(super::$name(ReadUncommitted), $ru);
            }

            #[test]
            fn at_read_committed() {
                assert_eq!(super::$name(ReadCommitted), $rc);
            }

            #[test]
            fn at_repeatable_read() {
                assert_eq!(super::$name(RepeatableRead), $rr);
            }

            #[test]
            fn at_serializable() {
                assert_eq!(super::$name(Serializable), $s);
            }

            /// So that every module uses both words.
            const _: [super::Anomaly; 2] = [Occurred, Prevented];
        }
    )*};
}

anomaly! {
    dirty_write: Prevented, Prevented, Prevented, Prevented;
    aborted_read: Prevented, Prevented, Prevented, Prevented;
    intermediate_read: Prevented, Prevented, Prevented, Prevented;
    circular_information_flow: Prevented, Prevented, Prevented, Prevented;
    observed_transaction_vanishes: Prevented, Prevented, Prevented, Prevented;
    predicate_many_preceders: Occurred, Occurred, Prevented, Prevented;
    predicate_many_preceders_on_write: Occurred, Occurred, Prevented, Prevented;
    lost_update: Occurred, Occurred, Prevented, Prevented;
    read_skew: Occurred, Occurred, Prevented, Prevented;
    read_skew_over_predicates: Occurred, Occurred, Prevented, Prevented;
    read_skew_before_a_write: Occurred, Occurred, Prevented, Prevented;
    write_skew: Occurred, Occurred, Occurred, Prevented;
    predicate_write_skew: Occurred, Occurred, Occurred, Prevented;
    read_only_anomaly: Occurred, Occurred, Occurred, Prevented;
}

#[test]
fn get_for_update_prevents_the_lost_update_at_read_committed() {
    let db = database();
    let mut first = db.begin_with(IsolationLevel::ReadCommitted).unwrap();
    let old = number(&first.get_for_update("1").unwrap().unwrap());
    let rival = db.clone();
    let second = std::thread::spawn(move || {
        let mut second = rival.begin_with(IsolationLevel::ReadCommitted).unwrap();
        let old = number(&second.get_for_update("1").unwrap().unwrap());
        put(&mut second, "1", old + 1);
        second.commit().unwrap();
    });
    put(&mut first, "1", old + 1);
    first.commit().unwrap();
    second.join().unwrap();
    assert_eq!(get(&db.begin().unwrap(), "1"), Some(12));
}
