use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{
    Attach, BoxFuture, Device, DialectId, Launch, LaunchError, Launched, ModelInfo, WorkerExit,
};
use litplex_dirs::Cache;
use litplex_metrics::{StageTimes, UserSink};
use litplex_wire::{Failed, Frame, Hello, Kind, Ready, Setup};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, mpsc};

use super::child::{Command, Order, Process};
use super::launched::{PythonLaunched, PythonWorker};
use super::memory::{MemoryLimit, ProcessMonitor};
use super::output::{Label, OutputSpec};
use super::sdk::Sdk;
use super::venv::{Made, Venv};
use crate::link::Unwell;
use crate::link::connection::{Connection, Manner};
use crate::link::control::{Control, Times};
use crate::link::handshake::{Connections, Door, read_frame, write_frame};
use crate::link::in_flight::{Patience, STREAM_CREDIT};
use crate::link::metrics::SlotMetrics;
use crate::link::pulse::Pulse;

/// How long a process without a connection may take to exit.
const EXIT_WAIT: Duration = Duration::from_secs(5);

/// How to run the workers of one Python endpoint.
#[derive(Debug, Clone)]
pub struct PythonSpec {
    /// The endpoint's path, for marks and messages.
    pub endpoint: String,
    /// What becomes of what they print.
    pub output: OutputSpec,
    /// The interpreter; a bare name is looked up on `PATH`.
    pub interpreter: PathBuf,
    /// What is installed in an environment of that interpreter, in which the workers then run.
    pub requirements: Option<PathBuf>,
    /// What the interpreter is started with, such as `-O`.
    pub flags: Vec<String>,
    /// The `litplex` package.
    pub sdk: Sdk,
    /// Where environments are kept, if any is to be made.
    pub cache: Option<Cache>,
    /// A directory for its socket, which only this user can enter.
    pub sockets: PathBuf,
    /// Environment variables to add.
    pub env: BTreeMap<String, String>,
    /// Environment variables of this process that they do not get: keys of callers.
    pub secrets: Vec<String>,
    /// The working directory, where it is not this process's own.
    pub cwd: Option<PathBuf>,
    /// Where the worker looks for modules first.
    pub pythonpath: Vec<PathBuf>,
    /// What the worker loads; `_worker/_load.py` describes the forms. A pickle is in a `file` that
    /// this process holds, and follows the order.
    pub load: Value,
    /// The devices of the slots, in turn, as their workers call them.
    pub devices: Vec<Device>,
    /// The `CUDA_VISIBLE_DEVICES` of the slots, in turn, where they do not see what the server
    /// does.
    pub visible_devices: Vec<Option<String>>,
    /// The share of its GPU's memory that a worker may take.
    pub gpu_memory_fraction: Option<f64>,
    /// CPU threads of each worker.
    pub threads: usize,
    /// The cores that they run on, where they are not all.
    pub cpu_affinity: Option<Vec<usize>>,
    /// Bytes of memory that a worker may use, with what it started, before it is killed.
    pub memory_limit: Option<u64>,
    /// What the configuration overrides.
    pub overrides: Overrides,
    /// Whether the items of a batch that raised are computed again one by one. Where it is not
    /// set: if their answers are no streams.
    pub retry_batch_singly: bool,
    /// How often a worker must show that its interpreter runs.
    pub heartbeat: Duration,
    /// Whether that holds while it computes, too.
    pub is_heartbeat_strict: bool,
    /// How long a request may be computed.
    pub timeout: Duration,
    /// How long a stream may take for its next part.
    pub chunk_timeout: Duration,
    /// How much longer before its worker is killed; for ever where it is not set.
    pub kill_after: Option<Duration>,
    /// Counts the workers whose model's `health` says that they are not well.
    pub unwell: Unwell,
    /// What measures the stages of its requests.
    pub stages: StageTimes,
}

/// Settings of a model that its configuration overrides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// The most items in a batch.
    pub max_batch_size: Option<usize>,
    /// How long a batch may wait to fill.
    pub batch_timeout: Option<Duration>,
    /// Whether answers are streams.
    pub stream: Option<bool>,
    /// Batches, or single requests, that a worker computes at the same time.
    pub max_concurrency: Option<usize>,
}

/// Starts worker processes of one Python endpoint.
pub struct PythonLaunch {
    spec: Arc<PythonSpec>,
    /// What the workers run in, once it is there.
    environment: Arc<Mutex<Option<Made>>>,
    attach: Arc<dyn Attach>,
    metrics: UserSink,
}

