//! What the writers of [`kill`](crate::kill) do, and what their part of the database must be afterwards.

use std::collections::BTreeMap;

use rustlite::{Database, Result, WriteBatch, WriteOptions};

use crate::random::Random;

/// Keys that a thread uses in each keyspace.
const KEYS: u64 = 400;

/// Keyspaces that all threads write to. The third is the default one.
pub(crate) const SHARED: [&str; 3] = ["accounts", "history", "default"];

/// One operation of a thread: it happens as a whole or not at all.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Put {
        keyspace: usize,
        key: String,
        value: Vec<u8>,
    },
    Delete {
        keyspace: usize,
        key: String,
    },
    DeleteRange {
        keyspace: usize,
        start: String,
        end: String,
    },
    /// The same value under the same key in every shared keyspace, and a delete.
    Batch {
        key: String,
        value: Vec<u8>,
        deleted: String,
    },
    CreateKeyspace,
    /// A write to the thread's own keyspace.
    PutOwn {
        key: String,
        value: Vec<u8>,
    },
    DropKeyspace,
}

fn key(thread: u64, number: u64) -> String {
    format!("thread {thread} key {number:04}")
}

fn own_name(thread: u64) -> String {
    format!("only of thread {thread}")
}

impl Operation {
    /// The operation number `number` of a thread in a round.
    pub(crate) fn of(round_seed: u64, thread: u64, number: u64) -> Self {
        let mut random = Random::new(&[round_seed, thread, number]);
        let keyspace = random.below(SHARED.len() as u64) as usize;
        let at = random.below(KEYS);
        let length = if random.one_in(50) { 20_000 } else { random.below(300) };
        let value: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        match random.below(200) {
            0 => Self::CreateKeyspace,
            1 => Self::DropKeyspace,
            2..=11 => Self::PutOwn { key: key(thread, at), value },
            12..=15 => {
                let end = key(thread, at + 1 + random.below(20));
                Self::DeleteRange { keyspace, start: key(thread, at), end }
            }
            16..=45 => Self::Delete { keyspace, key: key(thread, at) },
            46..=105 => {
                let deleted = key(thread, random.below(KEYS));
                Self::Batch { key: key(thread, at), value, deleted }
            }
            _ => Self::Put { keyspace, key: key(thread, at), value },
        }
    }

    pub(crate) fn carry_out(&self, db: &Database, thread: u64, write: &WriteOptions) -> Result<()> {
        let open = |number: usize| db.keyspace(SHARED[number]);
        match self {
            Self::Put { keyspace, key, value } => open(*keyspace)?.put_with(key, value, write),
            Self::Delete { keyspace, key } => open(*keyspace)?.delete_with(key, write),
            Self::DeleteRange { keyspace, start, end } => open(*keyspace)?.delete_range(start, end),
            Self::Batch { key, value, deleted } => {
                let mut batch = WriteBatch::new();
                for number in 0..SHARED.len() {
                    batch.put_in(&open(number)?, key, value);
                }
                batch.delete_in(&open(0)?, deleted);
                db.write_with(&batch, write)
            }
            Self::CreateKeyspace => db.keyspace(&own_name(thread)).map(drop),
            Self::PutOwn { key, value } => match db.existing_keyspace(&own_name(thread))? {
                Some(own) => own.put_with(key, value, write),
                None => Ok(()),
            },
            Self::DropKeyspace => match db.existing_keyspace(&own_name(thread))? {
                Some(_) => db.drop_keyspace(&own_name(thread)),
                None => Ok(()),
            },
        }
    }
}

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a thread's part of the database holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    shared: [Content; SHARED.len()],
    own: Option<Content>,
}

impl Part {
    pub(crate) fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Put { keyspace, key, value } => {
                self.shared[keyspace].insert(key.into_bytes(), value);
            }
            Operation::Delete { keyspace, key } => {
                self.shared[keyspace].remove(key.as_bytes());
            }
            Operation::DeleteRange { keyspace, start, end } => {
                let covered = start.into_bytes()..end.into_bytes();
                self.shared[keyspace].retain(|key, _| !covered.contains(key));
            }
            Operation::Batch { key, value, deleted } => {
                for content in &mut self.shared {
                    content.insert(key.clone().into_bytes(), value.clone());
                }
                self.shared[0].remove(deleted.as_bytes());
            }
            Operation::CreateKeyspace => {
                self.own.get_or_insert_default();
            }
            Operation::PutOwn { key, value } => {
                if let Some(own) = &mut self.own {
                    own.insert(key.into_bytes(), value);
                }
            }
            Operation::DropKeyspace => self.own = None,
        }
    }

    pub(crate) fn read(db: &Database, thread: u64) -> Self {
        let prefix = format!("thread {thread} ");
        let shared = SHARED.map(|name| {
            // The process may have been killed before it created them.
            let Some(keyspace) = db.existing_keyspace(name).unwrap() else {
                return Content::new();
            };
            let items = keyspace.prefix(&prefix).unwrap();
            items.map(|item| item.expect("everything can be read after a kill")).collect()
        });
        let own = db.existing_keyspace(&own_name(thread)).unwrap();
        Self { shared, own: own.map(|own| crate::support::collect(own.iter().unwrap())) }
    }

    /// Where two parts differ, in words.
    pub(crate) fn difference(&self, other: &Self) -> String {
        for (number, name) in SHARED.iter().enumerate() {
            let (ours, theirs) = (&self.shared[number], &other.shared[number]);
            for key in ours.keys().chain(theirs.keys()) {
                if ours.get(key) != theirs.get(key) {
                    let show = |found: Option<&Vec<u8>>| match found {
                        Some(value) => {
                            format!("{} bytes {:02x?}", value.len(), &value[..value.len().min(8)])
                        }
                        None => "nothing".to_owned(),
                    };
                    let key_text = String::from_utf8_lossy(key);
                    let (found, wanted) = (show(ours.get(key)), show(theirs.get(key)));
                    return format!("{name}: {key_text}: found {found}, expected {wanted}");
                }
            }
        }
        let size = |own: &Option<Content>| own.as_ref().map(BTreeMap::len);
        format!("own keyspace: found {:?}, expected {:?}", size(&self.own), size(&other.own))
    }
}
