//! Files that are read again when they change, found by polling their metadata.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// The poll interval. A change counts once two polls agree, so that files that are written one after
/// the other are read together, and no file is read half written.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The number of polls after which files are read although they still change. What is half written
/// then is read again later.
const MAX_POLLS: u32 = 5;

/// Files that are read again when they change.
#[derive(Debug)]
pub struct WatchedFiles {
    files: Arc<[PathBuf]>,
    watched: Watched,
}

impl WatchedFiles {
    /// Records the state of these files. Read them after that: a change in between is then noticed
    /// later.
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let files: Arc<[PathBuf]> = files.into_iter().collect();
        let watched = Watched::new(stamps(&files));
        Self { files, watched }
    }

    /// Resolves once a file has changed and no file changes any more, or after `MAX_POLLS`.
    pub async fn changed(&mut self) {
        loop {
            sleep(POLL_INTERVAL).await;
            let files = self.files.clone();
            let seen = spawn_blocking(move || stamps(&files)).await;
            if seen.is_ok_and(|seen| self.watched.is_due(seen)) {
                return;
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Stamps {
    files.iter().map(|file| Stamp::read(file)).collect()
}

/// The metadata of files; `None` for a missing one.
type Stamps = Vec<Option<Stamp>>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    /// The device and inode: they differ when a link points elsewhere.
    file: (u64, u64),
    modified: (i64, i64),
    /// The change of the inode, which a program cannot set: copies may keep the other time.
    changed: (i64, i64),
    size: u64,
}

impl Stamp {
    fn read(file: &Path) -> Option<Self> {
        let found = fs::metadata(file).ok()?;
        let file = (found.dev(), found.ino());
        let modified = (found.mtime(), found.mtime_nsec());
        let changed = (found.ctime(), found.ctime_nsec());
        Some(Self { file, modified, changed, size: found.size() })
    }
}

/// The decision when files are read again.
#[derive(Debug)]
struct Watched {
    /// The files that were read last, usable or not.
    tried: Stamps,
    last: Stamps,
    /// The polls since the files began to differ from those read last.
    polls: u32,
}

impl Watched {
    fn new(seen: Stamps) -> Self {
        Self { tried: seen.clone(), last: seen, polls: 0 }
    }

    /// Returns whether the files differ from those read last, and from the last poll no more, or have
    /// changed at each of several polls.
    fn is_due(&mut self, seen: Stamps) -> bool {
        let is_settled = seen == self.last;
        self.last = seen;
        self.polls = if self.last == self.tried { 0 } else { self.polls + 1 };
        let is_due = self.polls > 0 && (is_settled || self.polls >= MAX_POLLS);
        if is_due {
            self.polls = 0;
            self.tried.clone_from(&self.last);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(modified: i64) -> Option<Stamp> {
        Some(Stamp { file: (1, 1), modified: (modified, 0), changed: (modified, 0), size: 9 })
    }

    #[test]
    fn files_are_read_once_they_have_changed_and_settled() {
        let mut watched = Watched::new(vec![stamp(1), stamp(1)]);
        assert!(!watched.is_due(vec![stamp(1), stamp(1)]), "nothing is new");
        assert!(!watched.is_due(vec![stamp(2), stamp(1)]), "the key may come yet");
        assert!(!watched.is_due(vec![stamp(2), stamp(2)]));
        assert!(watched.is_due(vec![stamp(2), stamp(2)]));
        assert!(!watched.is_due(vec![stamp(2), stamp(2)]), "once");
    }

    #[test]
    fn files_that_always_change_are_read_now_and_then() {
        let mut watched = Watched::new(vec![stamp(0)]);
        let due: Vec<_> = (1..=11).filter(|now| watched.is_due(vec![stamp(*now)])).collect();
        assert_eq!(due, [5, 10]);
    }

    #[test]
    fn a_write_that_keeps_time_and_size_is_a_change() {
        let written = Some(Stamp { changed: (2, 0), ..stamp(1).unwrap() });
        let mut watched = Watched::new(vec![stamp(1)]);
        assert!(!watched.is_due(vec![written.clone()]));
        assert!(watched.is_due(vec![written]));
    }

    #[test]
    fn a_file_that_comes_back_as_it_was_is_read_again() {
        let mut watched = Watched::new(vec![stamp(1)]);
        assert!(!watched.is_due(vec![None]));
        assert!(watched.is_due(vec![None]), "it cannot be read, and is warned of");
        assert!(!watched.is_due(vec![stamp(1)]));
        assert!(watched.is_due(vec![stamp(1)]));
    }

    #[test]
    fn a_file_that_is_away_for_a_moment_is_not_noticed() {
        let mut watched = Watched::new(vec![stamp(1)]);
        assert!(!watched.is_due(vec![None]));
        assert!(!watched.is_due(vec![stamp(1)]));
        assert!(!watched.is_due(vec![stamp(1)]));
    }

    #[test]
    fn a_link_that_points_elsewhere_is_a_change() {
        let elsewhere = Some(Stamp { file: (1, 2), ..stamp(1).unwrap() });
        let mut watched = Watched::new(vec![stamp(1)]);
        assert!(!watched.is_due(vec![elsewhere.clone()]));
        assert!(watched.is_due(vec![elsewhere]));
    }
}
