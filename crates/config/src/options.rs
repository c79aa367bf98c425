use serde_json::{Map, Value, json};

use crate::access::{ApiKey, Rate};
use crate::read::{bytes, network};
use crate::{Cost, access, jwt, tls, workers};

/// What an option belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole server.
    Server,
    /// One endpoint.
    Endpoint,
}

/// What values an option takes.
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
    /// True or false.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `"auto"`, a count, or a list of indices.
    Devices,
    /// A number of bytes, or a text such as `2GB`.
    Bytes,
    /// A list of indices of cores.
    Cores,
    /// What a request costs; see [`Cost`].
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
    /// A table of holders and where their keys are; see [`ApiKey`].
    ApiKeys,
    /// A number of requests in a time; see [`Rate`].
    Rate,
    /// A table of anything.
    Table,
}

/// One option: the source of its key, keyword, check, message and documentation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptionDef {
    /// The key in TOML and the keyword in Python.
    pub name: &'static str,
    /// What it belongs to.
    pub scope: Scope,
    /// What values it takes.
    pub kind: Kind,
    /// What a value must be, as a message says it.
    pub expects: &'static str,
    /// The default, as the documentation says it.
    pub default: &'static str,
    /// One or two sentences.
    pub doc: &'static str,
}

const MANY: i64 = i64::MAX;

/// Where the endpoints are described: the document, a page that shows it, under two names, and the
/// files that the page needs.
pub const OPENAPI_PATHS: [&str; 7] = [
    "/openapi.json",
    "/docs",
    "/redoc",
    "/docs/favicon-32x32.png",
    "/docs/start.js",
    "/docs/swagger-ui-bundle.js",
    "/docs/swagger-ui.css",
];

/// The content codings that answers may be compressed with, the best first.
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

