//! The endpoints of a server: each with its queue, its supervisor, and the tasks that follow them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use litplex_access::Guard;
use litplex_calls::{EndpointReport, Registry, Report, Target};
use litplex_config::{Source, Workers};
use litplex_core::Attach;
use litplex_http::{Route, ToolCache};
use litplex_pages::EndpointSchema;
use litplex_scheduler::{QueueSettings, spawn_endpoint};
use litplex_supervisor::{Limits, SlotState, Supervisor, supervise};
use litplex_workers::endpoint_span;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::app_host::AppHostSockets;
use crate::controls::EndpointControls;
use crate::dialect_path::CheckedAttach;
use crate::elastic::follow_load;
use crate::launch::{WorkerEnvironment, launcher};
use crate::placement::{Placement, place_all};
use crate::problem::{degraded, problem_for_clients, unhealthy};
use crate::telemetry::Telemetry;
use crate::watch::{Milestone, follow, follow_app_host};
use crate::{Error, ModelSource};

/// All endpoints of a running server.
pub(crate) struct Endpoints {
    endpoints: Vec<RunningEndpoint>,
    app_host: Option<Supervisor>,
    registry: Registry,
    /// The tasks that apply the autoscaler; they end with the endpoints.
    _following: JoinSet<()>,
}

/// One endpoint with its supervisor.
struct RunningEndpoint {
    config: litplex_config::Endpoint,
    schema: EndpointSchema,
    controls: Arc<EndpointControls>,
    supervisor: Supervisor,
}

impl Endpoints {
    /// Launches the workers of every endpoint and the app host, side by side.
    ///
    /// # Errors
    /// The devices are not available.
    pub(crate) fn launch(
        config: &litplex_config::Program,
        models: Vec<ModelSource>,
        environment: &WorkerEnvironment,
        app_host: Option<&AppHostSockets>,
        telemetry: &Telemetry,
    ) -> Result<Self, Error> {
        let placed = place_all(&config.endpoints)?;
        let app_host = app_host.and_then(|sockets| sockets.launch(config, environment));
        let mut following = JoinSet::new();
        let mut endpoints = Vec::new();
        for ((config, model), placement) in config.endpoints.iter().zip(models).zip(placed) {
            let launched =
                RunningEndpoint::launch(config, model, placement, environment, telemetry);
            if let Some(limits) = &launched.controls.limits {
                let EndpointControls { endpoint, view, wanted, .. } = &*launched.controls;
                let (endpoint, view, wanted) = (endpoint.clone(), view.clone(), wanted.clone());
                following.spawn(follow_load(endpoint, view, wanted, limits.subscribe()));
            }
            endpoints.push(launched);
        }
        let registry = environment.registry.clone();
        Ok(Self { endpoints, app_host, registry, _following: following })
    }

    /// Returns the largest number of workers that may run.
    pub(crate) fn most_workers(&self) -> usize {
        let most = |endpoint: &RunningEndpoint| match endpoint.config.workers {
            Workers::PerDevice(_) => endpoint.controls.devices.len(),
            Workers::Between { max, .. } => max.max(1),
        };
        self.endpoints.iter().map(most).sum()
    }

    /// Returns the controls of every endpoint.
    pub(crate) fn controls(&self) -> Vec<Arc<EndpointControls>> {
        self.endpoints.iter().map(|endpoint| endpoint.controls.clone()).collect()
    }

    /// Returns the endpoints by path, each behind its guard.
    pub(crate) fn routes(
        &self,
        guards: Vec<Arc<Guard>>,
        config: &litplex_config::Program,
    ) -> HashMap<String, Route> {
        let registry = self.registry(config.presentation.wait_for_first_worker);
        let route = |endpoint: &RunningEndpoint, guard| Route {
            target: registry.labelled(endpoint.config.label()),
            ping_interval: endpoint.config.ping_interval,
            max_body_bytes: endpoint.config.max_body_bytes,
            guard,
            metrics: endpoint.controls.edge.clone(),
            tells_ids: config.request_id,
            schema: endpoint.schema.clone(),
            tool: ToolCache::default(),
        };
        let guarded = self.endpoints.iter().zip(guards);
        guarded
            .map(|(endpoint, guard)| (endpoint.config.path().to_owned(), route(endpoint, guard)))
            .collect()
    }

    /// Sets the targets of calls, and returns their registry.
    fn registry(&self, waits_for_first_worker: bool) -> Registry {
        let target = |endpoint: &RunningEndpoint| Arc::new(endpoint.target(waits_for_first_worker));
        self.registry.replace(self.endpoints.iter().map(target).collect());
        self.registry.clone()
    }

