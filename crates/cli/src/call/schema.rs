//! The schema of an endpoint, from the description of its server (`/openapi.json`).

use serde_json::{Map, Value};

/// The depth to which a schema is described.
const MAX_DEPTH: usize = 3;

/// The characters of the longest description.
const MAX_DESCRIPTION: usize = 500;

/// The description of a chat, whose schema has too many fields for a line.
const CHAT: &str = r#"a text, or a chat such as {"messages": [{"role": "user", "content": "…"}]}"#;

/// The depth to which references and alternatives are followed; a schema may refer to itself.
const MAX_STEPS: usize = 8;

/// The operation of an endpoint.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) method: String,
    document: Value,
    /// The content types that the endpoint takes, with their schemas.
    contents: Map<String, Value>,
}

impl Operation {
    /// Returns the operation of a path; `None` if the document does not have it.
    pub(crate) fn find(document: Value, path: &str) -> Option<Self> {
        let operations = document.get("paths")?.get(path)?.as_object()?;
        let methods = ["post", "put", "patch", "get", "delete"];
        let (method, operation) =
            methods.iter().find_map(|method| Some((*method, operations.get(*method)?)))?;
        let contents = operation.pointer("/requestBody/content").and_then(Value::as_object);
        let contents = contents.cloned().unwrap_or_default();
        Some(Self { method: method.to_uppercase(), document, contents })
    }

    /// Returns the operation of an endpoint about which nothing is known: it takes any JSON.
    pub(crate) fn unknown() -> Self {
        let contents = Map::from_iter([("application/json".to_owned(), Value::Null)]);
        Self { method: "POST".into(), document: Value::Null, contents }
    }

    /// Returns whether requests have a body.
    pub(crate) fn has_body(&self) -> bool {
        !self.contents.is_empty()
    }

    /// Returns the first example of a JSON body.
    pub(crate) fn example(&self) -> Option<&Value> {
        let content = self.contents.get("application/json")?;
        content
            .get("example")
            .or_else(|| content.get("examples")?.as_object()?.values().next()?.get("value"))
            .or_else(|| content.pointer("/schema/example"))
            .or_else(|| content.pointer("/schema/examples/0"))
    }

    /// Returns the schema of JSON bodies.
    pub(crate) fn json(&self) -> Option<Schema<'_>> {
        let is_json = |name: &str| name == "application/json" || name.ends_with("+json");
        self.content(is_json).map(|(_, schema)| schema)
    }

    /// Returns the content type and the schema of forms, those with files first.
    pub(crate) fn form(&self) -> Option<(&str, Schema<'_>)> {
        self.content(|name| name == MULTIPART).or_else(|| self.content(|name| name == URLENCODED))
    }

    /// Returns the content type of bodies that are neither JSON nor forms.
    pub(crate) fn raw(&self) -> Option<&str> {
        let is_raw = |name: &str| !name.contains("json") && name != MULTIPART && name != URLENCODED;
        self.content(is_raw).map(|(name, _)| name)
    }

    fn content(&self, is_meant: impl Fn(&str) -> bool) -> Option<(&str, Schema<'_>)> {
        let (name, content) = self.contents.iter().find(|(name, _)| is_meant(name))?;
        let node = content.get("schema").unwrap_or(&Value::Null);
        Some((name, Schema { document: &self.document, node }))
    }

    /// Describes what the endpoint takes in a line.
    pub(crate) fn describe(&self) -> String {
        let described = self.contents.iter().map(|(name, content)| {
            let node = content.get("schema").unwrap_or(&Value::Null);
            let schema = Schema { document: &self.document, node };
            let schema = if schema.is_chat() { CHAT.to_owned() } else { schema.describe(0) };
            match name.as_str() {
                "application/json" => schema,
                MULTIPART | URLENCODED => format!("a form with {schema}"),
                other => format!("a body of type {other}"),
            }
        });
        let text = Vec::from_iter(described).join(", or ");
        match text.char_indices().nth(MAX_DESCRIPTION) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

#[cfg(test)]
impl Operation {
    /// Returns the operation of an endpoint that takes this content.
    pub(crate) fn for_content(content: &Value) -> Self {
        let document = serde_json::json!({
            "paths": {"/a": {"post": {"requestBody": {"content": content}}}},
            "components": {"schemas": {
                "In": {
                    "type": "object",
                    "properties": {
                        "text": {"type": "string"},
                        "top": {"type": "integer", "default": 3},
                        "next": {"anyOf": [{"$ref": "#/components/schemas/In"}, {"type": "null"}]},
                    },
                    "required": ["text"],
                },
                "Loop": {"$ref": "#/components/schemas/Loop"},
            }},
        });
        Self::find(document, "/a").unwrap_or_else(Self::unknown)
    }

    /// Returns the operation of an endpoint that takes JSON of this schema.
    pub(crate) fn for_json(schema: &Value) -> Self {
        Self::for_content(&serde_json::json!({"application/json": {"schema": schema}}))
    }
}

/// The content type of forms with files.
pub(crate) const MULTIPART: &str = "multipart/form-data";

/// The content type of forms without files.
pub(crate) const URLENCODED: &str = "application/x-www-form-urlencoded";

/// A schema within a document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema<'a> {
    document: &'a Value,
    node: &'a Value,
}

