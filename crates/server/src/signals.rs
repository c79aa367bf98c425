//! The signals that ask a server to stop.

use std::fs;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::Error;

/// Signals within this time of the first count as one.
pub(crate) const SIGNAL_DEBOUNCE: Duration = Duration::from_millis(500);

/// SIGINT, SIGTERM, SIGHUP and SIGQUIT. The last two stay ignored if they were ignored when the
/// process started: `nohup` does so, and shells do for background jobs.
pub(crate) struct Signals {
    signals: Vec<(&'static str, Signal)>,
}

impl Signals {
    /// Starts to receive the signals.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(crate) fn new() -> Result<Self, Error> {
        let ignored = ignored();
        let always = [("SIGINT", SignalKind::interrupt()), ("SIGTERM", SignalKind::terminate())];
        let unless_ignored = [("SIGHUP", SignalKind::hangup()), ("SIGQUIT", SignalKind::quit())];
        let taken = |kind: &SignalKind| ignored & (1 << (kind.as_raw_value() - 1)) == 0;
        let unless_ignored = unless_ignored.into_iter().filter(|(_, kind)| taken(kind));
        let signals = always.into_iter().chain(unless_ignored);
        let signals = signals.map(|(name, kind)| Ok((name, signal(kind)?)));
        Ok(Self { signals: signals.collect::<std::io::Result<_>>()? })
    }

    /// Resolves to the name of the next signal.
    pub(crate) async fn next(&mut self) -> &'static str {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<&'static str> {
        let received = self
            .signals
            .iter_mut()
            .filter_map(|(name, signal)| signal.poll_recv(context).is_ready().then_some(*name));
        // All are polled, so that each wakes this task.
        received.last().map_or(Poll::Pending, Poll::Ready)
    }

    /// Resolves at the next signal after the debounce time. One stop may arrive as two signals: a
    /// service manager signals every process, and the program forwards its own.
    pub(crate) async fn again(&mut self) -> &'static str {
        let first = Instant::now();
        loop {
            let name = self.next().await;
            if first.elapsed() >= SIGNAL_DEBOUNCE {
                return name;
            }
        }
    }
}

/// Returns the signals that this process ignores, one bit each; none if the system does not say.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status).unwrap_or_default()
}

fn ignored_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_off_the_status_of_the_process() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert_eq!(ignored_in(status), Some(0x1001));
        assert_eq!(ignored_in(""), None);
    }
}
