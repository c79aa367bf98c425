use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// How often it is looked whether files have changed. They are new once two looks agree, so that
/// files that are written one after the other are read together, and none half written.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Files that are read again when they change.
#[derive(Debug)]
pub struct WatchedFiles {
    files: Arc<[PathBuf]>,
    watched: Watched,
}

impl WatchedFiles {
    /// Looks at these files. They should be read after that: what changes meanwhile is seen to
    /// differ later.
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let files: Arc<[PathBuf]> = files.into_iter().collect();
        let watched = Watched::new(look(&files));
        Self { files, watched }
    }

    /// Resolves once there is something new that no longer changes.
    pub async fn changed(&mut self) {
        loop {
            sleep(LOOK_INTERVAL).await;
            let files = self.files.clone();
            let seen = spawn_blocking(move || look(&files)).await;
            if seen.is_ok_and(|seen| self.watched.is_due(seen)) {
                return;
            }
        }
    }
}

fn look(files: &[PathBuf]) -> Seen {
    files.iter().map(|file| Stamp::of(file)).collect()
}

/// What can be seen of files without reading them; nothing of one that is not there.
type Seen = Vec<Option<Stamp>>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    /// Another where a link points elsewhere, whatever the rest says.
    file: (u64, u64),
    modified: (i64, i64),
    size: u64,
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let of = fs::metadata(file).ok()?;
        let (file, modified) = ((of.dev(), of.ino()), (of.mtime(), of.mtime_nsec()));
        Some(Self { file, modified, size: of.size() })
    }
}

/// Decides when files are read again.
#[derive(Debug)]
struct Watched {
    /// What was read last, whether or not it could be used.
    tried: Seen,
    last: Seen,
}

impl Watched {
    fn new(seen: Seen) -> Self {
        Self { tried: seen.clone(), last: seen }
    }

    /// Tells whether there is something new that no longer changes.
    fn is_due(&mut self, seen: Seen) -> bool {
        let is_settled = seen == self.last;
        self.last = seen;
        let is_due = is_settled && self.last != self.tried;
        if is_due {
            self.tried.clone_from(&self.last);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(modified: i64) -> Option<Stamp> {
        Some(Stamp { file: (1, 1), modified: (modified, 0), size: 9 })
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
