//! Figures of workers for operators, beside their state: the memory that they use, the GPUs, and how far a
//! worker that starts has come.

use std::sync::Arc;

use litplex_admin::{EndpointStatus, EventKind, Feed, GpuStatus, LastLine};
use litplex_core::Usage;
use litplex_devices::{Gpu, Gpus};
use serde::Deserialize;
use tokio::task::spawn_blocking;

use crate::administered::Administered;
use crate::controls::EndpointControls;
use crate::events::Events;
use crate::gpus::gpus_of;
use crate::scrape::usage;

/// The observer of the workers of a server.
pub(crate) struct WorkerObserver {
    gpus: Option<Arc<Gpus>>,
    events: Events,
    log: Option<Feed<String>>,
}

impl WorkerObserver {
    pub(crate) fn new(
        endpoints: &[Arc<Administered>],
        events: &Events,
        log: Option<Feed<String>>,
    ) -> Self {
        let controls: Vec<_> = endpoints.iter().filter_map(|it| it.controls()).collect();
        Self { gpus: gpus_of(&controls), events: events.clone(), log }
    }

    /// Adds the memory and the progress of the workers to the status of their endpoints. Returns the GPUs
    /// of the machine, if an endpoint is on one.
    pub(crate) async fn complete<'a>(
        &self,
        endpoints: impl Iterator<Item = &'a Arc<Administered>>,
        statuses: &mut [EndpointStatus],
    ) -> Vec<GpuStatus> {
        let gpus = match &self.gpus {
            Some(gpus) => Arc::new(gpus.read().await),
            None => Arc::default(),
        };
        for (endpoint, status) in endpoints.zip(statuses) {
            if let Some(controls) = endpoint.controls() {
                add_usage(controls, status, gpus.clone()).await;
                self.add_progress(status);
            }
        }
        gpus.iter().map(gpu_status).collect()
    }

    fn add_progress(&self, status: &mut EndpointStatus) {
        let Some(log) = &self.log else { return };
        let label = &status.label;
        for worker in status.workers.iter_mut().filter(|worker| worker.starting_for.is_some()) {
            if let Some(started) = self.started(label, worker.slot) {
                worker.last_line = last_line(log, &format!("{label}#{}", worker.slot), &started);
            }
        }
    }

    /// Returns the time of the last start of the worker in a slot, as lines of the log have it.
    fn started(&self, label: &str, slot: usize) -> Option<String> {
        let is_start = |kind: &EventKind| match kind {
            EventKind::Worker { endpoint, slot: at, state, .. } => {
                endpoint == label && *at == slot && state == "starting"
            }
            _ => false,
        };
        let events = self.events.feed().newest_first();
        events.into_iter().find(|event| is_start(&event.kind)).map(|event| event.timestamp.clone())
    }
}

async fn add_usage(
    controls: Arc<EndpointControls>,
    status: &mut EndpointStatus,
    gpus: Arc<Vec<Gpu>>,
) {
    let slots: Vec<_> = status.workers.iter().map(|worker| worker.slot).collect();
    let measure = move || slots.into_iter().map(|slot| usage(&controls, slot, &gpus)).collect();
    let measured: Vec<Usage> = spawn_blocking(measure).await.unwrap_or_default();
    for (worker, usage) in status.workers.iter_mut().zip(measured) {
        (worker.memory, worker.gpu_memory) = (usage.memory, usage.gpu_memory);
    }
}

/// Returns the last line about a worker in the log that is not older than its start.
fn last_line(log: &Feed<String>, worker: &str, started: &str) -> Option<LastLine> {
    #[derive(Deserialize)]
    struct Line {
        timestamp: String,
        message: String,
        worker: Option<String>,
    }
    let lines = log.newest_first().into_iter();
    // Timestamps are in UTC, with the same number of digits: their order is that of their text.
    let lines = lines.filter(|line| line.contains(worker));
    let mut lines = lines.filter_map(|line| serde_json::from_str::<Line>(&line).ok());
    let line = lines.find(|line| line.worker.as_deref() == Some(worker))?;
    let Line { timestamp, message, .. } = line;
    (*timestamp >= *started).then_some(LastLine { timestamp, text: message })
}

fn gpu_status(gpu: &Gpu) -> GpuStatus {
    let Gpu { index, uuid, used, total, utilization, .. } = gpu;
    GpuStatus {
        index: *index,
        uuid: uuid.clone(),
        used: *used,
        total: *total,
        utilization: *utilization,
    }
}

#[cfg(test)]
mod tests {
    use litplex_admin::FeedLimits;

    use super::*;

    #[test]
    fn the_progress_of_a_worker_is_its_last_line_since_its_start() {
        let log = Feed::new(FeedLimits { items: 10, bytes: 10_000 });
        let push = |timestamp: &str, worker: &str, message: &str| {
            let line = serde_json::json!({
                "timestamp": timestamp, "worker": worker, "message": message
            });
            log.push(line.to_string(), 100);
        };
        let seen = || last_line(&log, "/a#1", "T2").map(|line| (line.timestamp, line.text));
        assert_eq!(seen(), None);
        push("T1", "/a#1", "the worker before");
        assert_eq!(seen(), None);
        push("T2", "/a#1", "shard 1");
        push("T3", "/a#1", "shard 2");
        push("T4", "/a#12", "of /a#1's neighbour");
        assert_eq!(seen(), Some(("T3".into(), "shard 2".into())));
    }
}
