//! From a checked configuration to a running server, and to its end.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use litmux_config::{Source, count_gpus, place};
use litmux_core::{Attach, Device, Launch};
use litmux_http::{App, EndpointReport, Report, Route, Server, bind};
use litmux_scheduler::{Endpoint, spawn_endpoint};
use litmux_supervisor::{Health, SlotState, Supervisor, health, supervise};
use litmux_workers::{
    Overrides, PythonLaunch, PythonSpec, Settings, default_interpreter, sdk_directory,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::server::RustModel;
use crate::{ConfigError, Error, Program};

/// Signals that are no further apart mean one thing.
const SAME_WISH: Duration = Duration::from_millis(500);

/// Runs a program until a signal, then lets requests finish; or until `until` resolves, and no
/// longer.
pub(crate) async fn serve(program: Program, until: impl Future<Output = ()>) -> Result<(), Error> {
    let Program { config, models } = program;
    let mut signals = Signals::new()?;
    let address = format!("{}:{}", config.host, config.port);
    let bound = bind(&config.host, config.port).await;
    let listener = bound.map_err(|source| Error::Bind { address, source })?;

    let crew = Crew::launch(&config, models)?;
    let app = Arc::new(App::new(crew.routes(), crew.reporter()));
    let threads = config.http_threads.unwrap_or_else(default_http_threads);
    let mut server = Server::new(listener, app, threads)?;
    let url = format!("http://{}", server.address()?);
    tracing::info!("listening on {url}{}", reach(&config.host));

    let (grace, result) = {
        let mut until = pin!(until);
        tokio::select! {
            () = server.accept() => (config.grace, Ok(())),
            () = signals.next() => (config.grace, Ok(())),
            // Nobody is left who could wait for it.
            () = &mut until => (Duration::ZERO, Ok(())),
            failed = crew.watch(url) => (Duration::ZERO, Err(failed)),
        }
    };
    tokio::select! {
        () = stop(server, crew, grace) => {}
        () = signals.again() => tracing::warn!("stopping at once"),
    }
    result
}

/// Lets requests in flight finish, then the workers.
async fn stop(server: Server, crew: Crew, grace: Duration) {
    if grace.is_zero() {
        tracing::info!("stopping");
    } else {
        tracing::info!("stopping; requests in flight may take {grace:?} more");
    }
    let begin = Instant::now();
    if !server.drain(grace).await {
        tracing::warn!("some requests did not finish in time and are broken off");
    }
    crew.stop(grace.saturating_sub(begin.elapsed()).max(Duration::from_secs(1))).await;
    tracing::info!("stopped");
}

fn reach(host: &str) -> &'static str {
    match host {
        "127.0.0.1" | "localhost" | "::1" => {
            " (this machine only; host \"0.0.0.0\" lets others in)"
        }
        _ => "",
    }
}

