//! The options table: the only place that defines an option's name, check, message and text.

use serde_json::{Map, Value, json};

use crate::names::{SHARED_PATH_ENDINGS, is_name};
use crate::read::{bytes, network};
use crate::residency::KEEP_ALIVE_WORDS;
use crate::{ApiKey, Cost, access, admin, jwt, tls, workers};
use litplex_access::Rate;

/// The level that an option belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole server.
    Server,
    /// One endpoint.
    Endpoint,
}

/// The values that an option takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A whole number in this range.
    Integer(i64, i64),
    /// A number of seconds, at least 0.
    Seconds,
    /// A number of seconds, greater than 0.
    PositiveSeconds,
    /// A number of seconds, at least 0, or false.
    SecondsOrFalse,
    /// A number of seconds, greater than 0, or one of these words.
    SecondsOr(&'static [&'static str]),
    /// A number greater than 0.
    PositiveNumber,
    /// A number above 0 and at most 1.
    Fraction,
    /// A number from 0 to 1.
    Share,
    /// A path that begins with a slash.
    Path,
    /// A path that begins with a slash, or false.
    PathOrFalse,
    /// Any text but the empty one.
    String,
    /// A name: a text that does not begin with a slash.
    Name,
    /// A list of names.
    Names,
    /// True or false.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `"auto"`, a count, or a list of indices.
    Devices,
    /// A number of bytes, or a text such as `2GB`.
    Bytes,
    /// A whole number of at least 1, or false.
    CountOrFalse,
    /// A list of indices of cores.
    Cores,
    /// The cost of a request; see [`Cost`].
    Cost,
    /// A list of texts, none of them empty.
    Texts,
    /// True, false, or a list of content codings.
    Codings,
    /// A list of origins of pages, or of `*`.
    Origins,
    /// A list of names of hosts, of `*.` and a name, or of `*`.
    Hosts,
    /// A list of addresses and networks; each is `10.0.0.1` or `10.0.0.0/8`.
    Networks,
    /// A table of texts.
    Strings,
    /// A table of holders with the sources of their keys; see [`ApiKey`].
    ApiKeys,
    /// A number of requests in a time; see [`Rate`].
    Rate,
    /// A table of anything.
    Table,
    /// The steps of a pipeline; `litplex_pipelines` checks them.
    Steps,
}

/// One option: the source of its key, keyword, check, message and documentation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptionDef {
    /// The key in TOML and the keyword in Python.
    pub name: &'static str,
    /// The server or an endpoint.
    pub scope: Scope,
    /// The values that the option takes.
    pub kind: Kind,
    /// The description of valid values, for messages.
    pub expects: &'static str,
    /// The description of the default, for the documentation.
    pub default: &'static str,
    /// One or two sentences.
    pub doc: &'static str,
}

const MANY: i64 = i64::MAX;

/// The paths that protocols give to all endpoints together: tools, and the list of models.
pub(crate) const PROTOCOL_PATHS: [&str; 3] = ["/mcp", "/mcp/", "/v1/models"];

/// The paths of the `OpenAPI` routes: the document, the page that shows it (under two names), and the
/// files of the page.
pub(crate) const OPENAPI_PATHS: [&str; 7] = [
    "/openapi.json",
    "/docs",
    "/redoc",
    "/docs/favicon-32x32.png",
    "/docs/start.js",
    "/docs/swagger-ui-bundle.js",
    "/docs/swagger-ui.css",
];

/// The content codings of compressed responses, the best first.
pub(crate) const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

macro_rules! options {
    ($($scope:ident $name:literal: $kind:expr, $expects:literal, $default:literal, $doc:literal;)*) => {
        &[$(OptionDef {
            name: $name,
            scope: Scope::$scope,
            kind: $kind,
            expects: $expects,
            default: $default,
            doc: $doc,
        }),*]
    };
}

