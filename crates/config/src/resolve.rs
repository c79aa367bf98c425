//! From a raw configuration to a checked [`Program`] with defaults; all errors are reported at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::admin::{DASHBOARD, DEFAULT_PORT, has_dashboard};
use crate::endpoint::{directory_of, endpoint_problems, resolve_endpoint};
use crate::names::{SHARED_PATH_ENDINGS, can_be_shared, identities, name_problems};
use crate::options::{
    ENDPOINT, OPENAPI_PATHS, PROTOCOL_PATHS, Scope, closest, codings, default_of, problems,
};
use crate::pipeline;
use crate::read::{boolean, bytes, integer, network, number, seconds, text, texts};
use crate::{AdminAccess, ApiKeys, AppHost, Endpoint, Jwt, Presentation, TlsFiles, jwt, tls};

const DEFAULT_MAX_BUFFERED_BYTES: usize = 1 << 30;
const DEFAULT_RECENT_REQUESTS: usize = 200;
const DEFAULT_APP_HEARTBEAT: Duration = Duration::from_secs(5);

const DEFAULT_GRACE: Duration = Duration::from_secs(30);

const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(75);

/// The source of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file; paths in it are relative to its directory.
    File(PathBuf),
    /// The Python SDK. It may say how instances reach their workers, and gives the `directory` of
    /// the server and of each endpoint to which their paths are relative.
    Sdk,
    /// The builder of the Rust API, whose endpoints may have no `api`. Paths are relative to the
    /// working directory.
    Builder,
}

/// A checked configuration with its defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 for a free one.
    pub port: u16,
    /// The TLS configuration, if the server speaks TLS.
    pub tls: Option<TlsFiles>,
    /// The time that requests in flight have once the server stops.
    pub grace: Duration,
    /// The number of HTTP threads, if it is set.
    pub http_threads: Option<usize>,
    /// The workers that compute at the same time on a device which several endpoints want.
    pub device_concurrency: DeviceConcurrency,
    /// The limit of connections; `None` for as many as the system allows.
    pub max_connections: Option<usize>,
    /// The time that a connection may be idle between two requests.
    pub keep_alive_timeout: Duration,
    /// The bytes of memory that all workers together may have; `None`: what the machine has, less a reserve.
    pub memory_budget: Option<u64>,
    /// The bytes of memory of each GPU that all workers together may have.
    pub gpu_memory_budget: Option<u64>,
    /// The memory budget of requests and responses, in bytes.
    pub max_buffered_bytes: usize,
    /// The paths of the built-in routes.
    pub routes: BuiltinRoutes,
    /// The keys of the server; `None` if it needs none.
    pub api_keys: Option<ApiKeys>,
    /// The ways to the admin API beside the private socket, if there are any.
    pub admin: Option<AdminAccess>,
    /// The accepted tokens, if any.
    pub jwt: Option<Jwt>,
    /// Whether each request has an id.
    pub request_id: bool,
    /// The access log, if any; `-` is standard output.
    pub access_log: Option<PathBuf>,
    /// The number of last requests of each endpoint that are remembered.
    pub recent_requests: usize,
    /// The number of bytes of each body that are remembered with a request.
    pub keep_bodies: usize,
    /// The collector of traces, if the configuration sets it.
    pub otlp_endpoint: Option<String>,
    /// The share of requests that are traced, if it is set.
    pub trace_ratio: Option<f64>,
    /// The origins that CORS allows, or `*`.
    pub cors_origins: Vec<String>,
    /// The names under which the server may be reached; empty if not set.
    pub allowed_hosts: Vec<String>,
    /// The proxies whose `X-Forwarded-…` headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// The interval at which the app host must show that it runs.
    pub app_heartbeat: Duration,
    /// The content codings for responses to clients that accept them, the preferred first.
    pub compression: Vec<&'static str>,
    /// Whether each response has `Server-Timing`.
    pub server_timing: bool,
    /// The value of `model` on the info page.
    pub model_metadata: Value,
    /// The presentation of the server, which only the SDK sets.
    pub presentation: Presentation,
    /// The directory of the Python package of this program, if the SDK gives it.
    pub sdk: Option<PathBuf>,
    /// The flags of the program's interpreter, such as `-O`, with which workers start too.
    pub python_flags: Vec<String>,
    /// The app host, if the program needs one.
    pub app_host: Option<AppHost>,
    /// The endpoints, in the order in which they were given.
    pub endpoints: Vec<Endpoint>,
}

