//! All endpoints of a server, with those who look after them.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use litplex_access::Guard;
use litplex_calls::{EndpointReport, Registry, Report, Target};
use litplex_config::{Source, Workers};
use litplex_core::{Attach, WorkerExit};
use litplex_dirs::Cache;
use litplex_http::{Described, Route};
use litplex_metrics::{Metrics, UserMetrics};
use litplex_scheduler::{QueueSettings, spawn_endpoint};
use litplex_supervisor::{Health, Limits, Outlook, SlotState, Supervisor, View, health, supervise};
use litplex_workers::{Sdk, Unwell};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::app_host::Passage;
use crate::desk::Controls;
use crate::elastic::follow_load;
use crate::launch::{Places, launch_of};
use crate::log::LogFiles;
use crate::placement::{Placement, place_all};
use crate::secrets;
use crate::watch::{Milestone, follow, follow_app_host};
use crate::{Error, Given};

/// All endpoints.
pub(crate) struct Crew {
    members: Vec<Member>,
    app_host: Option<Supervisor>,
    /// What follows the load of endpoints; it ends with them.
    _following: JoinSet<()>,
}

/// One endpoint.
struct Member {
    config: litplex_config::Endpoint,
    described: Described,
    controls: Arc<Controls>,
    supervisor: Supervisor,
}

impl Crew {
    /// Launches the workers of every endpoint, side by side, and the app host at the other end of
    /// the passage; their sockets are in `run_dir`, and some print to a file.
    pub(crate) fn launch(
        config: &litplex_config::Program,
        given: Vec<Given>,
        (run_dir, log_files): (&Path, LogFiles),
        passage: Option<&Passage>,
        measured: (&Metrics, &UserMetrics),
    ) -> Result<Self, Error> {
        let placed = place_all(&config.endpoints)?;
        let cache = cache_of(config)?;
        let sdk = sdk_of(config, cache.as_ref());
        let request_ids = config.request_id;
        let run_dir = run_dir.to_owned();
        let (secrets, python_flags) = (secrets::of_models(config), config.python_flags.clone());
        let places = Places { sdk, cache, python_flags, run_dir, request_ids, log_files, secrets };
        let app_host = config.app_host.as_ref().zip(passage);
        let app_host = app_host.and_then(|(host, passage)| {
            passage.launch(host, config.app_heartbeat, &places, secrets::of_app_host(config))
        });
        let mut following = JoinSet::new();
        let mut members = Vec::new();
        for ((config, given), placement) in config.endpoints.iter().zip(given).zip(placed) {
            let member = Member::launch(config, given, placement, &places, measured);
            if let Some(limits) = &member.controls.limits {
                let Controls { endpoint, view, wanted, .. } = &*member.controls;
                let (endpoint, view, wanted) = (endpoint.clone(), view.clone(), wanted.clone());
                following.spawn(follow_load(endpoint, view, wanted, limits.subscribe()));
            }
            members.push(member);
        }
        Ok(Self { members, app_host, _following: following })
    }

    /// Returns how many workers there may be.
    pub(crate) fn most_workers(&self) -> usize {
        let most = |member: &Member| match member.config.workers {
            Workers::PerDevice(_) => member.controls.devices.len(),
            Workers::Between { max, .. } => max.max(1),
        };
        self.members.iter().map(most).sum()
    }

    /// Returns what can be seen and set of every endpoint.
    pub(crate) fn controls(&self) -> Vec<Arc<Controls>> {
        self.members.iter().map(|member| member.controls.clone()).collect()
    }

    /// Returns the endpoints by path, each behind its guard.
    pub(crate) fn routes(
        &self,
        guards: Vec<Arc<Guard>>,
        config: &litplex_config::Program,
    ) -> HashMap<String, Route> {
        let targets = self
            .members
            .iter()
            .map(|member| (member.config.path.clone(), Arc::new(member.target(config.litserve))));
        let registry = Registry::new(targets.collect());
        let route = |member: &Member, guard| Route {
            target: registry.named(&member.config.path),
            ping_interval: member.config.ping_interval,
            max_body_bytes: member.config.max_body_bytes,
            guard,
            metrics: member.controls.edge.clone(),
            tells_ids: config.request_id,
            described: member.described.clone(),
        };
        let guarded = self.members.iter().zip(guards);
        guarded.map(|(member, guard)| (member.config.path.clone(), route(member, guard))).collect()
    }

    pub(crate) fn reporter(&self) -> impl Fn() -> Report + Send + Sync + 'static {
        let reporters: Vec<_> = self.members.iter().map(Member::reporter).collect();
        let app_host = self.app_host.as_ref().map(Supervisor::view);
        move || Report {
            endpoints: reporters.iter().map(|report| report()).collect(),
            app_host: app_host.as_ref().and_then(problem_for_clients),
        }
    }

    /// Logs what happens to the workers, and once that all are ready. Resolves only when a model or
    /// the app cannot be loaded at all.
    ///
    /// `ready` is called when all endpoints serve for the first time.
    pub(crate) async fn watch(&self, ready: impl Fn()) -> Error {
        let (milestones, mut reached) = mpsc::unbounded_channel();
        for Member { controls, .. } in &self.members {
            let (path, endpoint) = (controls.path.clone(), controls.endpoint.clone());
            let limits = controls.limits.as_ref().map(watch::Sender::subscribe);
            let view = controls.view.clone();
            tokio::spawn(follow(path, endpoint, view, limits, milestones.clone()));
        }
        let mut starting = self.members.len();
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

    pub(crate) async fn stop(self, grace: Duration) {
        let mut stopping = JoinSet::new();
        let supervisors = self.members.into_iter().map(|member| member.supervisor);
        for supervisor in supervisors.chain(self.app_host) {
            stopping.spawn(supervisor.stop(grace));
        }
        stopping.join_all().await;
    }
}

