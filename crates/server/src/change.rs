//! The change of a running server to another configuration: first all checks, then what comes, then what
//! changes, then what goes. An endpoint whose change fails stays as it was.

use std::collections::BTreeMap;
use std::mem::replace;
use std::sync::Arc;
use std::time::Duration;

use litplex_admin::{EndpointReloaded, EventKind, GenerationState, PlannedChange, Refusal};
use litplex_calls::{Target, TimeBudget};
use litplex_config::{Change, ConfigError, Diff, Endpoint, Program, Source};
use litplex_pages::EndpointSchema;
use litplex_supervisor::Supervisor;
use litplex_workers::{Inspection, inspect};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::access::EndpointGuard;
use crate::app_host::AppHostPlace;
use crate::check::inspection;
use crate::declared_calls;
use crate::endpoints::{EndpointLauncher, EndpointSet};
use crate::events::Events;
use crate::fits::{self, Description, Neighbours, further, refuse};
use crate::fleet::{Fleet, unused};
use crate::generation::Generation;
use crate::generation_spec::GenerationSpec;
use crate::generations;
use crate::launch::{WorkerEnvironment, locate_cache, python_sdk};
use crate::placement::{Placement, place_all};
use crate::running_endpoint::{Running, RunningEndpoint};
use crate::secrets;
use crate::size::Size;
use crate::warmup::warm_up;
use crate::watch::{Milestone, follow, follow_app_host};
use crate::{Error, ModelSource};

/// The time that the import of a model has that is inspected.
const INSPECTION_TIME: Duration = Duration::from_secs(60);

/// The time that the last requests of a replaced app host have.
const APP_HOST_TIME: Duration = Duration::from_secs(60 * 60);

/// The parts of a change that can be wrong, made before anything changes.
pub(crate) struct Prepared {
    /// By label.
    placements: BTreeMap<String, Placement>,
    /// The guards of all endpoints of the new configuration, by label. An endpoint whose keys and limits are
    /// as before keeps its guard, which has counted its callers.
    guards: BTreeMap<String, EndpointGuard>,
    environment: Arc<WorkerEnvironment>,
}

/// An endpoint that came up beside the running ones.
struct Arrived {
    endpoint: RunningEndpoint,
    target: Target,
    seconds: f64,
}

impl Fleet {
    /// Checks all that can be checked while nothing has changed.
    pub(crate) fn check_change(&self, after: &Program, diff: &Diff) -> Result<Prepared, Refusal> {
        let (mut wrong, mut guards) = (Vec::new(), BTreeMap::new());
        if self.config.app_host.is_some() != after.app_host.is_some() {
            wrong.push(
                "`server.app`, middlewares and `authorize` run in a process that is there from the \
                 start of the server, or never; restart the server"
                    .to_owned(),
            );
        }
        for endpoint in &after.endpoints {
            match self.guard_of(endpoint) {
                Ok(guard) => drop(guards.insert(endpoint.label().to_owned(), guard)),
                Err(ConfigError(errors)) => wrong.extend(errors),
            }
        }
        let placed = place_all(&after.endpoints).unwrap_or_else(|ConfigError(errors)| {
            wrong.extend(errors);
            Vec::new()
        });
        wrong.extend(self.log_options_of_new(after, diff));
        if !wrong.is_empty() {
            return Err(Refusal::conflict(ConfigError(wrong).to_string()));
        }
        let labels = after.endpoints.iter().map(|endpoint| endpoint.label().to_owned());
        let placements = labels.zip(placed).filter_map(|(label, placed)| Some((label, placed?)));
        let environment = self.environment(after)?;
        Ok(Prepared { placements: placements.collect(), guards, environment })
    }

    /// Returns the environment of workers that start from now on: variables with keys are hidden from them.
    fn environment(&self, after: &Program) -> Result<Arc<WorkerEnvironment>, Refusal> {
        let running = &self.endpoints.launcher.environment;
        let cache = locate_cache(after).map_err(|error| Refusal::conflict(error.to_string()))?;
        let mut hidden = running.secrets.clone();
        hidden.extend(secrets::hidden_from_models(after));
        hidden.sort();
        hidden.dedup();
        Ok(Arc::new(WorkerEnvironment {
            sdk: python_sdk(&self.config, cache.as_ref().or(running.cache.as_ref())),
            cache: cache.or_else(|| running.cache.clone()),
            secrets: hidden,
            ..(**running).clone()
        }))
    }

