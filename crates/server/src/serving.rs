//! The second stage of a server: its processes run, and it accepts requests; then it drains.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use litplex_admin::{Admin, AdminPort, RunDir, SharedDashboard};
use litplex_http::{App, Operators, Server};
use litplex_traces::Tracer;
use tokio::net::UnixListener;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use crate::access::{Access, Guards};
use crate::admin::AdminHandler;
use crate::announce::Announcer;
use crate::app_host::AppHostFront;
use crate::bound::{Bound, PrivateSockets};
use crate::development::follow as follow_files;
use crate::edge::{self, EdgeParts};
use crate::endpoints::{EndpointSet, Endpoints};
use crate::events::Events;
use crate::fleet::{Fleet, FleetHandle, FleetParts, Order};
use crate::launch::WorkerEnvironment;
use crate::log::Log;
use crate::signals::{Received, Signals};
use crate::telemetry::Telemetry;
use crate::upgrade::{Inherited, KEEPER, KeptBy, Predecessor, Successor, Upgrader, keep};
use crate::{Error, operators, upgrade};

/// The time that killed workers have to be gone. After it the server ends without them.
const KILL_TIME: Duration = Duration::from_secs(5);

/// The least time that workers have to exit, even if requests took the whole grace.
const WORKER_EXIT_TIME: Duration = Duration::from_secs(1);

/// The time that the new workers of each endpoint have to become ready after a signal.
const RELOAD_TIME: Duration = Duration::from_secs(600);

/// The time that responses of the admin API have to reach their clients after an upgrade.
const LAST_RESPONSES: Duration = Duration::from_millis(500);

/// The time between two log lines about the requests of a server that was replaced.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The time for sending the last spans.
const SPANS_TIME: Duration = Duration::from_secs(3);

/// A server that accepts requests.
pub(crate) struct Serving {
    server: Server,
    app: Arc<App>,
    /// The endpoints of the start, which the server waits for.
    first: Arc<EndpointSet>,
    fleet: FleetHandle,
    announcer: Announcer,
    events: Events,
    tracer: Option<Tracer>,
    grace: Duration,
    adopts_orphans: bool,
    upgrader: Upgrader,
    kept_by: KeptBy,
    predecessor: Option<Predecessor>,
    /// Puts the admin socket where clients find it.
    publish: Box<dyn Fn() -> std::io::Result<()> + Send>,
    /// Whether all endpoints serve.
    ready: watch::Sender<bool>,
    /// Whether another process takes new requests.
    left: watch::Sender<bool>,
    /// Whether this server waits for the end of its responses.
    ending: watch::Sender<bool>,
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
    /// Another process serves in place of this one.
    Upgraded(Successor),
}