/// All options.
pub const OPTIONS: &[OptionDef] = options! {
    Server "host": Kind::String, "an address such as \"127.0.0.1\" or \"0.0.0.0\"", "127.0.0.1",
        "The address to listen on. The default accepts connections from this machine only.";
    Server "port": Kind::Integer(0, 65_535), "an integer from 0 to 65535", "8000",
        "The port to listen on; 0 chooses a free port.";
    Server "grace": Kind::Seconds, "a number of seconds, at least 0", "30",
        "The time in seconds that requests in flight have to finish after the server was asked to stop.";
    Server "max_buffered_bytes": Kind::Integer(1, MANY), "an integer of at least 1", "1073741824",
        "The memory in bytes that the server uses for its clients at a time: request bodies and the data derived from them, and responses that wait for their clients. Requests above the limit are answered with 503.";
    Server "healthcheck_path": Kind::Path, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters", "/health",
        "The path of the health check: GET responds with 200 if every endpoint can serve, otherwise with 503 and the reasons.";
    Server "livez_path": Kind::Path, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters", "/livez",
        "The path of the liveness probe: GET responds with 200 while the server runs. It needs no key.";
    Server "readyz_path": Kind::Path, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters", "/readyz",
        "The path of the readiness probe: GET responds with 200 if every endpoint can serve, otherwise with 503, without reasons. It needs no key.";
    Server "info_path": Kind::Path, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters", "/info",
        "The path of the description of the server and its endpoints (GET).";
    Server "metrics_path": Kind::PathOrFalse, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters, or false", "/metrics",
        "The path of the metrics for Prometheus (GET); false turns the route off. A route of the program's own app at this path has precedence.";
    Server "shutdown_path": Kind::Path, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters", "",
        "The path at which a POST with the key of LIT_SHUTDOWN_API_KEY (`Authorization: Bearer …`) stops the server, as SIGTERM does. Without this option there is no such route.";
    Server "model_metadata": Kind::Table, "a table", "",
        "The value that `/info` shows under `model`.";
    Server "openapi": Kind::Boolean, "true or false", "true",
        "Whether the server has `/openapi.json`, which describes the endpoints, and `/docs` and `/redoc`, which show the description.";
    Server "compression": Kind::Codings, "true, false, or a list of \"zstd\", \"br\" and \"gzip\"", "false",
        "Compresses streams, and responses of at least 1000 bytes, for clients that accept it (`Accept-Encoding`): with all three codings, or with the listed ones, the preferred first. Each piece of a stream is sent at once. Types that are already compressed, such as images, are not compressed again.";
    Server "api_keys": Kind::ApiKeys, "a table of names, each with \"env:NAME\" or \"sha256:…\"", "",
        "The keys of callers: names, each with the environment variable that contains the key, or with the SHA-256 of the key. Callers send a key as `X-API-Key` or `Authorization: Bearer …`. The keys of an endpoint replace those of the server. `litplex key` creates keys. Without keys, every client may call.";
    Server "api_keys_file": Kind::String, "the path of a file", "",
        "A file with more keys: lines of a name and `sha256:…`, as `litplex key` prints them. The file is reloaded when it changes.";
    Server "jwt_issuer": Kind::String, "the issuer of tokens, such as \"https://id.example.org\"", "",
        "With `jwt_audience` and `jwt_jwks`: accepts JSON Web Tokens (`Authorization: Bearer …`) that this issuer (claim `iss`) has signed. If keys are configured too, either a key or a token is accepted.";
    Server "jwt_audience": Kind::String, "the audience of tokens, such as \"models\"", "",
        "With `jwt_issuer`: the value that the claim `aud` of a token must have or contain.";
    Server "jwt_jwks": Kind::String, "the path of a file, or a URL that begins with \"https://\" or \"http://\"", "",
        "With `jwt_issuer`: the issuer's public keys, as a JSON Web Key Set. A file is reloaded when it changes; a URL every five minutes, and when a token is signed with an unknown key.";
    Server "jwt_ca": Kind::String, "a PEM file with certificates, or its text", "the public authorities",
        "With a `jwt_jwks` that begins with `https://`: the certificates of the authorities that may sign the issuer's certificate.";
    Server "admin_port": Kind::Integer(0, 65_535), "an integer from 0 to 65535", "none",
        "The port of the admin API, beside the private socket that it always has; 0 chooses a free port. It needs `admin_keys` or `admin_keys_file`, and speaks TLS if the server does.";
    Server "admin_host": Kind::String, "an address such as \"127.0.0.1\" or \"0.0.0.0\"", "127.0.0.1",
        "The address on which `admin_port` listens.";
    Server "admin_dashboard": Kind::Boolean, "true or false", "false",
        "Whether the server's own port has the dashboard at `/dashboard`, for keys of operators: `admin_keys` and `admin_read_keys`. Below it is the admin API, which it uses.";
    Server "admin_keys": Kind::ApiKeys, "a table of names, each with \"env:NAME\" or \"sha256:…\"", "",
        "The keys of operators, who may use the whole admin API on `admin_port` and through `admin_dashboard`; in the form of `api_keys`. Keys of callers do not open it.";
    Server "admin_keys_file": Kind::String, "the path of a file", "",
        "A file with more keys of operators, in the form of `api_keys_file`.";
    Server "admin_read_keys": Kind::ApiKeys, "a table of names, each with \"env:NAME\" or \"sha256:…\"", "",
        "The keys of operators who may only look: `GET` requests of the admin API.";
    Server "admin_read_keys_file": Kind::String, "the path of a file", "",
        "A file with more keys of operators who may only look.";
    Server "request_id": Kind::Boolean, "true or false", "false",
        "Whether each request has an id: its own `X-Request-Id`, or a new one. The id is in the response, the access log, the context of hooks and the output of hooks.";
    Server "server_timing": Kind::Boolean, "true or false", "false",
        "Whether each response has the header `Server-Timing` with the milliseconds from the request's headers to the response's headers: `total;dur=12.345`.";
    Server "access_log": Kind::String, "the path of a file, or \"-\" for standard output", "",
        "The access log, with one line of JSON per request: time, client, name of the key, method, path, status, bytes, duration in seconds and id. `-` on a terminal writes a short readable line instead. If the file is moved away, a new one is created.";
    Server "recent_requests": Kind::Integer(0, 10_000), "an integer from 0 to 10000", "200",
        "The number of requests of each endpoint that the server remembers with their stages, for `litplex requests` and the dashboard: the last ones, and beside them the last 50 that failed and the 20 slowest of the last 15 minutes. All endpoints together take at most 16 MiB. 0 turns it off.";
    Server "keep_bodies": Kind::Integer(0, 1 << 20), "an integer from 0 to 1048576", "0",
        "The number of bytes of each request's and each response's body that are remembered with a recent request, if it is JSON or text. In JSON, the texts of members whose names look like those of secrets (`password`, `api_key`, `token`, …) are masked. 0 keeps no bodies.";
    Server "otlp_endpoint": Kind::String, "the address of a collector such as \"http://127.0.0.1:4318\"", "",
        "The collector to which traces of requests are sent, as OTLP over HTTP. The default is OTEL_EXPORTER_OTLP_ENDPOINT; if that is not set, traces are off.";
    Server "trace_ratio": Kind::Share, "a number from 0 to 1", "1",
        "The share of requests that are traced, among those that are not part of a trace already. The decision in a client's `traceparent` has precedence.";
    Server "cors_origins": Kind::Origins, "a list of origins such as \"https://app.example.org\", or of \"*\"", "[]",
        "The origins whose pages may call the server from a browser.";
    Server "allowed_hosts": Kind::Hosts, "a list of names such as \"models.example.com\", \"*.example.com\", or of \"*\"", "any; on loopback, where no key is needed, names that a web site cannot have",
        "The names under which the server may be reached (`Host`); requests under other names are answered with 403. By default any name is allowed, except where the server listens on loopback and the route needs no key: there the allowed names are addresses, `localhost`, `host`, and names without a dot.";
    Server "trusted_proxies": Kind::Networks, "a list of addresses and networks such as \"10.0.0.0/8\"", "[]",
        "Proxies whose headers are trusted: for requests from them, the caller's address is the last address in `X-Forwarded-For` that is not a trusted proxy, and `X-Forwarded-Proto` is the scheme. Limits, the access log and the program's app see that address. On requests from other addresses these headers are ignored.";
    Server "app_heartbeat": Kind::PositiveSeconds, "a number of seconds greater than 0", "5",
        "The interval in seconds at which the app host, if there is one (middlewares, `authorize`, `server.app`), must show that its loop runs; after three intervals without an answer it is killed and started again.";
    Server "http_threads": Kind::Integer(1, 256), "an integer from 1 to 256", "half the cores",
        "The number of threads that handle HTTP.";
    Server "device_concurrency": Kind::CountOrFalse, "an integer of at least 1, or false", "false; if an endpoint has a `device_weight`, on cores as many as they can compute at full speed, on a GPU any number",
        "The most workers that compute at the same time on a device, or on the same cores, while workers of several endpoints want it. The endpoints then take turns, each for its share (`device_weight`), and a worker of a Python model is interrupted for the turn of another one.";
    Server "max_connections": Kind::Integer(1, MANY), "an integer of at least 1", "three quarters of the file descriptors that are not reserved for workers; a quarter with an app host",
        "The most connections at a time; further clients wait until a connection ends.";
    Server "memory_budget": Kind::Bytes, "a number of bytes or a text such as \"2GB\" or \"512MiB\"", "the machine's, or the container's, less a tenth",
        "The memory that all workers together may have. A worker starts only when there is room for it: others leave for it (those above `min_workers`, unless `pinned`), or its requests wait.";
    Server "gpu_memory_budget": Kind::Bytes, "a number of bytes or a text such as \"2GB\" or \"512MiB\"", "all of it less a tenth",
        "The memory of each GPU that all workers together may have.";
    Server "keep_alive_timeout": Kind::PositiveSeconds, "a number of seconds greater than 0", "75",
        "The time in seconds that a connection may be idle between two requests. If a load balancer or proxy keeps connections to the server, this must be longer than its own limit.";
    Server "tls_cert": Kind::String, "a PEM file with a certificate, or its text", "",
        "With `tls_key`: serves HTTPS with this certificate. The file also contains the intermediate certificates, after the server's own. Files are reloaded when they change; open connections continue.";
    Server "tls_key": Kind::String, "a PEM file with a private key, or its text", "",
        "With `tls_cert`: the private key of the certificate, without a password.";
    Server "tls_client_ca": Kind::String, "a PEM file with certificates, or its text", "",
        "With `tls_cert`: clients must present a certificate that one of these authorities has signed, directly or through intermediates.";

    Endpoint "path": Kind::Path, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters", "/predict",
        "The path of the endpoint.";
    Endpoint "name": Kind::Name, "a name that does not begin with \"/\", without control characters", "the name of its class",
        "The name of the endpoint: for clients, in `/v1/models` and the field `model` of a request, and for `litplex scale` and calls of other endpoints. No other endpoint may have it.";
    Endpoint "aliases": Kind::Names, "a list of names that do not begin with \"/\", without control characters", "[]",
        "Further names of the endpoint, which no other endpoint may have.";
    Endpoint "default_model": Kind::Boolean, "true or false", "false",
        "Whether the endpoint gets the requests that name no model, if several endpoints share its path.";
    Endpoint "api": Kind::String, "a name such as \"ocr.py:OcrAPI\" or \"package.module:OcrAPI\"", "",
        "The `LitAPI` class or instance.";
    Endpoint "args": Kind::Table, "a table of constructor arguments", "{}",
        "Constructor arguments for the class that `api` names.";
    Endpoint "pipeline": Kind::Steps, "a list of steps", "",
        "The steps of a pipeline, instead of an `api`: the endpoint calls others, in the server and without a worker (docs/compound.md).";
    Endpoint "python": Kind::String, "the path of a Python interpreter", "the one that runs the program",
        "The interpreter of the workers, usually that of a virtual environment. litplex needs no package in it.";
    Endpoint "requirements": Kind::String, "the path of a requirements file", "none",
        "The packages of the workers, in pip's format: the workers run in a virtual environment of `python` with these packages. It is created at the first start (with `uv` if that is installed) and kept in the user's cache until the requirements change. `litplex env` shows and removes such environments.";
    Endpoint "env": Kind::Strings, "a table of texts", "{}",
        "Environment variables to set in the workers.";
    Endpoint "cwd": Kind::String, "the path of a directory", "the directory of the file that describes the endpoint",
        "The working directory of the workers: relative paths in `args` and in hooks are relative to it.";
    Endpoint "pythonpath": Kind::Texts, "a list of directories", "[]",
        "Directories in which the workers look for modules first.";
    Endpoint "preload": Kind::Texts, "a list of module names", "the modules that earlier workers took long to import, if the number of workers varies",
        "The modules of the workers' template: a process that has imported them, and from which workers are forked, so that these start sooner and share its memory. With `[]` there is no template.";
    Endpoint "log_level": Kind::Choice(&["debug", "info", "warning", "error"]), "one of \"debug\", \"info\", \"warning\", \"error\"", "info, and Python's own",
        "The level of litplex's lines about the endpoint, and the level of `logging` in the workers unless the program sets one.";
    Endpoint "log_file": Kind::String, "the path of a file", "none",
        "The file for the output of the workers and litplex's lines about the endpoint, instead of standard output and error. If the file is moved away, a new one is created.";
    Endpoint "accelerator": Kind::Choice(&["auto", "cpu", "cuda", "gpu", "mps"]), "one of \"auto\", \"cpu\", \"cuda\", \"gpu\", \"mps\"", "auto",
        "The device type of the workers; `auto` uses the GPUs if there are any, otherwise the CPU.";
    Endpoint "devices": Kind::Devices, "\"auto\", an integer of at least 1, or a list of device indices", "auto",
        "The number of devices, or a list of them.";
    Endpoint "workers_per_device": Kind::Integer(1, 1024), "an integer from 1 to 1024", "1",
        "Copies of the model on each device.";
    Endpoint "min_workers": Kind::Integer(0, 1024), "an integer from 0 to 1024", "",
        "With `max_workers`, instead of `workers_per_device`: the minimum number of workers; more are added and removed as the load changes.";
    Endpoint "max_workers": Kind::Integer(1, 1024), "an integer from 1 to 1024", "",
        "With `min_workers`: the maximum number of workers.";
    Endpoint "keep_alive": Kind::SecondsOr(&KEEP_ALIVE_WORDS), "a number of seconds greater than 0, \"auto\" or \"forever\"", "60",
        "The time in seconds without requests after which the workers above `min_workers` stop. With `min_workers = 0` the endpoint then sleeps, until a request starts a worker. With `auto` they stop only when another endpoint needs their memory more, with `forever` only when it can wait no longer for it.";
    Endpoint "pinned": Kind::Boolean, "true or false", "false",
        "Whether no worker of the endpoint leaves memory for another endpoint's. Those up to `min_workers` never do.";
    Endpoint "hibernate": Kind::Boolean, "true or false", "false",
        "Whether a worker that leaves memory hibernates: its process is stopped and its memory moved to swap, and the next request wakes it instead of loading the model. Needs Linux, swap with room and, for a model on a GPU, one of NVIDIA with a driver from 570 on; a worker ends as usual where these are missing.";
    Endpoint "memory": Kind::Bytes, "a number of bytes or a text such as \"2GB\" or \"512MiB\"", "what earlier starts have used",
        "The memory that a worker is expected to need, until one was measured (`memory_budget`). It is no limit; `memory_limit` is.";
    Endpoint "gpu_memory": Kind::Bytes, "a number of bytes or a text such as \"2GB\" or \"512MiB\"", "what earlier starts have used",
        "The memory of its GPU that a worker is expected to need, until one was measured (`gpu_memory_budget`).";
    Endpoint "threads": Kind::Integer(1, 1024), "an integer from 1 to 1024", "a fair share of the cores",
        "The CPU threads of each worker: `self.threads`, and OMP_NUM_THREADS and similar variables unless they are already set. The default divides the cores by the workers of all endpoints, or the cores of `cpu_affinity` by the workers of the endpoint; libraries whose threads sleep while they wait may use all.";
    Endpoint "cpu_affinity": Kind::Cores, "a list of core numbers", "all",
        "The cores that the workers run on.";
    Endpoint "device_weight": Kind::PositiveNumber, "a number greater than 0", "1",
        "The share of the endpoint in the time of a device that several endpoints want, relative to the weights of the others (`device_concurrency`).";
    Endpoint "memory_limit": Kind::Bytes, "a number of bytes or a text such as \"2GB\" or \"512MiB\"", "none",
        "The limit of the resident memory of each worker, including its child processes. A worker that uses more is killed and replaced.";
    Endpoint "gpu_memory_fraction": Kind::Fraction, "a number above 0 and at most 1", "no limit",
        "The share of its GPU's memory that each worker may take, applied through PyTorch, JAX or TensorFlow, and `onnxruntime_options()`. The shares on one GPU may add up to 1.";
    Endpoint "isolate_devices": Kind::Boolean, "true or false", "false",
        "Whether a worker sees only its own GPU, as `cuda:0` (CUDA_VISIBLE_DEVICES).";
    Endpoint "max_concurrency": Kind::Integer(1, 65_536), "an integer from 1 to 65536", "64 for `async` hooks, else 1",
        "The number of requests (or batches) that one worker computes at the same time; more than 1 needs `async` hooks.";
    Endpoint "max_batch_size": Kind::Integer(1, 65_536), "an integer from 1 to 65536", "1",
        "The maximum number of requests in one call of `predict`.";
    Endpoint "batch_timeout": Kind::Seconds, "a number of seconds, at least 0", "0",
        "The time in seconds that a batch may wait to fill, from the arrival of its first request.";
    Endpoint "batch_policy": Kind::Choice(&["adaptive", "fixed"]), "one of \"adaptive\", \"fixed\"", "adaptive",
        "How batches are formed if the model has no `cost`: `adaptive` learns from the times of batches whether requests of similar size belong together and which number is best, and never makes them slower for long than single requests; `fixed` takes as many requests as wait, up to `max_batch_size`, in the order of their arrival.";
    Endpoint "cost": Kind::Cost, "a field and its measure such as \"text:length\", \"text:words\" or \"tokens:value\", or \"body:bytes\"", "",
        "The cost of a request, by which the batcher groups similar requests: the length, the number of words or the value of a field of the JSON body (dots separate nested fields), or the size of the body. A Python model may have a `cost` hook instead.";
    Endpoint "max_batch_cost": Kind::PositiveNumber, "a number greater than 0", "",
        "The maximum cost of a batch: its size times the cost of its most expensive request.";
    Endpoint "retry_batch_singly": Kind::Boolean, "true or false", "as `idempotent`",
        "Whether the items of a batch whose computation raised are computed again one by one, so that one invalid input does not fail the others.";
    Endpoint "stream": Kind::Boolean, "true or false", "false",
        "Whether `predict` is a generator whose values are sent one by one.";
    Endpoint "timeout": Kind::PositiveSeconds, "a number of seconds greater than 0", "30",
        "The time budget of a request, from its arrival to the last byte of its response; for a stream, to its first chunk. A client may shorten it with the header `X-Request-Timeout`, in seconds.";
    Endpoint "chunk_timeout": Kind::PositiveSeconds, "a number of seconds greater than 0", "as `timeout`",
        "The time budget of a stream between two chunks, in seconds.";
    Endpoint "ping_interval": Kind::PositiveSeconds, "a number of seconds greater than 0", "none",
        "The silence in seconds after which a comment (`: ping`) is sent into an event stream, also of a chat, so that proxies do not close it. Comments are sent after the first chunk only.";
    Endpoint "queue_timeout": Kind::PositiveSeconds, "a number of seconds greater than 0", "as `timeout`",
        "The time in seconds that a request may wait for a worker; then it is answered with 504. Once a worker has begun with the request, only `timeout` applies.";
    Endpoint "kill_after": Kind::SecondsOrFalse, "a number of seconds, at least 0, or false", "10",
        "The seconds past the endpoint's `timeout` (for a stream, past its `chunk_timeout`) after which a worker that still computes a request is killed and replaced; false turns this off. A client's `X-Request-Timeout` has no influence. While the server stops, an abandoned request is ended this many seconds after it was abandoned.";
    Endpoint "heartbeat": Kind::PositiveSeconds, "a number of seconds greater than 0", "2",
        "The interval in seconds at which a worker's interpreter must show that it runs; a worker that is silent for three intervals is killed and replaced. If the option is not set, a worker that computes has until `timeout` and `kill_after` instead, because one call into native code may hold the interpreter for as long as a request may take. If the option is set, it applies while the worker computes, too; the time to decode large bodies does not count as silence.";
    Endpoint "idempotent": Kind::Boolean, "true or false", "true, false for streams",
        "Whether a request whose worker died may be computed again by another worker.";
    Endpoint "max_queue": Kind::Integer(1, MANY), "an integer of at least 1", "what the workers can answer within `timeout`",
        "The number of requests that may wait; further requests are answered with 503 at once.";
    Endpoint "queue_order": Kind::Choice(&["adaptive", "arrival"]), "one of \"adaptive\", \"arrival\"", "adaptive",
        "The order of waiting requests: `adaptive` is that of arrival until the queue no longer drains and callers leave it; then the newest go first, and those whose callers have most likely given up get a 503. `arrival` is always first come, first served. Streams and endpoints that are not `idempotent` always keep the order of arrival.";
    Endpoint "warmup": Kind::Integer(0, 1000), "an integer from 0 to 1000", "0, and 1 at a reload if there is an example of a request",
        "The requests that each worker of the endpoint answers before clients reach it, with batching full batches: at the start of the server, and when a reload starts new workers. They have the example of a request that the model or the program declares (`request_example`).";
    Endpoint "swap": Kind::Choice(&["overlap", "in_place"]), "one of \"overlap\", \"in_place\"", "`overlap`, unless the memory is too small for both",
        "How a reload replaces the workers: `overlap` starts the new ones beside the old ones; `in_place` stops the old ones first, while requests wait in the queue.";
    Endpoint "api_keys": Kind::ApiKeys, "a table of names, each with \"env:NAME\" or \"sha256:…\"", "those of the server",
        "The keys of this endpoint, instead of those of the server.";
    Endpoint "api_keys_file": Kind::String, "the path of a file", "",
        "A file with more keys of this endpoint.";
    Endpoint "jwt_scopes": Kind::Texts, "a list of scopes", "[]",
        "The scopes that a token must have, all of them, in its claim `scope` or `scp`. An endpoint with keys of its own accepts tokens only if this option is set.";
    Endpoint "rate_limit": Kind::Rate, "a number of requests in a time, such as \"10/s\", \"600/min\" or \"1000/h\"", "",
        "The rate of requests of each caller: the holder of a key, the `sub` of a token, or an address where no key is needed. Further requests are answered with 429 and `Retry-After`.";
    Endpoint "rate_burst": Kind::Integer(1, 1_000_000), "an integer from 1 to 1000000", "all of `rate_limit`",
        "The number of these requests that may come at once.";
    Endpoint "max_requests_per_caller": Kind::Integer(1, MANY), "an integer of at least 1", "",
        "The number of requests of one caller that may be in flight; further requests are answered with 429.";
    Endpoint "batch_callers": Kind::Texts, "a list of names", "[]",
        "The callers whose requests are in the priority class `batch`, whatever they ask for: names of keys, and the `sub` of tokens.";
    Endpoint "max_body_bytes": Kind::Integer(1, 1 << 29), "an integer from 1 to 536870912", "67108864",
        "The largest request body in bytes, also after decompression; larger bodies are answered with 413. The default, 64 MiB, has room for images and audio, also for those that chats carry as `data:` URLs; endpoints that take only text can have much less.";
};