    /// Returns the guard of an endpoint: the one that it has, if its keys and limits are as before.
    fn guard_of(&self, endpoint: &Endpoint) -> Result<EndpointGuard, ConfigError> {
        let access = |it: &Endpoint| {
            let limits = (it.rate_limit, it.max_requests_per_caller);
            (it.api_keys.clone(), it.jwt_scopes.clone(), limits, it.batch_callers.clone())
        };
        match self.find(endpoint.label()) {
            Ok(running) if access(&running.config) == access(endpoint) => Ok(running.guard.clone()),
            _ => self.guards.guard(endpoint),
        }
    }

    /// Returns an error for each new endpoint with a log of its own, which is set up at the start.
    fn log_options_of_new(&self, after: &Program, diff: &Diff) -> Vec<String> {
        let is_new = |endpoint: &&Endpoint| {
            diff.endpoints
                .iter()
                .any(|it| it.label == endpoint.label() && it.change == Change::Added)
        };
        let options = |endpoint: &Endpoint| {
            let given = [
                ("log_file", endpoint.log_file.is_some()),
                ("log_level", endpoint.log_level.is_some()),
            ];
            let label = endpoint.label().to_owned();
            let given = given.into_iter().filter(|(_, is_given)| *is_given);
            given.map(move |(option, _)| {
                format!(
                    "endpoint `{label}`: `{option}` of a new endpoint needs a restart of the server"
                )
            })
        };
        after.endpoints.iter().filter(is_new).flat_map(options).collect()
    }

    /// Checks the types and the calls of the endpoints as they are to be, before anything is loaded: those of
    /// models that stay are known, and models that are to be loaded are inspected. Returns the endpoints with
    /// what is known of their models.
    pub(crate) async fn check_models(
        &self,
        after: &Program,
        diff: &Diff,
        prepared: &Prepared,
    ) -> Result<Neighbours, Refusal> {
        let running =
            |endpoint: &Endpoint| match (fits::graph(endpoint), self.find(endpoint.label())) {
                (Some(graph), _) => Description::pipeline(&EndpointSchema::default(), graph),
                (None, Ok(running)) => running.description(),
                (None, Err(_)) => Description::default(),
            };
        let models = after.endpoints.iter().map(running).collect();
        let mut planned = Neighbours { endpoints: after.endpoints.clone(), models };
        let related = planned.related();
        let mut inspected = JoinSet::new();
        for (at, endpoint) in after.endpoints.iter().enumerate() {
            let label = endpoint.label();
            let placement = prepared.placements.get(label);
            let (Some(placement), true) = (placement, diff.needs_workers(label)) else { continue };
            planned.models[at] = Description::default();
            if related.contains(label) || self.find(label).is_err() {
                let described = inspected_model(endpoint, placement, &prepared.environment);
                inspected.spawn(async move { (at, described.await) });
            }
        }
        for (at, description) in inspected.join_all().await {
            planned.models[at] = description.unwrap_or_default();
        }
        refuse(planned.errors())?;
        Ok(planned)
    }

    /// Checks a next generation of an endpoint in the same way, among the others as they are.
    pub(crate) async fn check_model(
        &self,
        spec: &GenerationSpec,
        among: &Neighbours,
    ) -> Result<(), Refusal> {
        if !among.related().contains(spec.config.label()) {
            return Ok(());
        }
        let described = inspected_model(&spec.config, &spec.placement, &spec.environment);
        match described.await {
            Some(description) => refuse(among.clone().errors_with(&spec.config, description)),
            None => Ok(()),
        }
    }

    /// Returns the specification of the next generation of an endpoint, and its guard.
    pub(crate) fn spec_of(
        &self,
        after: &Program,
        label: &str,
    ) -> Result<(Arc<GenerationSpec>, EndpointGuard), Refusal> {
        let refused = |error: ConfigError| Refusal::conflict(error.to_string());
        let at = after.endpoints.iter().position(|it| it.label() == label);
        let at = at.ok_or_else(|| Refusal::not_found(format!("there is no endpoint `{label}`")))?;
        let endpoint = &after.endpoints[at];
        let placed = place_all(&after.endpoints).map_err(refused)?.swap_remove(at);
        let placed = placed.ok_or_else(|| {
            Refusal::conflict(format!("`{label}` is now a pipeline; `litplex reload` replaces it"))
        })?;
        let guard = self.guard_of(endpoint).map_err(refused)?;
        let environment = self.environment(after)?;
        let launcher = EndpointLauncher { environment, ..self.endpoints.launcher.clone() };
        let schema = self.find(label)?.schema.clone();
        Ok((launcher.spec(endpoint, &schema, placed), guard))
    }

