//! The endpoints of a server: each with its queue, its supervisor, and the tasks that follow them.

use std::sync::Arc;
use std::time::Duration;

use litplex_admin::GenerationState;
use litplex_calls::{Registry, Report, Target, Targets, TimeBudget, declared_cycles};
use litplex_config::{ConfigError, Endpoint, Workers};
use litplex_core::{Identity, LaunchError};
use litplex_http::Route;
use litplex_pages::EndpointSchema;
use litplex_supervisor::{Supervisor, View};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::access::EndpointGuard;
use crate::administered::Administered;
use crate::app_host::AppHostPlace;
use crate::controls::EndpointControls;
use crate::declared_calls;
use crate::events::Events;
use crate::fits::Neighbours;
use crate::generation::Generation;
use crate::generation_spec::GenerationSpec;
use crate::generations::Generations;
use crate::launch::WorkerEnvironment;
use crate::pipelines::Pipeline;
use crate::placement::{Placement, log_threads, place_all};
use crate::problem::problem_for_clients;
use crate::running_endpoint::{Running, RunningEndpoint, composed_target};
use crate::seen_files::Loaded;
use crate::size::Size;
use crate::telemetry::Telemetry;
use crate::warmup::warm_up;
use crate::watch::{Milestone, follow, follow_app_host};
use crate::{Error, ModelSource};

/// The time that the warm-up of an endpoint may take at the start of a server.
const WARM_UP_TIME: Duration = Duration::from_secs(600);

/// The endpoints of a server at one time, as pages, operators, metrics and the history read them.
#[derive(Default)]
pub(crate) struct EndpointSet {
    pub(crate) endpoints: Vec<Arc<RunningEndpoint>>,
    /// The endpoints for operators, in the same order.
    pub(crate) administered: Vec<Arc<Administered>>,
    app_host: Option<View>,
}

/// The endpoints of a server now.
pub(crate) type CurrentEndpoints = watch::Receiver<Arc<EndpointSet>>;

/// All endpoints of a running server.
pub(crate) struct Endpoints {
    set: watch::Sender<Arc<EndpointSet>>,
    pub(crate) launcher: EndpointLauncher,
    app_host: Option<Supervisor>,
    /// The tasks that own the generations of endpoints.
    pub(crate) owners: JoinSet<()>,
}

/// The parts that endpoints are launched with.
#[derive(Clone)]
pub(crate) struct EndpointLauncher {
    pub(crate) environment: Arc<WorkerEnvironment>,
    pub(crate) telemetry: Telemetry,
    pub(crate) events: Events,
    pub(crate) waits_for_first_worker: bool,
}

impl EndpointLauncher {
    /// Returns the specification of a generation.
    pub(crate) fn spec(
        &self,
        config: &Endpoint,
        schema: &EndpointSchema,
        placement: Placement,
    ) -> Arc<GenerationSpec> {
        Arc::new(GenerationSpec {
            config: config.clone(),
            placement,
            environment: self.environment.clone(),
            telemetry: self.telemetry.clone(),
            edge: self.telemetry.metrics.edge(Some(config.label())),
            schema: schema.clone(),
            waits_for_first_worker: self.waits_for_first_worker,
        })
    }

    /// Returns a pipeline, and its target; `None` if the endpoint is no pipeline.
    pub(crate) fn pipeline(&self, config: &Endpoint) -> Option<(Arc<Pipeline>, Target)> {
        let metrics = &self.telemetry.metrics;
        let pipeline =
            Pipeline::new(config, metrics.steps(config.label()), &self.environment.calls)?;
        let pipeline = Arc::new(pipeline);
        let edge = metrics.edge(Some(config.label()));
        let target = composed_target(config, &edge, pipeline.clone());
        Some((pipeline, target))
    }

    /// Starts the task of the generations of an endpoint, in `owners`; the first one is in this state. Returns
    /// the endpoint and its target.
    pub(crate) fn adopt(
        &self,
        (first, state): (Generation, GenerationState),
        source: ModelSource,
        guard: EndpointGuard,
        owners: &mut JoinSet<()>,
    ) -> (RunningEndpoint, Target) {
        let config = first.controls.spec.config.clone();
        let edge = first.controls.edge.clone();
        let target = first.target(None);
        let registry = self.environment.registry.clone();
        let generations = Generations::spawn(first, state, registry, self.events.clone(), owners);
        let running = Running::Workers(generations);
        (RunningEndpoint { config, schema: source.schema, edge, guard, running }, target)
    }

