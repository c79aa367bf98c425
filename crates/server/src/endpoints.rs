//! The endpoints of a server: each with its queue, its supervisor, and the tasks that follow them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use litplex_access::Guard;
use litplex_calls::{
    Backend, Composed, EndpointReport, Lease, Registry, Report, Target, Targets, TimeBudget,
    declared_cycles,
};
use litplex_config::{ConfigError, Workers};
use litplex_core::{Identity, LaunchError};
use litplex_http::{Route, ToolCache};
use litplex_metrics::Edge;
use litplex_pages::EndpointSchema;
use litplex_pipelines::Graph;
use litplex_supervisor::{SlotState, Supervisor};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::administered::Administered;
use crate::app_host::AppHostSockets;
use crate::call_types::{self, TypedEndpoint, types};
use crate::controls::EndpointControls;
use crate::declared_calls;
use crate::events::Events;
use crate::generation::{Generation, GenerationSpec, Size};
use crate::generations::Generations;
use crate::launch::WorkerEnvironment;
use crate::pipelines::{Pipeline, PipelineState};
use crate::placement::place_all;
use crate::problem::{degraded, problem_for_clients, unhealthy};
use crate::telemetry::Telemetry;
use crate::warmup::warm_up;
use crate::watch::{Milestone, follow, follow_app_host};
use crate::{Error, ModelSource};

/// The time that the warm-up of an endpoint may take at the start of a server.
const WARM_UP_TIME: Duration = Duration::from_secs(600);

/// All endpoints of a running server.
pub(crate) struct Endpoints {
    endpoints: Vec<RunningEndpoint>,
    /// The targets of calls. Pipelines have it, too: it is emptied when the endpoints stop.
    registry: Registry,
    app_host: Option<Supervisor>,
    /// The tasks that own the generations of endpoints.
    owners: JoinSet<()>,
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
    /// Generations of workers.
    Workers(Generations),
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
        environment: &Arc<WorkerEnvironment>,
        app_host: Option<&AppHostSockets>,
        telemetry: &Telemetry,
        events: &Events,
    ) -> Result<Self, Error> {
        let wrong = declared_calls::errors_of_models(&config.endpoints, &models);
        if !wrong.is_empty() {
            return Err(ConfigError(wrong).into());
        }
        let placed = place_all(&config.endpoints)?;
        let app_host = app_host.and_then(|sockets| sockets.launch(config, environment));
        let registry = environment.registry.clone();
        let waits_for_first_worker = config.presentation.wait_for_first_worker;
        let (mut endpoints, mut targets, mut owners) = (Vec::new(), Vec::new(), JoinSet::new());
        for ((config, model), placement) in config.endpoints.iter().zip(models).zip(placed) {
            let ModelSource { model, schema, .. } = model;
            let edge = telemetry.metrics.edge(Some(config.label()));
            let steps = telemetry.metrics.steps(config.label());
            let (running, target) =
                match (placement, Pipeline::new(config, steps, &environment.calls)) {
                    (_, Some(pipeline)) => {
                        let pipeline = Arc::new(pipeline);
                        let target = composed_target(config, &edge, pipeline.clone());
                        (Running::Pipeline(pipeline), target)
                    }
                    (Some(placement), None) => {
                        let size = Size::configured(config, placement.devices.len());
                        let spec = Arc::new(GenerationSpec {
                            config: config.clone(),
                            placement,
                            environment: environment.clone(),
                            telemetry: telemetry.clone(),
                            edge: edge.clone(),
                            schema: schema.clone(),
                            waits_for_first_worker,
                        });
                        let first = Generation::launch(&spec, model, 1, size);
                        let target = first.target(None);
                        let (registry, events) = (registry.clone(), events.clone());
                        let generations = Generations::spawn(first, registry, events, &mut owners);
                        (Running::Workers(generations), target)
                    }
                    (None, None) => unreachable!("workers have places. This is a bug."),
                };
            targets.push(Arc::new(target));
            endpoints.push(RunningEndpoint { config: config.clone(), schema, edge, running });
        }
        registry.replace(targets.into_iter().collect());
        Ok(Self { endpoints, registry, app_host, owners })
    }

    /// Returns the largest number of workers that may run.
    pub(crate) fn most_workers(&self) -> usize {
        let most = |controls: Arc<EndpointControls>| match controls.workers {
            Workers::PerDevice(_) => controls.devices.len(),
            Workers::Between { max, .. } => max.max(1),
        };
        self.endpoints.iter().filter_map(RunningEndpoint::controls).map(most).sum()
    }

    /// Returns the generations of every endpoint with workers.
    pub(crate) fn generations(&self) -> Vec<Generations> {
        self.endpoints.iter().filter_map(RunningEndpoint::generations).cloned().collect()
    }

    /// Returns every endpoint, for operators.
    pub(crate) fn administered(&self) -> Vec<Administered> {
        let administered = |endpoint: &RunningEndpoint| match &endpoint.running {
            Running::Workers(generations) => Administered::Workers(generations.clone()),
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
        let generations = self.generations();
        for controls in generations.iter().map(Generations::live) {
            let milestones = warmed(controls.clone(), self.registry.clone(), milestones.clone());
            tokio::spawn(follow(controls, None, events.clone(), milestones));
        }
        let mut starting = generations.len();
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
        call_types::errors(&Vec::from_iter(typed))
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
        let stop_app_host = async {
            if let Some(app_host) = self.app_host {
                app_host.stop(grace).await;
            }
        };
        let stop_endpoints = async {
            for generations in self.endpoints.iter().filter_map(RunningEndpoint::generations) {
                generations.stop(grace).await;
            }
            self.owners.join_all().await;
        };
        tokio::join!(stop_app_host, stop_endpoints);
    }
}

