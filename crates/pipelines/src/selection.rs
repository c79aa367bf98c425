//! The parts of a value that steps select, and its form for conditions.

use std::sync::Arc;

use cel::Value as Cel;
use litplex_core::{Outcome, ServeError};

use crate::path::{NotFound, Path, Segment, select};
use crate::value::{Value, refusal};

/// Returns the part of a value that a path selects.
///
/// # Errors
/// There is none, or the value is not JSON.
pub(crate) fn selection(whole: &Value, path: &Path) -> Outcome<Value> {
    let Some((first, rest)) = path.segments.split_first() else { return Ok(whole.clone()) };
    let form_part = match first {
        Segment::Key(key) => whole.form_part(key),
        Segment::Index(_) => None,
    };
    let (part, rest) = match form_part {
        Some(part) => (part.map_err(|error| at(path, &error))?, rest),
        None => (whole.clone(), &path.segments[..]),
    };
    if rest.is_empty() {
        return Ok(part);
    }
    let text = part.text().map_err(|error| at(path, &error))?;
    let is_from_client = part.is_from_client;
    match select(&text, rest) {
        Ok(found) => Ok(Value { is_from_client, ..Value::json(found) }),
        Err(NotFound::Missing(why)) => Err(refusal(format!("`{path}` {why}"), is_from_client)),
        Err(NotFound::Malformed(why)) => Err(at(path, &part.malformed(&why))),
    }
}

/// Returns an error about the value at a path.
pub(crate) fn at(path: &Path, error: &ServeError) -> ServeError {
    ServeError { detail: format!("`{path}`: {}", error.detail), ..error.clone() }
}

/// Returns a value for conditions.
///
/// # Errors
/// It is not JSON.
pub(crate) fn cel_value(value: &Value) -> Outcome<Cel> {
    if let Some(fields) = value.form_fields() {
        let text =
            |text: Option<String>| text.map_or(Cel::Null, |text| Cel::String(Arc::new(text)));
        return Ok(map_of(fields.map(|(name, field)| (name, text(field)))));
    }
    let json = serde_json::from_slice(&value.text()?);
    json.map(from_json).map_err(|error| value.malformed(&error.to_string()))
}

fn map_of(fields: impl Iterator<Item = (String, Cel)>) -> Cel {
    let field = |(key, value)| (cel::objects::Key::String(Arc::new(key)), value);
    Cel::Map(cel::objects::Map { map: Arc::new(fields.map(field).collect()) })
}

fn from_json(json: serde_json::Value) -> Cel {
    use serde_json::Value as Json;
    match json {
        Json::Null => Cel::Null,
        Json::Bool(boolean) => Cel::Bool(boolean),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Cel::Int(number),
            (None, Some(number)) => Cel::UInt(number),
            (None, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Cel::String(Arc::new(text)),
        Json::Array(items) => Cel::List(Arc::new(items.into_iter().map(from_json).collect())),
        Json::Object(fields) => {
            map_of(fields.into_iter().map(|(key, value)| (key, from_json(value))))
        }
    }
}