/// Every option there is.
pub const OPTIONS: &[OptionDef] = options! {
    Server "host": Kind::String, "an address such as \"127.0.0.1\" or \"0.0.0.0\"", "127.0.0.1",
        "The address to listen on. The default is reached from this machine only.";
    Server "port": Kind::Integer(0, 65_535), "an integer from 0 to 65535", "8000",
        "The port to listen on; 0 takes a free one.";
    Server "grace": Kind::Seconds, "a number of seconds, at least 0", "30",
        "How long requests in flight may take to finish once the server was asked to stop.";
    Server "max_buffered_bytes": Kind::Integer(1, MANY), "an integer of at least 1", "1073741824",
        "Bytes that the server holds for its clients at a time: bodies of requests as they arrive and what is made of them, and answers that wait for their clients. Requests beyond that are answered 503.";
    Server "healthcheck_path": Kind::Path, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters", "/health",
        "Where a GET tells whether every endpoint can serve: 200, or 503 and why.";
    Server "livez_path": Kind::Path, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters", "/livez",
        "Where a GET is answered 200 for as long as the server runs. Everybody may ask.";
    Server "readyz_path": Kind::Path, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters", "/readyz",
        "Where a GET tells whether every endpoint can serve: 200, or 503, and no more. Everybody may ask.";
    Server "info_path": Kind::Path, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters", "/info",
        "Where a GET describes the server and its endpoints.";
    Server "metrics_path": Kind::PathOrFalse, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters, or false", "/metrics",
        "Where a GET reads the metrics, as Prometheus does; false has no such route. A route of the program's own at this path takes its place.";
    Server "shutdown_path": Kind::Path, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters", "",
        "Where a POST that carries the key in LIT_SHUTDOWN_API_KEY (`Authorization: Bearer …`) stops the server, as SIGTERM does. Without it there is no such route.";
    Server "model_metadata": Kind::Table, "a table", "",
        "What `/info` shows under `model`.";
    Server "openapi": Kind::Boolean, "true or false", "true",
        "Whether `/openapi.json` describes the endpoints, and `/docs` and `/redoc` show it.";
    Server "compression": Kind::Codings, "true, false, or a list of \"zstd\", \"br\" and \"gzip\"", "false",
        "Compresses streams, and answers of 1000 bytes and more, for clients that accept it (`Accept-Encoding`): with all three, or with those named, the preferred first. Each piece of a stream goes out at once. What is compressed already, such as images, is left as it is.";
    Server "api_keys": Kind::ApiKeys, "a table of names, each with \"env:NAME\" or \"sha256:…\"", "",
        "Who may call: names, each with the environment variable that holds its key, or the SHA-256 of the key. Callers send it as `X-API-Key` or `Authorization: Bearer …`. Endpoints with keys of their own take those instead. `litplex key` makes keys. Without any, everybody may.";
    Server "api_keys_file": Kind::String, "the path of a file", "",
        "A file with more keys: lines of a name and `sha256:…`, as `litplex key` prints them. It is read again when it changes.";
    Server "jwt_issuer": Kind::String, "the issuer of tokens, such as \"https://id.example.org\"", "",
        "With `jwt_audience` and `jwt_jwks`: callers may send a JSON Web Token (`Authorization: Bearer …`) that this issuer has signed, its `iss`. Where there are keys too, either lets in.";
    Server "jwt_audience": Kind::String, "the audience of tokens, such as \"models\"", "",
        "With `jwt_issuer`: what the `aud` of a token must be, or have.";
    Server "jwt_jwks": Kind::String, "the path of a file, or a URL that begins with \"https://\" or \"http://\"", "",
        "With `jwt_issuer`: its public keys, as a JSON Web Key Set. A file is read again when it changes; a URL every five minutes, and when a token is signed with a key that is not known.";
    Server "jwt_ca": Kind::String, "a PEM file with certificates, or its text", "those that browsers know",
        "With a `jwt_jwks` that begins with `https://`: whose certificate the issuer must have, one that one of these has signed.";
    Server "request_id": Kind::Boolean, "true or false", "false",
        "Whether each request has an id: its own `X-Request-Id`, or a new one. Answers, the access log, the context of hooks, and what hooks print have it.";
    Server "server_timing": Kind::Boolean, "true or false", "false",
        "Whether each answer says in the header `Server-Timing` how many milliseconds passed from the request's headers to its own: `total;dur=12.345`.";
    Server "access_log": Kind::String, "the path of a file, or \"-\" for standard output", "",
        "Where a line is written for each request: JSON with time, client, holder of the key, method, path, status, bytes, duration in seconds and id. `-` on a terminal gives a short line for people instead. A file that is moved away is made anew.";
    Server "otlp_endpoint": Kind::String, "the address of a collector such as \"http://127.0.0.1:4318\"", "",
        "Where the traces of requests are sent, as OTLP over HTTP. Without it: where OTEL_EXPORTER_OTLP_ENDPOINT says, and if that is not set, nowhere.";
    Server "trace_ratio": Kind::Share, "a number from 0 to 1", "1",
        "The share of requests that are traced, of those that are not part of a trace already. What a client has decided in `traceparent` holds.";
    Server "cors_origins": Kind::Origins, "a list of origins such as \"https://app.example.org\", or of \"*\"", "[]",
        "Pages of which origins may call the server from a browser.";
    Server "allowed_hosts": Kind::Hosts, "a list of names such as \"models.example.com\", \"*.example.com\", or of \"*\"", "any; on loopback, where no key is asked for, those that no web site can have",
        "Under which names the server may be asked (`Host`); requests under others are answered 403. Without it, where the server listens on loopback and what is asked for needs no key: addresses, `localhost`, `host`, and names without a dot.";
    Server "trusted_proxies": Kind::Networks, "a list of addresses and networks such as \"10.0.0.0/8\"", "[]",
        "Proxies that are believed: where a request comes from one of them, the caller's address is the last in `X-Forwarded-For` that is none of them, and `X-Forwarded-Proto` says how it was asked. Limits, the access log and the program's app see that address. From others those headers mean nothing.";
    Server "app_heartbeat": Kind::PositiveSeconds, "a number of seconds greater than 0", "5",
        "How often the app host, where there is one (middlewares, `authorize`, `server.app`), must show that its loop runs; after three of them without an answer it is killed and started again.";
    Server "http_threads": Kind::Integer(1, 256), "an integer from 1 to 256", "half the cores",
        "Threads that speak HTTP.";
    Server "max_connections": Kind::Integer(1, MANY), "an integer of at least 1", "three quarters of the file descriptors it may have beside those of its workers, a quarter with an app host",
        "Connections that the server holds at a time; more clients wait until one ends.";
    Server "keep_alive_timeout": Kind::PositiveSeconds, "a number of seconds greater than 0", "75",
        "How long a connection may be idle between two requests. Where a load balancer or proxy keeps connections to the server, this must be longer than it keeps them.";
    Server "tls_cert": Kind::String, "a PEM file with a certificate, or its text", "",
        "With `tls_key`: serves HTTPS with this certificate; those between it and one that clients know follow it in the file. Files are read again when they change; connections stay.";
    Server "tls_key": Kind::String, "a PEM file with a private key, or its text", "",
        "With `tls_cert`: its private key, without a password.";
    Server "tls_client_ca": Kind::String, "a PEM file with certificates, or its text", "",
        "With `tls_cert`: clients must have a certificate that one of these has signed, itself or through others.";

    Endpoint "path": Kind::Path, "a path that begins with \"/\", without \"?\", \"#\", \"{\", \"*\" or control characters", "/predict",
        "Where the endpoint is served.";
    Endpoint "api": Kind::String, "a name such as \"ocr.py:OcrAPI\" or \"package.module:OcrAPI\"", "",
        "The `LitAPI` class or instance.";
    Endpoint "args": Kind::Table, "a table of constructor arguments", "{}",
        "Constructor arguments for the class that `api` names.";
    Endpoint "python": Kind::String, "the path of a Python interpreter", "the one that runs the program",
        "The interpreter of the workers, usually one of a virtual environment. It needs nothing installed for litplex.";
    Endpoint "requirements": Kind::String, "the path of a requirements file", "none",
        "What the workers need, as pip reads it: they run in a virtual environment of `python` that has it, made at the first start (with `uv` where it is there) and kept in the user's cache until what they ask for changes. `litplex env` shows and removes such environments.";
    Endpoint "env": Kind::Strings, "a table of texts", "{}",
        "Environment variables to set in the workers.";
    Endpoint "cwd": Kind::String, "the path of a directory", "the directory of the file that describes the endpoint",
        "The working directory of the workers: relative paths in `args` and in hooks are relative to it.";
    Endpoint "pythonpath": Kind::Texts, "a list of directories", "[]",
        "Where the workers look for modules first.";
    Endpoint "log_level": Kind::Choice(&["debug", "info", "warning", "error"]), "one of \"debug\", \"info\", \"warning\", \"error\"", "info, and Python's own",
        "The least that litplex says about the endpoint, and the level of `logging` in the workers where the program sets none.";
    Endpoint "log_file": Kind::String, "the path of a file", "none",
        "Where what the workers print goes, and what litplex says about the endpoint, instead of standard output and error. Moved away, it is made anew.";
    Endpoint "accelerator": Kind::Choice(&["auto", "cpu", "cuda", "gpu", "mps"]), "one of \"auto\", \"cpu\", \"cuda\", \"gpu\", \"mps\"", "auto",
        "What the workers compute on; `auto` takes the GPUs that are there, and the CPU otherwise.";
    Endpoint "devices": Kind::Devices, "\"auto\", an integer of at least 1, or a list of device indices", "auto",
        "How many devices, or which.";
    Endpoint "workers_per_device": Kind::Integer(1, 1024), "an integer from 1 to 1024", "1",
        "Copies of the model on each device.";
    Endpoint "min_workers": Kind::Integer(0, 1024), "an integer from 0 to 1024", "",
        "With `max_workers`, instead of `workers_per_device`: the fewest workers; more are added and removed as load moves.";
    Endpoint "max_workers": Kind::Integer(1, 1024), "an integer from 1 to 1024", "",
        "With `min_workers`: the most workers that are added as load moves.";
    Endpoint "threads": Kind::Integer(1, 1024), "an integer from 1 to 1024", "a fair share of the cores",
        "CPU threads of each worker: OMP_NUM_THREADS and its like, where nothing else sets them, and `self.threads`. The default divides the cores by all workers of all endpoints, or those of `cpu_affinity` by the endpoint's own.";
    Endpoint "cpu_affinity": Kind::Cores, "a list of core numbers", "all",
        "The cores that the workers run on.";
    Endpoint "memory_limit": Kind::Bytes, "a number of bytes or a text such as \"2GB\" or \"512MiB\"", "none",
        "Resident memory of each worker, together with what it started; one that uses more is killed and replaced.";
    Endpoint "gpu_memory_fraction": Kind::Fraction, "a number above 0 and at most 1", "no limit",
        "The share of its GPU's memory that each worker may take, applied through PyTorch, JAX or TensorFlow, and `onnxruntime_options()`. The shares on one GPU may add up to 1.";
    Endpoint "isolate_devices": Kind::Boolean, "true or false", "false",
        "Whether a worker sees no GPU but its own, which is then `cuda:0` (CUDA_VISIBLE_DEVICES).";
    Endpoint "max_concurrency": Kind::Integer(1, 65_536), "an integer from 1 to 65536", "64 for `async` hooks, else 1",
        "Requests (or batches) that one worker computes at the same time; above 1 for `async` hooks.";
    Endpoint "max_batch_size": Kind::Integer(1, 65_536), "an integer from 1 to 65536", "1",
        "The most requests in one call of `predict`.";
    Endpoint "batch_timeout": Kind::Seconds, "a number of seconds, at least 0", "0",
        "How long a batch may wait to fill, from the arrival of its first request.";
    Endpoint "cost": Kind::Cost, "a field and its measure such as \"text:length\", \"text:words\" or \"tokens:value\", or \"body:bytes\"", "",
        "What a request costs in a batch, so that the batcher puts like with like: the length, the words or the value of a field of the JSON body (dots reach into objects), or the size of the body. A Python model may have a `cost` hook instead.";
    Endpoint "max_batch_cost": Kind::PositiveNumber, "a number greater than 0", "",
        "The most that a batch may cost: its size times the cost of its most expensive request.";
    Endpoint "retry_batch_singly": Kind::Boolean, "true or false", "as `idempotent`",
        "Whether the items of a batch that raised are computed again one by one, so that one bad input costs only itself.";
    Endpoint "stream": Kind::Boolean, "true or false", "false",
        "Whether `predict` is a generator whose values are sent as they come.";
    Endpoint "timeout": Kind::PositiveSeconds, "a number of seconds greater than 0", "30",
        "The time budget of a request, from its arrival to the last byte of its answer; for a stream, to its first chunk. A client may shorten it with the header `X-Request-Timeout`, in seconds.";
    Endpoint "chunk_timeout": Kind::PositiveSeconds, "a number of seconds greater than 0", "as `timeout`",
        "The time budget of a stream between two chunks.";
    Endpoint "ping_interval": Kind::PositiveSeconds, "a number of seconds greater than 0", "none",
        "After how long a silence an event stream, also of a chat, is sent a comment (`: ping`), so that proxies do not close it. It begins with the first chunk.";
    Endpoint "queue_timeout": Kind::PositiveSeconds, "a number of seconds greater than 0", "as `timeout`",
        "How long a request may wait for a worker; then it is answered 504. Once a worker has begun with it, `timeout` alone counts.";
    Endpoint "kill_after": Kind::SecondsOrFalse, "a number of seconds, at least 0, or false", "10",
        "Seconds past the endpoint's `timeout` (of a stream, past its `chunk_timeout`) after which a worker that still computes a request is killed and replaced; false never does. A client's `X-Request-Timeout` does not count. While the server stops, what nobody waits for is ended this many seconds after it was given up.";
    Endpoint "heartbeat": Kind::PositiveSeconds, "a number of seconds greater than 0", "2",
        "How often a worker's interpreter must show that it runs; one that is silent for three of them is killed and replaced. Where it is not set, a worker that computes has until `timeout` and `kill_after` instead: one call into native code may hold the interpreter for as long as a request may take. Where it is set, it holds while the worker computes, too; large bodies that are being decoded count as life.";
    Endpoint "idempotent": Kind::Boolean, "true or false", "true, false for streams",
        "Whether a request whose worker died may be computed again by another.";
    Endpoint "max_queue": Kind::Integer(1, MANY), "an integer of at least 1", "what the workers can answer within `timeout`",
        "How many requests may wait; further ones are answered 503 at once.";
    Endpoint "api_keys": Kind::ApiKeys, "a table of names, each with \"env:NAME\" or \"sha256:…\"", "those of the server",
        "Who may call this endpoint, instead of those who may call the server.";
    Endpoint "api_keys_file": Kind::String, "the path of a file", "",
        "A file with more keys of this endpoint.";
    Endpoint "jwt_scopes": Kind::Texts, "a list of scopes", "[]",
        "The scopes that a token must have to call this endpoint, all of them, in its `scope` or `scp`. An endpoint with keys of its own takes tokens only where it has this.";
    Endpoint "rate_limit": Kind::Rate, "a number of requests in a time, such as \"10/s\", \"600/min\" or \"1000/h\"", "",
        "How many requests each caller may make: the holder of a key, the `sub` of a token, or an address where keys are not asked for. Further ones are answered 429 with `Retry-After`.";
    Endpoint "rate_burst": Kind::Integer(1, 1_000_000), "an integer from 1 to 1000000", "all of `rate_limit`",
        "How many of them may come at once.";
    Endpoint "max_requests_per_caller": Kind::Integer(1, MANY), "an integer of at least 1", "",
        "How many requests of one caller may be in flight; further ones are answered 429.";
    Endpoint "max_body_bytes": Kind::Integer(1, 1 << 29), "an integer from 1 to 536870912", "67108864",
        "The largest request body; larger ones are answered 413.";
};

