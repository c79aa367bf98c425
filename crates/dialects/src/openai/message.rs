//! A message of a chat, built from the items of a model: as a whole, and as the pieces of a stream.
//! Both have the same content.

use indexmap::IndexMap;
use litplex_core::{Outcome, Reservation, ServeError};
use litplex_http_core::raw_json::{Kind, Object, raw};
use litplex_http_core::request_name::RequestName;
use serde_json::value::RawValue;

use super::ids::unique_id;
use super::tool_calls::ToolCalls;
use super::usage::Usage;

/// Fields that name something: the first value counts. Other fields are joined or replaced.
const SAID_ONCE: [&str; 3] = ["role", "name", "tool_call_id"];

/// A choice of a response, so far.
#[derive(Debug, Default)]
pub(super) struct Message {
    fields: Fields,
    /// Lists with an entry for each token, which the API has beside the message.
    logprobs: Fields,
    tool_calls: ToolCalls,
    finish_reason: Option<Box<RawValue>>,
    pub(super) usage: Option<Usage>,
    /// The memory of all items.
    held: Reservation,
    request: RequestName,
}

/// The part of a choice that one item adds.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) delta: Object,
    pub(super) logprobs: Option<Box<RawValue>>,
}

impl Message {
    /// Returns an empty message of the response to this request, which reserves the memory that it takes.
    pub(super) fn new(held: Reservation, request: RequestName) -> Self {
        Self { held, request, ..Self::default() }
    }

    /// Adds an item of a model; returns its piece.
    ///
    /// # Errors
    /// The item is not an object, or exceeds the memory budget.
    pub(super) fn take(&mut self, item: &[u8]) -> Outcome<Piece> {
        self.held.grow(item.len())?;
        let text = std::str::from_utf8(item).unwrap_or_default();
        let Ok(mut given) = Object::parse(text) else {
            return Err(not_a_message(text, &self.request));
        };
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

    /// Adds the fields that are missing when the model has ended; returns the piece.
    pub(super) fn end(&mut self) -> Object {
        let mut delta = Object::default();
        self.take_role(None, &mut delta);
        let is_call = !self.tool_calls.is_empty() || self.fields.has("function_call");
        if !is_call && !self.fields.has("content") {
            self.take_field("content", raw(&""), &mut delta);
        }
        delta
    }

    /// Adds the role of the author, once.
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

    /// Returns the whole message.
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

    /// Returns the log probabilities of all tokens, if the model gave any.
    pub(super) fn logprobs(&self) -> Option<Object> {
        (!self.logprobs.0.is_empty()).then(|| self.logprobs.whole())
    }

    /// Returns the reason for the end of the message: the model's, or the one that the message
    /// shows.
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

/// The depth to which objects in a message are joined; deeper ones are replaced.
const MAX_DEPTH: usize = 16;

/// Fields of an object that name its kind: they are set once, or replaced.
const REPLACED: [&str; 4] = ["name", "type", "id", "index"];

/// The fields of a message. Each grows in place: a message has as many pieces as tokens, and must
/// not be copied for each of them.
#[derive(Debug, Default)]
struct Fields(IndexMap<String, Field>);

/// The value of a field, so far.
#[derive(Debug)]
enum Field {
    /// JSON in the spelling of the model.
    Json(String),
    /// An object of which more than one piece arrived.
    Object(Fields),
}

impl Fields {
    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Field> {
        self.0.get_mut(name)
    }

    /// Joins a value to the value of the field.
    fn take(&mut self, name: &str, json: &str) {
        match self.get_mut(name) {
            Some(known) => known.join(json, MAX_DEPTH),
            None => self.push(name, json),
        }
    }

    fn whole(&self) -> Object {
        let mut object = Object::default();
        for (name, field) in &self.0 {
            object.set(name, field.written());
        }
        object
    }

    fn push(&mut self, name: &str, json: &str) {
        self.0.insert(name.to_owned(), Field::Json(json.to_owned()));
    }

    fn join(&mut self, more: Object, depth: usize) {
        for (name, value) in more.into_fields() {
            match self.get_mut(&name) {
                None => self.push(&name, value.get()),
                Some(known) if REPLACED.contains(&name.as_str()) => known.replace(value.get()),
                Some(known) => known.join(value.get(), depth),
            }
        }
    }
}

impl Field {
    /// Joins a value as clients join the pieces of a stream: texts and lists are appended, objects
    /// are joined field by field, and other values are replaced.
    fn join(&mut self, more: &str, depth: usize) {
        match (self.kind(), Kind::of(more)) {
            (Kind::Object, Kind::Object) if depth > 0 => self.join_object(more, depth - 1),
            (Kind::Text, Kind::Text) => self.go_on("", more),
            (Kind::Array, Kind::Array) if is_empty(more) => {}
            (Kind::Array, Kind::Array) if !self.is_empty() => self.go_on(",", more),
            _ => self.replace(more),
        }
    }

    fn join_object(&mut self, more: &str, depth: usize) {
        let Ok(more) = Object::parse(more) else { return };
        if let Self::Json(known) = self {
            let mut fields = Fields::default();
            fields.join(Object::parse(known).unwrap_or_default(), depth);
            *self = Self::Object(fields);
        }
        if let Self::Object(fields) = self {
            fields.join(more, depth);
        }
    }

    /// Appends a value to another of its kind, without the characters between them.
    fn go_on(&mut self, between: &str, more: &str) {
        let Self::Json(known) = self else { return };
        known.pop();
        known.push_str(between);
        known.push_str(&more[1..]);
    }

    fn replace(&mut self, json: &str) {
        *self = Self::Json(json.to_owned());
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Json(json) => Kind::of(json),
            Self::Object(_) => Kind::Object,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Json(list) if is_empty(list))
    }

    fn written(&self) -> Box<RawValue> {
        match self {
            Self::Json(json) => RawValue::from_string(json.clone())
                .expect("two values of a kind join to one. This is a bug."),
            Self::Object(fields) => raw(&fields.whole()),
        }
    }
}

fn is_empty(list: &str) -> bool {
    list[1..].trim_start().starts_with(']')
}

/// Logs an item that is not a part of a message, and returns the client's error.
pub(super) fn not_a_message(given: &str, request: &RequestName) -> ServeError {
    tracing::error!(
        request_id = request.text(),
        "invalid output of a chat model: expected a string or a part of a message, got {given}"
    );
    ServeError::internal()
}

impl Usage {
    /// Removes the counts of tokens from an item and returns them, if it has any.
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
    use litplex_core::MemoryBudget;
    use serde_json::{Value, json};

