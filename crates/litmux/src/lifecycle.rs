//! From a checked configuration to a running server, and to its end.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use litmux_admin::{AdminSocket, RunDir};
use litmux_http::{App, Builtin, Key, Server, bind};
use litmux_metrics::{Metrics, UserMetrics};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::app_host::Passage;
use crate::crew::Crew;
use crate::desk::Desk;
use crate::scrape::scraper;
use crate::{Error, Program};

/// Signals that are no further apart mean one thing.
const SAME_WISH: Duration = Duration::from_millis(500);

/// How long workers may take to be gone once they are ended by force. Whatever keeps one, the
/// server ends.
const FORCE_TIME: Duration = Duration::from_secs(5);

/// Runs a program until a signal, then lets requests finish; or until `until` resolves, and no
/// longer.
pub(crate) async fn serve(program: Program, until: impl Future<Output = ()>) -> Result<(), Error> {
    let Program { config, models } = program;
    let mut signals = Signals::new()?;
    let address = format!("{}:{}", config.host, config.port);
    let bound = bind(&config.host, config.port).await;
    let listener = bound.map_err(|source| Error::Bind { address, source })?;

    let run_dir = RunDir::create()?;
    let admin = AdminSocket::bind(&run_dir)?;
    let passage = config.app_host.is_some().then(|| Passage::open(&run_dir)).transpose()?;
    let (metrics, user) = (Metrics::new(), UserMetrics::spawn());
    let measured = (&metrics, &user);
    let crew = Crew::launch(&config, models, run_dir.path(), passage.as_ref(), measured)?;
    let (routes, limit) = (crew.routes(&metrics), config.max_buffered_bytes);
    let (report, scrape) = (crew.reporter(), scraper(crew.controls(), metrics.clone(), user));
    let app = App::new(routes, builtin(&config), limit, metrics, report, scrape);
    let app_host = passage.as_ref().map(|passage| passage.app_host().to_owned());
    let app = Arc::new(app.behind(app_host));
    let threads = config.http_threads.unwrap_or_else(default_http_threads);
    let mut server = Server::new(listener, app.clone(), threads)?;
    let url = format!("http://{}", server.address()?);
    tracing::info!("listening on {url}{}", reach(&config.host));
    let port = server.address()?.port();
    let (started, endpoints) = (Instant::now(), crew.controls());
    let desk = Desk { url: url.clone(), port, started, endpoints };
    // They end with this function.
    let mut open = JoinSet::new();
    open.spawn(admin.serve(Arc::new(desk)));
    if let Some(passage) = passage {
        open.spawn(passage.serve(app.clone()));
    }

    let (grace, result) = {
        let mut until = pin!(until);
        tokio::select! {
            () = server.accept() => (config.grace, Ok(())),
            () = signals.next() => (config.grace, Ok(())),
            () = app.shutdown_asked() => (config.grace, Ok(())),
            // Nobody is left who could wait for it.
            () = &mut until => (Duration::ZERO, Ok(())),
            failed = crew.watch(url.clone(), expected_lines(&config, &url)) => (Duration::ZERO, Err(failed)),
        }
    };
    tokio::select! {
        () = stop(server, crew, grace) => {}
        () = signals.again() => tracing::warn!("stopping at once"),
    }
    result
}

/// What litmux answers itself. Keys come from the environment alone: a configuration is shown.
fn builtin(config: &litmux_config::Program) -> Builtin {
    let key = |name| std::env::var(name).ok().and_then(Key::new);
    let litmux_config::BuiltinRoutes { health, info, metrics, shutdown, openapi } =
        config.routes.clone();
    let shutdown_key = key("LIT_SHUTDOWN_API_KEY");
    if let (Some(path), None) = (&shutdown, &shutdown_key) {
        tracing::warn!("nobody can stop the server at {path}: LIT_SHUTDOWN_API_KEY is not set");
    }
    let (api_key, model_metadata) = (key("LIT_SERVER_API_KEY"), config.model_metadata.clone());
    let gzip = config.gzip;
    Builtin {
        health,
        info,
        metrics,
        shutdown,
        shutdown_key,
        api_key,
        model_metadata,
        openapi,
        gzip,
    }
}

/// What scripts that start LitServe wait for on its stderr.
fn expected_lines(config: &litmux_config::Program, url: &str) -> Vec<String> {
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

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { interrupt, terminate })
    }

    /// Resolves when somebody insists. One wish may arrive twice: a service manager signals every
    /// process, and the program passes on what it gets.
    async fn again(&mut self) {
        let first = Instant::now();
        while first.elapsed() < SAME_WISH {
            self.next().await;
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