    /// Applies a difference. Returns the results of the endpoints that change.
    ///
    /// # Errors
    /// The app host does not start, or the new endpoints do not fit the others; then nothing has changed.
    pub(crate) async fn apply(
        &mut self,
        after: Program,
        diff: Diff,
        (prepared, planned): (Prepared, Neighbours),
        limit: Duration,
    ) -> Result<Vec<EndpointReloaded>, Refusal> {
        self.endpoints.launcher.environment = prepared.environment.clone();
        let app_host = if diff.app_host { self.start_app_host(&after, limit).await? } else { None };
        let changes: BTreeMap<_, _> =
            diff.endpoints.iter().map(|it| (it.label.as_str(), &it.change)).collect();
        let mut results = Vec::new();
        let arrived =
            self.arrive(&after, &changes, (&prepared, &planned), limit, &mut results).await;
        let arrived = match arrived {
            Ok(arrived) => arrived,
            Err(refusal) => {
                if let Some((place, supervisor)) = app_host {
                    supervisor.stop(Duration::ZERO).await;
                    place.forget();
                }
                return Err(refusal);
            }
        };
        self.commit(&after, &changes, &prepared, arrived, app_host, &mut results).await;
        self.reload_changed(&changes, (&prepared, &planned), limit, &mut results).await;
        self.remove(&changes, &mut results);
        self.endpoints.now().warn_of_cycles();
        for result in &results {
            let EndpointReloaded { endpoint, change, error, .. } = result.clone();
            self.endpoints.launcher.events.record(EventKind::Reload { endpoint, change, error });
        }
        Ok(results)
    }

    /// Launches an app host beside the running one, and waits until it is ready.
    async fn start_app_host(
        &self,
        after: &Program,
        limit: Duration,
    ) -> Result<Option<(AppHostPlace, Supervisor)>, Refusal> {
        let Some(front) = &self.app_host else { return Ok(None) };
        let (place, launcher) = (front.place.next(), &self.endpoints.launcher);
        let Some(supervisor) = place.launch(after, &launcher.environment) else { return Ok(None) };
        // Bounded: it reports once, and its failure.
        let (milestones, mut reached) = mpsc::unbounded_channel();
        tokio::spawn(follow_app_host(supervisor.view(), launcher.events.clone(), milestones));
        let reason = match timeout(limit, reached.recv()).await {
            Ok(Some(Milestone::Ready)) => return Ok(Some((place, supervisor))),
            Ok(Some(Milestone::Failed(error))) => error.to_string(),
            Ok(None) => "the supervision of the app ended".to_owned(),
            Err(_) => format!("the app was not ready after {} s", limit.as_secs_f64()),
        };
        supervisor.stop(Duration::ZERO).await;
        place.forget();
        Err(Refusal::conflict(format!("{reason}; everything stays as it was")))
    }

