//! `litplex logs`: shows the last lines of a server's log.

use clap::Args;
use serde_json::{Map, Value};

use crate::say::{printable, say};
use crate::servers::ServerArgs;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Logs {
    /// Only lines about this endpoint: its path or name
    endpoint: Option<String>,
    /// Only lines of this worker, such as '/ocr#0'
    #[arg(long)]
    worker: Option<String>,
    /// Only lines about the request with this id, or this name in `litplex requests`, such as 'r17'
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// The number of earlier lines to look through [default: 100; all that are kept, if lines are chosen]
    #[arg(short = 'n', long, value_name = "NUMBER")]
    lines: Option<u32>,
    /// Show the next lines as they come
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
A server keeps the last 10,000 lines, at most 4 MiB, of all endpoints, also of those with a `log_file`.

Examples:
  litplex logs -f
  litplex logs /ocr -n 1000
  litplex logs --request r17
  litplex logs --request 7be70a35502c035800000001 --json";

pub(crate) fn run(logs: &Logs) -> anyhow::Result<()> {
    let lines = logs.lines.map(|lines| lines.to_string());
    let query = [
        ("endpoint", logs.endpoint.as_deref()),
        ("worker", logs.worker.as_deref()),
        ("request", logs.request.as_deref()),
        ("lines", lines.as_deref()),
        ("follow", logs.follow.then_some("true")),
    ];
    let query = query.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let mut has_lines = false;
    for line in logs.server.client()?.logs(&Vec::from_iter(query))? {
        let line = line?;
        has_lines = true;
        say(&if logs.server.json { format!("{line}\n") } else { describe(&line) })?;
    }
    if !has_lines && !logs.server.json {
        eprintln!("no line of the log is about this");
    }
    Ok(())
}

/// Describes a line of the log as the log itself does.
fn describe(line: &str) -> String {
    let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(line) else {
        return format!("{}\n", printable(line));
    };
    let mut take = |name| match fields.shift_remove(name) {
        Some(Value::String(text)) => Some(text),
        Some(other) => Some(other.to_string()),
        None => None,
    };
    let [timestamp, level, message, endpoint, worker] =
        ["timestamp", "level", "message", "endpoint", "worker"].map(&mut take);
    let owner = worker.or(endpoint).map(|owner| format!("{owner}: ")).unwrap_or_default();
    let others = fields.iter().map(|(name, value)| format!(" {name}={value}"));
    let text = format!(
        "{} {:>5} {owner}{}{}",
        timestamp.unwrap_or_default(),
        level.unwrap_or_default(),
        message.unwrap_or_default(),
        others.collect::<String>()
    );
    format!("{}\n", printable(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_as_in_the_log() {
        let line = r#"{"timestamp":"T","level":"INFO","message":"ready","n":1,"endpoint":"/a","worker":"/a#0"}"#;
        assert_eq!(describe(line), "T  INFO /a#0: ready n=1\n");
        let printed = r#"{"timestamp":"T","level":"WARN","message":"two\nlines \u001b[31m"}"#;
        assert_eq!(describe(printed), "T  WARN two\nlines \\u{1b}[31m\n");
        assert_eq!(describe("no object"), "no object\n");
    }
}
