//! The launch of a Python endpoint's workers: from a process to a worker that is ready.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{Attach, BoxFuture, Calls, Launch, LaunchError, Launched, Loading, Pausing};
use litplex_metrics::{StageTimes, UserSink};
use litplex_wire::{Ready, Setup};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::adopted::Adopted;
use super::child::{Command, Process};
use super::hibernated::{Hibernation, Wake};
use super::launched::PythonLaunched;
use super::listener::WorkerListener;
use super::monitor::ProcessMonitor;
use super::order::Order;
use super::output::Label;
use super::pausing::ProcessPausing;
use super::pipes::StandardStreams;
use super::running::Running;
use super::spec::{Overrides, ProcessSpec, WorkerSpec};
use super::template_process::TemplateSpec;
use super::templates::{Preloaded, module_path};
use super::venv::{Made, Venv};
use crate::link::{
    Connections, HeartbeatSettings, Link, LinkSettings, STREAM_CREDIT, SharedPatience, SlotMetrics,
    WorkerNames, model_info,
};
use crate::span::{worker_name, worker_span};
use crate::{Error, UnhealthyCount};

/// The time that a process without a connection may take to exit.
const EXIT_WAIT: Duration = Duration::from_secs(5);

/// The metrics that the workers of an endpoint report.
#[derive(Debug, Clone)]
pub struct WorkerTelemetry {
    /// The number of workers whose model's `health` is false.
    pub unhealthy: UnhealthyCount,
    /// The metrics that models define.
    pub metrics: UserSink,
    /// The durations of the stages of requests.
    pub stages: StageTimes,
}

/// The launch of one Python endpoint's workers.
pub struct PythonLaunch {
    launcher: Arc<Launcher>,
}

struct Launcher {
    worker: WorkerSpec,
    process: ProcessSpec,
    attach: Arc<dyn Attach>,
    calls: Arc<dyn Calls>,
    telemetry: WorkerTelemetry,
    patience: SharedPatience,
    /// The environment that the workers run in, once it is there.
    environment: Mutex<Option<Made>>,
    preloaded: Preloaded,
}

impl std::fmt::Debug for PythonLaunch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Launcher { worker, process, .. } = &*self.launcher;
        f.debug_struct("PythonLaunch")
            .field("worker", worker)
            .field("process", process)
            .finish_non_exhaustive()
    }
}

impl PythonLaunch {
    /// Creates a launch whose workers serve the queue behind `attach`, and whose hooks make `calls`.
    pub fn new(
        worker: WorkerSpec,
        process: ProcessSpec,
        attach: Arc<dyn Attach>,
        calls: Arc<dyn Calls>,
        telemetry: WorkerTelemetry,
    ) -> Self {
        let environment = Mutex::default();
        let patience = SharedPatience::new(worker.limits.timeout, worker.limits.chunk_timeout);
        let preloaded = Preloaded::new(process.preload.clone(), process.templates.clone());
        let launcher = Launcher {
            worker,
            process,
            attach,
            calls,
            telemetry,
            patience,
            environment,
            preloaded,
        };
        Self { launcher: Arc::new(launcher) }
    }

    /// Returns the times that the workers may compute, to change them.
    pub fn patience(&self) -> SharedPatience {
        self.launcher.patience.clone()
    }
}

impl Launch for PythonLaunch {
    fn launch(
        &self,
        slot: usize,
        loading: Loading,
    ) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>> {
        let launcher = self.launcher.clone();
        // Before anything is awaited: dropped at any point, the metrics of the slot end.
        let metrics = SlotMetrics::new(launcher.telemetry.metrics.clone(), slot);
        let endpoint = &launcher.worker.endpoint;
        let span = worker_span(Some(endpoint), &worker_name(endpoint, slot));
        let launch = async move {
            let launched = launcher.launch(slot, metrics, loading).await?;
            Ok(Box::new(launched) as _)
        };
        Box::pin(launch.instrument(span))
    }

    fn has_template(&self) -> bool {
        self.launcher.preloaded.is_ready()
    }
}

impl Launcher {
    async fn launch(
        self: Arc<Self>,
        slot: usize,
        metrics: SlotMetrics,
        loading: Loading,
    ) -> Result<PythonLaunched, Error> {
        let interpreter = self.interpreter().await?;
        let listener = Arc::new(WorkerListener::bind(&self.process.sockets)?);
        let process = self.start_process(slot, &interpreter, &listener).await?;
        let mut running = Running::new(process, self.process.memory_limit);
        let mut connections = running.step(listener.accept()).await?;
        // Not before: a worker shows its stacks only once it has read its order, before it connects.
        loading(Arc::new(ProcessMonitor::new(connections.hello.pid, listener.stacks())));
        let ready = running.step(self.set_up(slot, &mut connections)).await?;
        self.learn(&ready, &interpreter);
        Ok(self.serve(slot, running, (connections, listener), &ready, metrics))
    }

