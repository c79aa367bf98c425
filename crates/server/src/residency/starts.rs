//! The measurements of earlier starts, kept across restarts of the server: a small file for each model, beside
//! the virtual environments of the cache.

use std::fs;
use std::path::{Path, PathBuf};

use litplex_config::{Endpoint, Program, Source};
use litplex_dirs::{Cache, Digest};
use litplex_residency::StartHistory;

/// The directory in the cache.
const DIRECTORY: &str = "starts";

/// The most models that are remembered.
const MOST_MODELS: usize = 1000;

/// The files with what was measured of earlier starts; none without a cache.
#[derive(Debug, Clone, Default)]
pub(super) struct Starts(Option<Cache>);

impl Starts {
    /// Locates the files, if a program has models that are measured.
    pub(super) fn locate(config: &Program) -> Self {
        if !config.endpoints.iter().any(|it| matches!(it.source, Source::Python(_))) {
            return Self::default();
        }
        let starts = Self(Cache::locate().ok());
        starts.place().iter().for_each(|place| remove_old(place));
        starts
    }

    /// Returns the directory, created if it is not there: the cache may have been emptied. One that is there is used
    /// as it is, because only what is run must be private.
    fn place(&self) -> Option<PathBuf> {
        let cache = self.0.as_ref()?;
        let place = cache.root().join(DIRECTORY);
        if place.is_dir() { Some(place) } else { cache.directory(DIRECTORY).ok() }
    }

    /// Reads what is known of a model. A file that cannot be read is as none.
    pub(super) fn read(&self, name: &str) -> StartHistory {
        let text = self.place().and_then(|place| fs::read(place.join(name)).ok());
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Writes what is known of a model, as a whole: another server may read it.
    pub(super) fn write(&self, name: &str, history: &StartHistory) {
        let Some(place) = self.place() else { return };
        let Ok(text) = serde_json::to_vec(history) else { return };
        let draft = place.join(format!(".{name}.{}", std::process::id()));
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, place.join(name)));
        if let Err(error) = written {
            let place = place.display();
            tracing::debug!("the memory of starts is not kept in {place}: {error}");
        }
    }
}

/// Removes the files of models that were not started for the longest time, if there are many.
fn remove_old(place: &Path) {
    let files = fs::read_dir(place).into_iter().flatten().flatten();
    let mut files: Vec<_> = files
        .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())))
        .collect();
    files.sort();
    let excess = files.len().saturating_sub(MOST_MODELS);
    // Another server may have removed it.
    files[..excess].iter().for_each(|(_, file)| _ = fs::remove_file(file));
}

/// Returns the name under which the starts of a model are kept: that of its code and of what else decides how
/// much memory it needs.
pub(crate) fn name_of(config: &Endpoint) -> String {
    let model = match &config.source {
        Source::Python(load) => {
            let mut load = load.clone();
            // The file of a pickled instance has another name at each start.
            load.as_object_mut().and_then(|load| load.remove("file"));
            load.to_string()
        }
        Source::Rust | Source::Pipeline(_) => String::new(),
    };
    let parts = [
        config.cwd.as_deref().map(|it| it.display().to_string()).unwrap_or_default(),
        config.label().to_owned(),
        config.identity.name.clone(),
        model,
        config.accelerator.clone(),
        format!("{:?} {:?}", config.python, config.requirements),
    ];
    let mut digest = Digest::new();
    digest.feed(parts.join("\n").as_bytes());
    format!("{digest}.json")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use litplex_residency::Memory;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_broken_file_is_as_none() {
        let root = tempfile::tempdir().unwrap();
        let starts = Starts(Some(Cache::at(&root.path().join("cache"))));
        let place = starts.place().unwrap();
        let mut history = StartHistory::default();
        assert_eq!(starts.read("a.json"), history);
        history.add(Duration::from_secs(3), Memory::on_host(7));
        starts.write("a.json", &history);
        assert_eq!(starts.read("a.json"), history);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "no draft stays");
        remove_old(&place);
        fs::write(place.join("a.json"), "{").unwrap();
        assert_eq!(starts.read("a.json"), StartHistory::default());
    }
}
