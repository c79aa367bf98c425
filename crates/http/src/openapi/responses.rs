use litplex_calls::EndpointReport;
use serde_json::{Map, Value, json};

use super::media;
use crate::dialect::{self, Dialect};
use litplex_access::Guard;

/// What any endpoint may answer besides what its model does.
const ERRORS: [(&str, &str); 9] = [
    ("400", "The request is malformed"),
    ("408", "The body did not arrive in time"),
    ("413", "The body is larger than the endpoint takes"),
    ("415", "The body is of a media type that the endpoint does not take"),
    ("422", "The request is not what the endpoint takes"),
    ("500", "The model failed"),
    ("502", "The worker that computed the request died"),
    ("503", "The endpoint cannot take the request now"),
    ("504", "The request could not be answered in its time"),
];
const UNAUTHORIZED: (&str, &str) = ("401", "The key or token is missing or wrong");
const FORBIDDEN: (&str, &str) = ("403", "The token lacks a scope");
const TOO_MANY: (&str, &str) = ("429", "The caller asks for more than it may");

/// Describes the answers of an endpoint, of whose own the schema and an example may be known.
pub(super) fn responses(
    endpoint: &EndpointReport,
    guard: Option<&Guard>,
    (schema, example): (Option<Value>, Option<Value>),
) -> Value {
    let dialect = endpoint.info.as_ref().and_then(dialect::for_model);
    let answer = match dialect {
        None => plain(endpoint, &media(schema, example.as_ref())),
        Some(dialect) => dialect.describe_response(),
    };
    let schemes = guard.map_or(&[][..], Guard::schemes);
    let of_guard = [
        (UNAUTHORIZED, !schemes.is_empty()),
        (FORBIDDEN, schemes.contains(&"token")),
        (TOO_MANY, guard.is_some_and(Guard::has_limits)),
    ];
    let of_guard = of_guard.into_iter().filter_map(|(error, may_be)| may_be.then_some(error));
    let errors = ERRORS.into_iter().chain(of_guard);
    let errors = errors.map(|(status, text)| (status.to_owned(), error(dialect, status, text)));
    let mut responses: Map<String, Value> = errors.collect();
    responses.insert("200".into(), answer);
    responses.into()
}

fn plain(endpoint: &EndpointReport, answer: &Value) -> Value {
    if !endpoint.info.as_ref().is_some_and(|info| info.stream) {
        return json!({"description": "The answer", "content": {"application/json": answer}});
    }
    let mut content = json!({"application/x-ndjson": answer, "text/event-stream": event()});
    if endpoint.kind == "python" {
        content["text/plain"] = json!({"schema": {"type": "string"}});
        content["application/octet-stream"] = json!({"schema": {}});
    }
    let description = "A stream: values as lines of JSON, text and bytes as they are, and all as \
                       server-sent events for clients that accept `text/event-stream`. An error \
                       after the first value is `{\"error\": {\"status\": …, \"detail\": …}}`, as \
                       the last line or as an event `error`";
    json!({"description": description, "content": content})
}

/// Describes each event of a stream of them.
pub(crate) fn event() -> Value {
    let text = json!({"type": "string"});
    json!({"schema": {
        "description": "One event",
        "type": "object",
        "properties": {"event": text, "data": text},
        "required": ["data"],
    }})
}

fn error(dialect: Option<&dyn Dialect>, status: &str, description: &str) -> Value {
    let mut schema = json!({
        "type": "object",
        "properties": {"detail": if status == "422" { mismatch() } else { json!({}) }},
        "required": ["detail"],
    });
    if let Some(dialect) = dialect {
        schema["properties"]["error"] = dialect.error_schema();
    }
    let content = json!({"application/json": {"schema": schema}});
    let mut error = json!({"description": description, "content": content});
    if ["429", "503"].contains(&status) {
        error["headers"]["Retry-After"] = json!({
            "description": "Seconds after which it may be tried again",
            "schema": {"type": "integer"},
        });
    }
    error
}

/// What does not fit a type is listed, as `FastAPI` does; what a hook says is as it is.
fn mismatch() -> Value {
    let text = json!({"type": "string"});
    let each = json!({
        "type": "object",
        "properties": {
            "type": text, "msg": text, "input": {},
            "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
        },
        "required": ["type", "loc", "msg"],
    });
    json!({"anyOf": [{"type": "array", "items": each}, {"type": ["string", "object"]}]})
}
