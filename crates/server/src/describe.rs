//! The text that `litplex check` prints of a program.

use std::path::PathBuf;
use std::time::Duration;

use litplex_calls::{graph_json, graph_text};
use litplex_config::{
    AdminAccess, AdminAddress, Endpoint, Origin, Program, Rate, Resources, Source, Swap, Workers,
};
use litplex_workers::{Inspected, default_interpreter};
use serde_json::{Map, Value, json};

use crate::controls::kind;
use crate::declared_calls::{inspected_cycles, inspected_edges};
use crate::placement::{Placement, gpus, place_all};
use crate::routes::{key_holders, operators, routes_json, routes_text};
use crate::tls;

/// The rows that are shown even if they have their defaults.
const ALWAYS: [&str; 4] = ["name", "model", "python", "cwd"];

/// The default of `threads`, where the number is not known.
const BY_THE_CORES: &str = "a fair share of the cores";

/// The rows of a pipeline, which has no workers.
const PIPELINE_ROWS: [&str; 8] = [
    "name",
    "aliases",
    "model",
    "timeout",
    "chunk_timeout",
    "max_body_bytes",
    "rate_limit",
    "max_requests_per_caller",
];

/// Describes a server and its endpoints as resolved and as their models are: a line for each
/// setting that differs from its default, and where `all` is set for the others after it.
pub fn describe(program: &Program, inspected: &[Inspected], all: bool) -> String {
    let Program { host, port, grace, .. } = program;
    let scheme = tls::scheme(program);
    let admin = program.admin.as_ref().map(|admin| admin_line(program, admin, scheme));
    let admin = admin.unwrap_or_default();
    let head = format!("listens on  {scheme}://{host}:{port}\n{admin}grace       {grace:?}\n");
    let placed = place_all(&program.endpoints).unwrap_or_else(|_| vec![None; inspected.len()]);
    let endpoints = program.endpoints.iter().zip(inspected).zip(&placed);
    let endpoints: String = endpoints
        .map(|((endpoint, model), placed)| describe_endpoint(endpoint, model, placed.as_ref(), all))
        .collect();
    let rest = if all { "" } else { "\nall else is as by default; --all shows it\n" };
    let routes = routes_text(program, inspected);
    let cycles = inspected_cycles(&program.endpoints, inspected, gpus());
    let cycles: String = cycles.iter().map(|cycle| format!("\nwarning: {cycle}\n")).collect();
    let graph = graph_text(&inspected_edges(&program.endpoints, inspected));
    let graph: String = graph.lines().map(|line| format!("  {line}\n")).collect();
    let calls = if graph.is_empty() { "" } else { "\ncalls between endpoints\n" };
    format!(
        "{head}{endpoints}{rest}\nroutes, and who may call them\n{routes}{calls}{graph}{cycles}"
    )
}

/// Returns the line about the admin API: its addresses, and which keys open it.
fn admin_line(program: &Program, admin: &AdminAccess, scheme: &str) -> String {
    let url = |host: &str, port: u16| format!("{scheme}://{host}:{port}");
    let own = admin.port.as_ref().map(|AdminAddress { host, port }| url(host, *port));
    let shared = || format!("{}/dashboard", url(&program.host, program.port));
    let places = own.into_iter().chain(program.routes.dashboard.then(shared));
    let places: Vec<_> = places.collect();
    format!("admin API   {}, for keys of {}\n", places.join(" and "), operators(admin))
}

/// Describes a server as `litplex check --json` shows it: its address, its routes with who may call them, and
/// the graph of its endpoints.
pub fn describe_json(program: &Program, inspected: &[Inspected]) -> Value {
    let nodes = program.endpoints.iter().map(|it| (&*it.identity, kind(&it.source)));
    json!({
        "scheme": tls::scheme(program),
        "host": program.host,
        "port": program.port,
        "admin": program.admin.as_ref().map(|admin| json!({
            "host": admin.port.as_ref().map(|address| &address.host),
            "port": admin.port.as_ref().map(|address| address.port),
            "dashboard": program.routes.dashboard,
            "callers": admin.keys.as_ref().map(key_holders),
            "readers": admin.read_keys.as_ref().map(key_holders),
        })),
        "routes": routes_json(program, inspected),
        "graph": graph_json(nodes, &inspected_edges(&program.endpoints, inspected)),
    })
}