impl std::fmt::Debug for PythonLaunch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PythonLaunch").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl PythonLaunch {
    /// Makes a launch whose workers serve the queue behind `attach`, and say in `metrics` what
    /// their models measure.
    pub fn new(spec: PythonSpec, attach: Arc<dyn Attach>, metrics: UserSink) -> Self {
        Self { spec: Arc::new(spec), environment: Arc::default(), attach, metrics }
    }
}

impl Launch for PythonLaunch {
    fn launch(&self, slot: usize) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>> {
        let (spec, attach) = (self.spec.clone(), self.attach.clone());
        let metrics = SlotMetrics::new(self.metrics.clone(), slot);
        let environment = self.environment.clone();
        Box::pin(async move {
            let interpreter = interpreter_of(&spec, &environment).await?;
            let code = spec.sdk.package()?.join("_worker");
            let door = Door::open(&spec.sockets)?;
            let label = Label::of_worker(&spec.endpoint, slot, &spec.output);
            let text = order(&spec, &door, &label);
            let order = Order { text: &text, pickle: pickle(&spec.load) };
            let env = variables(&spec, slot);
            let mut process =
                Process::start(&command(&spec, &interpreter, code, &env), &label, order).await?;
            let memory = memory_limit(&process, &spec);
            let ready = tokio::select! {
                ready = become_ready(door, &spec, slot) => ready,
                gone = process.gone() => {
                    Err(LaunchError { reason: format!("{gone} before it was ready"), traceback: None })
                }
                reason = memory.exceeded() => {
                    let reason = format!("{reason}; it was killed before it was ready");
                    Err(LaunchError { reason, traceback: None })
                }
            };
            let (connections, ready) = match ready {
                Ok(ready) => ready,
                Err(error) => {
                    process.kill();
                    // What it printed may say more than the reason.
                    process.gone().await;
                    return Err(error);
                }
            };
            let metrics = (slot, metrics);
            Ok(Box::new(serve(process, connections, &ready, metrics, &spec, &*attach)) as _)
        })
    }
}

/// Returns what the workers are run by, after the environment that they run in was made or checked.
async fn interpreter_of(
    spec: &PythonSpec,
    environment: &Mutex<Option<Made>>,
) -> Result<PathBuf, LaunchError> {
    let PythonSpec { endpoint, interpreter, secrets, .. } = spec;
    let (Some(requirements), Some(cache)) = (&spec.requirements, &spec.cache) else {
        return Ok(interpreter.clone());
    };
    let mut environment = environment.lock().await;
    let made = match environment.take().filter(Made::is_ready) {
        Some(made) => made,
        None => Venv { endpoint, interpreter, requirements, cache, secrets }.make_ready().await?,
    };
    cache
        .check(&made.directory)
        .map_err(|error| LaunchError { reason: error.to_string(), traceback: None })?;
    Ok(environment.insert(made).python())
}

fn command<'a>(
    spec: &'a PythonSpec,
    interpreter: &'a Path,
    code: PathBuf,
    env: &'a BTreeMap<String, String>,
) -> Command<'a> {
    let (cwd, secrets, memory_limit) = (spec.cwd.as_deref(), &spec.secrets, spec.memory_limit);
    Command { interpreter, flags: &spec.flags, code, env, secrets, cwd, memory_limit }
}

fn variables(spec: &PythonSpec, slot: usize) -> BTreeMap<String, String> {
    let mut env = spec.env.clone();
    if let Some(visible) = &spec.visible_devices[slot % spec.visible_devices.len()] {
        env.insert("CUDA_VISIBLE_DEVICES".into(), visible.clone());
    }
    env
}

fn memory_limit(process: &Process, spec: &PythonSpec) -> MemoryLimit {
    MemoryLimit { process: process.id().unwrap_or_default(), bytes: spec.memory_limit }
}

/// Returns the file with the model, where it is handed over as a pickle.
pub(super) fn pickle(load: &Value) -> Option<&Path> {
    let is_pickle = load["kind"] == "pickle";
    load["file"].as_str().filter(|_| is_pickle).map(Path::new)
}

/// What the worker reads from its standard input, in one line.
fn order(spec: &PythonSpec, door: &Door, label: &Label) -> Vec<u8> {
    let order = json!({
        "socket": door.socket(),
        "token": door.token(),
        "worker": label.worker,
        "mark": label.secret,
        "log_level": spec.output.log_level,
        "load": spec.load,
        "pythonpath": spec.pythonpath,
        "gpu_memory_fraction": spec.gpu_memory_fraction,
        "threads": spec.threads,
        "cpu_affinity": spec.cpu_affinity,
    });
    format!("{order}\n").into_bytes()
}

