//! What the file system promises, checked on every backend and on every kind of directory that this
//! machine has.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::mapping::Advice;

/// A file system of each backend, with a directory on disk and one in memory where they exist.
pub(super) fn worlds() -> Vec<(Arc<RealFileSystem>, tempfile::TempDir)> {
    let mut worlds = Vec::new();
    for backend in [Backend::Threads, Backend::Uring] {
        let Ok(fs) = RealFileSystem::new(Some(backend)) else { continue };
        worlds.push((Arc::clone(&fs), tempfile::tempdir().unwrap()));
        if let Ok(in_memory) = tempfile::tempdir_in("/dev/shm") {
            worlds.push((fs, in_memory));
        }
    }
    worlds
}

/// Random numbers that a failing test can be replayed with.
pub(super) struct Random(u64);

impl Random {
    /// Takes the seed from the environment, or a fresh one, and prints it.
    pub(super) fn from_env() -> Self {
        let seed = std::env::var("RUSTLITE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let fresh = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u64);
        let seed = seed.unwrap_or_else(fresh);
        println!("replay with RUSTLITE_TEST_SEED={seed}");
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn pattern(len: usize) -> Vec<u8> {
    let mut random = Random(len as u64);
    (0..len).map(|_| random.next() as u8).collect()
}

fn at(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    dir.path().join(name)
}

#[test]
fn files_read_back_what_was_written_and_end_where_they_end() {
    for (fs, dir) in worlds() {
        let path = at(&dir, "file");
        let file = fs.create(&path).unwrap();
        assert_eq!(fs.create(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        file.write_all_at(10, b"hello").unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.len().unwrap(), 15);
        let mut buf = [1; 20];
        assert_eq!(file.read_at(8, &mut buf).unwrap(), 7);
        assert_eq!(&buf[..7], b"\0\0hello");
        assert_eq!(file.read_at(15, &mut buf).unwrap(), 0);
        file.set_len(12).unwrap();
        let again = fs.open(&path, OpenMode::Read).unwrap();
        assert_eq!(again.read_at(10, &mut buf).unwrap(), 2);
        let error = again.write_all_at(3, b"x").unwrap_err();
        assert_eq!(error.range(), Some((3, 1)));
        assert_eq!(error.path(), path);
    }
}

#[test]
fn new_files_are_private_and_close_on_exec() {
    use std::os::unix::fs::PermissionsExt;
    for (fs, dir) in worlds() {
        let path = at(&dir, "file");
        let file = RealFile::create(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others must not read it");
        let flags = rustix::io::fcntl_getfd(&**file.descriptor()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        drop(fs);
    }
}

#[test]
fn open_refuses_links_pipes_and_directories() {
    for (fs, dir) in worlds() {
        fs.create(&at(&dir, "file")).unwrap();
        std::os::unix::fs::symlink(at(&dir, "file"), at(&dir, "link")).unwrap();
        assert!(fs.open(&at(&dir, "link"), OpenMode::Read).is_err());
        assert!(fs.create(&at(&dir, "link")).is_err());
        rustix::fs::mknodat(CWD, at(&dir, "pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();
        for mode in [OpenMode::Read, OpenMode::ReadWrite] {
            assert!(fs.open(&at(&dir, "pipe"), mode).is_err(), "must fail, and not block");
        }
        assert!(fs.open(dir.path(), OpenMode::Read).is_err());
        assert!(fs.open_stream(dir.path()).is_err());
        assert!(fs.map(dir.path()).is_err());
        assert!(fs.open(&at(&dir, "missing"), OpenMode::Read).unwrap_err().is_not_found());
    }
}

#[test]
fn opened_files_may_wait_for_the_disk() {
    for (fs, dir) in worlds() {
        fs.create(&at(&dir, "file")).unwrap();
        let file = RealFile::open(&at(&dir, "file"), OpenMode::Read).unwrap();
        let flags = rustix::fs::fcntl_getfl(&**file.descriptor()).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK), "io_uring would fail rather than wait");
    }
}

#[test]
fn directories_list_rename_link_and_remove() {
    for (fs, dir) in worlds() {
        let deep = at(&dir, "a/b");
        fs.create_dir_all(&deep).unwrap();
        fs.create_dir_all(&deep).unwrap();
        fs.create(&deep.join("one")).unwrap().write_all_at(0, b"123").unwrap();
        fs.rename(&deep.join("one"), &deep.join("two")).unwrap();
        fs.hard_link(&deep.join("two"), &deep.join("three")).unwrap();
        fs.remove(&deep.join("two")).unwrap();
        fs.sync_dir(&deep).unwrap();
        std::os::unix::fs::symlink("nowhere", deep.join("dangling")).unwrap();
        assert!(fs.exists(&deep.join("dangling")).unwrap());
        assert!(!fs.exists(&deep.join("two")).unwrap());
        assert!(!fs.exists(&deep.join("three/below")).unwrap());
        let mut entries = fs.list(&deep).unwrap();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(entries.len(), 2);
        assert!(!entries[0].is_file && !entries[0].is_dir, "a link is neither");
        let three = DirEntry { name: "three".into(), len: 3, is_dir: false, is_file: true };
        assert_eq!(entries[1], three);
        assert!(fs.list(&at(&dir, "a")).unwrap()[0].is_dir);
        assert!(fs.list(&at(&dir, "missing")).unwrap_err().is_not_found());
        assert!(fs.sync_dir(&at(&dir, "missing")).unwrap_err().is_not_found());
    }
}

#[test]
fn a_second_lock_fails_even_in_the_same_process_until_the_first_is_dropped() {
    for (fs, dir) in worlds() {
        let path = at(&dir, "LOCK");
        let lock = fs.lock(&path).unwrap();
        assert_eq!(fs.lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        // Opening and closing the lock file by other means must not release it.
        drop(fs.open(&path, OpenMode::ReadWrite).unwrap());
        assert_eq!(fs.lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(lock);
        fs.lock(&path).unwrap();
    }
}

#[test]
fn maps_show_the_file_and_outlive_its_name() {
    for (fs, dir) in worlds() {
        let path = at(&dir, "table");
        let content = pattern(100_001);
        fs.create(&path).unwrap().write_all_at(0, &content).unwrap();
        let map = fs.map(&path).unwrap();
        fs.remove(&path).unwrap();
        map.populate(0..map.len()).unwrap();
        assert!(*map == content[..]);
        assert!(map.populate(0..100_002).is_err());

        fs.create(&path).unwrap();
        let empty = fs.map(&path).unwrap();
        assert!(empty.is_empty());
        empty.populate(0..0).unwrap();
    }
}

#[test]
fn maps_tell_what_is_in_memory_and_bring_in_what_they_are_told_to() {
    for (fs, dir) in worlds() {
        let path = at(&dir, "table");
        let content = pattern(400_000);
        let file = fs.create(&path).unwrap();
        file.write_all_at(0, &content).unwrap();
        file.sync_data().unwrap();
        let fd = open::open_regular(&path, OFlags::RDWR).unwrap();
        rustix::fs::fadvise(&fd, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let map = fs.map(&path).unwrap();
        let (wanted, other) = (5_000..9_000, 300_000..301_000);
        // What is in a file system in memory stays there.
        let tmpfs = 0x0102_1994;
        let can_leave = rustix::fs::fstatfs(&fd).unwrap().f_type != tmpfs;
        assert_eq!(map.is_resident(wanted.clone()), !can_leave);
        map.advise(Advice::WillNeed, wanted.clone());
        let begun = fs.clock().monotonic();
        while !map.is_resident(wanted.clone()) {
            assert!(fs.clock().monotonic() - begun < Duration::from_secs(60), "never read in");
        }
        assert_eq!(map.is_resident(other.clone()), !can_leave, "nobody asked for it");
        map.populate(other.clone()).unwrap();
        assert!(map.is_resident(other));
        assert!(map.is_resident(0..0) && map.is_resident(400_000..500_000), "nothing to wait for");
        assert!(*map == content[..]);
    }
}

#[test]
fn ten_thousand_maps_cost_no_descriptors() {
    let Some((fs, dir)) = worlds().into_iter().next() else { return };
    let path = at(&dir, "table");
    fs.create(&path).unwrap().write_all_at(0, &[1; 5000]).unwrap();
    let open_files = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let before = open_files();
    let maps: Vec<_> = (0..10_000).map(|_| fs.map(&path).unwrap()).collect();
    assert!(open_files() < before + 1000, "other tests may open some files meanwhile");
    assert_eq!(maps[9_999][4_999], 1);
}

#[test]
fn sinks_and_streams_round_trip_every_odd_size() {
    let mut random = Random::from_env();
    for (fs, dir) in worlds() {
        let sizes = [0, 1, 4095, 524_287, 524_288, 524_289, 1_048_576, 3_333_333, 9_000_001];
        for (number, &size) in sizes.iter().enumerate() {
            let path = at(&dir, &format!("table{number}"));
            let content = pattern(size);
            let mut sink = fs.create_sink(&path).unwrap();
            let mut rest = &content[..];
            while !rest.is_empty() {
                let len = (random.below(200_000) as usize + 1).min(rest.len());
                sink.append(&rest[..len]).unwrap();
                rest = &rest[len..];
                assert_eq!(sink.position() as usize, size - rest.len());
            }
            sink.finish().unwrap();
            assert_eq!(sink.append(b"late").unwrap_err().kind(), ErrorKind::InvalidInput);

            let mut stream = fs.open_stream(&path).unwrap();
            assert_eq!(stream.len() as usize, size);
            let mut start = 0;
            while start < size {
                let len = match random.below(10) {
                    0 => size - start,
                    1..4 => random.below(1_500_000) as usize,
                    _ => random.below(10_000) as usize,
                };
                let end = (start + len).min(size);
                let bytes = stream.read(start as u64..end as u64).unwrap();
                assert!(bytes == &content[start..end], "{start}..{end} of {size}");
                let gap = 700_000 * random.below(2);
                start += random.below(len as u64 + 1 + gap) as usize;
            }
        }
    }
}

#[test]
fn streams_refuse_ranges_past_the_end_without_allocating() {
    for (fs, dir) in worlds() {
        let path = at(&dir, "table");
        fs.create(&path).unwrap().write_all_at(0, &[7; 1000]).unwrap();
        let mut stream = fs.open_stream(&path).unwrap();
        for range in [0..1001, 1001..1002, 5..u64::MAX, u64::MAX..u64::MAX] {
            let error = stream.read(range).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        }
        #[expect(clippy::reversed_empty_ranges, reason = "a broken range is the point")]
        let reversed = 5..4;
        assert_eq!(stream.read(reversed).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(stream.read(1000..1000).unwrap(), b"");
        assert_eq!(stream.read(999..1000).unwrap(), [7]);
    }
}

#[test]
fn a_stream_over_a_file_that_was_cut_fails() {
    for (fs, dir) in worlds() {
        let path = at(&dir, "table");
        let file = fs.create(&path).unwrap();
        file.write_all_at(0, &pattern(2_000_000)).unwrap();
        let mut stream = fs.open_stream(&path).unwrap();
        stream.read(0..10).unwrap();
        file.set_len(1_200_000).unwrap();
        let error = stream.read(1_900_000..1_900_010).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn an_unfinished_sink_can_be_dropped_and_an_existing_file_is_refused() {
    for (fs, dir) in worlds() {
        let path = at(&dir, "table");
        let mut sink = fs.create_sink(&path).unwrap();
        sink.append(&pattern(3_000_000)).unwrap();
        drop(sink);
        assert_eq!(fs.create_sink(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
}

#[test]
fn the_first_error_of_a_sink_sticks() {
    for (fs, dir) in worlds() {
        let mut sink = sink::Sink::create(&at(&dir, "table"), fs.ring()).unwrap();
        sink.break_for_test();
        let content = pattern(600_000);
        let failed = (0..10).find_map(|_| sink.append(&content).err());
        let error = failed.expect("the writes fail");
        assert_eq!(error.operation(), "write");
        assert!(sink.append(b"x").is_err());
        assert_eq!(sink.finish().unwrap_err().to_string(), error.to_string());
    }
}

#[test]
fn random_numbers_differ_and_the_description_names_the_backend() {
    for (fs, _dir) in worlds() {
        assert_ne!(fs.random_u64(), fs.random_u64());
        let word = if fs.backend() == Backend::Uring { "io_uring" } else { "plain system calls" };
        assert!(fs.description().contains(word), "{}", fs.description());
        let options = LogDeviceOptions { lanes: 65, ..LogDeviceOptions::default() };
        assert_eq!(fs.log_device(options).unwrap_err().kind(), ErrorKind::InvalidInput);
        let none = LogDeviceOptions { lanes: 0, ..LogDeviceOptions::default() };
        assert!(fs.log_device(none).is_err());
    }
}
