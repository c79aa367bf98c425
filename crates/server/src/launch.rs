use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use litplex_config::{Endpoint, Source, isolate, thread_variables};
use litplex_core::{Attach, Device, Launch};
use litplex_dirs::Cache;
use litplex_metrics::{StageTimes, UserSink};
use litplex_workers::{
    OutputSpec, Overrides, PythonLaunch, PythonSpec, Sdk, Settings, Unwell, default_interpreter,
};

use crate::log::LogFiles;
use crate::placement::Placement;
use crate::spec::RustModel;

/// What JAX asks for the share of a GPU's memory that it takes.
const JAX_FRACTION: &str = "XLA_PYTHON_CLIENT_MEM_FRACTION";

/// Where things lie that workers need, and what holds for all of them.
pub(crate) struct Places {
    /// The Python package.
    pub(crate) sdk: Sdk,
    /// Where environments are kept, if any is to be made.
    pub(crate) cache: Option<Cache>,
    /// What every interpreter is started with.
    pub(crate) python_flags: Vec<String>,
    /// Where the workers' sockets are.
    pub(crate) run_dir: PathBuf,
    /// Whether requests have ids.
    pub(crate) request_ids: bool,
    pub(crate) log_files: LogFiles,
    /// Environment variables that workers do not get.
    pub(crate) secrets: Vec<String>,
}

/// Makes what starts the workers of an endpoint.
pub(crate) fn launch_of(
    config: &Endpoint,
    model: Option<RustModel>,
    placement: Placement,
    places: &Places,
    attach: Arc<dyn Attach>,
    (unwell, metrics, stages): (Unwell, UserSink, StageTimes),
) -> Arc<dyn Launch> {
    match (model, &config.source) {
        (Some(model), _) => model(rust_settings(config, placement.devices), attach),
        (None, Source::Python(load)) => {
            let spec = python_spec(config, load.clone(), placement, places, (unwell, stages));
            Arc::new(PythonLaunch::new(spec, attach, metrics))
        }
        (None, Source::Rust) => unreachable!("the builder gave it a model. This is a bug."),
    }
}

fn rust_settings(config: &Endpoint, devices: Vec<Device>) -> Settings {
    Settings {
        endpoint: config.path.clone(),
        devices,
        max_batch_size: config.max_batch_size.unwrap_or(1),
        batch_timeout: config.batch_timeout.unwrap_or_default(),
        retry_batch_singly: retry_batch_singly(config),
    }
}

fn python_spec(
    config: &Endpoint,
    load: serde_json::Value,
    placement: Placement,
    places: &Places,
    (unwell, stages): (Unwell, StageTimes),
) -> PythonSpec {
    let Placement { devices, threads } = placement;
    let variables = variables(config, &devices, threads);
    let (devices, visible_devices) = views(config, devices);
    PythonSpec {
        endpoint: config.path.clone(),
        output: OutputSpec {
            has_marks: places.request_ids,
            log_level: config.log_level.clone(),
            file: places.log_files.get(&config.path).cloned(),
        },
        interpreter: config.python.clone().unwrap_or_else(default_interpreter),
        requirements: config.requirements.clone(),
        flags: places.python_flags.clone(),
        sdk: places.sdk.clone(),
        cache: places.cache.clone(),
        sockets: places.run_dir.clone(),
        env: variables,
        secrets: places.secrets.clone(),
        cwd: config.cwd.clone(),
        pythonpath: config.pythonpath.clone(),
        load,
        devices,
        visible_devices,
        gpu_memory_fraction: config.resources.gpu_memory_fraction,
        threads,
        cpu_affinity: config.resources.cpu_affinity.clone(),
        memory_limit: config.resources.memory_limit,
        overrides: Overrides {
            max_batch_size: config.max_batch_size,
            batch_timeout: config.batch_timeout,
            stream: config.stream,
            max_concurrency: config.max_concurrency,
        },
        retry_batch_singly: retry_batch_singly(config),
        heartbeat: config.heartbeat,
        is_heartbeat_strict: config.is_heartbeat_chosen,
        timeout: config.timeout,
        chunk_timeout: config.chunk_timeout,
        kill_after: config.kill_after,
        unwell,
        stages,
    }
}

/// The endpoint's own variables, and those that follow from its other options.
pub(crate) fn variables(
    config: &Endpoint,
    devices: &[Device],
    threads: usize,
) -> BTreeMap<String, String> {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let mut variables = thread_variables(threads, is_set);
    let has_gpu = devices.iter().any(|device| device.as_str().starts_with("cuda"));
    if let Some(fraction) = config.resources.gpu_memory_fraction
        && has_gpu
        && !is_set(JAX_FRACTION)
    {
        variables.insert(JAX_FRACTION.into(), fraction.to_string());
    }
    variables.extend(config.env.clone());
    variables
}

/// The devices as the workers see them, and what makes them see no more.
fn views(config: &Endpoint, devices: Vec<Device>) -> (Vec<Device>, Vec<Option<String>>) {
    if !config.resources.isolate_devices {
        let all = vec![None; devices.len()];
        return (devices, all);
    }
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let view = |device: Device| {
        let (device, only) = isolate(device.as_str(), visible.as_deref());
        (Device::new(device), only)
    };
    devices.into_iter().map(view).unzip()
}

/// A stream that has begun is not computed again, whatever this says.
fn retry_batch_singly(config: &Endpoint) -> bool {
    config.retry_batch_singly.or(config.idempotent).unwrap_or(true)
}
