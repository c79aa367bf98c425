//! The configuration of one endpoint: its checks and its defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use litplex_core::Identity;
use litplex_pipelines::Graph;
use serde_json::{Map, Value};

use crate::names::CLASS;
use crate::options::{Scope, problems};
use crate::pipeline::{self, PIPELINE};
use crate::read::{boolean, integer, number, path_problem, seconds, text, texts};
use crate::resources::process_only_options;
use crate::worker_env::worker_env_problems;
use crate::{ApiKeys, Cost, Origin, Rate, Residency, Resources, Workers, access};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_KILL_AFTER: Duration = Duration::from_secs(10);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(2);

const DEFAULT_MAX_BODY_BYTES: usize = 64 << 20;

/// A checked endpoint with its defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// The path and the names of the endpoint.
    pub identity: Arc<Identity>,
    /// The model.
    pub source: Source,
    /// The interpreter of the workers, if one is named.
    pub python: Option<PathBuf>,
    /// The requirements file of the workers' virtual environment.
    pub requirements: Option<PathBuf>,
    /// Environment variables of the workers.
    pub env: BTreeMap<String, String>,
    /// The working directory of the workers: by default that of the file that describes the
    /// endpoint; `None` for the server's own.
    pub cwd: Option<PathBuf>,
    /// Directories in front of the workers' module search path.
    pub pythonpath: Vec<PathBuf>,
    /// The modules of the workers' template; `None` for those that earlier workers imported.
    pub preload: Option<Vec<String>>,
    /// The log level of the endpoint, if it is set.
    pub log_level: Option<String>,
    /// The file for the endpoint's log lines and its workers' output, if it has one.
    pub log_file: Option<PathBuf>,
    /// See the options table.
    pub accelerator: String,
    /// See the options table.
    pub devices: Value,
    /// The number of workers.
    pub workers: Workers,
    /// Which workers stay in memory.
    pub residency: Residency,
    /// The resources of each worker.
    pub resources: Resources,
    /// Set if the configuration overrides the model author.
    pub max_concurrency: Option<usize>,
    /// Set if the configuration overrides the model author.
    pub max_batch_size: Option<usize>,
    /// Set if the configuration overrides the model author.
    pub batch_timeout: Option<Duration>,
    /// Whether batches are as full as they can be, whatever is learned of their times.
    pub has_fixed_batches: bool,
    /// The cost of a request in a batch, if the configuration defines it.
    pub cost: Option<Cost>,
    /// The limit of the cost of a batch, if there is one.
    pub max_batch_cost: Option<f64>,
    /// Whether the items of a batch that raised are computed again one by one; `idempotent` is
    /// the default.
    pub retry_batch_singly: Option<bool>,
    /// Set if the configuration overrides the model author.
    pub stream: Option<bool>,
    /// The time budget of a request.
    pub timeout: Duration,
    /// The time budget of a stream between two chunks.
    pub chunk_timeout: Duration,
    /// The silence after which a comment is sent into an event stream.
    pub ping_interval: Option<Duration>,
    /// The time that a request may wait for a worker; the whole budget if not set.
    pub queue_timeout: Option<Duration>,
    /// The time past its deadline for which a worker may compute a request; unlimited if not
    /// set.
    pub kill_after: Option<Duration>,
    /// The interval at which a worker must show that it runs.
    pub heartbeat: Duration,
    /// Whether the program sets the heartbeat: it then applies while a worker computes, too.
    pub is_heartbeat_chosen: bool,
    /// Whether a request whose worker died may be computed again; by default all requests but
    /// streams may.
    pub idempotent: Option<bool>,
    /// The warm-up requests to each worker; `None`: at a reload one, if there is an example of a request.
    pub warmup: Option<usize>,
    /// The way in which a reload replaces the workers; `None`: as the memory allows.
    pub swap: Option<Swap>,
    /// The number of requests that may wait; by default what the workers can answer in time.
    pub max_queue: Option<usize>,
    /// Whether requests keep the order of their arrival, whatever happens.
    pub keeps_arrival_order: bool,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// The keys of the endpoint, if it has keys of its own.
    pub api_keys: Option<ApiKeys>,
    /// The scopes that a token must have, if the endpoint sets any.
    pub jwt_scopes: Option<Vec<String>>,
    /// The rate of requests of one caller, if it is limited.
    pub rate_limit: Option<Rate>,
    /// The number of requests of one caller in flight, if it is limited.
    pub max_requests_per_caller: Option<usize>,
    /// The names of the callers whose requests are in the class `batch`.
    pub batch_callers: Vec<String>,
}

/// The way in which a reload replaces the workers of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// The new workers start beside the old ones.
    Overlap,
    /// The old workers stop first.
    InPlace,
}