    /// Launches the endpoints that are new, and waits until each is ready or has failed. One that fails is left
    /// out.
    ///
    /// # Errors
    /// Those that are ready do not fit the others. All are stopped.
    async fn arrive(
        &mut self,
        after: &Program,
        changes: &BTreeMap<&str, &Change>,
        (prepared, planned): (&Prepared, &Neighbours),
        limit: Duration,
        results: &mut Vec<EndpointReloaded>,
    ) -> Result<BTreeMap<String, Arrived>, Refusal> {
        let mut starting = JoinSet::new();
        let launcher = self.endpoints.launcher.clone();
        let (mut arrived, mut ready) = (BTreeMap::new(), Vec::new());
        for endpoint in after.endpoints.iter().filter(|it| self.is_new(it, changes)) {
            let label = endpoint.label().to_owned();
            let guard = prepared.guards[&label].clone();
            if let Some((pipeline, target)) = launcher.pipeline(endpoint) {
                let (config, edge) = (endpoint.clone(), target.metrics.clone());
                let (schema, running) = (Default::default(), Running::Pipeline(pipeline));
                let endpoint = RunningEndpoint { config, schema, edge, guard, running };
                arrived.insert(label, Arrived { endpoint, target, seconds: 0.0 });
                continue;
            }
            let placement = prepared.placements[&label].clone();
            let size = Size::configured(endpoint, placement.devices.len()).awake();
            let spec = launcher.spec(endpoint, &EndpointSchema::default(), placement);
            let mut generation = Generation::launch(&spec, None, 1, size);
            let (begin, is_ready) =
                (Instant::now(), ready_and_warm(&mut generation, &launcher.events, limit));
            starting.spawn(async move {
                let ready = is_ready.await;
                (label, generation, ready, begin.elapsed().as_secs_f64())
            });
        }
        while let Some(Ok((label, generation, is_ready, seconds))) = starting.join_next().await {
            match is_ready {
                Ok(()) => ready.push((label, generation, seconds)),
                Err(reason) => {
                    generation.supervisor.stop(Duration::ZERO).await;
                    results.push(failed(&label, PlannedChange::Added, reason));
                }
            }
        }
        let mut as_loaded = planned.clone();
        for (label, generation, _) in &ready {
            as_loaded.describe(label, generation.controls.description());
        }
        if let Err(refusal) = refuse(as_loaded.errors()) {
            for (_, generation, _) in ready {
                generation.supervisor.stop(Duration::ZERO).await;
            }
            return Err(refusal);
        }
        for (label, generation, seconds) in self.callers_of_known(after, ready, results).await {
            let (guard, source) = (prepared.guards[&label].clone(), ModelSource::default());
            let (owners, first) = (&mut self.endpoints.owners, (generation, GenerationState::Live));
            let (endpoint, target) = launcher.adopt(first, source, guard, owners);
            arrived.insert(label, Arrived { endpoint, target, seconds });
        }
        Ok(arrived)
    }

    /// Returns whether an endpoint needs a queue of its own: it is new, or it was a pipeline, or becomes one.
    fn is_new(&self, endpoint: &Endpoint, changes: &BTreeMap<&str, &Change>) -> bool {
        match changes.get(endpoint.label()) {
            Some(Change::Added) => true,
            Some(Change::Reload { .. }) => {
                let is_pipeline = |it: &Endpoint| matches!(it.source, Source::Pipeline(_));
                let running = self.find(endpoint.label());
                running.is_ok_and(|it| is_pipeline(&it.config) != is_pipeline(endpoint))
            }
            _ => false,
        }
    }

    /// Returns the new endpoints whose declared calls can be made. The others are stopped.
    async fn callers_of_known(
        &self,
        after: &Program,
        mut ready: Vec<(String, Generation, f64)>,
        results: &mut Vec<EndpointReloaded>,
    ) -> Vec<(String, Generation, f64)> {
        loop {
            let is_there = |label: &str| {
                self.find(label).is_ok() || ready.iter().any(|(other, ..)| other == label)
            };
            let known = after
                .endpoints
                .iter()
                .filter(|it| matches!(it.source, Source::Pipeline(_)) || is_there(it.label()));
            let known: Vec<_> = known.cloned().collect();
            let errors = |(label, generation, _): &(String, Generation, f64)| {
                let info = generation.controls.endpoint.model_info();
                let calls = info.map(|info| info.calls.clone()).unwrap_or_default();
                declared_calls::errors(&known, label, &calls)
            };
            let Some(at) = ready.iter().position(|it| !errors(it).is_empty()) else { return ready };
            let reason = errors(&ready[at]).join("; ");
            let (label, generation, _) = ready.swap_remove(at);
            generation.supervisor.stop(Duration::ZERO).await;
            results.push(failed(&label, PlannedChange::Added, reason));
        }
    }

