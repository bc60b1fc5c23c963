//! Running a transaction again until it succeeds.

use std::time::Duration;

use rustlite_io::Clock;

use crate::database::Database;
use crate::error::Result;
use crate::key::hash_key;
use crate::txn::options::TransactionOptions;
use crate::txn::transaction::Transaction;

/// So many attempts follow each other at once; later ones after a pause.
const HASTY_ATTEMPTS: u32 = 3;

/// The first pause is at most so long, and each at most twice as long as the one before.
const PAUSE: Duration = Duration::from_micros(50);

/// Doublings of the pause, at most: 6.4 ms.
const DOUBLINGS_MAX: u32 = 7;

impl Database {
    /// Runs `work` in a transaction and commits it; runs it again, in a new one, if it got in the way of others. See
    /// [`transact_with`](Self::transact_with).
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// # let db = rustlite_engine::Database::in_memory()?;
    /// db.put("stock", "5")?;
    /// let left = db.transact(|txn| {
    ///     let stock = txn.get("stock")?.unwrap_or_default();
    ///     let left = String::from_utf8_lossy(&stock).parse::<u64>().unwrap_or(0).saturating_sub(1);
    ///     txn.put("stock", left.to_string())?;
    ///     Ok(left)
    /// })?;
    /// assert_eq!(left, 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`transact_with`](Self::transact_with).
    pub fn transact<T>(&self, work: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        self.transact_with(TransactionOptions::default(), work)
    }

    /// Runs `work` in a transaction with these options and commits it.
    ///
    /// If `work` or the commit gives an error that is [retryable](crate::Error::is_retryable), all is forgotten and `work` runs again in a new
    /// transaction, up to the options' `retries_max`, after pauses that grow. So `work` must not have effects outside of its
    /// transaction. If it gives any other error, the transaction is rolled back and the error given back.
    ///
    /// # Errors
    /// The error of `work` or of the commit; after the last attempt also a retryable one.
    pub fn transact_with<T>(
        &self,
        options: impl Into<TransactionOptions>,
        mut work: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        let options = options.into();
        let mut attempt = 0;
        loop {
            match self.attempt(options, &mut work) {
                Err(error) if error.is_retryable() && attempt < options.retries_max => {
                    pause(&*self.handle().core.clock, attempt);
                    attempt += 1;
                }
                Err(error) if error.is_retryable() && attempt > 0 => {
                    return Err(error.context(format!("gave up after {} attempts", attempt + 1)));
                }
                done => return done,
            }
        }
    }

    fn attempt<T>(
        &self,
        options: TransactionOptions,
        work: &mut impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        let mut transaction = self.begin_with(options)?;
        let result = work(&mut transaction)?;
        transaction.commit()?;
        Ok(result)
    }
}

/// Waits before the attempt after number `attempt`, longer from attempt to attempt, and not as long as others that failed now.
fn pause(clock: &dyn Clock, attempt: u32) {
    let Some(doublings) = attempt.checked_sub(HASTY_ATTEMPTS) else {
        std::thread::yield_now();
        return;
    };
    let most = PAUSE * (1 << doublings.min(DOUBLINGS_MAX));
    // Spread by the moment, which differs from thread to thread.
    let spread = hash_key(&clock.monotonic().as_nanos().to_le_bytes()) % 1024;
    clock.sleep(most / 2 + most * (spread as u32) / 2048);
}
