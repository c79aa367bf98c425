use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use litmux_core::{Attach, BoxFuture, Device, Launch, LaunchError, Launched, Traits, Worker};
use litmux_wire::{Failed, Frame, Kind, Ready, Setup};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::connection::{self, Connection};
use super::handshake::{Connections, Door, read_frame, write_frame};
use super::process::Process;

/// How long a process without a connection may take to exit.
const EXIT_WAIT: Duration = Duration::from_secs(5);

/// How to run the workers of one Python endpoint.
#[derive(Debug, Clone)]
pub struct PythonSpec {
    /// The endpoint's path, for marks and messages.
    pub endpoint: String,
    /// The interpreter; a bare name is looked up on `PATH`.
    pub interpreter: PathBuf,
    /// The directory of the `litmux` package.
    pub sdk: PathBuf,
    /// Environment variables to add.
    pub env: BTreeMap<String, String>,
    /// The working directory, where it is not this process's own.
    pub cwd: Option<PathBuf>,
    /// What the worker loads; `_worker/_load.py` describes the forms.
    pub load: Value,
    /// The device of each slot.
    pub devices: Vec<Device>,
    /// What the configuration overrides.
    pub overrides: Overrides,
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
}

/// Starts worker processes of one Python endpoint.
pub struct PythonLaunch {
    spec: Arc<PythonSpec>,
    attach: Arc<dyn Attach>,
}

impl std::fmt::Debug for PythonLaunch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PythonLaunch").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl PythonLaunch {
    /// Makes a launch whose workers serve the queue behind `attach`.
    pub fn new(spec: PythonSpec, attach: Arc<dyn Attach>) -> Self {
        Self { spec: Arc::new(spec), attach }
    }
}

impl Launch for PythonLaunch {
    fn launch(&self, slot: usize) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>> {
        let (spec, attach) = (self.spec.clone(), self.attach.clone());
        Box::pin(async move {
            let door = Door::open()?;
            let mark = format!("{}#{slot}", spec.endpoint);
            let order = order(&spec, &door, &mark);
            let mut process = Process::start(&spec, &mark, &order).await?;
            let ready = tokio::select! {
                ready = become_ready(door, &spec, slot) => ready,
                reason = process.gone() => {
                    Err(LaunchError { reason: format!("{reason} before it was ready"), traceback: None })
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
            Ok(Box::new(serve(process, connections, &ready, &mark, &*attach)) as _)
        })
    }
}

/// What the worker reads from its standard input.
fn order(spec: &PythonSpec, door: &Door, mark: &str) -> Vec<u8> {
    let order = json!({
        "socket": door.socket(),
        "token": door.token(),
        "worker": mark,
        "load": spec.load,
    });
    order.to_string().into_bytes()
}

async fn become_ready(
    door: Door,
    spec: &PythonSpec,
    slot: usize,
) -> Result<(Connections, Ready), LaunchError> {
    let mut connections = door.admit().await?;
    let Overrides { max_batch_size, batch_timeout, stream } = spec.overrides;
    let setup = Setup {
        device: spec.devices[slot].to_string(),
        max_batch_size,
        batch_timeout: batch_timeout.map(|timeout| timeout.as_secs_f64()),
        stream,
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
    mark: &str,
    attach: &dyn Attach,
) -> PythonLaunched {
    let Connections { data, control, hello } = connections;
    tracing::debug!(worker = mark, pid = hello.pid, python = hello.python, "worker is ready");
    let (orders, inbox) = mpsc::unbounded_channel();
    tokio::spawn(connection::write_control(control, inbox));
    let (broken, lost) = oneshot::channel();
    let traits = Traits {
        max_batch_size: ready.max_batch_size.max(1),
        batch_timeout: Duration::try_from_secs_f64(ready.batch_timeout).unwrap_or_default(),
        stream: ready.stream,
        context: ready.context,
    };
    let batches = traits.max_batch_size > 1;
    let control = orders.clone();
    let mark = mark.to_owned();
    attach.attach(
        traits,
        Box::new(move |progress| {
            let (jobs, inbox) = mpsc::unbounded_channel();
            let connection = Connection::new(data, inbox, control, progress, batches);
            tokio::spawn(async move {
                let reason = connection.run().await;
                if let Some(reason) = reason {
                    tracing::error!("{mark}: {reason}");
                }
                let _ = broken.send(());
            });
            Box::new(PythonWorker(jobs)) as Box<dyn Worker>
        }),
    );
    PythonLaunched { process, orders, lost }
}

/// The scheduler's end of a worker process.
struct PythonWorker(mpsc::UnboundedSender<Vec<litmux_core::Job>>);

impl Worker for PythonWorker {
    fn dispatch(&mut self, jobs: Vec<litmux_core::Job>) {
        // A connection that is gone drops the jobs, which answers them.
        let _ = self.0.send(jobs);
    }
}

/// The supervisor's end of a worker process.
struct PythonLaunched {
    process: Process,
    orders: mpsc::UnboundedSender<Frame>,
    lost: oneshot::Receiver<()>,
}

impl Launched for PythonLaunched {
    fn gone(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async {
            tokio::select! {
                reason = self.process.gone() => return reason,
                _ = &mut self.lost => {}
            }
            // Without its connection it is of no use. It has usually ended by itself; one that
            // has not is not waited for.
            match timeout(Duration::from_secs(1), self.process.gone()).await {
                Ok(reason) => reason,
                Err(_) => {
                    self.process.kill();
                    "it closed its connection and was killed".into()
                }
            }
        })
    }

    fn stop(mut self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let bye = Frame {
                kind: Kind::Bye,
                flags: litmux_wire::Flags::NONE,
                status: 0,
                id: 0,
                payload: bytes::Bytes::new(),
            };
            let _ = self.orders.send(bye);
            if timeout(grace, self.process.gone()).await.is_err() {
                self.process.kill();
                self.process.gone().await;
            }
        })
    }
}
