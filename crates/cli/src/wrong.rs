//! The error for a wrong program or command line, whose exit status is 2.

use litplex::ConfigError;

/// Returns the error.
pub(crate) fn wrong(problem: impl Into<String>) -> anyhow::Error {
    ConfigError(vec![problem.into()]).into()
}
