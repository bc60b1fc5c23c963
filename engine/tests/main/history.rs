//! Checks what concurrent transactions have observed, with knowledge of the engine: each transaction's snapshot and commit are sequence
//! numbers, so the state that a read must have seen is known exactly.
//!
//! * [`check_committed`]: nobody read what was rolled back or later overwritten by its own transaction, and information flows in no
//!   circle (G1a, G1b, G1c).
//! * [`check_snapshots`]: every read and every walked range shows the state at the snapshot plus own writes; of two transactions that
//!   overlap and write the same key, only one committed; a snapshot holds every commit that had returned before.
//! * [`check_serializable`]: the graph of dependencies between committed transactions (write-write, write-read, read-write, over keys
//!   and over ranges) has no circle.
//!
//! The tests at the end feed each of them histories with the anomaly that it is there to find.

use std::collections::{BTreeMap, HashMap};

/// Keys are numbers here; the workload maps them to bytes in the same order.
pub(crate) type Key = usize;

/// The numbers of the writes that made a value, oldest first. A register has one, a list all that were appended.
pub(crate) type Value = Vec<u64>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Read(Key, Option<Value>),
    /// Everything found from the first key to the second, exclusive.
    Scan(Key, Key, Vec<(Key, Value)>),
    /// A new value, or a delete.
    Write(Key, Option<Value>),
    DeleteRange(Key, Key),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// What its reads see; `None` if each read saw what was newest.
    pub(crate) snapshot: Option<u64>,
    /// Its place in the order; `None` if it was rolled back or failed.
    pub(crate) commit: Option<u64>,
    /// The newest commit that had returned when it began.
    pub(crate) returned_before: u64,
    pub(crate) ops: Vec<Op>,
}

/// A version of a key: its commit, the transaction that wrote it, the value.
struct Version<'h> {
    commit: u64,
    writer: usize,
    value: Option<&'h Value>,
}

/// Transactions, and every version of every key in the order of commits.
struct History<'h> {
    transactions: &'h [Transaction],
    versions: Vec<Vec<Version<'h>>>,
}

/// What each key has been set to by the operations, the last one of each key.
fn effects(ops: &[Op]) -> BTreeMap<Key, Option<&Value>> {
    let mut effects = BTreeMap::new();
    for op in ops {
        match op {
            Op::Write(key, value) => {
                effects.insert(*key, value.as_ref());
            }
            Op::DeleteRange(start, end) => effects.extend((*start..*end).map(|key| (key, None))),
            Op::Read(..) | Op::Scan(..) => {}
        }
    }
    effects
}

impl<'h> History<'h> {
    fn new(keys: usize, transactions: &'h [Transaction]) -> Result<Self, String> {
        let mut versions: Vec<Vec<Version<'h>>> = (0..keys).map(|_| Vec::new()).collect();
        let mut commits: Vec<(u64, usize)> = Vec::new();
        for (writer, transaction) in transactions.iter().enumerate() {
            let Some(commit) = transaction.commit else { continue };
            let effects = effects(&transaction.ops);
            if !effects.is_empty() {
                commits.push((commit, writer));
            }
            for (key, value) in effects {
                versions[key].push(Version { commit, writer, value });
            }
        }
        commits.sort_unstable();
        if let Some(pair) = commits.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("two transactions committed as {}", pair[0].0));
        }
        versions.iter_mut().for_each(|versions| versions.sort_by_key(|version| version.commit));
        Ok(Self { transactions, versions })
    }

    /// How many versions of the key there were at the snapshot.
    fn count_at(&self, key: Key, snapshot: u64) -> usize {
        self.versions[key].partition_point(|version| version.commit <= snapshot)
    }

    fn value_at(&self, key: Key, snapshot: u64) -> Option<&'h Value> {
        let newest = self.count_at(key, snapshot).checked_sub(1)?;
        self.versions[key][newest].value
    }

    fn committed(&self) -> impl Iterator<Item = (usize, &'h Transaction)> {
        self.transactions.iter().enumerate().filter(|(_, transaction)| transaction.commit.is_some())
    }
}

/// What a transaction read that it had not written itself.
#[derive(Clone, Copy)]
enum Observation<'h> {
    Key(Key, Option<&'h Value>),
    /// Nothing there, found while a range was walked.
    Gap(Key),
}