/// Returns an error for each option that is unknown, has an invalid value, or contradicts another.
pub fn problems(scope: Scope, options: &Map<String, Value>) -> Vec<String> {
    let single = options.iter().filter_map(|(name, value)| match find(scope, name) {
        None => Some(unknown(scope, name)),
        Some(option) if fits(option.kind, value) => None,
        // The message must not show the value: it may be a key.
        Some(option) if option.kind == Kind::ApiKeys => {
            Some(format!("`{name}` must be {}; `litplex key` prints such a line", option.expects))
        }
        Some(option) => Some(format!("`{name}` must be {}, not {value}", option.expects)),
    });
    let combined: Vec<_> = match scope {
        Scope::Server => {
            let found =
                tls::contradictions(options).into_iter().chain(jwt::contradictions(options));
            found.chain(admin::contradictions(options)).collect()
        }
        Scope::Endpoint => {
            let access = access::contradictions(options);
            workers::contradictions(options).into_iter().chain(access).collect()
        }
    };
    single.chain(combined).collect()
}

/// The name of the TOML tables that describe endpoints.
pub(crate) const ENDPOINT: &str = "endpoint";

fn options_of(scope: Scope) -> impl Iterator<Item = &'static OptionDef> {
    OPTIONS.iter().filter(move |option| option.scope == scope)
}

