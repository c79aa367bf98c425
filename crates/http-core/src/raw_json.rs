//! JSON that is read without building values: values that are only passed on keep their spelling.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use serde::Serialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

/// The kind of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// A string.
    Text,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl Kind {
    /// Returns the kind of this JSON, which must be well-formed.
    pub fn of(json: &str) -> Self {
        match json.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'"') => Self::Text,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            _ => Self::Number,
        }
    }

    /// Returns its name in JSON Schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Number => "number",
            Self::Text => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// Returns the text of a JSON string; `None` if it is no string, or has half of a surrogate pair.
pub fn text_of(json: &str) -> Option<Cow<'_, str>> {
    if !json.starts_with('"') {
        return None;
    }
    match serde_json::from_str::<&str>(json) {
        Ok(text) => Some(text.into()),
        // It has escapes.
        Err(_) => serde_json::from_str::<String>(json).ok().map(Cow::from),
    }
}

/// Calls `f` with the name and the value of each field of an object, until it returns an error.
///
/// # Errors
/// The text is malformed, or not an object.
pub fn each_field<'a, E>(
    json: &'a str,
    f: impl FnMut(Cow<'a, str>, &'a RawValue) -> Result<(), E>,
) -> serde_json::Result<Result<(), E>> {
    let mut failed = None;
    let mut reader = serde_json::Deserializer::from_str(json);
    let read = reader.deserialize_map(Fields(f, &mut failed)).and_then(|()| reader.end());
    match failed {
        Some(error) => Ok(Err(error)),
        None => read.map(Ok),
    }
}

struct Fields<'f, F, E>(F, &'f mut Option<E>);

impl<'de, F, E> Visitor<'de> for Fields<'_, F, E>
where
    F: FnMut(Cow<'de, str>, &'de RawValue) -> Result<(), E>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if let Err(error) = (self.0)(name, map.next_value()?) {
                *self.1 = Some(error);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// Calls `f` with the number and the value of each item of an array, until it returns an error.
///
/// # Errors
/// The text is malformed, or not an array.
pub fn each_item<'a, E>(
    json: &'a str,
    f: impl FnMut(usize, &'a RawValue) -> Result<(), E>,
) -> serde_json::Result<Result<(), E>> {
    let mut failed = None;
    let mut reader = serde_json::Deserializer::from_str(json);
    let read = reader.deserialize_seq(Elements(f, &mut failed)).and_then(|()| reader.end());
    match failed {
        Some(error) => Ok(Err(error)),
        None => read.map(Ok),
    }
}

struct Elements<'f, F, E>(F, &'f mut Option<E>);

impl<'de, F, E> Visitor<'de> for Elements<'_, F, E>
where
    F: FnMut(usize, &'de RawValue) -> Result<(), E>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(item) = items.next_element()? {
            if let Err(error) = (self.0)(index, item) {
                *self.1 = Some(error);
                return Err(serde::de::Error::custom("stopped"));
            }
            index += 1;
        }
        Ok(())
    }
}

/// The largest number of fields of an [`Object`]. Each takes about 150 bytes, of which a client sends
/// six, and no memory is reserved for them.
const MAX_FIELDS: usize = 100_000;

fn too_many_fields() -> serde_json::Error {
    serde::de::Error::custom(format!("an object has more than {MAX_FIELDS} fields"))
}

/// An object whose values keep their spelling and their order. Of fields with the same name, the last one
/// counts, as in Python. Fields are found by hash: a client chooses their number.
#[derive(Debug, Default, Clone)]
pub struct Object(IndexMap<String, Box<RawValue>>);

impl Object {
    /// Reads an object of at most 100,000 fields.
    ///
    /// # Errors
    /// The text is malformed, not an object, or has too many fields.
    pub fn parse(json: &str) -> serde_json::Result<Self> {
        let mut object = Self::default();
        each_field(json, |name, value| {
            object.set(&name, value.to_owned());
            if object.0.len() > MAX_FIELDS { Err(too_many_fields()) } else { Ok(()) }
        })??;
        Ok(object)
    }

