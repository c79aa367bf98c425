//! The reasons for which a server does not start or ends.

use std::io;

use litplex_admin::RunDirError;
use litplex_config::ConfigError;
use litplex_core::LaunchError;
use litplex_dirs::NoCache;

/// The reason for which a server did not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is invalid; nothing was started.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address is not available; nothing was started.
    #[error("cannot listen on {address}: {}", bind_hint(option, source, *taken_by))]
    Bind {
        /// The option that sets the host: `host` or `admin_host`.
        option: &'static str,
        /// Host and port.
        address: String,
        /// The process id of the litplex server of this user that listens there, if one does.
        taken_by: Option<u32>,
        /// The error of the system.
        source: io::Error,
    },
    /// No directory is available for the server's sockets; nothing was started.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// No cache directory is available; nothing was started.
    #[error(transparent)]
    NoCache(#[from] NoCache),
    /// A model could not be loaded or set up.
    #[error("endpoint `{endpoint}`: {cause}{}", traceback_below(cause))]
    Launch {
        /// The endpoint's path.
        endpoint: String,
        /// The reason, with a traceback if the model's own code raised.
        cause: LaunchError,
    },
    /// The program's own app cannot be loaded.
    #[error("the program's app: {0}")]
    AppHost(LaunchError),
    /// The server that took the place of this one failed.
    #[error("the server that took over (process {pid}) {how}")]
    Successor {
        /// Its process id.
        pid: u32,
        /// Its exit status; of one that a signal killed, 128 and the number of the signal.
        status: u8,
        /// The way in which it ended.
        how: String,
    },
    /// The server that this one was to replace has ended before this one was ready.
    #[error("the server that this one replaces is gone")]
    PredecessorGone,
    /// The system refused a resource that a server needs.
    #[error("{0}")]
    System(#[from] io::Error),
}

fn bind_hint(option: &str, error: &io::Error, taken_by: Option<u32>) -> String {
    match (error.kind(), taken_by) {
        (io::ErrorKind::AddrInUse, Some(pid)) => format!(
            "another litplex server (pid {pid}) listens there; stop it with `kill {pid}` or choose \
             another port"
        ),
        (io::ErrorKind::AddrInUse, None) => {
            "another program listens there; stop it or choose another port".into()
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "the system does not allow it; ports below 1024 need a privilege".into()
        }
        _ => format!("set `{option}` to an address of this machine, or to a name of one"),
    }
}

fn traceback_below(error: &LaunchError) -> String {
    error.traceback.as_ref().map(|traceback| format!("\n\n{traceback}")).unwrap_or_default()
}
