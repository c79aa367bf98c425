//! The app host of a server: a process that is supervised as workers are, and takes no jobs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use litplex_access::Guard;
use litplex_admin::RunDir;
use litplex_config::{AppHost, Program};
use litplex_http::{App, serve_inner};
use litplex_supervisor::{Supervisor, supervise};
use litplex_workers::{AppHostLaunch, AppHostSpec};
use tokio::net::UnixListener;

use crate::launch::WorkerEnvironment;
use crate::routes::routes_for_app_host;
use crate::secrets::hidden_from_app_host;

/// The name of the app host in the log.
pub(crate) const NAME: &str = "app";

/// The two sockets between a server and its app host.
pub(crate) struct AppHostSockets {
    app_host: PathBuf,
    inner: PathBuf,
    listener: UnixListener,
    /// Whether the process that dials the inner socket is the parent: a test of the program.
    is_attached: bool,
}

impl AppHostSockets {
    /// Opens the inner socket before the app host starts, which dials it.
    /// Returns `None` for a program without an app host.
    /// A parent process reads the routes once it can connect to the socket.
    pub(crate) fn open(config: &Program, run_dir: &RunDir) -> io::Result<Option<Self>> {
        let Some(app_host) = &config.app_host else { return Ok(None) };
        let (inner, is_attached) = match app_host {
            AppHost::Process { .. } => (run_dir.socket("inner.sock"), false),
            AppHost::Parent { inner, routes } => {
                std::fs::write(routes, routes_for_app_host(config).to_string())?;
                (inner.clone(), true)
            }
        };
        let listener = UnixListener::bind(&inner)?;
        let app_host = run_dir.socket("app.sock");
        Ok(Some(Self { app_host, inner, listener, is_attached }))
    }

    /// Returns the routes that the app host serves; `guard` is for those that bypass it.
    pub(crate) fn front(&self, config: &Program, guard: Arc<Guard>) -> litplex_http::AppHost {
        let (direct, answers_preflights, has_routes) = match &config.app_host {
            Some(AppHost::Process { direct, answers_preflights, has_routes, .. }) => {
                (direct.iter().cloned().collect(), *answers_preflights, *has_routes)
            }
            _ => Default::default(),
        };
        let socket = self.app_host.clone();
        litplex_http::AppHost { socket, direct, answers_preflights, has_routes, guard }
    }

    /// Supervises the process of the app host. Returns `None` where the parent process is the app
    /// host.
    pub(crate) fn launch(
        &self,
        config: &Program,
        environment: &WorkerEnvironment,
    ) -> Option<Supervisor> {
        let Some(AppHost::Process { python, load, .. }) = &config.app_host else { return None };
        let launch = AppHostLaunch::new(AppHostSpec {
            interpreter: python.clone(),
            flags: environment.python_flags.clone(),
            sdk: environment.sdk.clone(),
            secrets: hidden_from_app_host(config),
            socket: self.app_host.clone(),
            inner: self.inner.clone(),
            heartbeat: config.app_heartbeat,
            history: environment.log.history(),
            load: load.clone(),
            routes: routes_for_app_host(config),
        });
        Some(supervise(Arc::new(launch), 1, Default::default()))
    }

    /// Serves the app host's requests on the inner socket until it is dropped.
    pub(crate) async fn serve(self, app: Arc<App>) {
        serve_inner(self.listener, app, self.is_attached).await;
    }
}
