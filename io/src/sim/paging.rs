//! Maps as a kernel short of memory keeps them: pages leave, and come back when somebody asks.
//!
//! Which bytes a reader touches can't be seen from here; what it asks for can.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::handles::Handle;
use super::op::Op;
use super::{SimFileSystem, failed};
use crate::error::Result;
use crate::mapping::{Advice, Pager};

/// A range of a mapped file that a reader had read in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// The file.
    pub path: PathBuf,
    /// The bytes.
    pub range: Range<usize>,
}

impl SimFileSystem {
    /// Takes all pages of all maps out of memory: `Mapping::is_resident` denies them until they are
    /// asked for. Readers don't notice otherwise, as on a real machine they would only wait.
    pub fn evict_maps(&self) {
        self.world.state().requests = Some(Vec::new());
    }

    /// What readers of maps asked for since the last [`evict_maps`](Self::evict_maps), in the order
    /// of time.
    #[must_use]
    pub fn page_requests(&self) -> Vec<PageRequest> {
        self.world.state().requests.clone().unwrap_or_default()
    }
}

/// What a map asks; it also keeps the file known as mapped.
pub(super) struct SimPager {
    pub(super) handle: Handle,
    pub(super) _still_mapped: Arc<()>,
}

impl Pager for SimPager {
    fn populate(&self, range: Range<usize>) -> Result<()> {
        let Handle { world, path, .. } = &self.handle;
        world
            .strike_map(path)
            .map_err(|error| failed(Op::Populate, path)(error).at(range.start as u64, range.len()))
    }

    fn is_resident(&self, range: Range<usize>) -> bool {
        let state = self.handle.world.state();
        state.requests.as_ref().is_none_or(|requests| {
            let holds = |request: &PageRequest| {
                request.path == self.handle.path
                    && request.range.start <= range.start
                    && range.end <= request.range.end
            };
            requests.iter().any(holds)
        })
    }

    fn advise(&self, advice: Advice, range: Range<usize>) {
        if let (Advice::WillNeed, Some(requests)) =
            (advice, &mut self.handle.world.state().requests)
        {
            requests.push(PageRequest { path: self.handle.path.clone(), range });
        }
    }
}
