//! The endpoints of a server: each with its queue, its supervisor, and the tasks that follow them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use litplex_access::Guard;
use litplex_calls::{
    Backend, Composed, EndpointReport, Registry, Report, Target, Targets, declared_cycles,
};
use litplex_config::{ConfigError, Source, Workers};
use litplex_core::{Attach, Identity};
use litplex_http::{Route, ToolCache};
use litplex_metrics::Edge;
use litplex_pages::EndpointSchema;
use litplex_pipelines::Graph;
use litplex_scheduler::{QueueSettings, spawn_endpoint};
use litplex_supervisor::{Limits, SlotState, Supervisor, supervise};
use litplex_workers::endpoint_span;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::administered::Administered;
use crate::app_host::AppHostSockets;
use crate::controls::EndpointControls;
use crate::declared_calls;
use crate::dialect_path::CheckedAttach;
use crate::elastic::{follow_load, stuck_workers};
use crate::events::Events;
use crate::launch::{WorkerEnvironment, launcher};
use crate::pipeline_types::{self, TypedEndpoint, types};
use crate::pipelines::{Pipeline, PipelineState};
use crate::placement::{Placement, place_all};
use crate::problem::{degraded, problem_for_clients, unhealthy};
use crate::telemetry::Telemetry;
use crate::watch::{Milestone, follow, follow_app_host};
use crate::{Error, ModelSource, RustModel};

/// All endpoints of a running server.
pub(crate) struct Endpoints {
    endpoints: Vec<RunningEndpoint>,
    /// The targets of calls. Pipelines have it, too: it is emptied when the endpoints stop.
    registry: Registry,
    app_host: Option<Supervisor>,
    /// The tasks that apply the autoscaler; they end with the endpoints.
    _following: JoinSet<()>,
}

/// One endpoint.
struct RunningEndpoint {
    config: litplex_config::Endpoint,
    schema: EndpointSchema,
    /// The metrics of its requests at the HTTP edge.
    edge: Edge,
    running: Running,
}

