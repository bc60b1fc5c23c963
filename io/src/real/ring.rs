//! A small ring of requests to the kernel that own what they lend.
//!
//! The kernel reads and writes the memory of a request long after the call that submitted it. So a
//! request takes its buffer and its descriptor by value, and they come back with the completion: no
//! caller can free them too early. Dropping a ring waits for everything in flight.
//!
//! If the kernel refuses to say what became of a request (which takes a broken kernel or a
//! descriptor closed behind our back), its memory is given up for lost rather than reused, and the
//! ring is dead: every request fails from then on.

use std::fmt::{self, Debug};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::types::Fd;
use io_uring::{IoUring, Probe, opcode, squeue};

use crate::buffer::AlignedBuffer;

/// The most bytes that one request moves (the kernel's own limit, rounded down to whole blocks);
/// longer ones end short.
const REQUEST_LEN_MAX: usize = 0x7fff_0000;

/// How often the kernel may say "not now" to one wait before the ring counts as dead. Each time the
/// thread yields.
const REFUSALS_MAX: usize = 100_000;

/// What probing found out about rings.
#[derive(Debug, Clone, Copy)]
pub(super) struct RingSupport {
    /// The kernel knows rings with a single issuer that runs completions itself (since 6.1):
    /// cheaper by an interrupt per request.
    pub(super) single_issuer: bool,
}

/// Which threads use a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Issuer {
    /// Only the thread that makes it.
    OneThread,
    /// Any thread, one at a time.
    AnyThread,
}

/// Up to `depth` requests in flight.
pub(super) struct Ring {
    uring: IoUring,
    slots: Vec<Option<Request>>,
    in_flight: usize,
    dead: bool,
}

struct Request {
    file: Arc<OwnedFd>,
    buffer: AlignedBuffer,
    token: u64,
    kind: Kind,
    /// False if the ring was dead already, so that the kernel never heard of it.
    lent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

/// A request that is over.
pub(super) struct Completion {
    /// The number that the caller gave the request.
    pub(super) token: u64,
    pub(super) buffer: AlignedBuffer,
    /// Bytes moved, which may be fewer than asked for.
    pub(super) result: io::Result<usize>,
}

/// Checks that the kernel lets us use io_uring, by using it.
pub(super) fn probe() -> io::Result<RingSupport> {
    let support = match build(4, RingSupport { single_issuer: true }, Issuer::OneThread) {
        Ok(mut uring) => {
            run_nop(&mut uring)?;
            RingSupport { single_issuer: true }
        }
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            RingSupport { single_issuer: false }
        }
        Err(error) => return Err(error),
    };
    let mut shared = build(2, support, Issuer::AnyThread)?;
    let mut opcodes = Probe::new();
    shared.submitter().register_probe(&mut opcodes)?;
    if !opcodes.is_supported(opcode::Write::CODE) || !opcodes.is_supported(opcode::Read::CODE) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel's io_uring is too old to read and write",
        ));
    }
    run_nop(&mut shared)?;
    Ok(support)
}

fn build(entries: u32, support: RingSupport, issuer: Issuer) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork();
    if support.single_issuer && issuer == Issuer::OneThread {
        builder.setup_single_issuer().setup_defer_taskrun();
    }
    builder.build(entries)
}

fn run_nop(uring: &mut IoUring) -> io::Result<()> {
    push(uring, &opcode::Nop::new().build());
    loop {
        match uring.submit_and_wait(1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => {
                if uring.completion().next().is_some() {
                    return Ok(());
                }
            }
        }
    }
}

/// Queues an entry. Its memory must live until its completion is taken: see the callers.
fn push(uring: &mut IoUring, entry: &squeue::Entry) {
    let mut queue = uring.submission();
    // SAFETY: the entry's buffer and descriptor are valid until the request is over. A no-op has
    // neither; those of a read or write are owned by its slot, which is emptied only by its
    // completion, or forgotten together with its memory.
    let pushed = unsafe { queue.push(entry) };
    pushed.expect("the queue has an entry for every slot");
}