    /// Launches an endpoint.
    fn launch(
        &self,
        config: &Endpoint,
        mut source: ModelSource,
        placement: Option<Placement>,
        guard: EndpointGuard,
        owners: &mut JoinSet<()>,
    ) -> (RunningEndpoint, Target) {
        if let Some((pipeline, target)) = self.pipeline(config) {
            let (config, schema) = (config.clone(), source.schema);
            let (edge, running) = (target.metrics.clone(), Running::Pipeline(pipeline));
            return (RunningEndpoint { config, schema, edge, guard, running }, target);
        }
        let placement = placement.expect("workers have places. This is a bug.");
        let size = Size::configured(config, placement.devices.len());
        let spec = self.spec(config, &source.schema, placement);
        let first = Generation::launch(&spec, source.model.take(), 1, size);
        self.adopt((first, GenerationState::Starting), source, guard, owners)
    }
}

impl Endpoints {
    /// Launches the workers of every endpoint and the app host, side by side.
    ///
    /// # Errors
    /// The devices are not available.
    pub(crate) fn launch(
        config: &litplex_config::Program,
        models: Vec<ModelSource>,
        guards: Vec<EndpointGuard>,
        environment: &Arc<WorkerEnvironment>,
        app_host: Option<&AppHostPlace>,
        telemetry: &Telemetry,
        events: &Events,
    ) -> Result<Self, Error> {
        let wrong = declared_calls::errors_of_models(&config.endpoints, &models);
        if !wrong.is_empty() {
            return Err(ConfigError(wrong).into());
        }
        let placed = place_all(&config.endpoints)?;
        log_threads(&config.endpoints, &placed);
        let app_host = app_host.and_then(|place| place.launch(config, environment));
        let launcher = EndpointLauncher {
            environment: environment.clone(),
            telemetry: telemetry.clone(),
            events: events.clone(),
            waits_for_first_worker: config.presentation.wait_for_first_worker,
        };
        let (mut endpoints, mut targets, mut owners) = (Vec::new(), Vec::new(), JoinSet::new());
        let sources = models.into_iter().zip(placed).zip(guards);
        for (config, ((source, placement), guard)) in config.endpoints.iter().zip(sources) {
            let (endpoint, target) = launcher.launch(config, source, placement, guard, &mut owners);
            targets.push(Arc::new(target));
            endpoints.push(Arc::new(endpoint));
        }
        environment.registry.replace(targets.into_iter().collect());
        let set = EndpointSet::new(endpoints, app_host.as_ref());
        Ok(Self { set: watch::Sender::new(Arc::new(set)), launcher, app_host, owners })
    }

    /// Returns the endpoints, which may change.
    pub(crate) fn current(&self) -> CurrentEndpoints {
        self.set.subscribe()
    }

    /// Returns the endpoints now.
    pub(crate) fn now(&self) -> Arc<EndpointSet> {
        self.set.borrow().clone()
    }

    /// Replaces the endpoints, and if there is one, the app host; returns the one before it.
    pub(crate) fn replace(
        &mut self,
        endpoints: Vec<Arc<RunningEndpoint>>,
        app_host: Option<Supervisor>,
    ) -> Option<Supervisor> {
        let before = app_host.and_then(|app_host| self.app_host.replace(app_host));
        self.set.send_replace(Arc::new(EndpointSet::new(endpoints, self.app_host.as_ref())));
        before
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.launcher.environment.registry
    }

    /// Stops all workers and the app host within this time.
    pub(crate) async fn stop(self, grace: Duration) {
        // Pipelines have the registry, too.
        self.registry().replace(Targets::default());
        let now = self.now();
        let stop_app_host = async {
            if let Some(app_host) = self.app_host {
                app_host.stop(grace).await;
            }
        };
        let stop_endpoints = async {
            for generations in now.generations() {
                generations.stop(grace).await;
            }
            self.owners.join_all().await;
        };
        tokio::join!(stop_app_host, stop_endpoints);
    }
}

impl EndpointSet {
    /// Returns a set of endpoints with an app host.
    pub(crate) fn new(endpoints: Vec<Arc<RunningEndpoint>>, app_host: Option<&Supervisor>) -> Self {
        let administered = endpoints.iter().map(|it| Arc::new(it.administered())).collect();
        Self { endpoints, administered, app_host: app_host.map(Supervisor::view) }
    }

    /// Returns the largest number of workers that may run.
    pub(crate) fn most_workers(&self) -> usize {
        let most = |controls: Arc<EndpointControls>| match controls.workers {
            Workers::PerDevice(_) => controls.devices.len(),
            Workers::Between { max, .. } => max.max(1),
        };
        self.endpoints.iter().filter_map(|it| it.controls()).map(most).sum()
    }

    /// Returns the source files that the workers of each endpoint have loaded, by their labels.
    pub(crate) fn sources(&self) -> Loaded {
        let loaded = self.endpoints.iter().filter_map(|endpoint| {
            Some((endpoint.label().to_owned(), endpoint.controls()?.sources()))
        });
        loaded.collect()
    }

