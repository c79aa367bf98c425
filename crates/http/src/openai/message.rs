//! A message of a chat, put together from what its model gives: as a whole, and as the pieces of a
//! stream, which add up to the same.

use litplex_core::{Outcome, ServeError};
use serde_json::value::RawValue;

use super::tool_calls::ToolCalls;
use super::{Usage, unique_id};
use crate::raw_json::{Kind, Object, raw};

/// Fields that name something: of these the first counts, others are joined or replaced.
const SAID_ONCE: [&str; 3] = ["role", "name", "tool_call_id"];

/// One choice of an answer, so far.
#[derive(Debug, Default)]
pub(super) struct Message {
    fields: Fields,
    /// Lists of an entry for each token, which the API has beside the message.
    logprobs: Fields,
    tool_calls: ToolCalls,
    finish_reason: Option<Box<RawValue>>,
    pub(super) usage: Option<Usage>,
}

/// What an output of a model adds to a choice.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) delta: Object,
    pub(super) logprobs: Option<Box<RawValue>>,
}

impl Message {
    /// Takes what a model gave; returns what it adds to the choice.
    ///
    /// # Errors
    /// It is no object.
    pub(super) fn take(&mut self, item: &[u8]) -> Outcome<Piece> {
        let text = std::str::from_utf8(item).unwrap_or_default();
        let Ok(mut given) = Object::parse(text) else { return Err(not_a_message(text)) };
        if let Some(usage) = Usage::take(&mut given) {
            self.usage.get_or_insert_default().add(usage);
        }
        self.finish_reason = given.take("finish_reason").or(self.finish_reason.take());
        let logprobs = given.take("logprobs").filter(|given| Kind::of(given.get()) == Kind::Object);
        if let Some(logprobs) = &logprobs {
            self.take_logprobs(logprobs.get());
        }
        let mut delta = Object::default();
        self.take_role(given.take("role"), &mut delta);
        for (name, value) in given.into_fields() {
            match Kind::of(value.get()) {
                Kind::Null => {}
                Kind::Array if name == "tool_calls" => {
                    let calls = self.tool_calls.take(value.get(), || unique_id("call"));
                    if !calls.is_empty() {
                        delta.write("tool_calls", &calls);
                    }
                }
                _ => self.take_field(&name, value, &mut delta),
            }
        }
        Ok(Piece { delta, logprobs })
    }

    fn take_logprobs(&mut self, given: &str) {
        let Ok(lists) = Object::parse(given) else { return };
        for (name, list) in lists.into_fields() {
            if Kind::of(list.get()) != Kind::Null || !self.logprobs.has(&name) {
                self.logprobs.take(&name, list.get());
            }
        }
    }

    /// Takes what is missing where the model gives no more; returns what it adds to the message.
    pub(super) fn end(&mut self) -> Object {
        let mut delta = Object::default();
        self.take_role(None, &mut delta);
        let is_call = !self.tool_calls.is_empty() || self.fields.has("function_call");
        if !is_call && !self.fields.has("content") {
            self.take_field("content", raw(&""), &mut delta);
        }
        delta
    }

    /// Says whose message it is, once.
    fn take_role(&mut self, role: Option<Box<RawValue>>, delta: &mut Object) {
        if !self.fields.has("role") {
            self.take_field("role", role.unwrap_or_else(|| raw(&"assistant")), delta);
        }
    }

    fn take_field(&mut self, name: &str, value: Box<RawValue>, delta: &mut Object) {
        if SAID_ONCE.contains(&name) && self.fields.has(name) {
            return;
        }
        self.fields.take(name, value.get());
        delta.set(name, value);
    }

    /// Returns the whole of it.
    pub(super) fn whole(&self) -> Object {
        let mut message = self.fields.whole();
        if message.get("content").is_none() {
            message.write("content", &());
        }
        if !self.tool_calls.is_empty() {
            message.write("tool_calls", &self.tool_calls.whole());
        }
        message
    }

    /// Returns the log probabilities of all tokens, where the model gave any.
    pub(super) fn logprobs(&self) -> Option<Object> {
        (!self.logprobs.0.is_empty()).then(|| self.logprobs.whole())
    }

    /// Why the message ended: what the model said, or what can be told from the outside.
    pub(super) fn finish_reason(&self, max_tokens: Option<u64>) -> Box<RawValue> {
        let used = self.usage.map_or(0, |usage| usage.completion);
        if let Some(said) = &self.finish_reason {
            return said.clone();
        }
        raw(&match max_tokens {
            _ if !self.tool_calls.is_empty() => "tool_calls",
            _ if self.fields.has("function_call") => "function_call",
            Some(most) if most > 0 && used >= most => "length",
            _ => "stop",
        })
    }
}