/// The limit of the workers that compute at the same time on a device which several endpoints want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceConcurrency {
    /// As many as the cores can compute at full speed, and no limit for GPUs.
    Measured,
    /// This number.
    Workers(usize),
    /// No limit.
    #[default]
    Unlimited,
}

impl DeviceConcurrency {
    /// Reads the option; without it, weights ask for turns.
    fn of(options: &Map<String, Value>, has_weights: bool) -> Self {
        match (boolean(options, "device_concurrency"), integer(options, "device_concurrency")) {
            (Some(_), _) => Self::Unlimited,
            (None, Some(workers)) => Self::Workers(workers),
            (None, None) if has_weights => Self::Measured,
            (None, None) => Self::Unlimited,
        }
    }
}

impl fmt::Display for DeviceConcurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Measured => f.write_str("as many as the cores can compute"),
            Self::Workers(workers) => workers.fmt(f),
            Self::Unlimited => f.write_str("false"),
        }
    }
}

/// The paths of the built-in routes, besides `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltinRoutes {
    /// The health check, with reasons.
    pub health: String,
    /// The liveness probe.
    pub livez: String,
    /// The readiness probe.
    pub readyz: String,
    /// The description of the server.
    pub info: String,
    /// The metrics, if they are exported.
    pub metrics: Option<String>,
    /// The route that stops the server, if there is one.
    pub shutdown: Option<String>,
    /// Whether the routes of `OPENAPI_PATHS` exist.
    pub openapi: bool,
    /// Whether `/dashboard` and what is below it belong to the dashboard.
    pub dashboard: bool,
}

impl BuiltinRoutes {
    fn resolve(raw: &Map<String, Value>) -> Self {
        let path = |name| text(raw, name).unwrap_or_else(|| default_of(name)).to_owned();
        Self {
            health: path("healthcheck_path"),
            livez: path("livez_path"),
            readyz: path("readyz_path"),
            info: path("info_path"),
            metrics: match boolean(raw, "metrics_path") {
                Some(_) => None,
                None => Some(path("metrics_path")),
            },
            shutdown: text(raw, "shutdown_path").map(str::to_owned),
            openapi: boolean(raw, "openapi").unwrap_or(true),
            dashboard: has_dashboard(raw),
        }
    }

    fn contains(&self, path: &str) -> bool {
        path == "/"
            || path == self.health
            || [&self.livez, &self.readyz, &self.info].contains(&&path.to_owned())
            || self.metrics.as_deref() == Some(path)
            || self.shutdown.as_deref() == Some(path)
            || PROTOCOL_PATHS.contains(&path)
            || (self.openapi && OPENAPI_PATHS.contains(&path))
            || (self.dashboard && path == DASHBOARD)
    }

    /// Returns whether a path is below that of the dashboard.
    fn is_in_dashboard(&self, path: &str) -> bool {
        let below = path.strip_prefix(DASHBOARD);
        self.dashboard && below.is_some_and(|below| below.starts_with('/'))
    }

    /// Returns a sentence for each route whose path belongs to the dashboard.
    fn problems(&self) -> Vec<String> {
        let Self { health, livez, readyz, info, metrics, shutdown, .. } = self;
        let named = [
            ("healthcheck_path", Some(health)),
            ("livez_path", Some(livez)),
            ("readyz_path", Some(readyz)),
            ("info_path", Some(info)),
            ("metrics_path", metrics.as_ref()),
            ("shutdown_path", shutdown.as_ref()),
        ];
        let taken =
            |path: &String| self.dashboard && (path == DASHBOARD || self.is_in_dashboard(path));
        let taken = named.into_iter().filter(|(_, path)| path.is_some_and(taken));
        let problem =
            |name| format!("server: `{name}` is a path of `admin_dashboard`; choose another");
        taken.map(|(name, _)| problem(name)).collect()
    }
}

