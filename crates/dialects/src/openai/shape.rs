//! The requests of the API: one table checks and describes them.

use std::fmt;

use litplex_http_core::raw_json::{Kind, each_field, each_item, text_of};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// The shape of a value. A null counts as absent everywhere.
#[derive(Debug)]
pub(super) enum Shape {
    Any,
    Text,
    Boolean,
    /// Also in the form `5.0`, or as a text.
    Integer,
    /// Also as a text.
    Number,
    /// One of these texts.
    Choice(&'static [&'static str]),
    List(&'static Shape),
    /// An object whose values are of one shape.
    Map(&'static Shape),
    /// An object of these fields; its other fields are for the model.
    Object(&'static [Field]),
    /// An object whose `type` decides its fields.
    Tagged(&'static [Kinds]),
    /// An object that is of the first of these types if it has no `type`.
    TaggedOrFirst(&'static [Kinds]),
    /// One of these; the kind of the value decides.
    Either(&'static [Shape]),
}

/// A `type`, and the fields of its objects.
pub(super) type Kinds = (&'static str, &'static [Field]);

/// A field of an object.
#[derive(Debug)]
pub(super) struct Field {
    name: &'static str,
    shape: Shape,
    is_required: bool,
}

/// Returns a field that may be absent.
pub(super) const fn optional(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, is_required: false }
}

/// Returns a field that must be present.
pub(super) const fn required(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, is_required: true }
}

/// A value that does not have its shape, and its place: `messages[0].content`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) place: String,
    pub(super) reason: String,
}

impl Mismatch {
    pub(super) fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { place: place.into(), reason: reason.into() }
    }

    fn within(mut self, outer: &dyn fmt::Display) -> Self {
        let dot = if self.place.is_empty() || self.place.starts_with('[') { "" } else { "." };
        self.place = format!("{outer}{dot}{}", self.place);
        self
    }
}

type Checked = Result<(), Mismatch>;

impl Shape {
    /// Checks a value, which must be well-formed.
    pub(super) fn check(&self, value: &str) -> Checked {
        let kind = Kind::of(value);
        match self {
            Self::Any => Ok(()),
            Self::Text if kind == Kind::Text => Ok(()),
            Self::Boolean if boolean(value).is_some() => Ok(()),
            Self::Integer if integer(value).is_some() => Ok(()),
            Self::Number if number(value).is_some() => Ok(()),
            Self::Choice(names) if kind == Kind::Text => choice(names, value),
            Self::List(shape) if kind == Kind::Array => list(shape, value),
            Self::Map(shape) if kind == Kind::Object => map(shape, value),
            Self::Object(fields) if kind == Kind::Object => object(fields, value),
            Self::Tagged(kinds) if kind == Kind::Object => tagged(kinds, None, value),
            Self::TaggedOrFirst(kinds) if kind == Kind::Object => {
                tagged(kinds, kinds.first(), value)
            }
            Self::Either(shapes) => match shapes.iter().find(|shape| shape.kind() == kind) {
                Some(shape) => shape.check(value),
                None => Err(self.mismatch(kind)),
            },
            _ => Err(self.mismatch(kind)),
        }
    }

    fn mismatch(&self, got: Kind) -> Mismatch {
        let an = if matches!(got, Kind::Array | Kind::Object) { "an " } else { "a " };
        let an = if got == Kind::Null { "" } else { an };
        Mismatch::new("", format!("expected {}, got {an}{}", self.words(), got.name()))
    }

    /// Returns the kind of its values, if it is one of several.
    fn kind(&self) -> Kind {
        match self {
            Self::Text | Self::Choice(_) => Kind::Text,
            Self::Boolean => Kind::Boolean,
            Self::Integer | Self::Number => Kind::Number,
            Self::List(_) => Kind::Array,
            Self::Map(_) | Self::Object(_) | Self::Tagged(_) | Self::TaggedOrFirst(_) => {
                Kind::Object
            }
            Self::Any | Self::Either(_) => Kind::Null,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Any => "anything".into(),
            Self::Text => "a string".into(),
            Self::Boolean => "a boolean".into(),
            Self::Integer => "an integer".into(),
            Self::Number => "a number".into(),
            Self::Choice(names) => one_of(names.iter().copied()),
            Self::List(_) => "an array".into(),
            Self::Map(_) | Self::Object(_) | Self::Tagged(_) | Self::TaggedOrFirst(_) => {
                "an object".into()
            }
            Self::Either(shapes) => shapes.iter().map(Self::words).collect::<Vec<_>>().join(" or "),
        }
    }

    /// Returns the JSON Schema of such values.
    pub(super) fn schema(&self) -> Value {
        match self {
            Self::Any => json!({}),
            Self::Text => json!({"type": "string"}),
            Self::Boolean => json!({"type": "boolean"}),
            Self::Integer => json!({"type": "integer"}),
            Self::Number => json!({"type": "number"}),
            Self::Choice(names) => json!({"type": "string", "enum": names}),
            Self::List(shape) => json!({"type": "array", "items": shape.schema()}),
            Self::Map(shape) => json!({"type": "object", "additionalProperties": shape.schema()}),
            Self::Object(fields) => object_schema(fields, None),
            Self::Tagged(kinds) | Self::TaggedOrFirst(kinds) => {
                let kinds = kinds.iter().map(|(name, fields)| object_schema(fields, Some(name)));
                json!({"anyOf": kinds.collect::<Vec<_>>()})
            }
            Self::Either(shapes) => {
                json!({"anyOf": shapes.iter().map(Self::schema).collect::<Vec<_>>()})
            }
        }
    }
}

fn object_schema(fields: &[Field], tag: Option<&str>) -> Value {
    let mut properties = Map::new();
    if let Some(tag) = tag {
        properties.insert("type".into(), json!({"const": tag}));
    }
    for Field { name, shape, is_required } in fields {
        let schema = shape.schema();
        let is_any = schema.as_object().is_some_and(Map::is_empty);
        let schema = match *is_required || is_any {
            true => schema,
            false => json!({"anyOf": [schema, {"type": "null"}]}),
        };
        properties.insert((*name).into(), schema);
    }
    let required = tag.map(|_| "type").into_iter();
    let required = required.chain(fields.iter().filter(|f| f.is_required).map(|field| field.name));
    json!({
        "type": "object",
        "properties": properties,
        "required": required.collect::<Vec<_>>(),
    })
}

fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    format!("one of {}", names.join(", "))
}

