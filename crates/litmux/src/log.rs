//! What litmux says: lines for people on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// The library of a protocol says a line for every request.
const DEFAULT: &str = "info,rmcp=warn";

/// Logs to standard error from here on, unless the program has a subscriber of its own.
///
/// `LITMUX_LOG` chooses what, in the syntax of `tracing-subscriber`: `debug`, `litmux=warn`.
pub(crate) fn init() {
    let filter = EnvFilter::try_from_env("LITMUX_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_timer(SystemTime)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .compact()
        .try_init();
}