/// Returns the default of an option of the server, as the table describes it.
pub(crate) fn default_of(name: &str) -> &'static str {
    find(Scope::Server, name).map_or("", |option| option.default)
}

pub(crate) fn find(scope: Scope, name: &str) -> Option<&'static OptionDef> {
    options_of(scope).find(|option| option.name == name)
}

/// Arguments of an API's constructor that are not options.
const API_ARGUMENTS: [&str; 2] = ["spec", "mcp"];

fn unknown(scope: Scope, name: &str) -> String {
    let other = match scope {
        Scope::Server => Scope::Endpoint,
        Scope::Endpoint => Scope::Server,
    };
    if find(other, name).is_some() {
        return match scope {
            Scope::Server => format!(
                "`{name}` is an option of an endpoint, not of the server; give it to \
                 `LitServer(…)`, in TOML below an `[[endpoint]]`"
            ),
            Scope::Endpoint => format!(
                "`{name}` is an option of the server, not of an endpoint; give it to \
                 `run_servers(…)`, in TOML above the first `[[endpoint]]`"
            ),
        };
    }
    if scope == Scope::Endpoint && API_ARGUMENTS.contains(&name) {
        return format!(
            "`{name}` is an argument of the API, not an option; write `MyAPI({name}=…)`, in TOML the \
             name of such an instance: `api = \"models.py:my_api\"`"
        );
    }
    let hint = match closest(scope, name) {
        Some(known) => format!("did you mean `{known}`?"),
        None => {
            let mut names: Vec<_> = options_of(scope).map(|option| option.name).collect();
            names.sort_unstable();
            format!("valid options: {}", names.join(", "))
        }
    };
    format!("there is no option `{name}`; {hint}")
}