    /// Puts the new endpoints and the new options into effect in one step for new requests.
    async fn commit(
        &mut self,
        after: &Program,
        changes: &BTreeMap<&str, &Change>,
        prepared: &Prepared,
        mut arrived: BTreeMap<String, Arrived>,
        app_host: Option<(AppHostPlace, Supervisor)>,
        results: &mut Vec<EndpointReloaded>,
    ) {
        let before = self.endpoints.now();
        let registry = self.endpoints.registry().clone();
        let (mut next, mut replaced_endpoints) = (Vec::new(), Vec::new());
        for endpoint in &after.endpoints {
            let label = endpoint.label();
            let running = self.find(label).ok();
            if let Some(Arrived { endpoint, target, seconds }) = arrived.remove(label) {
                let old = running.map(|running| (running, registry.get(label)));
                replaced_endpoints.extend(old);
                registry.add(Arc::new(target));
                let generation = endpoint.generations().map(|it| it.live().generation);
                let change = PlannedChange::Added;
                results.push(EndpointReloaded {
                    endpoint: label.to_owned(),
                    change,
                    generation,
                    seconds: Some(seconds),
                    error: None,
                });
                next.push(Arc::new(endpoint));
            } else if let Some(running) = running {
                next.push(match changes.get(label) {
                    Some(Change::Options(_)) => {
                        let guard = prepared.guards[label].clone();
                        results.push(done(label, PlannedChange::Options));
                        Arc::new(self.with_options(&running, endpoint, guard).await)
                    }
                    _ => running,
                });
            }
        }
        let is_gone = |it: &&Arc<RunningEndpoint>| {
            !next.iter().any(|other: &Arc<RunningEndpoint>| other.label() == it.label())
        };
        let gone: Vec<_> = before.endpoints.iter().filter(is_gone).cloned().collect();
        next.extend(gone);
        let (place, supervisor) = app_host.unzip();
        let has_app_host = supervisor.is_some();
        let old_app_host = self.endpoints.replace(next, supervisor);
        let old_place = match (&mut self.app_host, place) {
            (Some(front), Some(place)) => Some(replace(&mut front.place, place)),
            _ => None,
        };
        let replaced = self.publish(has_app_host.then_some(after));
        if let Some(old) = old_app_host {
            let replaced = replaced.clone();
            self.beside(async move {
                unused(&replaced, APP_HOST_TIME).await;
                old.stop(APP_HOST_TIME).await;
                old_place.iter().for_each(AppHostPlace::forget);
            });
        }
        for (old, target) in replaced_endpoints {
            self.let_go(&old, target, replaced.clone());
        }
    }

    /// Returns an endpoint with other options, which its queue and its workers have from now on.
    async fn with_options(
        &self,
        running: &RunningEndpoint,
        config: &Endpoint,
        guard: EndpointGuard,
    ) -> RunningEndpoint {
        let mut next = running.with(config.clone(), guard);
        if let Some((pipeline, target)) = self.endpoints.launcher.pipeline(config) {
            next.running = Running::Pipeline(pipeline);
            self.endpoints.registry().add(Arc::new(target));
        }
        if let Some(generations) = running.generations() {
            let spec = generations.live().spec.clone();
            let spec = GenerationSpec { config: config.clone(), ..(*spec).clone() };
            generations.apply(Arc::new(spec)).await;
        }
        next
    }

    /// Replaces the workers of the endpoints that need new ones: one endpoint after the other, so that at
    /// most one is in memory twice.
    async fn reload_changed(
        &mut self,
        changes: &BTreeMap<&str, &Change>,
        (prepared, planned): (&Prepared, &Neighbours),
        limit: Duration,
        results: &mut Vec<EndpointReloaded>,
    ) {
        for (at, endpoint) in planned.endpoints.iter().enumerate() {
            let label = endpoint.label();
            let Some(Change::Reload { .. }) = changes.get(label) else { continue };
            let (Ok(running), Some(placement)) = (self.find(label), prepared.placements.get(label))
            else {
                continue;
            };
            let Some(generations) = running.generations().cloned() else { continue };
            if running.config == *endpoint && !has_files(changes[label]) {
                // It was replaced as a whole.
                continue;
            }
            let spec = self.endpoints.launcher.spec(endpoint, &running.schema, placement.clone());
            let among = self.neighbours_of(planned, at, changes);
            let order =
                generations::Order { spec: Some(spec), limit, trial: None, swap: None, among };
            results.push(match generations.reload(order).await {
                Ok(reloaded) => {
                    self.put(running.with(endpoint.clone(), prepared.guards[label].clone()));
                    self.publish(None);
                    EndpointReloaded {
                        generation: Some(reloaded.generation),
                        seconds: Some(reloaded.seconds),
                        ..done(label, PlannedChange::Reload)
                    }
                }
                Err(refusal) => failed(label, PlannedChange::Reload, refusal.reason),
            });
        }
    }