/// Every key that the transaction has read or walked over, in order, but for own writes.
///
/// # Errors
/// If an own write was not read back.
fn observations(transaction: &Transaction) -> Result<Vec<Observation<'_>>, String> {
    let mut seen = Vec::new();
    for (index, op) in transaction.ops.iter().enumerate() {
        let own = effects(&transaction.ops[..index]);
        let mut see = |key: Key, found: Option<_>, walked: bool| match own.get(&key) {
            Some(written) if *written == found => Ok(()),
            Some(written) => Err(format!("wrote {written:?} to {key} and read {found:?}")),
            None if walked && found.is_none() => {
                seen.push(Observation::Gap(key));
                Ok(())
            }
            None => {
                seen.push(Observation::Key(key, found));
                Ok(())
            }
        };
        match op {
            Op::Read(key, found) => see(*key, found.as_ref(), false)?,
            Op::Scan(start, end, found) => {
                let found: BTreeMap<_, _> =
                    found.iter().map(|(key, value)| (*key, value)).collect();
                if found.keys().any(|key| !(*start..*end).contains(key)) {
                    return Err(format!("a walk from {start} to {end} found {found:?}"));
                }
                (*start..*end).try_for_each(|key| see(key, found.get(&key).copied(), true))?;
            }
            Op::Write(..) | Op::DeleteRange(..) => {}
        }
    }
    Ok(seen)
}

/// See the module.
pub(crate) fn check_snapshots(keys: usize, transactions: &[Transaction]) -> Result<(), String> {
    let history = History::new(keys, transactions)?;
    for (index, transaction) in transactions.iter().enumerate() {
        let blame = |text: String| format!("transaction {index}: {text}: {transaction:?}");
        let Some(snapshot) = transaction.snapshot else {
            return Err(blame("it has no snapshot".into()));
        };
        if snapshot < transaction.returned_before {
            return Err(blame("its snapshot misses a commit that had returned".into()));
        }
        for observation in observations(transaction).map_err(&blame)? {
            let (key, found) = match observation {
                Observation::Key(key, found) => (key, found),
                Observation::Gap(key) => (key, None),
            };
            let expected = history.value_at(key, snapshot);
            if found != expected {
                return Err(blame(format!("{key} was {expected:?} and it read {found:?}")));
            }
        }
    }
    for (key, versions) in history.versions.iter().enumerate() {
        for pair in versions.windows(2) {
            let later = &transactions[pair[1].writer];
            if later.snapshot.is_none_or(|snapshot| snapshot < pair[0].commit) {
                return Err(format!(
                    "{key} was written at {} and, without that being seen, by {later:?}",
                    pair[0].commit
                ));
            }
        }
    }
    Ok(())
}

/// See the module.
pub(crate) fn check_committed(keys: usize, transactions: &[Transaction]) -> Result<(), String> {
    let history = History::new(keys, transactions)?;
    let mut graph = Graph::new(transactions.len());
    let mut writers: HashMap<(Key, u64), (usize, &Value)> = HashMap::new();
    for (key, versions) in history.versions.iter().enumerate() {
        for pair in versions.windows(2) {
            graph.add(pair[0].writer, pair[1].writer);
        }
        for version in versions {
            if let Some(value) = version.value {
                let newest = *value.last().expect("values are not empty");
                writers.insert((key, newest), (version.writer, value));
            }
        }
    }
    for (index, transaction) in transactions.iter().enumerate() {
        let blame = |text: String| format!("transaction {index}: {text}: {transaction:?}");
        for observation in observations(transaction).map_err(&blame)? {
            let Observation::Key(key, Some(value)) = observation else { continue };
            let newest = *value.last().expect("values are not empty");
            match writers.get(&(key, newest)) {
                Some((writer, written)) if *written == value => {
                    if transaction.commit.is_some() {
                        graph.add(*writer, index);
                    }
                }
                _ => return Err(blame(format!("{key} never was {value:?} after a commit"))),
            }
        }
    }
    graph.check()
}

