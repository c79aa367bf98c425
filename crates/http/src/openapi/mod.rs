//! The description of the endpoints, as `OpenAPI` 3.1 (<https://spec.openapis.org/oas/v3.1.0>).

mod described;
mod names;
mod responses;

use std::fmt::Write;

use litplex_calls::EndpointReport;
use serde_json::{Map, Value, json};

pub use described::Described;
pub(crate) use responses::event;

use crate::app::{App, Route};
use crate::dialect::{self, Dialect};
use litplex_access::Guard;

/// Where the names of schemas are.
const SCHEMAS: &str = "/components/schemas";

/// Describes all endpoints of a server.
pub(crate) fn document(app: &App) -> Value {
    let (mut schemas, mut paths, mut asked_for) = (Map::new(), Map::new(), Map::new());
    for endpoint in &app.report().endpoints {
        let route = app.route_at(&endpoint.path);
        let guard = route.map(|route| &*route.guard);
        let schemes = guard.map_or(&[][..], Guard::schemes);
        asked_for.extend(schemes.iter().map(|&name| (name.to_owned(), scheme(name))));
        let operation = operation(endpoint, route, &mut schemas);
        paths.insert(endpoint.path.clone(), json!({"post": operation}));
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {"title": "litplex", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
    });
    if !schemas.is_empty() {
        document["components"]["schemas"] = schemas.into();
    }
    if !asked_for.is_empty() {
        document["components"]["securitySchemes"] = asked_for.into();
    }
    document
}

/// A key in either header, or a token.
fn scheme(name: &str) -> Value {
    match name {
        "key" => json!({"type": "apiKey", "in": "header", "name": "X-API-Key"}),
        "token" => json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}),
        _ => json!({"type": "http", "scheme": "bearer"}),
    }
}

/// Describes an endpoint; what its worker knows is there once one was ready.
fn operation(
    endpoint: &EndpointReport,
    route: Option<&Route>,
    schemas: &mut Map<String, Value>,
) -> Value {
    let guard = route.map(|route| &*route.guard);
    let mut known = known(endpoint, route.map(|route| &route.described), schemas);
    let request = request(known.remove("request"), known.remove("request_example").as_ref());
    let answer = (known.remove("response"), known.remove("response_example"));
    let mut operation = json!({
        "summary": known.remove("summary").unwrap_or_else(|| title(&endpoint.path).into()),
        "operationId": operation_id(&endpoint.path),
        "requestBody": {"required": true, "content": request},
        "responses": responses::responses(endpoint, guard, answer),
    });
    if let Some(description) = known.remove("description") {
        operation["description"] = description;
    }
    let schemes = guard.map_or(&[][..], Guard::schemes);
    if !schemes.is_empty() {
        operation["security"] = schemes.iter().map(|name| json!({*name: []})).collect();
    }
    operation
}

/// Returns what the program or the worker says of an endpoint, and adds the schemas that it names.
fn known(
    endpoint: &EndpointReport,
    described: Option<&Described>,
    schemas: &mut Map<String, Value>,
) -> Map<String, Value> {
    let info = endpoint.info.as_ref();
    let of_worker = info.and_then(|info| info.schema.as_object().cloned());
    let mut known = of_worker.unwrap_or_default();
    known.extend(described.map(|described| described.0.clone()).unwrap_or_default());
    let dialect = info.and_then(dialect::for_model);
    if let Some(schema) = dialect.map(Dialect::request_schema) {
        known.entry("request").or_insert_with(|| json!({"application/json": schema}));
    }
    for (part, used) in [("request", "schemas"), ("response", "response_schemas")] {
        let Some(Value::Object(used)) = known.remove(used) else { continue };
        if let Some(part) = known.get_mut(part) {
            names::add(schemas, used, part);
        }
    }
    known
}

fn request(known: Option<Value>, example: Option<&Value>) -> Value {
    let known = known.and_then(|known| known.as_object().cloned()).unwrap_or_default();
    if known.is_empty() {
        return json!({"application/json": media(None, example)});
    }
    let media = |(media_type, schema)| (media_type, media(Some(schema), example));
    known.into_iter().map(media).collect()
}

/// Describes what a body is: without a schema, by an example; without that, as anything.
fn media(schema: Option<Value>, example: Option<&Value>) -> Value {
    let schema = schema.or_else(|| example.map(described::of_example));
    let mut media = json!({"schema": schema.unwrap_or_else(|| json!({}))});
    if let Some(example) = example {
        media["example"] = example.clone();
    }
    media
}

/// `/v1/embed_text` is `V1 Embed Text`.
fn title(path: &str) -> String {
    let words = path.split(['/', '_', '-']).filter(|word| !word.is_empty());
    let mut title = String::new();
    for word in words {
        let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        let space = if title.is_empty() { "" } else { " " };
        let _ = write!(title, "{space}{}{rest}", first.to_uppercase());
    }
    title
}

fn operation_id(path: &str) -> String {
    let id: String =
        path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("post{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_operation() {
        assert_eq!(title("/v1/embed_text"), "V1 Embed Text");
        assert_eq!(operation_id("/v1/embed_text"), "post_v1_embed_text");
    }

    #[test]
    fn what_is_not_known_is_any_json() {
        assert_eq!(request(None, None), json!({"application/json": {"schema": {}}}));
        let form = json!({"multipart/form-data": {"type": "object"}});
        let expected = json!({"multipart/form-data": {"schema": {"type": "object"}}});
        assert_eq!(request(Some(form), None), expected);
    }

    #[test]
    fn an_example_tells_what_a_body_is() {
        let example = json!({"x": 1, "words": ["a"]});
        let properties = json!({
            "x": {"type": "integer"},
            "words": {"type": "array", "items": {"type": "string"}},
        });
        let expected = json!({
            "schema": {"type": "object", "properties": properties},
            "example": example,
        });
        assert_eq!(media(None, Some(&example)), expected);
        let known = json!({"type": "object"});
        assert_eq!(media(Some(known.clone()), Some(&example))["schema"], known);
    }
}
