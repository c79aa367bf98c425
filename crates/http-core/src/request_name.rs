//! The name of a request in the log, by which `litplex logs --request` finds the lines about it.

use std::sync::Arc;

use http::header::HeaderValue;
use http::{Extensions, HeaderMap};
use litplex_core::Trace;

use crate::headers::X_REQUEST_ID;

/// The largest length of a client's id; longer ones are replaced.
const MOST_BYTES: usize = 128;

/// The name of a request: its id, or that of its recording. A clone copies no text: a name is written only
/// for a line of the log.
#[derive(Debug, Clone, Default)]
pub struct RequestName {
    id: Option<HeaderValue>,
    trace: Option<Arc<Trace>>,
}

impl RequestName {
    /// Returns the name of a request with these headers and extensions.
    pub fn new(headers: &HeaderMap, extensions: &Extensions) -> Self {
        Self { id: headers.get(X_REQUEST_ID).cloned(), trace: extensions.get().cloned() }
    }

    /// Returns the name of a request of a hook, which has the id and the trace of the request behind it.
    pub fn for_call(id: Option<&str>, trace: Option<&Arc<Trace>>) -> Self {
        let id = id.and_then(|id| HeaderValue::from_str(id).ok());
        Self { id, trace: trace.cloned() }
    }

    /// Returns the text of the name; `None` if the request has no id and is not recorded.
    pub fn text(&self) -> Option<String> {
        let id = self.id.as_ref().filter(|id| is_sound_id(id));
        let id = id.and_then(|id| id.to_str().ok()).map(str::to_owned);
        id.or_else(|| self.trace.as_ref().map(|trace| trace.name()))
    }
}

/// Returns whether an id is printable and short.
pub fn is_sound_id(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=MOST_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use litplex_core::SpanContext;

    use super::*;

    #[test]
    fn a_request_is_named_by_its_id_or_else_by_its_recording() {
        let context = SpanContext { trace_id: 0, span_id: 1, is_sampled: false };
        let mut extensions = Extensions::new();
        let mut headers = HeaderMap::new();
        assert_eq!(RequestName::new(&headers, &extensions).text(), None);
        extensions.insert(Arc::new(Trace::new(context, 7)));
        assert_eq!(RequestName::new(&headers, &extensions).text().as_deref(), Some("r7"));
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("two words"));
        assert_eq!(RequestName::new(&headers, &extensions).text().as_deref(), Some("r7"));
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("one"));
        assert_eq!(RequestName::new(&headers, &extensions).text().as_deref(), Some("one"));
    }
}
