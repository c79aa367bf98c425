//! From a checked configuration to a running server, and to its end.

use std::future::Future;
use std::io;
use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use litplex_access::{Keys, digest};
use litplex_admin::{AdminSocket, RunDir};
use litplex_http::{App, Builtin, Server, bind};
use litplex_metrics::{Metrics, UserMetrics};
use litplex_traces::Tracer;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::access::Access;
use crate::app_host::Passage;
use crate::around::around;
use crate::crew::Crew;
use crate::desk::Desk;
use crate::log::LogFiles;
use crate::notify::Notifier;
use crate::scrape::scraper;
use crate::secrets::SHUTDOWN_KEY;
use crate::signals::Signals;
use crate::{Error, ServerSpec, access, descriptors, tls};

/// How long workers may take to be gone once they are ended by force. Whatever keeps one, the
/// server ends.
const FORCE_TIME: Duration = Duration::from_secs(5);

/// How long it may take to send the last spans.
const SPANS_TIME: Duration = Duration::from_secs(3);

/// Runs a server until a signal, then lets requests finish; or until `until` resolves, and no
/// longer.
///
/// # Errors
/// See [`Error`].
pub async fn serve(
    spec: ServerSpec,
    log_files: LogFiles,
    until: impl Future<Output = ()>,
) -> Result<(), Error> {
    let ServerSpec { config, given, layers, adopts_orphans } = spec;
    // First of all: a signal that comes while the server starts stops it in the same way.
    let mut signals = Signals::new()?;
    let (access, mut around) = (Access::of(&config)?, around(&config)?);
    let tracer = around.tracer.clone();
    descriptors::raise();
    let tls = tls::read(&config)?;
    let address = format!("{}:{}", config.host, config.port);
    let bound = bind(&config.host, config.port).await;
    let listener = bound.map_err(|source| bind_error(address, config.port, source))?;
    around.browsers.is_loopback = listener.local_addr()?.ip().is_loopback();

    let run_dir = RunDir::create()?;
    let admin = AdminSocket::bind(&run_dir)?;
    let passage = config.app_host.as_ref().map(|host| Passage::open(host, &run_dir)).transpose()?;
    let (metrics, user) = (Metrics::new(), UserMetrics::spawn());
    let measured = (&metrics, &user);
    let places = (run_dir.path(), log_files);
    let crew = Crew::launch(&config, given, places, passage.as_ref(), measured)?;
    let routes = crew.routes(access.of_endpoints, &config);
    let (report, scrape) = (crew.reporter(), scraper(crew.controls(), metrics.clone(), user));
    let (guard, limit) = (access.of_the_rest, config.max_buffered_bytes);
    let app = App::new(routes, builtin(&config), guard, limit, metrics, report, scrape);
    let app_host = passage.as_ref().map(|passage| passage.front(&config, access.of_probes));
    let app =
        app.behind(app_host).keep_alive(config.keep_alive_timeout).within(around).layered(layers);
    let threads = config.http_threads.unwrap_or_else(default_http_threads);
    let connections = config.max_connections;
    let connections = connections.unwrap_or_else(|| {
        descriptors::for_connections(config.app_host.is_some(), crew.most_workers())
    });
    let server = Server::new(listener, app.clone(), threads, connections)?;
    let mut server = server.over(tls.as_ref());
    let url = format!("{}://{}", tls::scheme(&config), server.address()?);
    tracing::info!("listening on {url}{}", reach(&config.host));
    let notifier = Notifier::from_env();
    notifier.listening(&url);
    let port = server.address()?.port();
    let (started, endpoints) = (Instant::now(), crew.controls());
    let desk = Desk { url: url.clone(), port, started, endpoints };
    // They end with this function.
    let mut open = JoinSet::new();
    open.spawn(admin.serve(Arc::new(desk)));
    if adopts_orphans {
        open.spawn(async {
            if let Err(error) = litplex_workers::adopt_orphans().await {
                tracing::debug!("processes that models leave behind are not waited for: {error}");
            }
        });
    }
    if let Some(passage) = passage {
        open.spawn(passage.serve(app.clone()));
    }
    if let Some(tls) = tls {
        open.spawn(tls.follow());
    }

    let (grace, result) = {
        let mut until = pin!(until);
        tokio::select! {
            () = server.accept() => (config.grace, Ok(())),
            signal = signals.next() => {
                tracing::info!("received {signal}");
                (config.grace, Ok(()))
            }
            () = app.shutdown_asked() => (config.grace, Ok(())),
            // Nobody is left who could wait for it.
            () = &mut until => (Duration::ZERO, Ok(())),
            failed = crew.watch(|| say_ready(&config, &url, &notifier)) => (Duration::ZERO, Err(failed)),
        }
    };
    notifier.stopping();
    tokio::select! {
        () = stop(server, crew, grace) => {}
        signal = signals.again() => tracing::warn!("received {signal}; stopping at once"),
    }
    if adopts_orphans {
        litplex_workers::end_orphans().await;
    }
    app.logged().await;
    if let Some(tracer) = tracer {
        send_the_rest(tracer).await;
    }
    result
}

