//! A streamed chat completion: the parts of all choices as events.

use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use litplex_calls::ItemStream;
use litplex_core::{Items, Outcome, Part, Reservation, ServeError};
use litplex_http_core::raw_json::{Object, escape_line_breaks};
use litplex_http_core::request_name::RequestName;
use litplex_http_core::stream::{ChunkStream, Step};
use serde::Serialize;
use serde_json::value::RawValue;

use super::chat::Head;
use super::error::error_body;
use super::message::Message;
use super::usage::Usage;

/// A streamed chat completion, in server-sent events: the parts of all choices as they arrive, the
/// end of each, and that of the whole.
#[derive(Debug)]
pub(super) struct ChatStream {
    head: Head,
    include_usage: bool,
    choices: Vec<Choice>,
    /// The choice that is polled first, so that none delays the others.
    turn: usize,
}

#[derive(Debug)]
struct Choice {
    message: Message,
    /// `None` once it has ended.
    rest: Option<ItemStream>,
}

impl ChunkStream for ChatStream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let count = self.choices.len();
        for index in (self.turn..self.turn + count).map(|at| at % count) {
            let Some(rest) = &mut self.choices[index].rest else { continue };
            let Poll::Ready(part) = rest.poll(cx) else { continue };
            self.turn = (index + 1) % count;
            let mut out = BytesMut::new();
            return Poll::Ready(match self.put(&mut out, index, part) {
                Ok(()) if self.is_over() => Step::End(out.freeze()),
                Ok(()) => Step::Data(out.freeze()),
                Err(error) => Step::Failed(event(&error_body(&error, None)), error.status()),
            });
        }
        Poll::Pending
    }
}

impl ChatStream {
    /// Begins with the first items of every choice; returns the first chunk.
    pub(super) fn begin(
        head: Head,
        include_usage: bool,
        begun: Vec<(Items, ItemStream)>,
        held: &Reservation,
        request: &RequestName,
    ) -> Outcome<(Bytes, Self)> {
        let mut first = Vec::new();
        let mut choices = Vec::new();
        for (items, rest) in begun {
            first.push(items);
            let message = Message::new(held.another(), request.clone());
            choices.push(Choice { message, rest: Some(rest) });
        }
        let mut stream = Self { head, include_usage, choices, turn: 0 };
        let mut out = BytesMut::new();
        for (index, items) in first.iter().enumerate() {
            stream.put_items(&mut out, index, items)?;
        }
        Ok((out.freeze(), stream))
    }

    fn is_over(&self) -> bool {
        self.choices.iter().all(|choice| choice.rest.is_none())
    }

    fn put(&mut self, out: &mut BytesMut, index: usize, part: Part) -> Result<(), ServeError> {
        match part {
            Part::Items(items) => self.put_items(out, index, &items),
            Part::End => {
                self.choices[index].rest = None;
                self.put_end(out, index);
                Ok(())
            }
            Part::Failed(error) => Err(error),
        }
    }

    fn put_items(&mut self, out: &mut BytesMut, index: usize, items: &Items) -> Outcome<()> {
        for item in items.iter() {
            let piece = self.choices[index].message.take(item)?;
            let mut chunk = self.chunk(index, &piece.delta, None);
            chunk.choices[0].logprobs = piece.logprobs.as_deref();
            out.put_slice(&event(&chunk));
        }
        Ok(())
    }

    fn put_end(&mut self, out: &mut BytesMut, index: usize) {
        let delta = self.choices[index].message.end();
        if !delta.is_empty() {
            out.put_slice(&event(&self.chunk(index, &delta, None)));
        }
        let reason = self.choices[index].message.finish_reason(self.head.max_tokens);
        let nothing = Object::default();
        let mut last = self.chunk(index, &nothing, Some(&reason));
        if !self.is_over() {
            out.put_slice(&event(&last));
            return;
        }
        let used = self.choices.iter().filter_map(|choice| choice.message.usage);
        let usage = used.reduce(|mut sum, usage| {
            sum.add(usage);
            sum
        });
        // Clients of LitServe find it there without asking for it.
        if !self.include_usage && usage.is_some() {
            last.usage = Some(usage);
        }
        out.put_slice(&event(&last));
        if self.include_usage {
            let usage = Some(Some(usage.unwrap_or_default()));
            out.put_slice(&event(&Chunk { head: self.head.of(CHUNK), choices: vec![], usage }));
        }
        out.put_slice(b"data: [DONE]\n\n");
    }

    fn chunk<'a>(
        &'a self,
        index: usize,
        delta: &'a Object,
        finish_reason: Option<&'a RawValue>,
    ) -> Chunk<'a> {
        let choices = vec![ChunkChoice { index, delta, logprobs: None, finish_reason }];
        let usage = self.include_usage.then_some(None);
        Chunk { head: self.head.of(CHUNK), choices, usage }
    }
}

const CHUNK: &str = "chat.completion.chunk";

#[derive(Serialize)]
struct Chunk<'a> {
    #[serde(flatten)]
    head: super::chat::HeadOf<'a>,
    choices: Vec<ChunkChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: &'a Object,
    logprobs: Option<&'a RawValue>,
    finish_reason: Option<&'a RawValue>,
}

/// Returns an event. JSON has no line breaks, and the characters that some readers take for one are
/// escaped.
fn event(value: &impl Serialize) -> Bytes {
    let json = serde_json::to_vec(value).expect("it is plain data. This is a bug.");
    let mut event = BytesMut::with_capacity(json.len() + 8);
    event.put_slice(b"data: ");
    event.put_slice(&escape_line_breaks(&json));
    event.put_slice(b"\n\n");
    event.freeze()
}
