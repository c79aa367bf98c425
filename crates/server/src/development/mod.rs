//! Development: a save of a source file changes what the endpoints that use the file answer, and a save of the
//! program changes which endpoints there are, and their options.
//!
//! One task watches the files that workers have loaded, and those of the program. A change of the bodies
//! of functions is made in the running workers; every other change is made by a reload of the program
//! (`fleet.rs`), of those endpoints that use the file, or of all that differs if the program itself has changed.
//! A change that comes while an endpoint is being changed waits for the end, and only the last one counts.

mod files;
mod patch;
mod program;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use litplex_admin::{EventKind, ProgramReloaded, Refusal};
use litplex_core::{PatchRefusal, Patched, SourceText};
use litplex_workers::endpoint_span;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use crate::Development;
use crate::events::Events;
use crate::fleet::{FleetHandle, Order, ProgramFiles};
use crate::generations::Generations;

use files::{Content, Contents, Files, Found, directory_of, names, short, sources_below};
use patch::patch;
use program::{Changed, Program};
use watched::{Outcome, Watched};

pub use files::wait_for_change;

/// The least time between two looks at the files.
const LOOK: Duration = Duration::from_millis(30);

/// The share of time that looks may take: a look is followed by so many times its own time without one.
const PAUSES: u32 = 20;

/// The time that the workers of a new generation have to become ready.
const READY_TIME: Duration = Duration::from_secs(3600);

/// Watches the files, and changes the endpoints.
pub(crate) async fn follow(development: Development, fleet: FleetHandle, events: Events) {
    let program = std::path::absolute(&development.program).unwrap_or(development.program);
    tracing::info!(
        "for development: a save of {}, or of a file that it or a model has loaded, changes what is served",
        short(&program)
    );
    let follower = Follower {
        program: Program::new(program),
        endpoints: BTreeMap::new(),
        fleet,
        events,
        files: Files::default(),
        knows_others: false,
        working: JoinSet::new(),
    };
    follower.run().await;
}

/// The task.
struct Follower {
    program: Program,
    /// The endpoints with workers, by their labels.
    endpoints: BTreeMap<String, Watched>,
    fleet: FleetHandle,
    events: Events,
    files: Files,
    /// Whether the last look was also at files that no process has loaded.
    knows_others: bool,
    /// The changes that are being made.
    working: JoinSet<Ended>,
}

/// The end of a change.
enum Ended {
    /// The end of a change in the running workers of an endpoint.
    Patch(String, Outcome),
    /// The end of a reload of the program, or of a part of it. At most one is made at a time.
    Reload { is_whole: bool, reloaded: Result<ProgramReloaded, Refusal> },
}

impl Follower {
    async fn run(mut self) {
        let mut pending = Found::default();
        loop {
            let began = Instant::now();
            self.follow_endpoints();
            let found = self.look().await;
            let is_quiet = found.is_empty();
            pending.extend(found);
            if is_quiet {
                self.note(&std::mem::take(&mut pending));
            }
            self.begin();
            let pause = LOOK.max(began.elapsed() * PAUSES);
            tokio::select! {
                () = sleep(pause) => {}
                Some(ended) = self.working.join_next() => match ended {
                    Ok(Ended::Patch(label, outcome)) => {
                        if let Some(endpoint) = self.endpoints.get_mut(&label) {
                            endpoint.end(&outcome);
                        }
                    }
                    Ok(Ended::Reload { is_whole, reloaded }) => self.end_reload(is_whole, &reloaded),
                    // Only a panic, or the end of the runtime.
                    Err(_) => {}
                }
            }
        }
    }

    /// Takes over the endpoints that there are now, and the files that their workers have loaded.
    fn follow_endpoints(&mut self) {
        let (mut now, current) = (BTreeMap::new(), self.fleet.current());
        let all = current.borrow().generations();
        for generations in all {
            let label = generations.identity().label.clone();
            let known = self.endpoints.remove(&label);
            let mut endpoint = known.unwrap_or_else(|| Watched::new(generations.clone()));
            endpoint.update(generations);
            now.insert(label, endpoint);
        }
        self.endpoints = now;
    }