/// The running part of an endpoint.
enum Running {
    /// Workers with their supervisor.
    Workers { controls: Arc<EndpointControls>, supervisor: Supervisor },
    /// A pipeline, which has none.
    Pipeline(Arc<Pipeline>),
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
        let wrong = declared_calls::errors_of_models(&config.endpoints, &models);
        if !wrong.is_empty() {
            return Err(ConfigError(wrong).into());
        }
        let placed = place_all(&config.endpoints)?;
        let app_host = app_host.and_then(|sockets| sockets.launch(config, environment));
        let registry = environment.registry.clone();
        let mut endpoints = Vec::new();
        for ((config, model), placement) in config.endpoints.iter().zip(models).zip(placed) {
            let ModelSource { model, schema, .. } = model;
            let edge = telemetry.metrics.edge(Some(config.label()));
            let steps = telemetry.metrics.steps(config.label());
            let running = match (placement, Pipeline::new(config, steps, &environment.calls)) {
                (_, Some(pipeline)) => Running::Pipeline(Arc::new(pipeline)),
                (Some(placement), None) => {
                    Running::launch(config, model, placement, environment, telemetry, &edge)
                }
                (None, None) => unreachable!("workers have places. This is a bug."),
            };
            endpoints.push(RunningEndpoint { config: config.clone(), schema, edge, running });
        }
        let waits_for_first_worker = config.presentation.wait_for_first_worker;
        let target = |it: &RunningEndpoint| Arc::new(it.target(waits_for_first_worker));
        registry.replace(endpoints.iter().map(target).collect());
        let mut following = JoinSet::new();
        for controls in endpoints.iter().filter_map(RunningEndpoint::controls) {
            if let Some(limits) = &controls.limits {
                let EndpointControls { endpoint, view, wanted, .. } = &**controls;
                let (endpoint, view, wanted) = (endpoint.clone(), view.clone(), wanted.clone());
                let stuck = stuck_workers(environment.calls.clone(), controls.label());
                following.spawn(follow_load(endpoint, view, wanted, limits.subscribe(), stuck));
            }
        }
        Ok(Self { endpoints, registry, app_host, _following: following })
    }

    /// Returns the largest number of workers that may run.
    pub(crate) fn most_workers(&self) -> usize {
        let most = |controls: &Arc<EndpointControls>| match controls.workers {
            Workers::PerDevice(_) => controls.devices.len(),
            Workers::Between { max, .. } => max.max(1),
        };
        self.endpoints.iter().filter_map(RunningEndpoint::controls).map(most).sum()
    }

    /// Returns the controls of every endpoint with workers.
    pub(crate) fn controls(&self) -> Vec<Arc<EndpointControls>> {
        self.endpoints.iter().filter_map(RunningEndpoint::controls).cloned().collect()
    }

    /// Returns every endpoint, for operators.
    pub(crate) fn administered(&self) -> Vec<Administered> {
        let administered = |endpoint: &RunningEndpoint| match &endpoint.running {
            Running::Workers { controls, .. } => Administered::Workers(controls.clone()),
            Running::Pipeline(_) => {
                let (identity, edge) = (endpoint.config.identity.clone(), endpoint.edge.clone());
                Administered::Pipeline(PipelineState { identity, edge })
            }
        };
        self.endpoints.iter().map(administered).collect()
    }

    /// Returns the endpoints, each behind its guard.
    pub(crate) fn routes(
        &self,
        guards: Vec<Arc<Guard>>,
        config: &litplex_config::Program,
    ) -> Vec<Route> {
        let route = |(endpoint, guard): (&RunningEndpoint, _)| Route {
            identity: endpoint.config.identity.clone(),
            target: self.registry.labelled(endpoint.config.label()),
            ping_interval: endpoint.config.ping_interval,
            max_body_bytes: endpoint.config.max_body_bytes,
            guard,
            metrics: endpoint.edge.clone(),
            tells_ids: config.request_id,
            schema: endpoint.schema.clone(),
            tool: ToolCache::default(),
        };
        self.endpoints.iter().zip(guards).map(route).collect()
    }

    /// Returns a function that reports the state of all endpoints, for the pages that show it.
    pub(crate) fn reporter(&self) -> impl Fn() -> Report + Send + Sync + 'static {
        let identities = self.endpoints.iter().map(|it| it.config.identity.clone());
        let identities: Arc<[Arc<Identity>]> = identities.collect();
        let reporters = self.endpoints.iter().map(|it| it.reporter(identities.clone()));
        let reporters: Vec<_> = reporters.collect();
        let app_host = self.app_host.as_ref().map(Supervisor::view);
        move || Report {
            endpoints: reporters.iter().map(|report| report()).collect(),
            app_host: app_host.as_ref().and_then(problem_for_clients),
        }
    }

    /// Logs the states of workers, and calls `ready` once all endpoints serve. Resolves only if a
    /// model or the app cannot be loaded.
    pub(crate) async fn watch(&self, events: &Events, ready: impl Fn()) -> Error {
        // Bounded by the endpoints: each reports once that it is ready, and failures end the server.
        let (milestones, mut reached) = mpsc::unbounded_channel();
        let controls = self.controls();
        for controls in &controls {
            let (label, endpoint) = (controls.label().to_owned(), controls.endpoint.clone());
            let limits = controls.limits.as_ref().map(watch::Sender::subscribe);
            let view = controls.view.clone();
            let (events, milestones) = (events.clone(), milestones.clone());
            tokio::spawn(follow(label, endpoint, view, limits, events, milestones));
        }
        let mut starting = controls.len();
        if let Some(app_host) = &self.app_host {
            starting += 1;
            tokio::spawn(follow_app_host(app_host.view(), events.clone(), milestones.clone()));
        }
        if starting == 0 {
            ready();
        }
        while let Some(milestone) = reached.recv().await {
            match milestone {
                Milestone::Ready => starting -= 1,
                Milestone::Failed(error) => return error,
            }
            if starting == 0 {
                let mut errors = self.misfits();
                errors.extend(self.missing_callees());
                if !errors.is_empty() {
                    return ConfigError(errors).into();
                }
                self.warn_of_cycles();
                ready();
            }
        }
        std::future::pending().await
    }

    /// Returns the errors in the types of pipelines, as far as the models have described themselves.
    fn misfits(&self) -> Vec<String> {
        let typed = self.endpoints.iter().map(|endpoint| TypedEndpoint {
            identity: &endpoint.config.identity,
            graph: endpoint.graph(),
            types: endpoint.types(),
        });
        pipeline_types::errors(&Vec::from_iter(typed))
    }

    /// Returns an error for each call that a model declares of an endpoint that does not exist.
    fn missing_callees(&self) -> Vec<String> {
        let configs = self.configs();
        let errors = self.declaring().flat_map(|(endpoint, calls)| {
            let label = endpoint.config.label();
            declared_calls::errors(&configs, label, &calls)
        });
        errors.collect()
    }

    /// Logs the cycles among the calls that models declare.
    fn warn_of_cycles(&self) {
        let configs = self.configs();
        let declared = self.declaring().map(|(endpoint, calls)| {
            declared_calls::declared(&configs, &endpoint.config, &calls, endpoint.places())
        });
        for cycle in declared_cycles(&Vec::from_iter(declared)) {
            tracing::warn!("{cycle}");
        }
    }

    fn configs(&self) -> Vec<litplex_config::Endpoint> {
        self.endpoints.iter().map(|endpoint| endpoint.config.clone()).collect()
    }

    /// Returns the endpoints, and the references by which they call others.
    fn declaring(&self) -> impl Iterator<Item = (&RunningEndpoint, Vec<String>)> {
        self.endpoints.iter().map(|endpoint| (endpoint, endpoint.declared_calls()))
    }

    /// Stops all workers and the app host within this time.
    pub(crate) async fn stop(self, grace: Duration) {
        self.registry.replace(Targets::default());
        let mut stopping = JoinSet::new();
        let supervisors = self.endpoints.into_iter().filter_map(|it| match it.running {
            Running::Workers { supervisor, .. } => Some(supervisor),
            Running::Pipeline(_) => None,
        });
        for supervisor in supervisors.chain(self.app_host) {
            stopping.spawn(supervisor.stop(grace));
        }
        stopping.join_all().await;
    }
}

