//! The difference between two configurations: what a reload changes, and what of it needs new workers.
//! A pure comparison; the server applies it.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::{ApiKeys, Endpoint, Program, Rate, Residency, Resources, Source, Swap, Workers};

/// The text in place of a value that is a secret or too long to show.
const MASKED: &str = "…";

/// The text for an option that is not set.
const UNSET: &str = "not set";

/// The files of a program that are other ones than those that its processes have loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangedFiles {
    /// The files of endpoints, by their labels.
    pub endpoints: BTreeMap<String, Vec<PathBuf>>,
    /// The files of the app host.
    pub app_host: Vec<PathBuf>,
}

/// The difference between a running configuration and a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Every endpoint of either configuration: those of the new one in its order, then the removed ones.
    pub endpoints: Vec<EndpointDiff>,
    /// Changed options that only a start of the server applies.
    pub restart: Vec<RestartOption>,
    /// Whether the app host differs, or the endpoints that it is in front of.
    pub app_host: bool,
    /// The changed files that the app host has loaded.
    pub app_files: Vec<PathBuf>,
}

/// The difference of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointDiff {
    /// The label of the endpoint.
    pub label: String,
    /// The change.
    pub change: Change,
}

/// The change of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Unchanged,
    /// Options that apply to the workers that run.
    Options(Vec<OptionChange>),
    /// New workers are needed.
    Reload {
        /// The changed options, first those that need new workers.
        options: Vec<OptionChange>,
        /// The changed files that the workers have loaded, and changed requirements.
        files: Vec<PathBuf>,
    },
    /// The endpoint is new.
    Added,
    /// The endpoint is not in the new configuration.
    Removed,
}

/// A changed option, with its values as they may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionChange {
    /// The name of the option.
    pub option: &'static str,
    /// The value before. Secrets are masked.
    pub before: String,
    /// The value after.
    pub after: String,
}

/// A changed option that only a start of the server applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartOption {
    /// The label of the endpoint whose option it is; `None` for one of the server.
    pub endpoint: Option<String>,
    /// The option.
    pub change: OptionChange,
}

impl Diff {
    /// Compares a running configuration with a new one, given the changed files.
    pub fn between(before: &Program, after: &Program, files: &ChangedFiles) -> Self {
        let mut diff = Self { restart: server_options(before, after), ..Self::default() };
        for endpoint in &after.endpoints {
            let label = endpoint.label().to_owned();
            let change = match before.endpoints.iter().find(|it| it.label() == label) {
                None => Change::Added,
                Some(running) => {
                    let compared = Comparison::of(running, endpoint);
                    let restart = compared.restart.iter().cloned();
                    diff.restart.extend(
                        restart
                            .map(|change| RestartOption { endpoint: Some(label.clone()), change }),
                    );
                    compared.change(files.endpoints.get(&label).cloned().unwrap_or_default())
                }
            };
            diff.endpoints.push(EndpointDiff { label, change });
        }
        let is_there = |label: &str| after.endpoints.iter().any(|it| it.label() == label);
        let removed = before.endpoints.iter().filter(|it| !is_there(it.label()));
        diff.endpoints.extend(removed.map(|endpoint| EndpointDiff {
            label: endpoint.label().to_owned(),
            change: Change::Removed,
        }));
        let is_other = |it: &EndpointDiff| matches!(it.change, Change::Added | Change::Removed);
        if after.app_host.is_some() {
            diff.app_files.clone_from(&files.app_host);
        }
        diff.app_host = before.app_host != after.app_host
            || !diff.app_files.is_empty()
            || (after.app_host.is_some() && diff.endpoints.iter().any(is_other));
        diff
    }

    /// Returns whether the endpoint with this label gets new workers.
    pub fn needs_workers(&self, label: &str) -> bool {
        let change = self.endpoints.iter().find(|it| it.label == label).map(|it| &it.change);
        matches!(change, Some(Change::Added | Change::Reload { .. }))
    }

    /// Returns whether a reload would change nothing.
    pub fn is_empty(&self) -> bool {
        !self.app_host && self.endpoints.iter().all(|it| it.change == Change::Unchanged)
    }
}