/// A property of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Property<'a> {
    pub(crate) name: &'a str,
    pub(crate) schema: Schema<'a>,
    pub(crate) is_required: bool,
}

impl<'a> Schema<'a> {
    /// Returns whether the schema says nothing about the value.
    pub(crate) fn is_any(self) -> bool {
        let says = ["type", "properties", "enum", "const", "required"];
        self.branches().iter().any(|branch| says.iter().all(|key| branch.node.get(key).is_none()))
    }

    /// Returns whether values of this type, such as `string`, can be valid.
    pub(crate) fn takes(self, kind: &str) -> bool {
        self.is_any() || self.branches().iter().any(|branch| branch.kinds().contains(&kind))
    }

    /// Returns whether the value is bytes: a file of a form, or text in base64.
    pub(crate) fn is_binary(self) -> bool {
        self.branches().iter().any(|branch| {
            let format = branch.node.get("format").and_then(Value::as_str);
            matches!(format, Some("binary" | "byte" | "base64" | "base64url"))
                || branch.node.get("contentEncoding").is_some()
                || branch.node.get("contentMediaType").and_then(Value::as_str).is_some_and(|it| {
                    // JSON or a text within a string is a text.
                    !it.ends_with("json") && !it.starts_with("text/")
                })
                || branch.node.get("items").is_some_and(|items| self.at(items).is_binary())
        })
    }

