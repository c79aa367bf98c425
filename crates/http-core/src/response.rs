//! Responses: their bodies, and constructors for every protocol. This module knows no producer of
//! bodies: those that are neither whole nor a stream of items are boxed.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, UPGRADE,
};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use litplex_core::{MediaType, ServeError};
use serde::Serialize;
use serde_json::json;

use crate::headers::is_hop_by_hop;
use crate::stream::{Broken, Chunks, StreamBody};

/// A response of the server.
pub type HttpResponse = Response<ResponseBody>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The largest number of headers of a response; clients and proxies accept fewer.
pub const MAX_HEADERS: usize = 1000;
const MAX_HEADER_BYTES: usize = 48 * 1024;

/// The body of a response. The bodies of plain endpoints are inline: a box would cost each of their
/// requests an allocation.
#[derive(Debug)]
pub enum ResponseBody {
    /// All data at once; `None` once it was taken.
    Whole(Option<Bytes>),
    /// The items of a stream.
    Stream(StreamBody),
    /// Any other body.
    Boxed(UnsyncBoxBody<Bytes, Broken>),
}

impl ResponseBody {
    /// Boxes a body of any other type.
    pub fn boxed(body: impl Body<Data = Bytes, Error = Broken> + Send + 'static) -> Self {
        Self::Boxed(UnsyncBoxBody::new(body))
    }
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self::Whole(None)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Stream(stream) => stream.poll_frame(cx),
            Self::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            // hyper does not poll an empty body.
            Self::Whole(body) => body.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream(_) => false,
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
            Self::Boxed(body) => body.size_hint(),
        }
    }
}

/// Returns a response whose body is sent in pieces: `first`, and then each of `chunks` when it arrives.
/// An event stream is sent a comment after each `ping_interval` without an event.
pub fn stream(
    first: Bytes,
    chunks: Chunks,
    media_type: &'static str,
    ping_interval: Option<Duration>,
) -> HttpResponse {
    let ping_interval = ping_interval.filter(|_| media_type == "text/event-stream");
    let mut response =
        Response::new(ResponseBody::Stream(StreamBody::new(first, chunks, ping_interval)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx, and proxies that follow it, would buffer the stream.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// Returns the response of a model as one of HTTP.
///
/// # Errors
/// The part of it that HTTP cannot carry.
pub fn from_model(given: litplex_core::Response) -> Result<HttpResponse, String> {
    let mut response = Response::new(ResponseBody::Whole(Some(given.body)));
    // A status below 200 belongs to the connection, one from 600 is not defined (RFC 9110, 15).
    let status = Some(given.status).filter(|status| (200..600).contains(status));
    *response.status_mut() = status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| format!("invalid status: expected 200 to 599, got {}", given.status))?;
    let headers = response.headers_mut();
    match given.media_type {
        MediaType::Json => drop(headers.insert(CONTENT_TYPE, JSON)),
        MediaType::Other(name) if name.is_empty() => {}
        MediaType::Packed(_) => return Err("values that only hooks take".into()),
        MediaType::Other(name) => drop(headers.insert(CONTENT_TYPE, value("content-type", &name)?)),
    }
    with_headers(response, &given.headers)
}

/// Adds the headers that a model gave.
///
/// # Errors
/// A header that HTTP cannot carry.
pub fn with_headers(
    mut response: HttpResponse,
    given: &[(String, String)],
) -> Result<HttpResponse, String> {
    let headers = response.headers_mut();
    let size = |(name, value): &(String, String)| name.len() + value.len();
    let (count, bytes) = (given.len(), given.iter().map(size).sum::<usize>());
    if count > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(format!(
            "too many headers: expected at most {MAX_HEADERS} in {MAX_HEADER_BYTES} bytes, got \
             {count} in {bytes}"
        ));
    }
    for (name, given) in given {
        let value = value(name, given)?;
        let name: HeaderName =
            name.parse().map_err(|_| format!("invalid name of a header: {name:?}"))?;
        // `Upgrade` is part of a response 426.
        if name == UPGRADE || !(is_hop_by_hop(&name) || name == CONTENT_LENGTH) {
            headers.append(name, value);
        }
    }
    Ok(response)
}

/// Returns the value of a header in Latin-1, as frameworks send it.
fn value(name: &str, given: &str) -> Result<HeaderValue, String> {
    let wrong = || format!("invalid value of the header {name:?}: {given:?}");
    let latin = given.chars().map(|char| u8::try_from(char).map_err(|_| wrong()));
    HeaderValue::from_bytes(&latin.collect::<Result<Vec<_>, _>>()?).map_err(|_| wrong())
}

/// Drops the body and keeps the headers, for HEAD. On HTTP/2 hyper would send the body.
pub fn remove_body(response: &mut HttpResponse) {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = ResponseBody::Whole(None);
}

/// Returns the response to an error.
pub fn error(error: &ServeError) -> HttpResponse {
    let mut body = json!({"detail": error.detail});
    if !error.calls.is_empty() {
        body["calls"] = json!(*error.calls);
    }
    failed(error, &body)
}

/// Returns the response to an error, with this body.
pub fn failed(error: &ServeError, body: &impl Serialize) -> HttpResponse {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, body);
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Returns a response with a `detail`.
pub fn detail(status: StatusCode, detail: &str) -> HttpResponse {
    json(status, &json!({"detail": detail}))
}

/// Returns a response of JSON.
pub fn json(status: StatusCode, body: &impl Serialize) -> HttpResponse {
    let body = serde_json::to_string(body).expect("it is plain data. This is a bug.");
    text_response(status, "application/json", body)
}

/// Returns a response of the server itself.
pub fn text_response(status: StatusCode, media_type: &'static str, body: String) -> HttpResponse {
    let mut response = Response::new(ResponseBody::Whole(Some(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(status: u16, headers: Vec<(String, String)>) -> Result<HttpResponse, String> {
        let (media_type, body) = (MediaType::Json, Bytes::new());
        from_model(litplex_core::Response { status, media_type, headers, body })
    }

    fn header(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_response_that_http_cannot_carry_is_an_error() {
        for status in [0, 100, 101, 199, 600, 999, u16::MAX] {
            assert!(given(status, Vec::new()).unwrap_err().contains("invalid status"), "{status}");
        }
        assert_eq!(given(599, Vec::new()).unwrap().status(), 599);
        for (name, value) in
            [("a b", "c"), ("x", "a\nb"), ("x", "\0"), ("", "c"), ("x", "\u{20ac}")]
        {
            assert!(given(200, vec![header(name, value)]).is_err(), "{name:?}: {value:?}");
        }
        let many = |count| (0..count).map(|n| header(&format!("x-{n}"), "a")).collect();
        assert_eq!(given(200, many(1000)).unwrap().headers().len(), 1001);
        assert!(given(200, many(40_000)).unwrap_err().contains("too many headers"));
        assert!(given(200, vec![header("x", &"a".repeat(100_000))]).is_err());
    }

    #[test]
    fn header_values_are_latin() {
        let response = given(200, vec![header("x-name", "J\u{f6}rg")]).unwrap();
        assert_eq!(response.headers()["x-name"].as_bytes(), b"J\xf6rg");
    }
}
