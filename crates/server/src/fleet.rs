//! The task that owns the endpoints of a server: it reads the configuration again, and applies what has
//! changed. What an endpoint does with new workers is left to its generations.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use litplex_admin::{FailedReload, ProgramReloaded, Refusal};
use litplex_calls::Target;
use litplex_config::{ChangedFiles, Diff, Endpoint, Program, Source};
use litplex_core::LoadedFile;
use litplex_http::{App, Replaced};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};

use crate::access::{EndpointGuard, GuardMaker};
use crate::app_host::{AppHostFront, AppHostPlace};
use crate::endpoints::{CurrentEndpoints, Endpoints};
use crate::events::timestamp;
use crate::fits::Neighbours;
use crate::generation_spec::GenerationSpec;
use crate::generations::Generations;
use crate::middleware::browsers;
use crate::running_endpoint::RunningEndpoint;
use crate::seen_files::{SeenFiles, changed};
use crate::source::{ConfigSource, Read, keep_others};

/// The number of commands that wait for the task.
const COMMANDS: usize = 4;

/// The time between two looks whether requests still use what was replaced.
const LOOK: Duration = Duration::from_millis(50);

/// An order to read the configuration again.
#[derive(Debug)]
pub(crate) struct Order {
    /// Whether to return the plan alone.
    pub(crate) dry_run: bool,
    /// The time that the new workers of each endpoint have to become ready.
    pub(crate) limit: Duration,
    /// The labels of the endpoints that may change, and the app host; `None`: all of the program. Where the
    /// configuration cannot be read, these keep the one that they have.
    pub(crate) only: Option<BTreeSet<String>>,
    /// Whether to wait for the end of another reload.
    pub(crate) waits: bool,
}

impl Order {
    /// Returns an order of an operator.
    pub(crate) fn new(dry_run: bool, limit: Duration) -> Self {
        Self { dry_run, limit, only: None, waits: false }
    }
}

/// The files that a server was read and started from, apart from those of workers.
#[derive(Clone, Default)]
pub(crate) struct ProgramFiles {
    /// The files from which the configuration was read.
    pub(crate) read: BTreeSet<LoadedFile>,
    /// The place of the app host, which reports those that it has loaded.
    pub(crate) app_host: Option<AppHostPlace>,
}

/// A command for the task.
enum Command {
    /// Read the configuration again, and apply what has changed.
    Reload(Order, oneshot::Sender<Result<ProgramReloaded, Refusal>>),
    /// Read the configuration of the endpoint with this label again.
    Prepare(String, Duration, oneshot::Sender<Result<Prepared, Refusal>>),
    /// Take over the configuration of an endpoint that was reloaded with it.
    Adopt(Box<Prepared>),
    /// Stop all endpoints within this time.
    Stop(Duration, oneshot::Sender<()>),
}

/// The next generation of an endpoint, whose configuration was read again.
pub(crate) struct Prepared {
    pub(crate) generations: Generations,
    /// The specification of the next generation; `None` for that of the live one.
    pub(crate) spec: Option<Arc<GenerationSpec>>,
    /// The endpoints that the next generation must fit.
    pub(crate) among: Neighbours,
    guard: Option<EndpointGuard>,
}

/// The task, as others see it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FleetHandle {
    commands: mpsc::Sender<Command>,
    current: CurrentEndpoints,
    config: watch::Receiver<Arc<Program>>,
    files: watch::Receiver<ProgramFiles>,
    failed: watch::Receiver<Option<FailedReload>>,
}

impl FleetHandle {
    /// Returns the endpoints, which may change.
    pub(crate) fn current(&self) -> CurrentEndpoints {
        self.current.clone()
    }

    /// Returns the configuration that is served.
    pub(crate) fn config(&self) -> Arc<Program> {
        self.config.borrow().clone()
    }

    /// Returns the files that the configuration was read from, and the place of the app host.
    pub(crate) fn files(&self) -> ProgramFiles {
        self.files.borrow().clone()
    }

    /// Returns the last reload of the whole program, if it failed.
    pub(crate) fn failed(&self) -> Option<FailedReload> {
        self.failed.borrow().clone()
    }

    /// Reads the configuration again, and applies what has changed. A drop of the future does not end the
    /// reload.
    pub(crate) async fn reload(&self, order: Order) -> Result<ProgramReloaded, Refusal> {
        self.ask(|done| Command::Reload(order, done)).await
    }

    /// Reads the configuration of an endpoint again, within this time.
    pub(crate) async fn prepare(&self, label: &str, limit: Duration) -> Result<Prepared, Refusal> {
        self.ask(|done| Command::Prepare(label.to_owned(), limit, done)).await
    }

