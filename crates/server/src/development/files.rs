//! The contents of files that people edit, and what changes in them.
//!
//! Files are polled: that works alike for editors that replace files, on network file systems and in
//! mounts of containers, and a program has few files of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The age of a change from which an equal time means an equal file: file systems may count in seconds.
const SETTLED: Duration = Duration::from_secs(2);

/// The number of looks after which a missing file is gone. Editors replace files.
const GONE_LOOKS: u32 = 10;

/// The most names of files in a line of the log.
const NAMED: usize = 5;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The limits of a search for files.
const MAX_DEPTH: usize = 8;
const MAX_FOUND: usize = 2000;

/// The content of a file; `None` if it is gone.
pub(crate) type Content = Option<Arc<[u8]>>;

/// The polled files, as they were at the last look.
#[derive(Debug, Default)]
pub(crate) struct Files(BTreeMap<PathBuf, Known>);

/// Contents by path.
pub(crate) type Contents = BTreeMap<PathBuf, Content>;

/// The result of a look.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The files that earlier looks did not include.
    pub(crate) first: Contents,
    /// The files whose content is not that of the last look.
    pub(crate) changed: Contents,
}

impl Found {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.changed.is_empty()
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.first.extend(other.first);
        self.changed.extend(other.changed);
    }
}

#[derive(Debug)]
struct Known {
    stamp: Option<Stamp>,
    content: Content,
    /// The number of looks for which the file is missing.
    missing: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    /// The device and inode.
    file: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
}

impl Files {
    /// Looks at these files; others are forgotten.
    pub(crate) fn look(&mut self, paths: &BTreeSet<PathBuf>, now: SystemTime) -> Found {
        self.0.retain(|path, _| paths.contains(path));
        let mut found = Found::default();
        for path in paths {
            let is_first = !self.0.contains_key(path);
            if let Some(content) = self.look_at(path, now) {
                let of = if is_first { &mut found.first } else { &mut found.changed };
                of.insert(path.clone(), content);
            }
        }
        found
    }

    /// Returns the content of a file at the last look; `None` if it was not looked at, or was not there.
    pub(crate) fn content(&self, path: &Path) -> Content {
        self.0.get(path).and_then(|known| known.content.clone())
    }

    /// Returns the content of a file if it is another one.
    fn look_at(&mut self, path: &Path, now: SystemTime) -> Option<Content> {
        let read = read(path, self.0.get(path), now);
        let known = self.0.get_mut(path);
        match (read, known) {
            (Read::Same, _) => None,
            (Read::Missing, Some(known)) => {
                known.missing += 1;
                let is_gone = known.missing >= GONE_LOOKS && known.content.is_some();
                is_gone.then(|| {
                    (known.stamp, known.content) = (None, None);
                    None
                })
            }
            (Read::Missing, None) => {
                let missing = GONE_LOOKS;
                self.0.insert(path.to_owned(), Known { stamp: None, content: None, missing });
                None
            }
            (Read::Content(stamp, content), known) => {
                let before = known.and_then(|known| known.content.clone());
                let stamp = Some(stamp);
                let is_same = before.as_deref() == Some(&*content);
                let content = if is_same { before } else { Some(Arc::from(content)) };
                let known = Known { stamp, content: content.clone(), missing: 0 };
                self.0.insert(path.to_owned(), known);
                (!is_same).then_some(content)
            }
        }
    }
}

enum Read {
    Same,
    Missing,
    Content(Stamp, Vec<u8>),
}

fn read(path: &Path, known: Option<&Known>, now: SystemTime) -> Read {
    let Ok(found) = fs::metadata(path) else { return Read::Missing };
    let stamp = Stamp {
        file: (found.dev(), found.ino()),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
        size: found.size(),
    };
    let is_settled = found
        .modified()
        .is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > SETTLED));
    if is_settled && known.is_some_and(|known| known.stamp.as_ref() == Some(&stamp)) {
        return Read::Same;
    }
    match fs::read(path) {
        Ok(content) if found.size() <= MAX_BYTES => Read::Content(stamp, content),
        _ => Read::Missing,
    }
}

/// Returns the Python and TOML files in a directory and those below it, without virtual environments and
/// hidden directories.
pub(crate) fn sources_below(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    collect(directory, 0, &mut found);
    found
}

fn collect(directory: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    let is_environment = directory.join("pyvenv.cfg").exists();
    if depth > MAX_DEPTH || (is_environment && depth > 0) {
        return;
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        if found.len() >= MAX_FOUND {
            return;
        }
        let (path, name) = (entry.path(), entry.file_name());
        let is_passed_over = [".", "__pycache__", "node_modules", "site-packages"]
            .iter()
            .any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()));
        if is_passed_over {
            continue;
        }
        // Links to directories may lead back.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, depth + 1, found);
        } else if path.extension().is_some_and(|it| it == "py" || it == "toml") {
            found.insert(path);
        }
    }
}

