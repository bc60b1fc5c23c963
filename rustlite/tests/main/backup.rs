//! Checkpoints and backups on real files.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustlite::{Backup, Database, Durability, ErrorKind, Options, WriteOptions};

use crate::random::Random;
use crate::support::{Setup, assert_fails, collect, on_each_setup, picture};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Puts and deletes, applied to a model as well.
fn work(db: &Database, model: &mut Model, seed: u64, writes: usize) {
    let mut random = Random::new(&[seed]);
    let buffered = WriteOptions::new().durability(Durability::Buffered);
    for _ in 0..writes {
        let key = format!("key {:05}", random.below(4000)).into_bytes();
        if random.below(5) == 0 {
            db.delete_with(&key, &buffered).unwrap();
            model.remove(&key);
        } else {
            let value =
                format!("{:0width$}", random.below(1 << 30), width = random.below(300) as usize);
            db.put_with(&key, &value, &buffered).unwrap();
            model.insert(key, value.into_bytes());
        }
    }
}

fn existing(setup: &Setup) -> Options {
    setup.options().create_if_missing(false)
}

/// A place beside the database.
fn beside(setup: &Setup, name: &str) -> PathBuf {
    setup.path().with_file_name(name)
}

fn open_and_compare(setup: &Setup, directory: &Path, model: &Model) -> Database {
    let db = Database::open_with(directory, existing(setup)).unwrap();
    db.verify().unwrap();
    assert!(collect(db.iter().unwrap()) == *model, "{} differs", directory.display());
    db
}

#[test]
fn a_checkpoint_is_linked_and_independent() {
    on_each_setup(|setup| {
        if !setup.is_persistent() {
            return;
        }
        let db = setup.open();
        let mut model = Model::new();
        work(&db, &mut model, 1, 8000);
        let directory = beside(setup, "checkpoint");
        let info = db.checkpoint(&directory).unwrap();
        assert!(info.files > 1 && info.copied == 0, "{info:?}");
        let linked = picture(&directory).into_keys().filter(|path| {
            path.extension().is_some_and(|extension| extension == "sst")
                && path.metadata().unwrap().nlink() == 2
        });
        assert!(linked.count() > 0, "tables share their space with the database");
        let (mut ours, mut theirs) = (model.clone(), model);
        work(&db, &mut ours, 2, 4000);
        let copy = open_and_compare(setup, &directory, &theirs);
        work(&copy, &mut theirs, 3, 4000);
        db.compact().unwrap();
        copy.compact().unwrap();
        db.close().unwrap();
        copy.close().unwrap();
        drop((db, copy));
        open_and_compare(setup, &setup.path(), &ours);
        open_and_compare(setup, &directory, &theirs);
        std::fs::remove_dir_all(&directory).unwrap();
        open_and_compare(setup, &setup.path(), &ours);
    });
}

#[test]
fn a_checkpoint_on_another_file_system_is_copied() {
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: /dev/shm cannot be written");
        return;
    };
    let setup = Setup::on_disk("disk", rustlite::IoBackend::Auto);
    if std::fs::metadata(setup.path().parent().unwrap()).unwrap().dev()
        == elsewhere.path().metadata().unwrap().dev()
    {
        println!("skipped: there is only one file system");
        return;
    }
    let db = setup.open();
    let mut model = Model::new();
    work(&db, &mut model, 5, 8000);
    let directory = elsewhere.path().join("checkpoint");
    let info = db.checkpoint(&directory).unwrap();
    assert!(info.files > 1 && info.copied == info.files, "{info:?}");
    db.close().unwrap();
    open_and_compare(&setup, &directory, &model);
}