/// Says why an address cannot be had, and which server of this user has it, if one does.
fn bind_error(address: String, port: u16, source: io::Error) -> Error {
    let is_taken = source.kind() == io::ErrorKind::AddrInUse;
    let servers = is_taken.then(litplex_admin::running).into_iter().flatten();
    let mut statuses = servers.filter_map(|server| server.ps().ok());
    let taken_by = statuses.find(|status| status.port == port).map(|status| status.pid);
    Error::Bind { address, taken_by, source }
}

/// Sends the spans of the last requests, as far as somebody takes them.
async fn send_the_rest(tracer: Tracer) {
    let sent = tokio::task::spawn_blocking(move || tracer.shutdown(SPANS_TIME));
    // It keeps to its time, but for a collector that takes a request and never answers it.
    let _ = timeout(SPANS_TIME, sent).await;
}

/// What litplex answers itself. Keys come from the environment alone: a configuration is shown.
fn builtin(config: &litplex_config::Program) -> Builtin {
    let litplex_config::BuiltinRoutes { health, livez, readyz, info, metrics, shutdown, openapi } =
        config.routes.clone();
    let shutdown_key = access::key_in(SHUTDOWN_KEY).unwrap_or_else(|mistake| {
        tracing::warn!("{mistake}");
        None
    });
    let shutdown_key =
        shutdown_key.map(|key| Keys::from_iter([(SHUTDOWN_KEY.to_owned(), digest(key))]));
    if let (Some(path), None) = (&shutdown, &shutdown_key) {
        tracing::warn!("nobody can stop the server at {path}: LIT_SHUTDOWN_API_KEY is not set");
    }
    Builtin {
        health,
        health_reasons: !config.litserve,
        livez,
        readyz,
        info,
        litserve_info: config.litserve_info.clone(),
        metrics,
        shutdown,
        shutdown_key,
        model_metadata: config.model_metadata.clone(),
        openapi,
    }
}

/// Says that all endpoints serve, to all who listen.
fn say_ready(config: &litplex_config::Program, url: &str, notifier: &Notifier) {
    tracing::info!("ready: all endpoints serve at {url}");
    // Nobody may be left who reads them.
    let mut to = std::io::stderr().lock();
    expected_lines(config, url).iter().for_each(|line| drop(writeln!(to, "{line}")));
    notifier.ready();
}

/// What scripts that start LitServe wait for on its stderr.
fn expected_lines(config: &litplex_config::Program, url: &str) -> Vec<String> {
    if !config.litserve {
        return Vec::new();
    }
    let mut lines = vec![
        "INFO:     Application startup complete.".to_owned(),
        format!("INFO:     Uvicorn running on {url} (Press CTRL+C to quit)"),
    ];
    if config.routes.openapi {
        lines.push(format!("Swagger UI is available at {url}/docs"));
    }
    lines
}

/// Lets requests in flight finish, then the workers.
async fn stop(server: Server, crew: Crew, grace: Duration) {
    if grace.is_zero() {
        tracing::info!("stopping");
    } else {
        tracing::info!("stopping; requests in flight may take {grace:?} more");
    }
    let begin = Instant::now();
    if !server.drain(grace).await {
        tracing::warn!("some requests did not finish in time and are broken off");
    }
    let left = grace.saturating_sub(begin.elapsed()).max(Duration::from_secs(1));
    if timeout(left + FORCE_TIME, crew.stop(left)).await.is_err() {
        tracing::warn!("some workers could not be ended and are left behind");
    }
    tracing::info!("stopped");
}

fn reach(host: &str) -> &'static str {
    match host {
        "127.0.0.1" | "localhost" | "::1" => {
            " (this machine only; host \"0.0.0.0\" lets others in)"
        }
        _ => "",
    }
}

fn default_http_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}
