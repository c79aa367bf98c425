use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::answer::HttpResponse;
use crate::around::Body;

/// More of a body that nobody needs is not read.
const MOST_BYTES: usize = 64 * 1024;

/// How long such a body is waited for.
const WAIT: Duration = Duration::from_secs(1);

/// How a request was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    version: Version,
    /// Whether its client waits to be asked for the body; it is not, where nobody needs that.
    waits: bool,
}

impl Asked {
    pub(crate) fn of(parts: &Parts) -> Self {
        Self { version: parts.version, waits: parts.headers.contains_key(EXPECT) }
    }
}

/// Reads a body that nobody needed for the answer, so that the connection can be used again. Where
/// that would take too much, the client is told that it cannot: else it would find out by the
/// failure of its next request.
pub(crate) async fn settle(
    asked: Asked,
    body: Option<Body>,
    mut response: HttpResponse,
) -> HttpResponse {
    let Some(body) = body.filter(|body| !body.is_end_stream()) else { return response };
    let is_read = !asked.waits && timeout(WAIT, read(body)).await.unwrap_or(false);
    if !is_read && asked.version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Tells whether it came to the end of the body.
async fn read(mut body: Body) -> bool {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > MOST_BYTES {
            return false;
        }
    }
    true
}
