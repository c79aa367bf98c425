//! An endpoint in development: what changed in its files since its workers have loaded them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use litplex_workers::endpoint_span;

use super::files::{Contents, Files, Found, names};
use super::patch::is_starting;
use crate::generations::Generations;

/// An endpoint, and what changed in its files.
pub(super) struct Watched {
    pub(super) generations: Generations,
    /// The number of the generation that has loaded the files.
    generation: u64,
    sources: BTreeSet<PathBuf>,
    /// Whether the files have still to be compared with what the workers have loaded.
    is_unchecked: bool,
    dirty: Contents,
    making: Option<Making>,
    /// Whether something changed since the last attempt.
    is_due: bool,
    /// Whether the changes need new workers.
    needs_workers: bool,
    has_failed: bool,
}

/// The changes that are being made.
struct Making {
    changes: Contents,
    /// Whether by new workers.
    is_reload: bool,
}

/// The end of an attempt to change an endpoint.
pub(super) enum Outcome {
    /// Its workers have the present code.
    Current,
    /// The changes need new workers.
    NeedsWorkers,
    /// The code before goes on.
    Failed,
}

impl Watched {
    pub(super) fn new(generations: Generations) -> Self {
        Self {
            generations,
            generation: 0,
            sources: BTreeSet::new(),
            is_unchecked: false,
            dirty: Contents::new(),
            making: None,
            is_due: false,
            needs_workers: false,
            has_failed: false,
        }
    }

    /// Takes over the files that the workers have loaded. An endpoint that was removed may be back.
    pub(super) fn update(&mut self, generations: Generations) {
        self.generations = generations;
        let live = self.generations.live();
        if is_starting(&live.view.states()) {
            return;
        }
        let found: BTreeSet<_> =
            live.sources().into_iter().map(|file| PathBuf::from(file.path)).collect();
        // A worker that starts anew loads the same ones.
        if found.is_empty() {
            return;
        }
        self.is_unchecked |= found != self.sources || live.generation != self.generation;
        self.generation = live.generation;
        if found == self.sources {
            return;
        }
        let (count, names) = (found.len(), names(found.iter()));
        endpoint_span(&self.generations.identity().label)
            .in_scope(|| tracing::info!("watching {count} files: {names}"));
        self.sources = found;
    }

    pub(super) fn sources(&self) -> &BTreeSet<PathBuf> {
        &self.sources
    }

    /// Returns whether its first workers still start.
    pub(super) fn is_new(&self) -> bool {
        self.generations.live().is_new()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Returns whether this file has changed, and the change needs new workers.
    pub(super) fn needs_workers_for(&self, file: &Path) -> bool {
        self.needs_workers && self.dirty.contains_key(file)
    }

    /// Notes the changes that are about this endpoint. Files that were not compared yet may have changed while
    /// they were loaded, which the workers know.
    pub(super) fn note(&mut self, found: &Found, files: &Files) {
        let changed = found.changed.iter().filter(|(path, _)| self.sources.contains(*path));
        let changed = changed.map(|(path, content)| (path.clone(), content.clone()));
        let mut fresh = Contents::from_iter(changed);
        if std::mem::take(&mut self.is_unchecked) {
            let loaded = self.sources.iter().filter(|path| !fresh.contains_key(*path));
            let loaded = loaded.map(|path| (path.clone(), files.content(path)));
            let loaded = Contents::from_iter(loaded.filter(|(_, content)| content.is_some()));
            fresh.extend(loaded);
        }
        self.is_due |= !fresh.is_empty() || (self.has_failed && !found.changed.is_empty());
        self.dirty.extend(fresh);
    }

    /// Returns the changes to make in the running workers now, if there are any.
    pub(super) fn begin_patch(&mut self) -> Option<Contents> {
        if !self.is_due || self.making.is_some() {
            return None;
        }
        (self.is_due, self.needs_workers) = (false, false);
        let changes = self.dirty.clone();
        self.making = Some(Making { changes: changes.clone(), is_reload: false });
        Some(changes)
    }

    /// Returns whether new workers are to be started for its changes, and notes that they are.
    pub(super) fn begin_reload(&mut self) -> bool {
        let begins = std::mem::take(&mut self.needs_workers);
        if begins {
            self.making = Some(Making { changes: self.dirty.clone(), is_reload: true });
        }
        begins
    }

    /// Returns whether its changes wait for new workers.
    pub(super) fn needs_workers(&self) -> bool {
        self.needs_workers
    }

    /// Returns whether new workers are being started for its changes.
    pub(super) fn is_being_reloaded(&self) -> bool {
        self.making.as_ref().is_some_and(|making| making.is_reload)
    }

    pub(super) fn end(&mut self, outcome: &Outcome) {
        let made = self.making.take().map(|making| making.changes).unwrap_or_default();
        match outcome {
            Outcome::Current => {
                self.has_failed = false;
                self.dirty.retain(|path, content| made.get(path) != Some(content));
            }
            Outcome::NeedsWorkers => self.needs_workers = true,
            Outcome::Failed => self.has_failed = true,
        }
    }
}
