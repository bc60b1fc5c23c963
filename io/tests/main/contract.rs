//! What `FileSystem` promises about files, names, locks and time, checked in every world.

use std::io::ErrorKind;

use rustlite_io::{DirEntry, OpenMode};

use crate::support::{Random, in_every_world, put, read_all, seed};

#[test]
fn create_refuses_what_exists() {
    in_every_world(|world| {
        let path = world.path("file");
        let file = world.fs.create(&path).unwrap();
        assert_eq!(file.path(), path);
        assert_eq!(file.len().unwrap(), 0);
        let error = world.fs.create(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(error.path(), path);
        assert_eq!(
            world.fs.create_sink(&path).err().map(|error| error.kind()),
            Some(ErrorKind::AlreadyExists)
        );
        world.fs.create_dir_all(&world.path("dir")).unwrap();
        assert!(world.fs.create(&world.path("dir")).is_err());
        if world.is_real() {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "nobody else may read a database");
        }
    });
}

#[test]
fn symbolic_links_are_not_followed() {
    in_every_world(|world| {
        let (target, link) = (world.path("target"), world.path("link"));
        put(&*world.fs, &target, b"secret");
        world.symlink(&target, &link);
        assert!(world.fs.create(&link).is_err());
        assert!(world.fs.create_sink(&link).is_err());
        assert!(world.fs.open(&link, OpenMode::Read).is_err());
        assert!(world.fs.open(&link, OpenMode::ReadWrite).is_err());
        assert!(world.fs.map(&link).is_err());
        assert!(world.fs.open_stream(&link).is_err());
        assert!(world.fs.lock(&link).is_err());
        let entries = world.fs.list(&world.root).unwrap();
        let listed = entries.iter().find(|entry| entry.name == "link").unwrap();
        assert!(!listed.is_dir && !listed.is_file, "a link is neither: {listed:?}");
        assert_eq!(read_all(&*world.fs, &target), b"secret");
    });
}

#[test]
fn what_is_missing_is_reported_as_not_found() {
    in_every_world(|world| {
        let missing = world.path("missing");
        let errors = [
            world.fs.open(&missing, OpenMode::Read).unwrap_err(),
            world.fs.map(&missing).unwrap_err(),
            world.fs.open_stream(&missing).unwrap_err(),
            world.fs.remove(&missing).unwrap_err(),
            world.fs.rename(&missing, &world.path("other")).unwrap_err(),
            world.fs.hard_link(&missing, &world.path("other")).unwrap_err(),
            world.fs.list(&missing).unwrap_err(),
            world.fs.sync_dir(&missing).unwrap_err(),
            world.fs.create(&missing.join("file")).unwrap_err(),
            world.fs.lock(&missing.join("LOCK")).unwrap_err(),
        ];
        for error in errors {
            assert!(error.is_not_found(), "{}: {error}", world.name);
            let names_a_path = error.path().starts_with(&world.root);
            assert!(names_a_path, "the error names a path of the operation: {error}");
        }
        assert!(!world.fs.exists(&missing).unwrap());
        assert!(!world.fs.exists(&missing.join("deeper")).unwrap());
    });
}

#[test]
fn directories_are_created_with_their_parents_and_listed() {
    in_every_world(|world| {
        let deep = world.path("a").join("b").join("c");
        world.fs.create_dir_all(&deep).unwrap();
        world.fs.create_dir_all(&deep).unwrap();
        assert!(world.fs.exists(&deep).unwrap());
        assert_eq!(world.fs.list(&deep).unwrap(), []);
        put(&*world.fs, &world.path("a").join("file"), b"12345");
        let mut entries = world.fs.list(&world.path("a")).unwrap();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let dir = DirEntry { name: "b".into(), len: 0, is_dir: true, is_file: false };
        let file = DirEntry { name: "file".into(), len: 5, is_dir: false, is_file: true };
        assert_eq!(entries, [dir, file]);

        assert!(world.fs.create_dir_all(&world.path("a").join("file").join("x")).is_err());
        assert!(world.fs.list(&world.path("a").join("file")).is_err());
        assert!(world.fs.open(&deep, OpenMode::Read).is_err(), "a directory is not a file");
        assert!(world.fs.map(&deep).is_err());
        assert!(world.fs.remove(&deep).is_err(), "only files are removed");
        world.fs.sync_dir(&deep).unwrap();
    });
}

