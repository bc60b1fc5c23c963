//! Locks of keys, for transactions that would rather wait than run again.
//!
//! A lock has one owner and a queue of transactions that wait for it, first come, first served. A transaction waits for one lock at a time,
//! so the wait-for graph is a function: from a waiting transaction to the owner of what it waits for. Before a transaction waits, the
//! chain of owners is followed from the lock it wants; if the chain comes back to it, waiting would never end, and it gets `Deadlock`
//! instead. Handing a lock on cannot close a circle, because the new owner waits for nothing.
//!
//! Guarantees: a lock has at most one owner; who gives up, times out or is a victim is in no queue any more; a released lock goes to the
//! first in its queue. The mutex is a leaf: nothing else is locked while it is held.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustlite_io::Clock;

use crate::core::Core;

/// Distinguishes the transactions of an open database.
pub(crate) type TransactionId = u64;

/// A waiting thread looks at the clock this often; a lock that becomes free wakes it at once.
const SLICE: Duration = Duration::from_millis(10);

/// Why a lock was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Waiting would close a circle.
    Deadlock,
    /// It was not free in time.
    TimedOut,
}

/// All locks of a database.
#[derive(Debug)]
pub(crate) struct LockTable {
    clock: Arc<dyn Clock>,
    locks: Mutex<Locks>,
}

#[derive(Debug, Default)]
struct Locks {
    held: HashMap<Arc<[u8]>, Lock>,
    /// What each waiting transaction waits for.
    waiting: HashMap<TransactionId, Arc<[u8]>>,
}

#[derive(Debug)]
struct Lock {
    owner: TransactionId,
    queue: VecDeque<(TransactionId, Arc<Condvar>)>,
}

impl LockTable {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, locks: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Locks> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `id` the owner of a key, waiting until the (monotonic) moment `until` if it has to.
    pub(crate) fn acquire(
        &self,
        id: TransactionId,
        key: &Arc<[u8]>,
        until: Duration,
    ) -> Result<(), Denied> {
        let mut locks = self.lock();
        match locks.held.get(key) {
            None => {
                let lock = Lock { owner: id, queue: VecDeque::new() };
                locks.held.insert(Arc::clone(key), lock);
                return Ok(());
            }
            Some(lock) if lock.owner == id => return Ok(()),
            Some(_) if locks.would_close_a_circle(id, key) => return Err(Denied::Deadlock),
            Some(_) => {}
        }
        let granted = locks.queue_up(id, key);
        loop {
            let patience = until.saturating_sub(self.clock.monotonic()).min(SLICE);
            if patience.is_zero() {
                locks.give_up(id, key);
                return Err(Denied::TimedOut);
            }
            let (guard, slept) =
                granted.wait_timeout(locks, patience).unwrap_or_else(PoisonError::into_inner);
            locks = guard;
            if locks.held.get(key).is_some_and(|lock| lock.owner == id) {
                return Ok(());
            }
            if slept.timed_out() {
                self.clock.waited(patience);
            }
        }
    }

    /// Gives the locks of a transaction to those that wait for them.
    pub(crate) fn release<'k>(
        &self,
        id: TransactionId,
        keys: impl IntoIterator<Item = &'k Arc<[u8]>>,
    ) {
        let mut locks = self.lock();
        for key in keys {
            locks.release(id, key);
        }
    }

    /// How many locks are held, and how many transactions wait.
    #[cfg(test)]
    fn counts(&self) -> (usize, usize) {
        let locks = self.lock();
        (locks.held.len(), locks.waiting.len())
    }
}

impl Locks {
    fn would_close_a_circle(&self, id: TransactionId, key: &Arc<[u8]>) -> bool {
        let owner_of = |key| self.held.get(key).map(|lock| lock.owner);
        let mut owner = owner_of(key);
        // No chain is longer than there are transactions that wait.
        for _ in 0..=self.waiting.len() {
            match owner {
                None => return false,
                Some(owner) if owner == id => return true,
                Some(other) => owner = self.waiting.get(&other).and_then(owner_of),
            }
        }
        false
    }

    fn queue_up(&mut self, id: TransactionId, key: &Arc<[u8]>) -> Arc<Condvar> {
        let granted = Arc::new(Condvar::new());
        if let Some(lock) = self.held.get_mut(key) {
            lock.queue.push_back((id, Arc::clone(&granted)));
        }
        self.waiting.insert(id, Arc::clone(key));
        granted
    }

    fn give_up(&mut self, id: TransactionId, key: &Arc<[u8]>) {
        self.waiting.remove(&id);
        if let Some(lock) = self.held.get_mut(key) {
            lock.queue.retain(|(waiter, _)| *waiter != id);
        }
    }

