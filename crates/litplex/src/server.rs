use std::future::IntoFuture;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use litplex_config::{Origin, resolve};
use litplex_core::{Attach, Device, Launch, LitApi, LitStream, Result};
use litplex_http::{BoxLayer, HttpLayer, Layers};
use litplex_server::{ModelSource, ServerSpec};
use litplex_workers::{Settings, batches, streams};
use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::{Error, Program};

/// One endpoint: a path, the model behind it, and how it is run.
///
/// Options are checked when the server starts.
#[must_use = "an endpoint is served by run_servers"]
pub struct LitServer {
    pub(crate) options: Map<String, Value>,
    pub(crate) model: ModelSource,
    pub(crate) layers: Vec<BoxLayer>,
}

impl std::fmt::Debug for LitServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LitServer").field("options", &self.options).finish_non_exhaustive()
    }
}

impl LitServer {
    /// Serves a Rust model at `path`; `load` is called once per worker, on its thread.
    pub fn new<A: LitApi>(
        path: &str,
        load: impl Fn(Device) -> Result<A> + Send + Sync + 'static,
    ) -> Self {
        Self::with_model(path, |settings, attach| Arc::new(batches(settings, load, attach)))
    }

    /// Serves a Rust model whose answers are streams at `path`.
    pub fn stream<S: LitStream>(
        path: &str,
        load: impl Fn(Device) -> Result<S> + Send + Sync + 'static,
    ) -> Self {
        Self::with_model(path, |settings, attach| Arc::new(streams(settings, load, attach)))
            .set("stream", true)
    }

    /// Serves a Python model at `path`. `api` names a `LitAPI` class or instance:
    /// `ocr.py:OcrAPI`, relative to the working directory, or `package.module:OcrAPI`.
    pub fn python(path: &str, api: &str) -> Self {
        let model = ModelSource::default();
        Self { options: Map::new(), model, layers: Vec::new() }.set("path", path).set("api", api)
    }

    fn with_model(
        path: &str,
        model: impl FnOnce(Settings, Arc<dyn Attach>) -> Arc<dyn Launch> + Send + 'static,
    ) -> Self {
        let model = ModelSource { model: Some(Box::new(model)), ..ModelSource::default() };
        Self { options: Map::new(), model, layers: Vec::new() }.set("path", path)
    }

    /// Describes what the endpoint takes and gives in `/openapi.json` by two types, which are
    /// usually those of the model: with `#[derive(JsonSchema)]` of the crate `schemars`, version 1,
    /// which reads the attributes of serde. Of a stream, `Output` is one chunk.
    /// Default: any JSON.
    pub fn schema<Input: JsonSchema, Output: JsonSchema>(mut self) -> Self {
        self.model.schema.types::<Input, Output>();
        self
    }

    /// Shows a request and its answer (of a stream, one chunk) in `/openapi.json`. Without
    /// [`schema`](Self::schema) they also say what the endpoint takes and gives.
    pub fn example(mut self, request: Value, answer: Value) -> Self {
        self.model.schema.example(request, answer);
        self
    }

    /// The most requests in one call of `predict`. Default: 1.
    pub fn max_batch_size(self, items: usize) -> Self {
        self.set("max_batch_size", items)
    }

    /// How long a batch may wait to fill, from the arrival of its first request. Default: 0,
    /// which takes what is there.
    pub fn batch_timeout(self, timeout: Duration) -> Self {
        self.set("batch_timeout", timeout.as_secs_f64())
    }

    /// What a request costs in a batch, so that like is put with like: `FIELD:length`,
    /// `FIELD:words` or `FIELD:value` of a field of the JSON body (dots reach into objects), or
    /// `body:bytes`. Default: requests are alike.
    pub fn cost(self, cost: &str) -> Self {
        self.set("cost", cost)
    }

    /// The most that a batch may cost: its size times the cost of its most expensive request.
    /// Default: no limit.
    pub fn max_batch_cost(self, cost: f64) -> Self {
        self.set("max_batch_cost", cost)
    }

