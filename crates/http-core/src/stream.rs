//! Streamed response bodies: how items are framed, and how a stream begins, ends and breaks.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use litplex_calls::ItemStream;
use litplex_core::{ItemKind, Items, Part, ServeError};
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep};

use crate::raw_json::escape_line_breaks;

/// The separation of the items of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One JSON value a line.
    JsonLines,
    /// Text, the items one after the other.
    Text,
    /// Bytes, the items one after the other.
    Bytes,
    /// Server-sent events, as the HTML standard defines `text/event-stream`.
    Events,
}

const JSON_LINES: &str = "application/x-ndjson";
const EVENT_STREAM: &str = "text/event-stream";

/// Returns whether a client with these headers asks for the items of a list as a stream: only then is it
/// one for an endpoint that can also give the whole list.
pub fn asks_for_items(headers: &HeaderMap) -> bool {
    accepts(headers, EVENT_STREAM) || accepts(headers, JSON_LINES)
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut given = headers.get_all(ACCEPT).iter();
    given.any(|accept| accept.to_str().is_ok_and(|accept| accept.contains(media_type)))
}

impl Framing {
    /// Returns the framing for a client that sent these headers and a model that yields this kind.
    pub fn choose(headers: &HeaderMap, kind: ItemKind) -> Self {
        match kind {
            _ if accepts(headers, EVENT_STREAM) => Self::Events,
            ItemKind::Json => Self::JsonLines,
            ItemKind::Text => Self::Text,
            ItemKind::Bytes => Self::Bytes,
        }
    }

    /// Returns the media type of such a stream.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::JsonLines => JSON_LINES,
            Self::Text => "text/plain; charset=utf-8",
            Self::Bytes => "application/octet-stream",
            Self::Events => EVENT_STREAM,
        }
    }

    /// Returns these items as a part of the body.
    pub fn frame(self, items: &Items) -> Bytes {
        let mut out = BytesMut::with_capacity(items.packed_len() * 2);
        for item in items.iter() {
            match (self, items.kind()) {
                (Self::Events, ItemKind::Json) => event(&mut out, &escape_line_breaks(item)),
                (Self::Events, _) => event(&mut out, item),
                (_, ItemKind::Json) => {
                    out.put_slice(&escape_line_breaks(item));
                    out.put_u8(b'\n');
                }
                (_, ItemKind::Text | ItemKind::Bytes) => out.put_slice(item),
            }
        }
        out.freeze()
    }

    /// Returns an error in the middle of the stream; text and bytes have no place for one.
    fn error(self, error: &ServeError) -> Bytes {
        let error =
            json!({"error": {"status": error.status(), "detail": error.detail}}).to_string();
        let error = escape_line_breaks(error.as_bytes());
        let error = String::from_utf8_lossy(&error);
        match self {
            Self::JsonLines => format!("{error}\n").into(),
            Self::Events => format!("event: error\ndata: {error}\n\n").into(),
            Self::Text | Self::Bytes => Bytes::new(),
        }
    }
}

/// Returns one event with these data.
pub fn event_with(data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 16);
    event(&mut out, data);
    out.freeze()
}

/// Writes one event. A line break in the item, of any of the three kinds of the standard, begins
/// another `data:` line.
fn event(out: &mut BytesMut, item: &[u8]) {
    for line in item.split(|byte| *byte == b'\n') {
        for line in line.strip_suffix(b"\r").unwrap_or(line).split(|byte| *byte == b'\r') {
            out.put_slice(b"data: ");
            out.put_slice(line);
            out.put_u8(b'\n');
        }
    }
    out.put_u8(b'\n');
}

/// The body of a streamed response. When the stream breaks, the body breaks visibly.
#[derive(Debug)]
pub struct StreamBody {
    first: Option<Bytes>,
    chunks: Chunks,
    state: State,
    ping: Option<Ping>,
}

/// Sends comments while a stream is silent: proxies close silent connections.
#[derive(Debug)]
struct Ping {
    interval: Duration,
    /// Runs while the next part has not arrived.
    clock: Pin<Box<Sleep>>,
    is_running: bool,
}

impl Ping {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        if !std::mem::replace(&mut self.is_running, true) {
            self.clock.as_mut().reset(Instant::now() + self.interval);
        }
        ready!(self.clock.as_mut().poll(cx));
        self.is_running = false;
        Poll::Ready(Bytes::from_static(b": ping\n\n"))
    }
}

/// The source of a stream's chunks.
#[derive(Debug)]
pub enum Chunks {
    /// The items of one stream.
    Plain(Framing, ItemStream),
    /// The chunks of a dialect.
    Dialect(Box<dyn ChunkStream>),
}

