//! One endpoint of a running server: its configuration, its guard, and its workers or its graph.

use std::collections::BTreeSet;
use std::sync::Arc;

use litplex_access::Guard;
use litplex_admin::{GenerationState, GenerationStatus, Tier};
use litplex_calls::{Backend, Composed, EndpointReport, Lease, Registry, Target};
use litplex_core::Identity;
use litplex_http::{Route, ToolCache};
use litplex_metrics::Edge;
use litplex_pages::EndpointSchema;
use litplex_supervisor::SlotState;

use crate::access::EndpointGuard;
use crate::administered::Administered;
use crate::controls::EndpointControls;
use crate::declared_calls;
use crate::fits::Description;
use crate::generations::Generations;
use crate::pipelines::{Pipeline, PipelineState};
use crate::problem::{degraded, problem_for_clients, unhealthy};
use crate::size::Size;

/// One endpoint. A change of its options makes another one, with the same workers.
pub(crate) struct RunningEndpoint {
    pub(crate) config: litplex_config::Endpoint,
    pub(crate) schema: EndpointSchema,
    /// The metrics of its requests at the HTTP edge.
    pub(crate) edge: Edge,
    pub(crate) guard: EndpointGuard,
    pub(crate) running: Running,
}

/// The running part of an endpoint.
#[derive(Clone)]
pub(crate) enum Running {
    /// Generations of workers.
    Workers(Generations),
    /// A pipeline, which has none.
    Pipeline(Arc<Pipeline>),
}

impl RunningEndpoint {
    /// Returns the label.
    pub(crate) fn label(&self) -> &str {
        self.config.label()
    }

    /// Returns the endpoint with another configuration and another guard.
    pub(crate) fn with(&self, config: litplex_config::Endpoint, guard: EndpointGuard) -> Self {
        let (schema, edge, running) =
            (self.schema.clone(), self.edge.clone(), self.running.clone());
        Self { config, schema, edge, guard, running }
    }

    /// Returns the endpoint for operators.
    pub(crate) fn administered(&self) -> Administered {
        match &self.running {
            Running::Workers(generations) => Administered::Workers(generations.clone()),
            Running::Pipeline(_) => {
                let (identity, edge) = (self.config.identity.clone(), self.edge.clone());
                Administered::Pipeline(PipelineState { identity, edge })
            }
        }
    }

    /// Returns the endpoint for the edge.
    pub(crate) fn route(&self, registry: &Registry, tells_ids: bool) -> Route {
        let guard: &Arc<Guard> = &self.guard.guard;
        Route {
            identity: self.config.identity.clone(),
            target: registry.labelled(self.label()),
            ping_interval: self.config.ping_interval,
            max_body_bytes: self.config.max_body_bytes,
            guard: guard.clone(),
            metrics: self.edge.clone(),
            tells_ids,
            schema: self.schema.clone(),
            tool: ToolCache::default(),
        }
    }

    /// Returns the generations, if the endpoint has workers.
    pub(crate) fn generations(&self) -> Option<&Generations> {
        match &self.running {
            Running::Workers(generations) => Some(generations),
            Running::Pipeline(_) => None,
        }
    }

    /// Returns the controls of the live generation, if the endpoint has workers.
    pub(crate) fn controls(&self) -> Option<Arc<EndpointControls>> {
        self.generations().map(Generations::live)
    }

    /// Returns the description of its model, as far as it is known.
    pub(crate) fn description(&self) -> Description {
        match &self.running {
            Running::Pipeline(pipeline) => Description::pipeline(&self.schema, pipeline.graph()),
            Running::Workers(generations) => generations.live().description(),
        }
    }

    /// Returns the most hooks that its workers run at once; `None` for a pipeline.
    pub(crate) fn places(&self) -> Option<usize> {
        let controls = self.controls()?;
        let workers = Size::configured(&self.config, controls.devices.len()).limits.max;
        let places = controls.endpoint.model_info().map_or(1, |info| info.places);
        Some(workers * places)
    }

    /// Returns its state; it calls endpoints among these.
    pub(crate) fn report(&self, endpoints: &[Arc<Identity>]) -> EndpointReport {
        match &self.running {
            Running::Workers(generations) => self.worker_report(generations, endpoints),
            Running::Pipeline(pipeline) => self.pipeline_report(pipeline, endpoints),
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
            generation: None,
            failed_generation: None,
            workers_ready: 0,
            workers: 0,
            timeout: self.config.timeout.as_secs_f64(),
            queue_timeout: None,
            devices: Vec::new(),
            tier: None,
            threads: None,
            max_body_bytes: self.config.max_body_bytes,
            batches: None,
            info: Some(pipeline.info().clone()),
            pipeline: Some(pipeline.graph().definition().clone()),
        }
    }

    fn worker_report(
        &self,
        generations: &Generations,
        endpoints: &[Arc<Identity>],
    ) -> EndpointReport {
        let controls = generations.live();
        let EndpointControls { kind, view, endpoint, unwell, devices, .. } = &*controls;
        let config = &self.config;
        let states = view.states();
        let info = endpoint.model_info();
        let calls = info.map_or(&[][..], |info| &info.calls);
        EndpointReport {
            calls: declared_calls::edges(endpoints, self.label(), &config.source, calls),
            identity: config.identity.clone(),
            kind,
            problem: problem_for_clients(view).or_else(|| unhealthy(unwell)),
            degraded: degraded(&states, |gone| gone.for_clients().to_owned()),
            generation: Some(controls.generation),
            failed_generation: failed(&generations.listed()),
            workers_ready: states.iter().filter(|s| matches!(s, SlotState::Ready(_))).count(),
            workers: view.wanted(),
            timeout: config.timeout.as_secs_f64(),
            queue_timeout: config.queue_timeout.map(|timeout| timeout.as_secs_f64()),
            devices: devices
                .iter()
                .map(ToString::to_string)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            tier: controls.tier().map(Tier::as_str),
            threads: controls.spec.threads(),
            max_body_bytes: config.max_body_bytes,
            batches: endpoint.learned().map(|learned| learned.to_string()),
            info: info.cloned(),
            pipeline: None,
        }
    }
}

/// Returns the number of the last generation, if it failed, and the time.
fn failed(listed: &[GenerationStatus]) -> Option<(u64, String)> {
    let last = listed.last().filter(|last| last.state == GenerationState::Failed)?;
    Some((last.generation, last.since.clone()))
}

/// Returns a pipeline as its callers see it.
pub(crate) fn composed_target(
    config: &litplex_config::Endpoint,
    edge: &Edge,
    pipeline: Arc<Pipeline>,
) -> Target {
    let watched = pipeline.watched.clone();
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
        watched,
        lease: Lease::default(),
        trial: None,
    }
}
