//! `litplex top`: shows the load of the endpoints of a server, live.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use litplex_admin::{Client, EndpointLoad, Load};
use litplex_core::size_in_words;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::say::{printable, say, say_json, written};
use crate::servers::{Running, ServerArgs};
use crate::table::{columns, seconds};

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Top {
    /// Seconds between two readings
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
Live in a terminal, until Ctrl-C; one reading if the output is a file or a pipe, or with --json.

REQ/S are requests of clients and JOBS/S what arrives at the queue, calls of other endpoints included,
over the last ten seconds; P50, P99 and ERRORS are of the last minute. The last column says why an
endpoint is slow, and what is learned of its batches.

Examples:
  litplex top
  litplex top --json | jq '.endpoints[] | select(.slow)'";

/// Another screen without a cursor, whose lines are cut at its edge; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

pub(crate) fn run(top: &Top) -> anyhow::Result<()> {
    let Running { client, status } = top.server.running()?;
    if top.server.json {
        return say_json(&client.load()?);
    }
    if !io::stdout().is_terminal() {
        return say(&table(&client.load()?));
    }
    follow(&client, &status.url, Duration::from_secs(top.interval))
}

fn follow(client: &Client, url: &str, interval: Duration) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::new()?
    };
    let screen = Screen::enter()?;
    loop {
        let load = client.load()?;
        screen.draw(&format!("{url}\n\n{}", table(&load)))?;
        if runtime.block_on(async { timeout(interval, signals.next()).await }).is_ok() {
            return Ok(());
        }
    }
}

/// The signals that end the command. Without them, the terminal would stay as it is.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// A screen of the terminal. Dropped, the terminal is as it was.
struct Screen;

impl Screen {
    fn enter() -> anyhow::Result<Self> {
        say(ENTER)?;
        Ok(Self)
    }

    fn draw(&self, text: &str) -> anyhow::Result<()> {
        // Each line is cleared to its end, and the screen below: nothing flickers.
        let lines = text.replace('\n', "\x1b[K\r\n");
        let mut to = io::stdout().lock();
        written(write!(to, "\x1b[H{lines}\x1b[J").and_then(|()| to.flush()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = say(LEAVE);
    }
}

const HEAD: [&str; 12] = [
    "ENDPOINT",
    "STATE",
    "WORKERS",
    "IN FLIGHT",
    "QUEUED",
    "REQ/S",
    "JOBS/S",
    "P50",
    "P99",
    "ERRORS",
    "MEMORY",
    "",
];

fn table(load: &Load) -> String {
    let rows = load.endpoints.iter().map(row);
    columns(&Vec::from_iter([HEAD.map(str::to_owned)].into_iter().chain(rows)))
}

fn row(load: &EndpointLoad) -> [String; 12] {
    [
        load.endpoint.clone(),
        load.state.clone(),
        format!("{}/{}", load.workers_ready, load.workers),
        load.in_flight.to_string(),
        load.queued.to_string(),
        format!("{:.1}", load.rate),
        format!("{:.1}", load.job_rate),
        load.p50.map(seconds).unwrap_or_default(),
        load.p99.map(seconds).unwrap_or_default(),
        load.errors.total().to_string(),
        load.memory.map(size_in_words).unwrap_or_default(),
        remark(load),
    ]
    .map(|cell| printable(&cell))
}

/// Returns why the endpoint is slow, and what is learned of its batches.
fn remark(load: &EndpointLoad) -> String {
    let batches = load.batches.as_ref().map(|batches| format!("batches: {batches}"));
    Vec::from_iter(load.slow.clone().into_iter().chain(batches)).join("; ")
}

#[cfg(test)]
mod tests {
    use litplex_admin::ErrorCounts;

    use super::*;

    #[test]
    fn a_row_has_the_load_and_why_the_endpoint_is_slow() {
        let busy = EndpointLoad {
            endpoint: "/ocr".into(),
            state: "ready".into(),
            workers_ready: 2,
            workers: 3,
            in_flight: 2,
            queued: 12,
            rate: 41.25,
            job_rate: 50.0,
            errors: ErrorCounts { timeout: 2, model_error: 1, ..ErrorCounts::default() },
            p50: Some(0.0061),
            p99: Some(1.25),
            memory: Some(3 << 29),
            slow: Some("all 2 workers are busy: 12 jobs wait".into()),
            batches: None,
        };
        let batches = Some("as full as they can be".into());
        let idle = EndpointLoad {
            p50: None,
            p99: None,
            memory: None,
            slow: None,
            batches,
            ..busy.clone()
        };
        let wanted = "\
ENDPOINT  STATE  WORKERS  IN FLIGHT  QUEUED  REQ/S  JOBS/S  P50    P99   ERRORS  MEMORY
/ocr      ready  2/3      2          12      41.2   50.0    6.1ms  1.2s  3       1.6 GB  all 2 workers are busy: 12 jobs wait
/ocr      ready  2/3      2          12      41.2   50.0                 3               batches: as full as they can be
";
        assert_eq!(table(&Load { endpoints: vec![busy, idle] }), wanted);
    }
}
