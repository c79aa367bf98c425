use std::future::poll_fn;

use futures_util::future::try_join_all;
use http::StatusCode;
use litplex_core::{Answer, Content, Items, Outcome, Part, ServeError};
use serde_json::{Map, Value, json};

use super::chat_request::ChatRequest;
use super::chat_stream::ChatStream;
use super::{Usage, now, unique_id, whole};
use crate::answer::{self, HttpResponse};
use crate::caller::Call;
use crate::stream::Source;

/// Answers a chat completion: each of its choices is a job of its own.
pub(super) async fn answer(call: Call<'_>) -> Outcome<HttpResponse> {
    if call.request.content != Content::Json {
        return Err(ServeError::new(415, "the body must be JSON; send `application/json`"));
    }
    let wanted = ChatRequest::parse(&whole(&call.request)?)?;
    let callers = (0..wanted.choices).map(|_| call.submit(call.request.clone()).answer());
    let begun = try_join_all(callers).await?;
    let choices = begun.into_iter().map(|(answer, presence)| match answer {
        Answer::Stream(first, rest) => {
            let source = Source::begin(&first, rest, call.route, call.times, presence);
            Ok((first, source))
        }
        Answer::Whole(_) => Err(not_a_message("an answer that is not a stream")),
    });
    let choices = choices.collect::<Outcome<Vec<_>>>()?;
    let head = Head::new(&wanted);
    if wanted.stream {
        let (first, chunks) = ChatStream::begin(head, wanted.include_usage, choices)?;
        return Ok(answer::stream(first, chunks.into(), "text/event-stream"));
    }
    let completion = complete(head, choices).await?;
    Ok(answer::json(StatusCode::OK, &completion))
}

/// What all parts of an answer have in common.
#[derive(Debug)]
pub(super) struct Head {
    id: String,
    created: u64,
    model: String,
    max_tokens: Option<u64>,
}

impl Head {
    fn new(wanted: &ChatRequest) -> Self {
        Self {
            id: unique_id("chatcmpl"),
            created: now(),
            model: wanted.model.clone(),
            max_tokens: wanted.max_tokens,
        }
    }

    pub(super) fn object(&self, kind: &str, choices: &Value) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
}

/// What was seen of one choice so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    finish_reason: Option<Value>,
    has_tool_calls: bool,
    pub(super) usage: Option<Usage>,
}

impl Seen {
    /// Reads what a model gave; returns the part of the message that is in it.
    pub(super) fn read(&mut self, item: &[u8]) -> Outcome<Map<String, Value>> {
        let Ok(Value::Object(mut message)) = serde_json::from_slice(item) else {
            return Err(not_a_message(&String::from_utf8_lossy(item)));
        };
        if let Some(usage) = Usage::take(&mut message) {
            self.usage.get_or_insert_default().add(usage);
        }
        self.finish_reason = message.remove("finish_reason").or(self.finish_reason.take());
        message.retain(|_, value| !value.is_null());
        self.has_tool_calls |= tool_calls(&mut message).is_some_and(|calls| !calls.is_empty());
        Ok(message)
    }

    /// Why the message ended: what the model said, or what can be told from the outside.
    pub(super) fn finish_reason(&self, head: &Head) -> Value {
        let used = self.usage.map_or(0, |usage| usage.completion);
        match &self.finish_reason {
            Some(said) => said.clone(),
            None if self.has_tool_calls => "tool_calls".into(),
            None if head.max_tokens.is_some_and(|most| most > 0 && used >= most) => "length".into(),
            None => "stop".into(),
        }
    }
}

pub(super) fn tool_calls(message: &mut Map<String, Value>) -> Option<&mut Vec<Value>> {
    message.get_mut("tool_calls").and_then(Value::as_array_mut)
}