/// Returns the option that was probably meant: one that begins or ends with the same words, or else
/// the one with the most similar spelling.
pub(crate) fn closest(scope: Scope, name: &str) -> Option<&'static str> {
    let endpoints = (scope == Scope::Server).then_some(ENDPOINT);
    let known: Vec<_> = options_of(scope).map(|option| option.name).chain(endpoints).collect();
    let asked = words(name);
    let has_words = |known: &&&str| !asked.is_empty() && words(known).starts_with(&asked);
    let ends_with_words = |known: &&&str| !asked.is_empty() && words(known).ends_with(&asked);
    let likeness = |known: &&&str| strsim::normalized_damerau_levenshtein(known, name);
    let spelled_like = || {
        let closest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        closest.filter(|known| likeness(known) > 0.6)
    };
    let found = known.iter().find(has_words).or_else(|| known.iter().find(ends_with_words));
    found.or_else(spelled_like).copied()
}

/// Returns the words of a name in the singular, without words such as `num` and `count`.
fn words(name: &str) -> Vec<String> {
    let name = name.to_lowercase().replace('-', "_");
    let words = name.split('_').filter(|word| !["num", "n", "count", ""].contains(word));
    words.map(|word| word.strip_suffix('s').unwrap_or(word).to_owned()).collect()
}

