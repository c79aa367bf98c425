//! Tool calls: one list from whole calls and from fragments, and the fragments that clients join.

use std::borrow::Cow;
use std::collections::HashMap;

use litplex_http_core::raw_json::{Object, each_item, text_of};
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;

/// The most bytes of arguments that are parsed to find out whether they are complete.
const SCALAR_BYTES: usize = 64;

/// The tool calls of a message, built from whole calls and from fragments.
#[derive(Debug, Default)]
pub(super) struct ToolCalls {
    calls: Vec<Call>,
    /// The indices of the calls by their ids, and by the numbers that the model gave them: the last of
    /// each.
    by_id: HashMap<String, usize>,
    by_number: HashMap<i64, usize>,
}

#[derive(Debug)]
struct Call {
    id: String,
    kind: String,
    name: Option<String>,
    arguments: String,
    progress: Progress,
    /// The other fields.
    rest: Object,
}

/// An entry of a list of calls.
#[derive(Debug, Default)]
struct Entry {
    number: Option<i64>,
    id: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    rest: Object,
}

impl ToolCalls {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Adds a list of calls; returns the new parts with the indices by which clients join them. A
    /// call without an id gets one of `make_id`.
    pub(super) fn take(&mut self, list: &str, make_id: impl Fn() -> String) -> Vec<Object> {
        let mut added = Vec::new();
        let _ = each_item(list, |_, entry: &RawValue| {
            if let Some(entry) = Entry::read(entry.get()) {
                added.extend(self.take_entry(entry, &make_id));
            }
            Ok::<_, std::convert::Infallible>(())
        });
        added
    }

    fn take_entry(&mut self, entry: Entry, make_id: impl Fn() -> String) -> Option<Object> {
        match self.continued(&entry) {
            Some(place) => self.calls[place].go_on(place, entry),
            None => {
                let place = self.calls.len();
                if let Some(number) = entry.number {
                    self.by_number.insert(number, place);
                }
                let call = Call::begin(entry, make_id);
                self.by_id.insert(call.id.clone(), place);
                let mut added = Object::default();
                added.write("index", &place);
                call.write(&mut added);
                self.calls.push(call);
                Some(added)
            }
        }
    }

    /// Returns the index of the call that an entry continues; `None` if it begins a call. An id is
    /// certain. Without one, a name begins a call, unless the call with the entry's index has no
    /// name yet.
    fn continued(&self, entry: &Entry) -> Option<usize> {
        if let Some(id) = &entry.id {
            return self.by_id.get(id).copied();
        }
        let place = match entry.number {
            Some(number) => self.by_number.get(&number).copied(),
            None => self.calls.len().checked_sub(1),
        }?;
        let begins = entry.name.is_some() && self.calls[place].name.is_some();
        (!begins).then_some(place)
    }

    /// Returns all calls, whole.
    pub(super) fn whole(&self) -> Vec<Object> {
        let whole = |call: &Call| {
            let mut object = Object::default();
            call.write(&mut object);
            object
        };
        self.calls.iter().map(whole).collect()
    }
}

impl Entry {
    fn read(json: &str) -> Option<Self> {
        let mut rest = Object::parse(json).ok()?;
        let text = |value: Option<Box<RawValue>>| {
            let text = value.and_then(|value| text_of(value.get()).map(Cow::into_owned));
            text.filter(|text| !text.is_empty())
        };
        let number = rest.take("index").and_then(|number| number.get().parse().ok());
        let (id, kind) = (text(rest.take("id")), text(rest.take("type")));
        let function = rest.take("function").and_then(|f| Object::parse(f.get()).ok());
        let (mut name, mut arguments) = (None, None);
        if let Some(mut function) = function {
            name = text(function.take("name"));
            arguments =
                function.take("arguments").map(|arguments| match text_of(arguments.get()) {
                    Some(text) => text.into_owned(),
                    // Arguments that are not a text yet.
                    None => arguments.get().to_owned(),
                });
        }
        Some(Self { number, id, kind, name, arguments, rest })
    }
}

impl Call {
    fn begin(entry: Entry, make_id: impl Fn() -> String) -> Self {
        let arguments = entry.arguments.unwrap_or_default();
        let mut progress = Progress::default();
        progress.read(&arguments);
        Self {
            id: entry.id.unwrap_or_else(make_id),
            kind: entry.kind.unwrap_or_else(|| "function".into()),
            name: entry.name,
            arguments,
            progress,
            rest: entry.rest,
        }
    }

