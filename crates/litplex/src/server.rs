//! The builder of a server: a method for each option, and the two ways to run it.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use litplex_config::{Origin, resolve};
use litplex_http::{BoxLayer, HttpLayer, Layers};
use litplex_server::{Inherited, Predecessor, ServerSpec, StartCommand};
use serde_json::{Map, Value};

use crate::{Endpoint, Error, Program, table};

/// Returns a server of these endpoints: `.await` it, or [`run`](RunServers::run) it.
pub fn run_servers(endpoints: impl IntoIterator<Item = Endpoint>) -> RunServers {
    let endpoints = endpoints.into_iter().collect();
    RunServers { options: Map::new(), endpoints, layers: Vec::new() }
}

/// A server that is not started yet; see [`run_servers`].
#[must_use = "nothing is served before it is awaited or run"]
#[derive(Debug)]
pub struct RunServers {
    options: Map<String, Value>,
    endpoints: Vec<Endpoint>,
    layers: Vec<BoxLayer>,
}

impl RunServers {
    /// The address on which the server listens. Default: `127.0.0.1`, for this machine alone.
    pub fn host(self, host: &str) -> Self {
        self.set("host", host)
    }

    /// The port; 0: any free port. Default: 8000.
    pub fn port(self, port: u16) -> Self {
        self.set("port", port)
    }

    /// The time that requests in flight have after the server is asked to stop. Default: 30 s.
    pub fn grace(self, grace: Duration) -> Self {
        self.set("grace", grace.as_secs_f64())
    }

    /// The bytes that the server holds for its clients at a time: request bodies as they arrive and
    /// in every later form, and responses that wait for their clients. Requests beyond that get 503.
    /// Default: 1 GiB.
    pub fn max_buffered_bytes(self, bytes: usize) -> Self {
        self.set("max_buffered_bytes", bytes)
    }

    /// The path at which a GET returns whether every endpoint can serve. Default: `/health`.
    pub fn healthcheck_path(self, path: &str) -> Self {
        self.set("healthcheck_path", path)
    }

    /// The public path at which a GET returns 200 while the server runs. Default: `/livez`.
    pub fn livez_path(self, path: &str) -> Self {
        self.set("livez_path", path)
    }

    /// The public path at which a GET returns whether every endpoint can serve, without reasons.
    /// Default: `/readyz`.
    pub fn readyz_path(self, path: &str) -> Self {
        self.set("readyz_path", path)
    }

    /// The path at which a GET describes the server and its endpoints. Default: `/info`.
    pub fn info_path(self, path: &str) -> Self {
        self.set("info_path", path)
    }

    /// The path at which Prometheus reads the metrics; `None`: no such route. Default: `/metrics`.
    pub fn metrics_path(self, path: Option<&str>) -> Self {
        self.set("metrics_path", path.map_or(Value::Bool(false), Value::from))
    }

    /// The path at which a POST with the key in `LIT_SHUTDOWN_API_KEY` (`Authorization: Bearer …`)
    /// stops the server. Default: none.
    pub fn shutdown_path(self, path: &str) -> Self {
        self.set("shutdown_path", path)
    }

    /// The metadata that `/info` shows under `model`. Default: none.
    pub fn model_metadata(self, metadata: Map<String, Value>) -> Self {
        self.set("model_metadata", metadata)
    }

    /// Whether `/openapi.json` describes the endpoints, and `/docs` and `/redoc` show the description. Default:
    /// true.
    pub fn openapi(self, openapi: bool) -> Self {
        self.set("openapi", openapi)
    }

    /// Compresses streams, and responses of 1000 bytes and more, for clients that accept it, with
    /// these codings of `zstd`, `br` and `gzip`, the preferred one first. Default: none.
    pub fn compression(self, codings: &[&str]) -> Self {
        self.set("compression", codings)
    }

    /// Whether each response has a `Server-Timing` header with the milliseconds from the request's
    /// headers to its own. Default: false.
    pub fn server_timing(self, server_timing: bool) -> Self {
        self.set("server_timing", server_timing)
    }

