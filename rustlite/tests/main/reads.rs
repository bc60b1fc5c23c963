//! Every way to read, over data in memtables, in tables, and spread over all of them.

use std::collections::BTreeMap;
use std::ops::Bound;

use rustlite::{Cursor, Database, Durability};

use crate::random::{Random, seed};
use crate::support::{Stage, keys, on_each_setup, texts};

#[test]
fn point_reads_agree_with_each_other_at_every_stage() {
    on_each_setup(|setup| {
        for stage in Stage::ALL {
            let db = setup.open();
            for number in 0..300 {
                db.put(format!("{number:03}"), format!("value {number}")).unwrap();
            }
            db.delete("007").unwrap();
            let db = stage.reach(setup, db);
            let asked = ["000", "007", "123", "299", "300", "zzz"];
            let expected =
                [Some("value 0"), None, Some("value 123"), Some("value 299"), None, None];
            let found = db.multi_get(&asked).unwrap();
            for ((key, expected), found) in asked.iter().zip(expected).zip(found) {
                let expected = expected.map(str::as_bytes);
                assert_eq!(found.as_deref(), expected, "{stage:?} {key}");
                assert_eq!(db.get(key).unwrap().as_deref(), expected, "{stage:?} {key}");
                assert_eq!(db.get_pinned(key).unwrap().as_deref(), expected, "{stage:?} {key}");
                let mut copy = b"other".to_vec();
                assert_eq!(db.get_into(key, &mut copy).unwrap(), expected.is_some());
                assert_eq!(copy, expected.unwrap_or_default(), "{stage:?} {key}");
                assert_eq!(db.contains_key(key).unwrap(), expected.is_some(), "{stage:?} {key}");
            }
            assert_eq!(db.multi_get::<&str>(&[]).unwrap(), Vec::<Option<Vec<u8>>>::new());
            db.close().unwrap();
        }
    });
}

#[test]
fn ranges_and_prefixes_honour_every_kind_of_bound_from_both_ends() {
    on_each_setup(|setup| {
        for stage in Stage::ALL {
            let db = setup.open();
            for key in ["a", "a\0", "ab", "b", "b1", "b2", "c"] {
                db.put(key, "x").unwrap();
            }
            let db = stage.reach(setup, db);
            let all = "a a\0 ab b b1 b2 c";
            assert_eq!(keys(db.iter().unwrap()), all);
            assert_eq!(keys(db.range::<&str>(..).unwrap()), all);
            assert_eq!(keys(db.range("ab".."b1").unwrap()), "ab b");
            assert_eq!(keys(db.range("ab"..="b1").unwrap()), "ab b b1");
            assert_eq!(keys(db.range("b1"..).unwrap()), "b1 b2 c");
            assert_eq!(keys(db.range(.."ab").unwrap()), "a a\0");
            assert_eq!(keys(db.range(..="ab").unwrap()), "a a\0 ab");
            let behind_a = (Bound::Excluded("a"), Bound::Unbounded);
            assert_eq!(keys(db.range::<&str>(behind_a).unwrap()), "a\0 ab b b1 b2 c");
            assert_eq!(keys(db.range("ab".."b1").unwrap().rev()), "b ab");
            assert_eq!(keys(db.range("x"..).unwrap()), "");
            let reversed = (Bound::Included("c"), Bound::Excluded("a"));
            assert_eq!(keys(db.range::<&str>(reversed).unwrap()), "");
            assert_eq!(keys(db.range::<&str>(reversed).unwrap().rev()), "");
            assert_eq!(keys(db.prefix("b").unwrap()), "b b1 b2");
            assert_eq!(keys(db.prefix("b").unwrap().rev()), "b2 b1 b");
            assert_eq!(keys(db.prefix("").unwrap()), all);
            assert_eq!(keys(db.prefix("bb").unwrap()), "");
            db.close().unwrap();
        }
    });
}

