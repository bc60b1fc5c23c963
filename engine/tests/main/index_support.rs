//! Rows with words, and what their indexes must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use rustlite_engine::{
    Database, Index, IndexEntry, IndexReader, IndexSource, IndexType, Keyspace, Options, Result,
};

use crate::support::{Random, Table, small_options};

/// Entries of one index: index key, primary key.
pub(crate) type Entries = BTreeSet<(Vec<u8>, Vec<u8>)>;

/// One index that a test has, and how its entries follow from a row.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) index_type: IndexType,
    pub(crate) unique: bool,
    source: fn() -> IndexSource,
    keys: fn(&[u8], &[u8]) -> Vec<Vec<u8>>,
}

/// Words of a value that begin with a letter: many entries a row.
fn words(_: &[u8], value: &[u8]) -> Vec<Vec<u8>> {
    let words = value.split(|byte| *byte == b' ');
    words
        .filter(|word| word.first().is_some_and(u8::is_ascii_lowercase))
        .map(<[u8]>::to_vec)
        .collect()
}

/// The word of a value that begins with `#`: none or one.
fn tag(_: &[u8], value: &[u8]) -> Vec<Vec<u8>> {
    let mut words = value.split(|byte| *byte == b' ');
    words.find(|word| word.starts_with(b"#")).map(<[u8]>::to_vec).into_iter().collect()
}

fn third_of_key(key: &[u8], _: &[u8]) -> Vec<Vec<u8>> {
    key.get(2..3).map(<[u8]>::to_vec).into_iter().collect()
}

pub(crate) const KINDS: [Kind; 5] = [
    Kind {
        name: "words",
        index_type: IndexType::BTree,
        unique: false,
        source: || IndexSource::extractor("words"),
        keys: words,
    },
    Kind {
        name: "hashed words",
        index_type: IndexType::Hash,
        unique: false,
        source: || IndexSource::extractor("words"),
        keys: words,
    },
    Kind {
        name: "tag",
        index_type: IndexType::BTree,
        unique: true,
        source: || IndexSource::extractor("tag"),
        keys: tag,
    },
    Kind {
        name: "hashed tag",
        index_type: IndexType::Hash,
        unique: true,
        source: || IndexSource::extractor("tag"),
        keys: tag,
    },
    Kind {
        name: "third of key",
        index_type: IndexType::BTree,
        unique: false,
        source: || IndexSource::key_bytes(2..3),
        keys: third_of_key,
    },
];

impl Kind {
    pub(crate) fn create(&self, db: &Database, rows: &Keyspace) -> Result<Index> {
        let create =
            if self.unique { Database::create_unique_index } else { Database::create_index };
        create(db, self.name, rows, self.index_type, (self.source)())
    }

    /// Everything that the index must hold.
    pub(crate) fn entries(&self, rows: &Table) -> Entries {
        let of = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            let key = key.clone();
            (self.keys)(&key, value).into_iter().map(move |index_key| (index_key, key.clone()))
        };
        rows.iter().flat_map(of).collect()
    }

    /// Whether two rows have the same key in this unique index.
    pub(crate) fn is_violated(&self, rows: &Table) -> bool {
        let entries = self.entries(rows);
        let distinct: BTreeSet<_> = entries.iter().map(|(key, _)| key).collect();
        self.unique && distinct.len() != entries.len()
    }

    /// Compares all kinds of look-ups with what they must find.
    pub(crate) fn check(&self, reader: &IndexReader, rows: &Table, random: &mut Random) {
        let expected = self.entries(rows);
        let pair = |entry: Result<IndexEntry>| entry.map(|entry| (entry.key, entry.primary_key));
        let found: Vec<_> = reader.iter().map(pair).collect::<Result<_>>().unwrap();
        assert_eq!(found.iter().cloned().collect::<Entries>(), expected, "{}", self.name);
        let (low, high) = (random_word(random), random_word(random));
        for key in [&low, &high] {
            let equal: Vec<_> =
                expected.iter().filter(|(found, _)| found == key).map(|(_, row)| row).collect();
            assert_eq!(reader.find(key).unwrap().iter().collect::<Vec<_>>(), equal);
            let keys: Vec<_> = reader
                .rows(key)
                .unwrap()
                .into_iter()
                .map(|(key, value)| (rows[&key] == value, key))
                .collect();
            assert!(
                keys.iter()
                    .map(|(same, key)| (*same, key))
                    .eq(equal.into_iter().map(|key| (true, key)))
            );
        }
        if self.index_type == IndexType::Hash {
            return;
        }
        assert!(found.is_sorted(), "{}", self.name);
        let bounds = (Bound::Excluded(&low), Bound::Included(&high));
        let between: Vec<_> =
            expected.iter().filter(|(key, _)| *key > low && *key <= high).cloned().collect();
        let mut range = reader.range::<&Vec<u8>>(bounds).unwrap();
        let mut met = Vec::new();
        // From both ends in turn, until they meet.
        while let Some(entry) = if random.percent(50) { range.next() } else { range.next_back() } {
            met.push(pair(entry).unwrap());
        }
        met.sort();
        assert_eq!(met, between, "{}", self.name);
        let prefix = &low[..1];
        let backward: Vec<_> =
            reader.prefix(prefix).unwrap().rev().map(pair).collect::<Result<_>>().unwrap();
        let beginning = expected.iter().filter(|(key, _)| key.starts_with(prefix)).rev();
        assert_eq!(backward.iter().collect::<Vec<_>>(), beginning.collect::<Vec<_>>());
    }
}

/// Options with the extractors of [`KINDS`].
pub(crate) fn options() -> Options {
    small_options()
        .index_extractor("words", |key, value, keys| {
            words(key, value).iter().for_each(|word| keys.add(word));
        })
        .index_extractor("tag", |key, value, keys| {
            tag(key, value).iter().for_each(|tag| keys.add(tag));
        })
}

/// A word of an alphabet so small that rows share words; some with bytes that are escaped.
pub(crate) fn random_word(random: &mut Random) -> Vec<u8> {
    let len = 1 + random.below(3);
    let mut word = vec![b'a' + random.below(3) as u8];
    word.extend((1..len).map(|_| b"ab\0\xff"[random.below(4)]));
    word
}

pub(crate) fn random_key(random: &mut Random) -> Vec<u8> {
    format!("k{:02}", random.below(60)).into_bytes()
}

/// Some words, sometimes a tag, sometimes nothing.
pub(crate) fn random_value(random: &mut Random) -> Vec<u8> {
    let mut words: Vec<_> = (0..random.below(5)).map(|_| random_word(random)).collect();
    if random.percent(40) {
        words.push(format!("#{:02}", random.below(40)).into_bytes());
    }
    if random.percent(10) {
        words.push(vec![b'9'; 300]);
    }
    words.join(&b' ')
}

pub(crate) fn table(keyspace: &Keyspace) -> Table {
    keyspace.iter().unwrap().collect::<Result<BTreeMap<_, _>>>().unwrap()
}