/// The fields of a message as JSON, each of which grows in place: a message has as many pieces as
/// tokens, and must not be copied for each of them.
#[derive(Debug, Default)]
struct Fields(Vec<(String, String)>);

impl Fields {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut String> {
        self.0.iter_mut().find(|(known, _)| known == name).map(|(_, json)| json)
    }

    /// Takes a value, which is joined to what the field has.
    fn take(&mut self, name: &str, json: &str) {
        match self.get_mut(name) {
            Some(known) => join(known, json),
            None => self.0.push((name.to_owned(), json.to_owned())),
        }
    }

    fn whole(&self) -> Object {
        let mut object = Object::default();
        for (name, json) in &self.0 {
            object.set(name, written(json.clone()));
        }
        object
    }
}

/// Joins a value to what is known, as clients join the pieces of a stream: texts and lists go on,
/// objects are joined field by field, and anything else is replaced.
fn join(known: &mut String, more: &str) {
    match (Kind::of(known), Kind::of(more)) {
        (Kind::Text, Kind::Text) => go_on(known, "", more),
        (Kind::Array, Kind::Array) if is_empty(more) => {}
        (Kind::Array, Kind::Array) if !is_empty(known) => go_on(known, ",", more),
        (Kind::Object, Kind::Object) => join_objects(known, more),
        _ => more.clone_into(known),
    }
}

/// Writes one value behind another of its kind, without what is between them.
fn go_on(known: &mut String, between: &str, more: &str) {
    known.pop();
    known.push_str(between);
    known.push_str(&more[1..]);
}

fn join_objects(known: &mut String, more: &str) {
    let (Ok(mut object), Ok(fields)) = (Object::parse(known), Object::parse(more)) else {
        return more.clone_into(known);
    };
    for (name, value) in fields.into_fields() {
        // A name is given once, and a type says what the rest is.
        let value = match object.get(&name) {
            Some(before) if !["name", "type", "id", "index"].contains(&name.as_str()) => {
                let mut joined = before.get().to_owned();
                join(&mut joined, value.get());
                written(joined)
            }
            _ => value,
        };
        object.set(&name, value);
    }
    raw(&object).get().clone_into(known);
}

fn written(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("two values of a kind join to one. This is a bug.")
}

fn is_empty(list: &str) -> bool {
    list[1..].trim_start().starts_with(']')
}

/// Returns the log's and the client's error of an output that is no part of a message.
pub(super) fn not_a_message(given: &str) -> ServeError {
    tracing::error!("a model that chats gave {given}, which is no part of a message");
    ServeError::internal()
}

