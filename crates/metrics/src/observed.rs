use std::time::Duration;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use crate::definitions as d;
use crate::{Definition, Kind};

/// What is read off an endpoint when somebody asks.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Its path.
    pub endpoint: String,
    /// Whether it can serve.
    pub is_ready: bool,
    /// Requests that wait.
    pub queued: usize,
    /// Requests that may wait.
    pub queue_limit: usize,
    /// Workers that there should be.
    pub workers_wanted: usize,
    /// How many of its workers do what.
    pub workers: Vec<(&'static str, usize)>,
    /// How long one takes to start, once that is known.
    pub worker_start: Option<Duration>,
    /// How many were started again, by why.
    pub restarts: Vec<(&'static str, u64)>,
    /// Every slot that has had a worker.
    pub slots: Vec<ObservedWorker>,
}

/// What is read off one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObservedWorker {
    /// Its number.
    pub slot: usize,
    /// Time in which its workers had something to compute.
    pub busy: Duration,
    /// Requests that its worker has, where there is one.
    pub inflight: Option<usize>,
    /// The process id of its worker, where that is a process.
    pub pid: Option<u32>,
    /// Bytes of memory of GPUs that its worker has, where somebody measured that.
    pub gpu_memory: Option<u64>,
    /// Bytes of memory of its GPU that its worker may allocate, where there is a limit.
    pub gpu_memory_limit: Option<u64>,
}

/// What is read off one GPU.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObservedGpu {
    /// Its number, as the driver counts.
    pub index: u32,
    /// What it is called for good.
    pub uuid: String,
    /// Bytes of memory in use.
    pub used: u64,
    /// Bytes of memory.
    pub total: u64,
    /// The share of its time in which it computes, where it says.
    pub utilization: Option<f64>,
}

/// Puts what was observed into the families that it belongs to.
pub(crate) fn families(observed: &[Observed], gpus: &[ObservedGpu]) -> Vec<MetricFamily> {
    let each = |definition, value: fn(&Observed) -> Option<f64>| {
        let metrics =
            observed.iter().filter_map(|of| Some((vec![of.endpoint.clone()], value(of)?)));
        family(definition, metrics.collect())
    };
    let counts = |definition, counts: fn(&Observed) -> Vec<(String, f64)>| {
        let of_one = |of: &Observed| {
            let label = |(label, value)| (vec![of.endpoint.clone(), label], value);
            counts(of).into_iter().map(label).collect::<Vec<_>>()
        };
        family(definition, observed.iter().flat_map(of_one).collect())
    };
    let of_gpus = |definition, value: fn(&ObservedGpu) -> Option<f64>| {
        let labels = |of: &ObservedGpu| vec![of.index.to_string(), of.uuid.clone()];
        family(definition, gpus.iter().filter_map(|of| Some((labels(of), value(of)?))).collect())
    };
    vec![
        each(&d::READY, |of| Some(f64::from(u8::from(of.is_ready)))),
        each(&d::QUEUE_DEPTH, |of| Some(of.queued as f64)),
        each(&d::QUEUE_LIMIT, |of| Some(of.queue_limit as f64)),
        each(&d::WORKERS_WANTED, |of| Some(of.workers_wanted as f64)),
        each(&d::WORKER_START, |of| Some(of.worker_start?.as_secs_f64())),
        counts(&d::WORKERS, |of| {
            of.workers.iter().map(|(state, count)| ((*state).into(), *count as f64)).collect()
        }),
        counts(&d::RESTARTS, |of| {
            of.restarts.iter().map(|(reason, count)| ((*reason).into(), *count as f64)).collect()
        }),
        counts(&d::WORKER_BUSY, |of| {
            of.slots.iter().map(|of| (of.slot.to_string(), of.busy.as_secs_f64())).collect()
        }),
        counts(&d::WORKER_INFLIGHT, |of| {
            let inflight = |of: &ObservedWorker| Some((of.slot.to_string(), of.inflight? as f64));
            of.slots.iter().filter_map(inflight).collect()
        }),
        counts(&d::WORKER_MEMORY, |of| {
            let memory = |of: &ObservedWorker| Some((of.slot.to_string(), memory_of(of.pid?)?));
            of.slots.iter().filter_map(memory).collect()
        }),
        counts(&d::WORKER_GPU_MEMORY, |of| {
            let memory = |of: &ObservedWorker| Some((of.slot.to_string(), of.gpu_memory? as f64));
            of.slots.iter().filter_map(memory).collect()
        }),
        counts(&d::WORKER_GPU_LIMIT, |of| {
            let limit =
                |of: &ObservedWorker| Some((of.slot.to_string(), of.gpu_memory_limit? as f64));
            of.slots.iter().filter_map(limit).collect()
        }),
        of_gpus(&d::GPU_USED, |of| Some(of.used as f64)),
        of_gpus(&d::GPU_TOTAL, |of| Some(of.total as f64)),
        of_gpus(&d::GPU_UTILIZATION, |of| of.utilization),
    ]
}

/// Returns the bytes of memory that a process has, while it is there.
fn memory_of(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some((kib * 1024) as f64)
}

/// Makes a family of label values and values.
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