    /// Whether the items of a batch that raised are computed again one by one, so that one bad
    /// input costs only itself. Default: as [`idempotent`](Self::idempotent).
    pub fn retry_batch_singly(self, retry: bool) -> Self {
        self.set("retry_batch_singly", retry)
    }

    /// Copies of the model on each device. Default: 1.
    pub fn workers_per_device(self, workers: usize) -> Self {
        self.set("workers_per_device", workers)
    }

    /// Adds and removes workers between the fewest, which may be none, and the most as load moves,
    /// instead of [`workers_per_device`](Self::workers_per_device): the options `min_workers` and
    /// `max_workers`.
    pub fn workers_between(self, fewest: usize, most: usize) -> Self {
        self.set("min_workers", fewest).set("max_workers", most)
    }

    /// Requests (or batches) that one worker of a Python model computes at the same time; above 1
    /// for `async` hooks. Default: 64 for `async` hooks, else 1.
    pub fn max_concurrency(self, requests: usize) -> Self {
        self.set("max_concurrency", requests)
    }

    /// What the workers compute on: `auto`, `cpu`, `cuda`, `gpu` or `mps`. Default: `auto`.
    pub fn accelerator(self, accelerator: &str) -> Self {
        self.set("accelerator", accelerator)
    }

    /// The indices of the devices to use. Default: all.
    pub fn devices(self, indices: &[usize]) -> Self {
        self.set("devices", indices)
    }