impl Usage {
    /// Takes the counts out of an object that a model gave; nothing where it has none.
    pub(super) fn take(object: &mut Object) -> Option<Self> {
        let mut is_there = false;
        let mut count = |name| {
            let value = object.take(name)?;
            is_there |= Kind::of(value.get()) == Kind::Number;
            value.get().parse::<f64>().ok().map(|count| count as u64)
        };
        let prompt = count("prompt_tokens");
        let completion = count("completion_tokens");
        let total = count("total_tokens");
        let (prompt, completion) = (prompt.unwrap_or(0), completion.unwrap_or(0));
        is_there.then(|| Self {
            prompt,
            completion,
            total: total.unwrap_or(prompt.saturating_add(completion)),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Gives items to a message; returns the pieces of its stream, and the whole.
    fn given(items: &[Value]) -> (Vec<Value>, Value, Message) {
        let mut message = Message::default();
        let value = |object: &Object| serde_json::to_value(object).unwrap();
        let mut deltas: Vec<_> = items
            .iter()
            .map(|item| value(&message.take(item.to_string().as_bytes()).unwrap().delta))
            .collect();
        deltas.push(value(&message.end()));
        let whole = value(&message.whole());
        (deltas, whole, message)
    }

    #[test]
    fn a_role_is_said_once() {
        let (deltas, whole, _) = given(&[
            json!({"role": "assistant", "content": "one "}),
            json!({"role": "assistant", "content": "two", "name": null}),
        ]);
        let expected =
            [json!({"role": "assistant", "content": "one "}), json!({"content": "two"}), json!({})];
        assert_eq!(deltas, expected);
        assert_eq!(whole, json!({"role": "assistant", "content": "one two"}));
        let (deltas, whole, message) = given(&[]);
        assert_eq!(deltas, [json!({"role": "assistant", "content": ""})]);
        assert_eq!(whole, deltas[0]);
        assert_eq!(message.finish_reason(None).get(), "\"stop\"");
    }

    #[test]
    fn what_is_not_known_is_kept_and_joined() {
        let (deltas, whole, _) = given(&[
            json!({"content": null, "reasoning_content": "th", "name": "n", "list": []}),
            json!({"reasoning_content": "ink\"", "name": "n", "list": [1], "score": 1.5}),
            json!({"content": "a", "list": [2], "audio": {"id": "x", "data": "AA"}, "score": 2}),
            json!({"audio": {"id": "x", "data": "BB"}, "function_call": {"name": "f", "arguments": "{"}}),
            json!({"function_call": {"arguments": "}"}}),
        ]);
        let expected = json!({
            "role": "assistant", "reasoning_content": "think\"", "name": "n", "list": [1, 2],
            "score": 2, "content": "a", "audio": {"id": "x", "data": "AABB"},
            "function_call": {"name": "f", "arguments": "{}"},
        });
        assert_eq!(whole, expected);
        assert_eq!(deltas[1], json!({"reasoning_content": "ink\"", "list": [1], "score": 1.5}));
    }

    #[test]
    fn log_probabilities_are_beside_the_message() {
        let item = |token: &str| {
            let entry = json!([{"token": token, "logprob": -0.5}]);
            json!({"content": token, "logprobs": {"content": entry, "refusal": null}})
        };
        let (deltas, whole, message) = given(&[item("a"), json!({"content": " "}), item("b")]);
        assert_eq!(deltas[2], json!({"content": "b"}));
        assert_eq!(whole, json!({"role": "assistant", "content": "a b"}));
        let logprobs = serde_json::to_value(message.logprobs()).unwrap();
        let tokens = logprobs["content"].as_array().unwrap().iter().map(|entry| &entry["token"]);
        assert_eq!(tokens.collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(logprobs["refusal"], Value::Null);
        let mut message = Message::default();
        let piece = message.take(item("a").to_string().as_bytes()).unwrap();
        assert!(piece.logprobs.unwrap().get().contains("-0.5"));
        assert!(message.take(br#"{"content": "a"}"#).unwrap().logprobs.is_none());
        assert!(given(&[json!({"content": "a"})]).2.logprobs().is_none());
    }

    #[test]
    fn an_end_has_a_reason() {
        let reason = |item: Value, most| given(&[item]).2.finish_reason(most).get().to_owned();
        assert_eq!(reason(json!({"content": "a"}), Some(5)), "\"stop\"");
        assert_eq!(reason(json!({"content": "a", "completion_tokens": 5}), Some(5)), "\"length\"");
        let said = json!({"content": "a", "finish_reason": "content_filter"});
        assert_eq!(reason(said, None), "\"content_filter\"");
        let call = json!({"tool_calls": [{"function": {"name": "f", "arguments": ""}}]});
        assert_eq!(reason(call, None), "\"tool_calls\"");
        let call = json!({"function_call": {"name": "f", "arguments": ""}});
        assert_eq!(reason(call, None), "\"function_call\"");
    }

    #[test]
    fn usage_adds_up_and_is_no_part_of_the_message() {
        let used = json!({"content": "", "prompt_tokens": 2, "completion_tokens": 3});
        let (deltas, _, message) = given(&[used.clone(), used]);
        assert_eq!(message.usage, Some(Usage { prompt: 4, completion: 6, total: 10 }));
        assert_eq!(deltas[1], json!({"content": ""}));
    }

    #[test]
    fn counts_that_are_too_large_are_the_largest() {
        let most = json!({"content": "", "prompt_tokens": u64::MAX, "completion_tokens": 1e30});
        let (_, _, message) = given(&[most.clone(), most]);
        let usage = Usage { prompt: u64::MAX, completion: u64::MAX, total: u64::MAX };
        assert_eq!(message.usage, Some(usage));
    }

    #[test]
    fn a_message_of_many_pieces_is_not_copied_for_each() {
        let mut message = Message::default();
        let (mut capacity, mut moves) = (0, 0);
        for _ in 0..20_000 {
            message.take(br#"{"content": "word "}"#).unwrap();
            let now = message.fields.get_mut("content").map_or(0, |content| content.capacity());
            moves += usize::from(now != capacity);
            capacity = now;
        }
        assert!(moves < 40, "{moves} times");
        let whole = serde_json::to_value(message.whole()).unwrap();
        assert_eq!(whole["content"], "word ".repeat(20_000));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for item in [&b"\"text\""[..], b"[1]", b"{"] {
            assert_eq!(Message::default().take(item).unwrap_err().status, 500);
        }
    }
}