    /// Returns the endpoints that the one at this place must fit: those before it as they run now, and those
    /// whose turn is still to come as they are planned.
    fn neighbours_of(
        &self,
        planned: &Neighbours,
        at: usize,
        changes: &BTreeMap<&str, &Change>,
    ) -> Neighbours {
        let both = planned.endpoints.iter().zip(&planned.models).enumerate();
        let (endpoints, models) = both
            .filter_map(|(place, (endpoint, model))| {
                let running = self.find(endpoint.label()).ok()?;
                let is_to_come = place > at
                    && matches!(changes.get(endpoint.label()), Some(Change::Reload { .. }));
                Some(if is_to_come {
                    (endpoint.clone(), model.clone())
                } else {
                    (running.config.clone(), running.description())
                })
            })
            .unzip();
        Neighbours { endpoints, models }
    }

    /// Removes endpoints, except for those that are still called.
    fn remove(&mut self, changes: &BTreeMap<&str, &Change>, results: &mut Vec<EndpointReloaded>) {
        let now = self.endpoints.now();
        let is_removed =
            |it: &Arc<RunningEndpoint>| matches!(changes.get(it.label()), Some(Change::Removed));
        let (removed, kept): (Vec<_>, Vec<_>) =
            now.endpoints.iter().cloned().partition(|it| is_removed(it));
        if removed.is_empty() {
            return;
        }
        let errors = |endpoints| EndpointSet::new(endpoints, None).neighbours().errors();
        let broken = further(errors(kept.clone()), &errors(now.endpoints.clone()));
        if !broken.is_empty() {
            let reason = format!("it stays, because it is called: {}", broken.join("; "));
            let stays = |it: &Arc<RunningEndpoint>| {
                failed(it.label(), PlannedChange::Removed, reason.clone())
            };
            results.extend(removed.iter().map(stays));
            return;
        }
        self.endpoints.replace(kept, None);
        let replaced = self.publish(None);
        for endpoint in removed {
            results.push(done(endpoint.label(), PlannedChange::Removed));
            let target = self.endpoints.registry().get(endpoint.label());
            self.let_go(&endpoint, target, replaced.clone());
        }
    }
}

/// Follows the workers of a first generation, and resolves when all are ready and warm, or with the reason why
/// they are not.
fn ready_and_warm(
    generation: &mut Generation,
    events: &Events,
    limit: Duration,
) -> impl Future<Output = Result<(), String>> + Send + use<> {
    let (controls, target) = (generation.controls.clone(), generation.target(None));
    // Bounded: a generation reports at most once for each worker.
    let (milestones, mut reached) = mpsc::unbounded_channel();
    generation.following.spawn(follow(controls.clone(), None, events.clone(), milestones));
    let budget = TimeBudget::new(Instant::now(), limit);
    async move {
        match timeout(limit, reached.recv()).await {
            Ok(Some(Milestone::Ready)) => {
                warm_up(&controls, target, controls.spec.config.warmup, budget).await
            }
            Ok(Some(Milestone::Failed(Error::Launch { cause, .. }))) => Err(cause.to_string()),
            Ok(Some(Milestone::Failed(error))) => Err(error.to_string()),
            Ok(None) => Err("its supervision ended".into()),
            Err(_) => Err(format!("it was not ready after {} s", limit.as_secs_f64())),
        }
    }
}

/// Inspects the model of an endpoint. `None`: there is none in Python, or it is wrong, which its load will show.
fn inspected_model(
    endpoint: &Endpoint,
    placement: &Placement,
    environment: &WorkerEnvironment,
) -> impl Future<Output = Option<Description>> + Send + use<> {
    let WorkerEnvironment { sdk, cache, secrets, .. } = environment;
    let (sdk, cache, secrets) = (sdk.clone(), cache.clone(), secrets.clone());
    let found = inspection(endpoint, Some(placement));
    let found = found.map(|it| Inspection { sdk, cache, secrets, limit: INSPECTION_TIME, ..it });
    async move {
        let model = inspect(&found?).await.ok()?;
        Some(Description::inspected(&EndpointSchema::default(), &model))
    }
}

fn has_files(change: &Change) -> bool {
    matches!(change, Change::Reload { files, .. } if !files.is_empty())
}

fn done(label: &str, change: PlannedChange) -> EndpointReloaded {
    let endpoint = label.to_owned();
    EndpointReloaded { endpoint, change, generation: None, seconds: None, error: None }
}

fn failed(label: &str, change: PlannedChange, reason: String) -> EndpointReloaded {
    EndpointReloaded { error: Some(reason), ..done(label, change) }
}