#[test]
fn prefixes_of_the_largest_bytes_end_where_they_should() {
    on_each_setup(|setup| {
        let db = setup.open();
        for key in [&b"\xfe"[..], b"\xff", b"\xff\0", b"\xff\xff", b"\xff\xff\xff"] {
            db.put(key, "x").unwrap();
        }
        db.keyspace("behind").unwrap().put("k", "not to be seen").unwrap();
        let count = |prefix: &[u8]| db.prefix(prefix).unwrap().count();
        assert_eq!((count(b"\xff"), count(b"\xff\xff"), count(b"\xfe")), (4, 2, 1));
        assert_eq!(db.iter().unwrap().rev().count(), 5);
        let mut cursor = db.cursor().unwrap();
        cursor.seek(b"\xff\xff\xff\xff").unwrap();
        assert!(!cursor.valid(), "a cursor stays in its keyspace");
        cursor.seek_to_last().unwrap();
        assert_eq!(cursor.key(), b"\xff\xff\xff");
    });
}

#[test]
fn an_iterator_read_from_both_ends_yields_every_key_once() {
    on_each_setup(|setup| {
        let seed = seed();
        println!("RUSTLITE_TEST_SEED={seed}");
        let mut random = Random::new(&[seed]);
        let (db, model) = mixed_database(setup.open(), &mut random);
        for _ in 0..20 {
            let mut iter = db.iter().unwrap();
            let mut expected = model.iter();
            loop {
                let (found, wanted) = if random.one_in(2) {
                    (iter.next(), expected.next())
                } else {
                    (iter.next_back(), expected.next_back())
                };
                let found = found.map(Result::unwrap);
                assert_eq!(found, wanted.map(|(key, value)| (key.clone(), value.clone())));
                if wanted.is_none() {
                    break;
                }
            }
            assert!(iter.next().is_none() && iter.next_back().is_none(), "it stays at its end");
        }
    });
}