fn choice(names: &[&str], value: &str) -> Checked {
    let text = text_of(value).unwrap_or_default();
    if names.contains(&&*text) {
        return Ok(());
    }
    let expected = one_of(names.iter().copied());
    Err(Mismatch::new("", format!("expected {expected}, got `{}`", shown(&text))))
}

/// Returns the start of a text that fits in a message.
fn shown(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn list(shape: &Shape, value: &str) -> Checked {
    let walk = each_item(value, |index, item: &RawValue| {
        shape.check(item.get()).map_err(|mismatch| mismatch.within(&format_args!("[{index}]")))
    });
    readable(walk)
}

fn map(shape: &Shape, value: &str) -> Checked {
    let walk = each_field(value, |name, value: &RawValue| match Kind::of(value.get()) {
        Kind::Null => Ok(()),
        _ => shape.check(value.get()).map_err(|mismatch| mismatch.within(&name)),
    });
    readable(walk)
}

fn object(fields: &[Field], value: &str) -> Checked {
    let mut found = vec![false; fields.len()];
    let walk = each_field(value, |name, value: &RawValue| {
        let Some(place) = fields.iter().position(|field| field.name == name) else {
            return Ok(());
        };
        if Kind::of(value.get()) == Kind::Null {
            return Ok(());
        }
        found[place] = true;
        fields[place].shape.check(value.get()).map_err(|mismatch| mismatch.within(&name))
    });
    readable(walk)?;
    let mut all = fields.iter().zip(found);
    match all.find(|(field, is_there)| field.is_required && !is_there) {
        Some((field, _)) => Err(Mismatch::new(field.name, MISSING)),
        None => Ok(()),
    }
}

fn tagged(kinds: &[Kinds], without: Option<&Kinds>, value: &str) -> Checked {
    let mut tag = None;
    let walk = each_field(value, |name, value: &RawValue| {
        if name == "type" && Kind::of(value.get()) != Kind::Null {
            tag = Some(value.get());
        }
        Ok::<_, Mismatch>(())
    });
    readable(walk)?;
    let Some(tag) = tag else {
        return match without {
            Some((_, fields)) => object(fields, value),
            None => Err(Mismatch::new("type", MISSING)),
        };
    };
    let text = text_of(tag).ok_or_else(|| Shape::Text.mismatch(Kind::of(tag)).within(&"type"))?;
    match kinds.iter().find(|(name, _)| *name == text) {
        Some((_, fields)) => object(fields, value),
        None => {
            let expected = one_of(kinds.iter().map(|(name, _)| *name));
            let reason = format!("unknown type `{}`; expected {expected}", shown(&text));
            Err(Mismatch::new("", reason))
        }
    }
}

const MISSING: &str = "it is missing, and required";

/// Well-formed JSON may have a name with half of a surrogate pair.
fn readable(walk: serde_json::Result<Checked>) -> Checked {
    walk.unwrap_or_else(|error| Err(Mismatch::new("", error.to_string())))
}

/// Reads a boolean, also in forms that clients write by mistake.
pub(super) fn boolean(value: &str) -> Option<bool> {
    match value {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => match text_of(value)?.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
    }
}

/// Reads an integer: `5`, `5.0`, `"5"`. One with more digits than any count is the largest count;
/// pydantic does not accept one in the form `1e30`.
pub(super) fn integer(value: &str) -> Option<i64> {
    let number = number(value).filter(|number| number.fract() == 0.0)?;
    let is_plain = |text: &str| !text.contains(['e', 'E']);
    let is_taken = match Kind::of(value) {
        Kind::Text => is_plain(&text_of(value)?),
        _ => is_plain(value) || number.abs() < i64::MAX as f64,
    };
    is_taken.then_some(number as i64)
}

/// Reads a finite number, also as a text.
pub(super) fn number(value: &str) -> Option<f64> {
    let text = match Kind::of(value) {
        Kind::Number => value.into(),
        Kind::Text => text_of(value)?,
        _ => return None,
    };
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Shape = Shape::Tagged(&[
        ("text", &[required("text", Shape::Text)]),
        ("image", &[required("url", Shape::Text), optional("size", Shape::Integer)]),
    ]);
    const REQUEST: Shape = Shape::Object(&[
        required("parts", Shape::Either(&[Shape::Text, Shape::List(&PART)])),
        optional("mode", Shape::Choice(&["a", "b"])),
        optional("notes", Shape::Map(&Shape::Text)),
        optional("hot", Shape::Boolean),
        optional("heat", Shape::Number),
        optional("count", Shape::Integer),
    ]);

    #[test]
    fn values_that_fit_are_accepted() {
        for value in [
            r#"{"parts": "a", "other": [1, {"b": null}], "mode": null, "heat": -1e3}"#,
            r#"{"parts": [], "mode": "a", "notes": {"c": "d", "e": null}, "heat": "0.5"}"#,
            r#"{"parts": [{"text": "b", "type": "text"}, {"type": "text", "text": ""}], "hot": 1}"#,
            r#"{"parts": [{"type": "image", "url": "c", "size": 5.0}], "hot": "true"}"#,
            r#"{"parts": "a", "count": 12345678901234567890123}"#,
            r#"{"parts": "a", "count": 5e3}"#,
        ] {
            assert_eq!(REQUEST.check(value), Ok(()), "{value}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error_with_its_place() {
        for (value, place, reason) in [
            ("[]", "", "expected an object, got an array"),
            ("{}", "parts", "it is missing, and required"),
            (r#"{"parts": null}"#, "parts", "it is missing, and required"),
            (r#"{"parts": 1}"#, "parts", "expected a string or an array, got a number"),
            (r#"{"parts": [null]}"#, "parts[0]", "expected an object, got null"),
            (
                r#"{"parts": [{"text": "a", "type": "text"}, {"type": "sound"}]}"#,
                "parts[1]",
                "unknown type `sound`; expected one of `text`, `image`",
            ),
            (r#"{"parts": [{"text": "a"}]}"#, "parts[0].type", "it is missing, and required"),
            (r#"{"parts": [{"type": 1}]}"#, "parts[0].type", "expected a string, got a number"),
            (r#"{"parts": [{"type": "image"}]}"#, "parts[0].url", "it is missing, and required"),
            (
                r#"{"parts": [{"type": "image", "url": "a", "size": 5.5}]}"#,
                "parts[0].size",
                "expected an integer, got a number",
            ),
            (r#"{"parts": "a", "mode": "c"}"#, "mode", "expected one of `a`, `b`, got `c`"),
            (r#"{"parts": "a", "mode": 1}"#, "mode", "expected one of `a`, `b`, got a number"),
            (r#"{"parts": "a", "notes": {"n": 1}}"#, "notes.n", "expected a string, got a number"),
            (r#"{"parts": "a", "heat": "hot"}"#, "heat", "expected a number, got a string"),
            (r#"{"parts": "a", "hot": 2}"#, "hot", "expected a boolean, got a number"),
            (r#"{"parts": "a", "count": 1e30}"#, "count", "expected an integer, got a number"),
            (r#"{"parts": "a", "count": "5e0"}"#, "count", "expected an integer, got a string"),
        ] {
            assert_eq!(REQUEST.check(value), Err(Mismatch::new(place, reason)), "{value}");
        }
    }

    #[test]
    fn every_checked_field_is_described() {
        let schema = REQUEST.schema();
        assert_eq!(schema["required"], json!(["parts"]));
        let part = &schema["properties"]["parts"]["anyOf"][1]["items"]["anyOf"][1];
        assert_eq!(part["properties"]["type"], json!({"const": "image"}));
        assert_eq!(part["required"], json!(["type", "url"]));
        let mode = json!({"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}]});
        assert_eq!(schema["properties"]["mode"], mode);
    }
}