impl Endpoint {
    /// Returns the text that stands for the endpoint in logs, metrics and messages.
    pub fn label(&self) -> &str {
        &self.identity.label
    }

    /// Returns the path of the endpoint.
    pub fn path(&self) -> &str {
        &self.identity.path
    }
}

/// The model of an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A Rust model, which the builder has.
    Rust,
    /// A Python API, in the form that the worker's `load.py` takes.
    Python(Value),
    /// A pipeline, which the server runs without a worker.
    Pipeline(Arc<Graph>),
}

/// Returns all errors of one endpoint, each with the endpoint's name.
pub(crate) fn endpoint_problems(
    endpoint: &Map<String, Value>,
    number: usize,
    origin: &Origin,
) -> Vec<String> {
    let mut options = endpoint.clone();
    if matches!(origin, Origin::Sdk | Origin::Builder) {
        options.remove(CLASS);
    }
    if *origin == Origin::Sdk {
        options.remove("directory");
        options.remove(ARGS_TEXT);
    }
    let has_source = *origin == Origin::Builder
        || (*origin == Origin::Sdk && options.remove("source").is_some());
    let mut found = problems(Scope::Endpoint, &options);
    let name = match text(endpoint, "path") {
        Some(path) => format!("endpoint `{path}`"),
        None => format!("endpoint {}", number + 1),
    };
    if !endpoint.contains_key("path") {
        found.push("it has no `path`; give it one, such as \"/ocr\"".into());
    }
    match text(endpoint, "api") {
        _ if endpoint.contains_key(PIPELINE) => found.extend(pipeline::refused_options(endpoint)),
        None if !has_source => {
            found.push("it has no `api`; name its class, such as \"ocr.py:OcrAPI\"".into());
        }
        None if *origin == Origin::Builder => found.extend(process_only_options(endpoint)),
        Some(api) if !api.contains(':') => {
            found.push(format!("`api` must be named like \"ocr.py:OcrAPI\", not \"{api}\""));
        }
        _ => found.extend(missing_file(endpoint, origin)),
    }
    found.extend(missing_interpreter(endpoint, origin));
    found.extend(worker_env_problems(endpoint, &directory_of(endpoint, origin)));
    found.into_iter().map(|problem| format!("{name}: {problem}")).collect()
}

fn missing_file(endpoint: &Map<String, Value>, origin: &Origin) -> Option<String> {
    let (file, _) = text(endpoint, "api")?.rsplit_once(':')?;
    let path = directory_of(endpoint, origin).join(file);
    let is_missing = file.ends_with(".py") && !path.is_file();
    is_missing.then(|| {
        let wrong = path_problem(&path, "a file");
        format!("`api` names the file `{}`, which {wrong}", path.display())
    })
}

fn missing_interpreter(endpoint: &Map<String, Value>, origin: &Origin) -> Option<String> {
    let given = text(endpoint, "python")?;
    let folder = directory_of(endpoint, origin).join(given);
    if folder.is_dir() {
        return Some(if folder.join("bin/python").exists() {
            let meant = Path::new(given).join("bin/python");
            format!("`python` names a directory; did you mean `{}`?", meant.display())
        } else {
            format!("`python` names the directory `{}`, not an interpreter", folder.display())
        });
    }
    let python = interpreter(given, &directory_of(endpoint, origin));
    let is_missing = python.components().count() > 1 && !python.exists();
    is_missing.then(|| {
        let wrong = path_problem(&python, "an interpreter");
        let advice = "create the environment or correct it";
        format!("`python` names the interpreter `{}`, which {wrong}; {advice}", python.display())
    })
}

