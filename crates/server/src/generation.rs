//! A generation of an endpoint: a queue of its own, and workers that serve no other queue.

use std::sync::Arc;
use std::time::Duration;

use litplex_calls::{Backend, Lease, Target, WatchedQueue};
use litplex_config::{Endpoint, Source};
use litplex_core::Attach;
use litplex_scheduler::{Endpoint as Queue, QueueSettings, spawn_seated_endpoint};
use litplex_supervisor::{Supervisor, SupervisorSettings, supervise};
use litplex_workers::endpoint_span;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::RustModel;
use crate::controls::{EndpointControls, kind};
use crate::dialect_path::CheckedAttach;
use crate::elastic::{Followed, follow_load};
use crate::generation_spec::GenerationSpec;
use crate::launch::launcher;
use crate::residency::{BudgetedLaunch, HibernatedWorkers, Membership, MemoryDemand, name_of};
use crate::seats::seats;
use crate::size::Size;

/// The longest time in which a worker that is no longer wanted may finish its jobs.
const LONGEST_GRACE: Duration = Duration::from_secs(60 * 60);

/// One generation. Its workers are killed when it is dropped.
pub(crate) struct Generation {
    pub(crate) controls: Arc<EndpointControls>,
    pub(crate) supervisor: Supervisor,
    /// The tasks that apply the autoscaler and log the states of workers.
    pub(crate) following: JoinSet<()>,
    /// Whether it begins without workers.
    starts_asleep: bool,
    /// Shared with its targets.
    lease: Lease,
}

impl Generation {
    /// Launches the workers of a generation, with a new queue.
    pub(crate) fn launch(
        spec: &Arc<GenerationSpec>,
        model: Option<RustModel>,
        number: u64,
        size: Size,
    ) -> Self {
        let generation = Self::hold(spec, model, number, size);
        generation.begin(size);
        generation
    }

    /// Returns a generation with a new queue, which holds jobs; it has no workers until it begins.
    pub(crate) fn hold(
        spec: &Arc<GenerationSpec>,
        model: Option<RustModel>,
        number: u64,
        size: Size,
    ) -> Self {
        let GenerationSpec { config, telemetry, environment, placement, .. } = &**spec;
        let metrics = telemetry.metrics.queue(config.label());
        let seats = seats(config, placement, &environment.shares);
        let threads = placement.threads.number;
        let queue = spawn_seated_endpoint(queue_settings(config, number), metrics, seats, threads);
        let watched = environment.calls.watch(config.label(), size.most());
        Self::prepare(queue, watched, spec, model, number, size)
    }

    /// Launches the workers.
    pub(crate) fn begin(&self, size: Size) {
        self.controls.wanted.set(size.workers);
    }

    /// Returns a generation that serves this queue; it has no workers until it begins.
    pub(crate) fn prepare(
        endpoint: Queue,
        watched: WatchedQueue,
        spec: &Arc<GenerationSpec>,
        model: Option<RustModel>,
        number: u64,
        size: Size,
    ) -> Self {
        let GenerationSpec { config, placement, environment, telemetry, edge, .. } = &**spec;
        let devices = placement.devices.clone();
        let attach: Arc<dyn Attach> = Arc::new(CheckedAttach::new(endpoint.clone(), config));
        watched.set_most_workers(size.most());
        let calls = environment.calls.for_workers(watched.clone());
        let (label, name, device) = (config.label(), &config.identity.name, &devices[0]);
        endpoint_span(label).in_scope(|| match size.workers {
            0 => tracing::info!(name, %device, "asleep until its first request"),
            workers => tracing::info!(name, workers, %device, "loading"),
        });
        let worker_telemetry = telemetry.for_workers(label);
        let unwell = worker_telemetry.unhealthy.clone();
        let (launch, patience) = launcher(
            config,
            model,
            placement.clone(),
            environment,
            attach,
            calls,
            worker_telemetry,
        );
        let (sizes, starts_asleep) = (watch::Sender::new(size), size.workers == 0);
        let gpus = devices.iter().map(|device| gpu_index(device.as_str())).collect::<Vec<_>>();
        let is_process = matches!(config.source, Source::Python(_));
        let settings = size.settings(is_process, &gpus);
        let hibernated = Arc::new(HibernatedWorkers::default());
        let membership = Membership {
            label: label.into(),
            memory_of: name_of(config),
            gpus,
            is_measured: is_process,
            hibernated: Arc::downgrade(&hibernated),
        };
        let (memory, leaving) = environment.residency.join(membership, settings);
        let demand = MemoryDemand {
            label: label.into(),
            queue: endpoint.clone(),
            watched: watched.clone(),
            size: sizes.subscribe(),
            timeout: config.queue_timeout.unwrap_or(config.timeout),
        };
        let (member, starts) = (memory.clone(), Arc::downgrade(&launch));
        let launch = Arc::new(BudgetedLaunch { inner: launch, member, demand, hibernated });
        let supervisor = supervise(launch, 0, supervision(config, size));
        let controls = EndpointControls {
            generation: number,
            identity: config.identity.clone(),
            kind: kind(&config.source),
            workers: config.workers,
            devices,
            gpu_memory_fraction: config.resources.gpu_memory_fraction,
            endpoint,
            view: supervisor.view(),
            wanted: supervisor.wanted_setter(),
            size: sizes,
            memory: memory.clone(),
            launch: starts,
            unwell,
            watched,
            edge: edge.clone(),
            patience,
            spec: spec.clone(),
        };
        let mut following = JoinSet::new();
        let EndpointControls { endpoint, view, wanted, watched, memory, size, .. } =
            controls.clone();
        let followed = Followed { endpoint, view, wanted, watched, memory, is_process };
        let load = follow_load(followed, size.subscribe(), leaving);
        following.spawn(load.instrument(endpoint_span(label)));
        let (controls, lease) = (Arc::new(controls), Lease::default());
        Self { controls, supervisor, following, starts_asleep, lease }
    }