    /// Tells that an endpoint was reloaded as prepared.
    pub(crate) async fn adopt(&self, prepared: Prepared) {
        // The task may have ended.
        let _ = self.commands.send(Command::Adopt(Box::new(prepared))).await;
    }

    /// Stops all endpoints within this time.
    pub(crate) async fn stop(&self, grace: Duration) {
        let (done, stopped) = oneshot::channel();
        let _ = self.commands.send(Command::Stop(grace, done)).await;
        let _ = stopped.await;
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Command,
    ) -> Result<T, Refusal> {
        let (done, result) = oneshot::channel();
        let stopping = || Refusal::conflict("the server is stopping");
        self.commands.send(command(done)).await.map_err(|_| stopping())?;
        result.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// The task.
pub(crate) struct Fleet {
    /// The configuration that is served: options of the server that need a restart are as they were.
    pub(crate) config: Program,
    pub(crate) source: ConfigSource,
    pub(crate) guards: GuardMaker,
    pub(crate) endpoints: Endpoints,
    pub(crate) app: Arc<App>,
    pub(crate) app_host: Option<AppHostFront>,
    /// The files of endpoints as their workers have read them.
    files: SeenFiles,
    /// The configuration, for others.
    shown: watch::Sender<Arc<Program>>,
    program_files: watch::Sender<ProgramFiles>,
    failed: watch::Sender<Option<FailedReload>>,
    commands: mpsc::Receiver<Command>,
    /// The tasks that wait for the last requests of removed endpoints and replaced app hosts.
    leaving: JoinSet<()>,
    /// The generations of removed endpoints, which may still have requests.
    removed: Vec<Generations>,
}

/// The parts of a running server that the task takes over.
pub(crate) struct FleetParts {
    pub(crate) config: Program,
    pub(crate) source: ConfigSource,
    pub(crate) guards: GuardMaker,
    pub(crate) endpoints: Endpoints,
    pub(crate) app: Arc<App>,
    pub(crate) app_host: Option<AppHostFront>,
}

impl Fleet {
    /// Returns the task, which must be spawned, and its handle.
    pub(crate) fn new(parts: FleetParts) -> (Self, FleetHandle) {
        let FleetParts { config, source, guards, endpoints, app, app_host } = parts;
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (failed, failures) = watch::channel(None);
        let current = endpoints.current();
        let (shown, served) = watch::channel(Arc::new(config.clone()));
        let place = app_host.as_ref().map(|front| front.place.clone());
        let program_files = ProgramFiles { read: source.files(), app_host: place };
        let (program_files, read) = watch::channel(program_files);
        let handle = FleetHandle {
            commands: sender,
            current,
            config: served,
            files: read,
            failed: failures,
        };
        let (leaving, removed) = (JoinSet::new(), Vec::new());
        let files = SeenFiles::of(&config.endpoints);
        let fleet = Self {
            config,
            source,
            guards,
            endpoints,
            app,
            app_host,
            files,
            shown,
            program_files,
            failed,
            commands,
            leaving,
            removed,
        };
        (fleet, handle)
    }

    /// Runs until the endpoints are stopped.
    pub(crate) async fn run(mut self) {
        let (_, closed) = mpsc::channel(1);
        let mut commands = std::mem::replace(&mut self.commands, closed);
        let mut waiting = VecDeque::new();
        loop {
            let command = match waiting.pop_front() {
                Some(command) => Some(command),
                None => tokio::select! {
                    command = commands.recv() => command,
                    Some(_) = self.leaving.join_next() => continue,
                },
            };
            let stop = match command {
                None => return,
                Some(Command::Stop(grace, done)) => Some((grace, done)),
                Some(Command::Adopt(prepared)) => {
                    self.adopt(*prepared);
                    None
                }
                Some(Command::Prepare(label, limit, done)) => tokio::select! {
                    prepared = self.prepare(&label, limit) => {
                        // The client may have left.
                        let _ = done.send(prepared);
                        None
                    }
                    stop = until_stop(&mut commands, &mut waiting) => Some(stop),
                },
                Some(Command::Reload(order, done)) => tokio::select! {
                    reloaded = self.reload(&order) => {
                        self.note(&order, &reloaded);
                        let _ = done.send(reloaded);
                        None
                    }
                    stop = until_stop(&mut commands, &mut waiting) => Some(stop),
                },
            };
            if let Some((grace, done)) = stop {
                self.stop(grace).await;
                let _ = done.send(());
                return;
            }
        }
    }

    async fn stop(mut self, grace: Duration) {
        self.leaving.shutdown().await;
        for generations in &self.removed {
            generations.stop(grace).await;
        }
        self.endpoints.stop(grace).await;
    }

    /// Reads the configuration again. Without `dry_run` it also applies what has changed.
    async fn reload(&mut self, order: &Order) -> Result<ProgramReloaded, Refusal> {
        self.check_started()?;
        let after = self.read(order).await?;
        let (now, mut files) = self.look_at_files(&after).await;
        if let Some(labels) = &order.only {
            files.endpoints.retain(|label, _| labels.contains(label));
        }
        let diff = Diff::between(&self.config, &after, &files);
        let prepared = self.check_change(&after, &diff)?;
        let planned = self.check_models(&after, &diff, &prepared).await?;
        let plan = crate::reload_plan::plan(&diff);
        if order.dry_run {
            return Ok(ProgramReloaded { plan, results: Vec::new() });
        }
        let results = self.apply(after, diff, (prepared, planned), order.limit).await?;
        let failed = results.iter().filter(|result| result.error.is_some());
        let mut stayed: Vec<_> = failed.map(|result| &*result.endpoint).collect();
        if let Some(labels) = &order.only {
            let others = self.config.endpoints.iter().map(Endpoint::label);
            stayed.extend(others.filter(|label| !labels.contains(*label)));
        }
        self.files.take(now, &stayed);
        Ok(ProgramReloaded { plan, results })
    }

    /// Reads the configuration again, as far as the order is about it.
    async fn read(&self, order: &Order) -> Result<Program, Refusal> {
        let read = self.source.read(&self.config, order.limit).await;
        match (read, &order.only) {
            (Ok(Read { mut program, files }), only) => {
                self.program_files.send_modify(|known| known.read = files);
                if let Some(labels) = only {
                    keep_others(&self.config, &mut program, labels);
                }
                Ok(program)
            }
            // The new workers say what is wrong, if it is about them.
            (Err(_), Some(_)) => Ok(self.config.clone()),
            (Err(error), None) => Err(Refusal::conflict(error.to_string())),
        }
    }

    /// Returns the files that a new configuration names as they are now, and the files that have changed since
    /// workers and the app host have loaded them.
    async fn look_at_files(&self, after: &Program) -> (SeenFiles, ChangedFiles) {
        let (seen, endpoints) = (self.files.clone(), after.endpoints.clone());
        let loaded = self.endpoints.now().sources();
        let app_host = self.app_host.as_ref().map(|front| front.place.clone());
        let look = move || {
            let now = SeenFiles::of(&endpoints);
            let app_host = app_host.map(|place| changed(&place.sources())).unwrap_or_default();
            let files = ChangedFiles { endpoints: seen.changed(&now, &loaded), app_host };
            (now, files)
        };
        // Only a panic, or the end of the runtime, is an error.
        spawn_blocking(look).await.unwrap_or_default()
    }

    /// Refuses a reload while the server starts.
    fn check_started(&self) -> Result<(), Refusal> {
        let live = self.endpoints.now().generations().into_iter().map(|it| it.live());
        match live.into_iter().find(|controls| controls.is_new()) {
            Some(controls) => {
                Err(Refusal::conflict(format!("`{}` is still starting", controls.label())))
            }
            None => Ok(()),
        }
    }

    /// Logs the result of a reload, and keeps the reason of a failure.
    fn note(&self, order: &Order, reloaded: &Result<ProgramReloaded, Refusal>) {
        if order.dry_run {
            return;
        }
        let reason = match reloaded {
            Ok(reloaded) => {
                let errors = reloaded.results.iter().filter_map(|result| result.error.clone());
                let errors = Vec::from_iter(errors).join("; ");
                (!errors.is_empty()).then_some(errors)
            }
            Err(refusal) => Some(refusal.reason.clone()),
        };
        match &reason {
            Some(reason) => tracing::error!("the reload failed: {reason}"),
            None => tracing::info!("the configuration is reloaded"),
        }
        let failed = reason.map(|reason| FailedReload { since: timestamp(), reason });
        self.failed.send_replace(failed);
    }

    /// Reads the configuration of an endpoint again, for its next generation. Without a source, that has the
    /// configuration of the live one.
    async fn prepare(&self, label: &str, limit: Duration) -> Result<Prepared, Refusal> {
        let running = self.find(label)?;
        let Some(generations) = running.generations().cloned() else {
            return Err(Refusal::conflict(format!(
                "`{label}` is a pipeline, which has no workers; reload the endpoints that it calls"
            )));
        };
        let (spec, guard) = self.next_spec(&running, limit).await?.unzip();
        let among = self.endpoints.now().neighbours();
        if matches!(running.config.source, Source::Python(_)) {
            let next = spec.clone().unwrap_or_else(|| generations.live().spec.clone());
            self.check_model(&next, &among).await?;
        }
        Ok(Prepared { generations, spec, among, guard })
    }

    /// Returns the specification of the next generation of an endpoint whose configuration has changed, and its
    /// guard.
    async fn next_spec(
        &self,
        running: &RunningEndpoint,
        limit: Duration,
    ) -> Result<Option<(Arc<GenerationSpec>, EndpointGuard)>, Refusal> {
        let label = running.label();
        if !self.source.is_readable() || !matches!(running.config.source, Source::Python(_)) {
            return Ok(None);
        }
        let after = self.source.read(&self.config, limit).await;
        let after = after.map_err(|error| Refusal::conflict(error.to_string()))?.program;
        let Some(endpoint) = after.endpoints.iter().find(|it| it.label() == label) else {
            return Err(Refusal::conflict(format!(
                "the configuration has no `{label}` any more; `litplex reload` removes it"
            )));
        };
        if *endpoint == running.config {
            return Ok(None);
        }
        self.spec_of(&after, label).map(Some)
    }

    /// Takes over the configuration with which an endpoint was reloaded.
    fn adopt(&mut self, prepared: Prepared) {
        let Prepared { generations, spec, guard, .. } = prepared;
        let Some(spec) = spec else {
            return self.files.take_one(&generations.live().spec.config);
        };
        let label = generations.identity().label.clone();
        let Ok(running) = self.find(&label) else { return };
        let guard = guard.unwrap_or_else(|| running.guard.clone());
        self.put(running.with(spec.config.clone(), guard));
        self.publish(None);
        self.files.take_one(&spec.config);
    }

    pub(crate) fn find(&self, label: &str) -> Result<Arc<RunningEndpoint>, Refusal> {
        let now = self.endpoints.now();
        let found = now.endpoints.iter().find(|it| it.label() == label).cloned();
        let unknown = || Refusal::not_found(format!("there is no endpoint `{label}`"));
        found.ok_or_else(unknown)
    }

    /// Replaces the endpoint with the label of this one.
    pub(crate) fn put(&mut self, endpoint: RunningEndpoint) {
        let mut endpoints = self.endpoints.now().endpoints.clone();
        if let Some(place) = endpoints.iter_mut().find(|it| it.label() == endpoint.label()) {
            *place = Arc::new(endpoint);
        }
        self.endpoints.replace(endpoints, None);
    }

    /// Makes the endpoints, and the app host, those of new requests. Returns the use of those before. `after` is
    /// the configuration whose app host is new.
    pub(crate) fn publish(&mut self, after: Option<&Program>) -> Replaced {
        let now = self.endpoints.now();
        self.config.endpoints = now.configs();
        if let Some(after) = after {
            self.config.app_host = after.app_host.clone();
        }
        self.shown.send_replace(Arc::new(self.config.clone()));
        let routes = now.routes(self.endpoints.registry(), self.config.request_id);
        let place = self.app_host.as_ref().map(|front| front.place.clone());
        self.program_files.send_modify(|files| files.app_host = place);
        let front = self.app_host.as_ref().map(|front| front.routes(&self.config));
        self.app.replace(routes, front, browsers(&self.config))
    }

    /// Lets the requests of a removed endpoint finish, and stops its workers.
    pub(crate) fn let_go(
        &mut self,
        endpoint: &RunningEndpoint,
        target: Option<Arc<Target>>,
        replaced: Replaced,
    ) {
        let registry = self.endpoints.registry().clone();
        let (limit, generations) = (endpoint.config.timeout, endpoint.generations().cloned());
        self.removed.extend(generations.clone());
        self.leaving.spawn(async move {
            // A request that is at the gate has at most its time budget until it is in the queue.
            unused(&replaced, limit).await;
            if let Some(target) = target {
                registry.remove(&target);
            }
            if let Some(generations) = generations {
                generations.leave().await;
            }
        });
    }

    /// Runs a task beside the requests, until the server stops.
    pub(crate) fn beside(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.leaving.spawn(task);
    }
}

/// Resolves when no request uses what was replaced, or after this time.
pub(crate) async fn unused(replaced: &Replaced, limit: Duration) {
    let begin = Instant::now();
    while replaced.is_used() && begin.elapsed() < limit {
        sleep(LOOK).await;
    }
}

/// Refuses commands until the server stops. Keeps those that can wait.
async fn until_stop(
    commands: &mut mpsc::Receiver<Command>,
    waiting: &mut VecDeque<Command>,
) -> (Duration, oneshot::Sender<()>) {
    let busy = || Refusal::conflict("the server is being reloaded; wait for its end");
    loop {
        // The client may have left.
        match commands.recv().await {
            None => std::future::pending().await,
            Some(Command::Stop(grace, done)) => return (grace, done),
            Some(command @ Command::Adopt(_)) => waiting.push_back(command),
            Some(Command::Reload(order, done)) if order.waits => {
                waiting.push_back(Command::Reload(order, done));
            }
            Some(Command::Reload(_, done)) => drop(done.send(Err(busy()))),
            Some(Command::Prepare(_, _, done)) => drop(done.send(Err(busy()))),
        }
    }
}
