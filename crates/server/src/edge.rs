//! The HTTP edge of a server, put together from the configuration.

use std::sync::Arc;

use litplex_access::{Guard, Keys, digest};
use litplex_config::Program;
use litplex_http::{App, Builtin, EdgeMiddleware, Layers, Operators, Server};
use litplex_tls::Tls;
use tokio::net::TcpListener;

use crate::access::key_in;
use crate::app_host::AppHostFront;
use crate::descriptors;
use crate::endpoints::Endpoints;
use crate::routes;
use crate::scrape::scraper;
use crate::secrets::SHUTDOWN_KEY;
use crate::telemetry::Telemetry;

/// The parts of the edge that the earlier stages made.
pub(crate) struct EdgeParts {
    /// The guard of the server's own routes.
    pub(crate) guard: Guard,
    pub(crate) middleware: EdgeMiddleware,
    pub(crate) layers: Layers,
    pub(crate) telemetry: Telemetry,
    /// The way to the admin API, if the dashboard is on the server's own port.
    pub(crate) operators: Option<Operators>,
}

/// Returns the application that answers requests.
pub(crate) fn app(
    config: &Program,
    parts: EdgeParts,
    endpoints: &Endpoints,
    app_host: Option<&AppHostFront>,
) -> Arc<App> {
    let EdgeParts { guard, middleware, layers, telemetry, operators } = parts;
    let metrics = telemetry.metrics.clone();
    let (current, scraped) = (endpoints.current(), endpoints.current());
    let app = App::builder(
        endpoints.now().routes(endpoints.registry(), config.request_id),
        builtin(config),
        guard,
        config.max_buffered_bytes,
        metrics,
        move || current.borrow().clone().report(),
        scraper(scraped, telemetry),
    );
    app.behind(app_host.map(|front| front.routes(config)))
        .keep_alive(config.keep_alive_timeout)
        .within(middleware)
        .operated(operators)
        .layered(layers)
}

/// Returns the server of this application, with limits that suit the machine by default.
pub(crate) fn server(
    config: &Program,
    listener: TcpListener,
    app: &Arc<App>,
    tls: Option<&Tls>,
    most_workers: usize,
) -> std::io::Result<Server> {
    let threads = config.http_threads.unwrap_or_else(default_http_threads);
    let connections = config
        .max_connections
        .unwrap_or_else(|| descriptors::for_connections(config.app_host.is_some(), most_workers));
    Ok(Server::new(listener, app.clone(), threads, connections)?.over(tls))
}

fn default_http_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// Returns the built-in routes. Their keys come from the environment alone: configurations are shown.
fn builtin(config: &Program) -> Builtin {
    let builtin = routes::builtin(config);
    let shutdown_key = shutdown_key();
    if let (Some(path), None) = (&builtin.shutdown, &shutdown_key) {
        tracing::warn!("`{path}` is disabled: {SHUTDOWN_KEY} is not set");
    }
    Builtin {
        status_reasons: config.presentation.status_reasons,
        index: config.presentation.index.clone(),
        info_server: config.presentation.info_server.clone(),
        shutdown_key,
        model_metadata: config.model_metadata.clone(),
        ..builtin
    }
}

/// Returns the key that may stop the server, if the environment has one.
fn shutdown_key() -> Option<Keys> {
    let key = key_in(SHUTDOWN_KEY).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        None
    });
    key.map(|key| Keys::from_iter([(SHUTDOWN_KEY.to_owned(), digest(key))]))
}
