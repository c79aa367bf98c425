//! Values that are read from endpoints, workers and GPUs at each scrape.

use std::time::Duration;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use crate::definitions as d;
use crate::{Definition, Kind};

/// The values of an endpoint at a scrape.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The path of the endpoint.
    pub endpoint: String,
    /// Whether the endpoint can serve requests.
    pub is_ready: bool,
    /// The number of requests that wait.
    pub queued: usize,
    /// The most requests that may wait.
    pub queue_limit: usize,
    /// The number of wanted workers.
    pub workers_wanted: usize,
    /// The number of workers by state.
    pub workers: Vec<(&'static str, usize)>,
    /// The time that a worker takes to start; `None` while that is unknown.
    pub worker_start: Option<Duration>,
    /// The number of restarts by reason.
    pub restarts: Vec<(&'static str, u64)>,
    /// The findings about its batches; `None` while that is unknown.
    pub batches: Option<ObservedBatches>,
    /// The slots that have had a worker.
    pub slots: Vec<ObservedWorker>,
    /// The memory of its workers.
    pub residency: ObservedResidency,
    /// The warmest tier of its workers, if they are processes.
    pub tier: Option<&'static str>,
    /// The time that its workers have had of each device.
    pub devices: Vec<(String, Duration)>,
}

/// The memory of an endpoint's workers, and what has happened to them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ObservedResidency {
    /// The bytes of the host that the next worker is expected to need.
    pub predicted: u64,
    /// The number of loads, and their seconds.
    pub loads: u64,
    /// The seconds of all loads.
    pub load_seconds: f64,
    /// The number of workers that hibernated and were woken.
    pub wakes: u64,
    /// The seconds of all wakes.
    pub waking_seconds: f64,
    /// The number of evictions.
    pub evictions: u64,
    /// The number of starts without room.
    pub no_room: u64,
    /// The number of requests that came while a worker was in memory.
    pub hits: u64,
    /// The number of those that came while none was.
    pub misses: u64,
}

/// The memory of all workers in one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedPlace {
    /// `host`, or `gpu0` and so on.
    pub place: String,
    /// The bytes that they have.
    pub held: u64,
    /// The bytes of it that templates have.
    pub templates: u64,
    /// The bytes that they may have.
    pub budget: u64,
}

/// The findings of an endpoint about its batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ObservedBatches {
    /// The basis on which the time of a batch depends: `requests`, `sum` or `padded`.
    pub basis: &'static str,
    /// The most requests of a batch.
    pub size: usize,
    /// The mean error of predicted times, as a part of the time.
    pub error: f64,
}

/// The values of one slot at a scrape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObservedWorker {
    /// The number of the slot.
    pub slot: usize,
    /// The total time in which the workers of the slot had requests.
    pub busy: Duration,
    /// The number of requests that the worker holds; `None` without a worker.
    pub inflight: Option<usize>,
    /// The bytes of resident memory of the worker's process; `None` if that is not measured.
    pub memory: Option<u64>,
    /// The bytes of GPU memory of the worker; `None` if that is not measured.
    pub gpu_memory: Option<u64>,
    /// The bytes of GPU memory that the worker may allocate; `None` without a limit.
    pub gpu_memory_limit: Option<u64>,
}

/// The values of one GPU at a scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObservedGpu {
    /// The index of the GPU in the driver.
    pub index: u32,
    /// The permanent id of the GPU.
    pub uuid: String,
    /// The bytes of memory in use.
    pub used: u64,
    /// The total bytes of memory.
    pub total: u64,
    /// The share of time in which the GPU computes; `None` if the driver does not report it.
    pub utilization: Option<f64>,
}

