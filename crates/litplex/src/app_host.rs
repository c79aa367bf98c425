//! The app host of a server: a process like a worker's, which takes no jobs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use litplex_admin::RunDir;
use litplex_config::AppHost;
use litplex_http::{App, serve_inner};
use litplex_supervisor::{Supervisor, supervise};
use litplex_workers::{AppHostLaunch, AppHostSpec};
use tokio::net::UnixListener;

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

    /// Returns where the app host listens.
    pub(crate) fn app_host(&self) -> &Path {
        &self.app_host
    }

    /// Starts the app host, and starts it again whenever it is gone; where the parent is it, there
    /// is nothing to start.
    pub(crate) fn launch(&self, config: &AppHost, sdk: PathBuf) -> Option<Supervisor> {
        let AppHost::Process { python, load, .. } = config else { return None };
        let launch = AppHostLaunch::new(AppHostSpec {
            interpreter: python.clone(),
            sdk,
            socket: self.app_host.clone(),
            inner: self.inner.clone(),
            load: load.clone(),
        });
        Some(supervise(Arc::new(launch), 1, Default::default()))
    }

    /// Answers the app host, for as long as it is polled.
    pub(crate) async fn serve(self, app: Arc<App>) {
        serve_inner(self.listener, app, self.is_attached).await;
    }
}