/// The need of a changed option.
#[derive(Clone, Copy)]
enum Needs {
    /// Nothing: it applies to the workers that run.
    Nothing,
    /// New workers.
    Workers,
    /// A start of the server.
    Restart,
}

/// The changed options of an endpoint.
#[derive(Default)]
struct Comparison {
    at_once: Vec<OptionChange>,
    workers: Vec<OptionChange>,
    restart: Vec<OptionChange>,
}

impl Comparison {
    fn of(before: &Endpoint, after: &Endpoint) -> Self {
        let mut found = Self::default();
        found.names(before, after);
        found.model(before, after);
        found.processes(before, after);
        found.batches(before, after);
        found.limits(before, after);
        found
    }

    fn change(self, files: Vec<PathBuf>) -> Change {
        let Self { at_once, mut workers, .. } = self;
        if !workers.is_empty() || !files.is_empty() {
            workers.extend(at_once);
            return Change::Reload { options: workers, files };
        }
        if at_once.is_empty() { Change::Unchanged } else { Change::Options(at_once) }
    }

    /// Notes an option whose values differ.
    fn note<T: PartialEq>(
        &mut self,
        needs: Needs,
        option: &'static str,
        (before, after): (&T, &T),
        show: impl Fn(&T) -> String,
    ) {
        if before == after {
            return;
        }
        let change = OptionChange { option, before: show(before), after: show(after) };
        match needs {
            Needs::Nothing => self.at_once.push(change),
            Needs::Workers => self.workers.push(change),
            Needs::Restart => self.restart.push(change),
        }
    }

    fn names(&mut self, before: &Endpoint, after: &Endpoint) {
        let (one, other) = (&before.identity, &after.identity);
        self.note(Needs::Nothing, "name", (&one.name, &other.name), Clone::clone);
        self.note(Needs::Nothing, "aliases", (&one.aliases, &other.aliases), |it| list(it));
        let defaults = (&one.is_default, &other.is_default);
        self.note(Needs::Nothing, "default_model", defaults, ToString::to_string);
    }

    fn model(&mut self, before: &Endpoint, after: &Endpoint) {
        match (&before.source, &after.source) {
            // A pipeline has no workers.
            (Source::Pipeline(one), Source::Pipeline(other)) => {
                self.note(Needs::Nothing, "pipeline", (one, other), |_| MASKED.to_owned());
            }
            (Source::Python(one), Source::Python(other)) => self.python(one, other),
            (one, other) => {
                self.note(Needs::Workers, "model", (one, other), |it| kind(it).to_owned());
            }
        }
    }

    /// Compares the sources of two models in Python.
    fn python(&mut self, before: &Value, after: &Value) {
        let field = |name: &str| (before[name].clone(), after[name].clone());
        let masked = |_: &Value| MASKED.to_owned();
        let (one, other) = field("name");
        self.note(Needs::Workers, "api", (&one, &other), shown_value);
        let (one, other) = field("args");
        self.note(Needs::Workers, "args", (&one, &other), masked);
        let rest = |source: &Value| match source {
            Value::Object(fields) => {
                let is_other = |name: &str| name != "name" && name != "args";
                fields.clone().into_iter().filter(|(name, _)| is_other(name)).collect()
            }
            other => other.clone(),
        };
        self.note(Needs::Workers, "model", (&rest(before), &rest(after)), masked);
    }