    /// The time budget of a request, from its arrival to the last byte of its answer; for a stream,
    /// to its first chunk. A client may shorten it with the header `X-Request-Timeout`, in seconds.
    /// Default: 30 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set("timeout", timeout.as_secs_f64())
    }

    /// The time budget of a stream between two chunks. Default: as [`timeout`](Self::timeout).
    pub fn chunk_timeout(self, timeout: Duration) -> Self {
        self.set("chunk_timeout", timeout.as_secs_f64())
    }

    /// After how long a silence an event stream, also of a chat, is sent a comment. Default: never.
    pub fn ping_interval(self, interval: Duration) -> Self {
        self.set("ping_interval", interval.as_secs_f64())
    }

    /// How long a request may wait for a worker; then it is answered 504. Once a worker has begun
    /// with it, [`timeout`](Self::timeout) alone counts. Default: as that.
    pub fn queue_timeout(self, timeout: Duration) -> Self {
        self.set("queue_timeout", timeout.as_secs_f64())
    }

    /// How long past its deadline a worker may go on computing a request before it is killed and
    /// replaced; `None` lets it. Default: 10 s.
    pub fn kill_after(self, after: impl Into<Option<Duration>>) -> Self {
        match after.into() {
            Some(after) => self.set("kill_after", after.as_secs_f64()),
            None => self.set("kill_after", false),
        }
    }

    /// How often the interpreter of a Python model's worker must show that it runs; a worker that
    /// is silent for three of them is killed and replaced. Default: 2 s.
    pub fn heartbeat(self, interval: Duration) -> Self {
        self.set("heartbeat", interval.as_secs_f64())
    }

    /// Whether a request whose worker died may be computed again by another. Default: true, and
    /// false for streams.
    pub fn idempotent(self, idempotent: bool) -> Self {
        self.set("idempotent", idempotent)
    }

    /// How many requests may wait; further ones are answered 503 at once. Default: what the workers
    /// can answer within [`timeout`](Self::timeout).
    pub fn max_queue(self, requests: usize) -> Self {
        self.set("max_queue", requests)
    }

    /// Who may call this endpoint, instead of those who may call the server: names, each with
    /// `env:NAME` or `sha256:…`. Default: those of the server.
    pub fn api_keys<'a>(self, keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.set("api_keys", table(keys))
    }

    /// A file with more keys of this endpoint: lines of a name and `sha256:…`. It is read again
    /// when it changes.
    pub fn api_keys_file(self, file: &str) -> Self {
        self.set("api_keys_file", file)
    }

    /// The scopes that a token must have to call this endpoint, all of them; see
    /// [`RunServers::jwt`]. An endpoint with keys of its own takes tokens only where it has this.
    /// Default: none.
    pub fn jwt_scopes(self, scopes: &[&str]) -> Self {
        self.set("jwt_scopes", scopes)
    }

    /// How many requests each caller may make, such as `10/s`, `600/min` or `1000/h`; further ones
    /// are answered 429. Default: no limit.
    pub fn rate_limit(self, rate: &str) -> Self {
        self.set("rate_limit", rate)
    }

    /// How many of them may come at once. Default: all of [`rate_limit`](Self::rate_limit).
    pub fn rate_burst(self, requests: u32) -> Self {
        self.set("rate_burst", requests)
    }

    /// How many requests of one caller may be in flight; further ones are answered 429. Default: no
    /// limit.
    pub fn max_requests_per_caller(self, requests: usize) -> Self {
        self.set("max_requests_per_caller", requests)
    }

    /// The largest request body in bytes; larger ones are answered 413. Default: 64 MiB.
    pub fn max_body_bytes(self, bytes: usize) -> Self {
        self.set("max_body_bytes", bytes)
    }

    /// The least that is said about it: `debug`, `info`, `warning` or `error`; for the workers of a
    /// Python model the level of `logging`, too. Default: `info`, and Python's own.
    pub fn log_level(self, level: &str) -> Self {
        self.set("log_level", level)
    }

    /// A file for what is said about it, and what its workers print. Default: standard error.
    pub fn log_file(self, file: &str) -> Self {
        self.set("log_file", file)
    }

    /// The interpreter of a Python model's workers, usually one of a virtual environment: the
    /// option `python`. Default: see [`default_interpreter`](crate::default_interpreter).
    pub fn interpreter(self, python: impl Into<PathBuf>) -> Self {
        self.set("python", python.into().to_string_lossy().as_ref())
    }

    /// Sets an environment variable in a Python model's workers.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let table = self.options.entry("env").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(variables) = table {
            variables.insert(name.into(), value.into());
        }
        self
    }

    /// Puts a `tower::Layer` ([`HttpLayer`]) around this endpoint: it sees requests that were let
    /// in, and their answers. Each wraps those before it. A call of a tool (`/mcp`) passes only those of the
    /// server ([`RunServers::layer`]).
    ///
    /// Bodies come and go piece by piece. Where a layer fails or panics, the answer is 500. The
    /// client's [`SocketAddr`](std::net::SocketAddr) is among the extensions of the request, which
    /// a layer must keep.
    ///
    /// ```no_run
    /// use litplex::LitServer;
    /// use tower_http::set_header::SetResponseHeaderLayer;
    /// # use http::header::{CACHE_CONTROL, HeaderValue};
    ///
    /// let uncached = HeaderValue::from_static("no-store");
    /// let ocr = LitServer::python("/ocr", "ocr.py:OcrAPI")
    ///     .layer(SetResponseHeaderLayer::overriding(CACHE_CONTROL, uncached));
    /// ```
    pub fn layer(mut self, layer: impl HttpLayer) -> Self {
        self.layers.push(Box::new(layer));
        self
    }

    /// Constructor arguments for the class of a Python model.
    pub fn args(self, args: Map<String, Value>) -> Self {
        self.set("args", args)
    }

    pub(crate) fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }
}

/// Serves all these endpoints on one socket: `.await` it, or [`run`](RunServers::run) it.
pub fn run_servers(servers: impl IntoIterator<Item = LitServer>) -> RunServers {
    RunServers { options: Map::new(), servers: servers.into_iter().collect(), layers: Vec::new() }
}

/// A server about to run; see [`run_servers`].
#[must_use = "nothing is served before it is awaited or run"]
#[derive(Debug)]
pub struct RunServers {
    options: Map<String, Value>,
    servers: Vec<LitServer>,
    layers: Vec<BoxLayer>,
}

impl RunServers {
    /// The address to listen on. Default: `127.0.0.1`, which only this machine reaches.
    pub fn host(self, host: &str) -> Self {
        self.set("host", host)
    }

    /// The port; 0 takes a free one. Default: 8000.
    pub fn port(self, port: u16) -> Self {
        self.set("port", port)
    }

