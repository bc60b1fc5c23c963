//! Leading: whoever leads takes a frame to the device, or syncs what was stored, for everybody who waits for it.

use crate::commit::log_writer::{LeadFrame, LeadSync};
use crate::commit::pipeline::CommitPipeline;
use crate::commit::publish::Ticket;
use crate::error::{Error, Result};
use crate::wal::Lsn;
use crate::wal::segment::Segment;

impl CommitPipeline {
    /// Leads whatever there is to lead: a waiting frame, or the sync that stored `Sync` commits wait for. False if there is nothing,
    /// or writes have failed.
    pub(super) fn lead(&self) -> bool {
        let leads_frames = self.gathering.hold();
        if leads_frames {
            self.gathering.wait(&*self.clock);
        }
        let (frame, sync) = {
            let mut state = self.lock();
            if leads_frames {
                self.gathering.release();
            }
            let Some(log) = state.log.as_mut().filter(|_| self.poison.get().is_none()) else {
                return false;
            };
            match if leads_frames { log.lead_frame() } else { None } {
                Some(frame) => (Some(frame), None),
                None => (None, log.lead_sync()),
            }
        };
        let led = frame.is_some() || sync.is_some();
        if let Some(mut frame) = frame {
            frame.submit();
            self.finish_frame(frame);
        }
        if let Some(sync) = sync {
            // The failure, if any, reaches every waiter through the poison.
            let _ = self.run_sync(&sync);
        }
        led
    }

    /// Waits for a led frame's device write and passes its result on.
    pub(super) fn finish_frame(&self, mut frame: LeadFrame) {
        if let Err(error) = frame.wait() {
            self.fail(error);
            return;
        }
        let (durable, ask) =
            self.lock().log.as_mut().expect("frames come from a log").frame_done(frame);
        self.made_progress(durable, ask);
    }

    /// Performs a sync and passes its result on.
    fn run_sync(&self, sync: &LeadSync) -> Result<()> {
        for Segment { file, .. } in &sync.segments {
            if let Err(error) = file.sync() {
                let error = Error::from(error).context("cannot sync the log");
                self.fail(error.clone());
                return Err(error);
            }
        }
        let (durable, ask) = {
            let mut state = self.lock();
            state.log.as_mut().expect("syncs come from a log").sync_done(sync)
        };
        self.made_progress(durable, ask);
        Ok(())
    }

    /// Publishes what the log's progress allows, and has somebody lead what waits behind it.
    fn made_progress(&self, durable: Lsn, ask: Option<Ticket>) {
        if let Some(ticket) = ask
            && !self.publisher.ask_to_lead(ticket)
        {
            self.driver.raise();
        }
        self.publisher.durable_up_to(durable);
    }

    /// Makes every acknowledged commit durable.
    pub(crate) fn sync(&self) -> Result<()> {
        loop {
            let (sync, target) = {
                let mut state = self.lock();
                if let Some(first) = self.poison.get() {
                    return Err(Error::poisoned(first));
                }
                let Some(log) = state.log.as_mut() else { return Ok(()) };
                if !log.has_unsynced_stores() {
                    return Ok(());
                }
                (log.begin_sync(), log.end())
            };
            match sync {
                Some(sync) => return self.run_sync(&sync),
                // Somebody else's sync is running; it may have begun before our stores.
                None => {
                    while self.publisher.durable() < target && self.sync_is_running() {
                        std::thread::yield_now();
                    }
                }
            }
        }
    }

    fn sync_is_running(&self) -> bool {
        self.poison.get().is_none()
            && self.lock().log.as_mut().is_some_and(|log| log.is_sync_running())
    }

    /// Leads for commits behind futures until the driver is stopped.
    pub(crate) fn drive(&self) {
        while self.driver.wait() {
            while self.lead() {}
        }
    }

    /// Ends [`drive`](Self::drive).
    pub(crate) fn stop_driver(&self) {
        self.driver.stop();
    }
}
