//! The check of types, where the schemas of both sides are known: what a step is given against what its
//! endpoint takes, and one schema against another.
//!
//! It finds what cannot be right: a JSON type that the endpoint does not take, or a field that cannot
//! exist. Anything that is not known fits. A text fits a number, because models may convert it.

use std::collections::HashMap;

use serde_json::Value;

use crate::graph::{Dependency, Graph, Node, Work};
use crate::path::{Path, Segment};
use crate::read::{ITEM, REQUEST};
use crate::template::{RESPONSE, Template};

/// Returns a sentence for each value that cannot fit. `schemas` returns what is known of an endpoint: an
/// object with `request` (schemas by media type), `response` (a schema), and `schemas` and
/// `response_schemas`, to which these refer.
pub fn misfits<'s>(graph: &Graph, schemas: impl Fn(&str) -> Option<&'s Value>) -> Vec<String> {
    let mut check = Check { schemas: &schemas, problems: Vec::new() };
    let names = Names::from([(REQUEST, Known::Unknown)]);
    check.sequence(&graph.steps, &names, Known::Unknown);
    check.problems
}

/// Returns a sentence if values of one schema, `given`, cannot fit another. The values of each are in an object
/// with the schemas to which it refers. An object with known fields has no others, unless its schema allows
/// them.
pub fn misfit(given: (&Value, &Value), taken: (&Value, &Value)) -> Option<String> {
    let schema = |(schema, others)| Schema { schema, others };
    schema_fits(schema(given), schema(taken), 0).err()
}

/// What is known of a value.
#[derive(Debug, Clone, Copy)]
enum Known<'s> {
    Unknown,
    /// It has this schema.
    Schema(Schema<'s>),
    /// It has one of these types.
    Types(u8),
    /// It is a list of such values.
    List(&'s Value, &'s Value),
}

/// A schema, and those that it refers to by name.
#[derive(Debug, Clone, Copy)]
struct Schema<'s> {
    schema: &'s Value,
    others: &'s Value,
}

type Names<'g, 's> = HashMap<&'g str, Known<'s>>;

const TYPES: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];
const ALL: u8 = 0b11_1111;
const ARRAY: u8 = 1 << 4;
const OBJECT: u8 = 1 << 5;
/// The types that models may read a text as.
const READ_FROM_TEXT: u8 = 0b110;
const STRING: u8 = 1 << 3;

/// How deep references are followed.
const DEEPEST: usize = 16;

struct Check<'c, 's, F: Fn(&str) -> Option<&'s Value>> {
    schemas: &'c F,
    problems: Vec<String>,
}