    /// The keys of callers: names, each with `env:NAME` or `sha256:…`. Default: any client may call.
    pub fn api_keys<'a>(self, keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.set("api_keys", table(keys))
    }

    /// A file with more keys: lines of a name and `sha256:…`. It is read again when it changes.
    pub fn api_keys_file(self, file: &str) -> Self {
        self.set("api_keys_file", file)
    }

    /// Accepts JSON Web Tokens that `issuer` has signed for `audience`, beside keys. `jwks` is a file
    /// with the issuer's public keys, which is read again when it changes, or the URL at which the
    /// issuer publishes them. These are the options `jwt_issuer`, `jwt_audience` and `jwt_jwks`.
    /// Default: no token is accepted.
    pub fn jwt(self, issuer: &str, audience: &str, jwks: &str) -> Self {
        self.set("jwt_issuer", issuer).set("jwt_audience", audience).set("jwt_jwks", jwks)
    }

    /// The PEM file of the authorities that certify the host of the issuer's keys. Needs
    /// [`jwt`](Self::jwt) with a URL. Default: the authorities that browsers know.
    pub fn jwt_ca(self, certificates: &str) -> Self {
        self.set("jwt_ca", certificates)
    }

    /// The address of the admin API, beside its private socket; it needs [`admin_keys`](Self::admin_keys) or
    /// [`admin_keys_file`](Self::admin_keys_file). These are the options `admin_host` and `admin_port`.
    /// Default: none.
    pub fn admin(self, host: &str, port: u16) -> Self {
        self.set("admin_host", host).set("admin_port", port)
    }

    /// Whether this server's own port has the dashboard, at `/dashboard`, for keys of operators. Default: false.
    pub fn admin_dashboard(self, admin_dashboard: bool) -> Self {
        self.set("admin_dashboard", admin_dashboard)
    }

    /// The keys of operators, in the form of [`api_keys`](Self::api_keys). Default: none.
    pub fn admin_keys<'a>(self, keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.set("admin_keys", table(keys))
    }

    /// A file with more keys of operators. It is read again when it changes.
    pub fn admin_keys_file(self, file: &str) -> Self {
        self.set("admin_keys_file", file)
    }

    /// The keys of operators who may only look. Default: none.
    pub fn admin_read_keys<'a>(self, keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.set("admin_read_keys", table(keys))
    }

    /// A file with more keys of operators who may only look. It is read again when it changes.
    pub fn admin_read_keys_file(self, file: &str) -> Self {
        self.set("admin_read_keys_file", file)
    }

    /// Whether each request has an id: its own `X-Request-Id`, or a new one. Default: false.
    pub fn request_id(self, request_id: bool) -> Self {
        self.set("request_id", request_id)
    }

    /// The file of the access log, a line of JSON for each request; `-` is standard output. Default:
    /// none.
    pub fn access_log(self, file: &str) -> Self {
        self.set("access_log", file)
    }

    /// The address of the collector of traces, which gets OTLP over HTTP, such as
    /// `http://127.0.0.1:4318`. Default: `OTEL_EXPORTER_OTLP_ENDPOINT`, else none.
    pub fn otlp_endpoint(self, collector: &str) -> Self {
        self.set("otlp_endpoint", collector)
    }

    /// The share of requests that are traced, from 0 to 1, among those outside of a trace. Default: 1.
    pub fn trace_ratio(self, ratio: f64) -> Self {
        self.set("trace_ratio", ratio)
    }

    /// The origins whose pages may call from a browser, or `*`. Default: none.
    pub fn cors_origins(self, origins: &[&str]) -> Self {
        self.set("cors_origins", origins)
    }

    /// The host names (`Host`) that requests may have: names, `*.` and a name, or `*`. Default: any;
    /// on loopback without keys, the names that no web site can have.
    pub fn allowed_hosts(self, names: &[&str]) -> Self {
        self.set("allowed_hosts", names)
    }

    /// The addresses and networks (`10.0.0.0/8`) of proxies whose `X-Forwarded-For` is believed.
    /// Default: none.
    pub fn trusted_proxies(self, networks: &[&str]) -> Self {
        self.set("trusted_proxies", networks)
    }

    /// Adds a `tower::Layer` around all responses of the server, refusals too; otherwise as
    /// [`Endpoint::layer`]. Request ids, the access log, compression and CORS are outside of it.
    pub fn layer(mut self, layer: impl HttpLayer) -> Self {
        self.layers.push(Box::new(layer));
        self
    }

    /// The most workers that compute at the same time on a device, or on the same cores, while several
    /// endpoints want it; `None`: any number. Default: on cores, as many as they can compute at full speed; on a
    /// GPU, any number.
    pub fn device_concurrency(self, workers: impl Into<Option<usize>>) -> Self {
        match workers.into() {
            Some(workers) => self.set("device_concurrency", workers),
            None => self.set("device_concurrency", false),
        }
    }

    /// The number of threads for HTTP. Default: half the cores, at least one.
    pub fn http_threads(self, threads: usize) -> Self {
        self.set("http_threads", threads)
    }

    /// The number of open connections; further clients wait until one ends. Default: three quarters
    /// of the file descriptors that the process may have.
    pub fn max_connections(self, connections: usize) -> Self {
        self.set("max_connections", connections)
    }

    /// The bytes of memory that the workers of all endpoints may have together. Default: what the machine or the
    /// container has, less a tenth.
    pub fn memory_budget(self, bytes: u64) -> Self {
        self.set("memory_budget", bytes)
    }

    /// The bytes of memory of each GPU that the workers of all endpoints may have together. Default: all of it,
    /// less a tenth.
    pub fn gpu_memory_budget(self, bytes: u64) -> Self {
        self.set("gpu_memory_budget", bytes)
    }

    /// The time that a connection may be idle between two requests; it should be longer than that of a
    /// load balancer in front. Default: 75 s.
    pub fn keep_alive_timeout(self, timeout: Duration) -> Self {
        self.set("keep_alive_timeout", timeout.as_secs_f64())
    }

    /// Serves HTTPS with a certificate chain and its private key: PEM files, which are read again when
    /// they change, or the PEM itself. These are the options `tls_cert` and `tls_key`. Default: HTTP.
    pub fn tls(self, cert: &str, key: &str) -> Self {
        self.set("tls_cert", cert).set("tls_key", key)
    }

    /// Accepts only clients with a certificate of one of the authorities in this PEM file. Needs
    /// [`tls`](Self::tls). Default: clients need no certificate.
    pub fn tls_client_ca(self, certificates: &str) -> Self {
        self.set("tls_client_ca", certificates)
    }

    /// Serves until Ctrl-C or SIGTERM, on another thread, and waits for its end.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(self) -> Result<(), Error> {
        let (predecessor, program) = self.inheriting();
        let served = program.and_then(|program| program.run(std::future::pending()));
        report(predecessor.as_ref(), served)
    }

    /// Returns the program, and the server that it replaces, if this process was started for that.
    fn inheriting(self) -> (Option<Predecessor>, Result<Program, Error>) {
        let inherited = Inherited::from_env();
        let predecessor = inherited.predecessor();
        (predecessor, self.program().map(|program| program.inherit(inherited)))
    }

    fn program(self) -> Result<Program, Error> {
        let mut layers = Layers { server: self.layers, ..Layers::default() };
        let (mut options, mut models) = (Vec::new(), Vec::new());
        let mut endpoint_layers = Vec::new();
        for endpoint in self.endpoints {
            endpoint_layers.push(endpoint.layers);
            options.push(endpoint.options);
            models.push(endpoint.model);
        }
        let mut raw = self.options;
        raw.insert("endpoint".into(), options.into_iter().map(Value::Object).collect());
        let config = resolve(raw, &Origin::Builder)?;
        let labels = config.endpoints.iter().map(|endpoint| endpoint.label().to_owned());
        layers.endpoints = labels.zip(endpoint_layers).collect();
        let spec = ServerSpec { models, layers, ..ServerSpec::new(config) };
        Ok(Program::of(spec).started_by(StartCommand::this_process()?))
    }

    fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }
}

impl IntoFuture for RunServers {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Serves until Ctrl-C or SIGTERM, or until the future is dropped. The server has a thread
    /// and a runtime of its own: nothing that the caller's runtime does can delay it.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (predecessor, program) = self.inheriting();
            let served = match program {
                Ok(program) => program.run_until_dropped().await,
                Err(error) => Err(error),
            };
            report(predecessor.as_ref(), served)
        })
    }
}

/// Tells the server that this one was to replace why it does not.
fn report(predecessor: Option<&Predecessor>, served: Result<(), Error>) -> Result<(), Error> {
    if let (Some(predecessor), Err(error)) = (predecessor, &served) {
        predecessor.failed(&error.to_string());
    }
    served
}