/// Returns a sentence for each option that is unknown, has a value that it cannot have, or
/// contradicts another.
pub fn mistakes(scope: Scope, options: &Map<String, Value>) -> Vec<String> {
    let of_one = options.iter().filter_map(|(name, value)| match find(scope, name) {
        None => Some(unknown(scope, name)),
        Some(option) if fits(option.kind, value) => None,
        // What somebody wrote there may be a key.
        Some(option) if option.kind == Kind::ApiKeys => {
            Some(format!("`{name}` must be {}; `litplex key` makes such a line", option.expects))
        }
        Some(option) => Some(format!("`{name}` must be {}, not {value}", option.expects)),
    });
    let of_several: Vec<_> = match scope {
        Scope::Server => {
            tls::contradictions(options).into_iter().chain(jwt::contradictions(options)).collect()
        }
        Scope::Endpoint => {
            let access = access::contradictions(options);
            workers::contradictions(options).into_iter().chain(access).collect()
        }
    };
    of_one.chain(of_several).collect()
}

/// The tables of a TOML file that describe endpoints.
pub(crate) const ENDPOINT: &str = "endpoint";

fn of_scope(scope: Scope) -> impl Iterator<Item = &'static OptionDef> {
    OPTIONS.iter().filter(move |option| option.scope == scope)
}