    /// Returns what serves with the worker of a slot again, once it has hibernated, connected and was continued.
    fn wake(self: &Arc<Self>, slot: usize, listener: Arc<WorkerListener>) -> Wake {
        let launcher = self.clone();
        Box::new(move |mut running, mut connections| {
            let metrics = SlotMetrics::new(launcher.telemetry.metrics.clone(), slot);
            let endpoint = &launcher.worker.endpoint;
            let span = worker_span(Some(endpoint), &worker_name(endpoint, slot));
            let wake = async move {
                let ready = running.step(launcher.set_up(slot, &mut connections)).await?;
                running.process.allow_swap(false);
                let links = (connections, listener);
                Ok(Box::new(launcher.serve(slot, running, links, &ready, metrics)) as _)
            };
            Box::pin(wake.instrument(span))
        })
    }

    /// Returns the interpreter of the workers, once the environment that they run in is ready.
    async fn interpreter(&self) -> Result<PathBuf, Error> {
        let ProcessSpec { interpreter, secrets, .. } = &self.process;
        let (Some(requirements), Some(cache)) = (&self.process.requirements, &self.process.cache)
        else {
            return Ok(interpreter.clone());
        };
        let mut environment = self.environment.lock().await;
        let made = match environment.take().filter(Made::is_ready) {
            Some(made) => made,
            None => {
                let endpoint = &self.worker.endpoint;
                Venv { endpoint, interpreter, requirements, cache, secrets }.make_ready().await?
            }
        };
        cache.check(&made.directory)?;
        Ok(environment.insert(made).python())
    }

    /// Returns the process of a worker: forked from a template if there is one, or else started.
    async fn start_process(
        &self,
        slot: usize,
        interpreter: &Path,
        listener: &WorkerListener,
    ) -> Result<Process, Error> {
        let ProcessSpec { flags, sdk, secrets, cwd, memory_limit, output, .. } = &self.process;
        let label = Label::for_worker(&self.worker.endpoint, slot, output);
        let text = self.order(listener, &label);
        let order = Order { text: &text, pickle: pickle(&self.worker.load) };
        let code = sdk.package()?.join("_worker");
        if let Some((child, streams)) = self.fork(slot, interpreter, &code).await {
            return Ok(Process::adopt(child, streams, *memory_limit, &label, order).await);
        }
        let env: BTreeMap<_, _> = self.process.variables(slot);
        let command = Command {
            interpreter,
            flags,
            code,
            env: &env,
            secrets,
            cwd: cwd.as_deref(),
            memory_limit: *memory_limit,
        };
        Process::start(&command, &label, order).await
    }

    /// Forks the process of a worker from the template of the endpoint, if there is one.
    async fn fork(
        &self,
        slot: usize,
        interpreter: &Path,
        code: &Path,
    ) -> Option<(Adopted, StandardStreams)> {
        let spec = || self.template_spec(interpreter, code);
        let template = self.preloaded.template(spec, &self.process.output).await?;
        let begin = Instant::now();
        let forked = template.fork(self.process.own_variables(slot)).await;
        match &forked {
            Ok(_) => {
                let seconds = begin.elapsed().as_secs_f64();
                tracing::info!("forked from a template in {seconds:.3} s");
            }
            Err(reason) => tracing::debug!("not forked from its template: {reason}"),
        }
        forked.ok()
    }

    /// Returns the specification of the endpoint's template, without its modules.
    fn template_spec(&self, interpreter: &Path, code: &Path) -> TemplateSpec {
        let WorkerSpec { load, pythonpath, .. } = &self.worker;
        let ProcessSpec { flags, secrets, cwd, cpu_affinity, output, .. } = &self.process;
        TemplateSpec {
            interpreter: interpreter.to_owned(),
            flags: flags.clone(),
            code: code.to_owned(),
            env: self.process.variables(0),
            secrets: secrets.clone(),
            cwd: cwd.clone(),
            path: module_path(load, cwd.as_deref(), pythonpath),
            cpu_affinity: cpu_affinity.clone(),
            log_level: output.log_level.clone(),
            modules: Vec::new(),
        }
    }

    /// Takes what a worker that is ready tells for the start of the next ones.
    fn learn(&self, ready: &Ready, interpreter: &Path) {
        if let (true, Ok(package)) = (self.preloaded.asks_for_imports(), self.process.sdk.package())
        {
            let spec = || self.template_spec(interpreter, &package.join("_worker"));
            self.preloaded.learn(&ready.imports, spec, &self.process.output);
        }
    }

