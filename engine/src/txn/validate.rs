//! The check of a transaction at the moment of its commit: has anything that it relies on been written since its snapshot? Writes of
//! rows of indexed keyspaces are checked the same way, by their footprints alone.
//!
//! Everything up to `checked` is known not to disturb the transaction. A round moves `checked` forward, outside of the commit lock, in
//! one of two ways: by the footprints of recent commits, or, if they are gone or too many, by asking the sources about each key and
//! range. When little is left, the last round happens under the lock, and the commit has its place before anybody else can write.
//!
//! ```text
//!   snapshot ----- sources ----- visible --- footprints --- last | this commit
//!            a round, no lock             a round   under the lock
//! ```
//!
//! Both ways compare keys, not hashes: there are no false conflicts.

use std::ops::Bound;
use std::sync::Arc;

use crate::commit::recent::{Admission, CommitCheck, Footprint, RecentWrite, RecentWrites};
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyspaceId, Sequence};
use crate::limits::KEYSPACE_PREFIX_BYTES;
use crate::read::changes::{key_changed, range_changed};
use crate::read::observed::Reads;
use crate::read::overlay::Overlay;

/// So many records are compared under the commit lock at most, unless they never become fewer.
const RECORDS_UNDER_LOCK_MAX: u64 = 64;

/// After so many rounds, what is left is compared under the lock, however much it is.
const ROUNDS_MAX: u32 = 8;

/// Comparing a record with the transaction is so many times cheaper than asking the sources about a key.
const RECORDS_PER_LOOKUP: u64 = 32;

/// So much of a key is shown in an error.
const KEY_BYTES_SHOWN: usize = 64;

/// What a commit relies on.
#[derive(Debug)]
pub(crate) enum Claims<'t> {
    /// A transaction, which has a snapshot.
    Transaction {
        /// Its writes: whoever commits first wins.
        writes: &'t Overlay,
        /// What it read, if it is serializable, and what it locked.
        reads: &'t Reads,
    },
    /// These full keys, in order, without a snapshot: only footprints can tell whether they were written.
    Keys(&'t [&'t [u8]]),
}

impl<'t> Claims<'t> {
    fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Transaction { writes, reads } => {
                writes.points.contains_key(key)
                    || reads.keys.contains(key)
                    || writes.ranges.contains(key)
                    || reads.ranges.contains(key)
            }
            Self::Keys(keys) => keys.binary_search(&key).is_ok(),
        }
    }

    /// A key of the range that the commit relies on.
    fn first_in(&self, start: &[u8], end: &[u8]) -> Option<Vec<u8>> {
        let (writes, reads) = match self {
            Self::Transaction { writes, reads } => (writes, reads),
            Self::Keys(keys) => {
                let first = keys.get(keys.partition_point(|key| *key < start))?;
                return (*first < end).then(|| first.to_vec());
            }
        };
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        let written = writes.points.range::<[u8], _>(bounds).next();
        let read = reads.keys.range::<[u8], _>(bounds).next();
        let key = written.map(|(key, _)| key.to_vec()).or_else(|| read.map(|key| key.to_vec()));
        let ranges = [&writes.ranges, &reads.ranges];
        key.or_else(|| {
            ranges.iter().any(|ranges| ranges.overlaps(start, end)).then(|| start.to_vec())
        })
    }

    /// A key that the commit with this footprint wrote and the commit relies on.
    fn disturbed_by(&self, footprint: &Footprint) -> Option<Vec<u8>> {
        let key = footprint.keys().find(|key| self.contains(key)).map(<[u8]>::to_vec);
        key.or_else(|| footprint.ranges().find_map(|(start, end)| self.first_in(start, end)))
    }
}

/// What the next round outside of the lock has to do.
#[derive(Debug)]
enum Round {
    Footprints(Vec<RecentWrite>),
    /// Ask the sources. Footprints of what comes after the pin are kept meanwhile.
    Sources(Arc<Sequence>),
}

/// The check of one commit.
pub(crate) struct Validation<'t> {
    core: &'t Core,
    claims: Claims<'t>,
    /// Nothing up to here disturbs the transaction.
    checked: Sequence,
    rounds: u32,
    next: Option<Round>,
    /// The commit that disturbed this one, if one did.
    disturber: Option<Sequence>,
}

impl<'t> Validation<'t> {
    pub(crate) fn new(core: &'t Core, claims: Claims<'t>, snapshot: Sequence) -> Self {
        Self { core, claims, checked: snapshot, rounds: 0, next: None, disturber: None }
    }