#[test]
fn reads_are_short_only_at_the_end_and_gaps_are_zeros() {
    in_every_world(|world| {
        let file = world.fs.create(&world.path("file")).unwrap();
        file.write_all_at(10, b"abc").unwrap();
        let mut buf = [0xee; 20];
        assert_eq!(file.read_at(0, &mut buf).unwrap(), 13);
        assert_eq!(&buf[..13], b"\0\0\0\0\0\0\0\0\0\0abc");
        assert_eq!(buf[13..], [0xee; 7], "bytes past the end are not touched");
        assert_eq!(file.read_at(12, &mut buf[..1]).unwrap(), 1);
        assert_eq!(file.read_at(13, &mut buf).unwrap(), 0);
        assert_eq!(file.read_at(1 << 40, &mut buf).unwrap(), 0);
        assert_eq!(file.read_at(0, &mut []).unwrap(), 0);
        file.write_all_at(0, b"").unwrap();
        assert_eq!(file.len().unwrap(), 13);

        file.set_len(11).unwrap();
        file.set_len(14).unwrap();
        assert_eq!(read_all(&*world.fs, &world.path("file")), b"\0\0\0\0\0\0\0\0\0\0a\0\0\0");
        file.sync_data().unwrap();
    });
}

#[test]
fn a_file_opened_for_reading_refuses_changes() {
    in_every_world(|world| {
        let path = world.path("file");
        put(&*world.fs, &path, b"content");
        let file = world.fs.open(&path, OpenMode::Read).unwrap();
        assert!(file.write_all_at(0, b"x").is_err());
        assert!(file.set_len(0).is_err());
        let file = world.fs.open(&path, OpenMode::ReadWrite).unwrap();
        file.write_all_at(0, b"C").unwrap();
        assert_eq!(read_all(&*world.fs, &path), b"Content");
    });
}

#[test]
fn random_writes_and_reads_behave_like_a_vector() {
    in_every_world(|world| {
        let mut random = Random(seed());
        let file = world.fs.create(&world.path("file")).unwrap();
        let mut model = Vec::new();
        for _ in 0..300 {
            let offset = random.below(100_000) as usize;
            if random.below(20) == 0 {
                file.set_len(offset as u64).unwrap();
                model.resize(offset, 0);
                continue;
            }
            let len = 1 + random.below(20_000) as usize;
            let data = random.bytes(len);
            file.write_all_at(offset as u64, &data).unwrap();
            model.resize(model.len().max(offset + len), 0);
            model[offset..offset + len].copy_from_slice(&data);

            let from = random.below(model.len() as u64) as usize;
            let mut buf = vec![0; 1 + random.below(30_000) as usize];
            let count = file.read_at(from as u64, &mut buf).unwrap();
            assert_eq!(count, buf.len().min(model.len() - from));
            assert_eq!(buf[..count], model[from..from + count]);
        }
        assert!(read_all(&*world.fs, &world.path("file")) == model);
    });
}

#[test]
fn rename_replaces_and_open_files_keep_what_was_replaced() {
    in_every_world(|world| {
        let (new, current) = (world.path("new"), world.path("CURRENT"));
        put(&*world.fs, &current, b"old");
        put(&*world.fs, &new, b"new");
        let old_file = world.fs.open(&current, OpenMode::Read).unwrap();
        world.fs.rename(&new, &current).unwrap();
        world.fs.sync_dir(&world.root).unwrap();
        assert!(!world.fs.exists(&new).unwrap());
        assert_eq!(read_all(&*world.fs, &current), b"new");
        let mut buf = [0; 3];
        assert_eq!(old_file.read_at(0, &mut buf).unwrap(), 3);
        assert_eq!(&buf, b"old");

        world.fs.create_dir_all(&world.path("dir").join("full")).unwrap();
        assert!(world.fs.rename(&current, &world.path("dir")).is_err());
        let moved = world.path("dir").join("moved");
        world.fs.rename(&current, &moved).unwrap();
        assert_eq!(read_all(&*world.fs, &moved), b"new");
        world.fs.rename(&world.path("dir"), &world.path("elsewhere")).unwrap();
        assert_eq!(read_all(&*world.fs, &world.path("elsewhere").join("moved")), b"new");
    });
}