/// All errors of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => f.write_str(one),
            many => {
                write!(f, "{} errors:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}

/// Reads TOML.
///
/// # Errors
/// The text is not TOML (the message shows the place), or it has values that JSON lacks and that no
/// option takes: dates, `inf` and `nan`.
pub fn parse_toml(text: &str) -> Result<Map<String, Value>, ConfigError> {
    let table: toml::Table = toml::from_str(text)
        .map_err(|error| ConfigError(vec![error.to_string().trim_end().into()]))?;
    let mut problems = Vec::new();
    let table = json_table(table, "", &mut problems);
    if problems.is_empty() { Ok(table) } else { Err(ConfigError(problems)) }
}

fn json_table(table: toml::Table, place: &str, problems: &mut Vec<String>) -> Map<String, Value> {
    let dot = if place.is_empty() { "" } else { "." };
    let convert = |(key, value): (String, toml::Value)| {
        let value = json_value(value, &format!("{place}{dot}{key}"), problems);
        (key, value)
    };
    table.into_iter().map(convert).collect()
}

fn json_value(value: toml::Value, place: &str, problems: &mut Vec<String>) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Boolean(boolean) => boolean.into(),
        toml::Value::Float(number) if number.is_finite() => number.into(),
        toml::Value::Float(number) => {
            problems.push(format!("`{place}` must be a finite number, not {number}"));
            Value::Null
        }
        toml::Value::Datetime(date) => {
            problems.push(format!("`{place}` must be a text, not a date; write \"{date}\""));
            Value::Null
        }
        toml::Value::Array(items) => {
            let items = items.into_iter().enumerate();
            items.map(|(at, item)| json_value(item, &format!("{place}[{at}]"), problems)).collect()
        }
        toml::Value::Table(table) => json_table(table, place, problems).into(),
    }
}

/// Reads JSON, as the SDK writes it.
///
/// # Errors
/// The text is not a JSON object.
pub fn parse_json(text: &str) -> Result<Map<String, Value>, ConfigError> {
    serde_json::from_str(text).map_err(|error| ConfigError(vec![error.to_string()]))
}

fn take_texts(raw: &mut Map<String, Value>, name: &str) -> Vec<String> {
    let found = texts(raw, name).map(str::to_owned).collect();
    raw.remove(name);
    found
}

