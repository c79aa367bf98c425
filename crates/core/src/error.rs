//! Errors of models and errors that clients see; `http` makes responses of the latter.

use std::fmt;

/// Any error that the hooks of a Rust model may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A result with any error, as the hooks of a Rust model return it.
pub type Result<T, E = BoxError> = std::result::Result<T, E>;

/// The result of one item of a batch: an item that fails does not affect the others.
pub type Outcome<T> = std::result::Result<T, ServeError>;

/// An error that is sent to a client: an HTTP status and a sentence for `{"detail": …}`.
///
/// ```
/// use litplex_core::ServeError;
/// let error = ServeError::new(422, "`text` is empty; send at least one character");
/// assert_eq!(error.status, 422);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeError {
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// The problem, and what the client can do about it.
    pub detail: String,
    /// Whole seconds after which a retry makes sense, sent as `Retry-After`.
    pub retry_after: Option<u64>,
}

impl ServeError {
    /// Returns an error with this status and detail.
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after: None }
    }

    /// Returns the error for a model that raised (500). The cause is in the log, not in the
    /// response.
    pub fn internal() -> Self {
        Self::new(500, "Internal server error")
    }

    /// Returns the error for a request that no worker can take now (503), with the seconds until a
    /// retry.
    pub fn unavailable(detail: impl Into<String>, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(503, detail) }
    }

    /// Returns the error for a request whose time budget is used up (504).
    pub fn deadline() -> Self {
        Self::new(504, "Request timed out")
    }

    /// Returns the error for a request whose worker died before it answered (502).
    pub fn worker_lost() -> Self {
        Self::new(502, "the worker died before it answered this request")
    }

    /// Returns the error for a request that killed this many workers and is not retried (502).
    pub fn poison(workers: u32) -> Self {
        let detail = format!("{workers} workers died while they computed this request");
        Self::new(502, detail)
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)
    }
}

impl std::error::Error for ServeError {}
