//! The log: lines for people, or JSON objects for programs, on standard error or in the files of
//! endpoints.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use litplex_admin::{Feed, FeedLimits};
use litplex_config::{ConfigError, Endpoint};
use litplex_http::LogLimit;
use litplex_workers::{LogFile, OUTPUT, OutputHistory, logs_objects};
use tokio::time::Instant;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use crate::log_filter::LogFilter;
use crate::log_history::LogHistory;
use crate::log_line::Lines;
use crate::log_object::Objects;
use crate::log_owner::{Owner, Owners, is_own_span};

/// The library of HTTP/2, whose warnings any client can cause, as often as it likes.
const HTTP2: &str = "h2";

/// The limits of the lines that are kept in memory.
const HISTORY: FeedLimits = FeedLimits { items: 10_000, bytes: 4 << 20 };

/// The files of endpoints that have one, by the labels of the endpoints.
pub(crate) type LogFiles = HashMap<String, LogFile>;

/// The log of a process.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// The files for the output of workers.
    pub(crate) files: LogFiles,
    /// The part that operators can read and change; `None` if the program has a subscriber of its own.
    pub(crate) operated: Option<OperatedLog>,
}

impl Log {
    /// Returns what keeps the lines that workers print.
    pub(crate) fn history(&self) -> Option<Arc<dyn OutputHistory>> {
        let operated = self.operated.as_ref()?;
        Some(Arc::new(LogHistory(operated.history.clone())))
    }
}

/// The part of the log that operators can read and change while the server runs.
#[derive(Debug, Clone)]
pub(crate) struct OperatedLog {
    /// The last lines, as JSON objects.
    pub(crate) history: Feed<String>,
    pub(crate) level: LogFilter,
}

/// Starts the log, unless the program has a subscriber of its own.
///
/// `LITPLEX_LOG` chooses what, in the syntax of `tracing-subscriber`: `debug`, `litplex=warn`; for
/// an endpoint with a level of its own, that does. `LITPLEX_LOG_FORMAT=json` makes each line an
/// object, for programs.
///
/// # Errors
/// A file of an endpoint cannot be written.
pub fn init(endpoints: &[Endpoint]) -> Result<Log, ConfigError> {
    let opened = open(endpoints)?;
    let rules: Arc<Rules> = Arc::new(endpoints.iter().filter_map(Rule::of).collect());
    let (level, history) = (LogFilter::from_env(), Feed::new(HISTORY));
    let chosen = |to| Chosen::new(level.clone(), rules.clone(), to);
    let mut layers = vec![
        owners(),
        lines(io::stderr, io::stderr().is_terminal(), chosen(Destination::StandardError)),
        objects(true, LogHistory(history.clone()), chosen(Destination::History)),
    ];
    for (path, file) in &opened {
        let file = file.clone();
        let chosen = chosen(Destination::File(path.clone()));
        layers.push(lines(move || file.clone(), false, chosen));
    }
    // This fails if the program has a subscriber of its own.
    let is_ours = tracing_subscriber::registry().with(layers).try_init().is_ok();
    let log_file = |endpoint: &Endpoint| {
        Some((endpoint.label().to_owned(), opened.get(endpoint.log_file.as_ref()?)?.clone()))
    };
    let files = endpoints.iter().filter_map(log_file).collect();
    Ok(Log { files, operated: is_ours.then_some(OperatedLog { history, level }) })
}

/// Opens every file once: endpoints may share one.
fn open(endpoints: &[Endpoint]) -> Result<BTreeMap<PathBuf, LogFile>, ConfigError> {
    let (mut opened, mut mistakes) = (BTreeMap::new(), Vec::new());
    for endpoint in endpoints {
        let Some(path) = endpoint.log_file.as_ref().filter(|path| !opened.contains_key(*path))
        else {
            continue;
        };
        match LogFile::open(path) {
            Ok(file) => drop(opened.insert(path.clone(), file)),
            Err(error) => {
                let path = path.display();
                let label = endpoint.label();
                mistakes.push(format!("endpoint `{label}`: `log_file`: {path}: {error}"));
            }
        }
    }
    if mistakes.is_empty() { Ok(opened) } else { Err(ConfigError(mistakes)) }
}

/// Returns the layer that reads the owners of spans, and no event.
fn owners() -> Box<dyn Layer<Registry> + Send + Sync> {
    Owners.with_filter(filter_fn(is_own_span)).boxed()
}

