use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::options::{RESERVED_PATHS, Scope, mistakes};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_GRACE: Duration = Duration::from_secs(30);
const DEFAULT_MAX_QUEUE: usize = 1024;
const DEFAULT_MAX_BODY_BYTES: usize = 64 << 20;

/// Where a configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file that a person wrote; names in it are relative to its directory.
    File(PathBuf),
    /// The Python SDK, which may say how instances reach their workers.
    Sdk,
    /// The builder of the Rust API, whose endpoints may have no `api`.
    Builder,
}

/// A server that can be started.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 for a free one.
    pub port: u16,
    /// How long requests in flight may take once the server was asked to stop.
    pub grace: Duration,
    /// Threads that speak HTTP, where somebody chose.
    pub http_threads: Option<usize>,
    /// The directory of the Python package that belongs to this program, where the SDK said it.
    pub sdk: Option<PathBuf>,
    /// The endpoints, in the order in which they were given.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint that can be started.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Where it is served.
    pub path: String,
    /// What its workers run.
    pub source: Source,
    /// The interpreter of its workers, where one is named.
    pub python: Option<PathBuf>,
    /// Environment variables of its workers.
    pub env: BTreeMap<String, String>,
    /// See the options table.
    pub accelerator: String,
    /// See the options table.
    pub devices: Value,
    /// Copies of the model on each device.
    pub workers_per_device: usize,
    /// Set where the configuration overrides the model's author.
    pub max_batch_size: Option<usize>,
    /// Set where the configuration overrides the model's author.
    pub batch_timeout: Option<Duration>,
    /// Set where the configuration overrides the model's author.
    pub stream: Option<bool>,
    /// The time budget of a request.
    pub timeout: Duration,
    /// How many requests may wait.
    pub max_queue: usize,
    /// The largest request body.
    pub max_body_bytes: usize,
}

/// What the workers of an endpoint run.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A Rust model, which the builder holds.
    Rust,
    /// A Python API, in the form in which `_worker/_load.py` takes it.
    Python(Value),
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => f.write_str(one),
            many => {
                write!(f, "{} mistakes:", many.len())?;
                many.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
            }
        }
    }
}

/// Reads TOML.
///
/// # Errors
/// The text is not TOML; the message shows the place.
pub fn parse_toml(text: &str) -> Result<Map<String, Value>, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError(vec![error.to_string().trim_end().into()]))
}

/// Reads JSON, as the SDK writes it.
///
/// # Errors
/// The text is not a JSON object.
pub fn parse_json(text: &str) -> Result<Map<String, Value>, ConfigError> {
    serde_json::from_str(text).map_err(|error| ConfigError(vec![error.to_string()]))
}

/// Checks a raw configuration and fills in the defaults.
///
/// # Errors
/// All mistakes at once, each with the endpoint that it is about.
pub fn resolve(mut raw: Map<String, Value>, origin: &Origin) -> Result<Program, ConfigError> {
    let endpoints = take_endpoints(&mut raw)?;
    let sdk = match origin {
        Origin::Sdk => raw.remove("sdk").and_then(|sdk| sdk.as_str().map(PathBuf::from)),
        _ => None,
    };
    let mut found: Vec<String> = mistakes(Scope::Server, &raw)
        .into_iter()
        .map(|mistake| format!("server: {mistake}"))
        .collect();
    for (number, endpoint) in endpoints.iter().enumerate() {
        found.extend(endpoint_mistakes(endpoint, number, origin));
    }
    found.extend(path_mistakes(&endpoints));
    if !found.is_empty() {
        return Err(ConfigError(found));
    }
    Ok(Program {
        host: text(&raw, "host").unwrap_or("127.0.0.1").to_owned(),
        port: integer(&raw, "port").map_or(8000, |port| port as u16),
        grace: seconds(&raw, "grace").unwrap_or(DEFAULT_GRACE),
        http_threads: integer(&raw, "http_threads"),
        sdk,
        endpoints: endpoints.iter().map(|endpoint| resolve_endpoint(endpoint, origin)).collect(),
    })
}

