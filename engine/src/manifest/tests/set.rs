//! Applying edits: what is durable when, after crashes, failures and full disks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rustlite_io::{CrashPlan, FaultRule, FileSystem, SimFileSystem};

use super::{Random, files, meta};
use crate::error::{ErrorKind, Result};
use crate::file_name::{FileName, FileNumber};
use crate::index::definition::{IndexDefinition, IndexSource, IndexType};
use crate::key::KeyspaceId;
use crate::limits::KEY_BYTES_MAX;
use crate::manifest::state::Facts;
use crate::manifest::{DirectoryContent, ManifestReader, VersionEdit, VersionSet};
use crate::options::{Compression, KeyspaceOptions};
use crate::sstable::meta::TableMeta;

const DIRECTORY: &str = "/db";

pub(super) fn create(fs: &Arc<SimFileSystem>) -> Result<VersionSet<()>> {
    let fs = Arc::clone(fs) as Arc<dyn FileSystem>;
    VersionSet::create(fs, Path::new(DIRECTORY), KeyspaceOptions::new(), &files())
}

pub(super) fn reopen(fs: &Arc<SimFileSystem>) -> Result<VersionSet<()>> {
    let directory = Path::new(DIRECTORY);
    let state = ManifestReader::read(&**fs, directory)?;
    let world = Arc::clone(fs) as Arc<dyn FileSystem>;
    VersionSet::recover(world, directory, state, true, &files(), |meta| {
        let path = FileName::Table(meta.number).path(directory);
        fs.open(&path, rustlite_io::OpenMode::Read)?;
        Ok(Arc::new(()))
    })
}