/// Returns the default of an option of the server, as it is given.
pub(crate) fn default_of(name: &str) -> &'static str {
    find(Scope::Server, name).map_or("", |option| option.default)
}

fn find(scope: Scope, name: &str) -> Option<&'static OptionDef> {
    of_scope(scope).find(|option| option.name == name)
}

/// What the constructor of an API takes and no option says.
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
            let mut names: Vec<_> = of_scope(scope).map(|option| option.name).collect();
            names.sort_unstable();
            format!("known are: {}", names.join(", "))
        }
    };
    format!("there is no option `{name}`; {hint}")
}

/// Returns the name that somebody may have meant: one that begins or ends with the same words, or
/// else one that is spelled much like it.
pub(crate) fn closest(scope: Scope, name: &str) -> Option<&'static str> {
    let endpoints = (scope == Scope::Server).then_some(ENDPOINT);
    let known: Vec<_> = of_scope(scope).map(|option| option.name).chain(endpoints).collect();
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

/// Returns the words of a name in the singular, without those that only say that it is a number.
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
        Kind::PositiveNumber => value.as_f64().is_some_and(|number| number > 0.0),
        Kind::Fraction => value.as_f64().is_some_and(|part| part > 0.0 && part <= 1.0),
        Kind::Share => value.as_f64().is_some_and(|part| (0.0..=1.0).contains(&part)),
        Kind::Path => is_path(value),
        Kind::PathOrFalse => *value == Value::Bool(false) || is_path(value),
        Kind::String => value.as_str().is_some_and(|text| !text.is_empty()),
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
    }
}