/// Fills in the defaults of an endpoint without errors.
pub(crate) fn resolve_endpoint(
    endpoint: &Map<String, Value>,
    identity: Arc<Identity>,
    origin: &Origin,
) -> Endpoint {
    let directory = directory_of(endpoint, origin);
    let strings = |name: &str| -> BTreeMap<String, String> {
        let table = endpoint.get(name).and_then(Value::as_object).into_iter().flatten();
        table.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.into()))).collect()
    };
    let timeout = seconds(endpoint, "timeout").unwrap_or(DEFAULT_TIMEOUT);
    Endpoint {
        identity,
        source: source(endpoint, &directory),
        python: text(endpoint, "python").map(|python| interpreter(python, &directory)),
        requirements: text(endpoint, "requirements").map(|file| directory.join(file)),
        env: strings("env"),
        cwd: match text(endpoint, "cwd") {
            Some(cwd) => Some(directory.join(cwd)),
            None => file_directory(endpoint, origin).map(|_| directory.clone()),
        },
        pythonpath: texts(endpoint, "pythonpath").map(|entry| directory.join(entry)).collect(),
        preload: endpoint
            .contains_key("preload")
            .then(|| texts(endpoint, "preload").map(str::to_owned).collect()),
        log_level: text(endpoint, "log_level").map(str::to_owned),
        log_file: text(endpoint, "log_file").map(|file| directory.join(file)),
        accelerator: text(endpoint, "accelerator").unwrap_or("auto").to_owned(),
        devices: endpoint.get("devices").cloned().unwrap_or_else(|| "auto".into()),
        workers: Workers::of(endpoint),
        residency: Residency::of(endpoint),
        resources: Resources::of(endpoint),
        max_concurrency: integer(endpoint, "max_concurrency"),
        max_batch_size: integer(endpoint, "max_batch_size"),
        batch_timeout: seconds(endpoint, "batch_timeout"),
        has_fixed_batches: text(endpoint, "batch_policy") == Some("fixed"),
        cost: text(endpoint, "cost").and_then(Cost::parse),
        max_batch_cost: number(endpoint, "max_batch_cost"),
        retry_batch_singly: boolean(endpoint, "retry_batch_singly"),
        stream: boolean(endpoint, "stream"),
        timeout,
        chunk_timeout: seconds(endpoint, "chunk_timeout").unwrap_or(timeout),
        ping_interval: seconds(endpoint, "ping_interval"),
        queue_timeout: seconds(endpoint, "queue_timeout"),
        kill_after: kill_after(endpoint),
        heartbeat: seconds(endpoint, "heartbeat").unwrap_or(DEFAULT_HEARTBEAT),
        is_heartbeat_chosen: endpoint.contains_key("heartbeat"),
        idempotent: boolean(endpoint, "idempotent"),
        warmup: integer(endpoint, "warmup"),
        swap: text(endpoint, "swap").map(|swap| match swap {
            "in_place" => Swap::InPlace,
            _ => Swap::Overlap,
        }),
        max_queue: integer(endpoint, "max_queue"),
        keeps_arrival_order: text(endpoint, "queue_order") == Some("arrival"),
        max_body_bytes: integer(endpoint, "max_body_bytes").unwrap_or(DEFAULT_MAX_BODY_BYTES),
        api_keys: ApiKeys::of(endpoint, "api_keys", &directory),
        jwt_scopes: endpoint
            .contains_key("jwt_scopes")
            .then(|| texts(endpoint, "jwt_scopes").map(str::to_owned).collect()),
        rate_limit: access::rate_limit(endpoint),
        max_requests_per_caller: integer(endpoint, "max_requests_per_caller"),
        batch_callers: texts(endpoint, "batch_callers").map(str::to_owned).collect(),
    }
}

fn kill_after(endpoint: &Map<String, Value>) -> Option<Duration> {
    match boolean(endpoint, "kill_after") {
        Some(_) => None,
        None => Some(seconds(endpoint, "kill_after").unwrap_or(DEFAULT_KILL_AFTER)),
    }
}

/// The `args` as the SDK wrote them, which the worker reads: a number may have more digits than are
/// kept here.
const ARGS_TEXT: &str = "args_text";

fn source(endpoint: &Map<String, Value>, directory: &Path) -> Source {
    if let Some(graph) = pipeline::graph(endpoint) {
        return Source::Pipeline(graph);
    }
    if let Some(source) = endpoint.get("source") {
        return Source::Python(source.clone());
    }
    let Some(name) = text(endpoint, "api") else { return Source::Rust };
    let args = endpoint.get(ARGS_TEXT).or_else(|| endpoint.get("args")).cloned();
    let args = args.unwrap_or_else(|| Value::Object(Map::new()));
    Source::Python(serde_json::json!({
        "kind": "reference",
        "name": name,
        "args": args,
        "directory": directory,
    }))
}

/// A bare name is looked up on `PATH`; anything else is a path like all others.
fn interpreter(python: &str, directory: &Path) -> PathBuf {
    if python.contains('/') { directory.join(python) } else { python.into() }
}

/// Returns the directory of the file that says these options, where there is one: the SDK knows
/// it, but for programs written for LitServe, and a Rust program has none.
fn file_directory<'a>(options: &'a Map<String, Value>, origin: &'a Origin) -> Option<&'a Path> {
    match origin {
        Origin::File(file) => Some(file.parent().unwrap_or(Path::new(""))),
        Origin::Sdk => text(options, "directory").map(Path::new),
        Origin::Builder => None,
    }
}