impl Running {
    /// Launches the workers of an endpoint.
    fn launch(
        config: &litplex_config::Endpoint,
        model: Option<RustModel>,
        placement: Placement,
        environment: &WorkerEnvironment,
        telemetry: &Telemetry,
        edge: &Edge,
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
            edge: edge.clone(),
        };
        Self::Workers { controls: Arc::new(controls), supervisor }
    }
}

impl RunningEndpoint {
    /// Returns the controls, if the endpoint has workers.
    fn controls(&self) -> Option<&Arc<EndpointControls>> {
        match &self.running {
            Running::Workers { controls, .. } => Some(controls),
            Running::Pipeline(_) => None,
        }
    }

    /// Returns the graph, if the endpoint is a pipeline.
    fn graph(&self) -> Option<&Graph> {
        match &self.running {
            Running::Pipeline(pipeline) => Some(pipeline.graph()),
            Running::Workers { .. } => None,
        }
    }

    /// Returns the references by which it calls other endpoints, as far as they are known.
    fn declared_calls(&self) -> Vec<String> {
        match &self.running {
            Running::Pipeline(pipeline) => declared_calls::callees(pipeline.graph()),
            Running::Workers { controls, .. } => {
                controls.endpoint.model_info().map(|info| info.calls.clone()).unwrap_or_default()
            }
        }
    }