fn describe_endpoint(
    endpoint: &Endpoint,
    model: &Inspected,
    placed: Option<&Placement>,
    all: bool,
) -> String {
    let by_default = rows(&default_endpoint(model));
    let is_default = |row: &(&str, String)| by_default.contains(row) && !ALWAYS.contains(&row.0);
    let (default, chosen): (Vec<_>, Vec<_>) =
        rows(&with_model(endpoint.clone(), model)).into_iter().partition(is_default);
    let threads = threads_row(endpoint, placed);
    let shown = chosen.into_iter().chain(threads.clone()).chain(model_rows(endpoint, model));
    let has_number = threads.is_some();
    let is_unsaid = |row: &(&str, String)| all && !(has_number && row.0 == "threads");
    let shown = shown.chain(default.into_iter().filter(is_unsaid));
    let lines = shown.map(|(name, value)| format!("  {name:<24} {value}\n"));
    let graph = match &endpoint.source {
        Source::Pipeline(graph) => graph.to_string(),
        Source::Rust | Source::Python(_) => String::new(),
    };
    let graph = graph.lines().map(|line| format!("    {line}\n"));
    let lines: String = lines.chain(graph).collect();
    format!("\nPOST {}\n{lines}", endpoint.path())
}

type Rows = Vec<(&'static str, String)>;

/// Returns the options of an endpoint, each with its value and whether it has its default.
pub(crate) fn endpoint_options(
    endpoint: &Endpoint,
) -> impl Iterator<Item = (&'static str, String, bool)> {
    let by_default = rows(&default_endpoint(&Inspected::default()));
    rows(endpoint).into_iter().map(move |row| {
        let is_default = by_default.contains(&row);
        (row.0, row.1, is_default)
    })
}

fn rows(endpoint: &Endpoint) -> Rows {
    let sections = [how_it_runs(endpoint), how_it_batches(endpoint), what_it_allows(endpoint)];
    let rows = sections.into_iter().flatten();
    match endpoint.source {
        Source::Pipeline(_) => rows.filter(|(name, _)| PIPELINE_ROWS.contains(name)).collect(),
        Source::Rust | Source::Python(_) => rows.collect(),
    }
}

/// Returns an endpoint with default options, and a model with default properties.
fn default_endpoint(model: &Inspected) -> Endpoint {
    let raw = json!({"endpoint": [{"path": "/predict", "source": {}}]});
    let raw: Map<_, _> = raw.as_object().cloned().unwrap_or_default();
    let program = litplex_config::resolve(raw, &Origin::Sdk);
    let endpoint = program.map(|mut program| program.endpoints.remove(0));
    let plain = Inspected {
        max_batch_size: model.max_batch_size.map(|_| 1),
        batch_timeout: model.batch_timeout.map(|_| 0.0),
        stream: model.stream.map(|_| false),
        ..Inspected::default()
    };
    with_model(endpoint.expect("it has no mistakes. This is a bug."), &plain)
}

/// Fills options that the configuration leaves open with those of the model.
fn with_model(mut endpoint: Endpoint, model: &Inspected) -> Endpoint {
    let timeout = model.batch_timeout.and_then(|s| Duration::try_from_secs_f64(s).ok());
    endpoint.max_batch_size = endpoint.max_batch_size.or(model.max_batch_size);
    endpoint.batch_timeout = endpoint.batch_timeout.or(timeout);
    endpoint.stream = endpoint.stream.or(model.stream);
    endpoint
}

/// Returns the number of CPU threads of each worker by default, which depends on the other endpoints.
fn threads_row(endpoint: &Endpoint, placed: Option<&Placement>) -> Option<(&'static str, String)> {
    let has_default =
        matches!(endpoint.source, Source::Python(_)) && endpoint.resources.threads.is_none();
    let placed = placed.filter(|_| has_default)?;
    Some(("threads", placed.threads.to_string()))
}

/// Returns the rows that come from the inspection of the model.
fn model_rows(endpoint: &Endpoint, model: &Inspected) -> Rows {
    let mut rows = Vec::new();
    if model.is_unmade {
        let text =
            "not checked: the environment of `requirements` is not made yet; --load makes it";
        rows.push(("model", text.to_owned()));
    }
    if let Some(path) = &model.spec {
        let elsewhere = if endpoint.path().ends_with(path.trim_start_matches("/v1")) {
            ""
        } else {
            "; they do not reach this path"
        };
        rows.push(("spec", format!("OpenAI's, whose clients ask at {path}{elsewhere}")));
    }
    if !model.calls.is_empty() {
        rows.push(("calls", model.calls.join(", ")));
    }
    if model.tool {
        rows.push(("mcp", "offered as a tool at /mcp".to_owned()));
    }
    rows
}

fn how_it_runs(endpoint: &Endpoint) -> Rows {
    let python = endpoint.python.clone().unwrap_or_else(default_interpreter);
    let mut rows = vec![
        ("name", endpoint.identity.name.clone()),
        ("aliases", names(&endpoint.identity.aliases)),
        ("model", model(&endpoint.source)),
        ("python", python.display().to_string()),
        ("requirements", chosen(endpoint.requirements.as_ref().map(|file| file.display()), "none")),
        ("cwd", chosen(endpoint.cwd.as_ref().map(|cwd| cwd.display()), "the server's own")),
        ("pythonpath", paths(&endpoint.pythonpath)),
        ("preload", preload(endpoint)),
        ("accelerator", endpoint.accelerator.clone()),
        ("devices", endpoint.devices.to_string()),
    ];
    rows.extend(numbers_of_workers(endpoint));
    rows.extend(resources(endpoint));
    rows.push(("log_level", chosen(endpoint.log_level.as_ref(), "info")));
    rows.push(("log_file", chosen(endpoint.log_file.as_ref().map(|file| file.display()), "none")));
    rows.push(("max_concurrency", chosen(endpoint.max_concurrency, BY_THE_MODEL)));
    rows
}

fn preload(endpoint: &Endpoint) -> String {
    match &endpoint.preload {
        Some(modules) => chosen((!modules.is_empty()).then(|| modules.join(", ")), "none"),
        None if endpoint.workers.may_grow() => "what workers import".into(),
        None => "none".into(),
    }
}

fn numbers_of_workers(endpoint: &Endpoint) -> Rows {
    match endpoint.workers {
        Workers::PerDevice(workers) => vec![("workers_per_device", workers.to_string())],
        Workers::Between { min, max } => {
            vec![
                ("min_workers", min.to_string()),
                ("max_workers", max.to_string()),
                ("keep_alive", endpoint.residency.keep_alive.to_string()),
            ]
        }
    }
}

fn resources(endpoint: &Endpoint) -> Rows {
    let Resources {
        threads,
        cpu_affinity,
        device_weight,
        memory_limit,
        gpu_memory_fraction,
        isolate_devices,
    } = &endpoint.resources;
    vec![
        ("threads", chosen(*threads, BY_THE_CORES)),
        ("cpu_affinity", chosen(cpu_affinity.as_deref().map(list), "all")),
        ("device_weight", device_weight.to_string()),
        ("memory_limit", chosen(*memory_limit, "none")),
        ("gpu_memory_fraction", chosen(*gpu_memory_fraction, "no limit")),
        ("isolate_devices", isolate_devices.to_string()),
        ("pinned", endpoint.residency.is_pinned.to_string()),
        ("hibernate", endpoint.residency.hibernates.to_string()),
        ("memory", chosen(endpoint.residency.memory, "as measured")),
        ("gpu_memory", chosen(endpoint.residency.gpu_memory, "as measured")),
    ]
}

fn how_it_batches(endpoint: &Endpoint) -> Rows {
    vec![
        ("max_batch_size", chosen(endpoint.max_batch_size, BY_THE_MODEL)),
        ("batch_timeout", chosen(endpoint.batch_timeout.map(duration), BY_THE_MODEL)),
        ("batch_policy", if endpoint.has_fixed_batches { "fixed" } else { "adaptive" }.into()),
        ("cost", chosen(endpoint.cost.as_ref(), BY_THE_MODEL)),
        ("max_batch_cost", chosen(endpoint.max_batch_cost, "no limit")),
        ("retry_batch_singly", chosen(endpoint.retry_batch_singly, "as `idempotent`")),
        ("stream", chosen(endpoint.stream, BY_THE_MODEL)),
    ]
}

fn what_it_allows(endpoint: &Endpoint) -> Rows {
    vec![
        ("timeout", duration(endpoint.timeout)),
        ("chunk_timeout", {
            let own = Some(endpoint.chunk_timeout).filter(|own| *own != endpoint.timeout);
            chosen(own.map(duration), "as `timeout`")
        }),
        ("queue_timeout", chosen(endpoint.queue_timeout.map(duration), "as `timeout`")),
        ("kill_after", chosen(endpoint.kill_after.map(duration), "never")),
        ("heartbeat", duration(endpoint.heartbeat)),
        ("idempotent", chosen(endpoint.idempotent, "true, false for streams")),
        ("max_queue", chosen(endpoint.max_queue, "what the workers can answer within `timeout`")),
        ("queue_order", if endpoint.keeps_arrival_order { "arrival" } else { "adaptive" }.into()),
        ("warmup", chosen(endpoint.warmup, "0, and 1 at a reload if there is an example")),
        ("swap", chosen(endpoint.swap.map(swap), "as the memory allows")),
        ("max_body_bytes", endpoint.max_body_bytes.to_string()),
        ("rate_limit", chosen(endpoint.rate_limit.map(rate), "none")),
        ("max_requests_per_caller", chosen(endpoint.max_requests_per_caller, "no limit")),
    ]
}

const BY_THE_MODEL: &str = "as the model says";

fn chosen(value: Option<impl ToString>, otherwise: &str) -> String {
    value.map_or_else(|| otherwise.into(), |value| value.to_string())
}

fn rate(rate: Rate) -> String {
    let Rate { requests, per, burst } = rate;
    format!("{requests} in {}, {burst} at once", duration(per))
}

fn paths(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    if shown.is_empty() { "nothing besides".into() } else { shown.join(", ") }
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn duration(duration: Duration) -> String {
    format!("{duration:?}")
}

fn model(source: &Source) -> String {
    match source {
        Source::Rust => "a Rust model".to_owned(),
        Source::Pipeline(_) => "a pipeline".to_owned(),
        Source::Python(source) => match source["kind"].as_str() {
            Some("reference") => source["name"].as_str().unwrap_or_default().to_owned(),
            _ => "an instance made by the program".to_owned(),
        },
    }
}

fn swap(swap: Swap) -> &'static str {
    match swap {
        Swap::Overlap => "overlap",
        Swap::InPlace => "in_place",
    }
}

#[cfg(test)]
mod tests {
    use litplex_config::{Origin, parse_toml, resolve};

    use super::*;

    fn described(options: &str, model: &Inspected, all: bool) -> String {
        let text = format!("[[endpoint]]\npath = \"/a\"\napi = \"a:A\"\n{options}");
        let origin = Origin::File("litplex.toml".into());
        let program = resolve(parse_toml(&text).unwrap(), &origin).unwrap();
        describe(&program, std::slice::from_ref(model), all)
    }

    #[test]
    fn every_setting_has_a_line() {
        let text = described(
            "timeout = 1.5\nkill_after = false\ncost = \"text:words\"\ncpu_affinity = [0, 2]",
            &Inspected::default(),
            true,
        );
        for line in [
            "listens on  http://127.0.0.1:8000",
            "POST /a",
            "  model                    a:A",
            "  workers_per_device       1",
            "  cpu_affinity             0, 2",
            "  cost                     text:words",
            "  timeout                  1.5s",
            "  chunk_timeout            as `timeout`",
            "  kill_after               never",
            "  heartbeat                2s",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn the_number_of_threads_is_shown() {
        let threads = |options| {
            let text = described(options, &Inspected::default(), true);
            let lines = text.lines().filter_map(|line| line.trim().strip_prefix("threads "));
            lines.map(|threads| threads.trim().to_owned()).collect::<Vec<_>>()
        };
        let cores = std::thread::available_parallelism().unwrap();
        assert_eq!(threads("env = { A = \"b\" }"), [cores.to_string()]);
        assert_eq!(threads("threads = 3"), ["3"]);
        assert_eq!(threads("cpu_affinity = [1023]"), [BY_THE_CORES], "they are not there");
    }

    #[test]
    fn the_port_of_the_admin_api_is_shown_with_the_holders_of_its_keys() {
        let text = "admin_port = 9000\nadmin_keys = { ann = \"env:ANN\" }\n\
                    admin_read_keys_file = \"look\"\n[[endpoint]]\npath = \"/a\"\napi = \"a:A\"";
        let origin = Origin::File("/etc/litplex.toml".into());
        let program = resolve(parse_toml(text).unwrap(), &origin).unwrap();
        let text = describe(&program, &[Inspected::default()], false);
        let line =
            "admin API   http://127.0.0.1:9000, for keys of ann; only to read: keys in /etc/look";
        assert!(text.lines().any(|found| found == line), "{text}");
        let json = describe_json(&program, &[Inspected::default()]);
        assert_eq!(
            (&json["admin"]["port"], &json["admin"]["callers"]),
            (&json!(9000), &json!("ann"))
        );
    }

    #[test]
    fn workers_that_come_and_go_are_said_as_they_were_given() {
        let text = described("min_workers = 1\nmax_workers = 3", &Inspected::default(), false);
        assert!(
            text.contains("min_workers              1\n  max_workers              3"),
            "{text}"
        );
        assert!(!text.contains("workers_per_device"), "{text}");
    }

    #[test]
    fn what_differs_comes_first_and_the_rest_where_all_is_wanted() {
        let model = Inspected {
            max_batch_size: Some(8),
            batch_timeout: Some(0.0),
            stream: Some(false),
            spec: Some("/v1/embeddings".into()),
            ..Inspected::default()
        };
        let some = described("timeout = 5", &model, false);
        let endpoint = some.split("\n\n").nth(1).unwrap();
        let names: Vec<_> =
            endpoint.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(
            names,
            ["name", "model", "python", "cwd", "max_batch_size", "timeout", "threads", "spec"]
        );
        assert!(some.contains("ask at /v1/embeddings; they do not reach this path"), "{some}");
        assert!(some.contains("--all shows it"), "{some}");
        let all = described("timeout = 5", &model, true);
        assert!(all.find("  timeout  ").unwrap() < all.find("  heartbeat  ").unwrap(), "{all}");
    }
}