/// Waits for the ends of all choices.
async fn complete(head: Head, choices: Vec<(Items, Source)>) -> Outcome<Value> {
    let collected = choices.into_iter().map(|(first, rest)| collect(first, rest));
    let collected = try_join_all(collected).await?;
    let mut usage = Usage::default();
    collected.iter().filter_map(|choice| choice.seen.usage).for_each(|used| usage.add(used));
    let choices = collected.into_iter().enumerate().map(|(index, choice)| {
        let reason = choice.seen.finish_reason(&head);
        let message = choice.into_message();
        json!({"index": index, "message": message, "logprobs": null, "finish_reason": reason})
    });
    let choices: Value = choices.collect();
    let mut completion = head.object("chat.completion", &choices);
    completion["usage"] = usage.to_json();
    Ok(completion)
}

async fn collect(first: Items, mut rest: Source) -> Outcome<Collected> {
    let mut collected = Collected::default();
    collected.take(&first)?;
    loop {
        match poll_fn(|cx| rest.poll(cx)).await {
            Part::Items(items) => collected.take(&items)?,
            Part::End => return Ok(collected),
            Part::Failed(error) => return Err(error),
        }
    }
}

/// One choice, put together from the parts of its stream.
#[derive(Debug, Default)]
struct Collected {
    seen: Seen,
    content: Option<String>,
    tool_calls: Vec<Value>,
}

impl Collected {
    fn take(&mut self, items: &Items) -> Outcome<()> {
        for item in items.iter() {
            let mut message = self.seen.read(item)?;
            if let Some(Value::String(text)) = message.get("content") {
                self.content.get_or_insert_default().push_str(text);
            }
            for call in tool_calls(&mut message).into_iter().flatten() {
                self.take_tool_call(call.take());
            }
        }
        Ok(())
    }

    /// A call that is given again, by its id, is given anew.
    fn take_tool_call(&mut self, call: Value) {
        let known =
            self.tool_calls.iter_mut().find(|c| !c["id"].is_null() && c["id"] == call["id"]);
        match known {
            Some(known) => *known = call,
            None => self.tool_calls.push(call),
        }
    }

    fn into_message(self) -> Value {
        let mut message = json!({"role": "assistant", "content": self.content});
        if !self.tool_calls.is_empty() {
            message["tool_calls"] = self.tool_calls.into();
        }
        message
    }
}

fn not_a_message(given: &str) -> ServeError {
    tracing::error!("a model that chats gave {given}, which is no part of a message");
    ServeError::internal()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(values: &[Value]) -> Items {
        let mut builder = litplex_core::ItemsBuilder::json();
        for value in values {
            builder.push_with(|out| serde_json::to_writer(out, value)).unwrap();
        }
        builder.finish()
    }

    fn head(max_tokens: Option<u64>) -> Head {
        Head { id: "chatcmpl-1".into(), created: 7, model: "m".into(), max_tokens }
    }

    #[test]
    fn the_parts_of_a_message_are_put_together() {
        let mut choice = Collected::default();
        let call = json!({"id": "1", "function": {"name": "f", "arguments": "{}"}});
        let parts = [
            json!({"role": "assistant", "content": "a"}),
            json!({"role": "assistant", "content": "b", "tool_calls": [call]}),
            json!({"content": "", "prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}),
        ];
        choice.take(&items(&parts)).unwrap();
        assert_eq!(choice.seen.finish_reason(&head(None)), "tool_calls");
        assert_eq!(choice.seen.usage, Some(Usage { prompt: 2, completion: 3, total: 5 }));
        let message = choice.into_message();
        assert_eq!(message["content"], "ab");
        assert_eq!(message["tool_calls"][0]["id"], "1");
    }

    #[test]
    fn an_end_has_a_reason() {
        let reason = |item: Value, max_tokens| {
            let mut seen = Seen::default();
            seen.read(item.to_string().as_bytes()).unwrap();
            seen.finish_reason(&head(max_tokens))
        };
        assert_eq!(reason(json!({"content": "a"}), Some(5)), "stop");
        assert_eq!(reason(json!({"content": "a", "completion_tokens": 5}), Some(5)), "length");
        let said = json!({"content": "a", "finish_reason": "content_filter"});
        assert_eq!(reason(said, None), "content_filter");
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for item in [&b"\"text\""[..], b"[1]", b"{"] {
            assert_eq!(Seen::default().read(item).unwrap_err().status, 500);
        }
    }
}
