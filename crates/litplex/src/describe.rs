//! What a program would serve, for people.

use std::path::PathBuf;
use std::time::Duration;

use litplex_config::{Endpoint, Program, Rate, Resources, Source, Workers};

use crate::routes::describe_routes;
use crate::tls;

/// Describes a server and its endpoints as resolved, a line for each setting.
pub(crate) fn describe(program: &Program) -> String {
    let Program { host, port, grace, .. } = program;
    let scheme = tls::scheme(program);
    let head = format!("listens on  {scheme}://{host}:{port}\ngrace       {grace:?}\n");
    let endpoints: String = program.endpoints.iter().map(describe_endpoint).collect();
    format!("{head}{endpoints}\nroutes, and who may call them\n{}", describe_routes(program))
}

fn describe_endpoint(endpoint: &Endpoint) -> String {
    let sections = [how_it_runs(endpoint), how_it_batches(endpoint), what_it_allows(endpoint)];
    let rows =
        sections.into_iter().flatten().map(|(name, value)| format!("  {name:<24} {value}\n"));
    format!("\nPOST {}\n{}", endpoint.path, rows.collect::<String>())
}

type Rows = Vec<(&'static str, String)>;

fn how_it_runs(endpoint: &Endpoint) -> Rows {
    let python = endpoint.python.as_ref().map(|python| python.display());
    let mut rows = vec![
        ("model", model(&endpoint.source)),
        ("python", chosen(python, "default")),
        ("requirements", chosen(endpoint.requirements.as_ref().map(|file| file.display()), "none")),
        ("cwd", chosen(endpoint.cwd.as_ref().map(|cwd| cwd.display()), "the server's own")),
        ("pythonpath", paths(&endpoint.pythonpath)),
        ("accelerator", endpoint.accelerator.clone()),
        ("devices", endpoint.devices.to_string()),
    ];
    match endpoint.workers {
        Workers::PerDevice(workers) => rows.push(("workers_per_device", workers.to_string())),
        Workers::Between { min, max } => {
            rows.push(("min_workers", min.to_string()));
            rows.push(("max_workers", max.to_string()));
        }
    }
    let Resources { threads, cpu_affinity, memory_limit, gpu_memory_fraction, isolate_devices } =
        &endpoint.resources;
    rows.push(("threads", chosen(*threads, "a fair share of the cores")));
    rows.push(("cpu_affinity", chosen(cpu_affinity.as_deref().map(list), "all")));
    rows.push(("memory_limit", chosen(*memory_limit, "none")));
    rows.push(("gpu_memory_fraction", chosen(*gpu_memory_fraction, "no limit")));
    rows.push(("isolate_devices", isolate_devices.to_string()));
    rows.push(("log_level", chosen(endpoint.log_level.as_ref(), "info")));
    rows.push(("log_file", chosen(endpoint.log_file.as_ref().map(|file| file.display()), "none")));
    rows.push(("max_concurrency", chosen(endpoint.max_concurrency, BY_THE_MODEL)));
    rows
}

fn how_it_batches(endpoint: &Endpoint) -> Rows {
    vec![
        ("max_batch_size", chosen(endpoint.max_batch_size, BY_THE_MODEL)),
        ("batch_timeout", chosen(endpoint.batch_timeout.map(duration), BY_THE_MODEL)),
        ("cost", chosen(endpoint.cost.as_ref(), BY_THE_MODEL)),
        ("max_batch_cost", chosen(endpoint.max_batch_cost, "no limit")),
        ("retry_batch_singly", chosen(endpoint.retry_batch_singly, "as `idempotent`")),
        ("stream", chosen(endpoint.stream, BY_THE_MODEL)),
    ]
}

fn what_it_allows(endpoint: &Endpoint) -> Rows {
    vec![
        ("timeout", duration(endpoint.timeout)),
        ("chunk_timeout", duration(endpoint.chunk_timeout)),
        ("queue_timeout", chosen(endpoint.queue_timeout.map(duration), "as `timeout`")),
        ("kill_after", chosen(endpoint.kill_after.map(duration), "never")),
        ("heartbeat", duration(endpoint.heartbeat)),
        ("idempotent", chosen(endpoint.idempotent, "true, false for streams")),
        ("max_queue", chosen(endpoint.max_queue, "what the workers can answer within `timeout`")),
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

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn duration(duration: Duration) -> String {
    format!("{duration:?}")
}

fn model(source: &Source) -> String {
    match source {
        Source::Rust => "a Rust model".to_owned(),
        Source::Python(source) => match source["kind"].as_str() {
            Some("reference") => source["name"].as_str().unwrap_or_default().to_owned(),
            _ => "an instance made by the program".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use litplex_config::{Origin, parse_toml, resolve};

    use super::*;

    fn described(options: &str) -> String {
        let text = format!("[[endpoint]]\npath = \"/a\"\napi = \"a:A\"\n{options}");
        describe(
            &resolve(parse_toml(&text).unwrap(), &Origin::File("litplex.toml".into())).unwrap(),
        )
    }

    #[test]
    fn every_setting_has_a_line() {
        let text = described(
            "timeout = 1.5\nkill_after = false\ncost = \"text:words\"\ncpu_affinity = [0, 2]",
        );
        for line in [
            "listens on  http://127.0.0.1:8000",
            "POST /a",
            "  model                    a:A",
            "  workers_per_device       1",
            "  threads                  a fair share of the cores",
            "  cpu_affinity             0, 2",
            "  cost                     text:words",
            "  timeout                  1.5s",
            "  chunk_timeout            1.5s",
            "  kill_after               never",
            "  heartbeat                2s",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn workers_that_come_and_go_are_said_as_they_were_given() {
        let text = described("min_workers = 1\nmax_workers = 3");
        assert!(
            text.contains("min_workers              1\n  max_workers              3"),
            "{text}"
        );
        assert!(!text.contains("workers_per_device"), "{text}");
    }
}
