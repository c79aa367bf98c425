//! The cost of a request by its body, for endpoints that batch by cost without a `cost` hook.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{Content, json_text};

/// The rule that gives the cost of a request. A field is identified by the keys of its path.
///
/// A request whose body lacks the field, or has null there, costs 1. A request whose cost cannot be
/// read, because the body is not JSON or the field has another type, has the highest cost of a batch
/// and is computed alone: its model may understand other bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cost {
    /// The characters of a text, or the items of a list.
    Length(Vec<String>),
    /// The words of a text.
    Words(Vec<String>),
    /// A number.
    Value(Vec<String>),
    /// The length of the body in bytes.
    Bytes,
}

/// The cost of a request without the field.
const LEAST: f64 = 1.0;

/// A cost above that of any batch: the queue lowers it to the maximum.
const MOST: f64 = f64::INFINITY;

impl Cost {
    /// Reads `FIELD:length`, `FIELD:words`, `FIELD:value` or `body:bytes`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "body:bytes" {
            return Some(Self::Bytes);
        }
        let (field, measure) = text.rsplit_once(':')?;
        let names: Vec<_> = field.split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            return None;
        }
        match measure {
            "length" => Some(Self::Length(names)),
            "words" => Some(Self::Words(names)),
            "value" => Some(Self::Value(names)),
            _ => None,
        }
    }

    /// Returns the cost of a request with this body.
    pub fn read(&self, content: &Content, body: &[Bytes]) -> f64 {
        match self {
            Self::Bytes => body.iter().map(Bytes::len).sum::<usize>() as f64,
            _ => self.amount(&find(self.path(), content, body)),
        }
    }

    /// Returns whether the cost depends on this field of an object, or on a field below it.
    pub fn is_read_off(&self, field: &str) -> bool {
        self.path().first().is_some_and(|first| first == field)
    }

    /// Returns the cost of a request, given the JSON of the field that the cost depends on.
    pub fn field_cost(&self, value: &[u8]) -> f64 {
        let below = self.path().get(1..).unwrap_or_default();
        self.amount(&find_in_json(below, value))
    }

    fn path(&self) -> &[String] {
        match self {
            Self::Length(path) | Self::Words(path) | Self::Value(path) => path,
            Self::Bytes => &[],
        }
    }

    fn amount(&self, found: &Result<Option<Found>, Unreadable>) -> f64 {
        let found = match found {
            Ok(Some(found)) => found,
            Ok(None) => return LEAST,
            Err(Unreadable) => return MOST,
        };
        let cost = match self {
            Self::Length(_) => found.length,
            Self::Words(_) => found.words,
            Self::Value(_) => found.value,
            Self::Bytes => None,
        };
        cost.filter(|cost| cost.is_finite() && *cost >= 0.0).unwrap_or(MOST)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(names) => write!(f, "{}:length", names.join(".")),
            Self::Words(names) => write!(f, "{}:words", names.join(".")),
            Self::Value(names) => write!(f, "{}:value", names.join(".")),
            Self::Bytes => f.write_str("body:bytes"),
        }
    }
}

/// The error that the body cannot be read.
struct Unreadable;

/// The length, words and value of a field.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Found {
    length: Option<f64>,
    words: Option<f64>,
    value: Option<f64>,
}

impl Found {
    fn text(text: &str) -> Self {
        let length = Some(text.chars().count() as f64);
        let words = Some(text.split_whitespace().count() as f64);
        Self { length, words, value: text.trim().parse().ok() }
    }
}

fn find(path: &[String], content: &Content, body: &[Bytes]) -> Result<Option<Found>, Unreadable> {
    match content {
        Content::Json => find_in_json(path, &json_text(body).ok_or(Unreadable)?),
        Content::Form(parts) => {
            // A form's body is one piece for each part; the last of a name counts, as in the model.
            let place = parts.iter().rposition(|part| path == [part.name.as_str()]);
            let content = place.and_then(|place| body.get(place));
            Ok(content.map(|content| Found::text(&String::from_utf8_lossy(content))))
        }
        Content::Raw(_) | Content::Packed(_) => Err(Unreadable),
    }
}

fn find_in_json(path: &[String], body: &[u8]) -> Result<Option<Found>, Unreadable> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let found = Field(path).deserialize(&mut json).map_err(|_| Unreadable)?;
    json.end().map_err(|_| Unreadable)?;
    Ok(found)
}

