use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::request::Parts;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::answer::HttpResponse;

/// More of a body that nobody needs is not read.
const MOST_BYTES: usize = 64 * 1024;

/// How long such a body is waited for.
const WAIT: Duration = Duration::from_secs(1);

/// Reads a body that nobody needed for the answer, so that the connection can be used again. Where
/// that would take too much, the client is told that it cannot: else it would find out by the
/// failure of its next request.
pub(crate) async fn settle(
    parts: &Parts,
    body: Option<Incoming>,
    mut response: HttpResponse,
) -> HttpResponse {
    let Some(body) = body.filter(|body| !body.is_end_stream()) else { return response };
    // Who waits to be asked for the body is not asked.
    let is_coming = !parts.headers.contains_key(EXPECT);
    let is_read = is_coming && timeout(WAIT, read(body)).await.unwrap_or(false);
    if !is_read && parts.version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Tells whether it came to the end of the body.
async fn read(mut body: Incoming) -> bool {
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