    /// Returns whether it has no fields.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value of a field.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.get(name).map(|value| &**value)
    }

    /// Removes a field and returns it; a field that is null counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.0.shift_remove(name).filter(|value| Kind::of(value.get()) != Kind::Null)
    }

    /// Sets a field to this value.
    pub fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.get_mut(name) {
            Some(known) => *known = value,
            None => drop(self.0.insert(name.to_owned(), value)),
        }
    }

    /// Sets a field to this value, written as JSON.
    pub fn write(&mut self, name: &str, value: &impl Serialize) {
        self.set(name, raw(value));
    }

    /// Returns the names and values of its fields.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    /// Returns its fields.
    pub fn into_fields(self) -> impl Iterator<Item = (String, Box<RawValue>)> {
        self.0.into_iter()
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Writes a value as JSON.
pub fn raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("it is plain data. This is a bug.")
}

/// Escapes the characters that JSON allows and that some readers take for line breaks, as Python's
/// `splitlines` does: U+0085, U+2028 and U+2029.
pub fn escape_line_breaks(json: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = find_line_break(json) else { return json.into() };
    let (mut out, mut rest, mut next) = (Vec::with_capacity(json.len() + 16), json, Some(first));
    while let Some((place, length, escape)) = next {
        out.extend_from_slice(&rest[..place]);
        out.extend_from_slice(escape);
        rest = &rest[place + length..];
        next = find_line_break(rest);
    }
    out.extend_from_slice(rest);
    out.into()
}

/// Returns the place of the first such character, its length, and its escape.
fn find_line_break(json: &[u8]) -> Option<(usize, usize, &'static [u8])> {
    let mut start = 0;
    while let Some(found) = memchr::memchr2(0xc2, 0xe2, &json[start..]) {
        let place = start + found;
        match json[place..] {
            [0xc2, 0x85, ..] => return Some((place, 2, b"\\u0085")),
            [0xe2, 0x80, 0xa8, ..] => return Some((place, 3, b"\\u2028")),
            [0xe2, 0x80, 0xa9, ..] => return Some((place, 3, b"\\u2029")),
            _ => start = place + 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_keeps_what_it_holds() {
        let text = r#"{"b":12345678901234567890123,"a":1.5777777777770001,"b":[ 1 ],"c":null}"#;
        let mut object = Object::parse(text).unwrap();
        assert_eq!(raw(&object).get(), r#"{"b":[ 1 ],"a":1.5777777777770001,"c":null}"#);
        assert!(object.take("c").is_none());
        object.write("d", &"e");
        object.write("a", &1);
        assert_eq!(raw(&object).get(), r#"{"b":[ 1 ],"a":1,"d":"e"}"#);
        for wrong in ["[1]", "{", "{} 1", "{\"a\": NaN}"] {
            assert!(Object::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// If they were compared one by one, the names of these fields would take minutes.
    #[test]
    fn an_object_has_many_fields_but_not_any_number() {
        let object = |fields: usize| {
            let fields: Vec<_> = (0..fields).map(|n| format!("\"{n:06}\":0")).collect();
            format!("{{{}}}", fields.join(","))
        };
        let most = object(MAX_FIELDS);
        assert_eq!(raw(&Object::parse(&most).unwrap()).get(), most);
        assert!(Object::parse(&object(MAX_FIELDS + 1)).is_err());
    }

    #[test]
    fn a_walk_ends_at_the_first_error() {
        let mut seen = 0;
        let walk = each_item("[1, 2, 3, NaN", |index, item| {
            seen += 1;
            if index == 1 { Err(item.get().to_owned()) } else { Ok(()) }
        });
        assert_eq!((walk.unwrap(), seen), (Err("2".to_owned()), 2));
        let walk = each_field(r#"{"a": [1], "\u0062": 2}"#, |name, value| {
            if name == "b" { Err(value.get().to_owned()) } else { Ok(()) }
        });
        assert_eq!(walk.unwrap(), Err("2".to_owned()));
        assert!(each_item("[1] 2", |_, _| Ok::<_, ()>(())).is_err());
    }

    #[test]
    fn texts_are_read() {
        assert_eq!(text_of(r#""a""#).unwrap(), "a");
        assert_eq!(text_of(r#""\n\ud834\udd1e""#).unwrap(), "\n𝄞");
        assert_eq!(text_of(r#""\ud834""#), None);
        assert_eq!(text_of("1"), None);
    }

    #[test]
    fn line_breaks_of_other_readers_are_escaped() {
        let escaped = |text: &str| escape_line_breaks(text.as_bytes()).into_owned();
        assert_eq!(
            escaped("\"a\u{2028}b\u{2029}\u{85}ä€\""),
            r#""a\u2028b\u2029\u0085ä€""#.as_bytes()
        );
        assert!(matches!(escape_line_breaks("\"â€\"".as_bytes()), Cow::Borrowed(_)));
    }
}
