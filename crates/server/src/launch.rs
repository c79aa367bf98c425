//! From an endpoint's configuration and placement to the launch of its workers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use litplex_admin::RunDir;
use litplex_calls::{CallService, QueueCalls, Registry, Targets};
use litplex_config::{DeviceConcurrency, Endpoint, Program, Source};
use litplex_core::{Attach, Calls, Device, Launch};
use litplex_devices::{Threads, isolate, thread_variables, visible_gpus};
use litplex_dirs::Cache;
use litplex_http::Dialects;
use litplex_scheduler::DeviceShares;
use litplex_workers::{
    Callees, OutputSpec, Overrides, Preload, ProcessSpec, PythonLaunch, Sdk, Settings,
    SharedPatience, Templates, WorkerLimits, WorkerSpec, WorkerTelemetry, default_interpreter,
};

use tokio::runtime::Handle;

use crate::log::Log;
use crate::placement::Placement;
use crate::residency::ResidencyHandle;
use crate::spec::RustModel;
use crate::telemetry::Telemetry;
use crate::{Error, secrets};

/// The variable in which JAX reads its share of a GPU's memory.
const JAX_FRACTION: &str = "XLA_PYTHON_CLIENT_MEM_FRACTION";

/// The parts of a worker's environment that are the same for all endpoints.
#[derive(Clone)]
pub(crate) struct WorkerEnvironment {
    /// The Python package that workers import.
    pub(crate) sdk: Sdk,
    /// The directory of virtual environments, if an endpoint needs one.
    pub(crate) cache: Option<Cache>,
    /// The command-line flags of every interpreter.
    pub(crate) python_flags: Vec<String>,
    /// The directory of the workers' sockets.
    pub(crate) run_dir: PathBuf,
    /// Whether requests have ids, which lines of workers show.
    pub(crate) request_ids: bool,
    /// The log, with the files of endpoints.
    pub(crate) log: Log,
    /// The names of environment variables that workers do not get.
    pub(crate) secrets: Vec<String>,
    /// Whether the code of models may be changed while they run.
    pub(crate) patches: bool,
    /// The templates that workers are forked from.
    pub(crate) templates: Templates,
    /// The targets of calls; empty until the endpoints are there.
    pub(crate) registry: Registry,
    /// The calls of their hooks.
    pub(crate) calls: CallService,
    /// The memory of all workers.
    pub(crate) residency: ResidencyHandle,
    /// The devices that endpoints share, and the limit of each.
    pub(crate) shares: (DeviceShares, DeviceConcurrency),
}

impl WorkerEnvironment {
    /// Returns the environment of a program's workers, whose code may be changed if `patches`.
    ///
    /// # Errors
    /// No cache directory is available, and a worker needs one.
    pub(crate) fn new(
        config: &Program,
        run_dir: &RunDir,
        log: Log,
        telemetry: &Telemetry,
        patches: bool,
    ) -> Result<Self, Error> {
        let cache = locate_cache(config)?;
        let (registry, templates) = (Registry::new(Targets::default()), Templates::default());
        Ok(Self {
            sdk: python_sdk(config, cache.as_ref()),
            cache,
            python_flags: config.python_flags.clone(),
            run_dir: run_dir.path().to_owned(),
            request_ids: config.request_id,
            log,
            secrets: secrets::hidden_from_models(config),
            patches,
            templates: templates.clone(),
            calls: CallService::new(registry.clone(), Dialects, telemetry.metrics.calls()),
            registry,
            residency: ResidencyHandle::spawn(config, templates),
            shares: (DeviceShares::spawn(), config.device_concurrency),
        })
    }
}

/// Returns the Python package that workers import.
pub(crate) fn python_sdk(config: &litplex_config::Program, cache: Option<&Cache>) -> Sdk {
    match &config.sdk {
        Some(installed) => Sdk::installed(installed.clone()),
        None => cache.cloned().map(Sdk::unpacked).unwrap_or_default(),
    }
}

/// Locates the cache directory, if a model needs one.
pub(crate) fn locate_cache(config: &litplex_config::Program) -> Result<Option<Cache>, Error> {
    let has_python = config.endpoints.iter().any(|e| matches!(e.source, Source::Python(_)));
    let has_requirements = config.endpoints.iter().any(|e| e.requirements.is_some());
    let has_no_sdk = has_python && config.sdk.is_none();
    if !(has_requirements || has_no_sdk) {
        return Ok(None);
    }
    let cache = Cache::locate()?;
    if let Some(reason) = cache.passed_over() {
        let root = cache.root().display();
        tracing::warn!("files are kept in {root}; LITPLEX_CACHE_DIR chooses the place: {reason}");
    }
    Ok(Some(cache))
}