/// A source of chunks, framed by a dialect.
pub trait ChunkStream: fmt::Debug + Send {
    /// Polls for the next chunk.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step>;
}

/// A step of a stream.
#[derive(Debug)]
pub enum Step {
    /// A chunk.
    Data(Bytes),
    /// The last chunk, which may be empty.
    End(Bytes),
    /// The text of an error, and its status. The stream breaks after it.
    Failed(Bytes, u16),
}

impl Chunks {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        match self {
            Self::Plain(framing, source) => source.poll(cx).map(|part| match part {
                Part::Items(items) => Step::Data(framing.frame(&items)),
                Part::End => Step::End(Bytes::new()),
                Part::Failed(error) => Step::Failed(framing.error(&error), error.status()),
            }),
            Self::Dialect(chunks) => chunks.poll(cx),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first items are handed out. They must not wait for items that follow closely.
    First,
    Open,
    Ended,
    /// The error is handed out. It must reach the client before the connection is closed.
    Failing(Broken),
    Failed(Broken),
}

/// A stream broke: the connection is closed before the body is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// The status of the cause.
    pub status: u16,
}

impl Broken {
    /// The client took nothing of the response for too long.
    pub const STALLED: Self = Self { status: StatusCode::REQUEST_TIMEOUT.as_u16() };
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream broke off")
    }
}

impl std::error::Error for Broken {}

impl StreamBody {
    /// Returns a body that begins with `first`, if that is not empty.
    pub fn new(first: Bytes, chunks: Chunks, ping_interval: Option<Duration>) -> Self {
        let first = Some(first).filter(|first| !first.is_empty());
        let ping = ping_interval.map(|interval| {
            let (clock, is_running) = (Box::pin(sleep(interval)), false);
            Ping { interval, clock, is_running }
        });
        Self { first, chunks, state: State::First, ping }
    }

    /// Polls for the next frame.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        match self.state {
            State::First => return self.flush_and(State::Open, cx),
            State::Open => {}
            State::Ended => return Poll::Ready(None),
            State::Failing(why) => return self.flush_and(State::Failed(why), cx),
            State::Failed(why) => return Poll::Ready(Some(Err(why))),
        }
        let Poll::Ready(step) = self.chunks.poll(cx) else {
            let Some(ping) = &mut self.ping else { return Poll::Pending };
            return ping.poll(cx).map(|comment| Some(Ok(Frame::data(comment))));
        };
        if let Some(ping) = &mut self.ping {
            ping.is_running = false;
        }
        match step {
            Step::Data(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Step::End(last) => {
                self.state = State::Ended;
                Poll::Ready(Some(last).filter(|last| !last.is_empty()).map(|l| Ok(Frame::data(l))))
            }
            Step::Failed(error, status) => {
                self.state = State::Failing(Broken { status });
                Poll::Ready(Some(Ok(Frame::data(error))))
            }
        }
    }

    /// Returns `Pending` once. That makes hyper write out its buffer; it would go on to fill it, and
    /// discards it when a body fails.
    fn flush_and<T>(&mut self, next: State, cx: &Context<'_>) -> Poll<T> {
        self.state = next;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_with_line_breaks_is_one_event() {
        let mut out = BytesMut::new();
        event(&mut out, b"one\r\ntwo\revent: forged");
        assert_eq!(out, "data: one\ndata: two\ndata: event: forged\n\n");
    }

    #[test]
    fn one_value_is_one_line_for_every_reader() {
        let mut items = litplex_core::ItemsBuilder::json();
        let value = json!({"t": "a\u{2028}b\u{2029}c\u{85}d"});
        items.push_with(|out| serde_json::to_writer(out, &value)).unwrap();
        let items = items.finish();
        let escaped = r#"{"t":"a\u2028b\u2029c\u0085d"}"#;
        assert_eq!(Framing::JsonLines.frame(&items), format!("{escaped}\n"));
        assert_eq!(Framing::Events.frame(&items), format!("data: {escaped}\n\n"));
        let error = ServeError::new(500, "a\u{2028}b");
        for framing in [Framing::JsonLines, Framing::Events] {
            let error = framing.error(&error);
            assert!(String::from_utf8_lossy(&error).contains("a\\u2028b"));
        }
    }

    #[test]
    fn framing_follows_what_the_client_asks_for() {
        let mut headers = HeaderMap::new();
        assert_eq!(Framing::choose(&headers, ItemKind::Json), Framing::JsonLines);
        headers.insert(ACCEPT, "text/event-stream".parse().unwrap());
        assert_eq!(Framing::choose(&headers, ItemKind::Json), Framing::Events);
    }
}