    /// Returns the order that the worker reads from its standard input, in one line.
    fn order(&self, listener: &WorkerListener, label: &Label) -> Vec<u8> {
        let WorkerSpec { load, pythonpath, .. } = &self.worker;
        let ProcessSpec {
            gpu_memory_fraction, threads, shared_cores, cpu_affinity, output, ..
        } = &self.process;
        let order = json!({
            "socket": listener.socket(),
            "stacks": listener.stacks(),
            "token": listener.token(),
            "worker": label.worker,
            "mark": label.secret,
            "log_level": output.log_level,
            "load": load,
            "pythonpath": pythonpath,
            "gpu_memory_fraction": gpu_memory_fraction,
            "threads": threads,
            "shared_cores": shared_cores,
            "cpu_affinity": cpu_affinity,
        });
        format!("{order}\n").into_bytes()
    }

    async fn set_up(
        &self,
        slot: usize,
        connections: &mut Connections<UnixStream>,
    ) -> Result<Ready, Error> {
        let ready = connections.set_up(&self.setup(slot)).await;
        if let Err(Error::ClosedEarly) = ready {
            // The process is ending; its exit status says more than its connection can.
            tokio::time::sleep(EXIT_WAIT).await;
        }
        ready
    }

    fn setup(&self, slot: usize) -> Setup {
        let Overrides { max_batch_size, batch_timeout, stream, max_concurrency } =
            self.worker.overrides;
        Setup {
            device: self.process.device(slot).to_string(),
            max_batch_size,
            batch_timeout: batch_timeout.map(|timeout| timeout.as_secs_f64()),
            stream,
            max_concurrency,
            retry_batch_singly: self.worker.retry_batch_singly,
            stream_credit: STREAM_CREDIT,
            metrics: true,
            calls: true,
            patches: self.worker.patches,
            imports: self.preloaded.asks_for_imports(),
            hibernates: self.worker.hibernates,
        }
    }

    /// Attaches a worker that is ready to the queue of its endpoint.
    fn serve(
        self: &Arc<Self>,
        slot: usize,
        running: Running,
        (connections, listener): (Connections<UnixStream>, Arc<WorkerListener>),
        ready: &Ready,
        metrics: SlotMetrics,
    ) -> PythonLaunched {
        let (pid, python) = (connections.hello.pid, &connections.hello.python);
        tracing::debug!(pid, python, "the model is loaded");
        let span = Span::current();
        let info = model_info(ready);
        let attachment = self.attach.attach(slot, info.clone());
        let pausing = running.process.id().and_then(ProcessPausing::new);
        let pausing = pausing.map(|pausing| Arc::new(pausing) as Arc<dyn Pausing>);
        let hibernation = Hibernation {
            wake: self.wake(slot, listener.clone()),
            listener: listener.clone(),
            pausing: pausing.clone().filter(|_| ready.hibernates),
        };
        let settings = LinkSettings { pausing, ..self.link_settings(slot, span.clone(), metrics) };
        let monitor = ProcessMonitor::new(pid, listener.stacks());
        let (dialled, accepting) = listener.accept_calls();
        let described = (&info, &ready.sources[..]);
        let link = Link::start(connections, dialled, described, attachment, settings);
        let monitor = Arc::new(monitor.with_code(link.code()));
        let kill_after = self.worker.limits.kill_after;
        PythonLaunched { running, monitor, link, accepting, span, kill_after, hibernation }
    }

    fn link_settings(&self, slot: usize, span: Span, metrics: SlotMetrics) -> LinkSettings {
        let limits = self.worker.limits;
        let kill_after = limits.kill_after;
        let heartbeat = HeartbeatSettings {
            heartbeat: limits.heartbeat,
            is_strict: limits.is_heartbeat_strict,
            patience: limits.timeout + kill_after.unwrap_or_default(),
        };
        let patience = self.patience.clone();
        let stages = self.telemetry.stages.clone();
        let health = self.telemetry.unhealthy.guard();
        let endpoint = &self.worker.endpoint;
        let worker = worker_name(endpoint, slot).into();
        let names = WorkerNames { endpoint: endpoint.clone(), slot, worker };
        let calls = self.calls.clone();
        LinkSettings {
            span,
            heartbeat,
            patience,
            kill_after,
            metrics,
            stages,
            health,
            names,
            calls,
            pausing: None,
        }
    }
}

/// Returns the file with the model, if it is a pickle.
pub(super) fn pickle(load: &Value) -> Option<&Path> {
    let is_pickle = load["kind"] == "pickle";
    load["file"].as_str().filter(|_| is_pickle).map(Path::new)
}
