//! The status of a running server.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// The status of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The process id.
    pub pid: u32,
    /// The address of the server, such as `http://127.0.0.1:8000`.
    pub url: String,
    /// The address of the admin API, if it has a port.
    #[serde(default)]
    pub admin_url: Option<String>,
    /// The port of the address.
    pub port: u16,
    /// The seconds since the start of the server.
    pub uptime: f64,
    /// The GPUs of the machine; empty if no endpoint is on a GPU.
    #[serde(default)]
    pub gpus: Vec<GpuStatus>,
    /// The memory that all workers together have and may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStatus>,
    /// The last reload of the whole program, if it failed.
    #[serde(default)]
    pub failed_reload: Option<FailedReload>,
    /// The endpoints, in the order of the configuration.
    pub endpoints: Vec<EndpointStatus>,
}

/// The status of an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndpointStatus {
    /// The path, or the name where endpoints share the path: what the log, metrics and events call it.
    #[serde(default)]
    pub label: String,
    /// The path.
    pub path: String,
    /// The name.
    #[serde(default)]
    pub name: String,
    /// Further names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// `python`, `rust` or `pipeline`, which has no workers.
    pub kind: String,
    /// `ready`, `asleep` (without workers until a request comes), `unavailable`, `paused` or `draining`.
    pub state: String,
    /// The reason why the endpoint is not ready.
    pub problem: Option<String>,
    /// The number of wanted workers.
    pub wanted: usize,
    /// The lower limit of autoscaling.
    pub min_workers: Option<usize>,
    /// The upper limit of autoscaling.
    pub max_workers: Option<usize>,
    /// The number of jobs that wait. A request with several inputs, such as a list of texts to
    /// embed, is several jobs.
    pub queued: usize,
    /// The number of jobs that workers hold.
    pub in_flight: usize,
    /// The number of requests that have ended since the start, refused ones included: the sum of
    /// `litplex_requests_total` on `/metrics`.
    pub requests: u64,
    /// The findings about its batches, in words; none until enough were computed, and of endpoints that do not
    /// batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<String>,
    /// The memory of its workers; none of a pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residency: Option<ResidencyStatus>,
    /// The warmest tier of its workers, if they are processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// The workers of the live generation, by slot.
    pub workers: Vec<WorkerStatus>,
    /// The last generations of workers, the latest last.
    #[serde(default)]
    pub generations: Vec<GenerationStatus>,
    /// The source files that its workers have loaded, without those of Python and of installed packages.
    /// Only in the status of a single endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// The memory of all workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryStatus {
    /// The bytes of the host that all workers and their templates have: as measured, or as predicted while they load.
    pub held: u64,
    /// The bytes of it that templates have.
    #[serde(default)]
    pub templates: u64,
    /// The bytes that they may have (`memory_budget`).
    pub budget: u64,
    /// The GPUs that the program may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuBudget>,
}

/// The memory of a GPU that all workers together have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GpuBudget {
    /// The index of the GPU among those that the program may use.
    pub index: usize,
    /// The bytes that they have.
    pub held: u64,
    /// The bytes that they may have (`gpu_memory_budget`).
    pub budget: u64,
}

/// The memory of all workers, and what a request for each endpoint would lead to now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryPlan {
    /// The memory of all workers.
    pub memory: MemoryStatus,
    /// The endpoints with workers, in the order of their starts.
    pub endpoints: Vec<PlannedMemory>,
}

/// The memory of an endpoint, and what a request for it would lead to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlannedMemory {
    /// The path of the endpoint, or its name where endpoints share the path.
    pub endpoint: String,
    /// The bytes of the host that a worker is expected to need.
    pub needs: u64,
    /// The bytes of GPU memory that a worker is expected to need.
    pub needs_gpu: u64,
    /// Whether that was measured at an earlier start. Otherwise it is declared (`memory`) or assumed.
    pub is_measured: bool,
    /// The seconds that a worker is expected to take to load.
    pub load_seconds: f64,
    /// The bytes of the host that its workers have.
    pub held: u64,
    /// The bytes of GPU memory that its workers have.
    pub held_gpu: u64,
    /// Whether workers of it never leave for others (`min_workers`, `pinned`).
    pub stays: bool,
    /// The consequence of a request.
    pub next: NextLoad,
    /// The endpoints of which workers would leave for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evicts: Vec<String>,
    /// The reason why it never fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The consequence of a request for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NextLoad {
    /// A worker is in memory.
    InMemory,
    /// A worker fits beside all others.
    Fits,
    /// Workers of others leave for it.
    Evicts,
    /// No worker that may leave frees enough now.
    Waits,
    /// A worker never fits beside what must stay.
    Never,
}