fn lines<W>(to: W, has_colors: bool, chosen: Chosen) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    if logs_objects() {
        return objects(false, to, chosen);
    }
    let lines = tracing_subscriber::fmt::layer().with_writer(to);
    let lines = lines.with_ansi(has_colors).fmt_fields(debug_fn(write_field));
    lines.event_format(Lines).with_filter(chosen).boxed()
}

fn objects<W>(names_requests: bool, to: W, chosen: Chosen) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Colors of fields would be escaped, and be text.
    let lines = tracing_subscriber::fmt::layer().with_writer(to).with_ansi(false);
    lines.event_format(Objects { names_requests }).with_filter(chosen).boxed()
}

/// Writes a field for people. The line begins with its endpoint or worker.
fn write_field(
    line: &mut tracing_subscriber::fmt::format::Writer<'_>,
    field: &Field,
    value: &dyn fmt::Debug,
) -> fmt::Result {
    match field.name() {
        "message" => write!(line, "{value:?}"),
        "endpoint" | "worker" => Ok(()),
        name => {
            write!(line, " {name}=")?;
            write!(Escaped(line), "{value:?}")
        }
    }
}

/// Escapes control characters: a field may hold what a client sent, which must not begin a line of
/// its own or reach the terminal as a command.
struct Escaped<'l, 'w>(&'l mut tracing_subscriber::fmt::format::Writer<'w>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(char::is_control) {
            let end = piece.chars().next_back().filter(|end| end.is_control());
            let plain = &piece[..piece.len() - end.map_or(0, char::len_utf8)];
            self.0.write_str(plain)?;
            if let Some(end) = end {
                write!(self.0, "{}", end.escape_default())?;
            }
        }
        Ok(())
    }
}

/// The rules of endpoints with a level or a file of their own, by label.
type Rules = HashMap<String, Rule>;

struct Rule {
    level: Option<LevelFilter>,
    file: Option<PathBuf>,
}

impl Rule {
    fn of(endpoint: &Endpoint) -> Option<(String, Self)> {
        let Endpoint { log_level, log_file, .. } = endpoint;
        let level = log_level.as_deref().and_then(|level| match level {
            // As Python calls it.
            "warning" => Some(LevelFilter::WARN),
            level => level.parse().ok(),
        });
        let rule = Self { level, file: log_file.clone() };
        (level.is_some() || log_file.is_some()).then(|| (endpoint.label().to_owned(), rule))
    }
}

/// The filter of the events for one destination.
struct Chosen {
    by_default: LogFilter,
    rules: Arc<Rules>,
    to: Destination,
    http2: Mutex<LogLimit>,
}

/// A place that lines are written to.
enum Destination {
    /// Standard error: the lines of endpoints that have no file.
    StandardError,
    /// A file: the lines of the endpoints that have it.
    File(PathBuf),
    /// The memory: the last lines of all endpoints.
    History,
}

impl Destination {
    /// Returns whether it gets the lines of an endpoint that has this file.
    fn takes(&self, file: Option<&PathBuf>) -> bool {
        match self {
            Self::StandardError => file.is_none(),
            Self::File(own) => Some(own) == file,
            Self::History => true,
        }
    }
}

impl Chosen {
    fn new(by_default: LogFilter, rules: Arc<Rules>, to: Destination) -> Self {
        Self { by_default, rules, to, http2: Mutex::default() }
    }

    /// Returns whether an event is logged: of those that clients can cause in any number, one a minute is.
    fn is_said(&self, metadata: &Metadata<'_>) -> bool {
        !is_flood(metadata)
            || self.http2.lock().is_ok_and(|mut seldom| seldom.note(Instant::now()).is_some())
    }

    /// Returns the most that an endpoint wants to see.
    fn widest(&self) -> LevelFilter {
        let levels = self.rules.values().filter_map(|rule| rule.level);
        levels.max().unwrap_or(LevelFilter::OFF)
    }

