//! The errors of the command: their messages and exit statuses.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

use litplex::ConfigError;

use crate::say::ReaderGone;

/// The error of a program that has printed its errors itself.
#[derive(Debug)]
pub(crate) struct Printed;

impl Printed {
    /// The exit status.
    const STATUS: u8 = 2;
}

impl fmt::Display for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("see the errors above")
    }
}

impl Error for Printed {}

/// Prints an error, unless that is done or its reader has gone.
pub(crate) fn print(error: &anyhow::Error) {
    if !error.is::<ReaderGone>() && !error.is::<Printed>() {
        // Standard error may be closed; the exit status still reports the error.
        let _ = writeln!(io::stderr(), "error: {}", described(error));
    }
}

/// Returns the message of an error and of its causes, except for those that it contains.
pub(crate) fn described(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// Returns the exit status of an error, one of those that the help lists.
pub(crate) fn exit_status(error: &anyhow::Error) -> u8 {
    use litplex::Error as Served;
    match error.downcast_ref::<Served>() {
        Some(Served::Config(_)) => 2,
        Some(Served::Launch { .. } | Served::AppHost(_)) => 3,
        Some(Served::Successor { status, .. }) => *status,
        _ if error.is::<ConfigError>() => 2,
        _ if error.is::<ReaderGone>() => ReaderGone::STATUS,
        _ if error.is::<Printed>() => Printed::STATUS,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let once = described(&anyhow::Error::from(litplex::Error::System(denied())));
        assert_eq!(once, "permission denied");
        let outer = anyhow::Error::from(denied()).context("no directory").context("no server");
        assert_eq!(described(&outer), "no server: no directory: permission denied");
    }
}