/// Returns the directory that the paths in these options are relative to, absolute: that of the
/// file which says them, or else the working directory.
pub(crate) fn directory_of(options: &Map<String, Value>, origin: &Origin) -> PathBuf {
    let directory = file_directory(options, origin).unwrap_or(Path::new(""));
    std::path::absolute(directory)
        .or_else(|_| std::env::current_dir())
        .unwrap_or_else(|_| directory.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parse_toml, resolve};

    fn resolve_one(options: &str) -> Endpoint {
        let text = format!("[[endpoint]]\npath = \"/a\"\napi = \"a:A\"\n{options}");
        let program = resolve(parse_toml(&text).unwrap(), &Origin::File("litplex.toml".into()));
        program.unwrap().endpoints.remove(0)
    }

    #[test]
    fn what_is_not_given_follows_from_the_rest() {
        let endpoint = resolve_one("timeout = 5");
        assert_eq!(endpoint.chunk_timeout, Duration::from_secs(5));
        assert_eq!(endpoint.kill_after, Some(Duration::from_secs(10)));
        assert_eq!(endpoint.workers, Workers::PerDevice(1));
        assert_eq!((endpoint.max_queue, endpoint.idempotent), (None, None));
    }

    #[test]
    fn a_worker_may_be_left_to_compute_forever() {
        assert_eq!(resolve_one("kill_after = false").kill_after, None);
        assert_eq!(resolve_one("kill_after = 0").kill_after, Some(Duration::ZERO));
    }

    #[test]
    fn workers_may_come_and_go() {
        let endpoint = resolve_one("min_workers = 0\nmax_workers = 4\ncost = \"a.b:words\"");
        assert_eq!(endpoint.workers, Workers::Between { min: 0, max: 4 });
        assert_eq!(endpoint.cost, Cost::parse("a.b:words"));
    }

    #[test]
    fn streams_may_be_batched() {
        let endpoint = resolve_one("stream = true\nmax_batch_size = 8");
        assert_eq!((endpoint.stream, endpoint.max_batch_size), (Some(true), Some(8)));
    }

    #[test]
    fn interpreters_are_relative_to_the_file() {
        let raw = "[[endpoint]]\npath = \"/a\"\napi = \"a:A\"\npython = \".venv/bin/python\"";
        let origin = Origin::File("/srv/models/litplex.toml".into());
        let error = resolve(parse_toml(raw).unwrap(), &origin).unwrap_err().to_string();
        assert!(error.contains("`/srv/models/.venv/bin/python`, which does not exist"), "{error}");
        assert_eq!(interpreter("python3.12", Path::new("/srv")), Path::new("python3.12"));
    }
    #[test]
    fn a_directory_is_no_interpreter_and_an_environment_has_one() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join(".venv/bin")).unwrap();
        std::fs::create_dir_all(directory.path().join("models")).unwrap();
        std::fs::write(directory.path().join(".venv/bin/python"), "").unwrap();
        let origin = Origin::File(directory.path().join("litplex.toml"));
        let problem = |python: &str| {
            let endpoint = serde_json::json!({ "python": python });
            missing_interpreter(endpoint.as_object().unwrap(), &origin)
        };
        for python in [".venv", ".venv/", "./.venv"] {
            let meant = Path::new(python).join("bin/python");
            let says = format!("`python` names a directory; did you mean `{}`?", meant.display());
            assert_eq!(problem(python), Some(says));
        }
        assert!(problem("models").unwrap().ends_with("/models`, not an interpreter"));
        assert_eq!(problem(".venv/bin/python"), None);
        assert_eq!(problem("python3"), None);
    }

    #[test]
    fn paths_are_relative_to_the_file_that_says_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::write(path.join("ocr.py"), "").unwrap();
        let endpoint = |more: &str| {
            let text = format!(
                r#"{{"directory": {path:?}, "endpoint": [
                    {{"path": "/a", "api": "ocr.py:A", "log_file": "a.log"{more}}}]}}"#
            );
            resolve(crate::parse_json(&text).unwrap(), &Origin::Sdk).unwrap().endpoints.remove(0)
        };
        let from_sdk = endpoint(&format!(r#", "directory": {path:?}"#));
        let from_file = resolve(
            parse_toml("[[endpoint]]\npath = \"/a\"\napi = \"ocr.py:A\"\nlog_file = \"a.log\"")
                .unwrap(),
            &Origin::File(path.join("litplex.toml")),
        );
        for endpoint in [from_sdk, from_file.unwrap().endpoints.remove(0)] {
            assert_eq!(endpoint.cwd.as_deref(), Some(path));
            assert_eq!(endpoint.log_file, Some(path.join("a.log")));
            let Source::Python(source) = endpoint.source else { panic!("expected Python") };
            assert_eq!(source["directory"], path.to_str().unwrap());
        }
    }

    #[test]
    fn without_a_file_paths_are_relative_to_the_working_directory() {
        let text = r#"{"endpoint": [{"path": "/a", "api": "a:A", "log_file": "a.log"}]}"#;
        let program = resolve(crate::parse_json(text).unwrap(), &Origin::Sdk).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(program.endpoints[0].cwd, None);
        assert_eq!(program.endpoints[0].log_file, Some(here.join("a.log")));
    }
}
