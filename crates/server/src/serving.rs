//! The second stage of a server: its processes run, and it accepts requests; then it drains.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use litplex_admin::{AdminPort, RunDir};
use litplex_http::{App, Server};
use litplex_traces::Tracer;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout};

use crate::Error;
use crate::access::Access;
use crate::admin::AdminHandler;
use crate::announce::Announcer;
use crate::bound::{Bound, PrivateSockets};
use crate::development::follow as follow_files;
use crate::edge::{self, EdgeParts};
use crate::endpoints::Endpoints;
use crate::events::Events;
use crate::launch::WorkerEnvironment;
use crate::log::Log;
use crate::signals::Signals;
use crate::telemetry::Telemetry;

/// The time that killed workers have to be gone. After it the server ends without them.
const KILL_TIME: Duration = Duration::from_secs(5);

/// The least time that workers have to exit, even if requests took the whole grace.
const WORKER_EXIT_TIME: Duration = Duration::from_secs(1);

/// The time for sending the last spans.
const SPANS_TIME: Duration = Duration::from_secs(3);

/// A server that accepts requests.
pub(crate) struct Serving {
    server: Server,
    app: Arc<App>,
    endpoints: Endpoints,
    announcer: Announcer,
    events: Events,
    tracer: Option<Tracer>,
    grace: Duration,
    adopts_orphans: bool,
    /// The tasks beside requests: admin socket, history, app host, reloads of files. They end with the server.
    _background: JoinSet<()>,
    _run_dir: RunDir,
}

/// The reason for which a server ends.
pub(crate) enum End {
    /// A signal or a client asked for it.
    Asked,
    /// The caller dropped the server: it does not wait for requests.
    Dropped,
    /// A model or the app cannot be loaded.
    Failed(Error),
}

impl End {
    /// Returns what the caller of the server gets.
    pub(crate) fn into_result(self) -> Result<(), Error> {
        match self {
            Self::Asked | Self::Dropped => Ok(()),
            Self::Failed(error) => Err(error),
        }
    }
}

impl Bound {
    /// Launches the workers and the app host, and starts to listen for connections.
    ///
    /// # Errors
    /// Devices are not available, or the system refuses a resource.
    pub(crate) fn launch(self, log: Log) -> Result<Serving, Error> {
        let Self { spec, access, middleware, tls, listener, admin_port, private } = self;
        let PrivateSockets { admin, app_host, run_dir } = private;
        let Access { guards, following: mut background } = access;
        let (config, telemetry) = (&spec.config, Telemetry::new());
        let patches = spec.development.is_some();
        let environment =
            WorkerEnvironment::new(config, &run_dir, log.clone(), &telemetry, patches)?;
        let (environment, events) = (Arc::new(environment), Events::default());
        let endpoints = Endpoints::launch(
            config,
            spec.models,
            &environment,
            app_host.as_ref(),
            &telemetry,
            &events,
        )?;
        let (tracer, metrics) = (middleware.tracer.clone(), telemetry.metrics.clone());
        let parts = EdgeParts { guards, middleware, layers: spec.layers, telemetry };
        let app = edge::app(config, parts, &endpoints, app_host.as_ref());
        let server = edge::server(config, listener, &app, tls.as_ref(), endpoints.most_workers())?;
        let admin_address = admin_port.as_ref().map(AdminPort::address).transpose()?;
        let announcer = Announcer::new(config, server.address()?, admin_address, events.clone());
        let (handler, sampling) =
            AdminHandler::new(&announcer, &endpoints, &app, &events, log.operated, metrics, config);
        background.spawn(sampling);
        let handler = Arc::new(handler);
        admin_port.map(|port| background.spawn(port.serve(handler.clone())));
        background.spawn(admin.serve(handler));
        app_host.map(|sockets| background.spawn(sockets.serve(app.clone())));
        tls.map(|tls| background.spawn(tls.follow()));
        spec.development.map(|development| {
            background.spawn(follow_files(development, endpoints.generations(), events.clone()))
        });
        spec.adopts_orphans.then(|| background.spawn(adopt_orphans()));
        announcer.listening();
        Ok(Serving {
            server,
            app,
            endpoints,
            announcer,
            events,
            tracer,
            grace: config.grace,
            adopts_orphans: spec.adopts_orphans,
            _background: background,
            _run_dir: run_dir,
        })
    }
}

impl Serving {
    /// Serves until there is a reason to end.
    pub(crate) async fn until_end(
        &mut self,
        until: impl Future<Output = ()>,
        signals: &mut Signals,
    ) -> End {
        let until = pin!(until);
        tokio::select! {
            () = self.server.accept() => End::Asked,
            signal = signals.next() => {
                tracing::info!("received {signal}");
                End::Asked
            }
            () = self.app.shutdown_asked() => End::Asked,
            () = until => End::Dropped,
            failed = self.endpoints.watch(&self.events, || self.announcer.ready()) => End::Failed(failed),
        }
    }

    /// Lets requests finish within the grace, then stops everything. A further signal cuts it short.
    pub(crate) async fn drain(self, end: &End, signals: &mut Signals) {
        let grace = if matches!(end, End::Asked) { self.grace } else { Duration::ZERO };
        self.announcer.stopping();
        tokio::select! {
            () = stop(self.server, self.endpoints, grace) => {}
            signal = signals.again() => tracing::warn!("received {signal}; stopping at once"),
        }
        if self.adopts_orphans {
            litplex_workers::end_orphans().await;
        }
        self.app.logged().await;
        if let Some(tracer) = self.tracer {
            send_last_spans(tracer).await;
        }
    }
}

async fn adopt_orphans() {
    if let Err(error) = litplex_workers::adopt_orphans().await {
        tracing::debug!("processes that models leave behind are not waited for: {error}");
    }
}

/// Lets requests in flight finish, then stops the workers.
async fn stop(server: Server, endpoints: Endpoints, grace: Duration) {
    if grace.is_zero() {
        tracing::info!("stopping");
    } else {
        tracing::info!("stopping; requests in flight may take {grace:?} more");
    }
    let begin = Instant::now();
    if !server.drain(grace).await {
        tracing::warn!("some requests did not finish in time and are broken off");
    }
    let left = grace.saturating_sub(begin.elapsed()).max(WORKER_EXIT_TIME);
    if timeout(left + KILL_TIME, endpoints.stop(left)).await.is_err() {
        tracing::warn!("some workers did not exit and are abandoned");
    }
    tracing::info!("stopped");
}

/// Sends the spans of the last requests.
async fn send_last_spans(tracer: Tracer) {
    let sent = spawn_blocking(move || tracer.shutdown(SPANS_TIME));
    // `shutdown` overruns its time if a collector takes a request and never answers.
    let _ = timeout(SPANS_TIME, sent).await;
}
