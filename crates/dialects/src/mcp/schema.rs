//! The schemas of tools, adapted to clients and models: many drop references, and some write
//! objects as texts.

use std::borrow::Cow;
use std::collections::BTreeSet;

use litplex_http_core::raw_json::{Kind, Object, each_item, raw, text_of};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Schemas that grow beyond this number of values stay as they are: each of a chain of models may
/// name the next one twice.
const MOST_VALUES: usize = 10_000;

const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// Replaces the references in a schema by their definitions. Recursive references stay, with the
/// definitions that they need.
pub(super) fn inlined(mut schema: Map<String, Value>) -> Map<String, Value> {
    let mut definitions = Map::new();
    for place in DEFINITIONS {
        if let Some(Value::Object(found)) = schema.get(place) {
            definitions.extend(found.clone());
        }
    }
    if definitions.is_empty() {
        return schema;
    }
    let mut inliner = Inliner { definitions: &definitions, kept: BTreeSet::new(), values: 0 };
    let Some(mut whole) = inliner.object(&schema, &mut Vec::new()) else { return schema };
    DEFINITIONS.iter().for_each(|place| drop(whole.remove(*place)));
    let mut needed = Map::new();
    while let Some(name) = inliner.kept.iter().find(|name| !needed.contains_key(*name)).cloned() {
        let definition = &definitions[&name];
        let Some(definition) = inliner.value(definition, &mut vec![name.clone()]) else {
            return schema;
        };
        needed.insert(name, definition);
    }
    if !needed.is_empty() {
        whole.insert("$defs".into(), needed.into());
    }
    schema = whole;
    schema
}

struct Inliner<'a> {
    definitions: &'a Map<String, Value>,
    /// The names of recursive definitions.
    kept: BTreeSet<String>,
    values: usize,
}

impl Inliner<'_> {
    /// Returns a value without references; `None` if it would be too large. `within` are the names
    /// of the definitions around it.
    fn value(&mut self, value: &Value, within: &mut Vec<String>) -> Option<Value> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return None;
        }
        match value {
            Value::Object(object) => self.object(object, within).map(Value::Object),
            Value::Array(items) => {
                let items = items.iter().map(|item| self.value(item, within));
                items.collect::<Option<Vec<_>>>().map(Value::Array)
            }
            other => Some(other.clone()),
        }
    }

    fn object(
        &mut self,
        object: &Map<String, Value>,
        within: &mut Vec<String>,
    ) -> Option<Map<String, Value>> {
        let mut out = Map::new();
        let reference = object.get("$ref").and_then(Value::as_str).and_then(name_of);
        let definition = reference.and_then(|name| Some((name, self.definitions.get(name)?)));
        match definition {
            Some((name, _)) if within.iter().any(|outer| outer == name) => {
                self.kept.insert(name.to_owned());
                out.insert("$ref".into(), format!("#/$defs/{name}").into());
            }
            Some((name, definition)) => {
                within.push(name.to_owned());
                let definition = self.value(definition, within);
                within.pop();
                if let Value::Object(definition) = definition? {
                    out.extend(definition);
                }
            }
            None => {}
        }
        for (name, value) in object {
            let is_done = (name == "$ref" && definition.is_some())
                || (within.is_empty() && DEFINITIONS.contains(&name.as_str()));
            if !is_done {
                out.insert(name.clone(), self.value(value, within)?);
            }
        }
        Some(out)
    }
}

fn name_of(reference: &str) -> Option<&str> {
    DEFINITIONS
        .iter()
        .find_map(|place| reference.strip_prefix("#/")?.strip_prefix(place)?.strip_prefix('/'))
}

/// Parses objects and lists that models write as texts, if the schema requires objects or lists.
pub(super) fn mended<'a>(json: &'a str, schema: &Value) -> Cow<'a, str> {
    match Kind::of(json) {
        Kind::Text if !allows(schema, "string") => match structure_in(json, schema) {
            Some(inner) => mended(&inner, schema).into_owned().into(),
            None => json.into(),
        },
        Kind::Object => mended_object(json, schema),
        Kind::Array => mended_array(json, schema),
        _ => json.into(),
    }
}

/// Returns the object or list in a text, if there is one and the schema requires it.
fn structure_in(json: &str, schema: &Value) -> Option<String> {
    let text = text_of(json)?;
    let inner: &RawValue = serde_json::from_str(&text).ok()?;
    let kind = Kind::of(inner.get());
    let is_wanted = matches!(kind, Kind::Object | Kind::Array) && allows(schema, kind.name());
    is_wanted.then(|| inner.get().to_owned())
}

fn mended_object<'a>(json: &'a str, schema: &Value) -> Cow<'a, str> {
    let for_others = branches(schema).find_map(|branch| branch.get("additionalProperties"));
    let properties = properties(schema);
    if properties.is_none() && for_others.is_none() {
        return json.into();
    }
    let Ok(mut object) = Object::parse(json) else { return json.into() };
    let mend = |(name, value): (&str, &RawValue)| {
        let schema = properties.and_then(|properties| properties.get(name)).or(for_others)?;
        let Cow::Owned(mended) = mended(value.get(), schema) else { return None };
        Some((name.to_owned(), RawValue::from_string(mended).ok()?))
    };
    let changed: Vec<_> = object.fields().filter_map(mend).collect();
    if changed.is_empty() {
        return json.into();
    }
    for (name, value) in changed {
        object.set(&name, value);
    }
    Box::<str>::from(raw(&object)).into_string().into()
}

