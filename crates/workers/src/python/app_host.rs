//! The process that runs what a program supplies of the HTTP layer in Python.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{BoxFuture, Gone, Launch, LaunchError, Launched};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::output::Label;
use super::process::{Command, Process};

/// What stands before its lines.
const MARK: &str = "app";

/// How often it is looked whether it listens.
const LOOK: Duration = Duration::from_millis(20);

/// How to run the app host of a program.
#[derive(Debug, Clone)]
pub struct AppHostSpec {
    /// The interpreter, which has what the program imports.
    pub interpreter: PathBuf,
    /// The directory of the `litplex` package.
    pub sdk: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// Where it asks for what it does not answer itself.
    pub inner: PathBuf,
    /// The program, as the SDK describes it.
    pub load: Value,
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
        Box::pin(async move {
            let AppHostSpec { interpreter, sdk, socket, inner, load } = &*spec;
            let order = json!({"socket": socket, "inner": inner, "load": load}).to_string();
            let (code, env) = (sdk.join("_apphost"), BTreeMap::new());
            let command = Command { interpreter, code, env: &env, cwd: None, memory_limit: None };
            let mut process = Process::start(&command, &Label::of(MARK), order.as_bytes()).await?;
            tokio::select! {
                () = listening(socket) => {}
                gone = process.gone() => {
                    let reason = format!("{gone} before it listened; what it printed says why");
                    return Err(LaunchError { reason, traceback: None });
                }
            }
            Ok(Box::new(AppHost(process)) as _)
        })
    }
}

/// Resolves when somebody listens on this socket.
async fn listening(socket: &Path) {
    while UnixStream::connect(socket).await.is_err() {
        sleep(LOOK).await;
    }
}

/// A running app host.
struct AppHost(Process);

impl Launched for AppHost {
    fn gone(&mut self) -> BoxFuture<'_, Gone> {
        Box::pin(self.0.gone())
    }

    fn stop(mut self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.0.terminate();
            if timeout(grace, self.0.gone()).await.is_err() {
                self.0.kill();
                self.0.gone().await;
            }
        })
    }
}
