//! The description of the endpoints, as `OpenAPI` 3.1 (<https://spec.openapis.org/oas/v3.1.0>).

use std::fmt::Write;

use litmux_core::Protocol;
use serde_json::{Map, Value, json};

use crate::app::{EndpointReport, Report};

/// Describes the endpoints. `schemes` tells what lets callers in to each of them.
pub(crate) fn document(
    report: &Report,
    schemes: impl Fn(&str) -> &'static [&'static str],
) -> Value {
    let (mut schemas, mut asked_for) = (Map::new(), Map::new());
    let mut paths = Map::new();
    for endpoint in &report.endpoints {
        let mut operation = operation(endpoint, &mut schemas);
        let schemes = schemes(&endpoint.path);
        if !schemes.is_empty() {
            asked_for.extend(schemes.iter().map(|&name| (name.to_owned(), scheme(name))));
            guard(&mut operation, schemes);
        }
        paths.insert(endpoint.path.clone(), json!({"post": operation}));
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {"title": "litmux", "version": env!("CARGO_PKG_VERSION")},
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

/// Says that an operation asks for a key or a token, in any of these ways.
fn guard(operation: &mut Value, schemes: &[&str]) {
    operation["security"] = schemes.iter().map(|name| json!({*name: []})).collect();
    operation["responses"]["401"] = error("The key or token is missing or wrong");
    if schemes.contains(&"token") {
        operation["responses"]["403"] = error("The token lacks a scope");
    }
}

fn error(description: &str) -> Value {
    let detail = json!({"type": "object", "properties": {"detail": {}}});
    json!({"description": description, "content": {"application/json": {"schema": detail}}})
}

/// Describes an endpoint; what its worker knows is there once one was ready.
fn operation(endpoint: &EndpointReport, schemas: &mut Map<String, Value>) -> Value {
    let traits = endpoint.traits.as_ref();
    let known = traits.and_then(|traits| serde_json::from_str(&traits.schema).ok());
    let mut known: Map<String, Value> = known.unwrap_or_default();
    if let Some(Value::Object(used)) = known.remove("schemas") {
        schemas.extend(used);
    }
    let mut operation = json!({
        "summary": known.remove("summary").unwrap_or_else(|| title(&endpoint.path).into()),
        "operationId": operation_id(&endpoint.path),
        "requestBody": {"required": true, "content": request(known.remove("request"))},
        "responses": responses(endpoint, known.remove("response")),
    });
    if let Some(description) = known.remove("description") {
        operation["description"] = description;
    }
    operation
}

fn request(known: Option<Value>) -> Value {
    let known = known.and_then(|known| known.as_object().cloned()).unwrap_or_default();
    if known.is_empty() {
        return json!({"application/json": {"schema": {}}});
    }
    known.into_iter().map(|(media_type, schema)| (media_type, json!({"schema": schema}))).collect()
}

fn responses(endpoint: &EndpointReport, known: Option<Value>) -> Value {
    let traits = endpoint.traits.as_ref();
    let streams = traits.is_some_and(|t| t.stream && t.protocol == Protocol::Plain);
    let media_type = if streams { "application/x-ndjson" } else { "application/json" };
    let schema = known.unwrap_or_else(|| json!({}));
    json!({
        "200": {"description": "The answer", "content": {media_type: {"schema": schema}}},
        "422": error("The request is not what the endpoint takes"),
        "429": error("The caller asks for more than it may; `Retry-After` says when it may again"),
        "503": error("The endpoint cannot take the request now; `Retry-After` says when"),
        "504": error("The request could not be answered in its time"),
    })
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
        assert_eq!(request(None), json!({"application/json": {"schema": {}}}));
        let form = json!({"multipart/form-data": {"type": "object"}});
        let expected = json!({"multipart/form-data": {"schema": {"type": "object"}}});
        assert_eq!(request(Some(form)), expected);
    }
}