    /// Returns whether no call can use it, now or later. The registry must not have its target.
    pub(crate) async fn is_unused(&self) -> bool {
        let load = self.controls.endpoint.load().await;
        !self.lease.is_shared() && load.queued == 0 && load.in_flight == 0
    }

    /// Sets whether its jobs are shadows, which are in no metric of the queue.
    pub(crate) fn set_shadow(&self, is_shadow: bool) {
        let EndpointControls { spec, endpoint, generation, .. } = &*self.controls;
        let settings = queue_settings(&spec.config, *generation);
        // The handle knows only limits, which are the same.
        let _ = endpoint.with_settings(QueueSettings { is_shadow, ..settings });
    }

    /// Applies a specification that needs no new workers.
    pub(crate) fn apply(&mut self, spec: Arc<GenerationSpec>) {
        let GenerationSpec { config, .. } = &*spec;
        let controls = &self.controls;
        if let Some(patience) = &controls.patience {
            patience.set(config.timeout, config.chunk_timeout);
        }
        controls.size.send_if_modified(|size| {
            let before = std::mem::replace(&mut size.residency, config.residency);
            size.workers = controls.view.wanted();
            before != size.residency
        });
        let endpoint = controls.endpoint.with_settings(queue_settings(config, controls.generation));
        let identity = config.identity.clone();
        let controls = EndpointControls { identity, endpoint, spec, ..(**controls).clone() };
        self.controls = Arc::new(controls);
    }

    /// Returns the generation as callers see it. It takes the place of `before`, whose requests have
    /// shown which calls they lead to.
    pub(crate) fn target(&self, before: Option<&Target>) -> Target {
        let GenerationSpec { config, edge, waits_for_first_worker, .. } = &*self.controls.spec;
        Target {
            identity: config.identity.clone(),
            backend: Backend::Queue(self.controls.endpoint.clone()),
            timeout: config.timeout,
            chunk_timeout: config.chunk_timeout,
            cost: config.cost.clone(),
            // A model that sleeps since the start is loaded by its first request.
            waits_for_first_worker: *waits_for_first_worker || self.starts_asleep,
            scopes: config.jwt_scopes.clone().unwrap_or_default(),
            metrics: edge.clone(),
            watched: self.controls.watched.clone(),
            demand: before.map(|before| before.demand.clone()).unwrap_or_default(),
            lease: self.lease.clone(),
            trial: None,
        }
    }
}

/// Returns the settings of the supervisor of workers that begin with this size. A model that sleeps at first is
/// no reason to end the server when it fails. A worker that leaves may finish every request.
fn supervision(config: &Endpoint, size: Size) -> SupervisorSettings {
    let settings = SupervisorSettings::default();
    let grace = settings.grace.max(config.timeout.min(LONGEST_GRACE));
    SupervisorSettings { grace, give_up: size.workers > 0 }
}

/// Returns the index of a GPU, by its name such as `cuda:0`.
fn gpu_index(device: &str) -> Option<usize> {
    device.strip_prefix("cuda:")?.parse().ok()
}

fn queue_settings(config: &Endpoint, generation: u64) -> QueueSettings {
    QueueSettings {
        max_queue: config.max_queue,
        queue_timeout: config.queue_timeout,
        idempotent: config.idempotent,
        by_cost: config.cost.is_some() || config.max_batch_cost.is_some(),
        fixed_batches: config.has_fixed_batches,
        adaptive_order: !config.keeps_arrival_order,
        max_batch_cost: config.max_batch_cost,
        device_weight: Some(config.resources.device_weight),
        generation,
        is_shadow: false,
    }
}
