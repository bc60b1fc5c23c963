//! The directory tree: live entries, durable entries, and the operations between them.
//!
//! Every operation on names (a rename is one operation) waits in one ordered list until a directory
//! that it touches is synced. A crash may keep any of those that still wait.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use super::file_node::FileNode;
use super::world::os_error;

/// The directory that every path starts from; relative paths do as well.
pub(super) const ROOT: u64 = 0;

/// What a name stands for.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    File(Arc<FileNode>),
    Dir(u64),
    /// Never followed; it exists so that tests can check exactly that.
    Symlink,
}

/// The entries of one directory.
pub(super) type Entries = BTreeMap<String, Entry>;

/// A place in the tree: a directory and a name in it.
pub(super) type Place = (u64, String);

/// One operation on names: what each place holds afterwards. Happens whole or not at all.
#[derive(Debug, Clone)]
pub(super) struct NameOp {
    pub(super) changes: Vec<(Place, Option<Entry>)>,
}

/// All names of one file system.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) live: BTreeMap<u64, Entries>,
    pub(super) durable: BTreeMap<u64, Entries>,
    pub(super) pending: Vec<NameOp>,
    /// Bytes in files that have a name.
    pub(super) used: u64,
    pub(super) tracked: bool,
    pub(super) last_id: u64,
}

impl Names {
    pub(super) fn new(tracked: bool) -> Self {
        let root = || BTreeMap::from([(ROOT, Entries::new())]);
        Self { live: root(), durable: root(), pending: Vec::new(), used: 0, tracked, last_id: 0 }
    }

    /// A number that no file, directory or frame has had.
    pub(super) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn entries(&self, dir: u64) -> &Entries {
        self.live.get(&dir).expect("a live directory entry names a live directory")
    }

    fn entry(&self, place: &Place) -> Option<&Entry> {
        self.entries(place.0).get(&place.1)
    }

    /// The directory at the end of `components`.
    fn walk(&self, components: &[String]) -> io::Result<u64> {
        let mut dir = ROOT;
        for name in components {
            dir = match self.entries(dir).get(name) {
                Some(Entry::Dir(id)) => *id,
                Some(_) => return Err(os_error(libc::ENOTDIR)),
                None => return Err(os_error(libc::ENOENT)),
            };
        }
        Ok(dir)
    }

    pub(super) fn dir(&self, path: &Path) -> io::Result<u64> {
        self.walk(&components(path)?)
    }

    /// Where `path` points: its directory exists, itself may not.
    fn place(&self, path: &Path) -> io::Result<Place> {
        let mut components = components(path)?;
        let name = components.pop().ok_or_else(|| os_error(libc::EISDIR))?;
        Ok((self.walk(&components)?, name))
    }

    /// Where a new entry can go.
    pub(super) fn vacant_place(&self, path: &Path) -> io::Result<Place> {
        let place = self.place(path)?;
        match self.entry(&place) {
            Some(_) => Err(os_error(libc::EEXIST)),
            None => Ok(place),
        }
    }

    /// What is at `path`.
    pub(super) fn find(&self, path: &Path) -> io::Result<Entry> {
        if components(path)?.is_empty() {
            return Ok(Entry::Dir(ROOT));
        }
        let place = self.place(path)?;
        self.entry(&place).cloned().ok_or_else(|| os_error(libc::ENOENT))
    }