#[test]
fn only_an_empty_directory_is_removed_as_one() {
    in_every_world(|world| {
        let dir = world.path("dir");
        world.fs.create_dir_all(&dir).unwrap();
        put(&*world.fs, &dir.join("file"), b"x");
        let error = world.fs.remove_dir(&dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty, "{}: {error}", world.name);
        assert!(world.fs.remove_dir(&dir.join("file")).is_err(), "a file is not a directory");
        assert_eq!(read_all(&*world.fs, &dir.join("file")), b"x");
        world.fs.remove(&dir.join("file")).unwrap();
        world.fs.remove_dir(&dir).unwrap();
        world.fs.sync_dir(&world.root).unwrap();
        assert!(!world.fs.exists(&dir).unwrap());
        assert!(world.fs.remove_dir(&dir).unwrap_err().is_not_found());
        world.fs.create_dir_all(&dir).unwrap();
        assert_eq!(world.fs.list(&dir).unwrap(), []);
    });
}

#[test]
fn a_hard_link_is_the_same_file() {
    in_every_world(|world| {
        let (one, two) = (world.path("one"), world.path("two"));
        put(&*world.fs, &one, b"same");
        world.fs.hard_link(&one, &two).unwrap();
        assert_eq!(
            world.fs.hard_link(&one, &two).unwrap_err().kind(),
            ErrorKind::AlreadyExists,
            "a link never replaces"
        );
        world.fs.open(&one, OpenMode::ReadWrite).unwrap().write_all_at(0, b"SA").unwrap();
        assert_eq!(read_all(&*world.fs, &two), b"SAme");
        world.fs.remove(&one).unwrap();
        assert_eq!(read_all(&*world.fs, &two), b"SAme");
    });
}

#[test]
fn a_lock_has_one_holder_until_it_is_dropped() {
    in_every_world(|world| {
        let path = world.path("LOCK");
        let lock = world.fs.lock(&path).unwrap();
        assert!(world.fs.exists(&path).unwrap(), "locking creates the file");
        for _ in 0..2 {
            let error = world.fs.lock(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{}: {error}", world.name);
        }
        // Opening and closing the file must not release the lock, as it would with POSIX record
        // locks.
        drop(world.fs.open(&path, OpenMode::Read).unwrap());
        assert!(world.fs.lock(&path).is_err());
        let other = world.fs.lock(&world.path("OTHER")).unwrap();
        drop(lock);
        let lock = world.fs.lock(&path).unwrap();
        drop((lock, other));
    });
}

#[test]
fn one_file_serves_many_threads() {
    in_every_world(|world| {
        let file = world.fs.create(&world.path("shared")).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8_u8 {
                let file = &file;
                scope.spawn(move || {
                    for round in 0..20_u64 {
                        let offset = (round * 8 + u64::from(thread)) * 1000;
                        file.write_all_at(offset, &[thread + 1; 1000]).unwrap();
                        let mut buf = [0; 1000];
                        assert_eq!(file.read_at(offset, &mut buf).unwrap(), 1000);
                        assert_eq!(buf, [thread + 1; 1000]);
                    }
                    file.sync_data().unwrap();
                });
            }
        });
        let bytes = read_all(&*world.fs, &world.path("shared"));
        for (index, piece) in bytes.chunks(1000).enumerate() {
            assert!(piece.iter().all(|&byte| usize::from(byte) == index % 8 + 1));
        }
    });
}

#[test]
fn clocks_and_random_numbers_move_on() {
    in_every_world(|world| {
        let clock = world.fs.clock();
        let (first, second) = (clock.monotonic(), clock.monotonic());
        assert!(second >= first);
        clock.sleep(std::time::Duration::from_millis(2));
        assert!(clock.monotonic() >= first + std::time::Duration::from_millis(2));
        assert!(clock.wall().as_secs() > 1_700_000_000, "wall time counts from the Unix epoch");
        let drawn: std::collections::BTreeSet<u64> =
            (0..100).map(|_| world.fs.random_u64()).collect();
        assert_eq!(drawn.len(), 100);
        assert!(!world.fs.description().is_empty());
    });
}
