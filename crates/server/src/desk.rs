//! What an operator sees of a running server, and may change.

use litplex_workers::Unwell;
use std::sync::Arc;

use litplex_admin::{Admin, EndpointStatus, Scaled, Status, WorkerStatus};
use litplex_config::Workers;
use litplex_core::{BoxFuture, Device};
use litplex_metrics::Edge;
use litplex_scheduler::{Endpoint, EndpointLoad};
use litplex_supervisor::{Limits, SlotState, View, Wanted};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::crew::problem_in_full;

/// Answers the admin socket.
pub(crate) struct Desk {
    pub(crate) url: String,
    pub(crate) port: u16,
    pub(crate) started: Instant,
    pub(crate) endpoints: Vec<Arc<Controls>>,
}

/// What can be seen and set of one endpoint.
pub(crate) struct Controls {
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    pub(crate) workers: Workers,
    pub(crate) devices: Vec<Device>,
    /// The share of its GPU's memory that each worker may take, where there is a limit.
    pub(crate) gpu_memory_fraction: Option<f64>,
    pub(crate) endpoint: Endpoint,
    pub(crate) view: View,
    pub(crate) wanted: Wanted,
    /// Between how many workers load may choose, where it may.
    pub(crate) limits: Option<watch::Sender<Limits>>,
    pub(crate) unwell: Unwell,
    /// What is measured of its requests where they come in.
    pub(crate) edge: Edge,
}

impl Admin for Desk {
    fn ps(&self) -> BoxFuture<'_, Status> {
        Box::pin(async {
            let mut endpoints = Vec::new();
            for controls in &self.endpoints {
                endpoints.push(controls.status().await);
            }
            Status {
                pid: std::process::id(),
                url: self.url.clone(),
                port: self.port,
                uptime: self.started.elapsed().as_secs_f64(),
                endpoints,
            }
        })
    }

    fn scale(&self, endpoint: String, workers: usize) -> BoxFuture<'_, Result<Scaled, String>> {
        Box::pin(async move {
            let controls = self.endpoints.iter().find(|controls| controls.path == endpoint);
            let controls = controls.ok_or_else(|| format!("there is no endpoint `{endpoint}`"))?;
            if let Workers::Between { max, .. } = controls.workers
                && workers > max
            {
                return Err(format!(
                    "`{endpoint}` has at most {max} workers (`max_workers`); choose 0 to {max}"
                ));
            }
            let before = controls.view.wanted();
            controls.scale(workers);
            Ok(Scaled { endpoint, before, wanted: workers })
        })
    }
}

impl Controls {
    /// Sets the number of workers by hand. Load no longer changes it.
    fn scale(&self, workers: usize) {
        if let Some(limits) = &self.limits {
            limits.send_replace(Limits::exactly(workers));
        }
        self.wanted.set(workers);
        let path = &self.path;
        tracing::info!(endpoint = path, "{path} is to have {workers} workers");
    }

    async fn status(&self) -> EndpointStatus {
        let load = self.endpoint.load().await;
        let problem = problem_in_full(&self.view, &self.unwell);
        let (min_workers, max_workers) = match self.workers {
            Workers::PerDevice(_) => (None, None),
            Workers::Between { min, max } => (Some(min), Some(max)),
        };
        let states = self.view.states();
        let workers = states.iter().enumerate();
        EndpointStatus {
            path: self.path.clone(),
            kind: self.kind.into(),
            state: if problem.is_none() { "ready" } else { "unavailable" }.into(),
            problem,
            wanted: self.view.wanted(),
            min_workers,
            max_workers,
            queued: load.queued,
            in_flight: load.in_flight,
            requests: self.edge.ended(),
            workers: workers.map(|(slot, state)| self.worker(slot, state, &load)).collect(),
        }
    }

    fn worker(&self, slot: usize, state: &SlotState, load: &EndpointLoad) -> WorkerStatus {
        let worker = load.workers.iter().find(|worker| worker.slot == slot);
        let restarts = self.view.record().restarts.get(slot).copied();
        WorkerStatus {
            slot,
            state: word(state).into(),
            pid: self.view.monitor(slot).and_then(|monitor| monitor.pid()),
            device: self.devices[slot % self.devices.len()].to_string(),
            in_flight: worker.map_or(0, |worker| worker.in_flight),
            restarts: restarts.unwrap_or_default(),
            ready_for: worker.map(|worker| worker.since.elapsed().as_secs_f64()),
            reason: reason(state).map(str::to_owned),
        }
    }
}

fn word(state: &SlotState) -> &'static str {
    match state {
        SlotState::Starting { .. } => "starting",
        SlotState::Ready(_) => "ready",
        SlotState::BackingOff { .. } => "backing off",
        SlotState::Failed(_) => "failed",
        SlotState::Draining => "draining",
        SlotState::Stopped => "stopped",
    }
}

fn reason(state: &SlotState) -> Option<&str> {
    match state {
        SlotState::Starting { after, .. } => after.as_ref().map(|gone| &*gone.reason),
        SlotState::BackingOff { gone, .. } => Some(&gone.reason),
        SlotState::Failed(error) => Some(&error.reason),
        SlotState::Ready(_) | SlotState::Draining | SlotState::Stopped => None,
    }
}
