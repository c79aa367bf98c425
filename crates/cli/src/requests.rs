//! `litplex requests`: shows the last requests of a server, or the slowest.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use litplex_admin::{Client, RequestSummary};
use litplex_core::size_in_words;

use crate::say::{printable, say, say_json};
use crate::servers::ServerArgs;
use crate::table::{clock, columns, seconds};

/// The time between two readings of a server whose requests are followed.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most requests that are shown of each second: an endpoint remembers no more by default.
const MOST_FOLLOWED: &str = "1000";

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Requests {
    /// Only requests of this endpoint: its path or name
    endpoint: Option<String>,
    /// Show the slowest of the last 15 minutes, instead of the last ones
    #[arg(long)]
    slowest: bool,
    /// Only requests with this status, such as 503, or class of statuses: 5xx
    #[arg(long)]
    status: Option<String>,
    /// The number of requests
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
    number: usize,
    /// Show the next requests as they end
    #[arg(short, long, conflicts_with = "slowest")]
    follow: bool,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
An endpoint remembers its last 200 requests (option `recent_requests`), the last 50 that failed, and the
20 slowest. Above 1,000 requests a second only a part is remembered: all that are slow or fail, and a
sample of the others. QUEUE includes COLD START; a request with several jobs has the longest times.
`litplex trace ID` shows where the time of one went. --json prints a line for each.

Examples:
  litplex requests /ocr --slowest
  litplex requests --status 5xx -f";

pub(crate) fn run(requests: &Requests) -> anyhow::Result<()> {
    let client = requests.server.client()?;
    let limit = requests.number.to_string();
    let mut shown = read(&client, requests, &limit)?;
    // The slowest first; otherwise the last at the end, where the next ones follow.
    if !requests.slowest {
        shown.reverse();
    }
    print(requests, &shown, true)?;
    if !requests.follow {
        return Ok(());
    }
    let mut seen: HashSet<_> =
        read(&client, requests, MOST_FOLLOWED)?.iter().chain(&shown).map(identity).collect();
    loop {
        sleep(INTERVAL);
        let mut found = read(&client, requests, MOST_FOLLOWED)?;
        found.reverse();
        let new: Vec<_> =
            found.iter().filter(|it| !seen.contains(&identity(it))).cloned().collect();
        print(requests, &new, false)?;
        seen = found.iter().map(identity).collect();
    }
}

fn read(client: &Client, requests: &Requests, limit: &str) -> anyhow::Result<Vec<RequestSummary>> {
    let query = [
        ("endpoint", requests.endpoint.as_deref()),
        ("slowest", requests.slowest.then_some("true")),
        ("status", requests.status.as_deref()),
        ("limit", Some(limit)),
    ];
    let query = query.into_iter().filter_map(|(name, value)| Some((name, value?)));
    Ok(client.requests(&Vec::from_iter(query))?.requests)
}

/// Returns the number by which the server knows a request: clients may choose ids that others have.
fn identity(request: &RequestSummary) -> u64 {
    request.number
}

fn print(requests: &Requests, shown: &[RequestSummary], has_head: bool) -> anyhow::Result<()> {
    if requests.server.json {
        return shown.iter().try_for_each(say_json);
    }
    let head = has_head.then(|| HEAD.map(str::to_owned));
    let rows = Vec::from_iter(head.into_iter().chain(shown.iter().map(row)));
    if rows.is_empty() { Ok(()) } else { say(&columns(&rows)) }
}

const HEAD: [&str; 13] = [
    "TIME",
    "ID",
    "REQUEST",
    "STATUS",
    "DURATION",
    "QUEUE",
    "COLD START",
    "WORKER",
    "PREDICT",
    "IN",
    "OUT",
    "BY",
    "ATTEMPTS",
];

fn row(request: &RequestSummary) -> [String; 13] {
    let of = |part: f64| if part > 0.0 { seconds(part) } else { String::new() };
    let stages = &request.stages;
    [
        clock(request.time),
        request.id.clone(),
        format!("{} {}", request.method, request.path),
        request.status.to_string(),
        seconds(request.duration),
        of(stages.queue),
        of(stages.cold_start),
        of(stages.worker),
        of(stages.predict),
        request.bytes_in.map(size_in_words).unwrap_or_default(),
        size_in_words(request.bytes_out),
        request.worker.map(|slot| format!("{}#{slot}", request.endpoint)).unwrap_or_default(),
        request.attempts.to_string(),
    ]
    .map(|cell| printable(&cell))
}

#[cfg(test)]
pub(crate) mod tests {
    use litplex_admin::StageSeconds;

    use super::*;

    /// Returns a request for `/ocr`.
    pub(crate) fn request() -> RequestSummary {
        RequestSummary {
            number: 17,
            id: "r17".into(),
            endpoint: "/ocr".into(),
            method: "POST".into(),
            path: "/ocr".into(),
            status: 200,
            outcome: "ok".into(),
            time: 86_400.0 + 3_661.25,
            duration: 0.012,
            bytes_in: Some(45),
            bytes_out: 2_000,
            generation: Some(1),
            worker: Some(0),
            attempts: 1,
            is_recorded: true,
            stages: StageSeconds { queue: 0.002, worker: 0.009, ..StageSeconds::default() },
            trace_id: None,
        }
    }

    #[test]
    fn a_row_has_the_times_that_are_known() {
        let text = columns(&[HEAD.map(str::to_owned), row(&request())]);
        let wanted = "\
TIME           ID   REQUEST    STATUS  DURATION  QUEUE  COLD START  WORKER  PREDICT  IN    OUT     BY      ATTEMPTS
01:01:01.250Z  r17  POST /ocr  200     12ms      2.0ms              9.0ms            45 B  2.0 kB  /ocr#0  1
";
        assert_eq!(text, wanted);
    }
}
