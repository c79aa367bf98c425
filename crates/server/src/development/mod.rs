//! Development: a save of a source file changes what the endpoints that use the file answer.
//!
//! One task watches the files that workers have loaded, and those of the program. A change of the bodies
//! of functions is made in the running workers; every other change starts a new generation. A change that
//! comes while an endpoint is being changed waits for the end, and only the last one counts.

mod files;
mod patch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use litplex_admin::EventKind;
use litplex_core::{PatchRefusal, Patched, SourceText};
use litplex_workers::endpoint_span;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use crate::Development;
use crate::events::Events;
use crate::generations::{Generations, Order};

use files::{Content, Contents, Files, Found, directory_of, sources_below};
use patch::{is_starting, patch};

pub use files::wait_for_change;

/// The least time between two looks at the files.
const LOOK: Duration = Duration::from_millis(30);

/// The share of time that looks may take: a look is followed by so many times its own time without one.
const PAUSES: u32 = 20;

/// The time that the workers of a new generation have to become ready.
const READY_TIME: Duration = Duration::from_secs(3600);

/// The most names of files in a line of the log.
const NAMED: usize = 5;

/// Watches the files, and changes the endpoints.
pub(crate) async fn follow(development: Development, endpoints: Vec<Generations>, events: Events) {
    let program = std::path::absolute(&development.program).unwrap_or(development.program);
    tracing::info!(
        "for development: a save of {}, or of a file that a model has loaded, changes what is served",
        short(&program)
    );
    let follower = Follower {
        program,
        endpoints: endpoints.into_iter().map(Watched::new).collect(),
        events,
        files: Files::default(),
        knows_others: false,
        working: JoinSet::new(),
    };
    follower.run().await;
}

/// The task.
struct Follower {
    program: PathBuf,
    endpoints: Vec<Watched>,
    events: Events,
    files: Files,
    /// Whether the last look was also at files that no worker has loaded.
    knows_others: bool,
    /// The changes that are being made; each task returns the index of its endpoint.
    working: JoinSet<(usize, Outcome)>,
}

/// An endpoint, and what changed in its files since it was loaded.
struct Watched {
    generations: Generations,
    sources: BTreeSet<PathBuf>,
    dirty: Contents,
    /// The changes that a task makes now.
    making: Option<Contents>,
    /// Whether something changed since the last attempt.
    is_due: bool,
    has_failed: bool,
}

/// The end of an attempt to change an endpoint.
enum Outcome {
    /// Its workers have the present code.
    Current,
    /// The code before goes on.
    Failed,
}

impl Follower {
    async fn run(mut self) {
        let mut pending = Found::default();
        loop {
            let began = Instant::now();
            let found = self.look().await;
            let is_quiet = found.is_empty();
            pending.extend(found);
            if is_quiet && !pending.is_empty() {
                self.note(&std::mem::take(&mut pending));
            }
            self.begin();
            let pause = LOOK.max(began.elapsed() * PAUSES);
            tokio::select! {
                () = sleep(pause) => {}
                Some(ended) = self.working.join_next() => {
                    if let Ok((index, outcome)) = ended {
                        self.endpoints[index].end(&outcome);
                    }
                }
            }
        }
    }

    /// Looks at the files of the endpoints and the program. An endpoint that failed may need a file that no
    /// worker has loaded: then at all files in the directory of the program.
    async fn look(&mut self) -> Found {
        let mut loaded = BTreeSet::from([self.program.clone()]);
        for endpoint in &mut self.endpoints {
            endpoint.update_sources();
            loaded.extend(endpoint.sources.iter().cloned());
        }
        let has_failed = self.endpoints.iter().any(|endpoint| endpoint.has_failed);
        let others = has_failed.then(|| directory_of(&self.program));
        let mut files = std::mem::take(&mut self.files);
        let look = move || {
            let mut paths = loaded.clone();
            paths.extend(others.iter().flat_map(|directory| sources_below(directory)));
            let found = files.look(&paths, SystemTime::now());
            (files, found, loaded)
        };
        // Only a panic, or the end of the runtime, is an error.
        let Ok((files, mut found, loaded)) = spawn_blocking(look).await else {
            return Found::default();
        };
        self.files = files;
        if std::mem::replace(&mut self.knows_others, has_failed) {
            // A file that was not there before.
            let first = std::mem::take(&mut found.first).into_iter();
            let (known, fresh) = first.partition::<Contents, _>(|(path, _)| loaded.contains(path));
            found.first = known;
            found.changed.extend(fresh);
        }
        found
    }

    fn note(&mut self, found: &Found) {
        let is_used = |path| self.endpoints.iter().any(|endpoint| endpoint.sources.contains(path));
        if found.changed.contains_key(&self.program) && !is_used(&self.program) {
            tracing::warn!("{} changed; start the server anew to apply it", short(&self.program));
        }
        self.endpoints.iter_mut().for_each(|endpoint| endpoint.note(found));
    }