/// Returns the launch of an endpoint's workers, and the times that these may compute, if they are processes.
pub(crate) fn launcher(
    config: &Endpoint,
    model: Option<RustModel>,
    placement: Placement,
    environment: &WorkerEnvironment,
    attach: Arc<dyn Attach>,
    calls: QueueCalls,
    telemetry: WorkerTelemetry,
) -> (Arc<dyn Launch>, Option<SharedPatience>) {
    match (model, &config.source) {
        (Some(model), _) => (model(rust_settings(config, placement.devices, calls), attach), None),
        (None, Source::Python(load)) => {
            let worker = worker_spec(config, load.clone(), environment);
            let process = process_spec(config, placement, environment);
            let calls: Arc<dyn Calls> = Arc::new(calls);
            let launch = PythonLaunch::new(worker, process, attach, calls, telemetry);
            let patience = launch.patience();
            (Arc::new(launch), Some(patience))
        }
        (None, Source::Rust | Source::Pipeline(_)) => {
            unreachable!("an endpoint of a Rust program has a model. This is a bug.")
        }
    }
}

fn rust_settings(config: &Endpoint, devices: Vec<Device>, calls: QueueCalls) -> Settings {
    Settings {
        endpoint: config.label().to_owned(),
        devices,
        max_batch_size: config.max_batch_size.unwrap_or(1),
        batch_timeout: config.batch_timeout.unwrap_or_default(),
        retry_batch_singly: retry_batch_singly(config),
        dialect: None,
        callees: Callees::new(Arc::new(calls), Handle::current()),
    }
}

fn worker_spec(
    config: &Endpoint,
    load: serde_json::Value,
    environment: &WorkerEnvironment,
) -> WorkerSpec {
    WorkerSpec {
        endpoint: config.label().to_owned(),
        load,
        pythonpath: config.pythonpath.clone(),
        overrides: Overrides {
            max_batch_size: config.max_batch_size,
            batch_timeout: config.batch_timeout,
            stream: config.stream,
            max_concurrency: config.max_concurrency,
        },
        retry_batch_singly: retry_batch_singly(config),
        limits: WorkerLimits {
            heartbeat: config.heartbeat,
            is_heartbeat_strict: config.is_heartbeat_chosen,
            timeout: config.timeout,
            chunk_timeout: config.chunk_timeout,
            kill_after: config.kill_after,
        },
        patches: environment.patches,
        // A worker that is stopped cannot be told of new code.
        hibernates: config.residency.hibernates && !environment.patches,
    }
}

fn process_spec(
    config: &Endpoint,
    placement: Placement,
    environment: &WorkerEnvironment,
) -> ProcessSpec {
    let Placement { devices, threads } = placement;
    let env = variables(config, &devices, threads);
    let (devices, visible_devices) = views(config, devices);
    ProcessSpec {
        output: OutputSpec {
            shows_ids: environment.request_ids,
            log_level: config.log_level.clone(),
            file: environment.log.files.get(config.label()).cloned(),
            history: environment.log.history(),
        },
        interpreter: config.python.clone().unwrap_or_else(default_interpreter),
        requirements: config.requirements.clone(),
        flags: environment.python_flags.clone(),
        sdk: environment.sdk.clone(),
        cache: environment.cache.clone(),
        sockets: environment.run_dir.clone(),
        env,
        secrets: environment.secrets.clone(),
        cwd: config.cwd.clone(),
        devices,
        visible_devices,
        gpu_memory_fraction: config.resources.gpu_memory_fraction,
        threads: threads.number,
        shared_cores: threads.is_shared().then_some(threads.asleep),
        cpu_affinity: config.resources.cpu_affinity.clone(),
        memory_limit: config.resources.memory_limit,
        preload: preload(config),
        templates: environment.templates.clone(),
    }
}

/// Returns the modules that workers share through a template. One that no operator asked for is worth its
/// memory only where workers are added while the endpoint serves.
fn preload(config: &Endpoint) -> Preload {
    match &config.preload {
        Some(modules) => Preload::Named(modules.clone()),
        None if config.workers.may_grow() => Preload::Found,
        None => Preload::Named(Vec::new()),
    }
}

/// Returns the endpoint's own variables, and those that follow from its other options.
pub(crate) fn variables(
    config: &Endpoint,
    devices: &[Device],
    threads: Threads,
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

/// Returns the devices as the workers name them, and the `CUDA_VISIBLE_DEVICES` of each.
fn views(config: &Endpoint, devices: Vec<Device>) -> (Vec<Device>, Vec<Option<String>>) {
    if !config.resources.isolate_devices {
        let all = vec![None; devices.len()];
        return (devices, all);
    }
    let visible = visible_gpus();
    let view = |device: Device| {
        let (device, only) = isolate(device.as_str(), visible.as_deref());
        (Device::new(device), only)
    };
    devices.into_iter().map(view).unzip()
}

/// Returns whether the items of a failed batch are computed one by one. A stream that has begun is
/// never computed again.
fn retry_batch_singly(config: &Endpoint) -> bool {
    config.retry_batch_singly.or(config.idempotent).unwrap_or(true)
}
