//! Errors of models and errors that clients see; `http` makes responses of the latter.
//!
//! An error that a client sees has a cause. [`ErrorCause::status`] is the one table of their statuses.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Any error that the hooks of a Rust model may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A result with any error, as the hooks of a Rust model return it.
pub type Result<T, E = BoxError> = std::result::Result<T, E>;

/// The result of one item of a batch: an item that fails does not affect the others.
pub type Outcome<T> = std::result::Result<T, ServeError>;

/// The cause of an error that is sent to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCause {
    /// The request or its body is malformed.
    Malformed,
    /// The caller is not known.
    Unauthenticated,
    /// The caller is known, or its origin is, and may not do this.
    Forbidden,
    /// The path has no route.
    NotFound,
    /// The route does not take the method.
    MethodNotAllowed,
    /// The client did not send its request in time.
    SlowClient,
    /// The request is larger than the limit.
    TooLarge,
    /// The route does not take bodies of this type or coding.
    UnsupportedType,
    /// The input is well-formed, and not one that the endpoint takes.
    InvalidInput,
    /// The caller is above its limits.
    RateLimited,
    /// The model or the server failed.
    Internal,
    /// The server does not support what the request needs.
    Unsupported,
    /// The process that computed the request ended before it responded.
    WorkerLost,
    /// The server or the endpoint has more requests than it can answer.
    Overloaded,
    /// The server, the endpoint or a part that it needs is starting, stopping or down.
    NotReady,
    /// The time budget of the request is used up.
    Deadline,
    /// No caller waits for the call; only hooks see it.
    Cancelled,
    /// The call belongs to a set of calls that wait for each other.
    Deadlock,
    /// The model chose this status, 400 to 599.
    Model(u16),
}

impl ErrorCause {
    /// Returns the HTTP status of the response.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::SlowClient => 408,
            Self::TooLarge => 413,
            Self::UnsupportedType => 415,
            Self::InvalidInput => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unsupported => 501,
            Self::WorkerLost => 502,
            Self::Overloaded | Self::NotReady => 503,
            Self::Cancelled => 499,
            Self::Deadline => 504,
            Self::Deadlock => 508,
            Self::Model(status) => status,
        }
    }
}

/// A path of calls, in one word where there is none: errors are returned by value everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallPath(Option<Arc<Vec<String>>>);

impl From<Vec<String>> for CallPath {
    fn from(path: Vec<String>) -> Self {
        Self((!path.is_empty()).then(|| Arc::new(path)))
    }
}

impl Deref for CallPath {
    type Target = [String];
    fn deref(&self) -> &[String] {
        self.0.as_ref().map_or(&[], |path| path)
    }
}

/// An error that is sent to a client: its cause, and a sentence for `{"detail": …}`.
///
/// ```
/// use litplex_core::ServeError;
/// let error = ServeError::new(422, "`text` is empty; send at least one character");
/// assert_eq!(error.status(), 422);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeError {
    /// The cause, which has the HTTP status.
    pub cause: ErrorCause,
    /// The problem, and what the client can do about it.
    pub detail: String,
    /// Whole seconds after which a retry makes sense, sent as `Retry-After`.
    pub retry_after: Option<u64>,
    /// The path of calls, from the endpoint of the client's request to the one that failed; empty unless a
    /// call of the model failed.
    pub calls: CallPath,
}

