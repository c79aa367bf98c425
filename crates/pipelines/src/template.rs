//! Templates: what a step is given, made of paths and literal JSON.

use bytes::Bytes;
use litplex_core::Outcome;

use crate::path::Path;
use crate::scope::Scope;
use crate::selection::at;
use crate::value::Value;

/// The name of the response of the step before.
pub(crate) const RESPONSE: &str = "response";

/// A value with holes: in JSON, each text that begins with `$` is a path, and `$$` stands for a dollar.
#[derive(Debug)]
pub(crate) enum Template {
    Path(Path),
    /// JSON text without paths.
    Literal(Bytes),
    List(Vec<Template>),
    /// The keys as JSON text.
    Object(Vec<(String, Template)>),
}

impl Template {
    /// Returns the template of the response of the step before.
    pub(crate) fn response() -> Self {
        Self::Path(Path { name: RESPONSE.into(), segments: Vec::new() })
    }

    /// Reads a template; adds a sentence to `problems` for each text that is no path.
    pub(crate) fn read(json: &serde_json::Value, problems: &mut Vec<String>) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::String(text) if text.starts_with("$$") => literal(&text[1..].into()),
            Json::String(text) if text.starts_with('$') => match Path::parse(text) {
                Ok(path) => Self::Path(path),
                Err(problem) => {
                    problems.push(problem);
                    literal(&Json::Null)
                }
            },
            Json::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| Self::read(item, problems)).collect();
                let is_literal = items.iter().all(|item| matches!(item, Self::Literal(_)));
                if is_literal { literal_of(json) } else { Self::List(items) }
            }
            Json::Object(fields) => {
                let field = |(key, value): (&String, &Json)| {
                    (Json::from(key.as_str()).to_string(), Self::read(value, problems))
                };
                let fields: Vec<_> = fields.iter().map(field).collect();
                let is_literal = fields.iter().all(|(_, field)| matches!(field, Self::Literal(_)));
                if is_literal { literal_of(json) } else { Self::Object(fields) }
            }
            other => literal(other),
        }
    }

    /// Calls a function with each path.
    pub(crate) fn each_path<'t>(&'t self, visit: &mut impl FnMut(&'t Path)) {
        match self {
            Self::Path(path) => visit(path),
            Self::Literal(_) => {}
            Self::List(items) => items.iter().for_each(|item| item.each_path(visit)),
            Self::Object(fields) => fields.iter().for_each(|(_, field)| field.each_path(visit)),
        }
    }

    /// Returns the number of bytes that are read to fill in the values. A value that is taken whole is
    /// not read.
    pub(crate) fn bytes(&self, scope: &Scope) -> usize {
        let mut bytes = 0;
        if !matches!(self, Self::Path(path) if path.segments.is_empty()) {
            self.each_path(&mut |path| bytes += scope.unread_bytes(path));
        }
        bytes
    }

    /// Fills in the values.
    ///
    /// # Errors
    /// A field is missing, or bytes would be part of JSON.
    pub(crate) fn fill(&self, scope: &Scope) -> Outcome<Value> {
        match self {
            Self::Path(path) => scope.select(path),
            Self::Literal(text) => Ok(Value { is_from_client: true, ..Value::json(text.clone()) }),
            Self::List(_) | Self::Object(_) => {
                let mut text = Vec::new();
                let is_from_client = self.write(scope, &mut text)?;
                Ok(Value { is_from_client, ..Value::json(text) })
            }
        }
    }

    /// Writes the JSON; returns whether all of it is from the client.
    fn write(&self, scope: &Scope, out: &mut Vec<u8>) -> Outcome<bool> {
        let mut is_from_client = true;
        match self {
            Self::Path(path) => {
                let value = scope.select(path)?;
                let text = value.text().map_err(|error| at(path, &error))?;
                out.extend_from_slice(&text);
                is_from_client = value.is_from_client;
            }
            Self::Literal(text) => out.extend_from_slice(text),
            Self::List(items) => {
                out.push(b'[');
                for (number, item) in items.iter().enumerate() {
                    separate(number, out);
                    is_from_client &= item.write(scope, out)?;
                }
                out.push(b']');
            }
            Self::Object(fields) => {
                out.push(b'{');
                for (number, (key, field)) in fields.iter().enumerate() {
                    separate(number, out);
                    out.extend_from_slice(key.as_bytes());
                    out.push(b':');
                    is_from_client &= field.write(scope, out)?;
                }
                out.push(b'}');
            }
        }
        Ok(is_from_client)
    }
}

/// Writes a comma before each element but the first.
pub(crate) fn separate(number: usize, out: &mut Vec<u8>) {
    if number > 0 {
        out.push(b',');
    }
}

fn literal(json: &serde_json::Value) -> Template {
    Template::Literal(json.to_string().into())
}

/// Returns a literal in which `$$` is read as a dollar.
fn literal_of(json: &serde_json::Value) -> Template {
    let mut json = json.clone();
    unescape(&mut json);
    literal(&json)
}

fn unescape(json: &mut serde_json::Value) {
    use serde_json::Value as Json;
    match json {
        Json::String(text) if text.starts_with("$$") => *text = text[1..].to_owned(),
        Json::Array(items) => items.iter_mut().for_each(unescape),
        Json::Object(fields) => fields.values_mut().for_each(unescape),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use litplex_core::Content;
    use serde_json::json;

    use super::*;

    fn scope() -> Scope {
        let sent = Value { is_from_client: true, ..Value::json(r#"{"q": 1.50, "n": [3]}"#) };
        let image = Value { content: Content::Raw("image/png".into()), ..Value::json("png") };
        let scope = Scope::default().with("request".into(), sent);
        scope.with("image".into(), image).with("response".into(), Value::json("[true]"))
    }

    fn filled(template: &serde_json::Value) -> Outcome<Value> {
        let mut problems = Vec::new();
        let template = Template::read(template, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        template.fill(&scope())
    }

    #[test]
    fn paths_are_filled_in_and_the_rest_is_kept() {
        let template = json!({"a": "$request.q", "b": ["$response[0]", "$$x", 2], "c": {"d": "e"}});
        let value = filled(&template).unwrap();
        let expected = r#"{"a":1.50,"b":[true,"$x",2],"c":{"d":"e"}}"#;
        assert_eq!(value.text().unwrap(), expected);
        assert!(!value.is_from_client);
        assert!(filled(&json!({"a": "$request.q"})).unwrap().is_from_client);
        assert_eq!(filled(&json!({"a": ["$$"]})).unwrap().text().unwrap(), r#"{"a":["$"]}"#);
    }

    #[test]
    fn bytes_are_taken_whole_and_are_no_part_of_json() {
        assert_eq!(filled(&json!("$image")).unwrap().content, Content::Raw("image/png".into()));
        let error = filled(&json!({"image": "$image"})).unwrap_err();
        assert!(error.detail.starts_with("`$image`: "), "{error}");
    }

    #[test]
    fn a_missing_field_is_the_error_of_the_side_that_sent_the_value() {
        assert_eq!(filled(&json!("$request.x")).unwrap_err().status(), 422);
        let error = filled(&json!("$response.x")).unwrap_err();
        assert_eq!(error.to_string(), "500: `$response.x` is a list, not an object");
    }
}
