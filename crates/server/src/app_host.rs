//! The app host of a server: a process like a worker's, which takes no jobs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use litplex_access::Guard;
use litplex_admin::RunDir;
use litplex_config::{AppHost, Program};
use litplex_http::{App, serve_inner};
use litplex_supervisor::{Supervisor, supervise};
use litplex_workers::{AppHostLaunch, AppHostSpec};
use tokio::net::UnixListener;

use crate::launch::Places;

/// What it is called in the log.
pub(crate) const NAME: &str = "app";

/// The two sockets between a server and its app host.
pub(crate) struct Passage {
    app_host: PathBuf,
    inner: PathBuf,
    listener: UnixListener,
    /// Whether nobody but a test asks, on the inner socket.
    is_attached: bool,
}

impl Passage {
    /// Opens the inner socket, so that the app host finds it.
    pub(crate) fn open(config: &AppHost, run_dir: &RunDir) -> io::Result<Self> {
        let is_attached = matches!(config, AppHost::Parent { .. });
        let inner = match config {
            AppHost::Process { .. } => run_dir.socket("inner.sock"),
            AppHost::Parent { inner } => inner.clone(),
        };
        let listener = UnixListener::bind(&inner)?;
        Ok(Self { app_host: run_dir.socket("app.sock"), inner, listener, is_attached })
    }

    /// Returns what goes by way of the app host; `guard` is what it would ask for of the rest.
    pub(crate) fn front(&self, config: &Program, guard: Guard) -> litplex_http::AppHost {
        let (direct, answers_preflights, has_routes) = match &config.app_host {
            Some(AppHost::Process { direct, answers_preflights, has_routes, .. }) => {
                (direct.iter().cloned().collect(), *answers_preflights, *has_routes)
            }
            _ => Default::default(),
        };
        let socket = self.app_host.clone();
        litplex_http::AppHost { socket, direct, answers_preflights, has_routes, guard }
    }

    /// Starts the app host, and starts it again whenever it is gone; where the parent is it, there
    /// is nothing to start.
    pub(crate) fn launch(
        &self,
        config: &AppHost,
        heartbeat: Duration,
        places: &Places,
        secrets: Vec<String>,
    ) -> Option<Supervisor> {
        let AppHost::Process { python, load, .. } = config else { return None };
        let launch = AppHostLaunch::new(AppHostSpec {
            interpreter: python.clone(),
            flags: places.python_flags.clone(),
            sdk: places.sdk.clone(),
            secrets,
            socket: self.app_host.clone(),
            inner: self.inner.clone(),
            heartbeat,
            load: load.clone(),
        });
        Some(supervise(Arc::new(launch), 1, Default::default()))
    }

    /// Answers the app host, for as long as it is polled.
    pub(crate) async fn serve(self, app: Arc<App>) {
        serve_inner(self.listener, app, self.is_attached).await;
    }
}