pub(super) fn names(fs: &SimFileSystem) -> Vec<String> {
    fs.list(Path::new(DIRECTORY)).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// Writes a table file durably, as a flush does, and adds it to level 0.
pub(super) fn add_table(
    fs: &SimFileSystem,
    set: &VersionSet<()>,
    index: u64,
) -> Result<FileNumber> {
    let pending = set.new_table();
    let number = pending.number();
    let text = format!("{index:04}");
    add(fs, set, meta(number, &text, &text, (index + 1, index + 1)))?;
    Ok(number)
}

fn write_file(fs: &SimFileSystem, number: FileNumber) -> Result<()> {
    let path = FileName::Table(number).path(Path::new(DIRECTORY));
    let file = fs.create(&path)?;
    file.write_all_at(0, b"table")?;
    file.sync_data()?;
    Ok(fs.sync_dir(Path::new(DIRECTORY))?)
}

fn add(fs: &SimFileSystem, set: &VersionSet<()>, table: TableMeta) -> Result<()> {
    write_file(fs, table.number)?;
    let edit = VersionEdit {
        log_start: Some(table.largest_sequence * 10),
        last_sequence: Some(table.largest_sequence),
        added: vec![(0, table)],
        ..VersionEdit::default()
    };
    set.apply(edit, vec![Arc::new(())]).map(drop)
}

/// Everything that must survive, in a form to compare.
fn facts(set: &VersionSet<()>) -> (BTreeMap<FileNumber, usize>, u64, u64, Vec<String>) {
    let tables = set.current().tables().map(|(level, table)| (table.number(), level)).collect();
    let keyspaces = set.keyspaces().into_iter().map(|keyspace| keyspace.name).collect();
    (tables, set.log_start(), set.last_sequence(), keyspaces)
}

fn new_file_system(seed: u64) -> Arc<SimFileSystem> {
    let fs = SimFileSystem::new(seed);
    fs.create_dir_all(Path::new("/")).unwrap();
    fs.create_dir_all(Path::new(DIRECTORY)).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

#[test]
fn reopening_finds_tables_keyspaces_and_counters_again() {
    let fs = new_file_system(1);
    let set = create(&fs).unwrap();
    let options = KeyspaceOptions::new().compression(Compression::Lz4).block_bytes(8192);
    let users = set.create_keyspace("users", options).unwrap();
    add_table(&fs, &set, 1).unwrap();
    let moved = add_table(&fs, &set, 2).unwrap();
    let facts_of_table =
        set.current().level_tables(0).find(|table| table.number() == moved).unwrap().meta.clone();
    let edit = VersionEdit {
        removed: vec![(0, moved)],
        added: vec![(6, facts_of_table)],
        ..VersionEdit::default()
    };
    set.apply(edit, Vec::new()).unwrap();
    let before = facts(&set);
    let next = set.new_file_number();
    for _ in 0..3 {
        let again = reopen(&fs).unwrap();
        assert_eq!(facts(&again), before);
        assert_eq!(again.keyspace_named("users"), Some(users.clone()));
        assert_eq!(again.database_id(), set.database_id());
        assert!(again.new_file_number() >= next);
    }
    let manifests = names(&fs).iter().filter(|name| name.starts_with("MANIFEST")).count();
    assert_eq!(manifests, 1, "reopening removes the manifest that it replaces");
}

#[test]
fn an_index_is_hidden_and_goes_with_its_keyspace() {
    let fs = new_file_system(3);
    let set = create(&fs).unwrap();
    let rows = set.create_keyspace("rows", KeyspaceOptions::new()).unwrap();
    let definition = |keyspace| IndexDefinition {
        keyspace,
        index_type: IndexType::Hash,
        unique: true,
        source: IndexSource::extractor("code"),
    };
    let index = set.create_index("rows", definition(rows.id)).unwrap();
    assert_eq!(set.keyspace_named("rows"), Some(rows.clone()), "their names are not in the way");
    let error = |name, keyspace| set.create_index(name, definition(keyspace)).unwrap_err().kind();
    assert_eq!(error("rows", rows.id), ErrorKind::IndexExists);
    assert_eq!(error("a\0b", rows.id), ErrorKind::InvalidArgument);
    assert_eq!(error("other", KeyspaceId(77)), ErrorKind::KeyspaceNotFound);
    let again = reopen(&fs).unwrap();
    assert_eq!(again.keyspace(index.id), Some(index.clone()));
    assert_eq!(again.keyspace_named("rows"), Some(rows.clone()));
    let mut facts = Facts::default();
    let create = [rows.clone(), index.clone()].to_vec();
    facts.apply(&VersionEdit { keyspaces_created: create, ..VersionEdit::default() }).unwrap();
    let alone = VersionEdit { keyspaces_dropped: vec![rows.id], ..VersionEdit::default() };
    assert!(facts.apply(&alone).unwrap_err().contains("still has index"));
    again.drop_keyspace(rows.id, |_| ()).unwrap();
    let last = reopen(&fs).unwrap();
    assert_eq!((last.keyspace(rows.id), last.keyspace(index.id)), (None, None));
}

#[test]
fn a_trivial_move_keeps_the_reader_and_the_file() {
    let fs = new_file_system(2);
    let set = create(&fs).unwrap();
    let number = add_table(&fs, &set, 1).unwrap();
    let before = Arc::clone(set.current().level_tables(0).next().unwrap());
    let edit = VersionEdit {
        removed: vec![(0, number)],
        added: vec![(3, before.meta.clone())],
        ..VersionEdit::default()
    };
    let version = set.apply(edit, Vec::new()).unwrap();
    assert!(Arc::ptr_eq(version.level_tables(3).next().unwrap(), &before));
    drop((version, before));
    assert_eq!(set.remove_obsolete().unwrap(), 0);
    assert!(names(&fs).contains(&format!("{number:06}.sst")));
}

#[test]
fn keyspace_names_are_unique_and_ids_never_used_again() {
    let fs = new_file_system(3);
    let set = create(&fs).unwrap();
    let first = set.create_keyspace("a", KeyspaceOptions::new()).unwrap();
    assert_eq!(set.create_keyspace("a", KeyspaceOptions::new()).unwrap(), first);
    let other = set.create_keyspace("a", KeyspaceOptions::new().block_bytes(1024)).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::KeyspaceExists);
    assert!(set.create_keyspace("", KeyspaceOptions::new()).is_err());
    set.drop_keyspace(first.id, |_| ()).unwrap();
    assert_eq!(
        set.drop_keyspace(first.id, |_| ()).unwrap_err().kind(),
        ErrorKind::KeyspaceNotFound
    );
    assert!(set.drop_keyspace(KeyspaceId::DEFAULT, |_| ()).is_err());
    let set = reopen(&fs).unwrap();
    let second = set.create_keyspace("a", KeyspaceOptions::new()).unwrap();
    assert!(second.id > first.id);
}

#[test]
fn what_a_job_wrote_for_a_keyspace_dropped_meanwhile_does_not_come_back() {
    let fs = new_file_system(4);
    let set = create(&fs).unwrap();
    let doomed = set.create_keyspace("doomed", KeyspaceOptions::new()).unwrap().id;
    let table = |number| {
        let bound = [&doomed.prefix()[..], b"k"].concat();
        TableMeta { smallest: bound.clone(), largest: bound, ..meta(number, "", "", (1, 1)) }
    };
    let (input, output) = (set.new_table(), set.new_table());
    add(&fs, &set, table(input.number())).unwrap();
    let kept = add_table(&fs, &set, 9).unwrap();
    set.drop_keyspace(doomed, |version| assert_eq!(version.tables().count(), 1)).unwrap();
    write_file(&fs, output.number()).unwrap();
    let edit = VersionEdit {
        removed: vec![(0, input.number())],
        added: vec![(6, table(output.number()))],
        ..VersionEdit::default()
    };
    let version = set.apply(edit, vec![Arc::new(())]).unwrap();
    assert_eq!(version.tables().map(|(_, table)| table.number()).collect::<Vec<_>>(), [kept]);
    drop(version);
    assert_eq!(set.remove_obsolete().unwrap(), 2);
    assert_eq!(facts(&reopen(&fs).unwrap()), facts(&set));
}

#[test]
fn a_long_manifest_is_replaced_by_a_short_one() {
    let fs = new_file_system(5);
    let set = create(&fs).unwrap();
    let long = "x".repeat(KEY_BYTES_MAX);
    let mut table = meta(set.new_file_number(), "", "", (1, 1));
    table.smallest.extend_from_slice(long.as_bytes());
    table.largest.clone_from(&table.smallest);
    add(&fs, &set, table.clone()).unwrap();
    for step in 0..100 {
        let edit = VersionEdit {
            removed: vec![(step % 7, table.number)],
            added: vec![((step + 1) % 7, table.clone())],
            ..VersionEdit::default()
        };
        set.apply(edit, Vec::new()).unwrap();
    }
    let manifests: Vec<_> =
        names(&fs).into_iter().filter(|name| name.starts_with("MANIFEST")).collect();
    assert_eq!(manifests.len(), 1, "{manifests:?}");
    assert_ne!(manifests[0], "MANIFEST-000001");
    let len = fs.read_file(Path::new(DIRECTORY).join(&manifests[0])).unwrap().len();
    assert!(len < 5 << 20, "{len}");
    assert_eq!(facts(&reopen(&fs).unwrap()), facts(&set));
}

#[test]
fn after_a_failed_sync_nothing_is_written_until_reopening() {
    let fs = new_file_system(6);
    let set = create(&fs).unwrap();
    add_table(&fs, &set, 1).unwrap();
    fs.add_fault(FaultRule::parse("sync MANIFEST-* nth=1 error=EIO").unwrap());
    let before = facts(&set);
    assert_eq!(add_table(&fs, &set, 2).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(add_table(&fs, &set, 3).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(facts(&set), before, "nobody sees an edit that failed");
    assert!(set.remove_orphans().unwrap().is_empty(), "the manifest may name their files");
    let again = reopen(&fs).unwrap();
    assert!(facts(&again).0.len() >= before.0.len());
    add_table(&fs, &again, 4).unwrap();
}

#[test]
fn an_edit_that_a_full_disk_has_no_room_for_is_not_there_after_any_crash_and_the_next_one_works() {
    let mut random = Random::from_environment();
    for (round, rule) in ["write", "short", "sync"].iter().cycle().take(60).enumerate() {
        let fs = new_file_system(round as u64);
        let set = create(&fs).unwrap();
        add_table(&fs, &set, 1).unwrap();
        let before = facts(&set);
        fs.add_fault(FaultRule::parse(&format!("{rule} MANIFEST-* error=ENOSPC")).unwrap());
        assert_eq!(add_table(&fs, &set, 2).unwrap_err().kind(), ErrorKind::DiskFull, "{rule}");
        assert!(set.failure().is_none(), "{rule}");
        assert_eq!(facts(&set), before, "{rule}");
        let go_on = random.next().is_multiple_of(2);
        if go_on {
            add_table(&fs, &set, 3).unwrap();
            let orphans = set.remove_orphans().unwrap();
            assert_eq!(orphans.len(), 1, "{rule}: the table of the failed edit");
            assert_eq!(set.current().tables().count(), 2, "{rule}");
        }
        let plans = [CrashPlan::DropUnsynced, CrashPlan::KeepAll, CrashPlan::Random(random.next())];
        let plan = &plans[random.next() as usize % plans.len()];
        let survivor = fs.crash(plan);
        assert_eq!(facts(&reopen(&survivor).unwrap()), facts(&set), "{rule}, {go_on}, {plan:?}");
    }
}

#[test]
fn an_edit_that_cannot_be_cut_off_again_stops_all_and_does_not_promise_to_go_on() {
    for rule in ["write MANIFEST-* sticky error=ENOSPC", "sync MANIFEST-* sticky error=ENOSPC"] {
        let fs = new_file_system(7);
        let set = create(&fs).unwrap();
        add_table(&fs, &set, 1).unwrap();
        fs.add_fault(FaultRule::parse(rule).unwrap());
        let failed = add_table(&fs, &set, 2).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Poisoned, "{rule}: {failed}");
        assert!(failed.to_string().contains("MANIFEST-"), "{rule}: the cause is named: {failed}");
        fs.clear_faults();
        assert_eq!(add_table(&fs, &set, 3).unwrap_err().kind(), ErrorKind::Poisoned, "{rule}");
        assert!(set.failure().is_some(), "{rule}");
        assert!(set.remove_orphans().unwrap().is_empty(), "the manifest may name their files");
        add_table(&fs, &reopen(&fs).unwrap(), 4).unwrap();
    }
}

/// A workload with every kind of edit; pushes what is acknowledged before and after each step.
fn workload(fs: &Arc<SimFileSystem>, history: &mut Vec<Vec<FileNumber>>) -> Result<()> {
    let tables =
        |set: &VersionSet<()>| set.current().tables().map(|(_, table)| table.number()).collect();
    let set = create(fs)?;
    history.push(tables(&set));
    for index in 0..3 {
        // What the edit will add is known before it is durable: a crash may keep it.
        add_table(fs, &set, index)?;
        history.push(tables(&set));
    }
    drop(set);
    let set = reopen(fs)?;
    let oldest = history.last().and_then(|tables| tables.first().copied()).unwrap_or_default();
    set.apply(VersionEdit { removed: vec![(0, oldest)], ..VersionEdit::default() }, Vec::new())?;
    history.push(tables(&set));
    set.remove_obsolete()?;
    set.remove_orphans()?;
    add_table(fs, &set, 7)?;
    history.push(tables(&set));
    Ok(())
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_acknowledged_state_or_the_one_being_written() {
    let mut random = Random::from_environment();
    let seed = random.next();
    let fs = new_file_system(seed);
    let begin = fs.op_count();
    let mut complete = Vec::new();
    workload(&fs, &mut complete).unwrap();
    let operations = fs.op_count() - begin;
    for at in 0..operations {
        let random_plans = (0..8).map(|_| CrashPlan::Random(random.next()));
        let plans = [CrashPlan::DropUnsynced, CrashPlan::KeepAll].into_iter().chain(random_plans);
        for plan in plans.collect::<Vec<_>>() {
            let fs = new_file_system(seed);
            fs.cut_power_at(begin + at);
            let mut history = Vec::new();
            let cut = workload(&fs, &mut history);
            if cut.is_ok() {
                continue;
            }
            let survivor = fs.crash(&plan);
            let acknowledged = history.len();
            let found = match reopen(&survivor) {
                Ok(set) => {
                    set.current().tables().map(|(_, table)| table.number()).collect::<Vec<_>>()
                }
                Err(error) => {
                    let content = DirectoryContent::of(&*survivor, Path::new(DIRECTORY)).unwrap();
                    assert!(acknowledged == 0, "cut at {at}, {plan:?}: {error}");
                    assert_eq!(
                        content,
                        DirectoryContent::Creatable,
                        "cut at {at}, {plan:?}: {error}"
                    );
                    create(&survivor).unwrap();
                    continue;
                }
            };
            let allowed =
                &complete[acknowledged.saturating_sub(1)..(acknowledged + 1).min(complete.len())];
            assert!(allowed.contains(&found), "cut at {at}, {plan:?}: {found:?}, not {allowed:?}");
        }
    }
}

#[test]
fn current_never_names_a_manifest_that_a_power_cut_can_take_away() {
    let mut random = Random::from_environment();
    let first = new_file_system(1).op_count();
    for at in first.. {
        let mut complete = false;
        for _ in 0..40 {
            let fs = new_file_system(random.next());
            fs.cut_power_at(at);
            complete = create(&fs).is_ok();
            let survivor = fs.crash(&CrashPlan::Random(random.next()));
            let content = DirectoryContent::of(&*survivor, Path::new(DIRECTORY)).unwrap();
            if complete || content != DirectoryContent::Creatable {
                reopen(&survivor).unwrap_or_else(|error| panic!("cut at {at}: {error}"));
            }
        }
        if complete {
            return;
        }
    }
}