fn fits(kind: Kind, value: &Value) -> bool {
    let is_index = |value: &Value| value.as_i64().is_some_and(|index| index >= 0);
    let are_indices = |list: &[Value]| !list.is_empty() && list.iter().all(is_index);
    let is_within = |seconds: f64| (0.0..=1e9).contains(&seconds);
    match kind {
        Kind::Integer(min, max) => value.as_i64().is_some_and(|n| (min..=max).contains(&n)),
        Kind::Seconds => value.as_f64().is_some_and(is_within),
        Kind::PositiveSeconds => value.as_f64().is_some_and(|s| s > 0.0 && is_within(s)),
        Kind::SecondsOrFalse => match value {
            Value::Bool(is_limited) => !is_limited,
            seconds => seconds.as_f64().is_some_and(is_within),
        },
        Kind::SecondsOr(words) => match value {
            Value::String(word) => words.contains(&word.as_str()),
            seconds => fits(Kind::PositiveSeconds, seconds),
        },
        Kind::CountOrFalse => match value {
            Value::Bool(is_limited) => !is_limited,
            count => count.as_i64().is_some_and(|count| count >= 1),
        },
        Kind::PositiveNumber => value.as_f64().is_some_and(|number| number > 0.0),
        Kind::Fraction => value.as_f64().is_some_and(|part| part > 0.0 && part <= 1.0),
        Kind::Share => value.as_f64().is_some_and(|part| (0.0..=1.0).contains(&part)),
        Kind::Path => is_path(value),
        Kind::PathOrFalse => *value == Value::Bool(false) || is_path(value),
        Kind::String => value.as_str().is_some_and(|text| !text.is_empty()),
        Kind::Name => is_name(value),
        Kind::Names => value.as_array().is_some_and(|names| names.iter().all(is_name)),
        Kind::Boolean => value.is_boolean(),
        Kind::Choice(words) => value.as_str().is_some_and(|word| words.contains(&word)),
        Kind::Devices => match value {
            Value::String(word) => word == "auto",
            Value::Array(indices) => are_indices(indices),
            count => count.as_i64().is_some_and(|count| count >= 1),
        },
        Kind::Bytes => bytes(value).is_some(),
        Kind::Cores => value.as_array().is_some_and(|cores| are_indices(cores)),
        Kind::Cost => value.as_str().is_some_and(|text| Cost::parse(text).is_some()),
        Kind::Texts => value.as_array().is_some_and(|list| {
            list.iter().all(|text| text.as_str().is_some_and(|t| !t.is_empty()))
        }),
        Kind::Codings => codings(value).is_some(),
        Kind::Origins => value.as_array().is_some_and(|list| list.iter().all(is_origin)),
        Kind::Hosts => value.as_array().is_some_and(|list| list.iter().all(is_host_pattern)),
        Kind::Networks => value.as_array().is_some_and(|list| {
            list.iter().all(|entry| entry.as_str().is_some_and(|text| network(text).is_some()))
        }),
        Kind::Strings => {
            value.as_object().is_some_and(|table| table.values().all(Value::is_string))
        }
        Kind::ApiKeys => value.as_object().is_some_and(|table| {
            table.values().all(|key| key.as_str().is_some_and(|key| ApiKey::parse(key).is_some()))
        }),
        Kind::Rate => value.as_str().is_some_and(|text| Rate::parse(text).is_some()),
        Kind::Table => value.is_object(),
        Kind::Steps => value.is_array(),
    }
}