/// Walks down the keys of a path and skips all else, without building values.
struct Field<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<Found>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Found>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.0.split_first() {
                Some((first, rest)) if *first == key => found = map.next_value_seed(Field(rest))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(if self.0.is_empty() { Some(Found::default()) } else { found })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut count = 0;
        while items.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        let found = Found { length: Some(f64::from(count)), ..Found::default() };
        Ok(Some(found).filter(|_| self.0.is_empty()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(|| Found::text(text)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        let found = Found { value: Some(value), ..Found::default() };
        Ok(Some(found).filter(|_| self.0.is_empty()))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(Found::default))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use crate::FormPart;

    use super::*;

    const BODY: &str =
        r#"{"a": [1], "text": "one \u0074wo", "b": {"n": 2.5, "list": [1, [2], {}]}}"#;

    fn path(dotted: &str) -> Vec<String> {
        dotted.split('.').map(str::to_owned).collect()
    }

    fn of(cost: &Cost, body: &str) -> f64 {
        let (head, tail) = body.split_at(body.len() / 2);
        let pieces =
            [Bytes::copy_from_slice(head.as_bytes()), Bytes::copy_from_slice(tail.as_bytes())];
        let whole = cost.read(&Content::Json, &[Bytes::copy_from_slice(body.as_bytes())]);
        assert_eq!(whole, cost.read(&Content::Json, &pieces));
        whole
    }

    #[test]
    fn a_cost_is_read_as_it_is_written() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let costs = [
            ("text:length", Cost::Length(names(&["text"]))),
            ("input.text:words", Cost::Words(names(&["input", "text"]))),
            ("body:value", Cost::Value(names(&["body"]))),
            ("body:bytes", Cost::Bytes),
        ];
        for (text, cost) in costs {
            assert_eq!(Cost::parse(text).as_ref(), Some(&cost));
            assert_eq!(cost.to_string(), text);
        }
    }

    #[test]
    fn what_measures_nothing_is_no_cost() {
        for text in ["", "text", "text:", ":length", "a..b:length", "text:bytes", "text:Length"] {
            assert_eq!(Cost::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_cost_is_of_one_field_given_alone() {
        let cost = Cost::Length(path("input"));
        assert!(cost.is_read_off("input") && !cost.is_read_off("text"));
        assert_eq!(cost.field_cost(br#""four""#), 4.0);
        assert_eq!(Cost::Length(path("input.b")).field_cost(br#"{"b": [1]}"#), 1.0);
    }

    #[test]
    fn a_cost_is_read_off_a_field() {
        assert_eq!(of(&Cost::Length(path("text")), BODY), 7.0);
        assert_eq!(of(&Cost::Words(path("text")), BODY), 2.0);
        assert_eq!(of(&Cost::Length(path("b.list")), BODY), 3.0);
        assert_eq!(of(&Cost::Value(path("b.n")), BODY), 2.5);
        assert_eq!(of(&Cost::Bytes, BODY), BODY.len() as f64);
    }

    #[test]
    fn what_has_no_such_field_costs_one() {
        for body in [BODY, "7", "[1, 2]", r#"{"n": null}"#, r#"{"N": 5}"#] {
            assert_eq!(of(&Cost::Value(path("n")), body), 1.0, "{body}");
        }
        assert_eq!(of(&Cost::Value(path("text.n")), BODY), 1.0);
    }

    #[test]
    fn what_cannot_be_read_costs_the_most() {
        let unreadable =
            ["{", "", r#"{"text": "a"} 1"#, r#"{"x": NaN, "text": "a"}"#, r#"{"text": "\ud800"}"#];
        for body in unreadable {
            assert_eq!(of(&Cost::Length(path("text")), body), f64::INFINITY, "{body}");
        }
        for (cost, body) in [
            (Cost::Value(path("n")), r#"{"n": -3}"#),
            (Cost::Value(path("n")), r#"{"n": 1e400}"#),
            (Cost::Value(path("n")), r#"{"n": true}"#),
            (Cost::Value(path("n")), r#"{"n": {"n": null}}"#),
            (Cost::Length(path("b")), BODY),
            (Cost::Words(path("a")), BODY),
        ] {
            assert_eq!(of(&cost, body), f64::INFINITY, "{cost:?} {body}");
        }
        let raw = Content::Raw("image/png".into());
        assert_eq!(Cost::Length(path("text")).read(&raw, &[]), f64::INFINITY);
    }

    #[test]
    fn the_last_field_of_a_name_counts_as_in_the_model() {
        let twice = r#"{"text": "a", "t\u0065xt": "four"}"#;
        assert_eq!(of(&Cost::Length(path("text")), twice), 4.0);
    }

    #[test]
    fn bodies_in_other_encodings_are_read() {
        let text: Vec<u8> =
            r#"{"text":"four"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let cost = Cost::Length(path("text"));
        assert_eq!(cost.read(&Content::Json, &[text.into()]), 4.0);
        let marked = Bytes::from_static(b"\xef\xbb\xbf{\"text\":\"four\"}");
        assert_eq!(cost.read(&Content::Json, &[marked]), 4.0);
    }

    #[test]
    fn forms_have_fields_too() {
        let part = |length| {
            let name = "text".into();
            FormPart { name, filename: None, content_type: None, length }
        };
        let content = Content::Form(vec![part(1), part(6)]);
        let contents = [Bytes::from_static(b"a"), Bytes::from_static("größ".as_bytes())];
        let cost = Cost::Length(path("text"));
        assert_eq!(cost.read(&content, &contents), 4.0);
        assert_eq!(Cost::Length(path("other")).read(&content, &contents), 1.0);
    }
}