impl ServeError {
    /// Returns an error of a model, with the HTTP status that it chose.
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        Self::because(ErrorCause::Model(status), detail)
    }

    /// Returns an error with this cause.
    pub fn because(cause: ErrorCause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into(), retry_after: None, calls: CallPath::default() }
    }

    /// Returns the HTTP status of the response.
    pub const fn status(&self) -> u16 {
        self.cause.status()
    }

    /// Returns the error for a request that is not well-formed.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::because(ErrorCause::Malformed, detail)
    }

    /// Returns the error for a body that is not text in an encoding of JSON.
    pub fn not_json_text() -> Self {
        Self::malformed("malformed JSON body: it is not UTF-8, UTF-16 or UTF-32")
    }

    /// Returns the error for a caller that is not known.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::because(ErrorCause::Unauthenticated, detail)
    }

    /// Returns the error for a caller that may not do this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::because(ErrorCause::Forbidden, detail)
    }

    /// Returns the error for a path without a route.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::because(ErrorCause::NotFound, detail)
    }

    /// Returns the error for a method that the route does not take.
    pub fn method_not_allowed(detail: impl Into<String>) -> Self {
        Self::because(ErrorCause::MethodNotAllowed, detail)
    }

    /// Returns the error for a client that did not send its request in time.
    pub fn slow_client(detail: impl Into<String>) -> Self {
        Self::because(ErrorCause::SlowClient, detail)
    }

    /// Returns the error for a request above a limit of size.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::because(ErrorCause::TooLarge, detail)
    }

    /// Returns the error for a body of a type or a coding that is not taken.
    pub fn unsupported_type(detail: impl Into<String>) -> Self {
        Self::because(ErrorCause::UnsupportedType, detail)
    }

    /// Returns the error for an input that is well-formed and not one that the endpoint takes.
    pub fn invalid_input(detail: impl Into<String>) -> Self {
        Self::because(ErrorCause::InvalidInput, detail)
    }

    /// Returns the error for a caller above its limits, with the seconds until a retry.
    pub fn rate_limited(detail: impl Into<String>, retry_after: u64) -> Self {
        Self::because(ErrorCause::RateLimited, detail).retry_after(retry_after)
    }

    /// Returns the error for a model that raised. The reason is in the log, not in the response.
    pub fn internal() -> Self {
        Self::because(ErrorCause::Internal, "Internal server error")
    }

    /// Returns the error for a request that needs what the server does not support.
    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::because(ErrorCause::Unsupported, detail)
    }

    /// Returns the error for a request that would wait or take too much, with the seconds until a
    /// retry.
    pub fn overloaded(detail: impl Into<String>, retry_after: u64) -> Self {
        Self::because(ErrorCause::Overloaded, detail).retry_after(retry_after)
    }

    /// Returns the error for a request that no worker can take now, with the seconds until a retry.
    pub fn not_ready(detail: impl Into<String>, retry_after: u64) -> Self {
        Self::because(ErrorCause::NotReady, detail).retry_after(retry_after)
    }

    /// Returns the error for a request whose time budget is used up.
    pub fn deadline() -> Self {
        Self::because(ErrorCause::Deadline, "Request timed out")
    }

    /// Returns the error for a call that would wait for itself, with the calls that it waits for.
    pub fn deadlock(chain: &str) -> Self {
        let detail = format!(
            "deadlock: `{chain}`: each of these calls waits for the next one, and no other worker can \
             take them; give the endpoints more workers, or call them without a cycle"
        );
        Self::because(ErrorCause::Deadlock, detail)
    }

    /// Returns the error for a call that its own caller, or the client behind it, does not wait for.
    pub fn cancelled() -> Self {
        Self::because(ErrorCause::Cancelled, "no caller waits for this call any longer")
    }

    /// Returns the error for a request whose worker died before it responded.
    pub fn worker_lost() -> Self {
        let detail = "the worker died before it answered this request";
        Self::because(ErrorCause::WorkerLost, detail)
    }

    /// Returns the error for a request that killed this many workers and is not retried.
    pub fn poison(workers: u32) -> Self {
        let detail = format!("{workers} workers died while they computed this request");
        Self::because(ErrorCause::WorkerLost, detail)
    }

    fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status(), self.detail)
    }
}

impl std::error::Error for ServeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_by_state_have_a_status_and_a_time_to_retry() {
        let (busy, starting) = (ServeError::overloaded("a", 2), ServeError::not_ready("b", 1));
        assert_eq!((busy.status(), busy.retry_after), (503, Some(2)));
        assert_eq!((starting.status(), starting.retry_after), (503, Some(1)));
        assert_ne!(busy.cause, starting.cause);
        assert_eq!(ServeError::new(418, "short and stout").cause, ErrorCause::Model(418));
    }
}
