//! What Prometheus reads: all that was measured, and what can be seen of every endpoint.

use std::sync::Arc;

use litmux_core::{BoxFuture, Cause};
use litmux_metrics::{Metrics, Observed, ObservedWorker, UserMetrics};
use litmux_scheduler::EndpointLoad;
use litmux_supervisor::{Record, SlotState};

use crate::crew::problem;
use crate::desk::Controls;

const STATES: [&str; 6] = ["starting", "ready", "backing_off", "failed", "draining", "stopped"];

/// Returns what writes the metrics of these endpoints.
pub(crate) fn scraper(
    endpoints: Vec<Arc<Controls>>,
    metrics: Metrics,
    user: UserMetrics,
) -> impl Fn() -> BoxFuture<'static, String> + Send + Sync + 'static {
    move || {
        let (endpoints, metrics, user) = (endpoints.clone(), metrics.clone(), user.clone());
        Box::pin(async move {
            let mut observed = Vec::new();
            for controls in &endpoints {
                // Each answers once it is through what came before: asked one after the other,
                // they are all asked soon.
                observed.push(observe(controls, &controls.endpoint.load().await));
            }
            // On a thread of its own: no request waits for it.
            let user = user.read().await;
            let text = tokio::task::spawn_blocking(move || metrics.render(&observed, user));
            text.await.unwrap_or_default()
        })
    }
}

fn observe(controls: &Controls, load: &EndpointLoad) -> Observed {
    let states = controls.view.states();
    let record = controls.view.record();
    let doing = |word| states.iter().filter(|state| state_label(state) == word).count();
    Observed {
        endpoint: controls.path.clone(),
        is_ready: problem(&controls.view).is_none(),
        queued: load.queued,
        queue_limit: load.queue_limit,
        workers_wanted: controls.view.wanted(),
        workers: STATES.map(|word| (word, doing(word))).into(),
        worker_start: record.start_time,
        restarts: Cause::ALL.map(|cause| (cause.word(), restarts(&record, cause))).into(),
        slots: load.busy.iter().enumerate().map(|(slot, busy)| worker(load, slot, *busy)).collect(),
    }
}

fn restarts(record: &Record, cause: Cause) -> u64 {
    record.causes.get(&cause).copied().unwrap_or_default()
}

fn worker(load: &EndpointLoad, slot: usize, busy: std::time::Duration) -> ObservedWorker {
    let worker = load.workers.iter().find(|worker| worker.slot == slot);
    let inflight = worker.map(|worker| worker.in_flight);
    ObservedWorker { slot, busy, inflight, pid: worker.and_then(|worker| worker.pid) }
}

fn state_label(state: &SlotState) -> &'static str {
    STATES[match state {
        SlotState::Starting { .. } => 0,
        SlotState::Ready(_) => 1,
        SlotState::BackingOff { .. } => 2,
        SlotState::Failed(_) => 3,
        SlotState::Draining => 4,
        SlotState::Stopped => 5,
    }]
}
