//! A number that threads sleep on until it changes: a futex of the kernel's, or what stands for one in a model.
//!
//! The kernel compares the number and puts the thread to sleep in one step as seen by wakers. That is all that is relied on, and
//! all that the stand-in does. A sleeper may wake up for nothing, so every caller looks again.

use std::num::NonZeroU32;

use super::atomic::Ordering;
use super::sequential::AtomicU32;

/// The bits of all sleepers.
pub(crate) const EVERYBODY: NonZeroU32 = NonZeroU32::MAX;

/// A number that threads sleep on.
#[derive(Debug)]
pub(crate) struct Futex {
    number: AtomicU32,
    #[cfg(loom)]
    kernel: stand_in::Queue,
}

impl Futex {
    pub(crate) fn new() -> Self {
        Self {
            number: AtomicU32::new(0),
            #[cfg(loom)]
            kernel: stand_in::Queue::new(),
        }
    }

    /// The number now.
    #[inline]
    pub(crate) fn number(&self) -> u32 {
        self.number.load(Ordering::SeqCst)
    }

    /// Makes it another number, so that nobody who has read it before falls asleep.
    #[inline]
    pub(crate) fn change(&self) {
        self.number.fetch_add(1, Ordering::SeqCst);
    }

    /// Wakes all that sleep under one of these bits.
    #[cfg(not(loom))]
    pub(crate) fn wake(&self, bits: NonZeroU32) {
        use rustix::thread::futex;
        // The only errors are about a bad address, which a reference rules out.
        let _ = futex::wake_bitset(&self.number, futex::Flags::PRIVATE, i32::MAX as u32, bits);
    }

    /// Sleeps under these bits until woken, unless the number is not `expected`.
    #[cfg(not(loom))]
    pub(crate) fn wait(&self, expected: u32, bits: NonZeroU32) {
        use rustix::thread::futex;
        // An interruption or a number that has changed is a reason to look again, which every caller does.
        let _ = futex::wait_bitset(&self.number, futex::Flags::PRIVATE, expected, None, bits);
    }

    /// Wakes all that sleep under one of these bits.
    #[cfg(loom)]
    pub(crate) fn wake(&self, bits: NonZeroU32) {
        self.kernel.wake(bits);
    }

    /// Sleeps under these bits until woken, unless the number is not `expected`.
    #[cfg(loom)]
    pub(crate) fn wait(&self, expected: u32, bits: NonZeroU32) {
        self.kernel.wait(bits, || self.number() == expected);
    }
}

/// The kernel's queue of sleepers, made of a lock and a condition variable.
#[cfg(loom)]
mod stand_in {
    use std::num::NonZeroU32;
    use std::sync::PoisonError;

    use loom::sync::{Condvar, Mutex};

    #[derive(Debug)]
    pub(super) struct Queue {
        sleepers: Mutex<Sleepers>,
        woken: Condvar,
    }

    #[derive(Debug, Default)]
    struct Sleepers {
        next: u32,
        /// Number of a sleep, and its bits.
        asleep: Vec<(u32, NonZeroU32)>,
    }

    impl Queue {
        pub(super) fn new() -> Self {
            Self { sleepers: Mutex::default(), woken: Condvar::new() }
        }

        pub(super) fn wake(&self, bits: NonZeroU32) {
            let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
            sleepers.asleep.retain(|&(_, own)| own.get() & bits.get() == 0);
            self.woken.notify_all();
        }

        pub(super) fn wait(&self, bits: NonZeroU32, is_expected: impl FnOnce() -> bool) {
            let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
            if !is_expected() {
                return;
            }
            let own = sleepers.next;
            sleepers.next += 1;
            sleepers.asleep.push((own, bits));
            while sleepers.asleep.iter().any(|&(other, _)| other == own) {
                sleepers = self.woken.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
