//! Cleans up when the user has seen enough: a measurement stopped with Ctrl-C or `kill` doesn't
//! leave gigabytes behind.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The temporary directory to remove, if there is one.
static TEMPORARY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Set as soon as a signal has come: what fails from then on fails because of it.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What a shell expects of a program that ended because of Ctrl-C.
const EXIT_CODE: i32 = 130;

/// Names the directory to remove when a signal ends this process, and installs the handler. A
/// process that can't have one works all the same, it is only less tidy when interrupted.
pub fn remove_on_signal(directory: &Path) {
    *TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory.to_path_buf());
    // Fails if the handler is there already, which is as good.
    let _ = ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        let directory = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(directory) = directory {
            remove(&directory);
        }
        std::process::exit(EXIT_CODE);
    });
}

/// Leaves the end of an interrupted process to the handler, which is about to come to it: the
/// errors of steps whose files it has removed are of no interest to anybody.
pub fn wait_if_interrupted() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Removes the directory, also while a worker process that got no signal goes on creating files in
/// it: it notices within a fraction of a second that its parent is gone, and files that it still
/// has open take no space once it ends.
fn remove(directory: &Path) {
    const TRIES: usize = 20;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
    for _ in 0..TRIES {
        if std::fs::remove_dir_all(directory).is_ok() || !directory.exists() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}
