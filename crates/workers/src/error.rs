//! The errors of this crate: why a worker did not become ready, or a model could not be inspected.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use litplex_core::{LaunchError, WorkerExit};
use litplex_dirs::DirError;

/// An error of a launch or an inspection. Its text is one sentence about the worker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket of the worker cannot be created.
    #[error("no socket for it: {0}")]
    Listen(#[source] io::Error),
    /// The socket of the worker does not accept connections.
    #[error("its socket cannot accept: {0}")]
    Accept(#[source] io::Error),
    /// The worker and this program have no version of the protocol in common.
    #[error(
        "this litplex speaks worker protocol {ours}, the worker {theirs}; install one version of \
         litplex for both"
    )]
    ProtocolVersion {
        /// The versions of this program.
        ours: String,
        /// The versions of the worker.
        theirs: String,
    },
    /// The worker closed its connection before it was ready.
    #[error("it closed its connection before it was ready")]
    ClosedEarly,
    /// The worker sent another message than `ready` or `failed`.
    #[error("it sent a message that is not of this protocol")]
    Message(#[from] serde_json::Error),
    /// The model raised an error while it was loaded.
    #[error("{reason}")]
    SetupFailed {
        /// The error, in one sentence.
        reason: String,
        /// The traceback of the model's own code.
        traceback: Option<String>,
    },
    /// The worker was gone before it was ready.
    #[error("{0} before it was ready")]
    Gone(WorkerExit),
    /// The app host was gone before it listened.
    #[error("{0} before it listened; its output has the reason")]
    AppHostGone(WorkerExit),
    /// The worker exceeded its memory limit before it was ready.
    #[error("{0}; it was killed before it was ready")]
    Memory(String),
    /// The process cannot be started.
    #[error("cannot start `{interpreter}`: {hint}", interpreter = .interpreter.display())]
    Start {
        /// The interpreter of the process.
        interpreter: PathBuf,
        /// The probable cause and what to do.
        hint: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The Python package cannot be unpacked.
    #[error("the Python package cannot be unpacked: {0}")]
    Unpack(#[source] DirError),
    /// Another user could have changed a directory that is used.
    #[error(transparent)]
    Directory(#[from] DirError),
    /// The virtual environment of the worker cannot be created.
    #[error(
        "no environment can be made from `{file}` (`requirements`): {cause}",
        file = .requirements.display()
    )]
    Environment {
        /// The file of requirements.
        requirements: PathBuf,
        /// The cause, in one sentence.
        cause: String,
        /// The last lines of the installer.
        output: Option<String>,
        /// The error of the system, if it is one.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The interpreter of a model cannot be asked about it.
    #[error("it cannot be inspected: {0}")]
    Inspect(#[source] io::Error),
    /// The interpreter of a model cannot be started to inspect it.
    #[error("cannot start its interpreter `{}`: {source}", .interpreter.display())]
    InspectStart {
        /// The interpreter.
        interpreter: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The import of a model takes too long.
    #[error("importing it takes more than {0} s; let `--timeout` be longer")]
    InspectTimeout(f64),
    /// The interpreter ended without a description of the model.
    #[error("`{}` cannot inspect it: {reason}\n{output}", .interpreter.display())]
    InspectFailed {
        /// The interpreter.
        interpreter: PathBuf,
        /// The end of its process.
        reason: String,
        /// The last lines of its output.
        output: String,
    },
    /// The model is wrong.
    #[error("{reason}{}", .traceback.as_ref().map(|text| format!("\n\n{text}\n")).unwrap_or_default())]
    Model {
        /// The error, in one sentence.
        reason: String,
        /// The traceback of the model's own code.
        traceback: Option<String>,
    },
    /// A Rust model was not loaded.
    #[error("{0}")]
    Load(String),
    /// The thread of a Rust model cannot be started.
    #[error("no thread can be started: {0}")]
    Thread(#[source] io::Error),
}

impl From<Error> for LaunchError {
    fn from(error: Error) -> Self {
        let traceback = match &error {
            Error::SetupFailed { traceback, .. } => traceback.clone(),
            Error::Environment { output, .. } => output.clone(),
            _ => None,
        };
        let reason = error.to_string();
        Self { traceback, source: Some(Arc::new(error)), ..Self::new(reason) }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_failed_launch_keeps_its_error_and_that_errors_source() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let failed = LaunchError::from(Error::Listen(source));
        assert!(failed.reason.starts_with("no socket for it: "), "{failed}");
        let error = failed.source().and_then(|error| error.downcast_ref::<Error>());
        let kind = error.and_then(|error| error.source()?.downcast_ref()).map(io::Error::kind);
        assert_eq!(kind, Some(io::ErrorKind::PermissionDenied));
    }
}
