//! `CommitFuture`: a commit on its way, for callers that do not want to block a thread for each.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::commit::publish::Ticket;
use crate::core::Core;
use crate::error::Result;
use crate::key::Sequence;

/// Resolves when a commit is visible and as durable as it asked to be. Made by
/// [`Database::write_async`](crate::Database::write_async).
///
/// The commit has its place in the order of all writes already, and goes on whether or not anybody polls or drops the future. It
/// works under any executor, and without one: [`wait`](Self::wait) blocks.
#[must_use = "the future says when the write is durable, and whether it failed"]
pub struct CommitFuture {
    state: State,
}

enum State {
    /// Nothing to wait for: the batch was empty, or was refused.
    Settled(Result<()>),
    Placed {
        core: Arc<Core>,
        ticket: Ticket,
        last_sequence: Sequence,
    },
}

impl CommitFuture {
    /// For a commit of nothing, or one that was refused.
    pub(crate) fn settled(result: Result<()>) -> Self {
        Self { state: State::Settled(result) }
    }

    pub(crate) fn new(core: Arc<Core>, ticket: Ticket, last_sequence: Sequence) -> Self {
        Self { state: State::Placed { core, ticket, last_sequence } }
    }

    /// The sequence number of the commit's last record; 0 if there is none.
    pub(crate) fn last_sequence(&self) -> Sequence {
        match &self.state {
            State::Placed { last_sequence, .. } => *last_sequence,
            State::Settled(_) => 0,
        }
    }

    /// Blocks the calling thread until the commit is done.
    ///
    /// # Errors
    /// As the future: what was wrong with the batch; `Poisoned`, if the log could not be written.
    pub fn wait(mut self) -> Result<()> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut self).poll(&mut context) {
                Poll::Ready(result) => return result,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Future for CommitFuture {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        match &self.state {
            State::Settled(result) => Poll::Ready(result.clone()),
            State::Placed { core, ticket, last_sequence } => {
                core.pipeline.poll_commit(*ticket, *last_sequence, context)
            }
        }
    }
}

impl fmt::Debug for CommitFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Settled(result) => write!(f, "CommitFuture({result:?})"),
            State::Placed { last_sequence, .. } => write!(f, "CommitFuture({last_sequence})"),
        }
    }
}