impl<'s, F: Fn(&str) -> Option<&'s Value>> Check<'_, 's, F> {
    fn sequence<'g>(
        &mut self,
        steps: &'g [Node],
        names: &Names<'g, 's>,
        mut response: Known<'s>,
    ) -> Known<'s> {
        let mut names = names.clone();
        for step in steps {
            names.insert(RESPONSE, response);
            response = self.step(step, &names);
            if let Work::Parallel(branches) = &step.work {
                names.extend(branches.iter().map(|(name, _)| (&**name, Known::Unknown)));
            }
            if let Some(name) = &step.name {
                names.insert(name, response);
            }
        }
        response
    }

    /// Checks a step; returns what is known of its response.
    fn step<'g>(&mut self, step: &'g Node, names: &Names<'g, 's>) -> Known<'s> {
        let input = self.value(&step.place, &step.input, names);
        let mut inner = names.clone();
        inner.insert(RESPONSE, input);
        let response = match &step.work {
            Work::Value => input,
            Work::Call(endpoint) => self.call(step, endpoint, names),
            Work::Sequence(steps) => self.sequence(steps, names, input),
            Work::Parallel(branches) => {
                self.all(branches.iter().map(|(_, step)| step), &inner);
                Known::Types(OBJECT)
            }
            Work::Switch(branches) => {
                self.all(branches.iter().map(|branch| &branch.step), &inner);
                Known::Unknown
            }
            Work::Splitter(splitter) => {
                let shadows = splitter.shadows.iter().map(|shadow| &*shadow.step);
                self.all(splitter.branches.iter().chain(shadows), &inner);
                Known::Unknown
            }
            Work::Map(map) => {
                let item = self.items(&step.place, &map.over, &inner);
                inner.insert(ITEM, item);
                inner.insert(RESPONSE, item);
                match self.step(&map.step, &inner) {
                    Known::Schema(Schema { schema, others }) => Known::List(schema, others),
                    _ => Known::Types(ARRAY),
                }
            }
        };
        match step.dependency {
            Dependency::Hard => response,
            Dependency::Soft(_) => Known::Unknown,
        }
    }

    fn all<'g>(&mut self, steps: impl Iterator<Item = &'g Node>, names: &Names<'g, 's>) {
        for step in steps {
            self.step(step, names);
        }
    }

    fn call(&mut self, step: &Node, endpoint: &str, names: &Names<'_, 's>) -> Known<'s> {
        let Some(known) = (self.schemas)(endpoint) else { return Known::Unknown };
        if let Some(schema) = known["request"].get("application/json") {
            let taken = Schema { schema, others: &known["schemas"] };
            if let Err(problem) = fits(&step.input, names, taken) {
                self.problems.push(format!("{}: {problem}; {endpoint} takes it", step.place));
            }
        }
        match known.get("response") {
            Some(schema) => Known::Schema(Schema { schema, others: &known["response_schemas"] }),
            None => Known::Unknown,
        }
    }

    fn value(&mut self, place: &str, template: &Template, names: &Names<'_, 's>) -> Known<'s> {
        match template {
            Template::Path(path) => selected(path, names).unwrap_or_else(|problem| {
                self.problems.push(format!("{place}: {problem}"));
                Known::Unknown
            }),
            Template::Literal(text) => {
                let value: Value = serde_json::from_slice(text).unwrap_or_default();
                Known::Types(type_of(&value))
            }
            Template::List(_) => Known::Types(ARRAY),
            Template::Object(_) => Known::Types(OBJECT),
        }
    }

    /// Returns what is known of the items of a list.
    fn items(&mut self, place: &str, over: &Path, names: &Names<'_, 's>) -> Known<'s> {
        let list = match selected(over, names) {
            Ok(list) => list,
            Err(problem) => {
                self.problems.push(format!("{place}: {problem}"));
                return Known::Unknown;
            }
        };
        if list.types() & ARRAY == 0 {
            let types = words(list.types());
            self.problems.push(format!("{place}: `{over}` is {types}, and a map needs a list"));
        }
        list.select(&Segment::Index(0)).unwrap_or(Known::Unknown)
    }
}

/// Checks that a template can fit a schema.
fn fits(template: &Template, names: &Names<'_, '_>, taken: Schema<'_>) -> Result<(), String> {
    let (given, shown) = match template {
        Template::Path(path) => {
            // A path that selects nothing is told where it is filled in.
            let known = selected(path, names).unwrap_or(Known::Unknown);
            (known.types(), format!("`{path}`"))
        }
        Template::Literal(text) => {
            let value: Value = serde_json::from_slice(text).unwrap_or_default();
            return literal_fits(&value, taken);
        }
        Template::List(_) => (ARRAY, "the list".into()),
        Template::Object(_) => (OBJECT, "the object".into()),
    };
    type_fits(given, &shown, taken)?;
    let Template::Object(fields) = template else { return Ok(()) };
    let key = |quoted: &str| serde_json::from_str::<String>(quoted).unwrap_or_default();
    let fields: Vec<_> = fields.iter().map(|(quoted, field)| (key(quoted), field)).collect();
    fields_fit(&fields, false, taken, |field, schema| fits(field, names, schema))
}