    fn processes(&mut self, before: &Endpoint, after: &Endpoint) {
        use Needs::{Restart, Workers as NewWorkers};
        self.note(NewWorkers, "python", (&before.python, &after.python), path);
        let requirements = (&before.requirements, &after.requirements);
        self.note(NewWorkers, "requirements", requirements, path);
        // Variables often are secrets.
        let env = |env: &BTreeMap<String, String>| {
            list(&env.keys().map(|name| format!("{name}={MASKED}")).collect::<Vec<_>>())
        };
        self.note(NewWorkers, "env", (&before.env, &after.env), env);
        self.note(NewWorkers, "cwd", (&before.cwd, &after.cwd), path);
        let paths = |paths: &Vec<PathBuf>| {
            list(&paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
        };
        self.note(NewWorkers, "pythonpath", (&before.pythonpath, &after.pythonpath), paths);
        self.note(NewWorkers, "preload", (&before.preload, &after.preload), |modules| {
            modules.as_ref().map_or(UNSET.into(), |modules| list(modules))
        });
        self.note(Restart, "log_level", (&before.log_level, &after.log_level), set);
        self.note(Restart, "log_file", (&before.log_file, &after.log_file), path);
        let accelerator = (&before.accelerator, &after.accelerator);
        self.note(NewWorkers, "accelerator", accelerator, Clone::clone);
        self.note(NewWorkers, "devices", (&before.devices, &after.devices), shown_value);
        self.note(NewWorkers, "workers", (&before.workers, &after.workers), workers);
        self.resources(&before.resources, &after.resources);
        let concurrency = (&before.max_concurrency, &after.max_concurrency);
        self.note(NewWorkers, "max_concurrency", concurrency, set);
        self.note(NewWorkers, "kill_after", (&before.kill_after, &after.kill_after), duration);
        let heartbeat = |endpoint: &Endpoint| (endpoint.heartbeat, endpoint.is_heartbeat_chosen);
        let heartbeats = (&heartbeat(before), &heartbeat(after));
        self.note(NewWorkers, "heartbeat", heartbeats, |(every, _)| format!("{every:?}"));
    }

    fn resources(&mut self, before: &Resources, after: &Resources) {
        let needs = Needs::Workers;
        self.note(needs, "threads", (&before.threads, &after.threads), set);
        let affinity = (&before.cpu_affinity, &after.cpu_affinity);
        self.note(needs, "cpu_affinity", affinity, |it| {
            it.as_ref().map_or(UNSET.into(), |it| list(it))
        });
        let weights = (&before.device_weight, &after.device_weight);
        self.note(Needs::Nothing, "device_weight", weights, ToString::to_string);
        self.note(needs, "memory_limit", (&before.memory_limit, &after.memory_limit), set);
        let fractions = (&before.gpu_memory_fraction, &after.gpu_memory_fraction);
        self.note(needs, "gpu_memory_fraction", fractions, set);
        let isolates = (&before.isolate_devices, &after.isolate_devices);
        self.note(needs, "isolate_devices", isolates, ToString::to_string);
    }

    fn batches(&mut self, before: &Endpoint, after: &Endpoint) {
        let needs = Needs::Workers;
        let sizes = (&before.max_batch_size, &after.max_batch_size);
        self.note(needs, "max_batch_size", sizes, set);
        self.note(needs, "batch_timeout", (&before.batch_timeout, &after.batch_timeout), duration);
        let policy = |fixed: &bool| if *fixed { "fixed" } else { "adaptive" }.to_owned();
        let policies = (&before.has_fixed_batches, &after.has_fixed_batches);
        self.note(needs, "batch_policy", policies, policy);
        self.note(needs, "cost", (&before.cost, &after.cost), set);
        self.note(needs, "max_batch_cost", (&before.max_batch_cost, &after.max_batch_cost), set);
        let singly = (&before.retry_batch_singly, &after.retry_batch_singly);
        self.note(needs, "retry_batch_singly", singly, set);
        self.note(needs, "stream", (&before.stream, &after.stream), set);
        self.note(needs, "idempotent", (&before.idempotent, &after.idempotent), set);
    }

    fn limits(&mut self, before: &Endpoint, after: &Endpoint) {
        let needs = Needs::Nothing;
        let shown = |time: &Duration| format!("{time:?}");
        self.note(needs, "timeout", (&before.timeout, &after.timeout), shown);
        self.note(needs, "chunk_timeout", (&before.chunk_timeout, &after.chunk_timeout), shown);
        self.note(needs, "ping_interval", (&before.ping_interval, &after.ping_interval), duration);
        self.note(needs, "queue_timeout", (&before.queue_timeout, &after.queue_timeout), duration);
        let Residency { keep_alive, is_pinned, hibernates, memory, gpu_memory } = &before.residency;
        let now = &after.residency;
        self.note(needs, "keep_alive", (keep_alive, &now.keep_alive), ToString::to_string);
        self.note(needs, "pinned", (is_pinned, &now.is_pinned), ToString::to_string);
        self.note(Needs::Workers, "hibernate", (hibernates, &now.hibernates), ToString::to_string);
        self.note(needs, "memory", (memory, &now.memory), set);
        self.note(needs, "gpu_memory", (gpu_memory, &now.gpu_memory), set);
        self.note(needs, "warmup", (&before.warmup, &after.warmup), set);
        let swap = |swap: &Option<Swap>| match swap {
            Some(Swap::InPlace) => "in_place".to_owned(),
            Some(Swap::Overlap) => "overlap".to_owned(),
            None => UNSET.to_owned(),
        };
        self.note(needs, "swap", (&before.swap, &after.swap), swap);
        self.note(needs, "max_queue", (&before.max_queue, &after.max_queue), set);
        let order = |arrival: &bool| if *arrival { "arrival" } else { "adaptive" }.to_owned();
        let orders = (&before.keeps_arrival_order, &after.keeps_arrival_order);
        self.note(needs, "queue_order", orders, order);
        let bytes = (&before.max_body_bytes, &after.max_body_bytes);
        self.note(needs, "max_body_bytes", bytes, ToString::to_string);
        self.note(needs, "api_keys", (&before.api_keys, &after.api_keys), keys);
        let scopes = |scopes: &Option<Vec<String>>| {
            scopes.as_ref().map_or(UNSET.into(), |scopes| list(scopes))
        };
        self.note(needs, "jwt_scopes", (&before.jwt_scopes, &after.jwt_scopes), scopes);
        self.note(needs, "rate_limit", (&before.rate_limit, &after.rate_limit), rate);
        let most = (&before.max_requests_per_caller, &after.max_requests_per_caller);
        self.note(needs, "max_requests_per_caller", most, set);
        let callers = (&before.batch_callers, &after.batch_callers);
        self.note(needs, "batch_callers", callers, |callers| list(callers));
    }
}

/// Returns the changed options of the server itself. All need a start of the server.
fn server_options(before: &Program, after: &Program) -> Vec<RestartOption> {
    let mut found = Comparison::default();
    let needs = Needs::Restart;
    // The pattern has every field, so that a new one is not forgotten.
    let Program {
        host,
        port,
        tls,
        grace,
        http_threads,
        device_concurrency,
        max_connections,
        keep_alive_timeout,
        memory_budget,
        gpu_memory_budget,
        max_buffered_bytes,
        routes,
        api_keys,
        admin,
        jwt,
        request_id,
        access_log,
        recent_requests,
        keep_bodies,
        otlp_endpoint,
        trace_ratio,
        cors_origins,
        allowed_hosts,
        trusted_proxies,
        app_heartbeat,
        compression,
        server_timing,
        model_metadata,
        presentation,
        sdk,
        python_flags,
        app_host: _,
        endpoints: _,
    } = before;
    let time = |time: &Duration| format!("{time:?}");
    found.note(needs, "host", (host, &after.host), Clone::clone);
    found.note(needs, "port", (port, &after.port), ToString::to_string);
    found.note(needs, "tls_cert", (tls, &after.tls), masked);
    found.note(needs, "grace", (grace, &after.grace), time);
    found.note(needs, "http_threads", (http_threads, &after.http_threads), set);
    let concurrency = (device_concurrency, &after.device_concurrency);
    found.note(needs, "device_concurrency", concurrency, ToString::to_string);
    found.note(needs, "max_connections", (max_connections, &after.max_connections), set);
    let keep_alive = (keep_alive_timeout, &after.keep_alive_timeout);
    found.note(needs, "keep_alive_timeout", keep_alive, time);
    found.note(needs, "memory_budget", (memory_budget, &after.memory_budget), set);
    let budgets = (gpu_memory_budget, &after.gpu_memory_budget);
    found.note(needs, "gpu_memory_budget", budgets, set);
    let buffered = (max_buffered_bytes, &after.max_buffered_bytes);
    found.note(needs, "max_buffered_bytes", buffered, ToString::to_string);
    found.note(needs, "paths of built-in routes", (routes, &after.routes), masked);
    found.note(needs, "api_keys", (api_keys, &after.api_keys), keys);
    found.note(needs, "admin_port", (admin, &after.admin), masked);
    found.note(needs, "jwt_issuer", (jwt, &after.jwt), masked);
    found.note(needs, "request_id", (request_id, &after.request_id), ToString::to_string);
    found.note(needs, "access_log", (access_log, &after.access_log), path);
    let recent = (recent_requests, &after.recent_requests);
    found.note(needs, "recent_requests", recent, ToString::to_string);
    let bodies = (keep_bodies, &after.keep_bodies);
    found.note(needs, "keep_bodies", bodies, ToString::to_string);
    found.note(needs, "otlp_endpoint", (otlp_endpoint, &after.otlp_endpoint), masked);
    found.note(needs, "trace_ratio", (trace_ratio, &after.trace_ratio), set);
    found.note(needs, "cors_origins", (cors_origins, &after.cors_origins), |it| list(it));
    found.note(needs, "allowed_hosts", (allowed_hosts, &after.allowed_hosts), |it| list(it));
    found.note(needs, "trusted_proxies", (trusted_proxies, &after.trusted_proxies), |it| list(it));
    found.note(needs, "app_heartbeat", (app_heartbeat, &after.app_heartbeat), time);
    found.note(needs, "compression", (compression, &after.compression), |it| list(it));
    let timing = (server_timing, &after.server_timing);
    found.note(needs, "server_timing", timing, ToString::to_string);
    found.note(needs, "model_metadata", (model_metadata, &after.model_metadata), masked);
    found.note(needs, "presentation", (presentation, &after.presentation), masked);
    found.note(needs, "sdk", (sdk, &after.sdk), path);
    found.note(needs, "python flags", (python_flags, &after.python_flags), |it| list(it));
    let server = |change| RestartOption { endpoint: None, change };
    found.restart.into_iter().map(server).collect()
}

fn masked<T>(_: &T) -> String {
    MASKED.to_owned()
}

fn set<T: Display>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| UNSET.to_owned(), ToString::to_string)
}