impl Member {
    fn launch(
        config: &litplex_config::Endpoint,
        Given { model, described }: Given,
        placement: Placement,
        places: &Places,
        (metrics, user): (&Metrics, &UserMetrics),
    ) -> Self {
        let devices = placement.devices.clone();
        let endpoint = spawn_endpoint(queue_settings(config), metrics.queue(&config.path));
        let attach: Arc<dyn Attach> = Arc::new(endpoint.clone());
        let (at_start, limits) = match config.workers {
            Workers::PerDevice(_) => (devices.len(), None),
            // An endpoint that may have no worker starts one all the same: what is wrong with it
            // should be seen now, and not by the first who calls it.
            Workers::Between { min, max } => {
                (min.max(1), Some(watch::Sender::new(Limits { min, max })))
            }
        };
        let (workers, device, path) = (at_start, &devices[0], &config.path);
        tracing::info!(endpoint = path, workers, %device, "{path} is loading");
        let (unwell, sink) = (Unwell::default(), user.sink(&config.path));
        let watched = (unwell.clone(), sink, metrics.stages(&config.path));
        let launch = launch_of(config, model, placement, places, attach, watched);
        let supervisor = supervise(launch, at_start, Default::default());
        let controls = Controls {
            path: config.path.clone(),
            kind: match config.source {
                Source::Rust => "rust",
                Source::Python(_) => "python",
            },
            workers: config.workers,
            devices,
            gpu_memory_fraction: config.resources.gpu_memory_fraction,
            endpoint,
            view: supervisor.view(),
            wanted: supervisor.wanted_setter(),
            limits,
            unwell,
            edge: metrics.edge(Some(&config.path)),
        };
        Self { config: config.clone(), described, controls: Arc::new(controls), supervisor }
    }

    fn target(&self, waits_for_first_worker: bool) -> Target {
        Target {
            endpoint: self.controls.endpoint.clone(),
            timeout: self.config.timeout,
            chunk_timeout: self.config.chunk_timeout,
            cost: self.config.cost.clone(),
            waits_for_first_worker,
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
            let Controls { path, kind, view, endpoint, unwell, .. } = &*controls;
            let states = view.states();
            EndpointReport {
                path: path.clone(),
                kind,
                problem: problem_for_clients(view).or_else(|| says_unwell(unwell)),
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

/// Returns the Python package that workers run.
pub(crate) fn sdk_of(config: &litplex_config::Program, cache: Option<&Cache>) -> Sdk {
    match &config.sdk {
        Some(installed) => Sdk::installed(installed.clone()),
        None => cache.cloned().map(Sdk::unpacked).unwrap_or_default(),
    }
}

/// Finds the place of what is made once, where anything is.
pub(crate) fn cache_of(config: &litplex_config::Program) -> Result<Option<Cache>, Error> {
    let has_python = config.endpoints.iter().any(|e| matches!(e.source, Source::Python(_)));
    let has_requirements = config.endpoints.iter().any(|e| e.requirements.is_some());
    let has_no_sdk = has_python && config.sdk.is_none();
    if !(has_requirements || has_no_sdk) {
        return Ok(None);
    }
    let cache = Cache::locate()?;
    if let Some(reason) = cache.passed_over() {
        let root = cache.root().display();
        tracing::warn!("files are kept in {root}; LITPLEX_CACHE_DIR chooses the place: {reason}");
    }
    Ok(Some(cache))
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

/// Why an endpoint cannot serve now, as far as clients may know.
pub(crate) fn problem_for_clients(view: &View) -> Option<String> {
    problem(view, |gone| gone.cause.for_clients().to_owned())
}

/// Why an endpoint cannot serve now, for those who run the server.
pub(crate) fn problem_in_full(view: &View, unwell: &Unwell) -> Option<String> {
    problem(view, |gone| gone.reason).or_else(|| says_unwell(unwell))
}

fn problem(view: &View, say: impl Fn(WorkerExit) -> String) -> Option<String> {
    match view.outlook() {
        Outlook::Ready | Outlook::Asleep { .. } => None,
        Outlook::Coming { .. } => {
            Some(degraded(&view.states(), say).unwrap_or_else(|| "starting".into()))
        }
        Outlook::Down { gone, .. } => Some(say(gone)),
    }
}

/// What the models say of themselves, if it is nothing good.
fn says_unwell(unwell: &Unwell) -> Option<String> {
    match unwell.count() {
        0 => None,
        1 => Some("`health` of a worker is false".into()),
        count => Some(format!("`health` of {count} workers is false")),
    }
}

/// Why some worker is missing.
fn degraded(states: &[SlotState], say: impl Fn(WorkerExit) -> String) -> Option<String> {
    match health(states) {
        Health::Ready | Health::Starting => None,
        Health::Degraded(gone) => Some(say(gone)),
    }
}
