//! The app host of a server: a process that is supervised as workers are, and takes no jobs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use litplex_access::Guard;
use litplex_admin::RunDir;
use litplex_config::{AppHost, Program};
use litplex_core::LoadedFile;
use litplex_http::{App, AppHostSocket, serve_inner};
use litplex_supervisor::{Supervisor, supervise};
use litplex_workers::{AppHostLaunch, AppHostSpec, OutputSpec, reported_sources};
use tokio::net::UnixListener;

use crate::launch::WorkerEnvironment;
use crate::routes::routes_for_app_host;
use crate::secrets::hidden_from_app_host;

/// The name of the app host in the log.
pub(crate) const NAME: &str = "app";

/// The inner socket, on which the app host sends requests back, and the place of the app host.
pub(crate) struct AppHostSockets {
    pub(crate) place: AppHostPlace,
    listener: UnixListener,
    /// Whether the process that dials the inner socket is the parent: a test of the program.
    is_attached: bool,
}

/// The app host of new requests, and the guard of the routes that bypass it.
pub(crate) struct AppHostFront {
    pub(crate) place: AppHostPlace,
    pub(crate) bypass: Arc<Guard>,
}

impl AppHostFront {
    /// Returns the routes that the app host serves.
    pub(crate) fn routes(&self, config: &Program) -> litplex_http::AppHost {
        self.place.front(config, self.bypass.clone())
    }
}

/// The two sockets between a server and its app host, and the file in which the app host says which source
/// files it has loaded.
#[derive(Clone)]
pub(crate) struct AppHostPlace {
    /// The number of the app host; the first is 1. Each listens on a socket of its own.
    number: u64,
    app_host: PathBuf,
    inner: PathBuf,
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
        let place = AppHostPlace { number: 1, app_host: run_dir.socket("app.sock"), inner };
        Ok(Some(Self { place, listener, is_attached }))
    }

    /// Serves the app host's requests on the inner socket until it is dropped.
    pub(crate) async fn serve(self, app: Arc<App>) {
        serve_inner(self.listener, app, self.is_attached).await;
    }
}

impl AppHostPlace {
    /// Returns the place of the app host that follows this one. Both use the inner socket.
    pub(crate) fn next(&self) -> Self {
        let number = self.number + 1;
        let app_host = self.app_host.with_file_name(format!("app-{number}.sock"));
        Self { number, app_host, inner: self.inner.clone() }
    }

    /// Returns the source files that the app host has loaded; none before it listens. Reads a file.
    pub(crate) fn sources(&self) -> BTreeSet<LoadedFile> {
        let text = fs::read(self.sources_file()).unwrap_or_default();
        reported_sources(serde_json::from_slice(&text).unwrap_or_default())
    }

    /// Removes the file of an app host that has ended.
    pub(crate) fn forget(&self) {
        let _ = fs::remove_file(self.sources_file());
    }

    fn sources_file(&self) -> PathBuf {
        self.app_host.with_extension("sources")
    }

    /// Returns the routes that the app host serves; `guard` is for those that bypass it.
    pub(crate) fn front(&self, config: &Program, guard: Arc<Guard>) -> litplex_http::AppHost {
        let (direct, answers_preflights, has_routes) = match &config.app_host {
            Some(AppHost::Process { direct, answers_preflights, has_routes, .. }) => {
                (direct.iter().cloned().collect(), *answers_preflights, *has_routes)
            }
            _ => Default::default(),
        };
        let socket = AppHostSocket::new(self.app_host.clone());
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
            sources: self.sources_file(),
            heartbeat: config.app_heartbeat,
            output: OutputSpec {
                shows_ids: environment.request_ids,
                history: environment.log.history(),
                ..OutputSpec::default()
            },
            load: load.clone(),
            routes: routes_for_app_host(config),
        });
        Some(supervise(Arc::new(launch), 1, Default::default()))
    }
}