    /// Adds a part of a call; returns the new part, if there is one.
    fn go_on(&mut self, place: usize, entry: Entry) -> Option<Object> {
        let mut function = Object::default();
        if let Some(name) = entry.name.filter(|_| self.name.is_none()) {
            function.write("name", &name);
            self.name = Some(name);
        }
        let more = entry.arguments.unwrap_or_default();
        let more = self.news_of(&more, entry.id.is_some());
        if !more.is_empty() {
            function.write("arguments", &more);
            self.progress.read(more);
            self.arguments.push_str(more);
        }
        let mut added = Object::default();
        added.write("index", &place);
        if !function.is_empty() {
            added.write("function", &function);
        }
        let has_rest = !entry.rest.is_empty();
        for (name, value) in entry.rest.into_fields() {
            self.rest.set(&name, value.clone());
            added.set(&name, value);
        }
        (has_rest || !function.is_empty()).then_some(added)
    }

    /// Returns the part of the arguments that is new. A model that names the call again may repeat
    /// all of them, or all so far; once they are complete, nothing is added.
    fn news_of<'a>(&self, more: &'a str, is_named: bool) -> &'a str {
        if !is_named || self.arguments.is_empty() {
            return more;
        }
        match more.strip_prefix(self.arguments.as_str()) {
            Some(rest) => rest,
            None if self.is_complete() => "",
            None => more,
        }
    }

    /// Returns whether the arguments are a whole value of JSON. Only short ones are parsed: a model
    /// chooses the number of pieces.
    fn is_complete(&self) -> bool {
        let is_short = self.arguments.len() <= SCALAR_BYTES;
        self.progress == Progress::Complete
            || (is_short && serde_json::from_str::<IgnoredAny>(&self.arguments).is_ok())
    }

    fn write(&self, out: &mut Object) {
        out.write("id", &self.id);
        out.write("type", &self.kind);
        if self.kind == "function" || self.name.is_some() {
            out.write("function", &json!({"name": self.name, "arguments": self.arguments}));
        }
        for (name, value) in self.rest.clone().into_fields() {
            out.set(&name, value);
        }
    }
}

/// The progress of an object or a list that arrives in pieces. Each piece is read once: a model chooses
/// their number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Progress {
    #[default]
    NotBegun,
    /// Inside this many objects and lists.
    Within(usize),
    /// In a text inside as many.
    InText {
        depth: usize,
        is_escaped: bool,
    },
    Complete,
    /// Neither an object nor a list, or one that is followed by something.
    Other,
}

