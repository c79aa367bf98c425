//! The program in development: changes of the files that it is read from, and of those of its app host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use litplex_core::LoadedFile;

use super::files::{Files, Found};
use crate::seen_files::hexadecimal;

/// The files of the program, and those that have changed.
#[derive(Default)]
pub(super) struct Program {
    /// The file that is served.
    file: PathBuf,
    /// The digests of the files from which the configuration was read, and of those of the app host.
    read: BTreeMap<PathBuf, String>,
    app_host: BTreeMap<PathBuf, String>,
    /// Whether the files have still to be compared with these digests.
    is_unchecked: bool,
    /// The changed files, which no reload has taken over yet.
    changed: Changed,
    has_failed: bool,
}

/// Changed files of a program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// The files from which the configuration is read, and which no worker has loaded.
    pub(super) read: BTreeSet<PathBuf>,
    /// The other files that the app host has loaded.
    pub(super) app_host: BTreeSet<PathBuf>,
}

impl Changed {
    pub(super) fn is_empty(&self) -> bool {
        self.read.is_empty() && self.app_host.is_empty()
    }
}

impl Program {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, ..Self::default() }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Returns the paths of its files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.read.keys().chain(self.app_host.keys()).chain([&self.file])
    }

    /// Takes over the files that were read and loaded.
    pub(super) fn update(&mut self, read: BTreeSet<LoadedFile>, app_host: BTreeSet<LoadedFile>) {
        let by_path = |files: BTreeSet<LoadedFile>| -> BTreeMap<_, _> {
            files.into_iter().map(|file| (PathBuf::from(file.path), file.digest)).collect()
        };
        let (read, app_host) = (by_path(read), by_path(app_host));
        self.is_unchecked |= read != self.read || app_host != self.app_host;
        (self.read, self.app_host) = (read, app_host);
    }

    /// Notes the changes that are about the program. The workers of endpoints have loaded the files in `used`.
    pub(super) fn note(&mut self, found: &Found, files: &Files, used: &BTreeSet<PathBuf>) {
        let mut changed: BTreeSet<PathBuf> = found.changed.keys().cloned().collect();
        if std::mem::take(&mut self.is_unchecked) {
            // They may have changed while they were loaded. One that is gone was removed on purpose.
            let is_other = |(path, digest): &(&PathBuf, &String)| {
                files.content(path).is_some_and(|content| hexadecimal(&content) != **digest)
            };
            let loaded = self.read.iter().chain(&self.app_host);
            changed.extend(loaded.filter(is_other).map(|(path, _)| path.clone()));
        }
        for path in changed {
            let is_read = self.read.contains_key(&path) || path == self.file;
            if self.has_failed || (is_read && !used.contains(&path)) {
                self.changed.read.insert(path);
            } else if self.app_host.contains_key(&path) {
                self.changed.app_host.insert(path);
            }
        }
    }

    /// Returns whether there are changes.
    pub(super) fn is_due(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Returns the changes, which a reload takes over.
    pub(super) fn begin(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn end(&mut self, has_failed: bool) {
        self.has_failed = has_failed;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use super::*;

    struct Fixture {
        directory: tempfile::TempDir,
        files: Files,
        program: Program,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let program = Program::new(directory.path().join("server.py"));
            let mut fixture = Self { directory, files: Files::default(), program };
            let (read, app_host) = (["server.py", "settings.py"], ["server.py", "app.py"]);
            for name in read.iter().chain(&app_host) {
                fixture.save(name, "old");
            }
            let old = |names: [&str; 2]| -> BTreeSet<LoadedFile> {
                names.map(|name| fixture.loaded(name, "old")).into()
            };
            let (read, app_host) = (old(read), old(app_host));
            fixture.program.update(read, app_host);
            fixture
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn save(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        fn loaded(&self, name: &str, text: &str) -> LoadedFile {
            let path = self.path(name).display().to_string();
            LoadedFile { path, digest: hexadecimal(text.as_bytes()) }
        }

        /// Returns the names of the files that changed: those that are read, and those of the app host.
        fn changed(&mut self, used: &[&str]) -> [Vec<String>; 2] {
            let used = used.iter().map(|name| self.path(name)).collect();
            let paths = self.program.paths().cloned().collect();
            let found = self.files.look(&paths, SystemTime::now());
            self.program.note(&found, &self.files, &used);
            let Changed { read, app_host } = self.program.begin();
            let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            [read, app_host].map(|files| files.into_iter().map(name).collect())
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_file_that_no_worker_has_loaded_changes_the_configuration() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.changed(&["server.py"]), [names(&[]), names(&[])]);
        fixture.save("settings.py", "new");
        fixture.save("server.py", "new");
        fixture.save("app.py", "new");
        let [read, app_host] = fixture.changed(&["server.py"]);
        // The workers' part of `server.py` is changed in the workers.
        assert_eq!((read, app_host), (names(&["settings.py"]), names(&["app.py", "server.py"])));
        fixture.save("server.py", "newer");
        assert_eq!(fixture.changed(&[]), [names(&["server.py"]), names(&[])]);
        assert_eq!(fixture.changed(&[]), [names(&[]), names(&[])]);
    }

    #[test]
    fn a_save_while_the_program_was_read_is_seen() {
        let mut fixture = Fixture::new();
        fixture.save("settings.py", "saved meanwhile");
        assert_eq!(fixture.changed(&[])[0], names(&["settings.py"]));
        let read = BTreeSet::from([fixture.loaded("settings.py", "saved meanwhile")]);
        fixture.program.update(read, BTreeSet::new());
        assert_eq!(fixture.changed(&[])[0], names(&[]));
        // One that a program writes for itself, and removes, is no change.
        let read = BTreeSet::from([fixture.loaded("temporary.py", "old")]);
        fixture.program.update(read, BTreeSet::new());
        assert_eq!(fixture.changed(&[])[0], names(&[]));
    }

    #[test]
    fn any_save_may_mend_a_program_that_could_not_be_read() {
        let mut fixture = Fixture::new();
        fixture.changed(&[]);
        fixture.program.end(true);
        fixture.save("app.py", "new");
        assert_eq!(fixture.changed(&["app.py"])[0], names(&["app.py"]));
        fixture.program.end(false);
        fixture.save("app.py", "newer");
        assert_eq!(fixture.changed(&["app.py"]), [names(&[]), names(&["app.py"])]);
    }
}