    /// Returns the generations of every endpoint with workers.
    pub(crate) fn generations(&self) -> Vec<Generations> {
        self.endpoints.iter().filter_map(|it| it.generations()).cloned().collect()
    }

    /// Returns the endpoints, each behind its guard.
    pub(crate) fn routes(&self, registry: &Registry, tells_ids: bool) -> Vec<Route> {
        self.endpoints.iter().map(|endpoint| endpoint.route(registry, tells_ids)).collect()
    }

    /// Returns the state of all endpoints, for the pages that show it.
    pub(crate) fn report(&self) -> Report {
        let identities: Vec<Arc<Identity>> =
            self.endpoints.iter().map(|it| it.config.identity.clone()).collect();
        Report {
            endpoints: self.endpoints.iter().map(|it| it.report(&identities)).collect(),
            app_host: self.app_host.as_ref().and_then(problem_for_clients),
        }
    }

    /// Logs the states of workers, and calls `ready` once all endpoints serve. Resolves only if a
    /// model or the app cannot be loaded.
    pub(crate) async fn watch(&self, events: &Events, ready: impl Fn()) -> Error {
        // Bounded by the endpoints: each reports once that it is ready, and failures end the server.
        let (milestones, mut reached) = mpsc::unbounded_channel();
        let generations = self.generations();
        let mut starting = 0;
        for generations in &generations {
            let controls = generations.live();
            let is_asleep = controls.size.borrow().workers == 0;
            if is_asleep {
                generations.note_first(GenerationState::Live).await;
            }
            starting += usize::from(!is_asleep);
            let milestones = match is_asleep {
                true => mpsc::unbounded_channel().0,
                false => noted(generations.clone(), milestones.clone()),
            };
            tokio::spawn(follow(controls, None, events.clone(), milestones));
        }
        if let Some(app_host) = &self.app_host {
            starting += 1;
            tokio::spawn(follow_app_host(app_host.clone(), events.clone(), milestones.clone()));
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
                let errors = self.neighbours().errors();
                if !errors.is_empty() {
                    return ConfigError(errors).into();
                }
                self.warn_of_cycles();
                ready();
            }
        }
        std::future::pending().await
    }

    /// Returns the endpoints with the descriptions of their models.
    pub(crate) fn neighbours(&self) -> Neighbours {
        let models = self.endpoints.iter().map(|endpoint| endpoint.description()).collect();
        Neighbours { endpoints: self.configs(), models }
    }

    /// Logs the cycles among the calls that models declare.
    pub(crate) fn warn_of_cycles(&self) {
        let configs = self.configs();
        let declared = self.endpoints.iter().map(|endpoint| {
            let calls = endpoint.description().calls;
            declared_calls::declared(&configs, &endpoint.config, &calls, endpoint.places())
        });
        for cycle in declared_cycles(&Vec::from_iter(declared)) {
            tracing::warn!("{cycle}");
        }
    }

    pub(crate) fn configs(&self) -> Vec<Endpoint> {
        self.endpoints.iter().map(|endpoint| endpoint.config.clone()).collect()
    }
}

/// Returns where the milestones of an endpoint's first workers go: to `milestones`, after the warm-up that its
/// configuration asks for. The list of its generations shows how far the first one has come.
fn noted(
    generations: Generations,
    milestones: mpsc::UnboundedSender<Milestone>,
) -> mpsc::UnboundedSender<Milestone> {
    let controls = generations.live();
    // Bounded as that of the milestones.
    let (before, mut reached) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(milestone) = reached.recv().await {
            let milestone = match milestone {
                Milestone::Ready => match first_warm_up(&generations, &controls).await {
                    Ok(()) => Milestone::Ready,
                    Err(error) => Milestone::Failed(error),
                },
                failed => failed,
            };
            if matches!(milestone, Milestone::Ready) {
                generations.note_first(GenerationState::Live).await;
            }
            let _ = milestones.send(milestone);
        }
    });
    before
}

/// Warms up the first workers of an endpoint, if its configuration asks for it.
async fn first_warm_up(
    generations: &Generations,
    controls: &Arc<EndpointControls>,
) -> Result<(), Error> {
    let rounds = controls.spec.config.warmup.filter(|rounds| *rounds > 0);
    let target = controls.spec.environment.registry.get(controls.label());
    let (Some(rounds), Some(target)) = (rounds, target) else { return Ok(()) };
    generations.note_first(GenerationState::Warming).await;
    let budget = TimeBudget::new(Instant::now(), WARM_UP_TIME);
    let warm = warm_up(controls, (*target).clone(), Some(rounds), budget).await;
    warm.map_err(|reason| Error::Launch {
        endpoint: controls.label().to_owned(),
        cause: LaunchError::new(reason),
    })
}
