//! The description of the endpoints in `OpenAPI` 3.1 (<https://spec.openapis.org/oas/v3.1.0>).

mod endpoint;
mod media;
mod names;
mod responses;
mod schema;

use std::fmt::Write;

use serde_json::{Map, Value, json};

pub use endpoint::{DescribedEndpoint, DialectSchemas};
use media::media;
pub use responses::event;
pub use schema::EndpointSchema;

/// Returns the document that describes these endpoints, and the calls between them: a text with a line for
/// each.
pub fn document<'a>(
    endpoints: impl IntoIterator<Item = DescribedEndpoint<'a>>,
    calls: &str,
) -> Value {
    let (mut schemas, mut paths, mut schemes) = (Map::new(), Map::new(), Map::new());
    for endpoint in endpoints {
        schemes.extend(endpoint.schemes.iter().map(|&name| (name.to_owned(), scheme(name))));
        match paths.get_mut(endpoint.path) {
            // Endpoints that share a path have the same protocol.
            Some(shared) => add_security(&mut shared["post"], endpoint.schemes),
            None => {
                let operation = operation(&endpoint, &mut schemas);
                paths.insert(endpoint.path.to_owned(), json!({"post": operation}));
            }
        }
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {"title": "litplex", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
    });
    if !calls.is_empty() {
        let text = format!("Calls between endpoints:\n\n```text\n{calls}```");
        document["info"]["description"] = text.into();
    }
    if !schemas.is_empty() {
        document["components"]["schemas"] = schemas.into();
    }
    if !schemes.is_empty() {
        document["components"]["securitySchemes"] = schemes.into();
    }
    document
}

/// Returns a security scheme: a key in either header, or a token.
fn scheme(name: &str) -> Value {
    match name {
        "key" => json!({"type": "apiKey", "in": "header", "name": "X-API-Key"}),
        "token" => json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}),
        _ => json!({"type": "http", "scheme": "bearer"}),
    }
}

/// Returns the operation of an endpoint, and adds the schemas that it refers to.
fn operation(endpoint: &DescribedEndpoint<'_>, schemas: &mut Map<String, Value>) -> Value {
    let mut known = known(endpoint, schemas);
    let request = request(known.remove("request"), known.remove("request_example").as_ref());
    let response = (known.remove("response"), known.remove("response_example"));
    let mut operation = json!({
        "summary": known.remove("summary").unwrap_or_else(|| title(endpoint.path).into()),
        "operationId": operation_id(endpoint.path),
        "requestBody": {"required": true, "content": request},
        "responses": responses::responses(endpoint, response),
    });
    if let Some(description) = known.remove("description") {
        operation["description"] = description;
    }
    if !endpoint.schemes.is_empty() {
        operation["security"] = endpoint.schemes.iter().map(|name| json!({*name: []})).collect();
    }
    operation
}

/// Returns what the worker and the program declare of an endpoint, and adds the schemas that they
/// refer to.
fn known(endpoint: &DescribedEndpoint<'_>, schemas: &mut Map<String, Value>) -> Map<String, Value> {
    let declared = endpoint.declared.and_then(|declared| declared.as_object().cloned());
    let mut known = declared.unwrap_or_default();
    known.extend(endpoint.schema.map(|schema| schema.0.clone()).unwrap_or_default());
    if let Some(dialect) = &endpoint.dialect {
        let request = || json!({"application/json": dialect.request});
        known.entry("request").or_insert_with(request);
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

/// Adds the security schemes of another endpoint at the path of an operation. `{}` stands for none.
fn add_security(operation: &mut Value, schemes: &[&str]) {
    let mut security = operation.get("security").and_then(Value::as_array).cloned();
    let known = security.get_or_insert_with(|| vec![json!({})]);
    let others = schemes.iter().map(|name| json!({*name: []}));
    let others = if schemes.is_empty() { vec![json!({})] } else { others.collect() };
    for scheme in others {
        if !known.contains(&scheme) {
            known.push(scheme);
        }
    }
    operation["security"] = security.into();
}

/// Returns a title: `/v1/embed_text` is `V1 Embed Text`.
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
    fn a_shared_path_takes_the_keys_of_each_endpoint() {
        let mut operation = json!({"security": [{"key": []}]});
        add_security(&mut operation, &["key", "token"]);
        assert_eq!(operation["security"], json!([{"key": []}, {"token": []}]));
        add_security(&mut operation, &[]);
        assert_eq!(operation["security"], json!([{"key": []}, {"token": []}, {}]));
        let mut open = json!({});
        add_security(&mut open, &["key"]);
        assert_eq!(open["security"], json!([{}, {"key": []}]));
    }

    #[test]
    fn an_unknown_body_is_any_json() {
        assert_eq!(request(None, None), json!({"application/json": {"schema": {}}}));
        let form = json!({"multipart/form-data": {"type": "object"}});
        let expected = json!({"multipart/form-data": {"schema": {"type": "object"}}});
        assert_eq!(request(Some(form), None), expected);
    }
}
