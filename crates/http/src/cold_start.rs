//! The wait for a worker, as a client that asks for it sees it: an event stream that begins at once, with comments
//! about the wait before the response of the model.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue,
};
use http::request::Parts;
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use litplex_calls::ColdStart;
use litplex_core::{MemoryBudget, Outcome, ServeError};
use litplex_dialects::{Route, predict};
use litplex_http_core::body::Body;
use litplex_http_core::response::{HttpResponse, ResponseBody};
use litplex_http_core::stream::{Broken, event_with};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The header with which a client asks to be told of the wait; the response to it has the same.
const WAIT: HeaderName = HeaderName::from_static("x-litplex-wait");

/// The only value of the header.
const COLD_START: &str = "cold-start";

/// The time between two comments about the wait.
const TELL_EVERY: Duration = Duration::from_secs(1);

const EVENT_STREAM: &str = "text/event-stream";

type Part = Result<Frame<Bytes>, Broken>;

/// Returns whether a client asks to be told while no worker is ready.
///
/// # Errors
/// The header has another value.
pub(crate) fn is_asked(headers: &HeaderMap) -> Outcome<bool> {
    match headers.get(WAIT) {
        None => Ok(false),
        Some(value) if value == COLD_START => Ok(true),
        Some(given) => {
            let detail = format!("`X-Litplex-Wait` must be \"{COLD_START}\", not {given:?}");
            Err(ServeError::malformed(detail))
        }
    }
}

/// Returns the wait for a worker of an endpoint; `None` if one is ready.
pub(crate) async fn wait_for(route: &Route) -> Option<ColdStart> {
    route.target.get()?.cold_start().await
}

/// Answers a request of a client that asks to be told, while no worker is ready: with an event stream whatever the model
/// answers, comments, and then its events, or its whole response as one event.
pub(crate) fn respond(
    memory: Arc<MemoryBudget>,
    route: Route,
    mut parts: Parts,
    body: Body,
) -> HttpResponse {
    let takes_events = |value: &HeaderValue| value.as_bytes().starts_with(EVENT_STREAM.as_bytes());
    if !parts.headers.get_all(ACCEPT).iter().any(takes_events) {
        parts.headers.insert(ACCEPT, HeaderValue::from_static(EVENT_STREAM));
    }
    // Bounded: a client that does not read delays the rest.
    let (sender, received) = mpsc::channel(1);
    let mut telling = JoinSet::new();
    telling.spawn(async move {
        let answer = answer(&memory, &route, &parts, body);
        let answer = tell_until(&route, &sender, answer).await;
        forward(answer, &sender).await;
    });
    let mut response = Response::new(ResponseBody::boxed(Told { received, telling }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(WAIT, HeaderValue::from_static(COLD_START));
    response
}

/// Sends comments until the response is there, and returns it.
async fn tell_until(
    route: &Route,
    sender: &mpsc::Sender<Part>,
    answer: impl Future<Output = HttpResponse>,
) -> HttpResponse {
    let begin = Instant::now();
    let mut answer = Box::pin(answer);
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waits = true;
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            _ = ticks.tick(), if waits => {}
        }
        let start = wait_for(route).await;
        waits = start.is_some();
        // A client that does not read misses it. One that has left drops the body, and this task with it.
        let _ = sender.try_send(Ok(Frame::data(comment(route, begin.elapsed(), start))));
    }
}

/// Returns a comment of an event stream (HTML standard, 9.2.6: a line that begins with a colon).
fn comment(route: &Route, waited: Duration, start: Option<ColdStart>) -> Bytes {
    let seconds = |time: Duration| (time.as_secs_f64() * 10.0).round() / 10.0;
    let told = json!({
        "endpoint": &*route.identity.label,
        "state": if start.is_some() { "loading" } else { "ready" },
        "waited": seconds(waited),
        "expected": start.and_then(|start| start.expected).map(seconds),
    });
    format!(": {COLD_START} {told}\n\n").into()
}

/// Sends a response as a part of an event stream.
async fn forward(answer: HttpResponse, sender: &mpsc::Sender<Part>) {
    let (head, mut body) = answer.into_parts();
    let media_type = media_type(&head.headers);
    if media_type == EVENT_STREAM {
        while let Some(part) = body.frame().await {
            if sender.send(part).await.is_err() {
                return;
            }
        }
        return;
    }
    let is_text = media_type.starts_with("text/") || media_type.ends_with("json");
    if !is_text || head.headers.contains_key(CONTENT_ENCODING) {
        let detail = format!(
            "an event stream cannot carry a response of type {media_type:?}; leave out `X-Litplex-Wait`"
        );
        let event = event_with(json!({"detail": detail}).to_string().as_bytes());
        let _ = sender.send(Ok(error_event(&event))).await;
        return;
    }
    let part = match body.collect().await {
        Ok(whole) => {
            let event = event_with(&whole.to_bytes());
            Ok(if head.status.is_success() { Frame::data(event) } else { error_event(&event) })
        }
        Err(broken) => Err(broken),
    };
    let _ = sender.send(part).await;
}

fn error_event(event: &[u8]) -> Frame<Bytes> {
    Frame::data([b"event: error\n", event].concat().into())
}

/// Returns the media type of a response without its parameters.
fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

async fn answer(
    memory: &Arc<MemoryBudget>,
    route: &Route,
    parts: &Parts,
    body: Body,
) -> HttpResponse {
    let answered = predict(memory, route, parts, body).await;
    answered.unwrap_or_else(|error| route.error(&error))
}

/// The body of such a response. The request is cancelled when it is dropped.
struct Told {
    received: mpsc::Receiver<Part>,
    telling: JoinSet<()>,
}

impl http_body::Body for Told {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Part>> {
        if let Some(part) = ready!(self.received.poll_recv(cx)) {
            return Poll::Ready(Some(part));
        }
        // If the task panicked, the response must not look complete.
        let is_broken = matches!(ready!(self.telling.poll_join_next(cx)), Some(Err(_)));
        Poll::Ready(is_broken.then_some(Err(Broken { status: 500 })))
    }
}
