//! The log device: makes lanes and segments, and knows how frames become durable here.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::super::open::refuse;
use super::super::ring::{Issuer, Ring, RingSupport};
use super::geometry::Geometry;
use super::lane::Lane;
use super::segment::Segment;
use crate::error::Result;
use crate::file_system::{LogDevice, LogDeviceOptions, LogLane, LogSegment, LogSync};

/// The most lanes that options may ask for.
const LANES_MAX: usize = 64;

/// The place where WAL segments live.
#[derive(Debug)]
pub(in super::super) struct Device {
    options: LogDeviceOptions,
    /// Relaxed: for speed only.
    mostly_stores: AtomicBool,
    support: Option<RingSupport>,
    /// Why the lanes have no rings although io_uring works.
    without_rings: OnceLock<String>,
    /// How frames are written, learnt from the first segment.
    method: OnceLock<String>,
}

impl Device {
    pub(in super::super) fn new(
        options: LogDeviceOptions,
        support: Option<RingSupport>,
    ) -> Result<Self> {
        if !(1..=LANES_MAX).contains(&options.lanes) {
            let why = format!("{} lanes asked for, 1 to {LANES_MAX} are possible", options.lanes);
            return Err(refuse("set up", Path::new("log"), io::ErrorKind::InvalidInput, why));
        }
        let mostly_stores = AtomicBool::new(options.mostly_stores);
        Ok(Self {
            options,
            mostly_stores,
            support,
            without_rings: OnceLock::new(),
            method: OnceLock::new(),
        })
    }

    fn learn(&self, geometry: &Geometry) {
        self.method.get_or_init(|| {
            let block_len = geometry.block_len;
            let method = match &geometry.direct {
                Ok(_) => format!("O_DIRECT + RWF_DSYNC, {block_len}-byte blocks"),
                Err(why) => format!("write + fdatasync ({why}), {block_len}-byte blocks"),
            };
            tracing::info!("log frames: {method}");
            method
        });
    }

    fn make_rings(&self, support: RingSupport) -> io::Result<Vec<Box<dyn LogLane>>> {
        let ring = || Ring::new(1, support, Issuer::AnyThread);
        (0..self.options.lanes)
            .map(|_| Ok(Box::new(Lane::new(Some(ring()?))) as Box<dyn LogLane>))
            .collect()
    }
}

impl LogDevice for Device {
    fn description(&self) -> String {
        let backend = match (self.support, self.without_rings.get()) {
            (Some(_), None) => "io_uring".to_string(),
            (Some(_), Some(why)) => format!("plain system calls (no rings: {why})"),
            (None, _) => "plain system calls".to_string(),
        };
        let method = match (self.method.get(), self.options.sync) {
            (Some(method), _) => method,
            (None, LogSync::Auto) => "O_DIRECT + RWF_DSYNC where possible",
            (None, LogSync::Direct) => "O_DIRECT + RWF_DSYNC",
            (None, LogSync::Flush) => "write + fdatasync",
        };
        format!("{backend}, {method}, {} lanes", self.options.lanes)
    }

    fn lanes(&self) -> Result<Vec<Box<dyn LogLane>>> {
        // Flushed frames go through the page cache, where a ring has nothing to offer.
        if let Some(support) = self.support.filter(|_| self.options.sync != LogSync::Flush) {
            match self.make_rings(support) {
                Ok(lanes) => return Ok(lanes),
                Err(error) => {
                    // Descriptors or lockable memory ran out. One write per waiting thread is
                    // slower, but just as durable.
                    tracing::warn!("log lanes without io_uring: {error}");
                    self.without_rings.get_or_init(|| error.to_string());
                }
            }
        }
        let plain = std::iter::repeat_with(|| Box::new(Lane::new(None)) as Box<dyn LogLane>);
        Ok(plain.take(self.options.lanes).collect())
    }

    fn expect_stores(&self, mostly: bool) {
        self.mostly_stores.store(mostly, Ordering::Relaxed);
    }

    fn create_segment(&self, path: &Path, len: u64) -> Result<Arc<dyn LogSegment>> {
        let mostly_stores = self.mostly_stores.load(Ordering::Relaxed);
        let options = LogDeviceOptions { mostly_stores, ..self.options };
        let (segment, geometry) = Segment::create(path, len, &options)?;
        self.learn(&geometry);
        Ok(Arc::new(segment))
    }

    fn open_segment(&self, path: &Path) -> Result<Arc<dyn LogSegment>> {
        let (segment, geometry) = Segment::open(path, &self.options)?;
        self.learn(&geometry);
        Ok(Arc::new(segment))
    }
}
