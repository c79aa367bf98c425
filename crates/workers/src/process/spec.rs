//! The specification of a Python endpoint's workers: the model, and the processes on this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use litplex_core::Device;
use litplex_dirs::Cache;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::output::OutputSpec;
use super::sdk::Sdk;
use super::templates::{Preload, Templates};

/// The model that the workers of an endpoint load, and the limits that they work within. It means
/// the same on every machine that has the model's code.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerSpec {
    /// The path of the endpoint, for labels and messages.
    pub endpoint: String,
    /// The model; `_worker/_load.py` describes the forms. A pickle is in a `file` that this process
    /// holds open, and follows the order on the worker's standard input.
    pub load: Value,
    /// The directories in which the worker looks for modules first.
    pub pythonpath: Vec<PathBuf>,
    /// The settings of the model that the configuration overrides.
    pub overrides: Overrides,
    /// Whether the items of a batch that raised are computed again one by one. It has no effect on
    /// responses that are streams.
    pub retry_batch_singly: bool,
    /// The times that a worker has.
    pub limits: WorkerLimits,
    /// Whether the code of the model may be changed while it runs.
    pub patches: bool,
    /// Whether workers on the CPU are prepared to hibernate.
    pub hibernates: bool,
}

/// The settings of a model that its configuration overrides; `None` keeps the model's own.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Overrides {
    /// The most items in a batch.
    pub max_batch_size: Option<usize>,
    /// The time that a batch may wait to fill.
    pub batch_timeout: Option<Duration>,
    /// Whether responses are streams.
    pub stream: Option<bool>,
    /// The number of batches, or single requests, that a worker computes at the same time.
    pub max_concurrency: Option<usize>,
}

/// The times that a worker has to respond and to compute.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct WorkerLimits {
    /// The time in which a worker must show that its interpreter runs.
    pub heartbeat: Duration,
    /// Whether the heartbeat counts while the worker computes, too.
    pub is_heartbeat_strict: bool,
    /// The time that a request may be computed.
    pub timeout: Duration,
    /// The time that a stream may take for its next part.
    pub chunk_timeout: Duration,
    /// The further time after which the worker is killed; `None` for no limit.
    pub kill_after: Option<Duration>,
}

/// The processes of an endpoint's workers on this machine.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// The destination of the workers' output.
    pub output: OutputSpec,
    /// The interpreter; a bare name is looked up on `PATH`.
    pub interpreter: PathBuf,
    /// The file of requirements of an environment of that interpreter, in which the workers run.
    pub requirements: Option<PathBuf>,
    /// The options of the interpreter, such as `-O`.
    pub flags: Vec<String>,
    /// The `litplex` package.
    pub sdk: Sdk,
    /// The cache in which environments are created; needed for `requirements`.
    pub cache: Option<Cache>,
    /// A directory for the workers' sockets, which only this user can enter.
    pub sockets: PathBuf,
    /// Environment variables to add.
    pub env: BTreeMap<String, String>,
    /// Environment variables of this process that the workers do not get: keys of clients.
    pub secrets: Vec<String>,
    /// The working directory, if it is not this process's own.
    pub cwd: Option<PathBuf>,
    /// The devices of the slots, in turn, by the names that their workers use.
    pub devices: Vec<Device>,
    /// The `CUDA_VISIBLE_DEVICES` of the slots, in turn; `None` for the server's own.
    pub visible_devices: Vec<Option<String>>,
    /// The share of its GPU's memory that a worker may take.
    pub gpu_memory_fraction: Option<f64>,
    /// The number of CPU threads of each worker.
    pub threads: usize,
    /// The number of cores that the worker shares with others, where threads must not spin on them.
    pub shared_cores: Option<usize>,
    /// The cores that the workers run on; `None` for all.
    pub cpu_affinity: Option<Vec<usize>>,
    /// The bytes of memory that a worker may use, with its child processes, before it is killed.
    pub memory_limit: Option<u64>,
    /// The modules that workers share through a template.
    pub preload: Preload,
    /// The templates of all endpoints.
    pub templates: Templates,
}

impl ProcessSpec {
    /// Returns the device of the worker in a slot.
    pub(super) fn device(&self, slot: usize) -> &Device {
        &self.devices[slot % self.devices.len()]
    }

    /// Returns the environment variables that the worker in a slot gets.
    pub(super) fn variables(&self, slot: usize) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        env.extend(self.own_variables(slot));
        env
    }

    /// Returns those of the variables that the workers of other slots may have with another value.
    pub(super) fn own_variables(&self, slot: usize) -> BTreeMap<String, String> {
        let visible = self.visible_devices[slot % self.visible_devices.len()].clone();
        visible.map(|visible| ("CUDA_VISIBLE_DEVICES".into(), visible)).into_iter().collect()
    }
}