    use super::*;

    /// Adds items to a message; returns the pieces of its stream, and the whole.
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
    fn unknown_fields_are_kept_and_joined() {
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

    /// Returns the capacity of a field's text, if it is one.
    fn room(field: Option<&mut Field>, within: Option<&str>) -> usize {
        match (field, within) {
            (Some(Field::Json(text)), None) => text.capacity(),
            (Some(Field::Object(fields)), Some(name)) => room(fields.get_mut(name), None),
            _ => 0,
        }
    }

    #[test]
    fn a_message_of_many_pieces_is_not_copied_for_each() {
        for (field, within, piece) in [
            ("content", None, &br#"{"content": "word "}"#[..]),
            ("function_call", Some("arguments"), br#"{"function_call": {"arguments": "word "}}"#),
        ] {
            let mut message = Message::default();
            let (mut known, mut moves) = (0, 0);
            for _ in 0..20_000 {
                message.take(piece).unwrap();
                let now = room(message.fields.get_mut(field), within);
                moves += usize::from(now != known);
                known = now;
            }
            assert!(known > 100_000, "{field}: it is one text");
            assert!(moves < 40, "{field}: {moves} times");
            let whole = serde_json::to_value(message.whole()).unwrap();
            let whole = within.map_or(&whole[field], |within| &whole[field][within]);
            assert_eq!(whole, &"word ".repeat(20_000));
        }
    }

    #[test]
    fn objects_are_joined_to_a_depth() {
        let deep = |text: &str| {
            let (open, close) = (r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
            format!("{open}\"{text}\"{close}").into_bytes()
        };
        let mut message = Message::default();
        message.take(&deep("one")).unwrap();
        message.take(&deep("two")).unwrap();
        let whole = raw(&message.whole());
        assert!(whole.get().contains("two") && !whole.get().contains("one"));
    }

    #[test]
    fn a_message_takes_what_it_was_given() {
        let budget = MemoryBudget::new(100);
        let mut message = Message::new(budget.reserve(), RequestName::default());
        let piece = br#"{"content": "of thirty-one bytes"}"#;
        message.take(piece).unwrap();
        assert_eq!(budget.taken(), piece.len());
        message.take(piece).unwrap();
        assert_eq!(message.take(piece).unwrap_err().status(), 503);
        drop(message);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn an_output_that_is_not_a_message_is_an_error() {
        for item in [&b"\"text\""[..], b"[1]", b"{"] {
            assert_eq!(Message::default().take(item).unwrap_err().status(), 500);
        }
    }
}