fn default_http_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { interrupt, terminate })
    }

    /// Resolves when somebody insists. One wish may arrive twice: a service manager signals every
    /// process, and the program passes on what it gets.
    async fn again(&mut self) {
        let first = Instant::now();
        while first.elapsed() < SAME_WISH {
            self.next().await;
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// All endpoints, with those who look after them.
struct Crew(Vec<Member>);

struct Member {
    config: litmux_config::Endpoint,
    endpoint: Endpoint,
    slots: usize,
    supervisor: Supervisor,
}

impl Crew {
    /// Launches the workers of every endpoint, side by side.
    fn launch(
        config: &litmux_config::Program,
        models: Vec<Option<RustModel>>,
    ) -> Result<Self, Error> {
        let placed = place_all(&config.endpoints)?;
        let has_python = config.endpoints.iter().any(|e| matches!(e.source, Source::Python(_)));
        let sdk = match &config.sdk {
            None if has_python => sdk_directory()?,
            sdk => sdk.clone().unwrap_or_default(),
        };
        let members = config.endpoints.iter().zip(models).zip(placed);
        Ok(Self(
            members
                .map(|((config, model), devices)| Member::launch(config, model, devices, &sdk))
                .collect(),
        ))
    }

    fn routes(&self) -> HashMap<String, Route> {
        let route = |member: &Member| Route {
            endpoint: member.endpoint.clone(),
            timeout: member.config.timeout,
            max_body_bytes: member.config.max_body_bytes,
        };
        self.0.iter().map(|member| (member.config.path.clone(), route(member))).collect()
    }

    fn reporter(&self) -> impl Fn() -> Report + Send + Sync + 'static {
        let reporters: Vec<_> = self.0.iter().map(Member::reporter).collect();
        move || Report { endpoints: reporters.iter().map(|report| report()).collect() }
    }

    /// Logs what happens to the workers, and once that all are ready. Resolves only when a model
    /// cannot be loaded.
    async fn watch(&self, url: String) -> Error {
        let (events, mut happened) = mpsc::unbounded_channel();
        for member in &self.0 {
            let path: Arc<str> = member.config.path.as_str().into();
            tokio::spawn(watch_slots(path, member.supervisor.states(), events.clone()));
        }
        let mut starting: usize = self.0.iter().map(|member| member.slots).sum();
        while let Some(SlotEvent { path, slot, state }) = happened.recv().await {
            log_state(&path, slot, &state);
            match state {
                SlotState::Failed(cause) => {
                    return Error::Launch { endpoint: path.to_string(), cause };
                }
                SlotState::Ready(_) => starting -= 1,
                _ => continue,
            }
            if starting == 0 {
                tracing::info!("ready: all endpoints serve at {url}");
            }
        }
        std::future::pending().await
    }

    async fn stop(self, grace: Duration) {
        let mut stopping = tokio::task::JoinSet::new();
        for member in self.0 {
            stopping.spawn(member.supervisor.stop(grace));
        }
        stopping.join_all().await;
    }
}

/// Decides which device every worker gets, or says all that cannot be had.
fn place_all(endpoints: &[litmux_config::Endpoint]) -> Result<Vec<Vec<Device>>, ConfigError> {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let gpus = count_gpus(visible.as_deref());
    let (mut placed, mut mistakes) = (Vec::new(), Vec::new());
    for endpoint in endpoints {
        match place(&endpoint.accelerator, &endpoint.devices, endpoint.workers, gpus) {
            Ok(devices) => placed.push(devices.into_iter().map(Device::new).collect()),
            Err(mistake) => mistakes.push(format!("endpoint `{}`: {mistake}", endpoint.path)),
        }
    }
    if mistakes.is_empty() { Ok(placed) } else { Err(ConfigError(mistakes)) }
}

impl Member {
    fn launch(
        config: &litmux_config::Endpoint,
        model: Option<RustModel>,
        devices: Vec<Device>,
        sdk: &Path,
    ) -> Self {
        let endpoint = spawn_endpoint(config.max_queue.unwrap_or(1024));
        let attach: Arc<dyn Attach> = Arc::new(endpoint.clone());
        let slots = devices.len();
        tracing::info!(workers = slots, device = %devices[0], "{} is loading", config.path);
        let launch: Arc<dyn Launch> = match (model, &config.source) {
            (Some(model), _) => model(settings(config, devices), attach),
            (None, Source::Python(load)) => {
                let spec = python_spec(config, load.clone(), devices, sdk.to_owned());
                Arc::new(PythonLaunch::new(spec, attach))
            }
            (None, Source::Rust) => unreachable!("the builder gave it a model. This is a bug."),
        };
        let supervisor = supervise(&launch, slots);
        Self { config: config.clone(), endpoint, slots, supervisor }
    }

    fn reporter(&self) -> impl Fn() -> EndpointReport + Send + Sync + 'static {
        let states = self.supervisor.states();
        let (endpoint, slots) = (self.endpoint.clone(), self.slots);
        let path = self.config.path.clone();
        let timeout = self.config.timeout.as_secs_f64();
        let kind = match self.config.source {
            Source::Rust => "rust",
            Source::Python(_) => "python",
        };
        move || {
            let states = states.borrow();
            EndpointReport {
                path: path.clone(),
                kind,
                problem: problem(&states),
                workers_ready: states.iter().filter(|s| matches!(s, SlotState::Ready(_))).count(),
                workers: slots,
                timeout,
                traits: endpoint.traits().cloned(),
            }
        }
    }
}

fn problem(states: &[SlotState]) -> Option<String> {
    match health(states) {
        Health::Ready => None,
        Health::Starting => Some("starting".into()),
        Health::Degraded(reason) => Some(reason),
    }
}

fn settings(config: &litmux_config::Endpoint, devices: Vec<Device>) -> Settings {
    Settings {
        endpoint: config.path.clone(),
        devices,
        max_batch_size: config.max_batch_size.unwrap_or(1),
        batch_timeout: config.batch_timeout.unwrap_or_default(),
    }
}

fn python_spec(
    config: &litmux_config::Endpoint,
    load: serde_json::Value,
    devices: Vec<Device>,
    sdk: PathBuf,
) -> PythonSpec {
    PythonSpec {
        endpoint: config.path.clone(),
        interpreter: config.python.clone().unwrap_or_else(default_interpreter),
        sdk,
        env: config.env.clone(),
        cwd: None,
        load,
        devices,
        overrides: Overrides {
            max_batch_size: config.max_batch_size,
            batch_timeout: config.batch_timeout,
            stream: config.stream,
        },
    }
}

/// A slot of an endpoint is in another state than before.
struct SlotEvent {
    path: Arc<str>,
    slot: usize,
    state: SlotState,
}

/// Passes on the states of an endpoint's slots as they change.
async fn watch_slots(
    path: Arc<str>,
    mut states: watch::Receiver<Vec<SlotState>>,
    events: mpsc::UnboundedSender<SlotEvent>,
) {
    let mut seen = vec![SlotState::Starting; states.borrow().len()];
    loop {
        let now = states.borrow_and_update().clone();
        for (slot, state) in now.iter().enumerate().filter(|(slot, state)| seen[*slot] != **state) {
            let _ = events.send(SlotEvent { path: path.clone(), slot, state: state.clone() });
        }
        seen = now;
        if states.changed().await.is_err() {
            return;
        }
    }
}

fn log_state(path: &str, slot: usize, state: &SlotState) {
    match state {
        SlotState::Ready(after) => {
            tracing::info!("{path}#{slot} is ready after {:.2} s", after.as_secs_f64());
        }
        SlotState::Gone(reason) => {
            tracing::error!("{path}#{slot} is gone: {reason}; it is not restarted");
        }
        // A failure ends the server, which then says why.
        SlotState::Starting | SlotState::Failed(_) => {}
        SlotState::Draining => tracing::debug!("{path}#{slot} is draining"),
        SlotState::Stopped => tracing::debug!("{path}#{slot} has stopped"),
    }
}
