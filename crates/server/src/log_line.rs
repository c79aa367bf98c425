//! Lines of the log for people: time, level, the endpoint or worker, message and fields.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::log_owner::{Owner, model_requests};

/// Writes each event as a line that begins with its worker or endpoint, if it has one.
pub(crate) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (dim, color, plain) = match line.has_ansi_escapes() {
            true => ("\x1b[2m", color(*event.metadata().level()), "\x1b[0m"),
            false => ("", "", ""),
        };
        line.write_str(dim)?;
        SystemTime.format_time(&mut line)?;
        write!(line, "{plain} {color}{:>5}{plain} ", event.metadata().level())?;
        if let Some(name) = Owner::for_event(event, context.event_scope()).name() {
            write!(line, "{name}: ")?;
        }
        context.format_fields(line.by_ref(), event)?;
        if let Some(names) = model_requests(event) {
            write!(line, " request_id={names:?}")?;
        }
        writeln!(line)
    }
}

/// Returns the escape sequence of a level's color.
fn color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}