#[test]
fn generations_are_restored_and_a_flipped_byte_is_named() {
    on_each_setup(|setup| {
        if !setup.is_persistent() {
            return;
        }
        let db = setup.open();
        let directory = beside(setup, "backup");
        let backup = Backup::open(&directory).unwrap();
        let mut model = Model::new();
        let mut moments = Vec::new();
        for seed in 0..4 {
            work(&db, &mut model, seed, 3000);
            moments.push((backup.create(&db).unwrap().generation, model.clone()));
        }
        backup.verify().unwrap();
        for (generation, moment) in &moments {
            let target = beside(setup, &format!("restored-{generation}"));
            backup.restore(*generation, &target).unwrap();
            open_and_compare(setup, &target, moment);
            assert_fails(
                backup.restore(*generation, &target),
                ErrorKind::AlreadyExists,
                &["restored-", "not empty"],
            );
        }
        assert_fails(
            backup.restore(4, setup.path()),
            ErrorKind::AlreadyExists,
            &["nothing was changed"],
        );
        let table = picture(&directory)
            .into_keys()
            .find(|path| path.extension().is_some_and(|extension| extension == "data"))
            .unwrap();
        let good = std::fs::read(&table).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 0x10;
        std::fs::write(&table, bad).unwrap();
        let name = table.file_name().unwrap().to_str().unwrap().to_owned();
        assert_fails(backup.verify(), ErrorKind::Corruption, &[&name]);
        let targets = (1..=4).map(|generation| {
            let target = beside(setup, &format!("damaged-{generation}"));
            (backup.restore(generation, &target), target)
        });
        let refused: Vec<_> = targets.filter(|(result, _)| result.is_err()).collect();
        assert!(!refused.is_empty(), "some generation needs the file");
        for (result, target) in refused {
            assert_fails(result, ErrorKind::Corruption, &[&name]);
            assert!(!target.exists(), "a refused restore leaves something");
        }
        std::fs::write(&table, good).unwrap();
        backup.verify().unwrap();
        assert_eq!(backup.retain(1).unwrap(), [1, 2, 3]);
        let target = beside(setup, "latest");
        assert_eq!(backup.restore_latest(&target).unwrap(), 4);
        open_and_compare(setup, &target, &model);
    });
}

#[test]
fn backups_while_one_thread_writes_hold_a_prefix_of_its_writes() {
    let setup = Setup::on_disk("disk", rustlite::IoBackend::Auto);
    let db = setup.open_with(setup.options().durability(Durability::Buffered));
    let backup = Backup::open(beside(&setup, "backup")).unwrap();
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut count = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                db.put(count.to_be_bytes(), vec![count as u8; 200]).unwrap();
                count += 1;
                if count.is_multiple_of(16) {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
            count
        });
        for round in 0..6 {
            std::thread::sleep(std::time::Duration::from_millis(30));
            let before = db.iter().unwrap().count();
            let info = backup.create(&db).unwrap();
            let target = beside(&setup, &format!("restored-{round}"));
            backup.restore(info.generation, &target).unwrap();
            let copy = Database::open_with(&target, existing(&setup)).unwrap();
            let found = collect(copy.iter().unwrap());
            assert!(found.len() >= before, "{} of at least {before} writes", found.len());
            for (number, (key, value)) in found.iter().enumerate() {
                assert_eq!(*key, (number as u32).to_be_bytes(), "a hole in the writes");
                assert_eq!(*value, vec![number as u8; 200]);
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert_eq!(db.iter().unwrap().count(), written as usize);
    backup.verify().unwrap();
}

#[test]
fn an_ingest_on_real_files_is_there_after_reopening_and_in_backups() {
    on_each_setup(|setup| {
        let db = setup.open();
        let mut model = Model::new();
        work(&db, &mut model, 11, 3000);
        let items: Model = (0..4000_u32)
            .map(|number| (format!("key {:05}", number * 2).into_bytes(), vec![b'i'; 90]))
            .collect();
        let info = db.ingest(&items).unwrap();
        assert!(info.tables > 3 && info.records == 4000, "{info:?}");
        model.extend(items);
        assert!(collect(db.iter().unwrap()) == model);
        work(&db, &mut model, 12, 3000);
        assert!(collect(db.iter().unwrap()) == model);
        if !setup.is_persistent() {
            return;
        }
        let backup = Backup::open(beside(setup, "backup")).unwrap();
        backup.create(&db).unwrap();
        db.close().unwrap();
        drop(db);
        open_and_compare(setup, &setup.path(), &model);
        backup.restore_latest(beside(setup, "restored")).unwrap();
        open_and_compare(setup, &beside(setup, "restored"), &model);
    });
}