fn duration(value: &Option<Duration>) -> String {
    value.as_ref().map_or_else(|| UNSET.to_owned(), |time| format!("{time:?}"))
}

fn path(value: &Option<PathBuf>) -> String {
    value.as_ref().map_or_else(|| UNSET.to_owned(), |path| path.display().to_string())
}

fn list<T: Display>(values: &[T]) -> String {
    if values.is_empty() {
        return "none".into();
    }
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn shown_value(value: &Value) -> String {
    match value {
        Value::Null => UNSET.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn workers(workers: &Workers) -> String {
    match workers {
        Workers::PerDevice(count) => format!("{count} per device"),
        Workers::Between { min, max } => format!("{min} to {max}"),
    }
}

/// Returns the holders of keys, and the file with more. The keys themselves are not shown.
fn keys(keys: &Option<ApiKeys>) -> String {
    let Some(ApiKeys { named, file }) = keys else { return UNSET.to_owned() };
    let file = file.iter().map(|file| format!("keys in {}", file.display()));
    list(&named.keys().map(|holder| format!("{holder}={MASKED}")).chain(file).collect::<Vec<_>>())
}

fn rate(rate: &Option<Rate>) -> String {
    let shown =
        |Rate { requests, per, burst }: &Rate| format!("{requests} in {per:?}, {burst} at once");
    rate.as_ref().map_or_else(|| UNSET.to_owned(), shown)
}

fn kind(source: &Source) -> &'static str {
    match source {
        Source::Rust => "a Rust model",
        Source::Python(_) => "a Python model",
        Source::Pipeline(_) => "a pipeline",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Origin, parse_toml, resolve};

    fn program(text: &str) -> Program {
        resolve(parse_toml(text).unwrap(), &Origin::File("/srv/litplex.toml".into())).unwrap()
    }

    fn endpoint(path: &str, options: &str) -> String {
        format!("[[endpoint]]\npath = \"{path}\"\napi = \"a:A\"\n{options}\n")
    }

    fn between(before: &str, after: &str) -> Diff {
        Diff::between(&program(before), &program(after), &ChangedFiles::default())
    }

    fn change(before: &str, after: &str) -> Change {
        between(&endpoint("/a", before), &endpoint("/a", after)).endpoints.remove(0).change
    }

    /// Returns the names of the changed options, and whether they need new workers.
    fn named(before: &str, after: &str) -> (bool, Vec<&'static str>) {
        let names = |options: Vec<OptionChange>| options.iter().map(|it| it.option).collect();
        match change(before, after) {
            Change::Options(options) => (false, names(options)),
            Change::Reload { options, .. } => (true, names(options)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_configuration_has_no_difference() {
        let text = endpoint("/a", "timeout = 5\nenv = { A = \"1\" }") + &endpoint("/b", "");
        let diff = between(&text, &text);
        assert!(diff.is_empty(), "{diff:?}");
        assert_eq!(diff.restart, []);
    }

    #[test]
    fn options_of_the_edge_and_the_queue_need_no_new_workers() {
        for (options, name) in [
            ("queue_timeout = 2", "queue_timeout"),
            ("max_queue = 3", "max_queue"),
            ("chunk_timeout = 3", "chunk_timeout"),
            ("ping_interval = 3", "ping_interval"),
            ("max_body_bytes = 10", "max_body_bytes"),
            ("rate_limit = \"10/s\"", "rate_limit"),
            ("max_requests_per_caller = 1", "max_requests_per_caller"),
            ("batch_callers = [\"ann\"]", "batch_callers"),
            ("api_keys = { ann = \"env:ANN\" }", "api_keys"),
            ("aliases = [\"b\"]", "aliases"),
            ("name = \"b\"", "name"),
        ] {
            assert_eq!(named("", options), (false, vec![name]), "{options}");
            assert_eq!(named(options, ""), (false, vec![name]), "{options}");
        }
        assert_eq!(named("", "timeout = 3"), (false, vec!["timeout", "chunk_timeout"]));
    }

    #[test]
    fn options_of_workers_need_new_ones() {
        for (options, name) in [
            ("max_batch_size = 8", "max_batch_size"),
            ("batch_timeout = 0.1", "batch_timeout"),
            ("stream = true", "stream"),
            ("workers_per_device = 2", "workers"),
            ("min_workers = 0\nmax_workers = 2", "workers"),
            ("threads = 2", "threads"),
            ("memory_limit = \"1GB\"", "memory_limit"),
            ("python = \"python3.12\"", "python"),
            ("preload = [\"torch\"]", "preload"),
            ("hibernate = true", "hibernate"),
            ("kill_after = false", "kill_after"),
            ("heartbeat = 2", "heartbeat"),
            ("idempotent = false", "idempotent"),
            ("args = { size = 3 }", "args"),
            ("env = { A = \"1\" }", "env"),
            ("devices = 1", "devices"),
            ("accelerator = \"cpu\"", "accelerator"),
        ] {
            assert_eq!(named("", options), (true, vec![name]), "{options}");
        }
        let both = named("", "timeout = 3\nmax_batch_size = 8");
        assert_eq!(both, (true, vec!["max_batch_size", "timeout", "chunk_timeout"]));
    }

    #[test]
    fn values_are_shown_and_secrets_are_not() {
        let shown = |before: &str, after: &str| match change(before, after) {
            Change::Options(options) | Change::Reload { options, .. } => {
                format!("{} → {}", options[0].before, options[0].after)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(shown("", "max_batch_size = 8"), "not set → 8");
        assert_eq!(shown("queue_timeout = 1.5", "queue_timeout = 2"), "1.5s → 2s");
        assert_eq!(shown("", "min_workers = 0\nmax_workers = 2"), "1 per device → 0 to 2");
        assert_eq!(shown("env = { A = \"one\" }", "env = { A = \"two\" }"), "A=… → A=…");
        assert_eq!(shown("args = { key = \"one\" }", "args = { key = \"two\" }"), "… → …");
        let keys = shown("", "api_keys = { ann = \"env:ANN\" }\napi_keys_file = \"keys\"");
        assert_eq!(keys, "not set → ann=…, keys in /srv/keys");
    }

    #[test]
    fn endpoints_are_added_and_removed_by_their_labels() {
        let (a, b, c) = (endpoint("/a", ""), endpoint("/b", ""), endpoint("/c", ""));
        let found = between(&(a.clone() + &b), &(c + &a)).endpoints;
        let found: Vec<_> = found.iter().map(|it| (&*it.label, &it.change)).collect();
        let expected =
            [("/c", &Change::Added), ("/a", &Change::Unchanged), ("/b", &Change::Removed)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_second_endpoint_at_a_path_changes_the_label_of_the_first() {
        let at = |name: &str| endpoint("/v1/embeddings", &format!("name = \"{name}\""));
        let found = between(&at("one"), &(at("one") + &at("two"))).endpoints;
        let found: Vec<_> = found.iter().map(|it| (&*it.label, &it.change)).collect();
        let expected = [
            ("one", &Change::Added),
            ("two", &Change::Added),
            ("/v1/embeddings", &Change::Removed),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn changed_files_need_new_workers() {
        let program = program(&(endpoint("/a", "") + &endpoint("/b", "")));
        let endpoints = BTreeMap::from([("/b".to_owned(), vec![PathBuf::from("b.py")])]);
        let files = ChangedFiles { endpoints, app_host: Vec::new() };
        let found = Diff::between(&program, &program, &files).endpoints;
        assert_eq!(found[0].change, Change::Unchanged);
        let files = vec![PathBuf::from("b.py")];
        assert_eq!(found[1].change, Change::Reload { options: Vec::new(), files });
    }

    #[test]
    fn options_of_the_server_and_of_the_log_need_a_restart() {
        let before = format!("port = 1\n{}", endpoint("/a", ""));
        let after = format!(
            "port = 2\nhttp_threads = 3\napi_keys = {{ ann = \"env:ANN\" }}\n{}",
            endpoint("/a", "log_level = \"debug\"")
        );
        let diff = between(&before, &after);
        assert!(diff.is_empty());
        let found = diff.restart.iter().map(|it| (it.endpoint.as_deref(), it.change.option));
        let expected =
            [(None, "port"), (None, "http_threads"), (None, "api_keys"), (Some("/a"), "log_level")];
        assert!(found.eq(expected), "{:?}", diff.restart);
    }

    #[test]
    fn a_pipeline_has_no_workers_to_replace() {
        let pipeline = |step: &str| {
            format!(
                "{}[[endpoint]]\npath = \"/p\"\npipeline = [{{ call = \"{step}\" }}]\n",
                endpoint("/a", "")
            ) + &endpoint("/b", "")
        };
        let found = between(&pipeline("/a"), &pipeline("/b"));
        let change = &found.endpoints[1].change;
        assert!(matches!(change, Change::Options(options) if options[0].option == "pipeline"));
        let model = between(&endpoint("/p", ""), &pipeline("/a"));
        let change = &model.endpoints[1].change;
        assert!(matches!(change, Change::Reload { options, .. } if options[0].option == "model"));
    }

    #[test]
    fn an_app_host_follows_its_program_and_its_endpoints() {
        let sdk = |paths: &[&str], direct: &[&str]| {
            let endpoints: Vec<_> =
                paths.iter().map(|path| json!({"path": path, "source": {}})).collect();
            let raw = json!({"endpoint": endpoints, "app_host": {"direct": direct}});
            resolve(raw.as_object().cloned().unwrap(), &Origin::Sdk).unwrap()
        };
        let before = sdk(&["/a"], &[]);
        let none = ChangedFiles::default();
        let differs = |after: &Program| Diff::between(&before, after, &none).app_host;
        assert!(!differs(&sdk(&["/a"], &[])));
        assert!(differs(&sdk(&["/a"], &["/livez"])));
        assert!(differs(&sdk(&["/a", "/b"], &[])));
        assert!(differs(&sdk(&["/b"], &[])));
        let app_host = vec![PathBuf::from("app.py")];
        let files = ChangedFiles { app_host: app_host.clone(), ..ChangedFiles::default() };
        let diff = Diff::between(&before, &before, &files);
        assert_eq!((diff.is_empty(), diff.app_host, diff.app_files), (false, true, app_host));
        let without = program(&endpoint("/a", ""));
        assert!(Diff::between(&without, &without, &files).is_empty(), "it has no app host");
    }
}