impl RunningEndpoint {
    /// Returns the generations, if the endpoint has workers.
    fn generations(&self) -> Option<&Generations> {
        match &self.running {
            Running::Workers(generations) => Some(generations),
            Running::Pipeline(_) => None,
        }
    }

    /// Returns the controls of the live generation, if the endpoint has workers.
    fn controls(&self) -> Option<Arc<EndpointControls>> {
        self.generations().map(Generations::live)
    }

    /// Returns the graph, if the endpoint is a pipeline.
    fn graph(&self) -> Option<&Graph> {
        match &self.running {
            Running::Pipeline(pipeline) => Some(pipeline.graph()),
            Running::Workers(_) => None,
        }
    }

    /// Returns the references by which it calls other endpoints, as far as they are known.
    fn declared_calls(&self) -> Vec<String> {
        match &self.running {
            Running::Pipeline(pipeline) => declared_calls::callees(pipeline.graph()),
            Running::Workers(generations) => {
                let controls = generations.live();
                controls.endpoint.model_info().map(|info| info.calls.clone()).unwrap_or_default()
            }
        }
    }

    /// Returns the most hooks that its workers run at once; `None` for a pipeline.
    fn places(&self) -> Option<usize> {
        let controls = self.controls()?;
        let limits = Size::configured(&self.config, 1).limits;
        let workers = limits.map_or(controls.devices.len(), |limits| limits.max);
        let places = controls.endpoint.model_info().map_or(1, |info| info.places);
        Some(workers * places)
    }

    /// Returns the schemas of requests and responses, as the model and the program declare them.
    fn types(&self) -> Value {
        let controls = self.controls();
        let info = controls.as_ref().and_then(|controls| controls.endpoint.model_info());
        let declared = info.map_or(&Value::Null, |info| &info.schema);
        types(&self.schema, declared, info.map(|info| info.stream))
    }

    /// Returns a function that reports its state; it calls endpoints among these.
    fn reporter(
        &self,
        endpoints: Arc<[Arc<Identity>]>,
    ) -> Box<dyn Fn() -> EndpointReport + Send + Sync> {
        match &self.running {
            Running::Workers(generations) => {
                Box::new(self.worker_reporter(generations.clone(), endpoints))
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
        generations: Generations,
        endpoints: Arc<[Arc<Identity>]>,
    ) -> impl Fn() -> EndpointReport + Send + Sync + 'static {
        let source = self.config.source.clone();
        let timeout = self.config.timeout.as_secs_f64();
        let queue_timeout = self.config.queue_timeout.map(|timeout| timeout.as_secs_f64());
        let max_body_bytes = self.config.max_body_bytes;
        let devices = generations.live().devices.iter().map(ToString::to_string).collect();
        let devices = Vec::from_iter::<BTreeSet<_>>(devices);
        move || {
            let controls = generations.live();
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

/// Returns where the milestones of an endpoint's first workers go: to `milestones`, after the warm-up that its
/// configuration asks for.
fn warmed(
    controls: Arc<EndpointControls>,
    registry: Registry,
    milestones: mpsc::UnboundedSender<Milestone>,
) -> mpsc::UnboundedSender<Milestone> {
    let rounds = controls.spec.config.warmup.filter(|rounds| *rounds > 0);
    let Some(rounds) = rounds else { return milestones };
    // Bounded as that of the milestones.
    let (before, mut reached) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(milestone) = reached.recv().await {
            let milestone = match (milestone, registry.get(controls.label())) {
                (Milestone::Ready, Some(target)) => {
                    let budget = TimeBudget::new(Instant::now(), WARM_UP_TIME);
                    match warm_up(&controls, (*target).clone(), Some(rounds), budget).await {
                        Ok(()) => Milestone::Ready,
                        Err(reason) => Milestone::Failed(Error::Launch {
                            endpoint: controls.label().to_owned(),
                            cause: LaunchError::new(reason),
                        }),
                    }
                }
                (milestone, _) => milestone,
            };
            let _ = milestones.send(milestone);
        }
    });
    before
}

/// Returns a pipeline as its callers see it.
fn composed_target(
    config: &litplex_config::Endpoint,
    edge: &Edge,
    pipeline: Arc<Pipeline>,
) -> Target {
    Target {
        identity: config.identity.clone(),
        backend: Backend::Composed(pipeline),
        timeout: config.timeout,
        chunk_timeout: config.chunk_timeout,
        cost: config.cost.clone(),
        waits_for_first_worker: false,
        scopes: config.jwt_scopes.clone().unwrap_or_default(),
        metrics: edge.clone(),
        demand: Arc::default(),
        lease: Lease::default(),
        trial: None,
    }
}
