use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use litplex_calls::Output;
use litplex_core::{MediaType, Outcome, ServeError};
use serde::Serialize;
use serde_json::json;

use crate::app::Route;
use crate::around::{self, PackedBody};
use crate::openai;
use crate::stream::{Broken, Chunks, Framing, StreamBody};

pub(crate) type HttpResponse = Response<AnswerBody>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The headers of an answer, at most; clients and proxies take fewer.
pub(crate) const MAX_HEADERS: usize = 1000;
const MAX_HEADER_BYTES: usize = 48 * 1024;

/// Headers that belong to a connection; a model has no say in them.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding"];

impl Default for AnswerBody {
    fn default() -> Self {
        Self::Whole(None)
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    Whole(Option<Bytes>),
    Stream(StreamBody),
    /// What the app host answers.
    Passed(Incoming),
    /// What the library of a protocol answers.
    Boxed(BoxBody<Bytes, Infallible>),
    /// What a layer answers.
    Layered(Box<around::Body>),
    /// One of these, compressed.
    Packed(Box<PackedBody>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Stream(stream) => stream.poll_frame(cx),
            Self::Passed(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|_| Broken { status: StatusCode::BAD_GATEWAY.as_u16() }),
            Self::Boxed(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Layered(body) => body.poll_sent(cx),
            Self::Packed(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            // hyper does not ask for an empty body.
            Self::Whole(body) => body.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream(_) => false,
            Self::Passed(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
            Self::Layered(body) => body.is_end_stream(),
            Self::Packed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) | Self::Packed(_) => SizeHint::default(),
            Self::Passed(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
            Self::Layered(body) => body.size_hint(),
        }
    }
}

/// Turns the output of a call into what goes out, given the headers of the request.
pub(crate) fn from(output: Output, asked: &HeaderMap, route: &Route) -> Outcome<HttpResponse> {
    match output {
        Output::Whole(response) => whole(response, route),
        Output::Stream(first, rest) => {
            let framing = Framing::choose(asked, first.kind());
            let chunks = Chunks::Plain(framing, rest);
            Ok(stream(framing.frame(&first), chunks, framing.media_type(), route.ping_interval))
        }
    }
}

/// Makes an answer that is sent as it comes, after what is there already.
///
/// An event stream says after each `ping_interval` without an event that it is there.
pub(crate) fn stream(
    first: Bytes,
    chunks: Chunks,
    media_type: &'static str,
    ping_interval: Option<Duration>,
) -> HttpResponse {
    let ping_interval = ping_interval.filter(|_| media_type == "text/event-stream");
    let mut response =
        Response::new(AnswerBody::Stream(StreamBody::new(first, chunks, ping_interval)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would gather it otherwise, and so would those that do as nginx does.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

fn whole(answer: litplex_core::Response, route: &Route) -> Outcome<HttpResponse> {
    carried(answer).map_err(|wrong| {
        let endpoint = route.metrics.endpoint();
        tracing::error!(
            endpoint,
            "{endpoint} answered with what HTTP cannot carry: {wrong}; look at the Response that \
             `predict` or `encode_response` gave"
        );
        ServeError::internal()
    })
}

/// Makes a response of what a model gave, or says what is wrong with it.
fn carried(answer: litplex_core::Response) -> Result<HttpResponse, String> {
    let mut response = Response::new(AnswerBody::Whole(Some(answer.body)));
    // Those below are of the connection, and those above mean nothing (RFC 9110, 15).
    let status = Some(answer.status).filter(|status| (200..600).contains(status));
    *response.status_mut() = status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| format!("invalid status: expected 200 to 599, got {}", answer.status))?;
    let headers = response.headers_mut();
    match answer.media_type {
        MediaType::Json => drop(headers.insert(CONTENT_TYPE, JSON)),
        MediaType::Other(name) if name.is_empty() => {}
        MediaType::Other(name) => drop(headers.insert(CONTENT_TYPE, value("content-type", &name)?)),
    }
    with_headers(response, &answer.headers)
}

/// Adds the headers that a model gave, or says what is wrong with them.
pub(crate) fn with_headers(
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
        if !HOP_BY_HOP.contains(&name.as_str()) {
            headers.append(name, value);
        }
    }
    Ok(response)
}

/// Returns the value of a header as it is sent: in Latin-1, as frameworks send it.
fn value(name: &str, given: &str) -> Result<HeaderValue, String> {
    let wrong = || format!("invalid value of the header {name:?}: {given:?}");
    let latin = given.chars().map(|char| u8::try_from(char).map_err(|_| wrong()));
    HeaderValue::from_bytes(&latin.collect::<Result<Vec<_>, _>>()?).map_err(|_| wrong())
}

/// Leaves of an answer what HEAD wants of it; in HTTP/2 hyper would send its body.
pub(crate) fn remove_body(response: &mut HttpResponse) {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = AnswerBody::Whole(None);
}

/// Turns an error into what goes out.
pub(crate) fn error(error: &ServeError) -> HttpResponse {
    failed(error, &json!({"detail": error.detail}))
}

/// Turns an error into what goes out, with a body of its own.
pub(crate) fn failed(error: &ServeError, body: &impl Serialize) -> HttpResponse {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, body);
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Makes an answer that says what was wrong.
pub(crate) fn detail(status: StatusCode, detail: &str) -> HttpResponse {
    json(status, &json!({"detail": detail}))
}

/// Makes an answer of JSON.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> HttpResponse {
    let body = serde_json::to_string(body).expect("it is plain data. This is a bug.");
    own(status, "application/json", body)
}

/// Makes the answer to a method that a path does not take.
pub(crate) fn not_allowed(path: &str, methods: &str) -> HttpResponse {
    let error = ServeError::method_not_allowed(format!("this path takes {methods}"));
    let mut response = openai::error_at(path, &error);
    response.headers_mut().extend(HeaderValue::from_str(methods).ok().map(|value| (ALLOW, value)));
    response
}

/// Makes an answer of litplex itself.
pub(crate) fn own(status: StatusCode, media_type: &'static str, body: String) -> HttpResponse {
    let mut response = Response::new(AnswerBody::Whole(Some(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(status: u16, headers: Vec<(String, String)>) -> Result<HttpResponse, String> {
        let (media_type, body) = (MediaType::Json, Bytes::new());
        carried(litplex_core::Response { status, media_type, headers, body })
    }

    fn header(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn what_http_cannot_carry_is_said_in_words() {
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