/// Checks a raw configuration and fills in the defaults.
///
/// # Errors
/// All errors at once, each with its endpoint.
pub fn resolve(mut raw: Map<String, Value>, origin: &Origin) -> Result<Program, ConfigError> {
    let endpoints = take_endpoints(&mut raw)?;
    let directory = directory_of(&raw, origin);
    if *origin == Origin::Sdk {
        raw.remove("directory");
    }
    let (sdk, presentation, app_host) = match origin {
        Origin::Sdk => (raw.remove("sdk"), Presentation::take(&mut raw), AppHost::take(&mut raw)),
        _ => (None, Ok(Presentation::default()), None),
    };
    let presentation = presentation.map_err(|error| ConfigError(vec![error]))?;
    let python_flags = match origin {
        Origin::Sdk => take_texts(&mut raw, "python_flags"),
        _ => Vec::new(),
    };
    let routes = BuiltinRoutes::resolve(&raw);
    let mut found: Vec<String> = problems(Scope::Server, &raw)
        .into_iter()
        .map(|problem| format!("server: {problem}"))
        .collect();
    for (number, endpoint) in endpoints.iter().enumerate() {
        found.extend(endpoint_problems(endpoint, number, origin));
    }
    found.extend(jwt::scopes_without_tokens(&raw, &endpoints));
    found.extend(routes.problems());
    found.extend(path_problems(&endpoints, &routes));
    found.extend(name_problems(&endpoints));
    found.extend(pipeline::problems(&endpoints, &identities(&endpoints)));
    if !found.is_empty() {
        return Err(ConfigError(found));
    }
    Ok(Program {
        host: text(&raw, "host").unwrap_or("127.0.0.1").to_owned(),
        port: integer(&raw, "port").map_or(DEFAULT_PORT, |port| port as u16),
        tls: tls::files(&raw, &directory),
        grace: seconds(&raw, "grace").unwrap_or(DEFAULT_GRACE),
        http_threads: integer(&raw, "http_threads"),
        device_concurrency: DeviceConcurrency::of(
            &raw,
            endpoints.iter().any(|endpoint| endpoint.contains_key("device_weight")),
        ),
        max_connections: integer(&raw, "max_connections"),
        memory_budget: raw.get("memory_budget").and_then(bytes),
        gpu_memory_budget: raw.get("gpu_memory_budget").and_then(bytes),
        keep_alive_timeout: seconds(&raw, "keep_alive_timeout").unwrap_or(DEFAULT_KEEP_ALIVE),
        max_buffered_bytes: integer(&raw, "max_buffered_bytes")
            .unwrap_or(DEFAULT_MAX_BUFFERED_BYTES),
        routes,
        api_keys: ApiKeys::of(&raw, "api_keys", &directory),
        admin: AdminAccess::of(&raw, &directory),
        jwt: Jwt::of(&raw, &directory),
        request_id: boolean(&raw, "request_id").unwrap_or(false),
        access_log: text(&raw, "access_log").map(|file| match file {
            "-" => file.into(),
            file => directory.join(file),
        }),
        recent_requests: integer(&raw, "recent_requests").unwrap_or(DEFAULT_RECENT_REQUESTS),
        keep_bodies: integer(&raw, "keep_bodies").unwrap_or(0),
        otlp_endpoint: text(&raw, "otlp_endpoint").map(str::to_owned),
        trace_ratio: number(&raw, "trace_ratio"),
        app_heartbeat: seconds(&raw, "app_heartbeat").unwrap_or(DEFAULT_APP_HEARTBEAT),
        cors_origins: texts(&raw, "cors_origins").map(str::to_owned).collect(),
        allowed_hosts: texts(&raw, "allowed_hosts").map(str::to_owned).collect(),
        trusted_proxies: texts(&raw, "trusted_proxies").filter_map(network).collect(),
        compression: raw.get("compression").and_then(codings).unwrap_or_default(),
        server_timing: boolean(&raw, "server_timing").unwrap_or(false),
        model_metadata: raw.remove("model_metadata").unwrap_or_default(),
        presentation,
        python_flags,
        sdk: sdk.and_then(|sdk| sdk.as_str().map(PathBuf::from)),
        app_host,
        endpoints: endpoints
            .iter()
            .zip(identities(&endpoints))
            .map(|(endpoint, identity)| resolve_endpoint(endpoint, identity, origin))
            .collect(),
    })
}

fn take_endpoints(raw: &mut Map<String, Value>) -> Result<Vec<Map<String, Value>>, ConfigError> {
    let found = raw.remove(ENDPOINT);
    let misspelled = raw.iter().find(|(name, value)| {
        closest(Scope::Server, name) == Some(ENDPOINT) && (value.is_array() || value.is_object())
    });
    let hint = match (&found, misspelled) {
        (Some(Value::Object(_)), _) => ": `[endpoint]` must be `[[endpoint]]`".to_owned(),
        (None, Some((name, _))) => format!(": `[[{name}]]` must be `[[endpoint]]`"),
        _ => "; write at least one `[[endpoint]]` with a `path` and an `api`".to_owned(),
    };
    let wrong = || ConfigError(vec![format!("there is no endpoint{hint}")]);
    let Some(Value::Array(tables)) = found else { return Err(wrong()) };
    let tables: Vec<_> = tables
        .into_iter()
        .filter_map(|table| if let Value::Object(table) = table { Some(table) } else { None })
        .collect();
    if tables.is_empty() { Err(wrong()) } else { Ok(tables) }
}

