use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::SCHEMAS;

/// What an endpoint takes and gives, as its program says it. What it does not say, its worker may.
#[derive(Debug, Clone, Default)]
pub struct Described(pub(super) Map<String, Value>);

impl Described {
    /// Says which types are read from requests and written into answers.
    pub fn types<Input: JsonSchema, Output: JsonSchema>(&mut self) {
        let mut takes = generator(settings().for_deserialize());
        let request = json!({"application/json": takes.subschema_for::<Input>()});
        self.set("request", request);
        self.set("schemas", takes.take_definitions(true).into());
        let mut gives = generator(settings().for_serialize());
        self.set("response", gives.subschema_for::<Output>().into());
        self.set("response_schemas", gives.take_definitions(true).into());
    }

    /// Shows a request, and the answer to it, or a chunk of that.
    pub fn example(&mut self, request: Value, answer: Value) {
        self.set("request_example", request);
        self.set("response_example", answer);
    }

    fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }
}

/// Returns the schema of what is like this value.
pub(super) fn of_example(example: &Value) -> Value {
    let inferred = generator(settings()).into_root_schema_for_value(example);
    let mut schema = inferred.expect("a value is JSON. This is a bug.").to_value();
    if let Some(schema) = schema.as_object_mut() {
        // It is shown beside the schema, and the title of a value says nothing.
        schema.retain(|keyword, _| !["examples", "title"].contains(&keyword.as_str()));
    }
    schema
}

/// `OpenAPI` 3.1 has JSON Schema as it is, but for the place of what is referred to.
fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| {
        settings.meta_schema = None;
        settings.definitions_path = SCHEMAS.into();
    })
}

fn generator(settings: SchemaSettings) -> SchemaGenerator {
    settings.into_generator()
}
