//! `litplex trace`: shows where the time of one request went.

use std::fmt::Write;

use clap::Args;
use litplex_admin::{RequestBody, RequestDetails, RequestStage, StageKind};
use litplex_core::size_in_words;

use crate::say::{printable, say, say_json};
use crate::servers::ServerArgs;
use crate::table::{clock, columns, seconds};

/// The width of the bars in characters.
const WIDTH: usize = 40;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Trace {
    /// The id of the request: its `X-Request-ID`, or what `litplex requests` shows
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
A bar for each stage: edge (the server read the request), queue, cold start (no worker was ready), worker
with decode, predict and encode, calls of other endpoints with their own stages, and response (from its
first byte to its last). `litplex logs --request ID` shows the lines of the log about it.

Examples:
  litplex requests --slowest -n 1
  litplex trace r1234
  litplex trace 7be70a35502c035800000001 --json | jq '.waterfall[]'";

pub(crate) fn run(trace: &Trace) -> anyhow::Result<()> {
    let details = trace.server.client()?.request(&trace.id)?;
    if trace.server.json { say_json(&details) } else { say(&printable(&waterfall(&details))) }
}

fn waterfall(details: &RequestDetails) -> String {
    let RequestDetails { request, waterfall, left_out, .. } = details;
    let mut text = format!(
        "{} {}  {} {}  {}\n{}  in {}  out {}",
        request.method,
        request.path,
        request.status,
        request.outcome.replace('_', " "),
        request.id,
        clock(request.time),
        request.bytes_in.map_or_else(|| "?".into(), size_in_words),
        size_in_words(request.bytes_out),
    );
    if let Some(generation) = request.generation {
        let _ = write!(text, "  generation {generation}");
    }
    if request.attempts > 1 {
        let _ = write!(text, "  {} attempts", request.attempts);
    }
    if let Some(id) = &request.trace_id {
        let _ = write!(text, "  trace {id}");
    }
    let total = request.duration.max(f64::MIN_POSITIVE);
    let whole = ["request".to_owned(), seconds(total), bar(0.0, total, total), String::new()];
    let rows = waterfall.iter().map(|stage| row(stage, waterfall, &request.endpoint, total));
    let rows = Vec::from_iter([whole].into_iter().chain(rows));
    let _ = write!(text, "\n\n{}", columns(&rows));
    if *left_out > 0 {
        let _ = writeln!(text, "{left_out} more stages are not shown");
    }
    if !request.is_recorded {
        text.push_str(
            "its stages were not recorded: the endpoint had more than 1,000 requests in that second\n",
        );
    }
    for (title, body) in [("request", &details.request_body), ("response", &details.response_body)]
    {
        if let Some(RequestBody { content_type, text: body, is_cut }) = body {
            let cut = if *is_cut { ", its start" } else { "" };
            let _ = writeln!(text, "\n{title} ({content_type}{cut})\n{}", body.trim_end());
        }
    }
    text
}

fn row(stage: &RequestStage, all: &[RequestStage], own: &str, total: f64) -> [String; 4] {
    let indent = "  ".repeat(1 + depth(stage, all));
    let bar = bar(stage.start, stage.duration, total);
    [format!("{indent}{}", name(stage, own)), seconds(stage.duration), bar, batch(stage)]
}

fn depth(stage: &RequestStage, all: &[RequestStage]) -> usize {
    let parent = stage.parent.and_then(|parent| all.get(parent));
    parent.map_or(0, |parent| 1 + depth(parent, all))
}

/// Returns the words for a stage. The endpoint is named where it is not that of the request.
fn name(stage: &RequestStage, own: &str) -> String {
    let words = stage.kind.words();
    let endpoint = stage.endpoint.as_deref().unwrap_or_default();
    match (stage.kind, stage.worker, &stage.step) {
        (StageKind::Worker, Some(slot), _) => format!("{words} {endpoint}#{slot}"),
        (_, _, Some(step)) => format!("{words} {step}"),
        (StageKind::Queue | StageKind::Retry, ..) if endpoint != own => {
            format!("{words} {endpoint}")
        }
        _ => words.to_owned(),
    }
}

/// Says the batch of a stage, or how a step failed.
fn batch(stage: &RequestStage) -> String {
    if let Some(status) = stage.failed {
        return format!("failed with {status}");
    }
    let Some(batch) = &stage.batch else { return String::new() };
    let mates: Vec<_> = batch.mates.iter().take(5).map(String::as_str).collect();
    let more = if batch.mates.len() > mates.len() { ", …" } else { "" };
    let with = if mates.is_empty() { "" } else { " with " };
    format!("batch of {}{with}{}{more}", batch.size, mates.join(", "))
}

/// Draws a period in that of the request, at least one character wide.
fn bar(start: f64, duration: f64, total: f64) -> String {
    let place = |at: f64| ((at / total) * WIDTH as f64).round().clamp(0.0, WIDTH as f64) as usize;
    let from = place(start).min(WIDTH - 1);
    let to = place(start + duration).max(from + 1);
    format!("{}{}{}", "·".repeat(from), "█".repeat(to - from), "·".repeat(WIDTH - to))
}

#[cfg(test)]
mod tests {
    use litplex_admin::RequestBatch;

    use super::*;
    use crate::requests::tests::request;

    fn stage(kind: StageKind, parent: Option<usize>, start: f64, duration: f64) -> RequestStage {
        RequestStage {
            kind,
            parent,
            start,
            duration,
            endpoint: None,
            step: None,
            failed: None,
            worker: None,
            generation: None,
            batch: None,
        }
    }

    #[test]
    fn stages_are_bars_below_each_other() {
        let batch = RequestBatch { size: 3, mates: vec!["r18".into(), "r19".into()] };
        let endpoint = |label: &str| Some(label.to_owned());
        let waterfall = vec![
            stage(StageKind::Edge, None, 0.0, 0.0001),
            RequestStage {
                endpoint: endpoint("/ocr"),
                ..stage(StageKind::Queue, None, 0.0001, 0.003)
            },
            RequestStage {
                endpoint: endpoint("/ocr"),
                worker: Some(0),
                batch: Some(batch),
                ..stage(StageKind::Worker, None, 0.003, 0.009)
            },
            stage(StageKind::Predict, Some(2), 0.006, 0.006),
            RequestStage {
                endpoint: endpoint("/embed"),
                ..stage(StageKind::Queue, Some(2), 0.009, 0.0)
            },
        ];
        let body = RequestBody {
            content_type: "text/plain".into(),
            text: "a text\n".into(),
            is_cut: true,
        };
        let details = RequestDetails {
            request: request(),
            waterfall,
            left_out: 2,
            request_body: Some(body),
            response_body: None,
        };
        let text = super::waterfall(&details);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "POST /ocr  200 ok  r17");
        assert_eq!(lines[1], "01:01:01.250Z  in 45 B  out 2.0 kB  generation 1");
        let full = "█".repeat(WIDTH);
        assert_eq!(lines[3], format!("request           12ms   {full}"));
        assert_eq!(lines[4], format!("  edge            0.1ms  █{}", "·".repeat(39)));
        let late = format!("{}{}", "·".repeat(10), "█".repeat(30));
        assert_eq!(lines[6], format!("  worker /ocr#0   9.0ms  {late}  batch of 3 with r18, r19"));
        let half = format!("{}{}", "·".repeat(20), "█".repeat(20));
        assert_eq!(lines[7], format!("    predict       6.0ms  {half}"));
        assert!(lines[8].starts_with("    queue /embed  0.0ms  "), "{text}");
        assert_eq!(lines[9], "2 more stages are not shown");
        assert_eq!(lines[11..], ["request (text/plain, its start)", "a text"]);
    }
}
