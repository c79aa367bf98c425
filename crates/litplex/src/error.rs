use std::io;

use litplex_admin::RunDirError;
use litplex_config::ConfigError;
use litplex_core::LaunchError;

/// Why a server did not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong; nothing was started.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be had; nothing was started.
    #[error("cannot listen on {address}: {}", bind_hint(source))]
    Bind {
        /// Host and port.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// There is no place for the server's sockets; nothing was started.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// A model could not be loaded or set up.
    #[error("endpoint `{endpoint}`: {cause}{}", traceback_below(cause))]
    Launch {
        /// The endpoint's path.
        endpoint: String,
        /// The reason, with a traceback where the model's own code raised.
        cause: LaunchError,
    },
    /// What the program supplies of the HTTP layer cannot be run.
    #[error("the program's app: {0}")]
    AppHost(LaunchError),
    /// The system refused something that a server needs.
    #[error("{0}")]
    System(#[from] io::Error),
}

fn bind_hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it or choose another port".into()
        }
        io::ErrorKind::PermissionDenied => {
            "the system does not allow it; ports below 1024 need a privilege".into()
        }
        _ => error.to_string(),
    }
}

fn traceback_below(error: &LaunchError) -> String {
    error.traceback.as_ref().map(|traceback| format!("\n\n{traceback}")).unwrap_or_default()
}
