//! Knows which states a database may be in after a crash.
//!
//! It remembers every commit in order, which of them were acknowledged, and how many of them stable storage has promised to keep. After
//! a crash the database must hold the outcome of a prefix of the acknowledged commits, at least as long as promised, or of all of them
//! and the one that was under way. A commit counts as a whole or not at all.

use std::collections::BTreeMap;

use rustlite_engine::{Database, Error, ErrorKind};

use crate::support::{Table, difference, dump_all};

/// A keyspace: its name, and which one of that name (a dropped and recreated keyspace is another).
pub(crate) type Space = (String, u32);

/// The keyspace that is always there.
pub(crate) fn default_space() -> Space {
    ("default".to_owned(), 0)
}

/// One write of a commit.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Put(Space, Vec<u8>, Vec<u8>),
    Delete(Space, Vec<u8>),
    /// Appends to the value.
    Merge(Space, Vec<u8>, Vec<u8>),
    DeleteRange(Space, Vec<u8>, Vec<u8>),
}

/// What is in every keyspace, dropped ones included.
#[derive(Debug, Clone, Default)]
struct State(BTreeMap<Space, Table>);

impl State {
    fn apply(&mut self, commit: &[Write]) {
        for write in commit {
            match write {
                Write::Put(space, key, value) => {
                    let table = self.0.entry(space.clone()).or_default();
                    table.insert(key.clone(), value.clone());
                }
                Write::Merge(space, key, operand) => {
                    let table = self.0.entry(space.clone()).or_default();
                    table.entry(key.clone()).or_default().extend_from_slice(operand);
                }
                Write::Delete(space, key) => {
                    self.0.entry(space.clone()).or_default().remove(key);
                }
                Write::DeleteRange(space, start, end) => {
                    let table = self.0.entry(space.clone()).or_default();
                    table.retain(|key, _| key < start || key >= end);
                }
            }
        }
    }

    /// What differs if exactly these keyspaces are alive.
    fn mismatch(&self, alive: &[Space], found: &BTreeMap<String, Table>) -> Option<String> {
        let nothing = Table::new();
        if alive.len() != found.len() {
            return Some(format!("keyspaces {:?} instead of {alive:?}", found.keys()));
        }
        alive.iter().find_map(|space| match found.get(&space.0) {
            None => Some(format!("keyspace {space:?} is missing")),
            Some(table) => difference(self.0.get(space).unwrap_or(&nothing), table)
                .map(|text| format!("in {space:?}: {text}")),
        })
    }
}

fn summary(commit: &[Write]) -> String {
    let describe = |write: &Write| match write {
        Write::Put(space, key, value) => {
            format!("put {}{} {} {}", space.0, space.1, String::from_utf8_lossy(key), value.len())
        }
        Write::Merge(space, key, operand) => {
            let key = String::from_utf8_lossy(key);
            format!("merge {}{} {key} {}", space.0, space.1, operand.len())
        }
        Write::Delete(space, key) => {
            format!("delete {}{} {}", space.0, space.1, String::from_utf8_lossy(key))
        }
        Write::DeleteRange(space, ..) => format!("delete range {}{}", space.0, space.1),
    };
    let writes: Vec<String> = commit.iter().map(describe).collect();
    format!("[{}]", writes.join("; "))
}

/// The possible states of one database.
#[derive(Debug, Clone)]
pub(crate) struct Oracle {
    base: State,
    /// Acknowledged since `base`, in order.
    commits: Vec<Vec<Write>>,
    /// So many of `commits` survive the loss of power.
    durable: usize,
    /// Failed or under way: at most one of them took effect, after all of `commits`.
    attempts: Vec<Vec<Write>>,
    /// True once a commit failed for good: later ones are refused and leave nothing.
    poisoned: bool,
    /// The outcome of `base` and `commits`: what reads must see.
    now: State,
    alive: Vec<Space>,
    /// What is alive instead, if a failed change of keyspaces took effect.
    alive_maybe: Vec<Vec<Space>>,
    generation: u32,
    /// What happened since `base`, for the report of a failure.
    events: Vec<String>,
}

impl Oracle {
    /// Of an empty database.
    pub(crate) fn new() -> Self {
        Self {
            base: State::default(),
            commits: Vec::new(),
            durable: 0,
            attempts: Vec::new(),
            poisoned: false,
            now: State::default(),
            alive: vec![default_space()],
            alive_maybe: Vec::new(),
            generation: 0,
            events: Vec::new(),
        }
    }

    /// The keyspaces that are there.
    pub(crate) fn alive(&self) -> &[Space] {
        &self.alive
    }

