//! Whether blocks that were read once are still in memory: a guess, from samples.
//!
//! A block in memory is searched without a system call. One that the kernel has taken back costs a page fault, and while a fault waits for
//! the medium its thread can't ask for anything else: the pages of one block, and the blocks of many keys, are waited for one after
//! the other. Requests made beforehand overlap. But a cached read can't pay for asking the kernel what is in memory. So as
//! long as the answer was always yes, only few reads ask; a no makes all ask, until it was yes for a while.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustlite_io::{Advice, Mapping};

/// Of so many reads one asks while nobody doubts.
const ASKED_OF: u64 = 128;

/// Answers of yes in a row that end a doubt. At one miss in so many reads, asking costs about what it saves.
const YES_UNTIL_TRUST: u32 = 256;

/// What the readers of a database know about it. Relaxed throughout: it is a guess, and nothing else is published through it.
#[derive(Debug, Default)]
pub(crate) struct Residency {
    /// Answers of yes that are missing until blocks are trusted to be in memory; 0 if they are.
    doubt: AtomicU32,
}

impl Residency {
    /// True if blocks are often missing.
    #[inline]
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubt.load(Relaxed) != 0
    }

    /// True if a read should ask. `sample` differs from read to read.
    #[inline]
    pub(crate) fn asks(&self, sample: u64) -> bool {
        sample.is_multiple_of(ASKED_OF) || self.is_doubtful()
    }

    /// Asks the kernel, and notes what it says.
    #[cold]
    pub(super) fn ask(&self, map: &Mapping, range: Range<usize>) -> bool {
        let is_resident = map.is_resident(range);
        self.note(is_resident);
        is_resident
    }

    /// Asks the kernel, and has it begin to read what is not in memory, all pages at once.
    #[cold]
    pub(crate) fn request(&self, map: &Mapping, range: Range<usize>) {
        if !self.ask(map, range.clone()) {
            map.advise(Advice::WillNeed, range);
        }
    }

    fn note(&self, is_resident: bool) {
        let doubt = self.doubt.load(Relaxed);
        let after = if is_resident { doubt.saturating_sub(1) } else { YES_UNTIL_TRUST };
        if after != doubt {
            self.doubt.store(after, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_no_makes_everybody_ask_until_the_answer_was_yes_for_a_while() {
        let residency = Residency::default();
        let asking = || (0..1024).filter(|sample| residency.asks(*sample)).count();
        assert_eq!(asking(), 8);
        residency.note(true);
        assert_eq!(asking(), 8);
        residency.note(false);
        assert_eq!(asking(), 1024);
        for _ in 1..YES_UNTIL_TRUST {
            residency.note(true);
            assert!(residency.is_doubtful());
        }
        residency.note(false);
        (1..YES_UNTIL_TRUST).for_each(|_| residency.note(true));
        assert!(residency.is_doubtful(), "a no in between begins anew");
        residency.note(true);
        assert_eq!(asking(), 8);
    }
}