/// Blocks until a file that a program may be made of changes, or has changed since a time.
pub fn wait_for_change(program: &Path, since: SystemTime) {
    const LOOK: Duration = Duration::from_millis(50);
    let directory = directory_of(program);
    let paths = || {
        let mut paths = sources_below(&directory);
        paths.insert(program.to_owned());
        paths
    };
    let is_newer = |path: &PathBuf| {
        fs::metadata(path).and_then(|found| found.modified()).is_ok_and(|at| at > since)
    };
    let mut files = Files::default();
    let known = paths();
    files.look(&known, SystemTime::now());
    if known.iter().any(is_newer) {
        return;
    }
    loop {
        std::thread::sleep(LOOK);
        if !files.look(&paths(), SystemTime::now()).is_empty() {
            // The rest of what is being written.
            std::thread::sleep(LOOK);
            return;
        }
    }
}

/// Returns the directory of a file.
pub(crate) fn directory_of(file: &Path) -> PathBuf {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

/// Returns the names of the first files, and the number of the others.
pub(crate) fn names<'p>(paths: impl Iterator<Item = &'p PathBuf>) -> String {
    let names: Vec<_> = paths.map(|path| short(path)).collect();
    match names.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..NAMED].join(", ")),
    }
}

/// Returns a path as people write it: relative to the working directory, if it is below that.
pub(crate) fn short(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Watched {
        directory: tempfile::TempDir,
        files: Files,
        now: SystemTime,
    }

    impl Watched {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            Self { directory, files: Files::default(), now: SystemTime::now() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        /// Returns the texts of the files that changed.
        fn look(&mut self) -> Vec<Option<String>> {
            let paths = ["a.py", "b.py"].map(|name| self.path(name)).into();
            let mut found = self.files.look(&paths, self.now);
            found.changed.extend(found.first);
            let text = |content: &[u8]| String::from_utf8(content.to_vec()).unwrap();
            found.changed.into_values().map(|content| content.as_deref().map(text)).collect()
        }
    }

    #[test]
    fn a_change_is_one_of_the_content() {
        let mut watched = Watched::new();
        watched.write("a.py", "1");
        watched.write("b.py", "2");
        assert_eq!(watched.look(), [Some("1".into()), Some("2".into())], "the first look");
        assert!(watched.look().is_empty());
        watched.write("a.py", "1");
        assert!(watched.look().is_empty(), "it was saved unchanged");
        watched.write("a.py", "3");
        assert_eq!(watched.look(), [Some("3".into())]);
        assert!(watched.look().is_empty());
    }

    #[test]
    fn a_file_that_editors_replace_is_the_same_file() {
        let mut watched = Watched::new();
        watched.write("a.py", "1");
        watched.look();
        fs::rename(watched.path("a.py"), watched.path("a.py~")).unwrap();
        assert!(watched.look().is_empty(), "it may come back");
        watched.write("a.py", "1");
        assert!(watched.look().is_empty());
        watched.write("new", "2");
        fs::rename(watched.path("new"), watched.path("a.py")).unwrap();
        assert_eq!(watched.look(), [Some("2".into())]);
    }

    #[test]
    fn a_file_that_stays_away_is_gone() {
        let mut watched = Watched::new();
        watched.write("a.py", "1");
        watched.look();
        fs::remove_file(watched.path("a.py")).unwrap();
        for _ in 1..GONE_LOOKS {
            assert!(watched.look().is_empty());
        }
        assert_eq!(watched.look(), [None]);
        assert!(watched.look().is_empty(), "once");
        watched.write("a.py", "1");
        assert_eq!(watched.look(), [Some("1".into())]);
    }

    #[test]
    fn a_file_with_an_old_time_is_not_read_again() {
        let mut watched = Watched::new();
        watched.write("a.py", "1");
        watched.look();
        let path = watched.path("a.py");
        let stamp = watched.files.0[&path].stamp.clone();
        watched.write("a.py", "2");
        watched.look();
        // As if the second had not passed: the file has the same time and size.
        watched.write("a.py", "3");
        let read_stamp = |known: &Known| known.stamp.clone();
        assert_ne!(stamp, read_stamp(&watched.files.0[&path]));
        assert_eq!(watched.look(), [Some("3".into())]);
        watched.now += SETTLED * 2;
        assert!(watched.look().is_empty());
    }

    #[test]
    fn sources_are_found_outside_of_environments() {
        let watched = Watched::new();
        for directory in ["app", "venv", ".git", "app/__pycache__"] {
            fs::create_dir_all(watched.path(directory)).unwrap();
        }
        watched.write("venv/pyvenv.cfg", "");
        for name in
            ["server.py", "app/model.py", "litplex.toml", "data.json", "venv/x.py", ".git/y.py"]
        {
            watched.write(name, "");
        }
        let found = sources_below(watched.directory.path());
        let expected = ["app/model.py", "litplex.toml", "server.py"].map(|name| watched.path(name));
        assert_eq!(found, expected.into());
    }
}