    /// Returns the most hooks that its workers run at once; `None` for a pipeline.
    fn places(&self) -> Option<usize> {
        let controls = self.controls()?;
        let (_, limits) = initial_workers(&self.config, 1);
        let workers = limits.map_or(controls.devices.len(), |limits| limits.borrow().max);
        let places = controls.endpoint.model_info().map_or(1, |info| info.places);
        Some(workers * places)
    }

    /// Returns the schemas of requests and responses, as the model and the program declare them.
    fn types(&self) -> Value {
        let info = self.controls().and_then(|controls| controls.endpoint.model_info());
        let declared = info.map_or(&Value::Null, |info| &info.schema);
        types(&self.schema, declared, info.map(|info| info.stream))
    }

    fn target(&self, waits_for_first_worker: bool) -> Target {
        Target {
            identity: self.config.identity.clone(),
            backend: match &self.running {
                Running::Workers { controls, .. } => Backend::Queue(controls.endpoint.clone()),
                Running::Pipeline(pipeline) => Backend::Composed(pipeline.clone()),
            },
            timeout: self.config.timeout,
            chunk_timeout: self.config.chunk_timeout,
            cost: self.config.cost.clone(),
            waits_for_first_worker,
            scopes: self.config.jwt_scopes.clone().unwrap_or_default(),
            metrics: self.edge.clone(),
            demand: Arc::default(),
        }
    }

    /// Returns a function that reports its state; it calls endpoints among these.
    fn reporter(
        &self,
        endpoints: Arc<[Arc<Identity>]>,
    ) -> Box<dyn Fn() -> EndpointReport + Send + Sync> {
        match &self.running {
            Running::Workers { controls, .. } => {
                Box::new(self.worker_reporter(controls.clone(), endpoints))
            }
            Running::Pipeline(pipeline) => {
                let report = self.pipeline_report(pipeline, &endpoints);
                Box::new(move || report.clone())
            }
        }
    }

    /// Returns the report of a pipeline: it has no state of its own, and its endpoints have reports.
    fn pipeline_report(&self, pipeline: &Pipeline, endpoints: &[Arc<Identity>]) -> EndpointReport {
        let (label, source) = (self.config.label(), &self.config.source);
        EndpointReport {
            calls: declared_calls::edges(endpoints, label, source, &[]),
            identity: self.config.identity.clone(),
            kind: "pipeline",
            problem: None,
            degraded: None,
            workers_ready: 0,
            workers: 0,
            timeout: self.config.timeout.as_secs_f64(),
            queue_timeout: None,
            devices: Vec::new(),
            max_body_bytes: self.config.max_body_bytes,
            info: Some(pipeline.info().clone()),
            pipeline: Some(pipeline.graph().definition().clone()),
        }
    }

    fn worker_reporter(
        &self,
        controls: Arc<EndpointControls>,
        endpoints: Arc<[Arc<Identity>]>,
    ) -> impl Fn() -> EndpointReport + Send + Sync + 'static {
        let source = self.config.source.clone();
        let timeout = self.config.timeout.as_secs_f64();
        let queue_timeout = self.config.queue_timeout.map(|timeout| timeout.as_secs_f64());
        let max_body_bytes = self.config.max_body_bytes;
        let devices: BTreeSet<_> = controls.devices.iter().map(ToString::to_string).collect();
        let devices = Vec::from_iter(devices);
        move || {
            let EndpointControls { identity, kind, view, endpoint, unwell, .. } = &*controls;
            let states = view.states();
            let info = endpoint.model_info();
            let calls = info.map_or(&[][..], |info| &info.calls);
            EndpointReport {
                calls: declared_calls::edges(&endpoints, &identity.label, &source, calls),
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
                info: info.cloned(),
                pipeline: None,
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
pub(crate) fn kind(source: &Source) -> &'static str {
    match source {
        Source::Rust => "rust",
        Source::Python(_) => "python",
        Source::Pipeline(_) => "pipeline",
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