    /// Waits until the commit that disturbed this one is visible, if it was a recent one: whoever runs this one again must see it, or it
    /// will happen again.
    pub(crate) fn await_disturber(&self) {
        if let Some(disturber) = self.disturber {
            self.core.pipeline.wait_visible(disturber);
        }
    }

    fn compare(&mut self, write: &RecentWrite) -> Result<()> {
        if let Some(key) = self.claims.disturbed_by(&write.footprint) {
            self.disturber = Some(write.last);
            return Err(conflict(self.core, &key));
        }
        self.checked = write.last;
        Ok(())
    }

    /// True if asking the sources costs less than comparing so many records.
    fn prefers_sources(&self, records: u64) -> bool {
        let Claims::Transaction { writes, reads } = &self.claims else { return false };
        let lookups = writes.points.len() + reads.keys.len();
        self.rounds == 0
            && writes.ranges.is_empty()
            && reads.ranges.is_empty()
            && records > RECORDS_UNDER_LOCK_MAX.max(lookups as u64 * RECORDS_PER_LOOKUP)
    }

    fn ask_sources(&mut self) -> Result<()> {
        let Claims::Transaction { writes, reads } = &self.claims else {
            return Err(Error::new(
                ErrorKind::Conflict,
                "too much was written meanwhile to tell whether the rows have changed",
            ));
        };
        // The visible end first: the view then holds everything up to it.
        let visible = self.core.pipeline.visible();
        let view = self.core.views.load();
        let written = writes.points.keys().map(|key| &**key);
        for key in written.chain(reads.keys.iter().map(|key| &**key)) {
            if key_changed(&view, key, self.checked)? {
                return Err(conflict(self.core, key));
            }
        }
        for (start, end) in writes.ranges.iter().chain(reads.ranges.iter()) {
            if let Some(key) = range_changed(&view, start, end, self.checked)? {
                return Err(conflict(self.core, &key));
            }
        }
        self.checked = self.checked.max(visible);
        Ok(())
    }
}

impl CommitCheck for Validation<'_> {
    fn admit(&mut self, recent: &mut RecentWrites, visible: Sequence) -> Result<Admission> {
        let records = recent.last().saturating_sub(self.checked);
        let sources = recent.after(self.checked).is_none() || self.prefers_sources(records);
        if sources {
            self.next = Some(Round::Sources(recent.pin(visible)));
        } else if records > RECORDS_UNDER_LOCK_MAX && self.rounds < ROUNDS_MAX {
            let writes = recent.after(self.checked).into_iter().flatten().cloned();
            self.next = Some(Round::Footprints(writes.collect()));
        } else {
            for write in recent.after(self.checked).into_iter().flatten() {
                self.compare(write)?;
            }
            // Any pin has served its purpose.
            self.next = None;
            return Ok(Admission::Granted);
        }
        Ok(Admission::CatchUpFirst)
    }

    fn catch_up(&mut self) -> Result<()> {
        self.rounds += 1;
        match self.next.take() {
            Some(Round::Footprints(writes)) => {
                writes.iter().try_for_each(|write| self.compare(write))
            }
            Some(Round::Sources(pin)) => {
                self.ask_sources()?;
                // The pin must live until the lock is taken again.
                self.next = Some(Round::Sources(pin));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// The error of a transaction that relies on a full key which somebody else has written.
pub(crate) fn conflict(core: &Core, full_key: &[u8]) -> Error {
    let keyspace = KeyspaceId::of(full_key).and_then(|id| core.versions.keyspace(id));
    let place = match keyspace {
        Some(found) if found.index.is_some() => format!("index {:?}", found.name),
        Some(found) => format!("keyspace {:?}", found.name),
        None => "a dropped keyspace".to_owned(),
    };
    Error::new(
        ErrorKind::Conflict,
        format!(
            "{} of {place} was written since the transaction began; run it again",
            shown(full_key)
        ),
    )
}

/// A full key for people: escaped, and cut where it is long.
pub(crate) fn shown(full_key: &[u8]) -> String {
    let key = full_key.get(KEYSPACE_PREFIX_BYTES..).unwrap_or_default();
    match key.get(..KEY_BYTES_SHOWN) {
        Some(begin) if begin.len() < key.len() => {
            format!("key \"{}\"... ({} bytes)", begin.escape_ascii(), key.len())
        }
        _ => format!("key \"{}\"", key.escape_ascii()),
    }
}