impl Ring {
    /// Sets up a ring for `depth` requests.
    pub(super) fn new(depth: usize, support: RingSupport, issuer: Issuer) -> io::Result<Self> {
        let entries = u32::try_from(depth).expect("rings are small");
        let uring = build(entries, support, issuer)?;
        let slots = std::iter::repeat_with(|| None).take(depth).collect();
        Ok(Self { uring, slots, in_flight: 0, dead: false })
    }

    /// Requests whose completions were not taken yet.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// True if there is no room for another request.
    pub(super) fn is_full(&self) -> bool {
        self.in_flight == self.slots.len()
    }

    /// Starts writing the whole buffer at `offset`, with `RWF_DSYNC` if `durable`. There must be
    /// room.
    pub(super) fn write(
        &mut self,
        file: &Arc<OwnedFd>,
        offset: u64,
        buffer: AlignedBuffer,
        durable: bool,
        token: u64,
    ) {
        let entry = opcode::Write::new(Fd(file.as_raw_fd()), buffer.as_ptr(), request_len(&buffer))
            .offset(offset)
            .rw_flags(if durable { libc::RWF_DSYNC } else { 0 })
            .build();
        self.lend(&entry, file, buffer, token, Kind::Write);
    }

    /// Starts filling the whole buffer from `offset`. There must be room.
    pub(super) fn read(
        &mut self,
        file: &Arc<OwnedFd>,
        offset: u64,
        mut buffer: AlignedBuffer,
        token: u64,
    ) {
        let len = request_len(&buffer);
        let entry = opcode::Read::new(Fd(file.as_raw_fd()), buffer.as_mut_ptr(), len)
            .offset(offset)
            .build();
        self.lend(&entry, file, buffer, token, Kind::Read);
    }

    fn lend(
        &mut self,
        entry: &squeue::Entry,
        file: &Arc<OwnedFd>,
        buffer: AlignedBuffer,
        token: u64,
        kind: Kind,
    ) {
        let lent = !self.dead;
        let slot = self.slots.iter().position(Option::is_none).expect("the ring has room");
        self.slots[slot] = Some(Request { file: Arc::clone(file), buffer, token, kind, lent });
        self.in_flight += 1;
        if lent {
            push(&mut self.uring, &entry.clone().user_data(slot as u64));
            // A refusal for lack of memory leaves the entry queued, and waiting submits it again.
            let _ = self.uring.submit();
        }
    }

    /// Blocks until a request is over.
    ///
    /// # Panics If nothing is in flight.
    pub(super) fn wait(&mut self) -> Completion {
        assert!(self.in_flight > 0, "waiting needs a request in flight");
        if !self.dead {
            match self.next_completion() {
                Ok((slot, result)) => {
                    if let Some(request) = self.slots.get_mut(slot).and_then(Option::take) {
                        self.in_flight -= 1;
                        let Request { buffer, token, .. } = request;
                        return Completion { token, buffer, result };
                    }
                    // A completion of nothing we asked for: this ring cannot be trusted any more.
                    self.dead = true;
                }
                Err(error) => {
                    tracing::error!("io_uring does not complete its requests: {error}");
                    self.dead = true;
                }
            }
        }
        self.give_up_one()
    }

    fn next_completion(&mut self) -> io::Result<(usize, io::Result<usize>)> {
        let mut refusals = 0;
        loop {
            if let Some(entry) = self.uring.completion().next() {
                let slot = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
                let result = usize::try_from(entry.result())
                    .map_err(|_| io::Error::from_raw_os_error(-entry.result()));
                return Ok((slot, result));
            }
            let Err(error) = self.uring.submit_and_wait(1) else { continue };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) if refusals < REFUSALS_MAX => {
                    refusals += 1;
                    std::thread::yield_now();
                }
                _ => return Err(error),
            }
        }
    }

    /// Fails one request of a dead ring. If the kernel has its memory, that memory is never used
    /// again.
    fn give_up_one(&mut self) -> Completion {
        let request = self.slots.iter_mut().find_map(Option::take).expect("one is in flight");
        self.in_flight -= 1;
        let (token, kind) = (request.token, request.kind);
        let buffer = if request.lent {
            let mut substitute = AlignedBuffer::with_capacity(request.buffer.capacity());
            match kind {
                Kind::Write => substitute.extend_from_slice(&request.buffer),
                // The kernel may be writing to the original at this moment.
                Kind::Read => substitute.resize(request.buffer.len()),
            }
            std::mem::forget(request);
            substitute
        } else {
            drop(request.file);
            request.buffer
        };
        let result = Err(io::Error::other("io_uring does not complete its requests"));
        Completion { token, buffer, result }
    }
}