fn mended_array<'a>(json: &'a str, schema: &Value) -> Cow<'a, str> {
    let in_all = branches(schema).find_map(|branch| branch.get("items"));
    let in_first = branches(schema).find_map(|branch| branch.get("prefixItems")?.as_array());
    if in_all.is_none() && in_first.is_none() {
        return json.into();
    }
    // One text, not one for each item: a client chooses the number of items.
    let (mut out, mut is_changed) = (String::from("["), false);
    let _ = each_item(json, |index, item: &RawValue| {
        let schema = in_first.and_then(|schemas| schemas.get(index)).or(in_all);
        let mended = schema.map_or(item.get().into(), |schema| mended(item.get(), schema));
        is_changed |= matches!(mended, Cow::Owned(_));
        if index > 0 {
            out.push(',');
        }
        out.push_str(&mended);
        Ok::<_, std::convert::Infallible>(())
    });
    out.push(']');
    if is_changed { out.into() } else { json.into() }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    branches(schema).find_map(|branch| branch.get("properties")?.as_object())
}

/// Returns whether a value of this type may fit a schema; without a type in the schema, it may.
fn allows(schema: &Value, wanted: &str) -> bool {
    let is_it = |value: &Value| value.as_str() == Some(wanted);
    branches(schema).any(|branch| match branch.get("type") {
        Some(Value::Array(types)) => types.iter().any(is_it),
        Some(one) => is_it(one),
        None if branch.get("properties").is_some() => wanted == "object",
        // The branches have a choice of schemas.
        None => CHOICES.iter().all(|choice| branch.get(*choice).is_none()),
    })
}

const CHOICES: [&str; 2] = ["anyOf", "oneOf"];

/// Returns a schema and the schemas that it is a choice of.
fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    let choices = CHOICES.iter().filter_map(|choice| schema.get(*choice)?.as_array());
    std::iter::once(schema).chain(choices.flatten())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(schema: Value) -> Value {
        let Value::Object(schema) = schema else { unreachable!() };
        inlined(schema).into()
    }

    #[test]
    fn references_are_replaced_where_that_is_finite() {
        let schema = of(json!({
            "properties": {"a": {"$ref": "#/$defs/A", "description": "d"}},
            "$defs": {
                "A": {"type": "object", "properties": {"b": {"items": {"$ref": "#/$defs/B"}}}},
                "B": {"type": "integer"},
            },
        }));
        let expected = json!({"properties": {"a": {
            "type": "object", "properties": {"b": {"items": {"type": "integer"}}},
            "description": "d",
        }}});
        assert_eq!(schema, expected);
        let tree = of(json!({
            "properties": {"root": {"$ref": "#/$defs/Node"}},
            "$defs": {"Node": {"properties": {"next": {"$ref": "#/$defs/Node"}}}, "Other": {}},
        }));
        let node = json!({"properties": {"next": {"$ref": "#/$defs/Node"}}});
        let expected = json!({"properties": {"root": node.clone()}, "$defs": {"Node": node}});
        assert_eq!(tree, expected);
    }

    #[test]
    fn a_schema_that_would_be_too_large_stays_as_it_is() {
        let mut definitions = Map::new();
        for level in 0..30 {
            let next = json!({"$ref": format!("#/$defs/M{}", level + 1)});
            definitions.insert(format!("M{level}"), json!({"properties": {"a": next, "b": next}}));
        }
        let schema = json!({"properties": {"a": {"$ref": "#/$defs/M0"}}, "$defs": definitions});
        assert_eq!(of(schema.clone()), schema);
    }

    #[test]
    fn objects_in_texts_are_read_where_they_are_asked_for() {
        let schema = json!({"type": "object", "properties": {
            "o": {"type": "object", "properties": {"l": {"type": "array"}, "s": {"type": "string"}}},
            "n": {"anyOf": [{"type": "object"}, {"type": "null"}]},
            "s": {"anyOf": [{"type": "string"}, {"type": "object"}]},
            "l": {"type": "array", "items": {"type": "object"}},
            "any": {},
            "m": {"type": "object", "additionalProperties": {"type": "object"}},
            "t": {"type": "array", "prefixItems": [{"type": "object"}, {"type": "string"}]},
        }});
        for (given, expected) in [
            (r#"{"o":"{\"s\":\"{}\",\"l\":\"[1.50]\"}"}"#, r#"{"o":{"s":"{}","l":[1.50]}}"#),
            (r#"{"n":"{\"a\": 1}","s":"{}"}"#, r#"{"n":{"a": 1},"s":"{}"}"#),
            (r#"{"l":["{}", {"a": 1}]}"#, r#"{"l":[{},{"a": 1}]}"#),
            (r#"{"m":{"a":"{\"b\": 1}"}}"#, r#"{"m":{"a":{"b": 1}}}"#),
            (r#"{"t":["{}","{}","{}"]}"#, r#"{"t":[{},"{}","{}"]}"#),
            (r#""{\"o\": {}}""#, r#"{"o": {}}"#),
            (r#"{"o":"{","any":"{}","x":"{}"}"#, r#"{"o":"{","any":"{}","x":"{}"}"#),
        ] {
            assert_eq!(mended(given, &schema), expected, "{given}");
        }
    }
}