    fn begin(&mut self) {
        for (index, endpoint) in self.endpoints.iter_mut().enumerate() {
            if let Some(changes) = endpoint.begin() {
                let (generations, events) = (endpoint.generations.clone(), self.events.clone());
                let span = endpoint_span(&generations.identity().label);
                let change = async move { (index, change(&generations, &changes, &events).await) };
                self.working.spawn(change.instrument(span));
            }
        }
    }
}

impl Watched {
    fn new(generations: Generations) -> Self {
        let (sources, dirty) = (BTreeSet::new(), Contents::new());
        Self { generations, sources, dirty, making: None, is_due: false, has_failed: false }
    }

    /// Notes the changes that are about this endpoint. The first look at a file is one: the file may have
    /// changed while it was loaded, which its workers know.
    fn note(&mut self, found: &Found) {
        for (path, content) in found.first.iter().chain(&found.changed) {
            if self.sources.contains(path) {
                self.dirty.insert(path.clone(), content.clone());
                self.is_due = true;
            }
        }
        self.is_due |= self.has_failed && !found.changed.is_empty();
    }

    /// Returns the changes to make now, if there are any.
    fn begin(&mut self) -> Option<Contents> {
        if !self.is_due || self.making.is_some() {
            return None;
        }
        self.is_due = false;
        Some(self.making.insert(self.dirty.clone()).clone())
    }

    fn end(&mut self, outcome: &Outcome) {
        let made = self.making.take().unwrap_or_default();
        self.has_failed = matches!(outcome, Outcome::Failed);
        if !self.has_failed {
            self.dirty.retain(|path, content| made.get(path) != Some(content));
        }
    }

    fn update_sources(&mut self) {
        let live = self.generations.live();
        if is_starting(&live.view.states()) {
            return;
        }
        let found: BTreeSet<_> =
            live.sources().into_iter().map(|file| PathBuf::from(file.path)).collect();
        // A worker that starts anew loads the same ones.
        if found == self.sources || found.is_empty() {
            return;
        }
        let (count, names) = (found.len(), names(found.iter()));
        endpoint_span(&self.generations.identity().label)
            .in_scope(|| tracing::info!("watching {count} files: {names}"));
        self.sources = found;
    }
}

/// Changes an endpoint: in its running workers if that is safe, else by a new generation.
async fn change(generations: &Generations, changes: &Contents, events: &Events) -> Outcome {
    let began = Instant::now();
    let live = generations.live();
    let patched = match texts(changes) {
        Ok(texts) => patch(&live.view, texts).await,
        Err(refusal) => Err(refusal),
    };
    let (endpoint, files) = (live.label().to_owned(), names(changes.keys()));
    match patched {
        Ok(Patched::Unchanged) => Outcome::Current,
        Ok(Patched::Done) => {
            let milliseconds = began.elapsed().as_millis();
            tracing::info!("{files} changed: the hooks are patched, after {milliseconds} ms");
            events.record(EventKind::Patched { endpoint, generation: live.generation, files });
            Outcome::Current
        }
        Err(PatchRefusal { reason, traceback: Some(traceback) }) => {
            tracing::error!("{files} changed: {reason}; the code before goes on\n\n{traceback}");
            events.record(EventKind::PatchFailed { endpoint, reason });
            Outcome::Failed
        }
        Err(PatchRefusal { reason, .. }) => {
            reload(generations, &format!("{files} changed: {reason}")).await
        }
    }
}

async fn reload(generations: &Generations, reason: &str) -> Outcome {
    tracing::info!("{reason}; a new generation starts");
    let among = Default::default();
    let order = Order { spec: None, limit: READY_TIME, trial: None, swap: None, among };
    match generations.reload(order).await {
        Ok(_) => Outcome::Current,
        Err(refusal) => {
            tracing::error!("{refusal}");
            Outcome::Failed
        }
    }
}

/// Returns the texts of changed files for workers.
fn texts(changes: &Contents) -> Result<Arc<[SourceText]>, PatchRefusal> {
    let text = |(path, content): (&PathBuf, &Content)| {
        let name = short(path);
        let Some(content) = content else {
            return Err(PatchRefusal::new(format!("{name} is gone")));
        };
        let text = String::from_utf8(content.to_vec());
        let text = text.map_err(|_| PatchRefusal::new(format!("{name} is not in UTF-8")))?;
        Ok(SourceText { path: path.to_string_lossy().into_owned(), text })
    };
    changes.iter().map(text).collect()
}

/// Returns the names of the first files, and the number of the others.
fn names<'p>(paths: impl Iterator<Item = &'p PathBuf>) -> String {
    let names: Vec<_> = paths.map(|path| short(path)).collect();
    match names.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..NAMED].join(", ")),
    }
}

/// Returns a path as people write it: relative to the working directory, if it is below that.
fn short(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