fn literal_fits(value: &Value, taken: Schema<'_>) -> Result<(), String> {
    type_fits(type_of(value), &format!("`{value}`"), taken)?;
    let Value::Object(fields) = value else { return Ok(()) };
    let fields: Vec<_> = fields.iter().map(|(name, field)| (name.clone(), field)).collect();
    fields_fit(&fields, false, taken, |field, schema| literal_fits(field, schema))
}

fn type_fits(given: u8, shown: &str, taken: Schema<'_>) -> Result<(), String> {
    let types = taken.types(0);
    let convertible = if given & STRING == 0 { 0 } else { READ_FROM_TEXT };
    if (given | convertible) & types == 0 {
        return Err(format!("{shown} is {}, not {}", words(given), words(types)));
    }
    Ok(())
}

/// Checks the fields of an object: those that the schema requires, and the type of each.
fn fields_fit<F>(
    fields: &[(String, F)],
    has_others: bool,
    taken: Schema<'_>,
    fits: impl Fn(&F, Schema<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let taken = taken.resolved();
    let required = taken.schema["required"].as_array().into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if !has_others && !fields.iter().any(|(given, _)| given == name) {
            return Err(format!("the object has no field `{name}`"));
        }
    }
    for (name, field) in fields {
        if let Some(schema) = taken.schema["properties"].get(name) {
            fits(field, Schema { schema, ..taken })
                .map_err(|problem| format!("the field `{name}`: {problem}"))?;
        }
    }
    Ok(())
}

fn schema_fits(given: Schema<'_>, taken: Schema<'_>, depth: usize) -> Result<(), String> {
    type_fits(given.types(0), "the value", taken)?;
    let (given, taken) = (given.resolved(), taken.resolved());
    if depth == DEEPEST {
        return Ok(());
    }
    if let (Some(schema), Some(items)) = (given.schema.get("items"), taken.schema.get("items")) {
        schema_fits(Schema { schema, ..given }, Schema { schema: items, ..taken }, depth + 1)
            .map_err(|problem| format!("an item: {problem}"))?;
    }
    let Some(fields) = given.schema["properties"].as_object() else { return Ok(()) };
    let others = given.schema.get("additionalProperties").unwrap_or(&Value::Bool(false));
    let fields: Vec<_> = fields.iter().map(|(name, field)| (name.clone(), field)).collect();
    let is_open = *others != Value::Bool(false);
    fields_fit(&fields, is_open, taken, |field, schema| {
        schema_fits(Schema { schema: field, ..given }, schema, depth + 1)
    })
}

/// Returns what is known of a selection.
fn selected<'s>(path: &Path, names: &Names<'_, 's>) -> Result<Known<'s>, String> {
    let mut known = names.get(&*path.name).copied().unwrap_or(Known::Unknown);
    for segment in &path.segments {
        known = known.select(segment).map_err(|problem| format!("`{path}`: {problem}"))?;
    }
    Ok(known)
}

impl<'s> Known<'s> {
    fn types(self) -> u8 {
        match self {
            Self::Unknown => ALL,
            Self::Schema(schema) => schema.types(0),
            Self::Types(types) => types,
            Self::List(..) => ARRAY,
        }
    }

    /// Returns what is known of a field or an item.
    fn select(self, segment: &Segment) -> Result<Self, String> {
        let (needed, what) = match segment {
            Segment::Key(key) => (OBJECT, format!("has no field `{key}`")),
            Segment::Index(index) => (ARRAY, format!("has no item [{index}]")),
        };
        if self.types() & needed == 0 {
            return Err(format!("the value is {}, and {what}", words(self.types())));
        }
        let schema = match (self, segment) {
            (Self::List(schema, others), _) => {
                return Ok(Self::Schema(Schema { schema, others }));
            }
            (Self::Schema(schema), _) => schema.resolved(),
            _ => return Ok(Self::Unknown),
        };
        let found = match segment {
            Segment::Key(key) => {
                let found = schema.schema["properties"].get(key);
                if found.is_none() && schema.schema["additionalProperties"] == false {
                    return Err(format!("the value {what}"));
                }
                found
            }
            Segment::Index(_) if schema.schema.get("prefixItems").is_some() => None,
            Segment::Index(_) => schema.schema.get("items"),
        };
        Ok(found.map_or(Self::Unknown, |found| Self::Schema(Schema { schema: found, ..schema })))
    }
}

