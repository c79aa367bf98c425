//! Paths into values: `$request.pages[0].text`, `$ocr["odd key"]`, `$response[-1]`.
//!
//! A selection is the bytes of the JSON as they were written: no number or key is reformatted.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A path: the name of a value, and the way to a field of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// The name, without the dollar.
    pub(crate) name: String,
    pub(crate) segments: Vec<Segment>,
}

/// One part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// The value of this key of an object.
    Key(String),
    /// The item at this index of a list; negative ones count from its end.
    Index(i64),
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// The reason why it is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("invalid path `{text}`: {why}; write it like `$request.pages[0].text`")
        };
        let rest = text.strip_prefix('$').ok_or_else(|| wrong("it must begin with `$`"))?;
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, mut rest) = rest.split_at(end);
        if !is_name(name) {
            return Err(wrong("after `$` it must have the name of a step, or `request`"));
        }
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let (segment, tail) = match rest.strip_prefix('.') {
                Some(rest) => {
                    let end = rest.find(['.', '[']).unwrap_or(rest.len());
                    let (key, tail) = rest.split_at(end);
                    if key.is_empty() {
                        return Err(wrong("a dot must be followed by a key"));
                    }
                    (Segment::Key(key.to_owned()), tail)
                }
                None => bracket(rest).ok_or_else(|| {
                    wrong("brackets must contain an index, or a key in double quotes")
                })?,
            };
            segments.push(segment);
            rest = tail;
        }
        Ok(Self { name: name.to_owned(), segments })
    }
}

/// Reads `[3]` or `["key"]` at the beginning of a text; returns it and the rest.
fn bracket(text: &str) -> Option<(Segment, &str)> {
    let inner = text.strip_prefix('[')?;
    if inner.starts_with('"') {
        let mut read = serde_json::Deserializer::from_str(inner).into_iter::<String>();
        let key = read.next()?.ok()?;
        let rest = inner.get(read.byte_offset()..)?.strip_prefix(']')?;
        return Some((Segment::Key(key), rest));
    }
    let (index, rest) = inner.split_once(']')?;
    Some((Segment::Index(index.parse().ok()?), rest))
}

/// Returns whether a step may have this name: it is an identifier of CEL, too.
pub(crate) fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.name)?;
        self.segments.iter().try_for_each(|segment| write!(f, "{segment}"))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(key) if !key.is_empty() && !key.contains(['.', '[', '"']) => {
                write!(f, ".{key}")
            }
            Self::Key(key) => write!(f, "[{}]", serde_json::Value::from(key.as_str())),
        }
    }
}

/// Selects a part of JSON text, as it is written there.
///
/// # Errors
/// The reason why there is none.
pub(crate) fn select(text: &Bytes, segments: &[Segment]) -> Result<Bytes, NotFound> {
    let mut current = text.clone();
    for segment in segments {
        let found = {
            let mut json = serde_json::Deserializer::from_slice(&current);
            let picked = Pick(segment).deserialize(&mut json);
            picked
                .and_then(|raw| json.end().map(|()| raw))
                .map_err(|error| NotFound::new(&error))?
        };
        current = current.slice_ref(found.get().as_bytes());
    }
    Ok(current)
}

/// The reason why JSON text has no such part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotFound {
    /// It is not JSON.
    Malformed(String),
    /// It is JSON, and has no such part. The reason follows the words "`$path` ".
    Missing(String),
}

impl NotFound {
    fn new(error: &serde_json::Error) -> Self {
        let reason = reason(error);
        if error.is_data() { Self::Missing(reason) } else { Self::Malformed(reason) }
    }
}

/// Returns the items of a list, each as it is written there.
///
/// # Errors
/// The text is not a list.
pub(crate) fn items(text: &Bytes) -> Result<Vec<Bytes>, NotFound> {
    let raw: Vec<&RawValue> =
        serde_json::from_slice(text).map_err(|error| NotFound::new(&error))?;
    Ok(raw.into_iter().map(|item| text.slice_ref(item.get().as_bytes())).collect())
}

