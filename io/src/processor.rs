//! Keeping background threads off the processor of a thread that is not to wait.
//!
//! A thread that is woken up often gets the processor of the one that woke it, although another one is idle: where processors share no
//! cache, as those of virtual machines seem to, the system does not look further. Then work that was handed over so that a commit
//! need not do it keeps that commit waiting after all, for as long as the work takes. So who gets such work leaves the processor
//! that it was asked from.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// With more processors than these there is mostly an idle one that the system finds by itself.
const FEW: u32 = 4;

/// The processor that the calling thread runs on at the moment; one that there is not where the system does not say.
#[must_use]
pub fn current() -> usize {
    // Not rustix's, which looks for the kernel's shared object itself and crashes under valgrind.
    // SAFETY: it takes and gives plain numbers.
    let number = unsafe { libc::sched_getcpu() };
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Lets a background thread step aside.
#[derive(Debug)]
pub struct Aside {
    /// What the thread may use; `None` if there is nowhere to go, or no need to.
    allowed: Option<CpuSet>,
}

impl Aside {
    /// For the calling thread.
    #[must_use]
    pub fn of_this_thread() -> Self {
        let allowed = sched_getaffinity(None).ok();
        Self { allowed: allowed.filter(|allowed| (2..=FEW).contains(&allowed.count())) }
    }

    /// Has the calling thread, which must be the one that this was made for, leave a processor if it is there, and not come back
    /// until it leaves another one. Where the system refuses that, things stay as they are.
    pub fn leave(&self, processor: usize) {
        let Some(allowed) = &self.allowed else { return };
        if processor >= CpuSet::MAX_CPU || !allowed.is_set(processor) || current() != processor {
            return;
        }
        let mut others = *allowed;
        others.unset(processor);
        let _ = sched_setaffinity(None, &others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_leaves_the_processor_it_is_on_and_may_go_back_when_it_leaves_the_next() {
        std::thread::spawn(|| {
            let aside = Aside::of_this_thread();
            if aside.allowed.is_none() {
                return;
            }
            for _ in 0..10 {
                let here = current();
                aside.leave(here);
                assert_ne!(current(), here);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn processors_that_are_not_there_are_left_already() {
        std::thread::spawn(|| {
            let aside = Aside::of_this_thread();
            let before = sched_getaffinity(None).unwrap();
            for processor in [CpuSet::MAX_CPU - 1, CpuSet::MAX_CPU, usize::MAX] {
                aside.leave(processor);
            }
            assert_eq!(sched_getaffinity(None).unwrap(), before);
        })
        .join()
        .unwrap();
    }
}