/// Returns the codings that a value of the option names; `None` for an invalid value.
pub(crate) fn codings(value: &Value) -> Option<Vec<&'static str>> {
    match value {
        Value::Bool(true) => Some(CODINGS.to_vec()),
        Value::Bool(false) => Some(Vec::new()),
        Value::Array(names) => {
            let find = |name: &Value| CODINGS.into_iter().find(|coding| *name == **coding);
            names.iter().map(find).collect()
        }
        _ => None,
    }
}

fn is_path(value: &Value) -> bool {
    value.as_str().is_some_and(|path| {
        path.starts_with('/')
            && !path.contains(['?', '#', '{', '}', '*'])
            && !path.contains(char::is_control)
    })
}

/// Returns whether this is a pattern of hosts: without scheme, port and path, which are not part of
/// the comparison with `Host`.
fn is_host_pattern(value: &Value) -> bool {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_address = |name: &str| {
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        bare.unwrap_or(name).parse::<std::net::IpAddr>().is_ok()
    };
    let is_name = |name: &str| is_address(name) || (!name.is_empty() && name.bytes().all(is_known));
    value
        .as_str()
        .is_some_and(|text| text == "*" || is_name(text.strip_prefix("*.").unwrap_or(text)))
}

/// Returns whether this is an origin as browsers send it: scheme, host and optional port.
fn is_origin(value: &Value) -> bool {
    let is_host = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
    };
    value.as_str().is_some_and(|text| {
        text == "*"
            || text
                .split_once("://")
                .is_some_and(|(scheme, host)| ["http", "https"].contains(&scheme) && is_host(host))
    })
}