fn request_len(buffer: &AlignedBuffer) -> u32 {
    u32::try_from(buffer.len().min(REQUEST_LEN_MAX)).expect("the limit fits in 32 bits")
}

/// True for results that say "not now" rather than "no": the caller then repeats the transfer by a
/// plain system call. A worker thread of the kernel reports `ECANCELED` for requests of a thread
/// that ended.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ECANCELED | libc::EBUSY))
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            drop(self.wait());
        }
    }
}

impl Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("in_flight", &self.in_flight)
            .field("depth", &self.slots.len())
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(byte: u8, len: usize) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::with_capacity(len);
        buffer.resize(len);
        buffer.fill(byte);
        buffer
    }

    fn ring_and_file(depth: usize) -> Option<(Ring, Arc<OwnedFd>, tempfile::TempDir)> {
        let support = probe().ok()?;
        let dir = tempfile::tempdir().unwrap();
        let file = Arc::new(super::super::open::create(&dir.path().join("file")).unwrap());
        Some((Ring::new(depth, support, Issuer::OneThread).unwrap(), file, dir))
    }

    #[test]
    fn buffers_come_back_with_their_tokens() {
        let Some((mut ring, file, _dir)) = ring_and_file(4) else { return };
        for token in 0..4_u8 {
            ring.write(&file, u64::from(token) * 5000, buffer(token, 5000), false, token.into());
        }
        assert!(ring.is_full());
        while ring.in_flight() > 0 {
            let done = ring.wait();
            assert_eq!(done.result.unwrap(), 5000);
            assert!(done.buffer.iter().all(|&byte| u64::from(byte) == done.token));
        }
        ring.read(&file, 14_990, buffer(9, 20), 7);
        let done = ring.wait();
        assert_eq!(done.buffer[..10], [2; 10]);
        assert_eq!(done.buffer[10..], [3; 10]);
    }

    #[test]
    fn dropping_a_ring_waits_for_its_writes() {
        let Some((mut ring, file, dir)) = ring_and_file(4) else { return };
        for token in 0..4 {
            ring.write(&file, token << 20, buffer(1, 1 << 20), true, token);
        }
        drop(ring);
        #[expect(clippy::disallowed_methods, reason = "looks at the file from outside")]
        let content = std::fs::read(dir.path().join("file")).unwrap();
        assert_eq!(content.len(), 4 << 20);
        assert!(content.iter().all(|&byte| byte == 1));
    }

    #[test]
    fn errors_are_results_not_panics() {
        let Some((mut ring, _, dir)) = ring_and_file(1) else { return };
        let read_only =
            super::super::open::open_regular(&dir.path().join("file"), rustix::fs::OFlags::RDONLY);
        ring.write(&Arc::new(read_only.unwrap()), 0, buffer(1, 10), false, 3);
        let done = ring.wait();
        assert_eq!(done.result.unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(done.buffer.len(), 10);
    }

    #[test]
    fn a_dead_ring_fails_every_request_and_returns_the_buffers() {
        let Some((mut ring, file, _dir)) = ring_and_file(2) else { return };
        ring.dead = true;
        ring.write(&file, 0, buffer(5, 100), false, 1);
        let done = ring.wait();
        assert!(done.result.is_err());
        assert_eq!(done.buffer[..], [5; 100]);
    }
}
