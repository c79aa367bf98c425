//! The text that Prometheus reads: all metrics, and the state of every endpoint at that time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use litplex_admin::{MemoryStatus, Tier};
use litplex_core::{BoxFuture, Cause, Usage};
use litplex_devices::{Gpu, Gpus, memory_share, used_by, visible_gpus};
use litplex_metrics::{
    Observed, ObservedBatches, ObservedGpu, ObservedPlace, ObservedResidency, ObservedWorker,
};
use litplex_scheduler::EndpointLoad;
use litplex_supervisor::{Record, SlotState};

use crate::controls::EndpointControls;
use crate::endpoints::CurrentEndpoints;
use crate::generations::Generations;
use crate::gpus::{gpus_of, is_gpu};
use crate::problem::problem_for_clients;
use crate::telemetry::Telemetry;

/// Returns a function that renders the metrics of the endpoints, as they are then.
pub(crate) fn scraper(
    endpoints: CurrentEndpoints,
    telemetry: Telemetry,
) -> impl Fn() -> BoxFuture<'static, String> + Send + Sync + 'static {
    let live = move || -> Vec<_> {
        let generations = endpoints.borrow().generations();
        generations.iter().map(Generations::live).collect()
    };
    let gpus = gpus_of(&live());
    move || {
        let live = live();
        let telemetry = telemetry.clone();
        Box::pin(scrape(live, telemetry, gpus.clone()))
    }
}

async fn scrape(
    endpoints: Vec<Arc<EndpointControls>>,
    telemetry: Telemetry,
    gpus: Option<Arc<Gpus>>,
) -> String {
    let mut observed = Vec::new();
    for controls in &endpoints {
        // An endpoint's task answers in microseconds: one after the other is fast enough.
        observed.push(observe(controls, &controls.endpoint.load().await));
    }
    let user = telemetry.user.read().await;
    let gpus = match gpus {
        Some(gpus) => gpus.read().await,
        None => Vec::new(),
    };
    let places = endpoints.first().map(|it| places(&it.memory.memory_status())).unwrap_or_default();
    // Rendered on another thread: no request waits for it.
    let text = tokio::task::spawn_blocking(move || {
        for (observed, controls) in observed.iter_mut().zip(&endpoints) {
            observe_memory(observed, controls, &gpus);
        }
        let gpus: Vec<_> = gpus.into_iter().map(observed_gpu).collect();
        telemetry.metrics.render(&observed, &gpus, &places, user)
    });
    text.await.unwrap_or_default()
}

fn observe(controls: &EndpointControls, load: &EndpointLoad) -> Observed {
    let states = controls.view.states();
    let record = controls.view.record();
    let doing = |word| states.iter().filter(|state| state.label() == word).count();
    Observed {
        endpoint: controls.label().to_owned(),
        is_ready: problem_for_clients(&controls.view).is_none(),
        queued: load.queued,
        queue_limit: load.queue_limit,
        workers_wanted: controls.view.wanted(),
        workers: SlotState::LABELS.map(|word| (word, doing(word))).into(),
        worker_start: record.start_time,
        restarts: Cause::ALL.map(|cause| (cause.as_str(), restarts(&record, cause))).into(),
        batches: controls.endpoint.learned().map(|learned| ObservedBatches {
            basis: learned.basis.word(),
            size: learned.most_jobs,
            error: learned.error,
        }),
        residency: residency(controls),
        tier: controls.tier().map(Tier::as_str),
        slots: load.busy.iter().enumerate().map(|(slot, busy)| worker(load, slot, *busy)).collect(),
        devices: device_seconds(controls, load),
    }
}

fn residency(controls: &EndpointControls) -> ObservedResidency {
    let seen = controls.memory.status().unwrap_or_default();
    ObservedResidency {
        predicted: seen.predicted,
        loads: seen.loads,
        load_seconds: seen.loading_seconds,
        wakes: seen.wakes,
        waking_seconds: seen.waking_seconds,
        evictions: seen.evictions,
        no_room: seen.refusals,
        hits: seen.hits,
        misses: seen.misses,
    }
}

fn places(memory: &MemoryStatus) -> Vec<ObservedPlace> {
    let MemoryStatus { held, templates, budget, .. } = *memory;
    let host = ObservedPlace { place: "host".into(), held, templates, budget };
    let gpus = memory.gpus.iter().map(|gpu| ObservedPlace {
        place: format!("gpu{}", gpu.index),
        held: gpu.held,
        templates: 0,
        budget: gpu.budget,
    });
    [host].into_iter().chain(gpus).collect()
}

/// Returns the time that the workers have had of each device.
fn device_seconds(controls: &EndpointControls, load: &EndpointLoad) -> Vec<(String, Duration)> {
    let mut seconds = BTreeMap::<String, Duration>::new();
    for (slot, busy) in load.busy.iter().enumerate() {
        let device = &controls.devices[slot % controls.devices.len()];
        let paused = load.paused.get(slot).copied().unwrap_or_default();
        *seconds.entry(device.as_str().to_owned()).or_default() += busy.saturating_sub(paused);
    }
    seconds.into_iter().collect()
}

fn restarts(record: &Record, cause: Cause) -> u64 {
    record.causes.get(&cause).copied().unwrap_or_default()
}

fn worker(load: &EndpointLoad, slot: usize, busy: Duration) -> ObservedWorker {
    let worker = load.workers.iter().find(|worker| worker.slot == slot);
    let inflight = worker.map(|worker| worker.in_flight);
    ObservedWorker { slot, busy, inflight, ..ObservedWorker::default() }
}

/// Adds the memory that the workers use, and may use of their GPUs.
fn observe_memory(observed: &mut Observed, controls: &EndpointControls, gpus: &[Gpu]) {
    let visible = visible_gpus();
    for worker in &mut observed.slots {
        let device = &controls.devices[worker.slot % controls.devices.len()];
        let usage = usage(controls, worker.slot, gpus);
        (worker.memory, worker.gpu_memory) = (usage.memory, usage.gpu_memory);
        if gpus.is_empty() || !is_gpu(device) {
            continue;
        }
        let fraction = controls.gpu_memory_fraction;
        let limit = |fraction| memory_share(fraction, device.as_str(), visible.as_deref(), gpus);
        worker.gpu_memory_limit = fraction.and_then(limit);
    }
}

/// Measures the worker in a slot, for milliseconds.
pub(crate) fn usage(controls: &EndpointControls, slot: usize, gpus: &[Gpu]) -> Usage {
    let has_gpu = !gpus.is_empty() && is_gpu(&controls.devices[slot % controls.devices.len()]);
    let gpu_memory = |processes: &[u32]| used_by(processes, gpus);
    let monitor = controls.view.monitor(slot);
    let usage = monitor.map(|monitor| monitor.usage(has_gpu.then_some(&gpu_memory as _)));
    usage.unwrap_or_default()
}

fn observed_gpu(gpu: Gpu) -> ObservedGpu {
    let Gpu { index, uuid, used, total, utilization, .. } = gpu;
    ObservedGpu { index, uuid, used, total, utilization }
}
