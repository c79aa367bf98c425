//! The schemas and examples that a program declares for an endpoint.

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::names::SCHEMAS;

/// The schemas and examples of an endpoint that its program declares. The worker may declare others.
#[derive(Debug, Clone, Default)]
pub struct EndpointSchema(pub(super) Map<String, Value>);

impl EndpointSchema {
    /// Sets the types of requests and responses.
    pub fn types<Input: JsonSchema, Output: JsonSchema>(&mut self) {
        let mut takes = generator(settings().for_deserialize());
        let request = json!({"application/json": takes.subschema_for::<Input>()});
        self.set("request", request);
        self.set("schemas", takes.take_definitions(true).into());
        let mut gives = generator(settings().for_serialize());
        self.set("response", gives.subschema_for::<Output>().into());
        self.set("response_schemas", gives.take_definitions(true).into());
    }

    /// Sets an example of a request, and of its response or a chunk of it.
    pub fn example(&mut self, request: Value, response: Value) {
        self.set("request_example", request);
        self.set("response_example", response);
    }

    /// Returns what a model declares, with the parts that the program declares in place of its own.
    pub fn over(&self, declared: &Value) -> Value {
        let mut known = declared.as_object().cloned().unwrap_or_default();
        known.extend(self.0.clone());
        known.into()
    }

    fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }
}

/// Returns the schema of values like this one.
pub(super) fn infer(example: &Value) -> Value {
    let inferred = generator(settings()).into_root_schema_for_value(example);
    let mut schema = inferred.expect("a value is JSON. This is a bug.").to_value();
    if let Some(schema) = schema.as_object_mut() {
        // The example is shown beside the schema, and the title of a value has no information.
        schema.retain(|keyword, _| !["examples", "title"].contains(&keyword.as_str()));
    }
    schema
}

/// Returns the settings of `OpenAPI` 3.1: JSON Schema, with another place of definitions.
fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| {
        settings.meta_schema = None;
        settings.definitions_path = SCHEMAS.into();
    })
}

fn generator(settings: SchemaSettings) -> SchemaGenerator {
    settings.into_generator()
}