    /// Looks at the files of the endpoints and the program. If one of them failed, it may need a file that no
    /// process has loaded: then at all files in the directory of the program.
    async fn look(&mut self) -> Found {
        let has_failed =
            self.program.has_failed() || self.endpoints.values().any(Watched::has_failed);
        let others = has_failed.then(|| directory_of(self.program.file()));
        let used = self.used();
        let ProgramFiles { read, app_host } = self.fleet.files();
        let (mut files, mut program) =
            (std::mem::take(&mut self.files), std::mem::take(&mut self.program));
        let look = move || {
            program.update(read, app_host.map(|place| place.sources()).unwrap_or_default());
            let loaded: BTreeSet<_> = program.paths().cloned().chain(used).collect();
            let mut paths = loaded.clone();
            paths.extend(others.iter().flat_map(|directory| sources_below(directory)));
            let found = files.look(&paths, SystemTime::now());
            (files, program, found, loaded)
        };
        // Only a panic, or the end of the runtime, is an error.
        let Ok((files, program, mut found, loaded)) = spawn_blocking(look).await else {
            return Found::default();
        };
        (self.files, self.program) = (files, program);
        if std::mem::replace(&mut self.knows_others, has_failed) {
            // A file that was not there before.
            let first = std::mem::take(&mut found.first).into_iter();
            let (known, fresh) = first.partition::<Contents, _>(|(path, _)| loaded.contains(path));
            found.first = known;
            found.changed.extend(fresh);
        }
        found
    }

    /// Returns the files that the workers of endpoints have loaded.
    fn used(&self) -> BTreeSet<PathBuf> {
        self.endpoints.values().flat_map(|endpoint| endpoint.sources().iter().cloned()).collect()
    }

    fn note(&mut self, found: &Found) {
        let used = self.used();
        self.program.note(found, &self.files, &used);
        self.endpoints.values_mut().for_each(|endpoint| endpoint.note(found, &self.files));
    }

    /// Begins the changes that can be made now: in running workers, and if none is being made in them, by a
    /// reload of the program.
    fn begin(&mut self) {
        for (label, endpoint) in &mut self.endpoints {
            if let Some(changes) = endpoint.begin_patch() {
                let (generations, events) = (endpoint.generations.clone(), self.events.clone());
                let (span, label) = (endpoint_span(label), label.clone());
                let change = async move {
                    Ended::Patch(label, change(&generations, &changes, &events).await)
                };
                self.working.spawn(change.instrument(span));
            }
        }
        let is_due = self.program.is_due() || self.endpoints.values().any(Watched::needs_workers);
        let can_begin = self.working.is_empty() && !self.endpoints.values().any(Watched::is_new);
        if is_due && can_begin {
            self.begin_reload();
        }
    }

    /// Reloads the program: all of it if its configuration may have changed, else the endpoints whose code has
    /// changed, and the app host.
    fn begin_reload(&mut self) {
        let file = self.program.file();
        let is_changed = self.endpoints.values().any(|it| it.needs_workers_for(file));
        let Changed { read, app_host } = self.program.begin();
        let begun = self
            .endpoints
            .iter_mut()
            .filter_map(|(label, endpoint)| endpoint.begin_reload().then(|| label.clone()));
        let labels: BTreeSet<_> = begun.collect();
        if !read.is_empty() {
            tracing::info!("{} changed: the configuration is read again", names(read.iter()));
        }
        if !app_host.is_empty() {
            tracing::info!("{} changed: the app is started anew", names(app_host.iter()));
        }
        let only = (read.is_empty() && !is_changed).then_some(labels);
        let (is_whole, fleet) = (only.is_none(), self.fleet.clone());
        let order = Order { dry_run: false, limit: READY_TIME, only, waits: true };
        self.working
            .spawn(async move { Ended::Reload { is_whole, reloaded: fleet.reload(order).await } });
    }

    /// Takes over the result of a reload. The log has the reasons of failures.
    fn end_reload(&mut self, is_whole: bool, reloaded: &Result<ProgramReloaded, Refusal>) {
        let is_failed = |label: &str| match reloaded {
            Ok(reloaded) => {
                reloaded.results.iter().any(|it| it.endpoint == label && it.error.is_some())
            }
            Err(_) => true,
        };
        self.program.end(match reloaded {
            Ok(reloaded) => is_whole && !reloaded.is_success(),
            Err(_) => true,
        });
        for (label, endpoint) in &mut self.endpoints {
            if endpoint.is_being_reloaded() {
                let failed = is_failed(label);
                endpoint.end(if failed { &Outcome::Failed } else { &Outcome::Current });
            }
        }
    }
}

/// Changes the code of an endpoint in its running workers, if that is safe.
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
            tracing::info!("{files} changed: {reason}; a new generation starts");
            Outcome::NeedsWorkers
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
