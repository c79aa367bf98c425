//! The files of endpoints by their content: a reload finds those that have changed. Workers and the app host
//! report which source files they have loaded; the configuration names the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use litplex_access::digest;
use litplex_config::{Endpoint, Source};
use litplex_core::LoadedFile;

/// The SHA-256 of a content in lower-case hexadecimal; empty if there is no such file.
type Digest = String;

/// The source files that the workers of endpoints have loaded, by the labels of the endpoints.
pub(crate) type Loaded = BTreeMap<String, BTreeSet<LoadedFile>>;

/// The files of endpoints that the configuration names: the requirements, and the file of the model. By the
/// labels of the endpoints, as they were when their workers were started.
#[derive(Clone, Default)]
pub(crate) struct SeenFiles(BTreeMap<String, BTreeMap<PathBuf, Digest>>);

impl SeenFiles {
    /// Reads the files of endpoints.
    pub(crate) fn of(endpoints: &[Endpoint]) -> Self {
        let mut seen = Self::default();
        endpoints.iter().for_each(|endpoint| seen.take_one(endpoint));
        seen
    }

    /// Returns the files of endpoints whose content is not that with which their workers were started, by the
    /// labels of the endpoints. For a source file a worker that has loaded it knows the content.
    pub(crate) fn changed(&self, now: &Self, loaded: &Loaded) -> BTreeMap<String, Vec<PathBuf>> {
        let (mut contents, none) = (Contents::default(), BTreeSet::new());
        let mut changed = BTreeMap::new();
        for (label, before) in &self.0 {
            let loaded = loaded.get(label).unwrap_or(&none);
            let is_loaded = |file: &Path| loaded.iter().any(|it| Path::new(&it.path) == file);
            let is_other = |(file, content): &(&PathBuf, &Digest)| {
                let now = now.0.get(label).and_then(|now| now.get(*file));
                now.is_some_and(|now| now != *content) && !is_loaded(file)
            };
            let named = before.iter().filter(is_other).map(|(file, _)| file.clone());
            let files: BTreeSet<_> = named.chain(contents.changed(loaded)).collect();
            if !files.is_empty() {
                changed.insert(label.clone(), files.into_iter().collect());
            }
        }
        changed
    }

    /// Takes over the files as they are now, except for those of endpoints that stayed as they were.
    pub(crate) fn take(&mut self, now: Self, stayed: &[&str]) {
        let mut next = now.0;
        for label in stayed {
            match self.0.remove(*label) {
                Some(files) => drop(next.insert((*label).to_owned(), files)),
                None => drop(next.remove(*label)),
            }
        }
        self.0 = next;
    }

    /// Reads the files of an endpoint.
    pub(crate) fn take_one(&mut self, endpoint: &Endpoint) {
        let files = files_of(endpoint).into_iter();
        let files = files.map(|file| (file.clone(), read(&file))).collect();
        self.0.insert(endpoint.label().to_owned(), files);
    }
}

/// Returns the files whose content is another one than the one that was loaded, or that are gone.
pub(crate) fn changed(loaded: &BTreeSet<LoadedFile>) -> Vec<PathBuf> {
    Contents::default().changed(loaded).into_iter().collect()
}

/// The contents of files now, each read once.
#[derive(Default)]
struct Contents(BTreeMap<PathBuf, Digest>);

impl Contents {
    fn changed(&mut self, loaded: &BTreeSet<LoadedFile>) -> BTreeSet<PathBuf> {
        let changed = loaded.iter().filter(|file| {
            let path = PathBuf::from(&file.path);
            *self.0.entry(path).or_insert_with_key(|path| read(path)) != file.digest
        });
        changed.map(|file| PathBuf::from(&file.path)).collect()
    }
}

fn files_of(endpoint: &Endpoint) -> Vec<PathBuf> {
    let model = match &endpoint.source {
        Source::Python(source) if source["kind"] == "reference" => {
            let name = source["name"].as_str().and_then(|name| name.rsplit_once(':'));
            let file = name.map(|(file, _)| file).filter(|file| file.ends_with(".py"));
            file.zip(source["directory"].as_str()).map(|(file, at)| Path::new(at).join(file))
        }
        _ => None,
    };
    model.into_iter().chain(endpoint.requirements.clone()).collect()
}

fn read(file: &Path) -> Digest {
    fs::read(file).map(|content| hexadecimal(&content)).unwrap_or_default()
}