async fn become_ready(
    door: Door,
    spec: &PythonSpec,
    slot: usize,
) -> Result<(Connections, Ready), LaunchError> {
    let mut connections = door.admit().await?;
    let Overrides { max_batch_size, batch_timeout, stream, max_concurrency } = spec.overrides;
    let setup = Setup {
        device: spec.devices[slot % spec.devices.len()].to_string(),
        max_batch_size,
        batch_timeout: batch_timeout.map(|timeout| timeout.as_secs_f64()),
        stream,
        max_concurrency,
        retry_batch_singly: spec.retry_batch_singly,
        stream_credit: STREAM_CREDIT,
        metrics: true,
    };
    write_frame(&mut connections.data, &Frame::message(Kind::Setup, &setup)).await;
    let ready = await_ready(&mut connections.data).await?;
    Ok((connections, ready))
}

async fn await_ready(data: &mut UnixStream) -> Result<Ready, LaunchError> {
    let Some(frame) = read_frame(data).await else {
        // The process is ending; its exit status says more than this connection can.
        tokio::time::sleep(EXIT_WAIT).await;
        let reason = "it closed its connection before it was ready".into();
        return Err(LaunchError { reason, traceback: None });
    };
    let unreadable = |_| LaunchError {
        reason: "it sent a message that is not of this protocol".into(),
        traceback: None,
    };
    match frame.kind {
        Kind::Ready => serde_json::from_slice(&frame.payload).map_err(unreadable),
        _ => {
            let Failed { reason, traceback } =
                serde_json::from_slice(&frame.payload).map_err(unreadable)?;
            Err(LaunchError { reason, traceback })
        }
    }
}

fn serve(
    process: Process,
    connections: Connections,
    ready: &Ready,
    (slot, metrics): (usize, SlotMetrics),
    spec: &PythonSpec,
    attach: &dyn Attach,
) -> PythonLaunched {
    let Connections { data, control, hello } = connections;
    let Hello { pid, python, .. } = hello;
    let worker = format!("{}#{slot}", spec.endpoint);
    tracing::debug!(
        endpoint = spec.endpoint,
        worker,
        pid,
        python,
        "{worker} said that it is ready"
    );
    let info = info(ready);
    let manner = Manner {
        batches: info.max_batch_size > 1,
        // Answers of single requests may be on their way while the next is computed.
        in_order: info.concurrency == 1 && (info.max_batch_size > 1 || info.stream),
        several: info.concurrency > 1,
        patience: Patience { answer: spec.timeout, part: spec.chunk_timeout },
        kill_after: spec.kill_after,
    };
    let (to_worker, orders) = mpsc::unbounded_channel();
    let (cost_queries, inbox) = mpsc::unbounded_channel();
    let orders = (to_worker.clone(), orders);
    let condition = spec.unwell.of_one();
    let (pulse, patience) = (Pulse::default(), spec.timeout + spec.kill_after.unwrap_or_default());
    let times = Times { heartbeat: spec.heartbeat, is_strict: spec.is_heartbeat_strict, patience };
    let control = Control::new(control, orders, inbox, metrics, times, pulse.clone(), condition);
    let stages = spec.stages.clone();
    let (faults, fault) = mpsc::unbounded_channel();
    tokio::spawn(report(control.run(), faults.clone()));
    let attachment = attach.attach(slot, info);
    let progress = attachment.progress();
    let (orders, inbox) = mpsc::unbounded_channel();
    attachment.complete(Box::new(PythonWorker {
        orders,
        cost_queries,
        progress: progress.clone(),
    }));
    let (name, seen, ends) = (worker.clone(), progress.clone(), (pulse, to_worker.clone()));
    let connection = Connection::new(name, data, inbox, ends, seen, manner, stages);
    tokio::spawn(report(connection.run(), faults));
    let memory = memory_limit(&process, spec);
    let kill_after = spec.kill_after;
    let monitor = Arc::new(ProcessMonitor { pid });
    PythonLaunched { worker, process, monitor, memory, to_worker, progress, kill_after, fault }
}

fn info(ready: &Ready) -> ModelInfo {
    ModelInfo {
        max_batch_size: ready.max_batch_size.max(1),
        batch_timeout: Duration::try_from_secs_f64(ready.batch_timeout).unwrap_or_default(),
        concurrency: ready.concurrency.max(1),
        stream: ready.stream,
        context: ready.context,
        has_cost: ready.cost,
        dialect: ready.spec.clone().map(DialectId::new),
        model: ready.model.clone(),
        schema: Arc::new(ready.schema.clone()),
        tool: (!ready.tool.is_null()).then(|| Arc::new(ready.tool.clone())),
    }
}

/// Passes on how a connection ended.
async fn report(
    connection: impl Future<Output = Option<WorkerExit>>,
    faults: mpsc::UnboundedSender<Option<WorkerExit>>,
) {
    let _ = faults.send(connection.await);
}
