//! Locks on environments in the cache: files that processes lock, with the id of the holder.
//!
//! The system releases a lock when its holder ends, so a lock is never left behind.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

/// The environment variable with the longest wait for a lock, in seconds.
pub(super) const TIMEOUT_VARIABLE: &str = "LITPLEX_LOCK_TIMEOUT";

/// The default of the longest wait: an environment with large packages takes minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// The time between two attempts.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The reason why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// The file of the lock cannot be opened.
    #[error("`{path}`: {source}", path = .path.display())]
    Open { path: PathBuf, source: io::Error },
    /// Another process held the lock for too long.
    #[error(
        "`{path}` is still locked by {holder} after {seconds} s; end that process, or set \
         `{TIMEOUT_VARIABLE}` to more seconds",
        path = .path.display()
    )]
    Timeout { path: PathBuf, holder: String, seconds: u64 },
    /// The value of the variable is not a number.
    #[error("invalid `{TIMEOUT_VARIABLE}`: expected a number of seconds, got `{0}`")]
    Variable(String),
}

/// Returns the longest wait that the environment variable chooses.
pub(super) fn timeout_from_env() -> Result<Duration, LockError> {
    let Some(value) = std::env::var_os(TIMEOUT_VARIABLE) else { return Ok(DEFAULT_TIMEOUT) };
    let value = value.to_string_lossy();
    parse_timeout(&value).ok_or_else(|| LockError::Variable(value.into_owned()))
}

fn parse_timeout(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Waits for the lock on a file. `on_wait` is called once with the holder, if there is a wait.
pub(super) async fn lock(
    path: &Path,
    how: FlockOperation,
    limit: Duration,
    on_wait: impl FnOnce(&str),
) -> Result<File, LockError> {
    let deadline = Instant::now() + limit;
    let mut on_wait = Some(on_wait);
    loop {
        let file =
            open_lock(path).map_err(|source| LockError::Open { path: path.to_owned(), source })?;
        // The file may have been removed, with its environment, before it was locked.
        if flock(&file, how).is_ok() && is_current(&file, path) {
            if how == FlockOperation::NonBlockingLockExclusive {
                note_holder(&file);
            }
            return Ok(file);
        }
        if Instant::now() >= deadline {
            let (holder, seconds) = (holder(path), limit.as_secs());
            return Err(LockError::Timeout { path: path.to_owned(), holder, seconds });
        }
        if let Some(on_wait) = on_wait.take() {
            on_wait(&holder(path));
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Opens the file of a lock, and creates it if it does not exist.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// Writes the id of this process into a file that it has locked.
pub(super) fn note_holder(mut file: &File) {
    // The id is shown to those that wait; the lock holds without it.
    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
}

/// Returns the holder of a lock, for messages.
fn holder(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let pid: Option<u32> = text.trim().parse().ok();
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

/// Returns whether the file is still the one with this name.
fn is_current(file: &File, path: &Path) -> bool {
    let place = |found: fs::Metadata| (found.dev(), found.ino());
    file.metadata().ok().map(place) == fs::metadata(path).ok().map(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXCLUSIVE: FlockOperation = FlockOperation::NonBlockingLockExclusive;

    #[tokio::test(start_paused = true)]
    async fn a_wait_names_the_holder_and_ends_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        let (limit, mut waited) = (Duration::from_secs(20), None);
        let held = lock(&path, EXCLUSIVE, limit, |_| panic!("it is free")).await.unwrap();
        let begin = Instant::now();
        let note = |holder: &str| waited = Some(holder.to_owned());
        let error = lock(&path, EXCLUSIVE, limit, note).await.unwrap_err().to_string();
        let holder = format!("process {}", std::process::id());
        assert_eq!(waited.as_ref(), Some(&holder));
        assert!(begin.elapsed() >= limit, "{:?}", begin.elapsed());
        let end = format!(
            "is still locked by {holder} after 20 s; end that process, or set \
             `LITPLEX_LOCK_TIMEOUT` to more seconds"
        );
        assert!(error.ends_with(&end), "{error}");
        drop(held);
        // A process that another test forks at this moment holds the lock until it is executed.
        let a_day = Duration::from_secs(86_400);
        lock(&path, EXCLUSIVE, a_day, |_| ()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_follows_a_file_that_was_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        let limit = Duration::from_secs(20);
        let held = lock(&path, EXCLUSIVE, limit, |_| ()).await.unwrap();
        fs::remove_file(&path).unwrap();
        let file = lock(&path, EXCLUSIVE, limit, |_| panic!("it is another file")).await.unwrap();
        assert!(is_current(&file, &path) && !is_current(&held, &path));
    }

    #[test]
    fn a_timeout_is_a_number_of_seconds() {
        assert_eq!(parse_timeout(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(["", "soon", "-1", "1.5"].map(parse_timeout), [None; 4]);
    }
}