/// See the module. The history must have passed [`check_snapshots`].
pub(crate) fn check_serializable(keys: usize, transactions: &[Transaction]) -> Result<(), String> {
    let history = History::new(keys, transactions)?;
    let mut graph = Graph::new(transactions.len());
    for versions in &history.versions {
        for pair in versions.windows(2) {
            graph.add(pair[0].writer, pair[1].writer);
        }
    }
    for (reader, transaction) in history.committed() {
        let snapshot = transaction.snapshot.ok_or("a transaction without a snapshot")?;
        for observation in observations(transaction)? {
            let (Observation::Key(key, _) | Observation::Gap(key)) = observation;
            let count = history.count_at(key, snapshot);
            if let Some(read) = count.checked_sub(1) {
                graph.add(history.versions[key][read].writer, reader);
            }
            if let Some(next) = history.versions[key].get(count) {
                graph.add(reader, next.writer);
            }
        }
    }
    graph.check()
}

/// Which transaction must come before which.
struct Graph {
    after: Vec<Vec<usize>>,
}

impl Graph {
    fn new(count: usize) -> Self {
        Self { after: vec![Vec::new(); count] }
    }

    fn add(&mut self, before: usize, after: usize) {
        if before != after {
            self.after[before].push(after);
        }
    }

    /// Takes away whoever nobody must come before, until nobody is left, or only circles and what hangs on them.
    fn check(&self) -> Result<(), String> {
        let mut before = vec![0; self.after.len()];
        self.after.iter().flatten().for_each(|&after| before[after] += 1);
        let mut free: Vec<usize> = (0..before.len()).filter(|&index| before[index] == 0).collect();
        let mut taken = 0;
        while let Some(index) = free.pop() {
            taken += 1;
            for &after in &self.after[index] {
                before[after] -= 1;
                if before[after] == 0 {
                    free.push(after);
                }
            }
        }
        if taken == self.after.len() { Ok(()) } else { Err(self.circle(&before)) }
    }