impl Progress {
    fn read(&mut self, piece: &str) {
        *self = piece.bytes().fold(*self, Self::after);
    }

    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::InText { depth, is_escaped: true }, _) => {
                Self::InText { depth, is_escaped: false }
            }
            (Self::InText { depth, .. }, b'"') => Self::Within(depth),
            (Self::InText { depth, .. }, _) => Self::InText { depth, is_escaped: byte == b'\\' },
            (Self::NotBegun | Self::Complete, b' ' | b'\t' | b'\r' | b'\n') => self,
            (Self::NotBegun, b'{' | b'[') => Self::Within(1),
            (Self::Within(depth), b'{' | b'[') => Self::Within(depth + 1),
            (Self::Within(1), b'}' | b']') => Self::Complete,
            (Self::Within(depth), b'}' | b']') => Self::Within(depth - 1),
            (Self::Within(depth), b'"') => Self::InText { depth, is_escaped: false },
            (Self::Within(_), _) => self,
            (Self::NotBegun | Self::Complete | Self::Other, _) => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Adds lists of calls; returns the new parts, and the calls at the end as `(id, name,
    /// arguments)`.
    fn given(lists: &[Value]) -> (Vec<Value>, Vec<(String, String, String)>) {
        let mut calls = ToolCalls::default();
        let mut added = Vec::new();
        for list in lists {
            let new = calls.take(&list.to_string(), || "made".into());
            added.extend(new.iter().map(|object| serde_json::to_value(object).unwrap()));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let whole = calls.whole().into_iter().map(|call| {
            let call = serde_json::to_value(&call).unwrap();
            let function = &call["function"];
            (text(&call["id"]), text(&function["name"]), text(&function["arguments"]))
        });
        (added, whole.collect())
    }

    fn call(id: &str, name: &str, arguments: &str) -> Value {
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    }

    fn expected(calls: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
        calls
            .iter()
            .map(|(id, name, args)| ((*id).into(), (*name).into(), (*args).into()))
            .collect()
    }

    #[test]
    fn whole_calls_are_numbered() {
        let two = expected(&[("c1", "f", "{\"a\":1}"), ("c2", "g", "{\"b\":2}")]);
        let (one, other) = (call("c1", "f", "{\"a\":1}"), call("c2", "g", "{\"b\":2}"));
        let with_zero = |mut call: Value| {
            call["index"] = json!(0);
            call
        };
        for lists in [
            vec![json!([one]), json!([other])],
            vec![json!([one, other])],
            vec![json!([with_zero(one.clone())]), json!([with_zero(other.clone())])],
            // All arguments so far.
            vec![json!([one]), json!([one, other])],
        ] {
            let (added, whole) = given(&lists);
            assert_eq!(whole, two, "{lists:?}");
            assert_eq!(
                added.iter().map(|c| &c["index"]).collect::<Vec<_>>(),
                [&json!(0), &json!(1)]
            );
        }
        let nameless = [json!([{"function": {"name": "f", "arguments": "{}"}},
            {"function": {"name": "g", "arguments": {"a": 1}}}])];
        let (_, whole) = given(&nameless);
        assert_eq!(whole, expected(&[("made", "f", "{}"), ("made", "g", "{\"a\":1}")]));
    }

    #[test]
    fn fragments_are_joined() {
        let fragment = |index: Option<u8>, id: Option<&str>, arguments: &str| {
            let mut fragment = json!({"function": {"arguments": arguments}});
            if let Some(index) = index {
                fragment["index"] = index.into();
            }
            if let Some(id) = id {
                fragment["id"] = id.into();
            }
            json!([fragment])
        };
        let begin = |index: u8, id: &str, name: &str| {
            json!([{"index": index, "id": id, "type": "function",
                "function": {"name": name, "arguments": ""}}])
        };
        let two = expected(&[("c1", "f", "{\"a\":1}"), ("c2", "g", "{}")]);
        for lists in [
            // In the order of engines that follow the API: one after the other, or in turns.
            vec![
                begin(0, "c1", "f"),
                fragment(Some(0), None, "{\"a\""),
                fragment(Some(0), None, ":1}"),
                begin(1, "c2", "g"),
                fragment(Some(1), None, "{}"),
            ],
            vec![
                begin(4, "c1", "f"),
                begin(7, "c2", "g"),
                fragment(Some(4), None, "{\"a\""),
                fragment(Some(7), None, "{}"),
                fragment(Some(4), None, ":1}"),
            ],
            // With the id each time, or with nothing.
            vec![
                begin(0, "c1", "f"),
                fragment(Some(0), Some("c1"), "{\"a\""),
                fragment(Some(0), Some("c1"), ":1}"),
                begin(1, "c2", "g"),
                fragment(None, None, "{}"),
            ],
        ] {
            let (added, whole) = given(&lists);
            assert_eq!(whole, two, "{lists:?}");
            assert!(added.iter().all(|call| call["index"].is_u64()));
        }
        let (added, _) = given(&[begin(0, "c1", "f"), fragment(Some(0), None, "{")]);
        assert_eq!(added[1], json!({"index": 0, "function": {"arguments": "{"}}));
    }

    #[test]
    fn complete_arguments_that_are_given_again_add_nothing() {
        for (first, again, whole) in [
            ("{\"a\":1}", "{\"a\": 1}", "{\"a\":1}"),
            ("{\"a\":\"}\\\"\"", "}", "{\"a\":\"}\\\"\"}"),
            ("[[1], {}]", "x", "[[1], {}]"),
            ("null", "{}", "null"),
            ("", "{}", "{}"),
            ("{", "}", "{}"),
            ("{} {", "}", "{} {}"),
            ("{\"a\"", "{\"a\":1}", "{\"a\":1}"),
        ] {
            let (_, calls) =
                given(&[json!([call("c", "f", first)]), json!([call("c", "f", again)])]);
            assert_eq!(calls, expected(&[("c", "f", whole)]), "{first} {again}");
        }
    }

    /// If they were read again for each fragment, these arguments would take minutes.
    #[test]
    fn many_fragments_and_many_calls_are_each_read_once() {
        let mut calls = ToolCalls::default();
        let mut take = |id: &str, arguments: &str| {
            let list = json!([call(id, "f", arguments)]).to_string();
            calls.take(&list, String::new).len()
        };
        take("c", "{\"a\":\"");
        for _ in 0..50_000 {
            assert_eq!(take("c", "0123456789"), 1);
        }
        for id in 0..50_000 {
            assert_eq!(take(&id.to_string(), "{}"), 1);
        }
    }

    #[test]
    fn other_fields_of_a_call_are_kept() {
        let odd = json!([{"id": "c", "type": "custom", "custom": {"name": "n", "input": "i"}}]);
        let mut calls = ToolCalls::default();
        calls.take(&odd.to_string(), String::new);
        assert_eq!(serde_json::to_value(&calls.whole()[0]).unwrap(), odd[0]);
    }
}
