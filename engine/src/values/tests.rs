//! Value files and pointers: what was written comes back, or an error that names the file.

use std::path::Path;
use std::sync::Arc;

use rustlite_io::{FileSystem, SimFileSystem};

use super::format::{HEADER_BYTES, decode_shares, encode_shares};
use super::{Pointer, ValueFiles, ValueShare, ValueWriter};
use crate::coding::Decoder;
use crate::error::{ErrorKind, Result};
use crate::manifest::LiveFiles;
use crate::sstable::{BlockCache, TableEnv};

struct Fixture {
    fs: Arc<SimFileSystem>,
    files: Arc<LiveFiles>,
    env: TableEnv,
}

impl Fixture {
    fn new(database_id: u64) -> Self {
        let fs = SimFileSystem::new(1);
        let files = LiveFiles::new(|| ());
        let as_trait: Arc<dyn FileSystem> = Arc::<SimFileSystem>::clone(&fs);
        as_trait.create_dir_all(Path::new("/db")).unwrap();
        let env = TableEnv {
            fs: as_trait,
            directory: "/db".into(),
            database_id,
            cache: Arc::new(BlockCache::new(1 << 20)),
            values: ValueFiles::new(&files),
            verify_always: false,
            residency: Arc::default(),
        };
        Self { fs, files, env }
    }

    /// Writes value file 7; gives the pointers.
    fn write(&self, values: &[Vec<u8>]) -> Vec<Pointer> {
        let mut writer = ValueWriter::create(&self.env, self.files.pending(7)).unwrap();
        let pointers = values.iter().map(|value| writer.add(value).unwrap()).collect();
        drop(writer.finish().unwrap());
        pointers
    }

    /// Opens value file 7 anew and reads; the file is open only meanwhile.
    fn read(&self, pointer: Pointer) -> Result<Vec<u8>> {
        let _open = self.env.values.open(&self.env, 7)?;
        let mut bytes = Vec::new();
        pointer.encode(&mut bytes);
        Ok(self.env.values.read(&bytes)?.as_slice().to_vec())
    }
}

fn values() -> Vec<Vec<u8>> {
    [256, 5000, 0, 70_000, 300].map(|len| vec![len as u8; len]).into()
}

#[test]
fn values_come_back_and_the_file_verifies() {
    let fixture = Fixture::new(9);
    let pointers = fixture.write(&values());
    for (pointer, value) in pointers.iter().zip(values()) {
        assert_eq!(fixture.read(*pointer).unwrap(), value);
        assert_eq!(fixture.read(*pointer).unwrap(), value, "the second time");
    }
    let file = fixture.env.values.open(&fixture.env, 7).unwrap();
    let stored: u64 = pointers.iter().map(|pointer| pointer.stored_bytes()).sum();
    assert_eq!(file.value_bytes(), stored);
    assert_eq!(file.verify(&pointers).unwrap(), stored);
}

#[test]
fn every_damaged_byte_is_found_by_whoever_needs_it() {
    let fixture = Fixture::new(9);
    let pointers = fixture.write(&[vec![1; 300], vec![2; 400]]);
    let path = Path::new("/db/000007.val");
    let good = fixture.fs.read_file(path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fixture.fs.write_file(path, &bad).unwrap();
        for pointer in &pointers {
            let concerned = at < HEADER_BYTES || pointer.range().contains(&(at as u64));
            match fixture.read(*pointer) {
                Ok(value) => assert!(!concerned && value.len() == pointer.len as usize, "{at}"),
                Err(error) => {
                    assert!(concerned, "byte {at}: {error}");
                    assert!(error.to_string().contains("000007.val"), "{error}");
                }
            }
        }
    }
    for len in 0..good.len() {
        fixture.fs.write_file(path, &good[..len]).unwrap();
        let error = fixture.read(pointers[1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "cut at {len}");
    }
}

#[test]
fn a_file_of_another_database_or_a_newer_version_is_refused() {
    let fixture = Fixture::new(9);
    let pointers = fixture.write(&values());
    let path = Path::new("/db/000007.val");
    let bytes = fixture.fs.read_file(path).unwrap();
    let other = Fixture::new(10);
    other.fs.write_file(path, &bytes).unwrap();
    assert_eq!(other.read(pointers[0]).unwrap_err().kind(), ErrorKind::Corruption);
    let mut newer = bytes;
    newer[4] = 2;
    let checksum = xxhash_rust::xxh3::xxh3_64(&newer[..HEADER_BYTES - 8]);
    newer[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    fixture.fs.write_file(path, &newer).unwrap();
    assert_eq!(fixture.read(pointers[0]).unwrap_err().kind(), ErrorKind::UnsupportedFormat);
}

#[test]
fn pointers_that_lead_nowhere_are_errors() {
    let fixture = Fixture::new(9);
    let pointers = fixture.write(&values());
    let wrong = [
        Pointer { offset: 0, ..pointers[0] },
        Pointer { offset: (1 << 62) - 1, ..pointers[0] },
        Pointer { len: pointers[0].len + 1, ..pointers[0] },
        Pointer { len: 1 << 30, ..pointers[0] },
        Pointer { offset: pointers[0].offset + 1, ..pointers[0] },
        Pointer { file: 8, ..pointers[0] },
    ];
    for pointer in wrong {
        let error = fixture.read(pointer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{pointer:?}");
    }
    let mut bytes = Vec::new();
    pointers[3].encode(&mut bytes);
    assert_eq!(Pointer::decode(&bytes).unwrap(), pointers[3]);
    for len in 0..bytes.len() {
        assert!(Pointer::decode(&bytes[..len]).is_err(), "{len}");
    }
    bytes.push(0);
    assert!(Pointer::decode(&bytes).is_err(), "more than a pointer");
}

#[test]
fn shares_survive_their_bytes_and_nonsense_is_refused() {
    let shares = [ValueShare { file: 3, bytes: 900 }, ValueShare { file: 400, bytes: 1 << 40 }];
    let mut bytes = Vec::new();
    encode_shares(&shares, &mut bytes);
    assert_eq!(decode_shares(&mut Decoder::new(&bytes)).as_deref(), Some(&shares[..]));
    for len in 0..bytes.len() {
        assert_eq!(decode_shares(&mut Decoder::new(&bytes[..len])), None, "{len}");
    }
    let mut disordered = Vec::new();
    encode_shares(&[shares[1], shares[0]], &mut disordered);
    assert_eq!(decode_shares(&mut Decoder::new(&disordered)), None);
}

#[test]
fn an_unfinished_file_is_removed() {
    let fixture = Fixture::new(9);
    let mut writer = ValueWriter::create(&fixture.env, fixture.files.pending(7)).unwrap();
    writer.add(&[1; 300]).unwrap();
    drop(writer);
    assert!(!fixture.env.fs.exists(Path::new("/db/000007.val")).unwrap());
}