impl End {
    /// Returns what the caller of the server gets.
    pub(crate) fn into_result(self) -> Result<(), Error> {
        match self {
            Self::Asked | Self::Dropped | Self::Upgraded(_) => Ok(()),
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
        let Self {
            spec,
            access,
            middleware,
            tls,
            listener,
            admin_port,
            socket_names: [http_name, admin_name],
            dashboard,
            private,
            upgrades,
        } = self;
        let PrivateSockets { admin, app_host, run_dir } = private;
        let Access { guards, following: mut background } = access;
        if spec.adopts_orphans {
            become_reaper();
        }
        let (config, telemetry) = (&spec.config, Telemetry::new());
        let patches = spec.development.is_some();
        let environment =
            WorkerEnvironment::new(config, &run_dir, log.clone(), &telemetry, patches)?;
        let (environment, events) = (Arc::new(environment), Events::default());
        let Guards { endpoints: endpoint_guards, maker, server: guard, bypass, .. } = guards;
        let place = app_host.as_ref().map(|sockets| sockets.place.clone());
        let endpoints = Endpoints::launch(
            config,
            spec.models,
            endpoint_guards,
            &environment,
            place.as_ref(),
            &telemetry,
            &events,
        )?;
        let front = place.map(|place| AppHostFront { place, bypass });
        let (tracer, metrics) = (middleware.tracer.clone(), telemetry.metrics.clone());
        let (operators, operated) = dashboard.is_some().then(Operators::channel).unzip();
        let parts = EdgeParts { guard, middleware, layers: spec.layers, telemetry, operators };
        let app = edge::app(config, parts, &endpoints, front.as_ref());
        let first = endpoints.now();
        let server = edge::server(config, listener, &app, tls.as_ref(), first.most_workers())?;
        let admin_address = admin_port.as_ref().map(AdminPort::address).transpose()?;
        let announcer = Announcer::new(config, server.address()?, admin_address, events.clone());
        let (ready, left) = (watch::Sender::new(false), watch::Sender::new(false));
        let mut sockets = vec![(http_name, server.socket()?)];
        if let Some(port) = &admin_port {
            sockets.push((admin_name, port.socket()?));
        }
        let Inherited { predecessor, keeper, .. } = spec.inherited;
        let (keeper, kept_by) = match keeper {
            Some(link) => (link.path.clone(), KeptBy::First(link)),
            None => {
                let path = run_dir.socket(KEEPER);
                (path.clone(), KeptBy::Itself(UnixListener::bind(path)?))
            }
        };
        let (upgrader, requests) = Upgrader::new(
            spec.start,
            sockets,
            run_dir.path(),
            keeper,
            events.clone(),
            ready.subscribe(),
        );
        let grace = config.grace;
        let (fleet, fleet_handle) = Fleet::new(FleetParts {
            config: spec.config,
            source: spec.source,
            guards: maker,
            endpoints,
            app: app.clone(),
            app_host: front,
        });
        background.spawn(fleet.run());
        let (handler, sampling) =
            AdminHandler::new(&announcer, &fleet_handle, &app, &events, log.operated, metrics);
        background.spawn(sampling);
        let handler = Arc::new(handler.upgraded_by(requests));
        background.spawn(upgrade_at_signals(upgrades, handler.clone(), when(&left)));
        admin_port.map(|port| {
            let (serves, left) = (if_or_when(predecessor.is_none(), &ready), when(&left));
            let handler = handler.clone();
            background.spawn(async move {
                serves.await;
                port.serve(handler, left).await;
            })
        });
        let ending = watch::Sender::new(false);
        operated.zip(dashboard).map(|(requests, guard)| {
            let dashboard = SharedDashboard::new(handler.clone(), guard, ending.subscribe());
            background.spawn(operators::serve(requests, dashboard))
        });
        let publish = admin.publisher();
        let left_port = when(&left);
        let left_socket = async {
            left_port.await;
            // A client that looks for servers at this moment finds this one or the next.
            sleep(LAST_RESPONSES).await;
        };
        background.spawn(admin.serve(handler, left_socket));
        app_host.map(|sockets| background.spawn(sockets.serve(app.clone())));
        tls.map(|tls| background.spawn(tls.follow()));
        spec.development.map(|development| {
            background.spawn(follow_files(development, fleet_handle.clone(), events.clone()))
        });
        spec.adopts_orphans.then(|| background.spawn(adopt_orphans()));
        // Until a server can take the place of another one, its operators reach that.
        if predecessor.is_none() {
            publish()?;
            announcer.listening();
        }
        Ok(Serving {
            server,
            app,
            first,
            fleet: fleet_handle,
            announcer,
            events,
            tracer,
            grace,
            adopts_orphans: spec.adopts_orphans,
            upgrader,
            kept_by,
            predecessor,
            publish: Box::new(publish),
            ready,
            left,
            ending,
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
        let Self { announcer, ready, predecessor, publish, .. } = self;
        let accepts = if_or_when(predecessor.is_none(), ready);
        let is_ready = || {
            if let Some(predecessor) = &*predecessor {
                if let Err(error) = publish() {
                    tracing::error!("the admin socket is not available: {error}");
                }
                announcer.listening();
                // From here on both accept connections.
                predecessor.ready();
            }
            announcer.ready();
            ready.send_replace(true);
        };
        let accept = async {
            accepts.await;
            self.server.accept().await;
        };
        let fleet = self.fleet.clone();
        let stopped = async {
            loop {
                match signals.next().await {
                    Received::Stop(signal) => {
                        tracing::info!("received {signal}");
                        return;
                    }
                    Received::Reload(signal) => {
                        tracing::info!("received {signal}; reading the configuration again");
                        reload(fleet.clone());
                    }
                }
            }
        };
        tokio::select! {
            () = accept => End::Asked,
            () = stopped => End::Asked,
            () = self.app.shutdown_asked() => End::Asked,
            () = until => End::Dropped,
            failed = self.first.watch(&self.events, is_ready) => End::Failed(failed),
            successor = self.upgrader.upgraded() => End::Upgraded(successor),
            () = predecessor_gone(predecessor.as_ref(), ready) => End::Failed(Error::PredecessorGone),
            () = first_gone(&self.kept_by) => {
                tracing::warn!("the process that was started first is gone");
                End::Asked
            }
        }
    }

    /// Lets this server finish its requests while another process serves, and keeps that process if this one
    /// was started first.
    ///
    /// # Errors
    /// The process that was kept failed.
    pub(crate) async fn hand_over(
        self,
        successor: Successor,
        until: impl Future<Output = ()>,
        signals: &mut Signals,
    ) -> Result<(), Error> {
        let stops = watch::Sender::new(0);
        let (finished, kept_by, _run_dir) = self.finish(successor.pid, stops.subscribe());
        match kept_by {
            KeptBy::Itself(successors) => {
                let kept = async {
                    let kept = keep(successors, successor.pid, signals, until, &stops).await;
                    stops.send_modify(|stops| *stops = 1.max(*stops));
                    kept
                };
                tokio::join!(finished, kept).1
            }
            KeptBy::First(first) => {
                first.replaced_by(successor.pid).await;
                let stopped = async {
                    signals.stop().await;
                    stops.send_replace(1);
                    signals.again().await;
                    stops.send_replace(2);
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = finished => {}
                    () = stopped => {}
                }
                Ok(())
            }
        }
    }

    /// Returns a future in which this server finishes its requests and ends, and what outlives it. A first
    /// stop limits the requests to the grace, a second one ends them.
    fn finish(
        self,
        successor: u32,
        mut stops: watch::Receiver<u32>,
    ) -> (impl Future<Output = ()>, KeptBy, RunDir) {
        let Self { server, app, fleet, announcer, tracer, grace, adopts_orphans, .. } = self;
        let (left, background) = (self.left, self._background);
        // The sockets are those of the other process.
        drop(self.upgrader);
        left.send_replace(true);
        self.ending.send_replace(true);
        announcer.replaced_by(successor);
        let leaving = server.hand_over();
        let finish = async move {
            let mut at_once = stops.clone();
            let ended = async {
                tokio::select! {
                    () = report_wait(leaving.ended()) => {}
                    _ = stops.wait_for(|stops| *stops > 0) => {
                        leaving.drain(grace).await;
                    }
                }
                // A response of the admin API may be on its way.
                sleep(LAST_RESPONSES).await;
                fleet.stop(WORKER_EXIT_TIME).await;
            };
            tokio::select! {
                () = ended => {}
                _ = at_once.wait_for(|stops| *stops > 1) => {}
            }
            drop(background);
            finish_background(adopts_orphans, &app, tracer).await;
            tracing::info!("the requests of process {} are finished", std::process::id());
        };
        (finish, self.kept_by, self._run_dir)
    }

    /// Lets requests finish within the grace, then stops everything. A further signal cuts it short.
    pub(crate) async fn drain(self, end: &End, signals: &mut Signals) {
        let grace = if matches!(end, End::Asked) { self.grace } else { Duration::ZERO };
        self.ending.send_replace(true);
        self.announcer.stopping();
        tokio::select! {
            () = stop(self.server, &self.fleet, grace) => {}
            signal = signals.again() => tracing::warn!("received {signal}; stopping at once"),
        }
        finish_background(self.adopts_orphans, &self.app, self.tracer).await;
    }
}

/// Ends the orphans of a server without workers, and writes its last records.
async fn finish_background(adopts_orphans: bool, app: &App, tracer: Option<Tracer>) {
    if adopts_orphans {
        litplex_workers::end_orphans().await;
    }
    app.logged().await;
    if let Some(tracer) = tracer {
        send_last_spans(tracer).await;
    }
}

/// Upgrades the server whenever the signal comes, until it is replaced.
async fn upgrade_at_signals(
    mut signals: Signal,
    admin: Arc<AdminHandler>,
    left: impl Future<Output = ()>,
) {
    let upgrade = async {
        while signals.recv().await.is_some() {
            tracing::info!("received SIGUSR2");
            if let Err(refusal) = admin.upgrade(upgrade::LIMIT).await {
                tracing::warn!("SIGUSR2: {refusal}");
            }
        }
    };
    tokio::select! {
        () = upgrade => {}
        () = left => {}
    }
}

/// Returns a future that resolves when a value becomes true.
fn when(value: &watch::Sender<bool>) -> impl Future<Output = ()> + use<> {
    let mut value = value.subscribe();
    async move {
        if value.wait_for(|value| *value).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Returns a future that resolves at once, or when a value becomes true.
fn if_or_when(at_once: bool, value: &watch::Sender<bool>) -> impl Future<Output = ()> + use<> {
    let when = when(value);
    async move {
        if !at_once {
            when.await;
        }
    }
}

/// Resolves when the server that this one is to replace is gone before this one is ready.
async fn predecessor_gone(predecessor: Option<&Predecessor>, ready: &watch::Sender<bool>) {
    let Some(predecessor) = predecessor else { return std::future::pending().await };
    predecessor.gone().await;
    // It closes the connection as soon as it knows that this server is ready.
    if *ready.borrow() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when the process that keeps this one is gone.
async fn first_gone(kept_by: &KeptBy) {
    match kept_by {
        KeptBy::First(first) => first.gone().await,
        KeptBy::Itself(_) => std::future::pending().await,
    }
}

/// Logs now and then that requests are still in progress.
async fn report_wait(ended: impl Future<Output = ()>) {
    let (begin, mut ended) = (Instant::now(), pin!(ended));
    while timeout(REPORT_INTERVAL, &mut ended).await.is_err() {
        let seconds = begin.elapsed().as_secs();
        tracing::info!(
            "process {} still has requests, {seconds} s after the upgrade; SIGTERM limits them to the \
             grace",
            std::process::id()
        );
    }
}

/// Reloads the program, beside the requests. The log has the result.
fn reload(fleet: FleetHandle) {
    tokio::spawn(async move {
        let order = Order::new(false, RELOAD_TIME);
        // The task logs the result of a reload that it began.
        if let Err(refusal) = fleet.reload(order).await {
            tracing::debug!("the signal has changed nothing: {refusal}");
        }
    });
}

/// Makes this process adopt the orphans of models before it launches any: workers that are forked from a
/// template are among them.
fn become_reaper() {
    if let Err(error) = litplex_workers::become_reaper() {
        tracing::debug!("workers are not forked from templates: {error}");
    }
}

async fn adopt_orphans() {
    if let Err(error) = litplex_workers::adopt_orphans().await {
        tracing::debug!("processes that models leave behind are not waited for: {error}");
    }
}

/// Lets requests in flight finish, then stops the workers.
async fn stop(server: Server, fleet: &FleetHandle, grace: Duration) {
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
    if timeout(left + KILL_TIME, fleet.stop(left)).await.is_err() {
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