impl Schema<'_> {
    /// Follows references.
    fn resolved(self) -> Self {
        let mut current = self;
        for _ in 0..DEEPEST {
            let Some(reference) = current.schema.get("$ref").and_then(Value::as_str) else { break };
            let name = reference.rsplit('/').next().unwrap_or_default();
            let Some(schema) = self.others.get(name) else { break };
            current.schema = schema;
        }
        current
    }

    /// Returns the JSON types of its values.
    fn types(self, depth: usize) -> u8 {
        let Self { schema, others } = self.resolved();
        let Some(keywords) = schema.as_object().filter(|_| depth < DEEPEST) else { return ALL };
        let each = |schemas: &Value| -> Vec<u8> {
            let schemas = schemas.as_array().into_iter().flatten();
            schemas.map(|schema| Schema { schema, others }.types(depth + 1)).collect()
        };
        let types = keywords.iter().map(|(keyword, value)| match keyword.as_str() {
            "type" => match value {
                Value::Array(words) => words.iter().fold(0, |types, word| types | type_named(word)),
                word => type_named(word),
            },
            "const" => type_of(value),
            "enum" => {
                value.as_array().into_iter().flatten().fold(0, |it, value| it | type_of(value))
            }
            "anyOf" | "oneOf" => each(value).into_iter().fold(0, |it, types| it | types),
            "allOf" => each(value).into_iter().fold(ALL, |it, types| it & types),
            _ => ALL,
        });
        types.fold(ALL, |it, types| it & types)
    }
}

fn type_named(word: &Value) -> u8 {
    let word = word.as_str().unwrap_or_default();
    let word = if word == "integer" { "number" } else { word };
    TYPES.iter().position(|it| *it == word).map_or(ALL, |at| 1 << at)
}

fn type_of(value: &Value) -> u8 {
    match value {
        Value::Null => 1,
        Value::Bool(_) => 1 << 1,
        Value::Number(_) => 1 << 2,
        Value::String(_) => STRING,
        Value::Array(_) => ARRAY,
        Value::Object(_) => OBJECT,
    }
}

