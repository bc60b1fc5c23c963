// Commits through the publisher beside this module, which may be a mutant. A thread that is not woken up is a deadlock, which loom
// reports. (Included by several modules, so these are no lines of documentation.)

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::thread;

use super::publisher::{Publisher, Ticket, Waiter, Wake};
use crate::sync::AccessTracker;

/// A publisher, and the memory that stands for what each commit puts into the memtable. Commit `t` has sequence number `t + 1`.
struct Commits {
    publisher: Publisher,
    records: [AccessTracker; 3],
}

impl Commits {
    /// In the standard library's `Arc`: loom's would panic once more when a mutant's deadlock has ended the model.
    #[allow(clippy::arc_with_non_send_sync, reason = "loom runs one thread at a time")]
    fn new() -> Arc<Self> {
        let records = std::array::from_fn(|_| AccessTracker::new());
        Arc::new(Self { publisher: Publisher::new(0, 0), records })
    }

    /// Gives a commit its ticket, as happens under the commit lock: the model keeps the order.
    fn enter(&self, ticket: Ticket, crowd: Ticket, needs_lsn: u64, waiter: Waiter) {
        assert!(self.publisher.has_room(ticket));
        self.publisher.enter(ticket, crowd, ticket + 1, needs_lsn, waiter);
    }

    fn apply(&self, ticket: Ticket) {
        self.records[ticket as usize].written();
        self.publisher.applied(ticket);
    }

    /// Who has waited for `ticket` reads everything that is visible.
    fn read_up_to(&self, ticket: Ticket) {
        self.publisher.ensure_visible(ticket + 1);
        let visible = self.publisher.visible();
        assert!(visible > ticket);
        self.records[..visible as usize].iter().for_each(AccessTracker::read);
    }

    /// Stages 4 to 6 of a commit that leads nothing.
    fn commit(&self, ticket: Ticket) {
        self.apply(ticket);
        assert_eq!(self.publisher.wait(ticket, false), Wake::Settled);
        assert!(self.publisher.is_published(ticket));
        self.read_up_to(ticket);
    }
}

/// Runs `body` on a thread of its own.
fn spawn(commits: &Arc<Commits>, body: impl FnOnce(&Commits) + 'static) -> thread::JoinHandle<()> {
    let commits = Arc::clone(commits);
    thread::spawn(move || body(&commits))
}

/// Two commits of one frame, and the device.
pub(super) fn frame_of_two(preemptions: Option<usize>) {
    crate::model(preemptions, || {
        let commits = Commits::new();
        (0..2).for_each(|ticket| commits.enter(ticket, 0, 1, Waiter::Thread));
        let committers = [0, 1].map(|ticket| spawn(&commits, move |all| all.commit(ticket)));
        commits.publisher.durable_up_to(1);
        committers.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Of two commits whose frame nobody leads, the second is asked to, and does.
pub(super) fn one_leads(preemptions: Option<usize>) {
    crate::model(preemptions, || {
        let commits = Commits::new();
        (0..2).for_each(|ticket| commits.enter(ticket, 0, 1, Waiter::Thread));
        let follower = spawn(&commits, |all| all.commit(0));
        let leader = spawn(&commits, |all| {
            all.apply(1);
            assert_eq!(all.publisher.wait(1, false), Wake::Lead);
            all.publisher.durable_up_to(1);
            assert_eq!(all.publisher.wait(1, false), Wake::Settled);
            all.read_up_to(1);
        });
        assert!(commits.publisher.ask_to_lead(1), "a thread waits");
        follower.join().unwrap();
        leader.join().unwrap();
    });
}

/// A commit that comes as soon as there is a slot sleeps at the bell of the one before, which may only be about to ring.
pub(super) fn slot_used_again(preemptions: Option<usize>) {
    crate::model(preemptions, || {
        let commits = Commits::new();
        commits.enter(0, 0, 1, Waiter::Thread);
        commits.enter(1, 1, 1, Waiter::Thread);
        commits.apply(1);
        let first = spawn(&commits, |all| all.commit(0));
        let later = spawn(&commits, |all| {
            if all.publisher.has_room(2) {
                all.enter(2, 2, 2, Waiter::Thread);
                all.commit(2);
            }
        });
        commits.publisher.durable_up_to(1);
        commits.publisher.durable_up_to(2);
        first.join().unwrap();
        later.join().unwrap();
    });
}

/// The frame of two commits fails, perhaps after it was found to be durable.
pub(super) fn failure(preemptions: Option<usize>) {
    crate::model(preemptions, || {
        let commits = Commits::new();
        (0..2).for_each(|ticket| commits.enter(ticket, 0, 1 + ticket, Waiter::Thread));
        let committers = [0, 1].map(|ticket| {
            spawn(&commits, move |all| {
                all.apply(ticket);
                assert_eq!(all.publisher.wait(ticket, false), Wake::Settled);
                if all.publisher.is_published(ticket) {
                    assert_eq!(ticket, 0, "only that one became durable");
                    all.read_up_to(ticket);
                } else {
                    assert!(all.publisher.has_failed());
                }
            })
        });
        commits.publisher.durable_up_to(1);
        commits.publisher.fail(2);
        committers.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// A future polls until its commit is settled, and sleeps in between.
pub(super) fn polled(preemptions: Option<usize>) {
    struct Bed(loom::sync::Notify);
    impl std::task::Wake for Bed {
        fn wake(self: Arc<Self>) {
            self.0.notify();
        }
    }
    crate::model(preemptions, || {
        let commits = Commits::new();
        commits.enter(0, 0, 1, Waiter::Future);
        let poller = spawn(&commits, |all| {
            let bed = Arc::new(Bed(loom::sync::Notify::new()));
            let waker = Waker::from(Arc::clone(&bed));
            while all.publisher.poll_settled(0, &Context::from_waker(&waker)) == Poll::Pending {
                bed.0.wait();
            }
            all.read_up_to(0);
        });
        let applier = spawn(&commits, |all| all.apply(0));
        assert!(!commits.publisher.ask_to_lead(0), "no thread waits");
        commits.publisher.durable_up_to(1);
        poller.join().unwrap();
        applier.join().unwrap();
    });
}