#[test]
fn a_cursor_goes_wherever_it_is_told() {
    on_each_setup(|setup| {
        let seed = seed();
        println!("RUSTLITE_TEST_SEED={seed}");
        let mut random = Random::new(&[seed]);
        let (db, model) = mixed_database(setup.open(), &mut random);
        let mut cursor = db.cursor().unwrap();
        assert!(!cursor.valid() && cursor.key().is_empty() && cursor.value().is_empty());
        cursor.next().unwrap();
        cursor.prev().unwrap();
        assert!(!cursor.valid(), "moving from nowhere leads nowhere");
        // A cursor can be sent to another thread.
        let walk = std::thread::spawn(move || {
            let mut expected = None;
            for _ in 0..5_000 {
                expected = random_move(&mut cursor, &model, &mut random, expected);
                let found =
                    cursor.valid().then(|| (cursor.key().to_vec(), cursor.value().to_vec()));
                assert_eq!(found, expected);
            }
        });
        walk.join().unwrap();
    });
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
type Record = Option<(Vec<u8>, Vec<u8>)>;

/// Makes a random move and gives where the model says that it leads.
fn random_move(cursor: &mut Cursor, model: &Model, random: &mut Random, current: Record) -> Record {
    let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
    let target = format!("{:04}", random.below(1_100)).into_bytes();
    match random.below(12) {
        0 => {
            cursor.seek_to_first().unwrap();
            model.iter().next().map(owned)
        }
        1 => {
            cursor.seek_to_last().unwrap();
            model.iter().next_back().map(owned)
        }
        2 | 3 => {
            cursor.seek(&target).unwrap();
            model.range(target..).next().map(owned)
        }
        4 | 5 => {
            cursor.seek_before(&target).unwrap();
            model.range(..target).next_back().map(owned)
        }
        6..=8 => {
            cursor.next().unwrap();
            let behind = |key| (Bound::Excluded(key), Bound::Unbounded);
            current.and_then(|(key, _)| model.range(behind(key)).next().map(owned))
        }
        _ => {
            cursor.prev().unwrap();
            current.and_then(|(key, _)| model.range(..key).next_back().map(owned))
        }
    }
}

/// A database whose records lie in several levels, in level 0 and in the memtable, many of them overwritten or deleted.
fn mixed_database(db: Database, random: &mut Random) -> (Database, Model) {
    let mut model = Model::new();
    for round in 0..6 {
        for _ in 0..400 {
            let key = format!("{:04}", random.below(1_000)).into_bytes();
            if random.one_in(4) {
                db.delete_with(&key, &buffered()).unwrap();
                model.remove(&key);
            } else {
                let value = format!("round {round} {:x}", random.next()).into_bytes();
                db.put_with(&key, &value, &buffered()).unwrap();
                model.insert(key, value);
            }
        }
        let start = random.below(900);
        let (start, end) = (format!("{start:04}"), format!("{:04}", start + random.below(60)));
        db.delete_range(&start, &end).unwrap();
        model.retain(|key, _| !(start.as_bytes()..end.as_bytes()).contains(&key.as_slice()));
        match round {
            1 => db.compact().unwrap(),
            2..=4 => db.flush().unwrap(),
            _ => {}
        }
    }
    (db, model)
}

fn buffered() -> rustlite::WriteOptions {
    rustlite::WriteOptions::new().durability(Durability::Buffered)
}

#[test]
fn what_an_iterator_sees_does_not_change_under_it() {
    on_each_setup(|setup| {
        let db = setup.open();
        for number in 0..500 {
            db.put_with(format!("{number:03}"), "old", &buffered()).unwrap();
        }
        let iterators = [db.iter().unwrap(), db.range("".."9").unwrap(), db.prefix("").unwrap()];
        let pinned = db.get_pinned("123").unwrap().unwrap();
        let mut cursor = db.cursor().unwrap();
        db.delete_range("0", "4").unwrap();
        for number in 0..500 {
            db.put_with(format!("{number:03}x"), "new", &buffered()).unwrap();
        }
        db.compact().unwrap();
        db.clear().unwrap();
        db.compact().unwrap();
        db.close().unwrap();
        drop(db);
        for iter in iterators {
            let seen = texts(iter);
            assert_eq!(seen.len(), 500);
            assert!(seen.iter().all(|(key, value)| key.len() == 3 && value == "old"));
        }
        assert_eq!(&*pinned, b"old");
        cursor.seek("321").unwrap();
        assert_eq!((cursor.key(), cursor.value()), (&b"321"[..], &b"old"[..]));
    });
}

/// The compiler checks it: what readers hold can be kept and sent anywhere, and a database can be shared.
const _: () = {
    const fn is_owned<T: Send + 'static>() {}
    const fn is_shared<T: Send + Sync + Clone + 'static>() {}
    is_owned::<rustlite::Iter>();
    is_owned::<Cursor>();
    is_shared::<Database>();
    is_shared::<rustlite::Keyspace>();
    is_shared::<rustlite::Snapshot>();
    is_shared::<rustlite::KeyspaceSnapshot>();
    is_shared::<rustlite::PinnedValue>();
    is_shared::<rustlite::WriteBatch>();
    is_shared::<rustlite::Options>();
    is_shared::<rustlite::Error>();
};

/// Two overlapping runs are fewer than writers mind. Readers that go through both have them merged.
#[test]
fn scans_and_lookups_have_level0_merged_when_it_costs_them_enough() {
    fn scan(db: &Database) {
        assert_eq!(db.iter().unwrap().count(), 3000);
    }
    fn look_up(db: &Database) {
        for number in 0..3000 {
            assert!(db.get(format!("{number:04}")).unwrap().is_some());
        }
    }
    for (name, read) in [("scan", scan as fn(&Database)), ("lookups", look_up)] {
        let db = Database::in_memory().unwrap();
        for begin in [0, 1] {
            for number in (begin..3000).step_by(2) {
                db.put(format!("{number:04}"), [7; 50]).unwrap();
            }
            db.flush().unwrap();
        }
        let runs = || db.stats().unwrap().levels[0].runs;
        assert_eq!(runs(), 2, "{name}");
        let begin = std::time::Instant::now();
        while runs() > 0 {
            read(&db);
            assert!(begin.elapsed().as_secs() < 60, "{name}: level 0 is still there");
        }
        read(&db);
        db.close().unwrap();
    }
}