    /// Returns a function that reports the state of all endpoints, for the pages that show it.
    pub(crate) fn reporter(&self) -> impl Fn() -> Report + Send + Sync + 'static {
        let reporters: Vec<_> = self.endpoints.iter().map(RunningEndpoint::reporter).collect();
        let app_host = self.app_host.as_ref().map(Supervisor::view);
        move || Report {
            endpoints: reporters.iter().map(|report| report()).collect(),
            app_host: app_host.as_ref().and_then(problem_for_clients),
        }
    }

    /// Logs the states of workers, and calls `ready` once all endpoints serve. Resolves only if a
    /// model or the app cannot be loaded.
    pub(crate) async fn watch(&self, ready: impl Fn()) -> Error {
        // Bounded by the endpoints: each reports once that it is ready, and failures end the server.
        let (milestones, mut reached) = mpsc::unbounded_channel();
        for RunningEndpoint { controls, .. } in &self.endpoints {
            let (label, endpoint) = (controls.label().to_owned(), controls.endpoint.clone());
            let limits = controls.limits.as_ref().map(watch::Sender::subscribe);
            let view = controls.view.clone();
            tokio::spawn(follow(label, endpoint, view, limits, milestones.clone()));
        }
        let mut starting = self.endpoints.len();
        if let Some(app_host) = &self.app_host {
            starting += 1;
            tokio::spawn(follow_app_host(app_host.view(), milestones.clone()));
        }
        while let Some(milestone) = reached.recv().await {
            match milestone {
                Milestone::Ready => starting -= 1,
                Milestone::Failed(error) => return error,
            }
            if starting == 0 {
                ready();
            }
        }
        std::future::pending().await
    }

    /// Stops all workers and the app host within this time.
    pub(crate) async fn stop(self, grace: Duration) {
        let mut stopping = JoinSet::new();
        let supervisors = self.endpoints.into_iter().map(|endpoint| endpoint.supervisor);
        for supervisor in supervisors.chain(self.app_host) {
            stopping.spawn(supervisor.stop(grace));
        }
        stopping.join_all().await;
    }
}

impl RunningEndpoint {
    fn launch(
        config: &litplex_config::Endpoint,
        ModelSource { model, schema }: ModelSource,
        placement: Placement,
        environment: &WorkerEnvironment,
        telemetry: &Telemetry,
    ) -> Self {
        let devices = placement.devices.clone();
        let endpoint =
            spawn_endpoint(queue_settings(config), telemetry.metrics.queue(config.label()));
        let attach: Arc<dyn Attach> = Arc::new(CheckedAttach::new(endpoint.clone(), config));
        let (at_start, limits) = initial_workers(config, devices.len());
        let most = limits.as_ref().map_or(at_start, |limits| limits.borrow().max.max(1));
        environment.calls.set_most_workers(config.label(), most);
        let (workers, device) = (at_start, &devices[0]);
        let (label, name) = (config.label(), &config.identity.name);
        endpoint_span(label).in_scope(|| tracing::info!(name, workers, %device, "loading"));
        let worker_telemetry = telemetry.for_workers(label);
        let unwell = worker_telemetry.unhealthy.clone();
        let launch = launcher(config, model, placement, environment, attach, worker_telemetry);
        let supervisor = supervise(launch, at_start, Default::default());
        let controls = EndpointControls {
            identity: config.identity.clone(),
            kind: kind(&config.source),
            workers: config.workers,
            devices,
            gpu_memory_fraction: config.resources.gpu_memory_fraction,
            endpoint,
            view: supervisor.view(),
            wanted: supervisor.wanted_setter(),
            limits,
            unwell,
            calls: environment.calls.clone(),
            edge: telemetry.metrics.edge(Some(label)),
        };
        Self { config: config.clone(), schema, controls: Arc::new(controls), supervisor }
    }

    fn target(&self, waits_for_first_worker: bool) -> Target {
        Target {
            identity: self.config.identity.clone(),
            endpoint: self.controls.endpoint.clone(),
            timeout: self.config.timeout,
            chunk_timeout: self.config.chunk_timeout,
            cost: self.config.cost.clone(),
            waits_for_first_worker,
            scopes: self.config.jwt_scopes.clone().unwrap_or_default(),
            metrics: self.controls.edge.clone(),
        }
    }

    fn reporter(&self) -> impl Fn() -> EndpointReport + Send + Sync + 'static {
        let controls = self.controls.clone();
        let timeout = self.config.timeout.as_secs_f64();
        let queue_timeout = self.config.queue_timeout.map(|timeout| timeout.as_secs_f64());
        let max_body_bytes = self.config.max_body_bytes;
        let devices: BTreeSet<_> = controls.devices.iter().map(ToString::to_string).collect();
        let devices = Vec::from_iter(devices);
        move || {
            let EndpointControls { identity, kind, view, endpoint, unwell, .. } = &*controls;
            let states = view.states();
            EndpointReport {
                identity: identity.clone(),
                kind,
                problem: problem_for_clients(view).or_else(|| unhealthy(unwell)),
                degraded: degraded(&states, |gone| gone.cause.for_clients().to_owned()),
                workers_ready: states.iter().filter(|s| matches!(s, SlotState::Ready(_))).count(),
                workers: view.wanted(),
                timeout,
                queue_timeout,
                devices: devices.clone(),
                max_body_bytes,
                info: endpoint.model_info().cloned(),
            }
        }
    }
}

/// Returns the number of workers at the start, and the limits of the autoscaler, if there is one.
fn initial_workers(
    config: &litplex_config::Endpoint,
    devices: usize,
) -> (usize, Option<watch::Sender<Limits>>) {
    match config.workers {
        Workers::PerDevice(_) => (devices, None),
        // An endpoint with `min_workers = 0` starts one worker, so that an error shows at the start
        // and not at the first request.
        Workers::Between { min, max } => {
            (min.max(1), Some(watch::Sender::new(Limits { min, max })))
        }
    }
}

/// Returns the kind of a model, as status pages show it.
fn kind(source: &Source) -> &'static str {
    match source {
        Source::Rust => "rust",
        Source::Python(_) => "python",
    }
}

fn queue_settings(config: &litplex_config::Endpoint) -> QueueSettings {
    QueueSettings {
        max_queue: config.max_queue,
        queue_timeout: config.queue_timeout,
        idempotent: config.idempotent,
        by_cost: config.cost.is_some() || config.max_batch_cost.is_some(),
        max_batch_cost: config.max_batch_cost,
    }
}