/// Returns the digest of a content.
pub(crate) fn hexadecimal(content: &[u8]) -> Digest {
    digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use litplex_config::{Origin, Program, parse_toml, resolve};

    use super::*;

    struct Files {
        directory: tempfile::TempDir,
        program: Program,
    }

    impl Files {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            for name in ["a.py", "b.py", "needs.txt", "helper.py"] {
                fs::write(directory.path().join(name), "").unwrap();
            }
            let text = "[[endpoint]]\npath = \"/a\"\napi = \"a.py:A\"\n\
                        [[endpoint]]\npath = \"/b\"\napi = \"b.py:B\"\nrequirements = \"needs.txt\"";
            let origin = Origin::File(directory.path().join("litplex.toml"));
            let program = resolve(parse_toml(text).unwrap(), &origin).unwrap();
            Self { directory, program }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        fn loaded(&self, name: &str, text: &str) -> LoadedFile {
            let path = self.path(name).display().to_string();
            LoadedFile { path, digest: hexadecimal(text.as_bytes()) }
        }

        /// Returns the names of the changed files of each endpoint that has some.
        fn changed(&self, seen: &SeenFiles, loaded: &Loaded) -> Vec<(String, String)> {
            let changed = seen.changed(&SeenFiles::of(&self.program.endpoints), loaded).into_iter();
            let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
            let names = |files: Vec<PathBuf>| files.iter().map(name).collect::<Vec<_>>().join(" ");
            changed.map(|(label, files)| (label, names(files))).collect()
        }
    }

    fn expected(changed: &[(&str, &str)]) -> Vec<(String, String)> {
        changed.iter().map(|(label, files)| ((*label).to_owned(), (*files).to_owned())).collect()
    }

    #[test]
    fn changed_files_that_the_configuration_names_are_found() {
        let files = Files::new();
        let (mut seen, none) = (SeenFiles::of(&files.program.endpoints), Loaded::new());
        assert_eq!(files.changed(&seen, &none), []);
        files.write("needs.txt", "numpy");
        files.write("a.py", "new");
        let both = expected(&[("/a", "a.py"), ("/b", "needs.txt")]);
        assert_eq!(files.changed(&seen, &none), both);
        // The reload of one fails: its file has still to be read.
        seen.take(SeenFiles::of(&files.program.endpoints), &["/b"]);
        assert_eq!(files.changed(&seen, &none), both[1..]);
        seen.take_one(&files.program.endpoints[1]);
        assert_eq!(files.changed(&seen, &none), []);
    }

    #[test]
    fn a_file_is_compared_with_what_each_worker_has_loaded() {
        let files = Files::new();
        let seen = SeenFiles::of(&files.program.endpoints);
        let (model_a, model_b) = (files.loaded("a.py", ""), files.loaded("b.py", ""));
        let (old, new) = (files.loaded("helper.py", ""), files.loaded("helper.py", "new"));
        let loaded = |one: &[&LoadedFile], other: &[&LoadedFile]| {
            let set = |files: &[&LoadedFile]| files.iter().copied().cloned().collect();
            Loaded::from([("/a".to_owned(), set(one)), ("/b".to_owned(), set(other))])
        };
        assert_eq!(files.changed(&seen, &loaded(&[&model_a, &old], &[&model_b])), []);
        files.write("helper.py", "new");
        let only_a = expected(&[("/a", "helper.py")]);
        assert_eq!(files.changed(&seen, &loaded(&[&model_a, &old], &[&model_b])), only_a);
        assert_eq!(
            files.changed(&seen, &loaded(&[&model_a, &new], &[&model_b])),
            [],
            "it was loaded later"
        );
        let two_workers = loaded(&[&model_a, &old, &new], &[&model_b]);
        assert_eq!(files.changed(&seen, &two_workers), only_a, "one worker has the old file");
        fs::remove_file(files.path("helper.py")).unwrap();
        let without = files.changed(&seen, &loaded(&[&model_a, &new], &[&model_b]));
        assert_eq!(without, only_a, "it is gone");
        // A worker knows its model's file better: it was saved while the worker started.
        files.write("b.py", "new");
        let model_b = files.loaded("b.py", "new");
        assert_eq!(files.changed(&seen, &loaded(&[&model_a], &[&model_b])), []);
    }
}