    /// Returns the properties of an object.
    pub(crate) fn properties(self) -> Vec<Property<'a>> {
        let mut found = Vec::new();
        for branch in self.branches() {
            let Some(properties) = branch.node.get("properties").and_then(Value::as_object) else {
                continue;
            };
            let required = branch.node.get("required").and_then(Value::as_array);
            for (name, node) in properties {
                let is_required =
                    required.is_some_and(|names| names.iter().any(|it| it == name.as_str()));
                found.push(Property { name, schema: self.at(node), is_required });
            }
        }
        found
    }

    /// Returns the property with this name.
    pub(crate) fn property(self, name: &str) -> Option<Property<'a>> {
        self.properties().into_iter().find(|property| property.name == name)
    }

    /// Returns whether the endpoint takes the messages of a chat.
    pub(crate) fn is_chat(self) -> bool {
        self.property("messages").is_some_and(|messages| messages.schema.takes("array"))
    }

    fn at(self, node: &'a Value) -> Self {
        Self { node, ..self }
    }

    /// Returns the alternatives, without references.
    fn branches(self) -> Vec<Self> {
        let mut found = Vec::new();
        self.collect_branches(MAX_STEPS, &mut found);
        found
    }

    fn collect_branches(self, steps: usize, found: &mut Vec<Self>) {
        if steps == 0 {
            return;
        }
        if let Some(reference) = self.node.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').unwrap_or(reference);
            if let Some(node) = self.document.pointer(pointer) {
                self.at(node).collect_branches(steps - 1, found);
            }
            return;
        }
        let several = ["anyOf", "oneOf", "allOf"].into_iter().find_map(|key| self.node.get(key));
        match several.and_then(Value::as_array) {
            Some(several) => {
                several.iter().for_each(|node| self.at(node).collect_branches(steps - 1, found));
            }
            None => found.push(self),
        }
    }

    fn kinds(self) -> Vec<&'a str> {
        let mut kinds: Vec<&str> = match self.node.get("type") {
            Some(Value::String(kind)) => vec![kind],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ if self.node.get("properties").is_some() => vec!["object"],
            _ => self.choices().iter().map(|value| kind(value)).collect(),
        };
        if kinds.contains(&"number") {
            kinds.push("integer");
        }
        kinds
    }

    fn choices(self) -> Vec<&'a Value> {
        match (self.node.get("const"), self.node.get("enum").and_then(Value::as_array)) {
            (Some(only), _) => vec![only],
            (None, Some(several)) => several.iter().collect(),
            (None, None) => Vec::new(),
        }
    }

    /// Describes the schema in a line.
    pub(crate) fn describe(self, depth: usize) -> String {
        if self.is_any() {
            return "any JSON value".into();
        }
        let mut said: Vec<String> = Vec::new();
        for branch in self.branches() {
            let text = branch.describe_branch(depth);
            if text != "null" && !said.contains(&text) {
                said.push(text);
            }
        }
        said.join(" or ")
    }

    fn describe_branch(self, depth: usize) -> String {
        let choices = self.choices();
        if !choices.is_empty() {
            return choices.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        }
        if self.node.get("items").is_none() && self.is_binary() {
            return "file".into();
        }
        match self.kinds().first() {
            Some(&"object") if depth >= MAX_DEPTH => "object".into(),
            Some(&"object") => self.describe_object(depth),
            Some(&"array") => match self.node.get("items") {
                Some(items) if depth < MAX_DEPTH => {
                    format!("list of {}", self.at(items).describe(depth + 1))
                }
                _ => "list".into(),
            },
            Some(kind) => (*kind).into(),
            None => "any JSON value".into(),
        }
    }

    fn describe_object(self, depth: usize) -> String {
        let properties = self.properties();
        if properties.is_empty() {
            return "object".into();
        }
        let described = properties.iter().map(|property| {
            let note = match property.schema.node.get("default") {
                Some(default) if !default.is_null() => format!(" (default {default})"),
                _ if property.is_required => String::new(),
                _ => " (optional)".into(),
            };
            format!("\"{}\": {}{note}", property.name, property.schema.describe(depth + 1))
        });
        format!("{{{}}}", Vec::from_iter(described).join(", "))
    }
}

/// Returns the name of a value's type in JSON Schema.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn references_and_alternatives_are_followed() {
        let typed = Operation::for_json(&json!({"$ref": "#/components/schemas/In"}));
        let schema = typed.json().unwrap();
        assert!(schema.takes("object") && !schema.takes("string") && !schema.is_any());
        let next = schema.property("next").unwrap();
        assert!(next.schema.takes("null") && next.schema.property("text").unwrap().is_required);
        let endless = Operation::for_json(&json!({"$ref": "#/components/schemas/Loop"}));
        assert!(!endless.json().unwrap().takes("string"));
    }

    #[test]
    fn a_schema_is_described_in_a_line() {
        let typed = Operation::for_json(&json!({"properties": {
            "text": {"type": "string"},
            "top": {"type": "integer", "default": 3},
            "tags": {"type": "array", "items": {"type": "string"}},
            "how": {"enum": ["a", "b"]},
        }, "required": ["text", "how"]}));
        let wanted = r#"{"text": string, "top": integer (default 3), "tags": list of string (optional), "how": "a" or "b"}"#;
        assert_eq!(typed.describe(), wanted);
        let form = json!({"multipart/form-data": {"schema": {
            "type": "object",
            "properties": {"request": {"type": "string", "format": "binary"}},
            "required": ["request"],
        }}});
        assert_eq!(Operation::for_content(&form).describe(), r#"a form with {"request": file}"#);
        assert_eq!(Operation::unknown().describe(), "any JSON value");
        let own = Operation::for_json(&json!({"$ref": "#/components/schemas/In"})).describe();
        assert!(own.len() < 400, "{own}");
        let messages = json!({"type": "array"});
        let chat = Operation::for_json(&json!({"properties": {"messages": messages}}));
        assert_eq!(chat.describe(), CHAT);
        let names = (0..100).map(|number| (format!("field{number}"), json!({"type": "string"})));
        let properties = Map::from_iter(names);
        let long = Operation::for_json(&json!({"properties": properties})).describe();
        assert!(long.ends_with('…') && long.chars().count() == MAX_DESCRIPTION + 1, "{long}");
    }
}
