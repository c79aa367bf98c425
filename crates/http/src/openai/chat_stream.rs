use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use litplex_core::{Items, Outcome, Part, ServeError};
use serde_json::{Map, Value, json};

use super::chat::{Head, Seen, tool_calls};
use super::{Usage, error_body};
use crate::stream::{Source, Step};

/// A chat completion on its way out, in server-sent events: the parts of all choices as they
/// come, the end of each, and that of the whole.
#[derive(Debug)]
pub(crate) struct ChatStream {
    head: Head,
    include_usage: bool,
    choices: Vec<Choice>,
    /// The choice to ask first: none may hold back the others.
    turn: usize,
}

#[derive(Debug)]
struct Choice {
    seen: Seen,
    /// Nothing once it has ended.
    rest: Option<Source>,
}

impl ChatStream {
    /// Begins with the first items of every choice; returns what is sent first.
    pub(super) fn begin(
        head: Head,
        include_usage: bool,
        begun: Vec<(Items, Source)>,
    ) -> Outcome<(Bytes, Self)> {
        let mut first = Vec::new();
        let mut choices = Vec::new();
        for (items, rest) in begun {
            first.push(items);
            choices.push(Choice { seen: Seen::default(), rest: Some(rest) });
        }
        let mut stream = Self { head, include_usage, choices, turn: 0 };
        let mut out = BytesMut::new();
        for (index, items) in first.iter().enumerate() {
            stream.put_items(&mut out, index, items)?;
        }
        Ok((out.freeze(), stream))
    }

    /// Polls for what is sent next.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let count = self.choices.len();
        for index in (self.turn..self.turn + count).map(|at| at % count) {
            let Some(rest) = &mut self.choices[index].rest else { continue };
            let Poll::Ready(part) = rest.poll(cx) else { continue };
            self.turn = (index + 1) % count;
            let mut out = BytesMut::new();
            return Poll::Ready(match self.put(&mut out, index, part) {
                Ok(()) if self.is_over() => Step::End(out.freeze()),
                Ok(()) => Step::Data(out.freeze()),
                Err(error) => Step::Failed(event(&error_body(&error)), error.status),
            });
        }
        Poll::Pending
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
            let mut delta = self.choices[index].seen.read(item)?;
            number_tool_calls(&mut delta);
            let chunk = self.chunk(index, &delta.into(), &Value::Null);
            out.put_slice(&event(&chunk));
        }
        Ok(())
    }

    fn put_end(&self, out: &mut BytesMut, index: usize) {
        let reason = self.choices[index].seen.finish_reason(&self.head);
        let mut last = self.chunk(index, &json!({}), &reason);
        if !self.is_over() {
            out.put_slice(&event(&last));
            return;
        }
        let used: Vec<Usage> = self.choices.iter().filter_map(|choice| choice.seen.usage).collect();
        let mut usage = Usage::default();
        used.iter().for_each(|used| usage.add(*used));
        // Clients of LitServe find it there, without having asked.
        if !self.include_usage && !used.is_empty() {
            last["usage"] = usage.to_json();
        }
        out.put_slice(&event(&last));
        if self.include_usage {
            let mut end = self.head.object("chat.completion.chunk", &json!([]));
            end["usage"] = usage.to_json();
            out.put_slice(&event(&end));
        }
        out.put_slice(b"data: [DONE]\n\n");
    }

    fn chunk(&self, index: usize, delta: &Value, finish_reason: &Value) -> Value {
        let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
        let mut chunk = self.head.object("chat.completion.chunk", &json!([choice]));
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

/// Clients put the parts of a call together by its number: each needs its own.
fn number_tool_calls(delta: &mut Map<String, Value>) {
    let Some(calls) = tool_calls(delta) else { return };
    let number = |call: &Value| call["index"].as_u64();
    let all = calls.len();
    let distinct = calls.iter().filter_map(number).collect::<std::collections::BTreeSet<_>>().len();
    if distinct < all {
        for (index, call) in calls.iter_mut().enumerate() {
            call["index"] = index.into();
        }
    }
}

/// One event; JSON has no line breaks of its own.
fn event(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart() {
        let numbers = |calls: Value| {
            let mut delta = Map::from_iter([("tool_calls".to_owned(), calls)]);
            number_tool_calls(&mut delta);
            let calls = delta["tool_calls"].as_array().unwrap();
            calls.iter().map(|call| call["index"].as_u64()).collect::<Vec<_>>()
        };
        let expected = vec![Some(0), Some(1)];
        assert_eq!(expected, numbers(json!([{"index": 0}, {"index": 0}])));
        assert_eq!(expected, numbers(json!([{}, {}])));
        assert_eq!(vec![Some(3), Some(2)], numbers(json!([{"index": 3}, {"index": 2}])));
    }
}
