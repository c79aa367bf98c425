//! The errors of keys: of callers in variables and files, and of token issuers.

use std::io;
use std::path::PathBuf;

use litplex_traces::ProxyError;
use ureq::http::StatusCode;

/// A key of a caller, or a file of keys, that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("the environment variable {0} is not set")]
    Unset(String),
    #[error("the environment variable {0} is not UTF-8; set it to a key")]
    NotUtf8(String),
    #[error("the environment variable {0} is empty; set it to a key")]
    Empty(String),
    #[error(
        "the environment variable {0} has a line break or another control character within its key; \
         set it to one key"
    )]
    ControlCharacter(String),
    #[error("{}: {source}", .file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: {reason}", .file.display())]
    Line { file: PathBuf, reason: String },
}

/// Keys of a token issuer that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JwksError {
    #[error("`jwt_jwks`: {}: {source}", .file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("`jwt_jwks`: {}: {reason}", .file.display())]
    File { file: PathBuf, reason: String },
    #[error("`jwt_ca`: {0}")]
    Certificates(String),
    #[error("`jwt_jwks`: {0}")]
    Proxy(#[from] ProxyError),
}

/// A fetch of an issuer's keys that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Request(#[from] ureq::Error),
    #[error("the response has status {0}; expected 200")]
    Status(StatusCode),
    #[error("{0}")]
    KeySet(String),
    #[error("the fetch was broken off: {0}")]
    Task(#[from] tokio::task::JoinError),
}
