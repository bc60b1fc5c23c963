//! How long a leader lets a frame fill before it seals it.
//!
//! When a frame is done, all its committers wake up and most come back with their next commit within microseconds. If the first of them
//! sealed a frame at once, it would carry one commit, and the others would wait for two device writes instead of one. So the leader
//! expects as many commits as took part lately, those of the last frame, of frames in flight, and those that wait, and gives up its
//! processor a few times while they come. It stops as soon as yielding brings nobody, and a committer that was alone last time waits
//! for no one. Where yielding means that another program gets a slice of milliseconds, leaders do without for a while.
//!
//! One thread waits at a time. The others sleep until they are published: a frame's last commit or the one who waits leads for them.
//!
//! Orderings: relaxed. The numbers are written under the commit lock and only say how long to wait; whether there is something to
//! lead is decided under that lock.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustlite_io::Clock;

/// Yields in a row that bring no commit before the leader stops waiting. Waking a thread on another processor takes a few of them.
const IDLE_YIELDS_MAX: u32 = 12;

/// Longest time that a yield may bring nobody: about two durable writes of a fast device.
const YIELD_MAX: Duration = Duration::from_micros(200);

/// After one that took longer, so many frames are led without waiting.
const FRAMES_UNWAITED: u32 = 256;

/// What the frame that is being filled has, and what it is expected to get.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    gathered: AtomicU32,
    expected: AtomicU32,
    /// Somebody waits, and will look for a frame to lead.
    held: AtomicBool,
    /// Frames to lead without waiting, because others want the processor.
    unwaited: AtomicU32,
}

impl Gathering {
    /// The frame that waits to be led has so many commits.
    #[inline]
    pub(crate) fn set_gathered(&self, commits: u32) {
        self.gathered.store(commits, Ordering::Relaxed);
    }

    /// So many commits took part in the last frame, are in flight or wait.
    #[inline]
    pub(crate) fn expect(&self, commits: u32) {
        let unwaited = self.unwaited.load(Ordering::Relaxed);
        self.unwaited.store(unwaited.saturating_sub(1), Ordering::Relaxed);
        self.expected.store(if unwaited > 0 { 0 } else { commits }, Ordering::Relaxed);
    }

    /// True if nothing more is expected.
    #[inline]
    pub(crate) fn is_complete(&self) -> bool {
        let gathered = self.gathered.load(Ordering::Relaxed);
        gathered == 0 || gathered >= self.expected.load(Ordering::Relaxed)
    }

    /// True while somebody waits.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes it upon the caller to wait and to lead; false if somebody else has.
    pub(crate) fn hold(&self) -> bool {
        !self.held.swap(true, Ordering::Relaxed)
    }

    /// The caller has looked for a frame to lead. Called under the commit lock.
    pub(crate) fn release(&self) {
        self.held.store(false, Ordering::Relaxed);
    }

    /// Lets other threads run until what is expected has come, or nobody comes any more.
    pub(crate) fn wait(&self, clock: &dyn Clock) {
        if self.is_complete() {
            return;
        }
        let mut seen = self.gathered.load(Ordering::Relaxed);
        let mut idle = 0;
        while !self.is_complete() && idle < IDLE_YIELDS_MAX {
            let begun = clock.monotonic();
            std::thread::yield_now();
            let now = self.gathered.load(Ordering::Relaxed);
            if now != seen {
                (seen, idle) = (now, 0);
            } else if clock.monotonic().saturating_sub(begun) > YIELD_MAX {
                return self.unwaited.store(FRAMES_UNWAITED, Ordering::Relaxed);
            } else {
                idle += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustlite_io::SystemClock;

    use super::*;

    #[test]
    fn waiting_ends_when_all_are_there_or_nobody_comes() {
        let gathering = Gathering::default();
        assert!(gathering.hold() && gathering.is_held() && !gathering.hold());
        gathering.release();
        assert!(gathering.hold());
        assert!(gathering.is_complete(), "nothing to write");
        gathering.set_gathered(1);
        assert!(gathering.is_complete(), "nobody else is expected");
        gathering.expect(8);
        assert!(!gathering.is_complete());
        gathering.wait(&SystemClock);
        std::thread::scope(|scope| {
            scope.spawn(|| (2..=8).for_each(|commits| gathering.set_gathered(commits)));
            while !gathering.is_complete() {
                gathering.wait(&SystemClock);
            }
        });
    }

    #[test]
    fn a_processor_that_others_want_is_not_given_up_for_a_while() {
        /// Every look at it costs a millisecond.
        #[derive(Debug, Default)]
        struct Busy(AtomicU32);
        impl Clock for Busy {
            fn monotonic(&self) -> Duration {
                Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed).into())
            }
            fn wall(&self) -> Duration {
                Duration::ZERO
            }
            fn sleep(&self, _: Duration) {}
        }
        let gathering = Gathering::default();
        gathering.set_gathered(1);
        gathering.expect(8);
        let clock = Busy::default();
        gathering.wait(&clock);
        assert_eq!(clock.0.load(Ordering::Relaxed), 2, "one yield was enough");
        for _ in 0..FRAMES_UNWAITED {
            gathering.expect(8);
            assert!(gathering.is_complete());
        }
        gathering.expect(8);
        assert!(!gathering.is_complete());
    }
}
