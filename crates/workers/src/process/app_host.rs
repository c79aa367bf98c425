//! The app host: the process that runs a program's own routes and middlewares in Python.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{
    BoxFuture, Cause, Launch, LaunchError, Launched, LoadedFile, Loading, WorkerExit,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::child::{Command, Process};
use super::order::Order;
use super::output::{Label, OutputSpec};
use super::sdk::Sdk;
use crate::Error;
use crate::link::loaded_file;

/// The label of the app host's lines.
const LABEL: &str = "app";

/// The time between two checks whether the app host listens.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The number of heartbeats without an answer after which the app host hangs.
const BEATS: u32 = 3;

/// The request of a heartbeat. The app host refuses it, which is an answer: it names no caller.
const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: litplex\r\nConnection: close\r\n\r\n";

/// The app host of a program.
#[derive(Debug, Clone)]
pub struct AppHostSpec {
    /// The interpreter, which has the modules that the program imports.
    pub interpreter: PathBuf,
    /// The options of the interpreter.
    pub flags: Vec<String>,
    /// The `litplex` package.
    pub sdk: Sdk,
    /// Environment variables that the app host does not get: keys of callers.
    pub secrets: Vec<String>,
    /// The socket on which the app host listens.
    pub socket: PathBuf,
    /// The inner socket, to which the app host forwards requests.
    pub inner: PathBuf,
    /// The file in which the app host says which source files it has loaded.
    pub sources: PathBuf,
    /// The time between two heartbeats, which show that the app host's loop runs.
    pub heartbeat: Duration,
    /// The handling of the lines that it prints.
    pub output: OutputSpec,
    /// The program, as the SDK describes it.
    pub load: Value,
    /// The built-in routes, as rows of the server's route table.
    pub routes: Value,
}

/// The launch of the app host.
#[derive(Debug)]
pub struct AppHostLaunch(Arc<AppHostSpec>);

impl AppHostLaunch {
    /// Creates a launch of this app host.
    pub fn new(spec: AppHostSpec) -> Self {
        Self(Arc::new(spec))
    }
}

impl Launch for AppHostLaunch {
    fn launch(
        &self,
        _slot: usize,
        _: Loading,
    ) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>> {
        let spec = self.0.clone();
        Box::pin(async move { Ok(Box::new(start(&spec).await?) as _) })
    }
}

/// Starts an app host, and resolves once it listens.
async fn start(spec: &AppHostSpec) -> Result<AppHost, Error> {
    let AppHostSpec { interpreter, flags, sdk, socket, inner, load, routes, secrets, .. } = spec;
    let label = Label::for_process(LABEL, &spec.output);
    let order = json!({
        "socket": socket,
        "inner": inner,
        "sources": spec.sources,
        "load": load,
        "routes": routes,
        "mark": label.secret,
    });
    let order = order.to_string();
    let order = Order { text: order.as_bytes(), pickle: None };
    let (code, env) = (sdk.package()?.join("_apphost"), BTreeMap::new());
    let (cwd, memory_limit) = (None, None);
    let command = Command { interpreter, flags, code, env: &env, secrets, cwd, memory_limit };
    let mut process = Process::start(&command, &label, order).await?;
    tokio::select! {
        () = listening(socket) => {}
        gone = process.gone() => return Err(Error::AppHostGone(gone)),
    }
    let mut pulse = JoinSet::new();
    pulse.spawn(silence(socket.clone(), spec.heartbeat));
    Ok(AppHost { process, pulse })
}

/// Returns the source files that a process reports to have loaded, in the form of the worker protocol.
pub fn reported_sources(reported: Value) -> BTreeSet<LoadedFile> {
    let reported: Vec<litplex_wire::LoadedFile> =
        serde_json::from_value(reported).unwrap_or_default();
    reported.into_iter().map(loaded_file).collect()
}

/// Resolves when a process listens on this socket.
async fn listening(socket: &Path) {
    while UnixStream::connect(socket).await.is_err() {
        sleep(POLL_INTERVAL).await;
    }
}

/// Resolves when [`BEATS`] heartbeats in a row had no answer on this socket. Heartbeats are counted,
/// not timed, so that an app host survives the sleep of its machine.
async fn silence(socket: PathBuf, heartbeat: Duration) {
    let mut missed = 0;
    while missed < BEATS {
        match timeout(heartbeat, beat(&socket)).await {
            Ok(Ok(())) => {
                missed = 0;
                sleep(heartbeat).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the app host was not reached");
                missed += 1;
                sleep(heartbeat).await;
            }
            Err(_) => missed += 1,
        }
    }
}

/// Sends the request of a heartbeat, and waits for the first byte of the answer.
async fn beat(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(QUESTION).await?;
    stream.read_u8().await.map(drop)
}

/// A running app host.
struct AppHost {
    process: Process,
    /// The task that ends when the app host is silent.
    pulse: JoinSet<()>,
}

impl Launched for AppHost {
    fn gone(&mut self) -> BoxFuture<'_, WorkerExit> {
        Box::pin(async {
            tokio::select! {
                gone = self.process.gone() => return gone,
                Some(_) = self.pulse.join_next() => self.process.kill(),
            }
            self.process.gone().await;
            let reason = "it hangs: something blocks its loop, and it did not answer for three \
                          `app_heartbeat`; it was killed";
            WorkerExit::new(Cause::Hang, reason)
        })
    }

    fn stop(mut self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.process.terminate();
            if timeout(grace, self.process.gone()).await.is_err() {
                self.process.kill();
                self.process.gone().await;
            }
        })
    }
}
