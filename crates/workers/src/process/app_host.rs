//! The process that runs what a program supplies of the HTTP layer in Python.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{BoxFuture, Cause, Launch, LaunchError, Launched, WorkerExit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::child::{Command, Order, Process};
use super::output::Label;
use super::sdk::Sdk;
use crate::Error;

/// The label of its lines.
const LABEL: &str = "app";

/// The time between two checks whether it listens.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Heartbeats without an answer after which it hangs.
const BEATS: u32 = 3;

/// What it is asked. It answers, and refuses, what does not say on whose behalf it is.
const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: litplex\r\nConnection: close\r\n\r\n";

/// How to run the app host of a program.
#[derive(Debug, Clone)]
pub struct AppHostSpec {
    /// The interpreter, which has what the program imports.
    pub interpreter: PathBuf,
    /// What the interpreter is started with.
    pub flags: Vec<String>,
    /// The `litplex` package.
    pub sdk: Sdk,
    /// Variables that it does not get: keys of callers.
    pub secrets: Vec<String>,
    /// Where it listens.
    pub socket: PathBuf,
    /// Where it asks for what it does not answer itself.
    pub inner: PathBuf,
    /// How often it must show that its loop runs.
    pub heartbeat: Duration,
    /// The program, as the SDK describes it.
    pub load: Value,
    /// The built-in routes, as rows of the server's route table.
    pub routes: Value,
}

/// Starts the app host.
#[derive(Debug)]
pub struct AppHostLaunch(Arc<AppHostSpec>);

impl AppHostLaunch {
    /// Makes a launch of this app host.
    pub fn new(spec: AppHostSpec) -> Self {
        Self(Arc::new(spec))
    }
}

impl Launch for AppHostLaunch {
    fn launch(&self, _slot: usize) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>> {
        let spec = self.0.clone();
        Box::pin(async move { Ok(Box::new(start(&spec).await?) as _) })
    }
}

/// Starts an app host, and resolves once it listens.
async fn start(spec: &AppHostSpec) -> Result<AppHost, Error> {
    let AppHostSpec { interpreter, flags, sdk, socket, inner, load, routes, secrets, .. } = spec;
    let order = json!({"socket": socket, "inner": inner, "load": load, "routes": routes});
    let order = order.to_string();
    let order = Order { text: order.as_bytes(), pickle: None };
    let (code, env) = (sdk.package()?.join("_apphost"), BTreeMap::new());
    let (cwd, memory_limit) = (None, None);
    let command = Command { interpreter, flags, code, env: &env, secrets, cwd, memory_limit };
    let mut process = Process::start(&command, &Label::of(LABEL), order).await?;
    tokio::select! {
        () = listening(socket) => {}
        gone = process.gone() => return Err(Error::AppHostGone(gone)),
    }
    let mut pulse = JoinSet::new();
    pulse.spawn(silence(socket.clone(), spec.heartbeat));
    Ok(AppHost { process, pulse })
}

/// Resolves when a process listens on this socket.
async fn listening(socket: &Path) {
    while UnixStream::connect(socket).await.is_err() {
        sleep(POLL_INTERVAL).await;
    }
}

/// Resolves when nothing was answered on this socket for [`BEATS`] heartbeats in a row. They are
/// counted, not timed, so that a machine that slept does not end what sleeps no longer.
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

/// Asks for anything, and waits for the first byte of the answer.
async fn beat(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(QUESTION).await?;
    stream.read_u8().await.map(drop)
}

/// A running app host.
struct AppHost {
    process: Process,
    /// What ends when it is silent.
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