/// Returns the table in the form that the Python SDK reads.
pub fn table_json() -> String {
    let sorted = |option| {
        let mut row = row(option);
        row.sort_all_objects();
        format!("  {row}")
    };
    let rows: Vec<_> = OPTIONS.iter().map(sorted).collect();
    format!("[\n{}\n]\n", rows.join(",\n"))
}

fn row(option: &OptionDef) -> Value {
    let scope = match option.scope {
        Scope::Server => "server",
        Scope::Endpoint => "endpoint",
    };
    let kind = match option.kind {
        Kind::Integer(min, MANY) => json!({"type": "integer", "min": min}),
        Kind::Integer(min, max) => json!({"type": "integer", "min": min, "max": max}),
        Kind::Seconds => json!({"type": "seconds"}),
        Kind::PositiveSeconds => json!({"type": "seconds", "above_zero": true}),
        Kind::SecondsOrFalse => json!({"type": "seconds", "or_false": true}),
        Kind::SecondsOr(words) => json!({"type": "seconds", "above_zero": true, "or": words}),
        Kind::CountOrFalse => json!({"type": "integer", "min": 1, "or_false": true}),
        Kind::PositiveNumber => json!({"type": "number", "above_zero": true}),
        Kind::Fraction => json!({"type": "number", "above_zero": true, "max": 1}),
        Kind::Share => json!({"type": "number", "max": 1}),
        // The SDK must know the paths that endpoints may share.
        Kind::Path if option.name == "path" => {
            json!({"type": "path", "default": option.default, "shared": SHARED_PATH_ENDINGS})
        }
        Kind::Path => json!({"type": "path", "default": option.default}),
        Kind::PathOrFalse => json!({"type": "path", "default": option.default, "or_false": true}),
        Kind::String => json!({"type": "string"}),
        Kind::Name => json!({"type": "name"}),
        Kind::Names => json!({"type": "names"}),
        // The SDK must know the paths that are reserved while the option is on.
        Kind::Boolean if option.name == "openapi" => {
            json!({"type": "boolean", "default": true, "reserved": OPENAPI_PATHS})
        }
        Kind::Boolean if option.name == "admin_dashboard" => {
            json!({"type": "boolean", "default": false, "reserved": [admin::DASHBOARD]})
        }
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Choice(choices) => json!({"type": "choice", "choices": choices}),
        Kind::Devices => json!({"type": "devices"}),
        Kind::Bytes => json!({"type": "bytes"}),
        Kind::Cores => json!({"type": "cores"}),
        Kind::Cost => json!({"type": "cost"}),
        Kind::Texts => json!({"type": "texts"}),
        Kind::Codings => json!({"type": "codings", "choices": CODINGS}),
        Kind::Hosts => json!({"type": "hosts"}),
        Kind::Origins => json!({"type": "origins"}),
        Kind::Networks => json!({"type": "networks"}),
        Kind::Strings => json!({"type": "strings"}),
        Kind::ApiKeys => json!({"type": "api_keys"}),
        Kind::Rate => json!({"type": "rate"}),
        Kind::Table => json!({"type": "table"}),
        Kind::Steps => json!({"type": "steps"}),
    };
    let mut row = json!({"name": option.name, "scope": scope, "expects": option.expects});
    if let (Value::Object(row), Value::Object(kind)) = (&mut row, kind) {
        row.extend(kind);
    }
    row
}

/// The section of `docs/options.md` on relative paths.
const PATHS_MARKDOWN: &str = "\
## Relative paths

A relative path is relative to the directory of the file that contains it, wherever the server is started:
the TOML file, or the Python file that calls `LitServer(…)` or `run_servers(…)`, for `python server.py`
and `litplex serve server.py` alike. That directory is also the working directory of the workers
(`cwd`), so relative paths in `args` and in hooks refer to the same files. Code of the program outside of
hooks runs in the directory of the shell.

Paths on the command line are relative to the directory of the shell, and so are all paths in notebooks,
in Rust programs, and in programs written for LitServe (`import litserve`, `litplex.compat`), as with
LitServe itself. An interpreter (`python`) without a slash is searched on `PATH`.
";

/// Returns the text of `docs/options.md`.
pub fn table_markdown() -> String {
    let section = |title: &str, scope| {
        let rows: String = options_of(scope)
            .map(|o| format!("| `{}` | {} | {} | {} |\n", o.name, o.expects, o.default, o.doc))
            .collect();
        format!(
            "## {title}\n\n| option | value | default | description |\n|---|---|---|---|\n{rows}"
        )
    };
    format!(
        "# Options\n\nOptions have the same names in TOML, as Python keywords and as methods of the \
         Rust builder.\nThis page is generated from `crates/config/src/options.rs` (`make generate`).\
         \n\n{PATHS_MARKDOWN}\n{}\n{}",
        section("Options of the server", Scope::Server),
        section("Options of an endpoint", Scope::Endpoint),
    )
}
