//! A generation of an endpoint: a queue of its own, and workers that serve no other queue.

use std::sync::Arc;

use litplex_calls::{Backend, Lease, Target, WatchedQueue};
use litplex_config::Endpoint;
use litplex_core::Attach;
use litplex_scheduler::{Endpoint as Queue, QueueSettings, spawn_endpoint};
use litplex_supervisor::{Supervisor, supervise};
use litplex_workers::endpoint_span;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::RustModel;
use crate::controls::{EndpointControls, kind};
use crate::dialect_path::CheckedAttach;
use crate::elastic::follow_load;
use crate::generation_spec::GenerationSpec;
use crate::launch::launcher;
use crate::size::Size;

/// One generation. Its workers are killed when it is dropped.
pub(crate) struct Generation {
    pub(crate) controls: Arc<EndpointControls>,
    pub(crate) supervisor: Supervisor,
    /// The tasks that apply the autoscaler and log the states of workers.
    pub(crate) following: JoinSet<()>,
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
        let GenerationSpec { config, telemetry, environment, .. } = &**spec;
        let metrics = telemetry.metrics.queue(config.label());
        let queue = spawn_endpoint(queue_settings(config, number), metrics);
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
        endpoint_span(label)
            .in_scope(|| tracing::info!(name, workers = size.workers, %device, "loading"));
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
        let supervisor = supervise(launch, 0, Default::default());
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
            size: watch::Sender::new(size),
            unwell,
            watched,
            edge: edge.clone(),
            patience,
            spec: spec.clone(),
        };
        let mut following = JoinSet::new();
        let EndpointControls { endpoint, view, wanted, watched, size, .. } = controls.clone();
        let load = follow_load(endpoint, view, wanted, size.subscribe(), watched);
        following.spawn(load.instrument(endpoint_span(label)));
        let (controls, lease) = (Arc::new(controls), Lease::default());
        Self { controls, supervisor, following, lease }
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
            let before = std::mem::replace(&mut size.keep_alive, config.keep_alive);
            size.workers = controls.view.wanted();
            before != size.keep_alive
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
            waits_for_first_worker: *waits_for_first_worker,
            scopes: config.jwt_scopes.clone().unwrap_or_default(),
            metrics: edge.clone(),
            watched: self.controls.watched.clone(),
            demand: before.map(|before| before.demand.clone()).unwrap_or_default(),
            lease: self.lease.clone(),
            trial: None,
        }
    }
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
        generation,
        is_shadow: false,
    }
}
