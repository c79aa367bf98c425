//! `litplex serve --reload`: waits for a correction where a program cannot be served.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::failure::{self, exit_status};

/// The hidden option with the time since which a change counts, in nanoseconds.
const SINCE: &str = "--changed-since";

/// Serves a program; if its code or configuration is wrong, prints the errors and waits for a change of a
/// file. `since` is the time since which a change counts, if it was wrong before.
///
/// # Errors
/// Those that no change of a file corrects.
pub(crate) fn serve(
    file: &Path,
    since: Option<u64>,
    serve: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if let Some(since) = since {
        litplex::wait_for_change(file, UNIX_EPOCH + Duration::from_nanos(since));
    }
    let began = SystemTime::now();
    match serve() {
        Err(error) if file.is_file() && matches!(exit_status(&error), 2 | 3) => {
            failure::print(&error);
            // Standard error may be closed.
            let _ = writeln!(io::stderr(), "waiting for a change of {} …", file.display());
            Err(start_anew(began).into())
        }
        result => result,
    }
}

/// Replaces this process by a new one of the same command: nothing of this attempt is left, and Ctrl-C ends
/// it.
fn start_anew(since: SystemTime) -> io::Error {
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    let arguments = with_since(&env::args_os().skip(1).collect::<Vec<_>>(), since.into());
    match env::current_exe() {
        // Returns only if that fails.
        Ok(program) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}

/// Returns the arguments of a command with another time, which comes after the verb.
fn with_since(arguments: &[OsString], since: OsString) -> Vec<OsString> {
    let (verb, rest) = arguments.split_at(arguments.len().min(1));
    let rest = match rest {
        [first, _, rest @ ..] if first == SINCE => rest,
        rest => rest,
    };
    [verb, &[SINCE.into(), since], rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_first_argument_of_the_verb() {
        let with = |arguments: &[&str]| {
            with_since(&arguments.iter().map(OsString::from).collect::<Vec<_>>(), "7".into())
        };
        let once = with(&["serve", "--reload", "a.py", "--", "--changed-since", "x"]);
        let expected =
            ["serve", "--changed-since", "7", "--reload", "a.py", "--", "--changed-since", "x"];
        assert_eq!(once, expected);
        let arguments: Vec<_> = once.iter().map(|it| it.to_str().unwrap()).collect();
        assert_eq!(with(&arguments), expected);
    }
}
