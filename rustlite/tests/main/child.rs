//! Runs parts of tests in processes of their own: this very binary, started again, with a role.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the role that a child process plays.
const ROLE: &str = "RUSTLITE_TEST_ROLE";

/// The directory that a child process works in.
const DIRECTORY: &str = "RUSTLITE_TEST_DIRECTORY";

/// A command that runs `role` on `directory`; `launcher` is put in front of it, such as a tracer.
pub(crate) fn command(launcher: &[&OsStr], role: &str, directory: &Path) -> Command {
    let program = std::env::current_exe().unwrap();
    let words: Vec<&OsStr> = launcher.iter().copied().chain([program.as_os_str()]).collect();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["--exact", "child::the_child_process_plays_its_role", "--nocapture"])
        .args(["--test-threads", "1"])
        .env(ROLE, role)
        .env(DIRECTORY, directory);
    command
}

/// Does nothing, unless a test has started this process to play a role.
#[test]
fn the_child_process_plays_its_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    match role.as_str() {
        "hold the lock" => crate::errors::hold_the_lock(&directory),
        "run the bank until killed" => crate::bank::run_until_killed(&directory),
        "build an index until killed" => crate::index_build::build_until_killed(&directory),
        "write until killed" => crate::kill::write_until_killed(&directory),
        "fill the disk" => crate::medium::fill_the_disk(&directory),
        "open on a full disk" => crate::medium::open_on_a_full_disk(&directory),
        "keep commits in flight until killed" => crate::in_flight::commit_until_killed(&directory),
        "make many tables" => crate::limits::make_many_tables(&directory),
        "use a read-only medium" => crate::medium::use_a_read_only_medium(&directory),
        "commit alone" => crate::system_calls::commit_alone(&directory),
        "commit in groups" => crate::system_calls::commit_in_groups(&directory),
        "get what is cached" => crate::system_calls::get_what_is_cached(&directory),
        other => panic!("there is no role {other:?}"),
    }
}