    /// How long requests in flight may take once the server was asked to stop. Default: 30 s.
    pub fn grace(self, grace: Duration) -> Self {
        self.set("grace", grace.as_secs_f64())
    }

    /// Bytes that the server holds for its clients at a time: bodies of requests as they arrive and
    /// what is made of them, and answers that wait for their clients. Requests beyond that are
    /// answered 503. Default: 1 GiB.
    pub fn max_buffered_bytes(self, bytes: usize) -> Self {
        self.set("max_buffered_bytes", bytes)
    }

    /// Where a GET tells whether every endpoint can serve. Default: `/health`.
    pub fn healthcheck_path(self, path: &str) -> Self {
        self.set("healthcheck_path", path)
    }

    /// Where a GET is answered 200 for as long as the server runs, to everybody. Default: `/livez`.
    pub fn livez_path(self, path: &str) -> Self {
        self.set("livez_path", path)
    }

    /// Where a GET tells whether every endpoint can serve, and no more, to everybody. Default:
    /// `/readyz`.
    pub fn readyz_path(self, path: &str) -> Self {
        self.set("readyz_path", path)
    }

    /// Where a GET describes the server and its endpoints. Default: `/info`.
    pub fn info_path(self, path: &str) -> Self {
        self.set("info_path", path)
    }

    /// Where a GET reads the metrics, as Prometheus does; `None` has no such route. Default:
    /// `/metrics`.
    pub fn metrics_path(self, path: Option<&str>) -> Self {
        self.set("metrics_path", path.map_or(Value::Bool(false), Value::from))
    }

    /// Where a POST that carries the key in `LIT_SHUTDOWN_API_KEY` (`Authorization: Bearer …`)
    /// stops the server. Default: nowhere.
    pub fn shutdown_path(self, path: &str) -> Self {
        self.set("shutdown_path", path)
    }

    /// What `/info` shows under `model`. Default: nothing.
    pub fn model_metadata(self, metadata: Map<String, Value>) -> Self {
        self.set("model_metadata", metadata)
    }

    /// Whether `/openapi.json` describes the endpoints, and `/docs` and `/redoc` show it. Default:
    /// true.
    pub fn openapi(self, openapi: bool) -> Self {
        self.set("openapi", openapi)
    }

    /// Compresses streams, and answers of 1000 bytes and more, for clients that accept it: with
    /// these of `zstd`, `br` and `gzip`, the preferred first. Default: none.
    pub fn compression(self, codings: &[&str]) -> Self {
        self.set("compression", codings)
    }

    /// Whether each answer says in `Server-Timing` how many milliseconds passed from the request's
    /// headers to its own. Default: false.
    pub fn server_timing(self, server_timing: bool) -> Self {
        self.set("server_timing", server_timing)
    }