    fn circle(&self, before: &[usize]) -> String {
        // Everybody left has a predecessor that is left: walking back must come round.
        let left = |index: usize| before[index] > 0;
        let mut back: HashMap<usize, usize> = HashMap::new();
        for (index, after) in self.after.iter().enumerate().filter(|(index, _)| left(*index)) {
            back.extend(after.iter().filter(|after| left(**after)).map(|&after| (after, index)));
        }
        let mut at = *back.keys().next().expect("somebody is left");
        let mut path = vec![at];
        loop {
            at = back[&at];
            if let Some(begin) = path.iter().position(|&other| other == at) {
                let circle = &path[begin..];
                return format!("a circle: each of {circle:?} must come after the next");
            }
            path.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(snapshot: u64, commit: Option<u64>, ops: &[Op]) -> Transaction {
        Transaction { snapshot: Some(snapshot), commit, returned_before: 0, ops: ops.to_vec() }
    }

    fn read(key: Key, value: &[u64]) -> Op {
        Op::Read(key, (!value.is_empty()).then(|| value.to_vec()))
    }

    fn write(key: Key, value: u64) -> Op {
        Op::Write(key, Some(vec![value]))
    }

    fn all(history: &[Transaction]) -> [bool; 3] {
        [
            check_committed(4, history).is_ok(),
            check_snapshots(4, history).is_ok(),
            check_serializable(4, history).is_ok(),
        ]
    }

    /// Both keys are written, and then a history goes on.
    fn after_setup(rest: &[Transaction]) -> Vec<Transaction> {
        let setup = transaction(0, Some(1), &[write(0, 100), write(1, 101)]);
        std::iter::once(setup).chain(rest.iter().cloned()).collect()
    }

    #[test]
    fn a_history_in_order_passes() {
        let history = after_setup(&[
            transaction(
                1,
                Some(2),
                &[read(0, &[100]), Op::Write(0, Some(vec![100, 7])), read(0, &[100, 7])],
            ),
            transaction(
                2,
                Some(3),
                &[Op::Scan(0, 4, vec![(0, vec![100, 7]), (1, vec![101])]), Op::DeleteRange(0, 2)],
            ),
            transaction(3, Some(3), &[read(0, &[]), Op::Scan(0, 3, vec![])]),
            transaction(3, None, &[write(0, 9), read(0, &[9])]),
        ]);
        assert_eq!(all(&history), [true; 3]);
    }

    #[test]
    fn an_aborted_read_is_found() {
        let history = after_setup(&[
            transaction(1, None, &[write(0, 9)]),
            transaction(1, Some(1), &[read(0, &[9])]),
        ]);
        assert_eq!(all(&history)[..2], [false, false]);
    }

    #[test]
    fn an_intermediate_read_is_found() {
        let history = after_setup(&[
            transaction(1, Some(2), &[write(0, 8), write(0, 9)]),
            transaction(2, Some(2), &[read(0, &[8])]),
        ]);
        assert_eq!(all(&history)[..2], [false, false]);
    }

    #[test]
    fn circular_information_flow_is_found() {
        let history = after_setup(&[
            transaction(1, Some(2), &[write(0, 8), read(1, &[9])]),
            transaction(1, Some(3), &[write(1, 9), read(0, &[8])]),
        ]);
        assert_eq!(all(&history)[..2], [false, false]);
    }

    #[test]
    fn a_lost_update_is_found() {
        let history = after_setup(&[
            transaction(1, Some(2), &[read(0, &[100]), write(0, 8)]),
            transaction(1, Some(3), &[read(0, &[100]), write(0, 9)]),
        ]);
        assert_eq!(all(&history), [true, false, false]);
    }

    #[test]
    fn read_skew_is_found() {
        let history = after_setup(&[
            transaction(1, Some(2), &[write(0, 8), write(1, 9)]),
            transaction(1, Some(1), &[read(0, &[100]), read(1, &[9])]),
        ]);
        assert_eq!(all(&history)[..2], [true, false]);
    }

    #[test]
    fn a_stale_snapshot_is_found() {
        let mut late = transaction(1, Some(1), &[read(0, &[100])]);
        late.returned_before = 2;
        let history = after_setup(&[transaction(1, Some(2), &[write(0, 8)]), late]);
        assert_eq!(all(&history)[..2], [true, false]);
    }

    #[test]
    fn write_skew_is_found_by_the_graph_alone() {
        let history = after_setup(&[
            transaction(1, Some(2), &[read(0, &[100]), read(1, &[101]), write(0, 8)]),
            transaction(1, Some(3), &[read(0, &[100]), read(1, &[101]), write(1, 9)]),
        ]);
        assert_eq!(all(&history), [true, true, false]);
    }

    #[test]
    fn phantoms_are_found_by_the_graph_alone() {
        let both = vec![(0, vec![100]), (1, vec![101])];
        let history = after_setup(&[
            transaction(1, Some(2), &[Op::Scan(0, 4, both.clone()), write(2, 8)]),
            transaction(1, Some(3), &[Op::Scan(0, 4, both.clone()), write(3, 9)]),
        ]);
        assert_eq!(all(&history), [true, true, false]);
        // Walking less far, neither would have met what the other wrote.
        let history = after_setup(&[
            transaction(1, Some(2), &[Op::Scan(0, 2, both.clone()), write(2, 8)]),
            transaction(1, Some(3), &[Op::Scan(0, 2, both), write(3, 9)]),
        ]);
        assert_eq!(all(&history), [true, true, true]);
    }

    #[test]
    fn the_read_only_anomaly_is_found_by_the_graph_alone() {
        let history = after_setup(&[
            transaction(1, Some(2), &[write(1, 8)]),
            transaction(2, Some(2), &[read(0, &[100]), read(1, &[8])]),
            transaction(1, Some(3), &[read(0, &[100]), read(1, &[101]), write(0, 9)]),
        ]);
        assert_eq!(all(&history), [true, true, false]);
    }

    #[test]
    fn a_row_that_a_walk_missed_or_invented_is_found() {
        let history =
            after_setup(&[transaction(1, Some(1), &[Op::Scan(0, 2, vec![(0, vec![100])])])]);
        assert!(!all(&history)[1]);
        let ghost = vec![(0, vec![100]), (1, vec![101]), (2, vec![5])];
        let history = after_setup(&[transaction(1, Some(1), &[Op::Scan(0, 3, ghost)])]);
        assert_eq!(all(&history)[..2], [false, false]);
    }

    #[test]
    fn an_own_write_that_is_not_read_back_is_found() {
        let history = after_setup(&[transaction(1, Some(2), &[write(0, 8), read(0, &[100])])]);
        assert_eq!(all(&history)[..2], [false, false]);
        let history =
            after_setup(&[transaction(1, Some(2), &[Op::DeleteRange(0, 1), read(0, &[100])])]);
        assert_eq!(all(&history)[..2], [false, false]);
    }
}
