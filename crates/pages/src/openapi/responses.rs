//! The responses of an endpoint: those of its dialect, and errors.

use serde_json::{Map, Value, json};

use super::endpoint::{DescribedEndpoint, DialectSchemas};
use super::media::media;

/// The errors that every endpoint may return.
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

/// Returns the responses of an endpoint, given the schema and the example of its own where known.
pub(super) fn responses(
    endpoint: &DescribedEndpoint<'_>,
    (schema, example): (Option<Value>, Option<Value>),
) -> Value {
    let dialect = endpoint.dialect.as_ref();
    let success = match dialect {
        None => plain(endpoint, &media(schema, example.as_ref())),
        Some(dialect) => dialect.response.clone(),
    };
    let admission = [
        (UNAUTHORIZED, !endpoint.schemes.is_empty()),
        (FORBIDDEN, endpoint.schemes.contains(&"token")),
        (TOO_MANY, endpoint.has_limits),
    ];
    let admission =
        admission.into_iter().filter_map(|(error, is_possible)| is_possible.then_some(error));
    let errors = ERRORS.into_iter().chain(admission);
    let errors = errors.map(|(status, text)| (status.to_owned(), error(dialect, status, text)));
    let mut responses: Map<String, Value> = errors.collect();
    responses.insert("200".into(), success);
    responses.into()
}

fn plain(endpoint: &DescribedEndpoint<'_>, answer: &Value) -> Value {
    if !endpoint.is_stream {
        return json!({"description": "The answer", "content": {"application/json": answer}});
    }
    let mut content = json!({"application/x-ndjson": answer, "text/event-stream": event()});
    if endpoint.streams_bytes {
        content["text/plain"] = json!({"schema": {"type": "string"}});
        content["application/octet-stream"] = json!({"schema": {}});
    }
    let description = "A stream: values as lines of JSON, text and bytes as they are, and all as \
                       server-sent events for clients that accept `text/event-stream`. An error \
                       after the first value is `{\"error\": {\"status\": …, \"detail\": …}}`, as \
                       the last line or as an event `error`";
    json!({"description": description, "content": content})
}

/// Returns the description of one server-sent event of a stream.
pub fn event() -> Value {
    let text = json!({"type": "string"});
    json!({"schema": {
        "description": "One event",
        "type": "object",
        "properties": {"event": text, "data": text},
        "required": ["data"],
    }})
}

fn error(dialect: Option<&DialectSchemas>, status: &str, description: &str) -> Value {
    let mut schema = json!({
        "type": "object",
        "properties": {"detail": if status == "422" { mismatch() } else { json!({}) }},
        "required": ["detail"],
    });
    if let Some(dialect) = dialect {
        schema["properties"]["error"] = dialect.error.clone();
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

/// Returns the schema of `detail` for a body that does not match: the list of mismatches, in the form
/// of `FastAPI`, or the text or object of a hook.
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