fn take_endpoints(raw: &mut Map<String, Value>) -> Result<Vec<Map<String, Value>>, ConfigError> {
    let wrong = || {
        let hint = "there is no endpoint; write at least one `[[endpoint]]` with a `path` and an \
                    `api`";
        ConfigError(vec![hint.into()])
    };
    let Some(Value::Array(tables)) = raw.remove("endpoint") else { return Err(wrong()) };
    let tables: Vec<_> = tables
        .into_iter()
        .filter_map(|table| if let Value::Object(table) = table { Some(table) } else { None })
        .collect();
    if tables.is_empty() { Err(wrong()) } else { Ok(tables) }
}

fn endpoint_mistakes(endpoint: &Map<String, Value>, number: usize, origin: &Origin) -> Vec<String> {
    let mut options = endpoint.clone();
    let has_source = *origin == Origin::Builder
        || (*origin == Origin::Sdk && options.remove("source").is_some());
    let mut found = mistakes(Scope::Endpoint, &options);
    let name = match text(endpoint, "path") {
        Some(path) => format!("endpoint `{path}`"),
        None => format!("endpoint {}", number + 1),
    };
    if !endpoint.contains_key("path") {
        found.push("it has no `path`; give it one, such as \"/ocr\"".into());
    }
    match text(endpoint, "api") {
        None if !has_source => {
            found.push("it has no `api`; name its class, such as \"ocr.py:OcrAPI\"".into());
        }
        Some(api) if !api.contains(':') => {
            found.push(format!("`api` must be named like \"ocr.py:OcrAPI\", not \"{api}\""));
        }
        _ => found.extend(missing_file(endpoint, origin)),
    }
    found.extend(missing_interpreter(endpoint, origin));
    let is_stream = endpoint.get("stream").and_then(Value::as_bool) == Some(true);
    if is_stream && integer(endpoint, "max_batch_size").is_some_and(|size| size > 1) {
        found.push("streams cannot be batched; set `max_batch_size` to 1".into());
    }
    found.into_iter().map(|mistake| format!("{name}: {mistake}")).collect()
}

fn missing_file(endpoint: &Map<String, Value>, origin: &Origin) -> Option<String> {
    let (file, _) = text(endpoint, "api")?.rsplit_once(':')?;
    let path = directory_of(origin).join(file);
    let is_missing = file.ends_with(".py") && !path.is_file();
    is_missing.then(|| format!("`api` names the file `{}`, which does not exist", path.display()))
}

fn missing_interpreter(endpoint: &Map<String, Value>, origin: &Origin) -> Option<String> {
    let python = interpreter(text(endpoint, "python")?, &directory_of(origin));
    let is_missing = python.components().count() > 1 && !python.exists();
    is_missing.then(|| {
        format!(
            "`python` names the interpreter `{}`, which does not exist; create the environment or \
             correct it",
            python.display()
        )
    })
}

fn path_mistakes(endpoints: &[Map<String, Value>]) -> Vec<String> {
    let mut count = BTreeMap::<&str, usize>::new();
    for path in endpoints.iter().filter_map(|endpoint| text(endpoint, "path")) {
        *count.entry(path).or_default() += 1;
    }
    let mistake = |(path, times): (&str, usize)| {
        if RESERVED_PATHS.contains(&path) {
            Some(format!("endpoint `{path}`: this path is a built-in route; choose another"))
        } else if times > 1 {
            Some(format!("endpoint `{path}`: {times} endpoints have this path; give each its own"))
        } else {
            None
        }
    };
    count.into_iter().filter_map(mistake).collect()
}