/// The memory of an endpoint's workers, and what was given up for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResidencyStatus {
    /// The bytes of the host that a worker is expected to need.
    pub predicted: u64,
    /// The bytes of GPU memory that a worker is expected to need.
    pub predicted_gpu: u64,
    /// Whether that was measured at an earlier start. Otherwise it is declared (`memory`) or assumed.
    pub is_measured: bool,
    /// The seconds that a worker is expected to take to load.
    pub load_seconds: f64,
    /// Whether a worker waits for memory.
    pub is_waiting: bool,
    /// The workers that were loaded since the start.
    pub loads: u64,
    /// The seconds that these took together.
    pub loading_seconds: f64,
    /// Whether workers that leave memory hibernate (`hibernate`).
    #[serde(default)]
    pub may_hibernate: bool,
    /// The workers that hibernate now.
    #[serde(default)]
    pub hibernated: usize,
    /// The workers that were woken since the start.
    #[serde(default)]
    pub wakes: u64,
    /// The seconds that these took together.
    #[serde(default)]
    pub waking_seconds: f64,
    /// The workers that left because others needed their memory.
    pub evictions: u64,
    /// The last eviction, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_eviction: Option<String>,
    /// The requests that came while a worker was in memory, if the number of workers follows the load.
    pub hits: u64,
    /// The requests that came while none was.
    pub misses: u64,
    /// The starts for which there was no room.
    pub refusals: u64,
}

/// The distance of a model from serving, from the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// A worker is in memory.
    Hot,
    /// A worker is stopped, its memory in swap; a request wakes it.
    Hibernated,
    /// A worker is forked from a process that has imported its modules.
    Template,
    /// A worker starts from nothing.
    Cold,
}

impl Tier {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Hibernated => "hibernated",
            Self::Template => "template",
            Self::Cold => "cold",
        }
    }
}

/// A generation of an endpoint's workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GenerationStatus {
    /// The number of the generation; the first is 1.
    pub generation: u64,
    /// The state.
    pub state: GenerationState,
    /// The time since which it has the state, in RFC 3339.
    pub since: String,
    /// The share of the requests that a canary gets, or that are copied for a shadow, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// The reason why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The comparison of its answers with those of the live generation, if it is or was a shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<ComparedAnswers>,
}

/// The answers of a shadow that were compared with those of the live generation: their status and their bytes.
/// Streams and failures are not compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComparedAnswers {
    /// The number of answers that were compared.
    pub compared: u64,
    /// The number of those that differ.
    pub differed: u64,
}

impl std::fmt::Display for ComparedAnswers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} answers differ", self.differed, self.compared)
    }
}

/// The generations of an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndpointGenerations {
    /// The path of the endpoint, or its name where endpoints share the path.
    pub endpoint: String,
    /// The last generations, the latest last.
    pub generations: Vec<GenerationStatus>,
    /// The earlier generations that `rollback` can return to, the latest last.
    pub earlier: Vec<u64>,
    /// The way in which the next generation takes the place of the live one, unless a reload says otherwise.
    pub next: NextSwap,
}

/// The way in which the next generation takes the place of the live one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NextSwap {
    /// The way.
    pub swap: Swap,
    /// The reason, if the option `swap` is not set and two generations do not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The seconds that workers took to start so far, as they are expected again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// The way in which a generation takes the place of the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Swap {
    /// The new one starts beside the live one.
    Overlap,
    /// The live one stops before it starts, and requests wait.
    InPlace,
}

/// The state of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GenerationState {
    /// Its workers load the model.
    Starting,
    /// Its workers answer warm-up requests.
    Warming,
    /// A share of the requests is for it, on trial.
    Canary,
    /// Copies of a share of the requests are for it, on trial, and its answers are dropped.
    Shadow,
    /// New requests are for it.
    Live,
    /// Another generation took its place; it finishes its requests.
    Draining,
    /// Its workers are gone.
    Ended,
    /// Its workers did not become ready, or it was rolled back.
    Failed,
}

impl GenerationState {
    /// Returns the word for the state.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Warming => "warming",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
            Self::Live => "live",
            Self::Draining => "draining",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }
}

/// The limits of a reload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// The seconds that the new workers have to become ready. Default: 600.
    #[serde(default = "default_limit")]
    pub timeout: f64,
    /// The share of the requests that the new generation gets on trial, above 0 and at most 1. Default: it
    /// gets all requests once it is ready.
    #[serde(default)]
    pub canary: Option<f64>,
    /// The share of the requests of which the new generation gets copies, whose answers are compared and dropped,
    /// above 0 and at most 1. Not with `canary`. Default: none.
    #[serde(default)]
    pub shadow: Option<f64>,
    /// Whether requests of an endpoint that is not idempotent may be copied: their effects happen twice then.
    /// Default: false.
    #[serde(default)]
    pub allow_effects: bool,
    /// The way in which the new generation takes the place of the live one. Default: as the option `swap` says, else in
    /// place if two generations do not fit.
    #[serde(default)]
    pub swap: Option<Swap>,
}