    /// Returns whether an endpoint's rule may log an event that is not logged by default.
    fn may_let_in(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == OUTPUT
            || (metadata.target().starts_with("litplex") && *metadata.level() <= self.widest())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for Chosen {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        is_own_span(metadata)
            || self.may_let_in(metadata)
            || self.by_default.lets_in(metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // No level hides the endpoint and the worker of an event.
        if is_own_span(metadata) {
            return Interest::always();
        }
        let by_default = self.by_default.interest::<S>(metadata);
        // `always` skips `enabled`, without which `event_enabled` has no effect.
        let is_ruled = !self.rules.is_empty() && by_default.is_always();
        let is_asked = is_ruled || (is_flood(metadata) && !by_default.is_never());
        if is_asked || self.may_let_in(metadata) { Interest::sometimes() } else { by_default }
    }

    fn event_enabled(&self, event: &Event<'_>, context: &Context<'_, S>) -> bool {
        let rule = if self.rules.is_empty() {
            None
        } else {
            let owner = Owner::for_event(event, context.event_scope(event));
            owner.endpoint.and_then(|endpoint| self.rules.get(&endpoint))
        };
        let metadata = event.metadata();
        let is_here = self.to.takes(rule.and_then(|rule| rule.file.as_ref()));
        let is_wanted = match rule.and_then(|rule| rule.level) {
            // All lines that a worker prints are logged.
            _ if metadata.target() == OUTPUT => true,
            Some(level) => *metadata.level() <= level,
            None => self.by_default.lets_in(metadata, context),
        };
        is_here && is_wanted && self.is_said(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // Lines of workers have all levels. Other events are asked about once per callsite.
        Some(LevelFilter::TRACE)
    }
}

/// Returns whether clients can cause any number of these events.
fn is_flood(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(HTTP2) && *metadata.level() == Level::WARN
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use litplex_workers::{endpoint_span, worker_span};

    use super::*;
    use crate::log_filter::DEFAULT;

    /// The lines that a test wrote.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn warnings_that_any_client_can_cause_are_said_seldom() {
        let (written, rules) = (Written::default(), Arc::default());
        let to = written.clone();
        let chosen = Chosen::new(DEFAULT.into(), rules, Destination::StandardError);
        let layers = vec![owners(), lines(move || to.clone(), false, chosen)];
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), || {
            for _ in 0..1000 {
                tracing::warn!(target: "h2::proto::streams::recv", "reset");
            }
            tracing::warn!("other");
            tracing::warn!("other");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            (text.matches("reset").count(), text.matches("other").count()),
            (1, 2),
            "{text}"
        );
    }

    /// Returns the lines of an act, with this level by default, without their times.
    fn logged(level: &str, act: impl FnOnce()) -> Vec<String> {
        let (written, rules) = (Written::default(), Arc::default());
        let to = written.clone();
        let chosen = Chosen::new(level.into(), rules, Destination::StandardError);
        let layers = vec![owners(), lines(move || to.clone(), false, chosen)];
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), act);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn a_line_begins_with_its_worker_or_endpoint_whatever_the_level() {
        let worker = |act: fn()| worker_span(Some("/a"), "/a#0").in_scope(act);
        let lines = logged("litplex_server=warn", || {
            tracing::warn!(n = 1, "alone");
            endpoint_span("/a").in_scope(|| tracing::warn!(n = 2, "loading"));
            worker(|| tracing::warn!("slow"));
            worker(|| tracing::info!("not at this level"));
            worker(|| tracing::warn!(endpoint = "/b", "its own field counts"));
            let span = worker_span(None, "app#0");
            tracing::error!(parent: &span, "gone");
        });
        let wanted = [
            " WARN alone n=1",
            " WARN /a: loading n=2",
            " WARN /a#0: slow",
            " WARN /b: its own field counts",
            "ERROR app#0: gone",
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn the_rule_of_an_endpoint_holds_for_events_in_its_spans() {
        let written = Written::default();
        let to = written.clone();
        let rule = Rule { level: Some(LevelFilter::ERROR), file: None };
        let rules = Arc::new(HashMap::from([("/a".to_owned(), rule)]));
        let chosen = Chosen::new(DEFAULT.into(), rules, Destination::StandardError);
        let layers = vec![owners(), lines(move || to.clone(), false, chosen)];
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), || {
            for endpoint in ["/a", "/b"] {
                let worker = worker_span(Some(endpoint), endpoint);
                worker.in_scope(|| tracing::warn!(target: "litplex_workers", "slow"));
                tracing::warn!(target: "litplex_workers", parent: &worker, "parent");
            }
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("/b: ").count(), 2, "{text}");
        assert_eq!(text.matches("/a: ").count(), 0, "{text}");
    }

    #[test]
    fn a_field_begins_no_line() {
        let mut text = String::new();
        let mut writer = tracing_subscriber::fmt::format::Writer::new(&mut text);
        Escaped(&mut writer).write_str("1\n2026 ERROR forged \x1b[31m größe\u{85}").unwrap();
        assert_eq!(text, r"1\n2026 ERROR forged \u{1b}[31m größe\u{85}");
    }
}
