//! What the disk holds after a crash: one of the states that the rules allow, chosen by a plan.
//!
//! Names are chosen per operation: a prefix of those that pend, or any subset in which each comes
//! with the earlier ones that it builds on. The content of each file is `torn.rs`'s to choose.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SimFileSystem;
use super::file_node::{FileData, FileNode};
use super::image::Image;
use super::names::{Entries, Entry, NameOp, Names, ROOT};
use super::random::Random;
use super::torn::random_content;
use super::world::{Machine, State, World};

/// Which of the possible states a crash leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPlan {
    /// Power loss that takes all that was not durable.
    DropUnsynced,
    /// Power loss just after everything had reached the disk by itself.
    KeepAll,
    /// Power loss that keeps, drops or tears each unsynced piece, and keeps or undoes each unsynced
    /// operation on names, as this seed decides.
    Random(u64),
    /// The process dies, the kernel lives: all that was written stays, and what was not durable is
    /// still not. Frames in flight arrive or not, as the file system's own seed decides.
    ProcessKill,
}

impl SimFileSystem {
    /// Stops this file system (all its later operations fail with "power is off"; maps keep
    /// working) and gives the one that the machine finds after the crash. Of a volatile file system
    /// nothing is left.
    #[must_use]
    pub fn crash(&self, plan: &CrashPlan) -> Arc<Self> {
        let mut state = self.world.state();
        self.world.cut_power(&mut state);
        let machine = Machine {
            seed: state.random.next(),
            tracked: self.world.tracked,
            log_block_size: state.log_block_size,
            capacity: state.capacity,
        };
        let clock = self.world.sim_clock.as_ref().map(|clock| clock.after_restart());
        let names = match self.world.tracked {
            true => survivors(&mut state, *plan),
            false => Names::new(false),
        };
        Self::with_world(World::new(machine, clock, names))
    }
}

/// The names and files that the plan leaves.
fn survivors(state: &mut State, plan: CrashPlan) -> Names {
    let names = &state.names;
    let chosen = match plan {
        CrashPlan::ProcessKill => {
            let seed = state.random.next();
            let mut copier = Copier::new(|file, id| killed(file, seed, id));
            return Names {
                live: copier.tree(&names.live),
                durable: copier.tree(&names.durable),
                pending: names.pending.iter().map(|op| copier.name_op(op)).collect(),
                ..names.clone()
            };
        }
        CrashPlan::DropUnsynced => names.durable.clone(),
        CrashPlan::KeepAll => names.live.clone(),
        CrashPlan::Random(seed) => random_tree(names, seed),
    };
    let mut copier = Copier::new(|file, id| match plan {
        CrashPlan::Random(seed) => FileData::settled(random_content(file, seed, id)),
        CrashPlan::DropUnsynced => FileData::settled(file.durable.clone()),
        CrashPlan::KeepAll | CrashPlan::ProcessKill => FileData::settled(everything(file)),
    });
    let mut live = BTreeMap::from([(ROOT, Entries::new())]);
    copier.reachable(&chosen, ROOT, &mut live);
    Names {
        used: copier.count_links(&live),
        durable: live.clone(),
        live,
        pending: Vec::new(),
        tracked: true,
        last_id: names.last_id,
    }
}

/// Copies trees of names; each file once, however many names it has.
struct Copier<F> {
    files: BTreeMap<u64, Arc<FileNode>>,
    copy: F,
}

impl<F: FnMut(&FileData, u64) -> FileData> Copier<F> {
    fn new(copy: F) -> Self {
        Self { files: BTreeMap::new(), copy }
    }

    fn entry(&mut self, entry: &Entry) -> Entry {
        let Entry::File(node) = entry else { return entry.clone() };
        let copy = &mut self.copy;
        let copied = self
            .files
            .entry(node.id)
            .or_insert_with(|| FileNode::with_data(node.id, copy(&node.lock(), node.id)));
        Entry::File(Arc::clone(copied))
    }

    fn entries(&mut self, entries: &Entries) -> Entries {
        entries.iter().map(|(name, entry)| (name.clone(), self.entry(entry))).collect()
    }

    fn tree(&mut self, tree: &BTreeMap<u64, Entries>) -> BTreeMap<u64, Entries> {
        tree.iter().map(|(dir, entries)| (*dir, self.entries(entries))).collect()
    }

    fn name_op(&mut self, op: &NameOp) -> NameOp {
        let changes = op.changes.iter();
        let copied = changes
            .map(|(place, after)| (place.clone(), after.as_ref().map(|entry| self.entry(entry))));
        NameOp { changes: copied.collect() }
    }

    /// Copies the directories that can still be reached from `dir`.
    fn reachable(
        &mut self,
        tree: &BTreeMap<u64, Entries>,
        dir: u64,
        copied: &mut BTreeMap<u64, Entries>,
    ) {
        let mut waiting = vec![dir];
        while let Some(dir) = waiting.pop() {
            let entries = tree.get(&dir).map(|entries| self.entries(entries)).unwrap_or_default();
            let is_new = |child: &u64| !copied.contains_key(child);
            let children = entries.values().filter_map(|entry| match entry {
                Entry::Dir(child) => Some(*child),
                Entry::File(_) | Entry::Symlink => None,
            });
            waiting.extend(children.filter(is_new));
            copied.insert(dir, entries);
        }
    }

    /// Sets the link count of each copied file; gives the bytes that named files hold.
    fn count_links(&self, tree: &BTreeMap<u64, Entries>) -> u64 {
        let mut used = 0;
        for entry in tree.values().flat_map(BTreeMap::values) {
            if let Entry::File(node) = entry {
                let mut file = node.lock();
                if file.links == 0 {
                    used += file.live.len();
                }
                file.links += 1;
            }
        }
        used
    }
}

/// The file after the process died: as it was, with each frame in flight arrived or not.
fn killed(file: &FileData, seed: u64, id: u64) -> FileData {
    let mut random = Random::derive(seed, id);
    let mut file = file.clone();
    file.unmap();
    for (offset, frame) in std::mem::take(&mut file.in_flight).into_values() {
        if random.chance(1, 2) {
            file.write_durably(offset, &frame, true);
        }
    }
    file
}

/// The live content with all frames in flight.
fn everything(file: &FileData) -> Image {
    let mut image = file.live.clone();
    for (offset, frame) in file.in_flight.values() {
        image.write(*offset, frame);
    }
    image
}

/// The durable names with some of the pending operations: a prefix of them, or any subset.
fn random_tree(names: &Names, seed: u64) -> BTreeMap<u64, Entries> {
    let mut random = Random::derive(seed, u64::MAX);
    let mut tree = names.durable.clone();
    let count = names.pending.len() as u64;
    let as_prefix = random.chance(1, 2);
    let prefix = random.below(count + 1);
    let odds = random.below(5);
    let kept = names.with_what_they_build_on(|index, _| match as_prefix {
        true => (index as u64) < prefix,
        false => random.chance(odds, 4),
    });
    for (op, _) in names.pending.iter().zip(kept).filter(|(_, kept)| *kept) {
        op.apply_to(&mut tree);
    }
    tree
}
