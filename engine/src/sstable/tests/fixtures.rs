//! Makes tables in an in-memory file system, and random records to put into them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rustlite_io::SimFileSystem;

use super::super::{BlockCache, Table, TableEnv, TableMeta, TableOptions, TableWriter};
use crate::error::Result;
use crate::file_name::FileName;
use crate::index::FilterKeys;
use crate::key::{Trailer, ValueKind};
use crate::manifest::LiveFiles;
use crate::options::Compression;
use crate::range_tombstones::RangeTombstones;
use crate::values::ValueFiles;

/// Records in internal-key order: by key, then newest first.
pub(super) type Model = BTreeMap<(Vec<u8>, std::cmp::Reverse<Trailer>), Vec<u8>>;

/// Small random numbers that a seed repeats.
pub(super) struct Random(u64);

impl Random {
    /// Takes the seed from `RUSTLITE_TEST_SEED` if it is set, and prints it, so that a failure can be replayed.
    pub(super) fn from_seed(default: u64) -> Self {
        let seed = std::env::var("RUSTLITE_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or(default);
        println!("replay with RUSTLITE_TEST_SEED={seed}");
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Bytes that compress or don't.
    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        if self.below(2) == 0 {
            return vec![self.next() as u8; len];
        }
        (0..len).map(|_| self.next() as u8).collect()
    }
}

pub(super) fn env(fs: &Arc<SimFileSystem>) -> TableEnv {
    let directory = Path::new("/db").to_path_buf();
    let as_trait: Arc<dyn rustlite_io::FileSystem> = fs.clone();
    as_trait.create_dir_all(&directory).unwrap();
    TableEnv {
        fs: as_trait,
        directory,
        database_id: 0x1234_5678,
        cache: Arc::new(BlockCache::new(8 << 20)),
        values: ValueFiles::new(&LiveFiles::new(|| ())),
        verify_always: false,
        residency: Arc::default(),
    }
}

pub(super) fn options(compression: Compression, block_bytes: usize) -> TableOptions {
    TableOptions {
        block_bytes,
        compression,
        filter_bits_per_key: 10,
        filter_keys: FilterKeys::Whole,
    }
}

pub(super) fn codecs() -> Vec<Compression> {
    let mut codecs = vec![Compression::None, Compression::Lz4];
    if cfg!(feature = "zstd") {
        codecs.push(Compression::Zstd);
    }
    codecs
}

pub(super) fn write(
    env: &TableEnv,
    number: u64,
    options: TableOptions,
    model: &Model,
    tombstones: &RangeTombstones,
) -> Result<TableMeta> {
    let mut writer = TableWriter::create(env, number, options)?;
    assert!(writer.is_empty());
    for ((key, trailer), value) in model {
        writer.add(key, trailer.0, value)?;
        assert_eq!(writer.last_key(), key);
    }
    writer.add_range_tombstones(tombstones);
    let estimate = writer.estimated_bytes();
    let meta = writer.finish()?;
    let slack = 4096 + meta.file_bytes / 10 + meta.range_tombstones * 1000;
    if options.compression == Compression::None {
        let (low, high) = (meta.file_bytes.saturating_sub(slack), meta.file_bytes + slack);
        assert!((low..=high).contains(&estimate), "{estimate} estimated, {}", meta.file_bytes);
    }
    Ok(meta)
}

pub(super) fn table(env: &TableEnv, options: TableOptions, model: &Model) -> Arc<Table> {
    let meta = write(env, 7, options, model, &RangeTombstones::empty()).unwrap();
    Table::open(env, &meta).unwrap()
}

pub(super) fn path(env: &TableEnv, number: u64) -> std::path::PathBuf {
    FileName::Table(number).path(&env.directory)
}

/// `count` records with keys of several kinds: short, long, with few and many versions, prefixes of each other.
pub(super) fn random_model(random: &mut Random, count: usize) -> Model {
    let mut model = Model::new();
    let mut sequence = 1;
    while model.len() < count {
        let mut key = vec![0, 0, 0, 1];
        match random.below(5) {
            0 => key.extend(format!("user{:012}", random.below(100_000)).bytes()),
            1 => key.extend(random.next().to_be_bytes()),
            2 => key.extend(std::iter::repeat_n(b'a', random.below(40))),
            3 => {
                let len = 1 + random.below(12);
                key.extend((0..len).map(|_| [0, 1, 255][random.below(3)]));
            }
            _ => key.extend(format!("shared/path/of/some/length/{}", random.below(300)).bytes()),
        }
        let versions = if random.below(50) == 0 { 40 } else { 1 + random.below(3) };
        for _ in 0..versions {
            sequence += 1 + random.next() % 3;
            let (kind, value) = match random.below(6) {
                0 => (ValueKind::Delete, Vec::new()),
                1 => (ValueKind::Put, Vec::new()),
                2 => {
                    let len = random.below(1500);
                    (ValueKind::Put, random.bytes(len))
                }
                _ => {
                    let len = random.below(120);
                    (ValueKind::Put, random.bytes(len))
                }
            };
            model.insert((key.clone(), std::cmp::Reverse(Trailer::new(sequence, kind))), value);
        }
    }
    model
}