    /// Who may call: names, each with `env:NAME` or `sha256:…`. Default: everybody.
    pub fn api_keys<'a>(self, keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.set("api_keys", table(keys))
    }

    /// A file with more keys: lines of a name and `sha256:…`. It is read again when it changes.
    pub fn api_keys_file(self, file: &str) -> Self {
        self.set("api_keys_file", file)
    }

    /// Lets callers in who have a JSON Web Token that `issuer` has signed for `audience`, besides
    /// those with keys. `jwks` is a file with the issuer's public keys, which is read again when it
    /// changes, or the URL where it publishes them. They are the options `jwt_issuer`,
    /// `jwt_audience` and `jwt_jwks`. Default: tokens let nobody in.
    pub fn jwt(self, issuer: &str, audience: &str, jwks: &str) -> Self {
        self.set("jwt_issuer", issuer).set("jwt_audience", audience).set("jwt_jwks", jwks)
    }

    /// Fetches the issuer's keys only where one of the certificates in this PEM file vouches for it.
    /// Needs [`jwt`](Self::jwt) with a URL. Default: the authorities that browsers know.
    pub fn jwt_ca(self, certificates: &str) -> Self {
        self.set("jwt_ca", certificates)
    }

    /// Whether each request has an id: its own `X-Request-Id`, or a new one. Default: false.
    pub fn request_id(self, request_id: bool) -> Self {
        self.set("request_id", request_id)
    }

    /// A file in which a line of JSON is written for each request; `-` is standard output. Default:
    /// none.
    pub fn access_log(self, file: &str) -> Self {
        self.set("access_log", file)
    }

    /// Where the traces of requests are sent, as OTLP over HTTP: the address of a collector, such as
    /// `http://127.0.0.1:4318`. Default: what `OTEL_EXPORTER_OTLP_ENDPOINT` says, else nowhere.
    pub fn otlp_endpoint(self, collector: &str) -> Self {
        self.set("otlp_endpoint", collector)
    }

    /// The share of requests that are traced, from 0 to 1, of those that are not part of a trace
    /// already. Default: 1.
    pub fn trace_ratio(self, ratio: f64) -> Self {
        self.set("trace_ratio", ratio)
    }

    /// The origins whose pages may call from a browser, or `*`. Default: none.
    pub fn cors_origins(self, origins: &[&str]) -> Self {
        self.set("cors_origins", origins)
    }

    /// Under which names (`Host`) the server may be asked: names, `*.` and a name, or `*`. Default:
    /// any; on loopback, where no key is asked for, those that no web site can have.
    pub fn allowed_hosts(self, names: &[&str]) -> Self {
        self.set("allowed_hosts", names)
    }

    /// The addresses and networks (`10.0.0.0/8`) of proxies whose `X-Forwarded-For` is believed.
    /// Default: none.
    pub fn trusted_proxies(self, networks: &[&str]) -> Self {
        self.set("trusted_proxies", networks)
    }

    /// Puts a `tower::Layer` around all that the server answers, refusals too; otherwise as
    /// [`LitServer::layer`]. Ids, the access log, compression and CORS are outside of it.
    pub fn layer(mut self, layer: impl HttpLayer) -> Self {
        self.layers.push(Box::new(layer));
        self
    }

    /// Threads that speak HTTP. Default: half the cores, at least one.
    pub fn http_threads(self, threads: usize) -> Self {
        self.set("http_threads", threads)
    }

    /// Connections that the server holds at a time; more clients wait until one ends. Default: three
    /// quarters of the file descriptors that it may have.
    pub fn max_connections(self, connections: usize) -> Self {
        self.set("max_connections", connections)
    }

    /// How long a connection may be idle between two requests; longer than a load balancer in front
    /// keeps it. Default: 75 s.
    pub fn keep_alive_timeout(self, timeout: Duration) -> Self {
        self.set("keep_alive_timeout", timeout.as_secs_f64())
    }

    /// Serves HTTPS: PEM files with the certificate, and those between it and one that clients
    /// know, and with its private key, or the PEM itself. They are the options `tls_cert` and
    /// `tls_key`. Files are read again when they change. Default: HTTP.
    pub fn tls(self, cert: &str, key: &str) -> Self {
        self.set("tls_cert", cert).set("tls_key", key)
    }

    /// Lets in only clients that have a certificate which one in this PEM file has signed, itself
    /// or through others. Needs [`tls`](Self::tls). Default: clients need none.
    pub fn tls_client_ca(self, certificates: &str) -> Self {
        self.set("tls_client_ca", certificates)
    }

    /// Serves until Ctrl-C or SIGTERM, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(self) -> Result<(), Error> {
        self.program()?.run(std::future::pending())
    }

    fn program(self) -> Result<Program, Error> {
        let mut layers = Layers { server: self.layers, ..Layers::default() };
        let (mut options, mut models) = (Vec::new(), Vec::new());
        for server in self.servers {
            if let Some(path) = server.options["path"].as_str() {
                layers.endpoints.insert(path.to_owned(), server.layers);
            }
            options.push(server.options);
            models.push(server.model);
        }
        let mut raw = self.options;
        raw.insert("endpoint".into(), options.into_iter().map(Value::Object).collect());
        let config = resolve(raw, &Origin::Builder)?;
        Ok(Program { spec: ServerSpec { config, models, layers, adopts_orphans: false } })
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
        Box::pin(async move { self.program()?.run_until_dropped().await })
    }
}

fn table<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}
