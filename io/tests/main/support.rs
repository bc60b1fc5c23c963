//! What the test modules share: the worlds to run in, seeds, and a generator.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustlite_io::{
    AlignedBuffer, Backend, FileSystem, LogDeviceOptions, RealFileSystem, SimFileSystem,
};

/// Makes the second path a symbolic link to the first.
type Planter = Box<dyn Fn(&Path, &Path)>;

/// One implementation of the contract, with a directory to work in.
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) root: PathBuf,
    plant_symlink: Planter,
    /// Removes the directory at the end.
    _directory: Option<tempfile::TempDir>,
}

impl World {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes `path` a symbolic link to `target`.
    pub(crate) fn symlink(&self, target: &Path, path: &Path) {
        (self.plant_symlink)(target, path);
    }

    pub(crate) fn is_real(&self) -> bool {
        self._directory.is_some()
    }
}

/// Runs a test in every world that this machine has, naming the world on failure.
pub(crate) fn in_every_world(test: impl Fn(&World)) {
    let simulated = SimFileSystem::new(seed());
    let worlds = [
        Some(simulated_world("simulated", simulated)),
        Some(simulated_world("volatile", SimFileSystem::volatile())),
        real_world("real, io_uring", Backend::Uring),
        real_world("real, threads", Backend::Threads),
    ];
    for world in worlds.into_iter().flatten() {
        println!("world: {}", world.name);
        test(&world);
    }
}

fn simulated_world(name: &'static str, fs: Arc<SimFileSystem>) -> World {
    let root = PathBuf::from("/db");
    fs.create_dir_all(&root).unwrap();
    let planter = Arc::clone(&fs);
    let plant_symlink = Box::new(move |_: &Path, path: &Path| planter.plant_symlink(path).unwrap());
    World { name, fs, root, plant_symlink, _directory: None }
}

fn real_world(name: &'static str, backend: Backend) -> Option<World> {
    let fs = match RealFileSystem::new(Some(backend)) {
        Ok(fs) => fs,
        Err(error) => {
            println!("SKIPPED {name}: {error}");
            return None;
        }
    };
    let directory = tempfile::tempdir().unwrap();
    let plant_symlink = Box::new(|target: &Path, path: &Path| {
        std::os::unix::fs::symlink(target, path).unwrap();
    });
    let root = directory.path().to_path_buf();
    Some(World { name, fs, root, plant_symlink, _directory: Some(directory) })
}

/// The seed of random tests: from the environment, or fixed; printed, so that a failure can be
/// replayed.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("RUSTLITE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or(20_260_101);
    println!("RUSTLITE_TEST_SEED={seed}");
    seed
}

/// A splitmix64 generator.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Bytes without zeros, so that holes and lost sectors can be told from data.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8 | 1).collect()
    }
}

/// A log frame of `len` bytes that all say `fill`.
pub(crate) fn frame(len: usize, fill: u8) -> AlignedBuffer {
    let mut frame = AlignedBuffer::with_capacity(len);
    frame.resize(len);
    frame.fill(fill);
    frame
}

pub(crate) fn log_options(lanes: usize) -> LogDeviceOptions {
    LogDeviceOptions { lanes, ..LogDeviceOptions::default() }
}

/// The whole content of a file, through the contract.
pub(crate) fn read_all(fs: &dyn FileSystem, path: &Path) -> Vec<u8> {
    let file = fs.open(path, rustlite_io::OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

/// Creates a file with durable content under a name that is not durable yet.
pub(crate) fn put(fs: &dyn FileSystem, path: &Path, bytes: &[u8]) {
    let file = fs.create(path).unwrap();
    file.write_all_at(0, bytes).unwrap();
    file.sync_data().unwrap();
}

/// A simulated file system with the durable directory `/db`.
pub(crate) fn with_directory(seed: u64) -> Arc<SimFileSystem> {
    let fs = SimFileSystem::new(seed);
    fs.create_dir_all(Path::new("/db")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}
