//! The error of a call of another endpoint, as the hooks of Rust models see it.

use std::fmt;

use crate::ServeError;

/// The error of a call of another endpoint.
///
/// A hook that returns it, or passes it on with `?`, has the status 503, 504 or 508 of the callee, with its
/// `Retry-After`, and 500 for every other status: that is an error of the program, not of its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// The HTTP status of the callee's response, 400 or above.
    pub status: u16,
    /// The `detail` of that response.
    pub detail: String,
    /// The path of calls, from the endpoint of the client's request to the one that failed:
    /// `["/ask#0", "/ocr"]`.
    pub calls: Vec<String>,
    /// The seconds after which the callee may have room.
    pub retry_after: Option<u64>,
}

impl CallError {
    /// Returns the error of a call with this path, or of a call behind it that the error names.
    pub fn new(error: ServeError, path: Vec<String>) -> Self {
        let status = error.status();
        let ServeError { detail, retry_after, calls, .. } = error;
        let calls = if calls.len() > path.len() { calls.to_vec() } else { path };
        let mut error = Self { status, detail, calls, retry_after };
        // A hop before this one has said the path, too.
        if let Some(detail) = error.detail.strip_prefix(&error.prefix()) {
            error.detail = detail.to_owned();
        }
        error
    }

    fn prefix(&self) -> String {
        format!("{} failed with {}: ", self.calls.join(" → "), self.status)
    }

    /// Returns whether a hook that passes it on has its status: the request may be sent again, or its time
    /// is over.
    pub fn keeps_status(&self) -> bool {
        matches!(self.status, 499 | 503 | 504 | 508)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix(), self.detail)
    }
}

impl std::error::Error for CallError {}

impl From<CallError> for ServeError {
    fn from(error: CallError) -> Self {
        let own = if error.keeps_status() {
            let own = Self::new(error.status, error.to_string());
            Self { retry_after: error.retry_after, ..own }
        } else {
            let mut own = Self::internal();
            let path = error.calls.join(" → ");
            own.detail = format!("{}: {path} failed with {}", own.detail, error.status);
            own
        };
        Self { calls: error.calls.into(), ..own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_that_passes_an_error_on_has_the_status_of_a_callee_that_is_busy_or_late() {
        let path = || vec!["/a#0".to_owned(), "/b".to_owned()];
        let own = |error| ServeError::from(CallError::new(error, path()));
        let busy = own(ServeError::overloaded("full", 3));
        assert_eq!((busy.status(), busy.retry_after), (503, Some(3)));
        assert_eq!(busy.detail, "/a#0 → /b failed with 503: full");
        let refused = own(ServeError::invalid_input("a secret"));
        assert_eq!(refused.status(), 500);
        assert_eq!(refused.detail, "Internal server error: /a#0 → /b failed with 422");
        assert_eq!(refused.calls.to_vec(), path());
    }

    #[test]
    fn the_longer_path_leads_to_the_endpoint_that_failed() {
        let path = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let behind =
            ServeError { calls: path(&["/a#0", "/b#1", "/c"]).into(), ..ServeError::internal() };
        assert_eq!(CallError::new(behind, path(&["/a#0", "/b"])).calls.len(), 3);
    }
}