    fn release(&mut self, id: TransactionId, key: &Arc<[u8]>) {
        let Some(lock) = self.held.get_mut(key) else { return };
        if lock.owner != id {
            return;
        }
        match lock.queue.pop_front() {
            Some((next, granted)) => {
                lock.owner = next;
                self.waiting.remove(&next);
                granted.notify_one();
            }
            None => {
                self.held.remove(key);
            }
        }
    }
}

/// The locks of one transaction, which are released when this is dropped.
#[derive(Default)]
pub(crate) struct HeldLocks {
    /// Whose they are; known from the first one on, because most transactions never lock anything.
    owner: Option<(Arc<Core>, TransactionId)>,
    keys: BTreeSet<Arc<[u8]>>,
}

impl HeldLocks {
    /// The same locks, which the caller keeps from now on; `None` if there are none.
    pub(crate) fn take(&mut self) -> Option<Self> {
        let taken = std::mem::take(self);
        (!taken.keys.is_empty()).then_some(taken)
    }

    /// The full keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.keys.iter()
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }

    /// Gets one more for the transaction `id`, always the same, waiting until the (monotonic) moment `until` if it has to.
    pub(crate) fn acquire(
        &mut self,
        core: &Arc<Core>,
        id: TransactionId,
        key: &Arc<[u8]>,
        until: Duration,
    ) -> Result<(), Denied> {
        core.locks.acquire(id, key, until)?;
        self.owner.get_or_insert_with(|| (Arc::clone(core), id));
        self.keys.insert(Arc::clone(key));
        Ok(())
    }
}

impl Drop for HeldLocks {
    fn drop(&mut self) {
        if let Some((core, id)) = &self.owner {
            core.locks.release(*id, &self.keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustlite_io::SystemClock;

    fn table() -> Arc<LockTable> {
        Arc::new(LockTable::new(Arc::new(SystemClock)))
    }

    fn key(name: &str) -> Arc<[u8]> {
        Arc::from(name.as_bytes())
    }

    fn soon() -> Duration {
        SystemClock.monotonic() + Duration::from_secs(30)
    }

    fn wait_for_waiters(table: &LockTable, count: usize) {
        while table.counts().1 != count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_lock_goes_to_the_waiters_in_their_order() {
        let table = table();
        let order = Arc::new(Mutex::new(Vec::new()));
        table.acquire(1, &key("a"), soon()).unwrap();
        let waiters: Vec<_> = (2..6)
            .map(|id| {
                let (shared, order) = (Arc::clone(&table), Arc::clone(&order));
                let waiter = std::thread::spawn(move || {
                    shared.acquire(id, &key("a"), soon()).unwrap();
                    order.lock().unwrap().push(id);
                    shared.release(id, [&key("a")]);
                });
                wait_for_waiters(&table, id as usize - 1);
                waiter
            })
            .collect();
        table.acquire(1, &key("a"), soon()).expect("it is the owner's already");
        table.release(1, [&key("a")]);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert_eq!(*order.lock().unwrap(), [2, 3, 4, 5]);
        assert_eq!(table.counts(), (0, 0));
    }

    #[test]
    fn a_circle_of_three_is_refused_and_the_others_go_on() {
        let table = table();
        let names = ["a", "b", "c"];
        for (id, name) in (1..).zip(names) {
            table.acquire(id, &key(name), soon()).unwrap();
        }
        let waiters: Vec<_> = [(1, "b"), (2, "c")]
            .into_iter()
            .map(|(id, wanted)| {
                let shared = Arc::clone(&table);
                std::thread::spawn(move || {
                    shared.acquire(id, &key(wanted), soon()).unwrap();
                    shared.release(id, &names.map(key));
                })
            })
            .collect();
        wait_for_waiters(&table, 2);
        assert_eq!(table.acquire(3, &key("a"), soon()), Err(Denied::Deadlock));
        table.release(3, &names.map(key));
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert_eq!(table.counts(), (0, 0));
    }

    #[test]
    fn who_times_out_leaves_the_queue() {
        let table = table();
        table.acquire(1, &key("a"), soon()).unwrap();
        let now = SystemClock.monotonic();
        let patience = Duration::from_millis(30);
        assert_eq!(table.acquire(2, &key("a"), now + patience), Err(Denied::TimedOut));
        assert!(SystemClock.monotonic() >= now + patience);
        assert_eq!(table.acquire(3, &key("a"), Duration::ZERO), Err(Denied::TimedOut));
        assert_eq!(table.counts(), (1, 0));
        table.release(2, [&key("a")]);
        assert_eq!(table.counts(), (1, 0), "only the owner can release it");
        table.release(1, [&key("a")]);
        table.acquire(2, &key("a"), Duration::ZERO).unwrap();
    }
}
