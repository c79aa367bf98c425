//! `litplex ps`: shows the running servers.

use clap::Args;
use litplex_admin::{
    EndpointStatus, GenerationState, GenerationStatus, MemoryStatus, Status, Tier, WorkerStatus,
};
use litplex_core::size_in_words;

use crate::say::{printable, say, say_json};
use crate::servers::ServerArgs;
use crate::table::{columns, duration};

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Ps {
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
Examples:
  litplex ps                                             every server, endpoint and worker
  litplex ps --port 8000 --json | jq '.endpoints[].queued'
  LITPLEX_ADMIN_KEY=lpx_… litplex ps --url https://gpu7:9000

Without --port, all servers of this user are shown; --json prints a line for each.
REQUESTS are those that have ended, as litplex_requests_total on /metrics counts them; QUEUED and
IN FLIGHT are jobs, of which a request with several inputs is as many.

Exit status: 1 when no server is running.";

pub(crate) fn run(ps: &Ps) -> anyhow::Result<()> {
    let statuses: Vec<_> = ps.server.all()?.into_iter().map(|it| it.status).collect();
    if ps.server.json {
        for status in &statuses {
            say_json(status)?;
        }
    } else {
        let tables: Vec<_> = statuses.iter().map(table).collect();
        say(&tables.join("\n"))?;
    }
    Ok(())
}

type Row = [String; 15];

const HEAD: [&str; 15] = [
    "ENDPOINT",
    "NAME",
    "KIND",
    "STATE",
    "WORKERS",
    "QUEUED",
    "IN FLIGHT",
    "REQUESTS",
    "DEVICE",
    "THREADS",
    "MEMORY",
    "PID",
    "READY FOR",
    "RESTARTS",
    "REASON",
];

/// Describes a server for people: a row for each endpoint, and below it one for each worker.
fn table(status: &Status) -> String {
    let Status { pid, url, uptime, .. } = status;
    let rows: Vec<_> = [HEAD.map(str::to_owned)]
        .into_iter()
        .chain(status.endpoints.iter().flat_map(rows_of_endpoint))
        .collect();
    let failed = status.failed_reload.as_ref().map(|failed| {
        let reason = first_line(Some(&failed.reason));
        format!("the last reload failed at {}: {reason}\n", failed.since)
    });
    let failed = failed.unwrap_or_default();
    let memory = status.memory.as_ref().map(held).unwrap_or_default();
    format!("{url}  pid {pid}  up {}{memory}\n{failed}\n{}", duration(*uptime), columns(&rows))
}

/// Says the memory that all workers have of what they may have.
fn held(memory: &MemoryStatus) -> String {
    let of = |held, budget| format!("{} of {}", size_in_words(held), size_in_words(budget));
    let gpus = memory.gpus.iter().filter(|gpu| gpu.held > 0);
    let gpus = gpus.map(|gpu| format!(" + {} of GPU {}", of(gpu.held, gpu.budget), gpu.index));
    let templates = Some(memory.templates).filter(|bytes| *bytes > 0);
    let templates = templates.map(|bytes| format!(" (templates {})", size_in_words(bytes)));
    let templates = templates.unwrap_or_default();
    format!("  memory {}{templates}{}", of(memory.held, memory.budget), String::from_iter(gpus))
}

fn rows_of_endpoint(endpoint: &EndpointStatus) -> Vec<Row> {
    let workers = endpoint.workers.iter().map(row_of_worker);
    // The rows of the workers show how far a first generation has come.
    let others = endpoint.generations.iter().filter(|it| it.generation > 1);
    let others = others.filter_map(row_of_generation);
    [row_of_endpoint(endpoint)].into_iter().chain(workers).chain(others).collect()
}

fn row_of_endpoint(endpoint: &EndpointStatus) -> Row {
    // What a worker's own row says need not be said twice.
    let problem = endpoint
        .problem
        .as_deref()
        .filter(|problem| endpoint.workers.iter().all(|it| it.reason.as_deref() != Some(problem)));
    // Of one without workers: what the next start will need, and why there is none.
    let away = endpoint.residency.as_ref().filter(|_| endpoint.workers.is_empty());
    let evicted = away.and_then(|it| it.last_eviction.as_ref()).map(|it| format!("evicted {it}"));
    [
        endpoint.path.clone(),
        endpoint.name.clone(),
        endpoint.kind.clone(),
        state(endpoint),
        workers(endpoint),
        endpoint.queued.to_string(),
        endpoint.in_flight.to_string(),
        endpoint.requests.to_string(),
        String::new(),
        String::new(),
        needed(endpoint),
        String::new(),
        String::new(),
        String::new(),
        first_line(problem.or(evicted.as_deref())),
    ]
}

fn row_of_worker(worker: &WorkerStatus) -> Row {
    [
        format!("  #{}", worker.slot),
        String::new(),
        String::new(),
        worker.state.clone(),
        String::new(),
        String::new(),
        worker.in_flight.to_string(),
        String::new(),
        worker.device.clone(),
        worker.threads.map(|threads| threads.to_string()).unwrap_or_default(),
        memory(worker),
        worker.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        worker.ready_for.map(duration).unwrap_or_default(),
        worker.restarts.to_string(),
        reason(worker),
    ]
}

/// Says the state of an endpoint, and of one that sleeps what its next worker starts from.
fn state(endpoint: &EndpointStatus) -> String {
    match endpoint.tier {
        Some(tier @ (Tier::Hibernated | Tier::Template)) if endpoint.workers.is_empty() => {
            format!("{} ({})", endpoint.state, tier.as_str())
        }
        _ => endpoint.state.clone(),
    }
}

/// Says the memory that the next worker of an endpoint without workers will need, if that was measured.
fn needed(endpoint: &EndpointStatus) -> String {
    let away = endpoint.residency.as_ref().filter(|_| endpoint.workers.is_empty());
    let Some(next) = away.filter(|next| next.is_measured) else { return String::new() };
    let on_gpu = Some(next.predicted_gpu).filter(|bytes| *bytes > 0);
    let on_gpu = on_gpu.map(|bytes| format!(" + {} of GPU", size_in_words(bytes)));
    format!("needs {}{}", size_in_words(next.predicted), on_gpu.unwrap_or_default())
}

/// Returns the row of a generation that starts, drains or failed: the rows above are those of the live one.
fn row_of_generation(generation: &GenerationStatus) -> Option<Row> {
    let GenerationStatus { generation, state, reason, .. } = generation;
    if matches!(state, GenerationState::Live | GenerationState::Ended) {
        return None;
    }
    let mut row = Row::default();
    row[0] = format!("  generation {generation}");
    row[3] = state.word().to_owned();
    row[14] = first_line(reason.as_deref());
    Some(row)
}

/// Says the memory of the process, and that on its GPU.
fn memory(worker: &WorkerStatus) -> String {
    let on_gpu = worker.gpu_memory.map(|memory| format!("{} of GPU", size_in_words(memory)));
    let parts: Vec<_> = worker.memory.map(size_in_words).into_iter().chain(on_gpu).collect();
    parts.join(" + ")
}

/// Says why a worker is not ready: while it starts, for how long, and the last line that it printed.
fn reason(worker: &WorkerStatus) -> String {
    let Some(seconds) = worker.starting_for else { return first_line(worker.reason.as_deref()) };
    let line = worker.last_line.as_ref().map(|line| &*line.text).or(worker.reason.as_deref());
    let colon = if line.is_some() { ": " } else { "" };
    format!("for {}{colon}{}", duration(seconds), printable(&first_line(line)))
}

/// Says how many workers are ready of how many there are to be, and between what they may move.
fn workers(endpoint: &EndpointStatus) -> String {
    let ready = endpoint.workers.iter().filter(|worker| worker.ready_for.is_some()).count();
    let wanted = endpoint.wanted;
    if endpoint.kind == "pipeline" {
        return String::new();
    }
    match (endpoint.min_workers, endpoint.max_workers) {
        (Some(min), Some(max)) => format!("{ready}/{wanted} ({min} to {max})"),
        _ => format!("{ready}/{wanted}"),
    }
}

fn first_line(text: Option<&str>) -> String {
    text.and_then(|text| text.lines().next()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use litplex_admin::LastLine;

    use super::*;

    fn worker(slot: usize, ready_for: Option<f64>, reason: Option<&str>) -> WorkerStatus {
        WorkerStatus {
            slot,
            state: if ready_for.is_some() { "ready" } else { "backing off" }.into(),
            pid: ready_for.map(|_| 4712),
            device: "cuda:0".into(),
            threads: Some(2),
            in_flight: 1,
            restarts: 2,
            ready_for,
            starting_for: None,
            reason: reason.map(str::to_owned),
            last_line: None,
            memory: ready_for.map(|_| 900 << 20),
            gpu_memory: ready_for.map(|_| 3 << 30),
        }
    }

    fn endpoint(path: &str, workers: Vec<WorkerStatus>) -> EndpointStatus {
        EndpointStatus {
            label: path.into(),
            path: path.into(),
            name: "Model".into(),
            aliases: Vec::new(),
            kind: "python".into(),
            state: "ready".into(),
            problem: None,
            wanted: workers.len(),
            min_workers: None,
            max_workers: None,
            queued: 3,
            in_flight: 1,
            requests: 120,
            batches: None,
            residency: None,
            tier: None,
            workers,
            generations: Vec::new(),
            sources: Vec::new(),
        }
    }

    #[test]
    fn a_table_has_a_row_for_each_endpoint_and_worker() {
        let killed = "its process was killed by signal 9";
        let embed = EndpointStatus {
            state: "degraded".into(),
            problem: Some(killed.into()),
            ..endpoint("/embed", vec![worker(0, Some(61.0), None), worker(1, None, Some(killed))])
        };
        let ocr = EndpointStatus {
            problem: Some("starting\nslowly".into()),
            min_workers: Some(0),
            max_workers: Some(4),
            ..endpoint("/ocr", Vec::new())
        };
        let status = Status {
            pid: 4711,
            url: "http://127.0.0.1:8000".into(),
            admin_url: None,
            gpus: Vec::new(),
            port: 8000,
            uptime: 7500.0,
            memory: None,
            failed_reload: None,
            endpoints: vec![embed, ocr],
        };
        let wanted = "\
http://127.0.0.1:8000  pid 4711  up 2h 5m

ENDPOINT  NAME   KIND    STATE        WORKERS       QUEUED  IN FLIGHT  REQUESTS  DEVICE  THREADS  MEMORY                       PID   READY FOR  RESTARTS  REASON
/embed    Model  python  degraded     1/2           3       1          120
  #0                     ready                              1                    cuda:0  2        943.7 MB + 3.2 GB of GPU     4712  1m 1s      2
  #1                     backing off                        1                    cuda:0  2                                                      2         its process was killed by signal 9
/ocr      Model  python  ready        0/0 (0 to 4)  3       1          120                                                                       starting
";
        assert_eq!(table(&status).replace(' ', ""), wanted.replace(' ', ""));
    }

    #[test]
    fn a_worker_that_starts_shows_how_far_it_is() {
        let text = "shard 1 of 4\u{1b}[31m\n".to_owned();
        let last_line = Some(LastLine { timestamp: "T".into(), text });
        let starting =
            WorkerStatus { starting_for: Some(61.0), last_line, ..worker(0, None, Some("killed")) };
        assert_eq!(reason(&starting), "for 1m 1s: shard 1 of 4\\u{1b}[31m");
        let silent = WorkerStatus { last_line: None, ..starting };
        assert_eq!(reason(&silent), "for 1m 1s: killed");
        assert_eq!(reason(&WorkerStatus { reason: None, ..silent }), "for 1m 1s");
    }
}