    /// The regular file at `path`.
    pub(super) fn file(&self, path: &Path) -> io::Result<Arc<FileNode>> {
        match self.find(path)? {
            Entry::File(node) => Ok(node),
            Entry::Dir(_) => Err(os_error(libc::EISDIR)),
            Entry::Symlink => Err(os_error(libc::ELOOP)),
        }
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<&Entries> {
        Ok(self.entries(self.dir(path)?))
    }

    /// Makes one name durable at once, whatever pends around it.
    pub(super) fn settle(&mut self, path: &Path) -> io::Result<()> {
        let place = self.place(path)?;
        let entry = self.entry(&place).cloned();
        for op in &mut self.pending {
            op.changes.retain(|(other, _)| *other != place);
        }
        NameOp { changes: vec![(place, entry)] }.apply_to(&mut self.durable);
        Ok(())
    }

    pub(super) fn add_file(&mut self, place: Place, node: &Arc<FileNode>) {
        self.apply(vec![(place, Some(Entry::File(Arc::clone(node))))]);
    }

    pub(super) fn add_symlink(&mut self, path: &Path) -> io::Result<()> {
        let place = self.vacant_place(path)?;
        self.apply(vec![(place, Some(Entry::Symlink))]);
        Ok(())
    }

    /// Creates the missing directories of `path`.
    pub(super) fn create_dirs(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = ROOT;
        for name in components(path)? {
            dir = match self.entries(dir).get(&name) {
                Some(Entry::Dir(id)) => *id,
                Some(_) => return Err(os_error(libc::ENOTDIR)),
                None => {
                    let id = self.new_id();
                    self.live.insert(id, Entries::new());
                    self.durable.insert(id, Entries::new());
                    self.apply(vec![((dir, name), Some(Entry::Dir(id)))]);
                    id
                }
            };
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        match self.find(path)? {
            Entry::Dir(_) => Err(os_error(libc::EISDIR)),
            Entry::File(_) | Entry::Symlink => {
                let place = self.place(path)?;
                self.apply(vec![(place, None)]);
                Ok(())
            }
        }
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        match self.find(path)? {
            Entry::Dir(id) if self.entries(id).is_empty() => {
                let place = self.place(path)?;
                self.apply(vec![(place, None)]);
                Ok(())
            }
            Entry::Dir(_) => Err(os_error(libc::ENOTEMPTY)),
            Entry::File(_) | Entry::Symlink => Err(os_error(libc::ENOTDIR)),
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let moved = self.find(from)?;
        let (source, target) = (self.place(from)?, self.place(to)?);
        if source == target {
            return Ok(());
        }
        match (&moved, self.entry(&target)) {
            (Entry::Dir(_), _) if components(to)?.starts_with(&components(from)?) => {
                return Err(os_error(libc::EINVAL));
            }
            (Entry::Dir(_), Some(Entry::Dir(id))) if !self.entries(*id).is_empty() => {
                return Err(os_error(libc::ENOTEMPTY));
            }
            (Entry::Dir(_), Some(Entry::File(_) | Entry::Symlink)) => {
                return Err(os_error(libc::ENOTDIR));
            }
            (Entry::File(_) | Entry::Symlink, Some(Entry::Dir(_))) => {
                return Err(os_error(libc::EISDIR));
            }
            (Entry::File(one), Some(Entry::File(other))) if Arc::ptr_eq(one, other) => {
                // Two names of one file: POSIX leaves both in place.
                return Ok(());
            }
            _ => {}
        }
        self.apply(vec![(source, None), (target, Some(moved))]);
        Ok(())
    }

    pub(super) fn hard_link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let entry = self.find(from)?;
        if matches!(entry, Entry::Dir(_)) {
            return Err(os_error(libc::EPERM));
        }
        let place = self.vacant_place(to)?;
        self.apply(vec![(place, Some(entry))]);
        Ok(())
    }

    /// Makes one operation on names happen, and pend.
    fn apply(&mut self, changes: Vec<(Place, Option<Entry>)>) {
        for ((dir, name), after) in &changes {
            if let Some(Entry::File(node)) = after {
                let mut file = node.lock();
                if file.links == 0 {
                    self.used += file.live.len();
                }
                file.links += 1;
            }
            let entries = self.live.get_mut(dir).expect("places are in live directories");
            let before = match after {
                Some(entry) => entries.insert(name.clone(), entry.clone()),
                None => entries.remove(name),
            };
            if let Some(Entry::File(node)) = before {
                let mut file = node.lock();
                file.links = file.links.saturating_sub(1);
                if file.links == 0 {
                    self.used = self.used.saturating_sub(file.live.len());
                }
            }
        }
        if self.tracked {
            self.pending.push(NameOp { changes });
        }
    }

    /// Makes durable every pending operation that touches `dir`, and the earlier ones that those
    /// build on. An operation over two directories becomes durable in both, as a journal has it.
    pub(super) fn sync_dir(&mut self, dir: u64) {
        let chosen = self
            .with_what_they_build_on(|_, op| op.changes.iter().any(|(place, _)| place.0 == dir));
        let mut chosen = chosen.into_iter();
        let mut synced = Vec::new();
        self.pending.retain(|op| {
            let is_chosen = chosen.next().unwrap_or(false);
            if is_chosen {
                synced.push(op.clone());
            }
            !is_chosen
        });
        for op in &synced {
            op.apply_to(&mut self.durable);
        }
    }
}

impl Names {
    /// For each pending operation: whether it is chosen, or a later chosen one builds on it by
    /// touching the same place.
    pub(super) fn with_what_they_build_on(
        &self,
        mut is_chosen: impl FnMut(usize, &NameOp) -> bool,
    ) -> Vec<bool> {
        let mut places: BTreeSet<&Place> = BTreeSet::new();
        let mut chosen = vec![false; self.pending.len()];
        for (index, op) in self.pending.iter().enumerate().rev() {
            let needed = op.changes.iter().any(|(place, _)| places.contains(place));
            if is_chosen(index, op) || needed {
                chosen[index] = true;
                places.extend(op.changes.iter().map(|(place, _)| place));
            }
        }
        chosen
    }
}

impl NameOp {
    /// Sets the places in a tree of entries.
    pub(super) fn apply_to(&self, tree: &mut BTreeMap<u64, Entries>) {
        for ((dir, name), after) in &self.changes {
            let entries = tree.entry(*dir).or_default();
            match after {
                Some(entry) => entries.insert(name.clone(), entry.clone()),
                None => entries.remove(name),
            };
        }
    }
}

/// The names along a path; `..` is resolved by the text, as there are no links to follow.
fn components(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                let name = name.to_str().ok_or_else(|| os_error(libc::EILSEQ))?;
                names.push(name.to_owned());
            }
            Component::ParentDir => {
                names.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}
