//! The placement of workers on this machine: devices and CPU threads.

use std::thread::available_parallelism;

use litplex_config::{ConfigError, Endpoint, Source, Workers};
use litplex_core::Device;
use litplex_devices::{
    Shares, Slots, Threads, affinity_problem, available_cores, count_gpus, default_threads,
    overcommitted, place, visible_gpus,
};

/// The devices and threads of one endpoint's workers.
#[derive(Clone)]
pub(crate) struct Placement {
    /// The device of each slot.
    pub(crate) devices: Vec<Device>,
    /// The CPU threads of each worker.
    pub(crate) threads: Threads,
}

/// Assigns devices and threads to endpoints; pipelines have no workers to place.
///
/// # Errors
/// Every request for devices, cores or GPU memory that the machine cannot meet.
pub(crate) fn place_all(endpoints: &[Endpoint]) -> Result<Vec<Option<Placement>>, ConfigError> {
    let with_workers: Vec<_> =
        endpoints.iter().filter(|it| !matches!(it.source, Source::Pipeline(_))).collect();
    let mut placed = place_workers(&with_workers)?.into_iter();
    let placement = |endpoint: &Endpoint| match endpoint.source {
        Source::Pipeline(_) => None,
        Source::Rust | Source::Python(_) => placed.next(),
    };
    Ok(endpoints.iter().map(placement).collect())
}

fn place_workers(endpoints: &[&Endpoint]) -> Result<Vec<Placement>, ConfigError> {
    let gpus = gpus();
    let available = available_cores();
    let (mut placed, mut mistakes) = (Vec::new(), Vec::new());
    for endpoint in endpoints {
        let mistake = |mistake| format!("endpoint `{}`: {mistake}", endpoint.label());
        match place(&endpoint.accelerator, &endpoint.devices, slots(endpoint.workers), gpus) {
            Ok(devices) => placed.push(devices),
            Err(wrong) => mistakes.push(mistake(wrong)),
        }
        let affinity = endpoint.resources.cpu_affinity.as_deref();
        let wrong = affinity.and_then(|cores| affinity_problem(cores, available.as_deref()?));
        mistakes.extend(wrong.map(mistake));
    }
    if mistakes.is_empty() {
        mistakes = overcommitted(&shares(endpoints, &placed));
    }
    if mistakes.is_empty() { Ok(placements(endpoints, placed)) } else { Err(ConfigError(mistakes)) }
}

/// Returns the number of GPUs that workers may use.
pub(crate) fn gpus() -> usize {
    count_gpus(visible_gpus().as_deref())
}

/// Returns the most workers that an endpoint may have, on a machine with this many GPUs; 1 if it asks for
/// devices that the machine lacks.
pub(crate) fn most_workers(endpoint: &Endpoint, gpus: usize) -> usize {
    let Endpoint { accelerator, devices, workers, .. } = endpoint;
    place(accelerator, devices, slots(*workers), gpus).map_or(1, |slots| slots.len())
}

/// Returns the slots of an endpoint: one for each worker that may run.
fn slots(workers: Workers) -> Slots {
    match workers {
        Workers::PerDevice(copies) => Slots::PerDevice(copies),
        Workers::Between { max, .. } => Slots::InTotal(max),
    }
}

fn shares<'a>(endpoints: &[&'a Endpoint], placed: &'a [Vec<String>]) -> Vec<Shares<'a>> {
    let share = |(endpoint, devices): (&&'a Endpoint, &'a Vec<String>)| Shares {
        path: endpoint.label(),
        devices,
        fraction: endpoint.resources.gpu_memory_fraction,
    };
    endpoints.iter().zip(placed).map(share).collect()
}

/// Logs the CPU threads of the workers of Python models: a line for each number.
pub(crate) fn log_threads(endpoints: &[Endpoint], placed: &[Option<Placement>]) {
    let mut labels: Vec<(Threads, Vec<&str>)> = Vec::new();
    for (endpoint, placement) in endpoints.iter().zip(placed) {
        let (Some(placement), Source::Python(_)) = (placement, &endpoint.source) else { continue };
        match labels.iter_mut().find(|(threads, _)| *threads == placement.threads) {
            Some((_, labels)) => labels.push(endpoint.label()),
            None => labels.push((placement.threads, vec![endpoint.label()])),
        }
    }
    for (threads, labels) in labels {
        tracing::info!("CPU threads of each worker of {}: {threads}", labels.join(", "));
    }
}

fn placements(endpoints: &[&Endpoint], placed: Vec<Vec<String>>) -> Vec<Placement> {
    let cores = available_parallelism().map_or(1, Into::into);
    let workers = placed.iter().map(Vec::len).sum();
    let placement = |(endpoint, devices): (&&Endpoint, Vec<String>)| {
        let affinity = endpoint.resources.cpu_affinity.as_deref();
        let default = default_threads(affinity, devices.len(), cores, workers);
        Placement {
            threads: endpoint.resources.threads.map_or(default, Threads::chosen),
            devices: devices.into_iter().map(Device::new).collect(),
        }
    };
    endpoints.iter().zip(placed).map(placement).collect()
}
