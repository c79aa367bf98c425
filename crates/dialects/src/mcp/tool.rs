//! Tools: what workers send about them, and the conversion between arguments and bodies.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use litplex_core::{Identity, ModelInfo};
use litplex_http_core::raw_json::Object;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::schema;
use crate::registry;

/// A tool, as a worker describes its model.
#[derive(Debug, Deserialize)]
pub struct Tool {
    name: Option<String>,
    pub(super) description: String,
    pub(super) input_schema: Map<String, Value>,
    /// The argument that is the body; `None`: all arguments are.
    argument: Option<String>,
}

/// The tool that an endpoint's model is, with the description that it was parsed from. It is parsed
/// once.
#[derive(Debug, Clone, Default)]
pub struct ToolCache(OnceLock<(Arc<Value>, Arc<Tool>)>);

impl ToolCache {
    /// Returns the tool that a model is, if it is one.
    pub(crate) fn get(&self, info: &ModelInfo) -> Option<Arc<Tool>> {
        let given = info.tool.as_ref()?;
        if let Some((known, tool)) = self.0.get()
            && Arc::ptr_eq(known, given)
        {
            return Some(tool.clone());
        }
        let tool = Arc::new(Tool::read(given, info)?);
        // A target that replaced another may be another tool, which is parsed for each call.
        let _ = self.0.set((given.clone(), tool.clone()));
        Some(tool)
    }
}

impl Tool {
    fn read(given: &Value, info: &ModelInfo) -> Option<Self> {
        let mut tool = Self::deserialize(given).ok()?;
        if let (Some(argument), Some(dialect)) = (&tool.argument, registry::for_model(info)) {
            let properties = json!({argument: dialect.request_schema()});
            tool.input_schema.insert("properties".into(), properties);
        }
        tool.input_schema = schema::inlined(tool.input_schema);
        Some(tool)
    }

    /// Returns its name: its own, or else that of its endpoint, if no other endpoint has it, or the path.
    pub(super) fn name(&self, identity: &Identity) -> String {
        let Identity { path, name, has_unique_name, .. } = identity;
        let endpoint_name = if *has_unique_name { name } else { path.trim_start_matches('/') };
        let name = self.name.as_deref().unwrap_or(endpoint_name);
        name.replace('/', "_")
    }

    /// Returns the body of a request with these arguments.
    ///
    /// # Errors
    /// The problem, in words that a model can act on.
    pub(super) fn body(&self, arguments: Option<&Bytes>) -> Result<Bytes, String> {
        let given = arguments.and_then(|given| std::str::from_utf8(given).ok()).unwrap_or("{}");
        let given = schema::mended(given, &Value::Object(self.input_schema.clone()));
        let arguments = Object::parse(&given).map_err(|error| error.to_string())?;
        let required = self.input_schema.get("required").and_then(Value::as_array);
        let mut required = required.into_iter().flatten().filter_map(Value::as_str);
        if let Some(name) = required.find(|name| arguments.get(name).is_none()) {
            return Err(format!("missing argument `{name}`; {}", self.expected()));
        }
        let Some(argument) = &self.argument else { return Ok(given.into_owned().into()) };
        let (mut body, mut unknown) = (None, None);
        for (name, value) in arguments.into_fields() {
            if name == *argument { body = Some(value) } else { unknown = Some(name) }
        }
        if let Some(name) = unknown {
            return Err(format!("unknown argument `{name}`; {}", self.expected()));
        }
        let body = body.map_or_else(|| "null".into(), Box::<str>::from);
        Ok(body.into_string().into())
    }

    fn expected(&self) -> String {
        let names = self.input_schema.get("properties").and_then(Value::as_object);
        let names = names.into_iter().flat_map(Map::keys).map(|name| format!("`{name}`"));
        format!("expected {}", names.collect::<Vec<_>>().join(", "))
    }

    /// Returns the error of an endpoint with the names of the arguments.
    pub(super) fn words(&self, body: &str) -> String {
        let parsed: Option<Value> = serde_json::from_str(body).ok();
        match parsed.as_ref().and_then(|parsed| parsed.get("detail")) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(details)) if !details.is_empty() => {
                let words: Option<Vec<_>> =
                    details.iter().map(|detail| self.word_of(detail)).collect();
                words.map_or_else(|| body.to_owned(), |words| words.join("\n"))
            }
            _ => body.to_owned(),
        }
    }

    /// Puts one mismatch into words, as pydantic lists it.
    fn word_of(&self, detail: &Value) -> Option<String> {
        let message = detail.get("msg")?.as_str()?;
        let kind = detail.get("type")?.as_str()?;
        let mut place = self.argument.clone().unwrap_or_default();
        for step in detail.get("loc")?.as_array()?.iter().skip(1) {
            match step {
                Value::String(name) if place.is_empty() => place.clone_from(name),
                Value::String(name) => place.extend([".", name]),
                number => place.push_str(&format!("[{number}]")),
            }
        }
        Some(format!("invalid argument `{place}`: {message} ({kind})"))
    }
}
