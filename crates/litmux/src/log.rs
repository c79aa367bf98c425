//! What litmux says on standard error: lines for people, or objects for programs.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// The library of a protocol says a line for every request.
const DEFAULT: &str = "info,rmcp=warn";

/// Logs to standard error from here on, unless the program has a subscriber of its own.
///
/// `LITMUX_LOG` chooses what, in the syntax of `tracing-subscriber`: `debug`, `litmux=warn`.
/// `LITMUX_LOG_FORMAT=json` makes each line an object, for programs.
pub(crate) fn init() {
    let filter = EnvFilter::try_from_env("LITMUX_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_timer(SystemTime)
        .with_writer(io::stderr);
    // Another subscriber is there already where this fails.
    let _ = match env::var("LITMUX_LOG_FORMAT").as_deref() {
        Ok("json") => lines.json().flatten_event(true).try_init(),
        _ => lines.with_ansi(io::stderr().is_terminal()).compact().try_init(),
    };
}
