//! The spans that say which endpoint or worker an event is about, so that no message repeats it.
//!
//! They are entered while a worker starts and stops, and are the explicit parents of other events:
//! no span is entered for a request. Their level is `error`, so that every event keeps its span.

use tracing::{Span, error_span};

/// Returns the span of events about an endpoint.
pub fn endpoint_span(endpoint: &str) -> Span {
    error_span!("endpoint", endpoint)
}

/// Returns the span of events about a worker. The app host has no endpoint.
pub fn worker_span(endpoint: Option<&str>, worker: &str) -> Span {
    error_span!("worker", endpoint, worker)
}

/// Returns the name of the worker in a slot.
pub(crate) fn worker_name(endpoint: &str, slot: usize) -> String {
    format!("{endpoint}#{slot}")
}