fn path_problems(endpoints: &[Map<String, Value>], routes: &BuiltinRoutes) -> Vec<String> {
    let mut count = BTreeMap::<&str, usize>::new();
    for path in endpoints.iter().filter_map(|endpoint| text(endpoint, "path")) {
        *count.entry(path).or_default() += 1;
    }
    let problem = |(path, times): (&str, usize)| {
        if routes.contains(path) {
            Some(format!(
                "endpoint `{path}`: this path is already in use by a built-in route; choose another"
            ))
        } else if routes.is_in_dashboard(path) {
            Some(format!(
                "endpoint `{path}`: paths below `{DASHBOARD}` belong to `admin_dashboard`; choose another"
            ))
        } else if times > 1 && !can_be_shared(path) {
            let shared = SHARED_PATH_ENDINGS.map(|ending| format!("`/v1{ending}`")).join(" and ");
            Some(format!(
                "endpoint `{path}`: {times} endpoints have this path; give each its own (endpoints \
                 can share only paths whose requests name a model, such as {shared})"
            ))
        } else {
            None
        }
    };
    count.into_iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, Workers};

    fn resolve_text(text: &str) -> Result<Program, ConfigError> {
        resolve(parse_toml(text)?, &Origin::File("litplex.toml".into()))
    }

    #[test]
    fn endpoints_under_another_name_are_told_the_right_one() {
        let problem = |text: &str| resolve_text(text).unwrap_err().to_string();
        for name in ["endpoints", "Endpoint", "endpiont"] {
            let alone = problem(&format!("[[{name}]]\npath = \"/ocr\""));
            assert_eq!(alone, format!("there is no endpoint: `[[{name}]]` must be `[[endpoint]]`"));
            let beside = problem(&format!(
                "[[endpoint]]\npath = \"/a\"\napi = \"a:A\"\n[[{name}]]\npath = \"/b\""
            ));
            let expected = format!("server: there is no option `{name}`; did you mean `endpoint`?");
            assert_eq!(beside, expected);
        }
        assert!(
            problem("[endpoint]\npath = \"/a\"").ends_with("`[endpoint]` must be `[[endpoint]]`")
        );
        assert!(problem("port = 1").contains("write at least one `[[endpoint]]`"));
    }

    #[test]
    fn values_that_json_lacks_are_refused_by_name() {
        let text = "[[endpoint]]\nargs = { i = -inf, d = [2024-01-02], n = { x = nan } }";
        let expected = [
            "`endpoint[0].args.d[0]` must be a text, not a date; write \"2024-01-02\"",
            "`endpoint[0].args.i` must be a finite number, not -inf",
            "`endpoint[0].args.n.x` must be a finite number, not NaN",
        ];
        let mut found = parse_toml(text).unwrap_err().0;
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn defaults_are_filled_in() {
        let program = resolve_text(
            "[[endpoint]]\npath = \"/ocr\"\napi = \"ocr:OcrAPI\"\nargs = { lang = \"en\" }",
        )
        .unwrap();
        assert_eq!((program.host.as_str(), program.port), ("127.0.0.1", 8000));
        let [ocr] = program.endpoints.as_slice() else { panic!("expected one endpoint") };
        assert_eq!((ocr.path(), ocr.workers), ("/ocr", Workers::PerDevice(1)));
        assert_eq!(ocr.timeout, Duration::from_secs(30));
        let Source::Python(source) = &ocr.source else { panic!("expected Python") };
        assert_eq!(source["args"]["lang"], "en");
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let error = resolve_text(
            r#"
            prot = 1
            [[endpoint]]
            path = "ocr"
            api = "ocr:OcrAPI"
            timeout = -1
            [[endpoint]]
            path = "/health"
            api = "nothing"
            [[endpoint]]
            path = "/a"
            api = "missing.py:A"
            [[endpoint]]
            path = "/a"
            "#,
        )
        .unwrap_err();
        let wanted = [
            "server: there is no option `prot`; did you mean `port`?",
            "endpoint `ocr`: `path` must be a path that begins with",
            "endpoint `ocr`: `timeout` must be a number of seconds greater than 0, not -1",
            "endpoint `/health`: `api` must be named like",
            "endpoint `/a`: `api` names the file",
            "endpoint `/a`: it has no `api`",
            "endpoint `/a`: 2 endpoints have this path",
            "endpoint `/health`: this path is already in use by a built-in route",
        ];
        assert_eq!(error.0.len(), wanted.len(), "{error}");
        for (problem, wanted) in error.0.iter().zip(wanted) {
            assert!(problem.starts_with(wanted), "{problem:?} should start with {wanted:?}");
        }
    }

    #[test]
    fn a_file_cannot_say_what_only_the_sdk_may() {
        let error = resolve_text("[[endpoint]]\npath = \"/a\"\nsource = { kind = \"pickle\" }");
        assert!(error.unwrap_err().to_string().contains("no option `source`"));
    }
}
