//! The `Server-Timing` header.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use tokio::time::Instant;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Measures the time from the headers of a request to those of its response.
#[derive(Debug)]
pub(crate) struct Timing(Instant);

impl Timing {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Adds the time to a response, in milliseconds, after entries of others.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap) {
        let total = format!("total;dur={:.3}", self.0.elapsed().as_secs_f64() * 1e3);
        headers.extend(HeaderValue::try_from(total).ok().map(|total| (SERVER_TIMING, total)));
    }
}