/// A return to an earlier generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The number of the earlier generation. Default: the trial of a generation ends if there is one, otherwise the
    /// generation that was live before this one is started again.
    #[serde(default)]
    pub generation: Option<u64>,
    /// The seconds that the workers have to become ready. Default: 600.
    #[serde(default = "default_limit")]
    pub timeout: f64,
}

fn default_limit() -> f64 {
    600.0
}

/// The result of a reload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// The path of the endpoint, or its name where endpoints share the path.
    pub endpoint: String,
    /// The number of the generation.
    pub generation: u64,
    /// The state of the generation: `live`, `canary` or `shadow`.
    pub state: GenerationState,
    /// The seconds that its workers took to become ready.
    pub seconds: f64,
    /// The changes that clients may notice, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<String>,
}

/// The limits of an upgrade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// The seconds that the new server has to become ready. Default: 600.
    #[serde(default = "default_limit")]
    pub limit: f64,
}

/// The result of an upgrade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Upgraded {
    /// The process id of the server that was replaced.
    pub before: u32,
    /// The process id of the server that serves now.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// The seconds that it took to become ready.
    pub seconds: f64,
}

/// The state of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeState {
    /// The new server loads its models.
    Starting,
    /// The new server takes all requests.
    Serving,
    /// The new server did not become ready.
    Failed,
}

impl UpgradeState {
    /// Returns the word for the state.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Failed => "failed",
        }
    }
}

/// An order to read the configuration again, and to apply what has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReloadProgram {
    /// Whether to return the plan alone, and to change nothing. Default: false.
    #[serde(default)]
    pub dry_run: bool,
    /// The seconds that the new workers of each endpoint have to become ready. Default: 600.
    #[serde(default = "default_limit")]
    pub timeout: f64,
}

/// The plan of a reload: what differs between the configuration as it is now and the one that is served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReloadPlan {
    /// The endpoints, those that stay as they are included.
    pub endpoints: Vec<PlannedEndpoint>,
    /// Changed options that only a start of the server applies. They stay as they are.
    pub restart: Vec<PlannedOption>,
    /// Whether the process with the program's own routes and middlewares is replaced.
    pub app: bool,
    /// The changed files that this process has loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub app_files: Vec<String>,
}

impl ReloadPlan {
    /// Returns whether the reload changes nothing.
    pub fn is_empty(&self) -> bool {
        !self.app && self.endpoints.iter().all(|it| it.change == PlannedChange::Unchanged)
    }
}

/// The plan for an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedEndpoint {
    /// The path of the endpoint, or its name where endpoints share the path.
    pub endpoint: String,
    /// The change.
    pub change: PlannedChange,
    /// The changed options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<PlannedOption>,
    /// The changed files that the workers have loaded, and changed requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

/// The change of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlannedChange {
    /// No change.
    Unchanged,
    /// Its options change, and its workers stay.
    Options,
    /// New workers take the place of the old ones.
    Reload,
    /// A new endpoint.
    Added,
    /// The removal of the endpoint, after its requests.
    Removed,
}

impl PlannedChange {
    /// Returns the word for the change.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Options => "options",
            Self::Reload => "reload",
            Self::Added => "added",
            Self::Removed => "removed",
        }
    }
}

/// A changed option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedOption {
    /// The endpoint, if the option is listed beside those of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The name of the option.
    pub option: String,
    /// The value before; secrets are masked.
    pub before: String,
    /// The value after; secrets are masked.
    pub after: String,
}

/// The result of a reload of the whole program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProgramReloaded {
    /// The plan.
    pub plan: ReloadPlan,
    /// The results of the endpoints that changed; empty if only the plan was asked for.
    pub results: Vec<EndpointReloaded>,
}

impl ProgramReloaded {
    /// Returns whether every change was made.
    pub fn is_success(&self) -> bool {
        self.results.iter().all(|result| result.error.is_none())
    }
}

/// The result of the change of an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndpointReloaded {
    /// The path of the endpoint, or its name where endpoints share the path.
    pub endpoint: String,
    /// The change.
    pub change: PlannedChange,
    /// The number of the generation that is live now, if new workers were needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The seconds that the workers took to become ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The reason why the endpoint stays as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A reload that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailedReload {
    /// The time, in RFC 3339.
    pub since: String,
    /// The reason.
    pub reason: String,
}

