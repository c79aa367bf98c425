//! Calls, by hooks, of endpoints that speak a dialect: a hook gets the values that a client of the
//! protocol gets, without its framing.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http_body::Body;
use litplex_calls::{Call, DialectCalls, Target};
use litplex_core::{
    BoxFuture, Called, Items, ItemsBuilder, MediaType, Outcome, Part, PartStream, Request,
    Response, ServeError,
};
use litplex_http_core::request_name::RequestName;
use litplex_http_core::response::{HttpResponse, ResponseBody};

use crate::dialect::Exchange;
use crate::openai::shared_path;
use crate::registry;

/// The beginning of the data of an event, and the end of an event.
const DATA: &[u8] = b"data: ";
const EVENT_END: &[u8] = b"\n\n";
/// The event that ends a stream of OpenAI's API.
const DONE: &[u8] = b"[DONE]";

/// The calls of endpoints with a dialect.
#[derive(Debug, Clone, Copy)]
pub struct Dialects;

impl DialectCalls for Dialects {
    fn call(
        &self,
        call: Call,
        request: Request,
        stream: Option<bool>,
    ) -> BoxFuture<'_, Outcome<Called>> {
        Box::pin(async move {
            let endpoint = &*call.target.identity.label.clone();
            let Some(dialect) = registry::for_model(call.target.info()?) else {
                let text = format!("the dialect of {endpoint} is not known");
                return Err(ServeError::unsupported(text));
            };
            let max_body_bytes = usize::MAX;
            let ping_interval = None;
            let name = RequestName::for_call(request.id.as_deref(), call.trace.as_ref());
            let exchange =
                Exchange { endpoint, request, name, call, ping_interval, max_body_bytes, stream };
            called(dialect.serve(exchange).await).await
        })
    }

    fn choose<'a>(
        &'a self,
        targets: &'a [Arc<Target>],
        request: &'a Request,
    ) -> BoxFuture<'a, Result<usize, Response>> {
        Box::pin(async move {
            let identities = targets.iter().map(|target| &*target.identity);
            match shared_path::choose(identities, request).await {
                Ok(index) => Ok(index),
                Err(refusal) => {
                    let (parts, body) = refusal.response().into_parts();
                    let (status, body) = (parts.status.as_u16(), whole(body).await);
                    let body = body.unwrap_or_default();
                    Err(Response { status, ..Response::json(body) })
                }
            }
        })
    }
}

/// Returns the values of a response.
async fn called(response: HttpResponse) -> Outcome<Called> {
    let (parts, body) = response.into_parts();
    let media_type = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], |given| given.as_bytes());
    if media_type == b"text/event-stream" {
        let (buffer, items) = (BytesMut::new(), VecDeque::new());
        let mut events = Events { body, buffer, items, failure: None };
        return match poll_fn(|cx| events.poll_part(cx)).await {
            Part::Items(first) => Ok(Called::Stream(first, Box::new(events))),
            Part::End => Ok(Called::Stream(Items::empty(), Box::new(events))),
            Part::Failed(error) => Err(error),
        };
    }
    let body = whole(body).await?;
    let (status, headers) = (parts.status.as_u16(), Vec::new());
    Ok(Called::Whole(Response { status, media_type: MediaType::Json, headers, body }))
}

async fn whole(mut body: ResponseBody) -> Outcome<Bytes> {
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|broken| ServeError::new(broken.status, "the response broke"))?;
        all.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
    }
    Ok(all.freeze())
}

/// The values of server-sent events that this crate frames: each event has one line of JSON.
struct Events {
    body: ResponseBody,
    buffer: BytesMut,
    items: VecDeque<Bytes>,
    /// The message of the event that says why the stream breaks.
    failure: Option<String>,
}

impl Events {
    /// Takes the whole events out of the buffer.
    fn take_events(&mut self) {
        while let Some(end) = self.buffer.windows(EVENT_END.len()).position(|at| at == EVENT_END) {
            let mut event = self.buffer.split_to(end).freeze();
            self.buffer.advance(EVENT_END.len());
            if event.starts_with(DATA) {
                event.advance(DATA.len());
                match failure(&event) {
                    Some(message) => self.failure = Some(message),
                    None if event == DONE => {}
                    None => self.items.push_back(event),
                }
            }
        }
    }

    fn take_items(&mut self) -> Option<Items> {
        let mut items = ItemsBuilder::json();
        for item in self.items.drain(..) {
            let pushed = items.push_with(|out| std::io::Write::write_all(out, &item));
            pushed.expect("it is written to memory. This is a bug.");
        }
        Some(items.finish()).filter(|items| items.packed_len() > 0)
    }
}

/// Returns the message of an event that says why the stream breaks.
fn failure(event: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Event {
        error: Failure,
    }
    #[derive(serde::Deserialize)]
    struct Failure {
        message: String,
    }
    let is_failure = event.starts_with(b"{\"error\":");
    let event: Option<Event> = is_failure.then(|| serde_json::from_slice(event).ok())?;
    event.map(|Event { error }| error.message)
}

impl PartStream for Events {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        loop {
            self.take_events();
            if let Some(items) = self.take_items() {
                return Poll::Ready(Part::Items(items));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(Part::End),
                Some(Err(broken)) => {
                    let message = self.failure.take();
                    let message = message.unwrap_or_else(|| "the stream broke".into());
                    return Poll::Ready(Part::Failed(ServeError::new(broken.status, message)));
                }
                Some(Ok(frame)) => {
                    self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn events_become_the_values_that_they_carry() {
        let text = "data: {\"a\":1}\n\ndata: 2\n\n: ping\n\ndata: [DONE]\n\n";
        let body =
            http_body_util::BodyExt::map_err(Full::new(Bytes::from(text)), |never| match never {});
        let mut response = HttpResponse::new(ResponseBody::boxed(body));
        let events = http::HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, events);
        let Ok(Called::Stream(first, mut rest)) = called(response).await else {
            panic!("a stream")
        };
        let values: Vec<_> = first.iter().collect();
        assert_eq!(values, [&b"{\"a\":1}"[..], b"2"]);
        assert!(matches!(poll_fn(|cx| rest.poll_part(cx)).await, Part::End));
    }

    #[tokio::test]
    async fn a_stream_that_breaks_fails_with_the_message_of_its_last_event() {
        use http_body::Frame;
        use http_body_util::StreamBody;
        let text = "data: 1\n\ndata: {\"error\":{\"message\":\"full\",\"code\":null}}\n\n";
        let broken = litplex_http_core::stream::Broken { status: 503 };
        let frames = [Ok(Frame::data(Bytes::from(text))), Err(broken)];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let mut response = HttpResponse::new(ResponseBody::boxed(body));
        let events = http::HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, events);
        let Ok(Called::Stream(first, mut rest)) = called(response).await else {
            panic!("a stream")
        };
        assert_eq!(first.iter().collect::<Vec<_>>(), [&b"1"[..]]);
        let Part::Failed(error) = poll_fn(|cx| rest.poll_part(cx)).await else {
            panic!("an error")
        };
        assert_eq!((error.status(), &*error.detail), (503, "full"));
    }
}