    /// What a read of the key must give.
    pub(crate) fn get(&self, space: &Space, key: &[u8]) -> Option<&Vec<u8>> {
        self.now.0.get(space).and_then(|table| table.get(key))
    }

    /// What a keyspace must hold.
    pub(crate) fn table(&self, space: &Space) -> Table {
        self.now.0.get(space).cloned().unwrap_or_default()
    }

    /// A commit has returned.
    pub(crate) fn committed(&mut self, commit: Vec<Write>, sync: bool, result: Result<(), &Error>) {
        match result {
            Ok(()) => {
                assert!(!self.poisoned, "a commit succeeded after one had failed for good");
                self.now.apply(&commit);
                self.attempts.clear();
                self.events.push(format!("commit of {}", summary(&commit)));
                self.commits.push(commit);
                if sync {
                    self.synced("its sync");
                }
            }
            Err(_) if self.poisoned => {}
            Err(error) => {
                self.attempts.push(commit);
                self.poisoned = error.kind() == ErrorKind::Poisoned;
            }
        }
    }

    /// Everything acknowledged so far has been made durable.
    pub(crate) fn synced(&mut self, how: &str) {
        self.events.push(format!("{how} makes {} durable", self.commits.len()));
        self.durable = self.commits.len();
    }

    /// A keyspace of this name is about to be created.
    pub(crate) fn new_space(&mut self, name: &str) -> Space {
        self.generation += 1;
        (name.to_owned(), self.generation)
    }

    /// The keyspaces were changed, or perhaps not.
    pub(crate) fn changed_spaces(&mut self, alive: Vec<Space>, succeeded: bool) {
        if succeeded {
            self.alive_maybe.clear();
            self.alive = alive;
        } else {
            self.alive_maybe.push(alive);
        }
    }

    /// Checks that the database is in one of the possible states; gives the oracle of that state, all of which is durable.
    pub(crate) fn check(&self, db: &Database, power_was_lost: bool) -> Result<Self, String> {
        let found = dump_all(db).map_err(|error| format!("cannot read: {error}"))?;
        let required = if power_was_lost { self.durable } else { self.commits.len() };
        for alive in std::iter::once(&self.alive).chain(&self.alive_maybe) {
            if self.find(required, alive, &found) {
                return Ok(self.settled(alive, &found));
            }
        }
        Err(self.explain(required, &found))
    }

    /// Checks that the database holds exactly what was acknowledged.
    pub(crate) fn check_now(&self, db: &Database) -> Result<(), String> {
        let found = dump_all(db).map_err(|error| format!("cannot read: {error}"))?;
        self.now.mismatch(&self.alive, &found).map_or(Ok(()), Err)
    }

    fn find(&self, required: usize, alive: &[Space], found: &BTreeMap<String, Table>) -> bool {
        let mut state = self.base.clone();
        self.commits[..required].iter().for_each(|commit| state.apply(commit));
        let mut rest = self.commits[required..].iter();
        loop {
            if state.mismatch(alive, found).is_none() {
                return true;
            }
            let Some(commit) = rest.next() else { break };
            state.apply(commit);
        }
        self.attempts.iter().any(|attempt| {
            let mut state = state.clone();
            state.apply(attempt);
            state.mismatch(alive, found).is_none()
        })
    }

    fn settled(&self, alive: &[Space], found: &BTreeMap<String, Table>) -> Self {
        let tables = alive.iter().map(|space| (space.clone(), found[&space.0].clone()));
        let base = State(tables.collect());
        Self {
            now: base.clone(),
            base,
            alive: alive.to_vec(),
            generation: self.generation,
            ..Self::new()
        }
    }

    /// Why no state fits: what is wrong with each end of the range, and which shorter prefix would fit.
    fn explain(&self, required: usize, found: &BTreeMap<String, Table>) -> String {
        let mut state = self.base.clone();
        let mut text = String::new();
        for (count, commit) in self.commits.iter().enumerate() {
            let wrong = state.mismatch(&self.alive, found);
            if wrong.is_none() {
                text += &format!("it is the state after {count} commits; ");
            }
            if count == required {
                text += &format!("required prefix: {}; ", wrong.unwrap_or_default());
            }
            state.apply(commit);
        }
        let all = state.mismatch(&self.alive, found).unwrap_or_default();
        format!(
            "the state is that of no prefix of {required} to {} commits (and {} attempts): {text}\
             all: {all}; events: {}",
            self.commits.len(),
            self.attempts.len(),
            self.events.join(", ")
        )
    }
}