/// The status of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStatus {
    /// The number of the slot.
    pub slot: usize,
    /// The state of the slot, in a word: `starting`, `ready`, …
    pub state: String,
    /// The process id; `None` for a worker that is a thread.
    pub pid: Option<u32>,
    /// The device that the worker computes on.
    pub device: String,
    /// The number of CPU threads that it was told to use; `None` for a worker that is a thread.
    #[serde(default)]
    pub threads: Option<usize>,
    /// The number of jobs that the worker holds.
    pub in_flight: usize,
    /// The number of times that the slot's worker was replaced.
    pub restarts: u64,
    /// The seconds since the worker became ready; `None` while it is not.
    pub ready_for: Option<f64>,
    /// The seconds since the worker was launched; `None` once it is ready.
    #[serde(default)]
    pub starting_for: Option<f64>,
    /// The reason why the worker is not ready, or why the one before it ended.
    pub reason: Option<String>,
    /// The last line of the log about the worker since its launch, while it starts.
    #[serde(default)]
    pub last_line: Option<LastLine>,
    /// The bytes of resident memory of its process, without child processes.
    #[serde(default)]
    pub memory: Option<u64>,
    /// The bytes of GPU memory of its process and its child processes.
    #[serde(default)]
    pub gpu_memory: Option<u64>,
}

/// The last line of the log about a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastLine {
    /// The time, in RFC 3339.
    pub timestamp: String,
    /// The line.
    pub text: String,
}

/// The figures of a GPU, as its driver reports them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GpuStatus {
    /// The index at the driver.
    pub index: u32,
    /// The UUID, `GPU-…`.
    pub uuid: String,
    /// The bytes of its memory that are used.
    pub used: u64,
    /// The bytes of its memory.
    pub total: u64,
    /// The share of time in which it computed, from 0 to 1; `None` if it is divided.
    pub utilization: Option<f64>,
}

/// The mode of an endpoint: what it does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Requests are answered.
    #[default]
    Serving,
    /// Requests wait in its queue, within their time budgets.
    Paused,
    /// New requests are refused, and those in progress are finished.
    Draining,
}

impl From<litplex_core::Mode> for Mode {
    fn from(mode: litplex_core::Mode) -> Self {
        match mode {
            litplex_core::Mode::Serving => Self::Serving,
            litplex_core::Mode::Paused => Self::Paused,
            litplex_core::Mode::Draining => Self::Draining,
        }
    }
}

impl From<Mode> for litplex_core::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Serving => Self::Serving,
            Mode::Paused => Self::Paused,
            Mode::Draining => Self::Draining,
        }
    }
}

impl Mode {
    /// Returns the word for the mode.
    pub fn word(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Paused => "paused",
            Self::Draining => "draining",
        }
    }
}

/// The mode of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointMode {
    /// The path of the endpoint, or its name where endpoints share the path.
    pub endpoint: String,
    /// The mode.
    pub mode: Mode,
}

/// The wanted number of workers of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The number of workers, over all devices, from 0 to 1024; with 0 the endpoint sleeps until a request comes.
    /// `"cold"`: as 0, and no worker hibernates. `"auto"`: as configured, so that the load may change it again.
    #[schema(value_type = Value, example = 4)]
    pub workers: WorkerCount,
}

/// A number of workers: one that the load does not change, or that of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerCount {
    /// This number.
    Number(usize),
    /// None until a request comes, and none that hibernates.
    Cold,
    /// The number, or the limits, of the configuration.
    Auto,
}

impl WorkerCount {
    /// Returns the count that has this name, if one has.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "cold" => Some(Self::Cold),
            "auto" => Some(Self::Auto),
            _ => None,
        }
    }
}

impl Serialize for WorkerCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(workers) => workers.serialize(serializer),
            Self::Cold => serializer.serialize_str("cold"),
            Self::Auto => serializer.serialize_str("auto"),
        }
    }
}

impl<'de> Deserialize<'de> for WorkerCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count;
        impl Visitor<'_> for Count {
            type Value = WorkerCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of workers, \"cold\" or \"auto\"")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<WorkerCount, E> {
                Ok(WorkerCount::Number(usize::try_from(number).unwrap_or(usize::MAX)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WorkerCount, E> {
                WorkerCount::named(text)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Count)
    }
}

/// The result of a change of an endpoint's number of workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Scaled {
    /// The path of the endpoint, or its name where endpoints share the path.
    pub endpoint: String,
    /// The number of wanted workers before the change.
    pub before: usize,
    /// The number of wanted workers from now on.
    pub wanted: usize,
}

/// The level of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    /// The level, in the syntax of `LITPLEX_LOG`: `warn`, `debug`, `info,litplex_workers=debug`.
    pub level: String,
}

/// The rights of a client of the admin API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Session {
    /// The name of its key; `None` on the socket of the server's user.
    pub(crate) holder: Option<String>,
    /// Whether it may use operations that change something.
    pub(crate) may_change: bool,
}

/// An error of the admin API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// The problem, and what to do about it.
    pub(crate) error: String,
}
