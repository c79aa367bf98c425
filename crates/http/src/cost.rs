use std::fmt;

use bytes::Bytes;
use litplex_core::Content;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a request costs beside others in a batch, read off its body. A field is named by the keys
/// that lead to it. A request whose body has none, or not of the kind that is asked for, costs 1:
/// what is wrong with it, the model will say.
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

impl Cost {
    pub(crate) fn of(&self, content: &Content, body: &[Bytes]) -> f64 {
        let cost = match self {
            Self::Bytes => Some(body.iter().map(Bytes::len).sum::<usize>() as f64),
            Self::Length(path) => find(path, content, body).and_then(|found| found.length),
            Self::Words(path) => find(path, content, body).and_then(|found| found.words),
            Self::Value(path) => find(path, content, body).and_then(|found| found.value),
        };
        cost.filter(|cost| cost.is_finite() && *cost >= 0.0).unwrap_or(1.0)
    }
}

/// What a field amounts to.
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

fn find(path: &[String], content: &Content, body: &[Bytes]) -> Option<Found> {
    match (content, body) {
        (Content::Json, [whole]) => find_in_json(path, whole),
        (Content::Json, pieces) => find_in_json(path, &pieces.concat()),
        (Content::Form(parts), contents) => {
            // A form's body is one piece for each part.
            let place = parts.iter().position(|part| path == [part.name.as_str()])?;
            let text = String::from_utf8_lossy(contents.get(place)?);
            Some(Found::text(&text))
        }
        (Content::Raw(_), _) => None,
    }
}

fn find_in_json(path: &[String], body: &[u8]) -> Option<Found> {
    let mut json = serde_json::Deserializer::from_slice(body);
    Field(path).deserialize(&mut json).ok().flatten()
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
        Ok(found)
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
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use litplex_core::FormPart;

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
        let whole = cost.of(&Content::Json, &[Bytes::copy_from_slice(body.as_bytes())]);
        assert_eq!(whole, cost.of(&Content::Json, &pieces));
        whole
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
        for body in [BODY, "7", "{", "", "[1, 2]", r#"{"n": {"n": null}}"#] {
            assert_eq!(of(&Cost::Value(path("n")), body), 1.0, "{body}");
        }
        assert_eq!(of(&Cost::Value(path("n")), r#"{"n": -3}"#), 1.0);
        assert_eq!(of(&Cost::Length(path("b")), BODY), 1.0);
    }

    #[test]
    fn forms_have_fields_too() {
        let name = "text".into();
        let part = FormPart { name, filename: None, content_type: None, length: 4 };
        let content = Content::Form(vec![part]);
        let cost = Cost::Length(path("text"));
        assert_eq!(cost.of(&content, &[Bytes::from_static("größ".as_bytes())]), 4.0);
    }
}
