use std::fmt;

/// Any error; what the hooks of a Rust model may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A result whose error may be anything, as the hooks of a Rust model return it.
pub type Result<T, E = BoxError> = std::result::Result<T, E>;

/// What became of one item of a batch: one bad item never fails the others.
pub type Outcome<T> = std::result::Result<T, ServeError>;

/// An error that a client is told about: an HTTP status and a sentence for `{"detail": …}`.
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
    /// What went wrong and what to do about it.
    pub detail: String,
    /// Whole seconds after which a retry makes sense, sent as `Retry-After`.
    pub retry_after: Option<u64>,
}

impl ServeError {
    /// Returns an error with this status and detail.
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after: None }
    }

    /// The model raised: the client learns nothing of the cause, the log does.
    pub fn internal() -> Self {
        Self::new(500, "Internal server error")
    }

    /// No worker can take the request now (503), with the seconds after which to retry.
    pub fn unavailable(detail: impl Into<String>, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(503, detail) }
    }

    /// The time budget of the request ran out (504).
    pub fn deadline() -> Self {
        Self::new(504, "Request timed out")
    }

    /// The worker died before it answered (502).
    pub fn worker_lost() -> Self {
        Self::new(502, "the worker died before it answered this request")
    }

    /// Workers died whenever they computed this request (502): it is not tried again.
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
