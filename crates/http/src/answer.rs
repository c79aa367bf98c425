use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use litplex_core::{Answer, MediaType, Outcome, ServeError};
use litplex_metrics::Ongoing;
use litplex_traces::ServerSpan;
use serde::Serialize;
use serde_json::json;

use crate::access::Place;
use crate::app::Route;
use crate::around::{self, PackedBody, Record};
use crate::caller::{Presence, Times};
use crate::openai;
use crate::stream::{Broken, Chunks, Framing, Source, StreamBody};

pub(crate) type HttpResponse = Response<AnswerBody>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Headers that belong to a connection; a model has no say in them.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding"];

/// The body of an answer, whose request goes on until it is sent.
#[derive(Debug)]
pub(crate) struct MeasuredBody {
    body: AnswerBody,
    ongoing: Option<Ongoing>,
    record: Option<Record>,
    span: Option<ServerSpan>,
    _place: Option<Place>,
}

impl MeasuredBody {
    /// Makes one that takes this place among the requests of its caller, and goes into this record
    /// and this span, until it is dropped.
    pub(crate) fn new(
        body: AnswerBody,
        ongoing: Ongoing,
        record: Option<Record>,
        span: Option<ServerSpan>,
        place: Option<Place>,
    ) -> Self {
        Self { body, ongoing: Some(ongoing), record, span, _place: place }.begin()
    }

    /// Makes one of which nothing is measured but its span: it is part of another.
    pub(crate) fn inner(body: AnswerBody, span: Option<ServerSpan>) -> Self {
        Self { body, ongoing: None, record: None, span, _place: None }.begin()
    }

    fn begin(mut self) -> Self {
        if self.is_end_stream() {
            self.ended();
        }
        self
    }

    /// Notes that all was sent.
    pub(crate) fn ended(&mut self) {
        if let Some(ongoing) = &mut self.ongoing {
            ongoing.ended();
        }
        if let Some(span) = &mut self.span {
            span.ended();
        }
        if let Some(record) = &mut self.record {
            record.is_complete = true;
        }
    }

    fn broke(&mut self, status: u16) {
        if let Some(ongoing) = &mut self.ongoing {
            ongoing.broke(status);
        }
        if let Some(span) = &mut self.span {
            span.broke(status);
        }
    }

    fn sent(&mut self, bytes: usize) {
        if let Some(ongoing) = &mut self.ongoing {
            ongoing.sent(bytes);
        }
        if let Some(record) = &mut self.record {
            record.bytes += bytes as u64;
        }
    }
}

impl Body for MeasuredBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => this.sent(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(broken)) => this.broke(broken.status),
            None => {}
        }
        if frame.as_ref().is_none_or(|frame| frame.is_ok() && this.body.is_end_stream()) {
            this.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

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

/// Turns a job's answer into what goes out, given the headers of the request. A stream is cancelled
/// when its client leaves.
pub(crate) fn from(
    answer: Answer,
    asked: &HeaderMap,
    route: &Route,
    times: Times,
    presence: Presence,
) -> Outcome<HttpResponse> {
    match answer {
        Answer::Whole(response) => whole(response),
        Answer::Stream(first, rest) => {
            let framing = Framing::choose(asked, first.kind());
            let source = Source::begin(&first, rest, route, times, presence);
            let chunks = Chunks::Plain(framing, source);
            Ok(stream(framing.frame(&first), chunks, framing.media_type()))
        }
    }
}

/// Makes an answer that is sent as it comes, after what is there already.
pub(crate) fn stream(first: Bytes, chunks: Chunks, media_type: &'static str) -> HttpResponse {
    let mut response = Response::new(AnswerBody::Stream(StreamBody::new(first, chunks)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn whole(answer: litplex_core::Response) -> Outcome<HttpResponse> {
    let mut response = Response::new(AnswerBody::Whole(Some(answer.body)));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).map_err(|_| unsendable("status", &answer.status))?;
    match answer.media_type {
        MediaType::Json => drop(response.headers_mut().insert(CONTENT_TYPE, JSON)),
        MediaType::Other(name) if name.is_empty() => {}
        MediaType::Other(name) => {
            let value =
                HeaderValue::from_str(&name).map_err(|_| unsendable("media type", &name))?;
            response.headers_mut().insert(CONTENT_TYPE, value);
        }
    }
    for (name, value) in answer.headers {
        let name: HeaderName = name.parse().map_err(|_| unsendable("header name", &name))?;
        let value = HeaderValue::from_str(&value).map_err(|_| unsendable("header", &name))?;
        if !HOP_BY_HOP.contains(&name.as_str()) {
            response.headers_mut().append(name, value);
        }
    }
    Ok(response)
}

fn unsendable(what: &str, value: &dyn std::fmt::Debug) -> ServeError {
    tracing::error!(?value, "a worker answered with a {what} that HTTP cannot carry");
    ServeError::internal()
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
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
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
pub(crate) fn not_allowed(path: &str, methods: &'static str) -> HttpResponse {
    let error = ServeError::new(405, format!("this path takes {methods}"));
    let mut response = openai::error_at(path, &error);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// Makes an answer of litplex itself.
pub(crate) fn own(status: StatusCode, media_type: &'static str, body: String) -> HttpResponse {
    let mut response = Response::new(AnswerBody::Whole(Some(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