fn resolve_endpoint(endpoint: &Map<String, Value>, origin: &Origin) -> Endpoint {
    let directory = directory_of(origin);
    let strings = |name: &str| -> BTreeMap<String, String> {
        let table = endpoint.get(name).and_then(Value::as_object).into_iter().flatten();
        table.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.into()))).collect()
    };
    Endpoint {
        path: text(endpoint, "path").unwrap_or_default().to_owned(),
        source: source(endpoint, &directory),
        python: text(endpoint, "python").map(|python| interpreter(python, &directory)),
        env: strings("env"),
        accelerator: text(endpoint, "accelerator").unwrap_or("auto").to_owned(),
        devices: endpoint.get("devices").cloned().unwrap_or_else(|| "auto".into()),
        workers_per_device: integer(endpoint, "workers_per_device").unwrap_or(1),
        max_batch_size: integer(endpoint, "max_batch_size"),
        batch_timeout: seconds(endpoint, "batch_timeout"),
        stream: endpoint.get("stream").and_then(Value::as_bool),
        timeout: seconds(endpoint, "timeout").unwrap_or(DEFAULT_TIMEOUT),
        max_queue: integer(endpoint, "max_queue").unwrap_or(DEFAULT_MAX_QUEUE),
        max_body_bytes: integer(endpoint, "max_body_bytes").unwrap_or(DEFAULT_MAX_BODY_BYTES),
    }
}

fn source(endpoint: &Map<String, Value>, directory: &Path) -> Source {
    if let Some(source) = endpoint.get("source") {
        return Source::Python(source.clone());
    }
    let Some(name) = text(endpoint, "api") else { return Source::Rust };
    let args = endpoint.get("args").cloned().unwrap_or_else(|| Value::Object(Map::new()));
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

/// Returns the directory that names are relative to, absolute: workers may run elsewhere.
fn directory_of(origin: &Origin) -> PathBuf {
    let directory = match origin {
        Origin::File(file) => file.parent().unwrap_or(Path::new("")),
        Origin::Sdk | Origin::Builder => Path::new(""),
    };
    std::path::absolute(directory)
        .or_else(|_| std::env::current_dir())
        .unwrap_or_else(|_| directory.to_owned())
}

fn text<'a>(options: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    options.get(name).and_then(Value::as_str)
}

fn integer(options: &Map<String, Value>, name: &str) -> Option<usize> {
    options.get(name).and_then(Value::as_u64).map(|number| number as usize)
}

fn seconds(options: &Map<String, Value>, name: &str) -> Option<Duration> {
    let seconds = options.get(name).and_then(Value::as_f64)?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve_text(text: &str) -> Result<Program, ConfigError> {
        resolve(parse_toml(text)?, &Origin::File("litmux.toml".into()))
    }

    #[test]
    fn defaults_are_filled_in() {
        let program = resolve_text(
            "[[endpoint]]\npath = \"/ocr\"\napi = \"ocr:OcrAPI\"\nargs = { lang = \"en\" }",
        )
        .unwrap();
        assert_eq!((program.host.as_str(), program.port), ("127.0.0.1", 8000));
        let [ocr] = program.endpoints.as_slice() else { panic!("expected one endpoint") };
        assert_eq!((ocr.path.as_str(), ocr.workers_per_device), ("/ocr", 1));
        assert_eq!(ocr.timeout, Duration::from_secs(30));
        let Source::Python(source) = &ocr.source else { panic!("expected Python") };
        assert_eq!(source["args"]["lang"], "en");
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
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
            "endpoint `/health`: this path is a built-in route",
        ];
        assert_eq!(error.0.len(), wanted.len(), "{error}");
        for (mistake, wanted) in error.0.iter().zip(wanted) {
            assert!(mistake.starts_with(wanted), "{mistake:?} should start with {wanted:?}");
        }
    }

    #[test]
    fn a_file_cannot_say_what_only_the_sdk_may() {
        let error = resolve_text("[[endpoint]]\npath = \"/a\"\nsource = { kind = \"pickle\" }");
        assert!(error.unwrap_err().to_string().contains("no option `source`"));
    }

    #[test]
    fn interpreters_are_relative_to_the_file() {
        let raw = "[[endpoint]]\npath = \"/a\"\napi = \"a:A\"\npython = \".venv/bin/python\"";
        let origin = Origin::File("/srv/models/litmux.toml".into());
        let error = resolve(parse_toml(raw).unwrap(), &origin).unwrap_err().to_string();
        assert!(error.contains("`/srv/models/.venv/bin/python`, which does not exist"), "{error}");
        assert_eq!(interpreter("python3.12", Path::new("/srv")), Path::new("python3.12"));
    }
}
