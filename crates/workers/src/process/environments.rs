//! The list of the environments that were made from files of requirements, and their removal.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use litplex_dirs::Cache;
use rustix::fs::{FlockOperation, flock};

use super::lock::{note_holder, open_lock};

/// The directory of environments in the cache.
pub(super) const NAME: &str = "venvs";

/// The mark of a complete environment; it names the file of requirements.
pub(super) const MARK: &str = "litplex-ready";

/// An environment in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The name, a digest of the requirements and the interpreter.
    pub key: String,
    /// The directory.
    pub directory: PathBuf,
    /// The file that it was first made from; `None` if it is not complete.
    pub requirements: Option<PathBuf>,
    /// The bytes on the disk, with files that other environments share.
    pub bytes: u64,
    /// When a worker was last started in the environment.
    pub last_used: Option<SystemTime>,
    /// Whether a running server uses the environment.
    pub is_in_use: bool,
}

/// Returns the environments, by their names.
///
/// # Errors
/// The cache cannot be read.
pub fn environments(cache: &Cache) -> io::Result<Vec<Environment>> {
    let venvs = cache.root().join(NAME);
    let entries = match fs::read_dir(&venvs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found: Vec<_> = entries.flatten().filter_map(|entry| look_at(&entry.path())).collect();
    found.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(found)
}

fn look_at(directory: &Path) -> Option<Environment> {
    if !fs::symlink_metadata(directory).ok()?.is_dir() {
        return None;
    }
    let used = used_by(directory);
    let is_free = File::open(&used).is_ok_and(|file| is_unlocked(&file));
    Some(Environment {
        key: directory.file_name()?.to_str()?.to_owned(),
        directory: directory.to_owned(),
        requirements: fs::read_to_string(directory.join(MARK)).ok().map(PathBuf::from),
        bytes: size_of(directory),
        last_used: fs::metadata(&used).and_then(|found| found.modified()).ok(),
        is_in_use: used.exists() && !is_free,
    })
}

/// Removes an environment, unless a server uses or makes the environment. Returns whether it is gone.
///
/// # Errors
/// The system refuses.
pub fn remove_environment(environment: &Environment) -> io::Result<bool> {
    let (used, lock) = (used_by(&environment.directory), lock_of(&environment.directory));
    let locks = [open_lock(&used)?, open_lock(&lock)?];
    if !locks.iter().all(take) {
        return Ok(false);
    }
    locks.iter().for_each(note_holder);
    fs::remove_dir_all(&environment.directory)?;
    // A process that waits for a lock checks that its file still has this name.
    fs::remove_file(lock)?;
    fs::remove_file(used)?;
    Ok(true)
}

/// Returns the file whose shared lock the users of an environment hold.
pub(super) fn used_by(directory: &Path) -> PathBuf {
    directory.with_extension("used")
}

/// Returns the file whose lock the maker of an environment holds.
pub(super) fn lock_of(directory: &Path) -> PathBuf {
    directory.with_extension("lock")
}

fn take(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn is_unlocked(file: &File) -> bool {
    take(file) && flock(file, FlockOperation::Unlock).is_ok()
}

fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_of(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}
