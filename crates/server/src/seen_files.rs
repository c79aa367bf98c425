//! The files of endpoints by their content: a reload finds those that have changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use litplex_access::{Digest, digest};
use litplex_config::{Endpoint, Source};

/// The files that the workers of endpoints have read, as far as the configuration names them: the file of the
/// model, and the requirements. By the labels of the endpoints.
#[derive(Default)]
pub(crate) struct SeenFiles(BTreeMap<String, BTreeMap<PathBuf, Option<Digest>>>);

impl SeenFiles {
    /// Reads the files of endpoints.
    pub(crate) fn of(endpoints: &[Endpoint]) -> Self {
        let mut seen = Self::default();
        endpoints.iter().for_each(|endpoint| seen.take_one(endpoint));
        seen
    }

    /// Returns the files of endpoints that are other ones now, by the labels of those that were seen.
    pub(crate) fn changed(&self, now: &Self) -> BTreeMap<String, Vec<PathBuf>> {
        let mut changed = BTreeMap::new();
        for (label, before) in &self.0 {
            let Some(now) = now.0.get(label) else { continue };
            let is_other = |file: &&PathBuf| before.get(*file).is_some_and(|it| *it != now[*file]);
            let files: Vec<_> = now.keys().filter(is_other).cloned().collect();
            if !files.is_empty() {
                changed.insert(label.clone(), files);
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
        let files = files.map(|file| (file.clone(), content(&file))).collect();
        self.0.insert(endpoint.label().to_owned(), files);
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

fn content(file: &Path) -> Option<Digest> {
    fs::read(file).ok().map(digest)
}

#[cfg(test)]
mod tests {
    use litplex_config::{Origin, parse_toml, resolve};

    use super::*;

    #[test]
    fn a_changed_model_or_requirements_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        for name in ["a.py", "b.py", "needs.txt"] {
            write(name, "");
        }
        let text = "[[endpoint]]\npath = \"/a\"\napi = \"a.py:A\"\n\
                    [[endpoint]]\npath = \"/b\"\napi = \"b.py:B\"\nrequirements = \"needs.txt\"";
        let origin = Origin::File(directory.path().join("litplex.toml"));
        let program = resolve(parse_toml(text).unwrap(), &origin).unwrap();
        let mut seen = SeenFiles::of(&program.endpoints);
        let changed = |seen: &SeenFiles| {
            let changed = seen.changed(&SeenFiles::of(&program.endpoints)).into_iter();
            let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
            changed.map(|(label, files)| (label, files.iter().map(name).collect())).collect()
        };
        let none: Vec<(String, Vec<String>)> = changed(&seen);
        assert_eq!(none, []);
        write("needs.txt", "numpy");
        write("a.py", "new");
        let expected = [
            ("/a".to_owned(), vec!["a.py".to_owned()]),
            ("/b".to_owned(), vec!["needs.txt".to_owned()]),
        ];
        assert_eq!(changed(&seen), expected);
        // The reload of one fails: its file has still to be read.
        seen.take(SeenFiles::of(&program.endpoints), &["/b"]);
        assert_eq!(changed(&seen), expected[1..]);
        seen.take_one(&program.endpoints[1]);
        assert_eq!(changed(&seen), []);
    }
}