/// Returns the message without the line and column, which are of no use in one part of a text.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// Finds the value of one segment.
struct Pick<'s>(&'s Segment);

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = &'de RawValue;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = &'de RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Segment::Key(key) => write!(f, "an object with the key `{key}`"),
            Segment::Index(index) => write!(f, "a list with the index {index}"),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Segment::Key(asked) = self.0 else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Err(A::Error::custom("is an object, not a list"));
        };
        let mut found = None;
        // Of keys that are there twice the last one counts, as in Python and serde.
        while let Some(is_asked) = map.next_key_seed(Matches(asked))? {
            if is_asked {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        found.ok_or_else(|| A::Error::custom("is missing"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let Segment::Index(asked) = self.0 else {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Err(A::Error::custom("is a list, not an object"));
        };
        let found = match usize::try_from(*asked) {
            Ok(index) => nth(&mut list, index)?,
            Err(_) => nth_from_end(&mut list, asked.unsigned_abs() as usize)?,
        };
        found.ok_or_else(|| A::Error::custom("is missing, because the list is shorter"))
    }
}

fn nth<'de, A: SeqAccess<'de>>(
    list: &mut A,
    index: usize,
) -> Result<Option<&'de RawValue>, A::Error> {
    for _ in 0..index {
        if list.next_element::<IgnoredAny>()?.is_none() {
            return Ok(None);
        }
    }
    let found = list.next_element()?;
    while list.next_element::<IgnoredAny>()?.is_some() {}
    Ok(found)
}

fn nth_from_end<'de, A: SeqAccess<'de>>(
    list: &mut A,
    from_end: usize,
) -> Result<Option<&'de RawValue>, A::Error> {
    let mut last = VecDeque::new();
    while let Some(item) = list.next_element()? {
        if last.len() == from_end {
            last.pop_front();
        }
        last.push_back(item);
    }
    Ok(last.front().copied().filter(|_| last.len() == from_end))
}

/// Compares a key without a copy of it.
struct Matches<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Matches<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Matches<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// Returns the beginning of JSON text, for messages.
pub(crate) fn excerpt(text: &[u8]) -> Cow<'_, str> {
    const LONGEST: usize = 200;
    let shown = String::from_utf8_lossy(&text[..text.len().min(LONGEST)]);
    if text.len() > LONGEST { Cow::Owned(format!("{shown}…")) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(path: &str, text: &'static str) -> Result<String, String> {
        let path = Path::parse(path).unwrap();
        match select(&Bytes::from_static(text.as_bytes()), &path.segments) {
            Ok(found) => Ok(String::from_utf8(found.to_vec()).unwrap()),
            Err(NotFound::Missing(reason)) => Err(reason),
            Err(NotFound::Malformed(reason)) => Err(format!("malformed: {reason}")),
        }
    }

    #[test]
    fn a_selection_is_as_it_was_written() {
        let text = r#" {"a": [1.50, {"b.c" : 12345678901234567890123 }], "\u0061": [0, -0.0e5 ]}"#;
        for (path, expected) in
            [("$x.a", "[0, -0.0e5 ]"), ("$x.a[1]", "-0.0e5"), ("$x.a[-2]", "0"), ("$x", text)]
        {
            assert_eq!(selected(path, text).unwrap(), expected, "{path}");
        }
        let text = r#"{"a": [1.50, {"b.c" : 12345678901234567890123 }]}"#;
        let big = "12345678901234567890123";
        assert_eq!(selected(r#"$x.a[1]["b.c"]"#, text).unwrap(), big);
        assert_eq!(selected("$x.a[-1]", text).unwrap(), r#"{"b.c" : 12345678901234567890123 }"#);
    }

    #[test]
    fn what_is_not_there_is_told() {
        let text = r#"{"a": [1], "b": 2}"#;
        for (path, expected) in [
            ("$x.c", "is missing"),
            ("$x.a.b", "is a list, not an object"),
            ("$x[0]", "is an object, not a list"),
            ("$x.a[1]", "is missing, because the list is shorter"),
            ("$x.a[-2]", "is missing, because the list is shorter"),
            ("$x.b.c", "invalid type: integer `2`, expected an object with the key `c`"),
        ] {
            assert_eq!(selected(path, text).unwrap_err(), expected, "{path}");
        }
        for malformed in ["{\"a\": 1} 2", "", "{\"a\": ", "{a: 1}"] {
            let reason = selected("$x.a", malformed).unwrap_err();
            assert!(reason.starts_with("malformed: "), "{malformed}: {reason}");
        }
    }

    #[test]
    fn paths_are_written_as_they_are_read() {
        for path in ["$request", "$response.a.b[0][-1]", r#"$ocr["a.b"].c"#, r#"$a["q\"[]"]"#] {
            assert_eq!(Path::parse(path).unwrap().to_string(), path);
        }
        for wrong in
            ["request", "$", "$.a", "$1a", "$a..b", "$a.", "$a[", "$a[x]", "$a[\"b\"", "$ü"]
        {
            assert!(Path::parse(wrong).unwrap_err().contains("invalid path"), "{wrong}");
        }
    }

    #[test]
    fn items_of_a_list_are_as_they_were_written() {
        let text = Bytes::from_static(b"[1.0, {\"a\" :2}, [] ]");
        assert_eq!(items(&text).unwrap(), [&b"1.0"[..], b"{\"a\" :2}", b"[]"]);
        assert!(matches!(items(&Bytes::from_static(b"{}")), Err(NotFound::Missing(_))));
        assert!(matches!(items(&Bytes::from_static(b"[1")), Err(NotFound::Malformed(_))));
    }
}