/// Returns the families of the observed values.
pub(crate) fn families(
    observed: &[Observed],
    gpus: &[ObservedGpu],
    places: &[ObservedPlace],
) -> Vec<MetricFamily> {
    let each_place = |definition, value: fn(&ObservedPlace) -> u64| {
        let metric = |seen: &ObservedPlace| (vec![seen.place.clone()], value(seen) as f64);
        family(definition, places.iter().map(metric).collect())
    };
    let each = |definition, value: fn(&Observed) -> Option<f64>| {
        let metrics =
            observed.iter().filter_map(|seen| Some((vec![seen.endpoint.clone()], value(seen)?)));
        family(definition, metrics.collect())
    };
    let counts = |definition, counts: fn(&Observed) -> Vec<(String, f64)>| {
        let counts_of = |seen: &Observed| {
            let label = |(label, value)| (vec![seen.endpoint.clone(), label], value);
            counts(seen).into_iter().map(label).collect::<Vec<_>>()
        };
        family(definition, observed.iter().flat_map(counts_of).collect())
    };
    let each_gpu = |definition, value: fn(&ObservedGpu) -> Option<f64>| {
        let labels = |seen: &ObservedGpu| vec![seen.index.to_string(), seen.uuid.clone()];
        family(
            definition,
            gpus.iter().filter_map(|seen| Some((labels(seen), value(seen)?))).collect(),
        )
    };
    vec![
        each(&d::READY, |seen| Some(f64::from(u8::from(seen.is_ready)))),
        each(&d::QUEUE_DEPTH, |seen| Some(seen.queued as f64)),
        each(&d::QUEUE_LIMIT, |seen| Some(seen.queue_limit as f64)),
        each(&d::WORKERS_WANTED, |seen| Some(seen.workers_wanted as f64)),
        each(&d::WORKER_START, |seen| Some(seen.worker_start?.as_secs_f64())),
        counts(&d::WORKERS, |seen| {
            seen.workers.iter().map(|(state, count)| ((*state).into(), *count as f64)).collect()
        }),
        counts(&d::BATCH_BASIS, |seen| {
            seen.batches.iter().map(|batches| (batches.basis.into(), 1.0)).collect()
        }),
        each(&d::BATCH_LEARNED_SIZE, |seen| Some(seen.batches?.size as f64)),
        each(&d::BATCH_ERROR, |seen| Some(seen.batches?.error)),
        counts(&d::RESTARTS, |seen| {
            seen.restarts.iter().map(|(reason, count)| ((*reason).into(), *count as f64)).collect()
        }),
        counts(&d::WORKER_BUSY, |seen| {
            seen.slots.iter().map(|seen| (seen.slot.to_string(), seen.busy.as_secs_f64())).collect()
        }),
        counts(&d::DEVICE_SECONDS, |seen| {
            let seconds =
                |(device, time): &(String, Duration)| (device.clone(), time.as_secs_f64());
            seen.devices.iter().map(seconds).collect()
        }),
        counts(&d::WORKER_INFLIGHT, |seen| {
            let inflight =
                |seen: &ObservedWorker| Some((seen.slot.to_string(), seen.inflight? as f64));
            seen.slots.iter().filter_map(inflight).collect()
        }),
        counts(&d::WORKER_MEMORY, |seen| {
            let memory = |seen: &ObservedWorker| Some((seen.slot.to_string(), seen.memory? as f64));
            seen.slots.iter().filter_map(memory).collect()
        }),
        counts(&d::WORKER_GPU_MEMORY, |seen| {
            let memory =
                |seen: &ObservedWorker| Some((seen.slot.to_string(), seen.gpu_memory? as f64));
            seen.slots.iter().filter_map(memory).collect()
        }),
        counts(&d::WORKER_GPU_LIMIT, |seen| {
            let limit = |seen: &ObservedWorker| {
                Some((seen.slot.to_string(), seen.gpu_memory_limit? as f64))
            };
            seen.slots.iter().filter_map(limit).collect()
        }),
        each(&d::WORKER_PREDICTED, |seen| Some(seen.residency.predicted as f64)),
        each(&d::WORKER_LOADS, |seen| Some(seen.residency.loads as f64)),
        each(&d::WORKER_LOAD_SECONDS, |seen| Some(seen.residency.load_seconds)),
        each(&d::WORKER_WAKES, |seen| Some(seen.residency.wakes as f64)),
        each(&d::WORKER_WAKE_SECONDS, |seen| Some(seen.residency.waking_seconds)),
        counts(&d::TIER, |seen| match seen.tier {
            Some(tier) => vec![(tier.into(), 1.0)],
            None => Vec::new(),
        }),
        each(&d::EVICTIONS, |seen| Some(seen.residency.evictions as f64)),
        each(&d::NO_ROOM, |seen| Some(seen.residency.no_room as f64)),
        counts(&d::RESIDENCY, |seen| {
            let ObservedResidency { hits, misses, .. } = seen.residency;
            vec![("resident".into(), hits as f64), ("absent".into(), misses as f64)]
        }),
        each_place(&d::MEMORY_HELD, |seen| seen.held),
        each_place(&d::TEMPLATE_MEMORY, |seen| seen.templates),
        each_place(&d::MEMORY_BUDGET, |seen| seen.budget),
        each_gpu(&d::GPU_USED, |seen| Some(seen.used as f64)),
        each_gpu(&d::GPU_TOTAL, |seen| Some(seen.total as f64)),
        each_gpu(&d::GPU_UTILIZATION, |seen| seen.utilization),
    ]
}

/// Returns a family of a definition and its series: label values and a value each.
fn family(definition: &Definition, metrics: Vec<(Vec<String>, f64)>) -> MetricFamily {
    let is_counter = definition.kind == Kind::Counter;
    let metric = |(labels, value): (Vec<String>, f64)| {
        let pairs = definition.labels.iter().zip(labels).map(|(name, value)| pair(name, value));
        let mut metric = Metric::from_label(pairs.collect());
        if is_counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    };
    let mut family = MetricFamily::default();
    family.set_name(definition.name.into());
    family.set_help(definition.help.into());
    family.set_field_type(if is_counter { MetricType::COUNTER } else { MetricType::GAUGE });
    family.set_metric(metrics.into_iter().map(metric).collect());
    family
}

pub(crate) fn pair(name: &str, value: String) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.into());
    pair.set_value(value);
    pair
}