/// Returns the codings that an option names, if it is one.
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

/// Without a scheme, a port and a path, which a `Host` is not compared with.
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

/// As browsers send it: a scheme, a host and a port where it has one, and nothing after it.
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

/// Returns the table as the Python SDK reads it.
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
        Kind::PositiveNumber => json!({"type": "number", "above_zero": true}),
        Kind::Fraction => json!({"type": "number", "above_zero": true, "max": 1}),
        Kind::Share => json!({"type": "number", "max": 1}),
        Kind::Path => json!({"type": "path", "default": option.default}),
        Kind::PathOrFalse => json!({"type": "path", "default": option.default, "or_false": true}),
        Kind::String => json!({"type": "string"}),
        // The SDK must know which paths are taken while it is on.
        Kind::Boolean if option.name == "openapi" => {
            json!({"type": "boolean", "reserved": OPENAPI_PATHS})
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
    };
    let mut row = json!({"name": option.name, "scope": scope, "expects": option.expects});
    if let (Value::Object(row), Value::Object(kind)) = (&mut row, kind) {
        row.extend(kind);
    }
    row
}

/// What paths in options are relative to, as `docs/options.md` says it.
const PATHS_MARKDOWN: &str = "\
## Relative paths

A relative path is relative to the directory of the file that says it, wherever the server is started:
the TOML file, or the Python file that calls `LitServer(…)` or `run_servers(…)`, for `python server.py`
and `litplex serve server.py` alike. That directory is also the working directory of the workers
(`cwd`), so relative paths in `args` and those that hooks open mean the same. The code of the program
outside of hooks runs in the directory of the shell.

Relative to the directory of the shell are paths on the command line, and all paths in notebooks, Rust
programs, and programs written for LitServe (`import litserve`, `litplex.compat`), as there.
A `python` without a slash is looked up on `PATH`.
";

/// Returns the table as `docs/options.md` shows it.
pub fn table_markdown() -> String {
    let section = |title: &str, scope| {
        let rows: String = of_scope(scope)
            .map(|o| format!("| `{}` | {} | {} | {} |\n", o.name, o.expects, o.default, o.doc))
            .collect();
        format!("## {title}\n\n| option | value | default | |\n|---|---|---|---|\n{rows}")
    };
    format!(
        "# Options\n\nThe same names in TOML, as Python keywords and as methods of the Rust \
         builder.\nThis page is generated from `crates/config/src/options.rs` (`make generate`).\
         \n\n{PATHS_MARKDOWN}\n{}\n{}",
        section("Of the server", Scope::Server),
        section("Of an endpoint", Scope::Endpoint),
    )
}