fn words(types: u8) -> String {
    let words = (0..TYPES.len()).filter(|at| types & (1 << at) != 0).map(|at| match TYPES[at] {
        "null" => "null".to_owned(),
        word @ ("array" | "object") => format!("an {word}"),
        word => format!("a {word}"),
    });
    words.collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(definition: &Value) -> Vec<String> {
        let ocr = json!({
            "request": {"application/json": {"type": "string"}},
            "response": {"$ref": "#/components/schemas/Page"},
            "response_schemas": {
                "Page": {
                    "type": "object",
                    "properties": {
                        "text": {"type": "string"},
                        "lines": {"type": "array", "items": {"$ref": "#/components/schemas/Line"}},
                        "title": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    },
                    "additionalProperties": false,
                },
                "Line": {"type": "object", "properties": {"score": {"type": "number"}}},
            },
        });
        let lang = json!({"request": {"application/json": {"$ref": "#/components/schemas/Text"}},
            "schemas": {"Text": {"type": "object", "required": ["text"],
                "properties": {"text": {"type": "string"}, "most": {"type": "integer"}}}}});
        let graph = Graph::read(definition).unwrap();
        misfits(&graph, |endpoint| match endpoint {
            "/ocr" => Some(&ocr),
            "/lang" => Some(&lang),
            _ => None,
        })
    }

    #[test]
    fn values_that_cannot_fit_are_found() {
        let ocr = json!({"call": "/ocr", "name": "ocr"});
        let after = |step: Value| problems(&json!([ocr, step]));
        let lang = |input: Value| after(json!({"call": "/lang", "input": input}));
        for (found, expected) in [
            (lang(json!("$ocr.text")), "`$ocr.text` is a string, not an object; /lang takes it"),
            (lang(json!({"text": "$ocr.lines"})), "the field `text`: `$ocr.lines` is an array"),
            (lang(json!({"texts": "$ocr.text"})), "the object has no field `text`"),
            (lang(json!({"text": 3})), "the field `text`: `3` is a number, not a string"),
            (after(json!({"value": "$ocr.txt"})), "`$ocr.txt`: the value has no field `txt`"),
            (after(json!({"value": "$ocr.text.x"})), "the value is a string, and has no field `x`"),
            (after(json!({"value": "$ocr.lines.x"})), "is an array, and has no field `x`"),
            (after(json!({"map": "/x", "over": "$ocr.text"})), "a map needs a list"),
            (
                after(
                    json!({"map": {"call": "/ocr", "input": "$item.score"}, "over": "$ocr.lines"}),
                ),
                "steps[1].map: `$item.score` is a number, not a string",
            ),
            (problems(&json!([["/ocr", "/lang"], "/lang"])), ""),
        ] {
            assert_eq!(found.len(), usize::from(!expected.is_empty()), "{found:?}");
            assert!(found.iter().all(|it| it.contains(expected)), "{found:?}");
        }
    }

    #[test]
    fn schemas_that_cannot_fit_are_found() {
        let others = json!({"Line": {"type": "object", "required": ["text"],
            "properties": {"text": {"type": "string"}, "score": {"type": "number"}}}});
        let line = json!({"$ref": "#/components/schemas/Line"});
        let list = json!({"type": "array", "items": line});
        let with =
            |field: &str, schema: Value| json!({"type": "object", "properties": {field: schema}});
        let number = json!({"type": "number"});
        for (given, taken, expected) in [
            (&number, &line, "the value is a number, not an object"),
            (&list, &line, "the value is an array, not an object"),
            (&with("score", number.clone()), &line, "the object has no field `text`"),
            (&with("text", number.clone()), &line, "the field `text`: the value is a number"),
            (&json!({"type": "array", "items": number}), &list, "an item: the value is a number"),
            (&line, &line, ""),
            (&list, &json!({"type": "array"}), ""),
            (&json!({"type": "object"}), &line, ""),
            (&json!({"type": "object", "properties": {}, "additionalProperties": true}), &line, ""),
            (&json!({}), &line, ""),
            (&json!({"anyOf": [{"type": "null"}, line]}), &line, ""),
        ] {
            let found = misfit((given, &others), (taken, &others)).unwrap_or_default();
            assert_eq!(found.is_empty(), expected.is_empty(), "{given} {taken} {found}");
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn what_may_fit_is_no_error() {
        let ocr = json!({"call": "/ocr", "name": "ocr"});
        let soft = json!({"call": "/ocr", "name": "ocr", "dependency": "soft"});
        for definition in [
            json!([ocr, {"call": "/lang", "input": {"text": "$ocr.text", "most": "$ocr.text"}}]),
            json!([ocr, {"call": "/ocr", "input": "$ocr.title"}]),
            json!([ocr, {"call": "/lang", "input": "$ocr.lines[0]"}]),
            json!([{"call": "/lang", "input": "$request.x"}]),
            json!([soft, {"call": "/lang", "input": "$ocr.text"}]),
            json!([ocr, {"parallel": {"a": {"value": "$ocr.text"}}}, {"call": "/lang"}]),
            json!([{"map": "/ocr"}, {"value": "$response[0].text"}]),
        ] {
            assert!(problems(&definition).is_empty(), "{:?}", problems(&definition));
        }
    }
}
