//! The signals that ask a server to stop, or to read its configuration again.

use std::fs;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::Error;

/// Signals within this time of the first count as one.
pub(crate) const SIGNAL_DEBOUNCE: Duration = Duration::from_millis(500);

/// The time that a shell which ends has to close its terminal, after it sends SIGHUP to its jobs.
const HANGUP_TIME: Duration = Duration::from_millis(300);

/// The name of the signal that means a reload, unless the terminal of the process is gone.
const HANGUP: &str = "SIGHUP";

/// The controlling terminal of a process.
const TERMINAL: &str = "/dev/tty";

/// A signal, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// The server stops.
    Stop(&'static str),
    /// The server reads its configuration again.
    Reload(&'static str),
}

/// SIGINT, SIGTERM, SIGHUP and SIGQUIT. The last two stay ignored if they were ignored when the
/// process started: `nohup` does so, and shells do for background jobs.
pub(crate) struct Signals {
    signals: Vec<(&'static str, Signal)>,
    /// Whether the process had a controlling terminal when it started.
    had_terminal: bool,
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
        let signals = signals.collect::<std::io::Result<_>>()?;
        Ok(Self { signals, had_terminal: has_terminal() })
    }

    /// Resolves to the next signal.
    pub(crate) async fn next(&mut self) -> Received {
        let name = poll_fn(|context| self.poll_next(context)).await;
        if name != HANGUP {
            return Received::Stop(name);
        }
        // The terminal closes at the latest when its shell has ended.
        if self.had_terminal {
            sleep(HANGUP_TIME).await;
        }
        hangup(self.had_terminal, has_terminal())
    }

    /// Resolves to the name of the next signal to stop.
    pub(crate) async fn stop(&mut self) -> &'static str {
        loop {
            if let Received::Stop(name) = self.next().await {
                return name;
            }
        }
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
            let name = self.stop().await;
            if first.elapsed() >= SIGNAL_DEBOUNCE {
                return name;
            }
        }
    }
}

/// Returns the meaning of SIGHUP: a terminal that closes sends it to end its programs, and an operator to
/// reload a server.
fn hangup(had_terminal: bool, has_terminal: bool) -> Received {
    if had_terminal && !has_terminal { Received::Stop(HANGUP) } else { Received::Reload(HANGUP) }
}

/// Returns whether the process has a controlling terminal, which exists.
fn has_terminal() -> bool {
    fs::File::open(TERMINAL).is_ok()
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
    fn a_terminal_that_is_gone_ends_the_server() {
        assert_eq!(hangup(true, false), Received::Stop("SIGHUP"));
        for (had, has) in [(true, true), (false, false), (false, true)] {
            assert_eq!(hangup(had, has), Received::Reload("SIGHUP"));
        }
    }

    #[test]
    fn ignored_signals_are_read_off_the_status_of_the_process() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert_eq!(ignored_in(status), Some(0x1001));
        assert_eq!(ignored_in(""), None);
    }
}
