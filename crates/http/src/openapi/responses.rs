use litplex_calls::EndpointReport;
use litplex_core::Protocol;
use serde_json::{Map, Value, json};

use super::media;
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
    let protocol = endpoint.info.as_ref().map_or(Protocol::Plain, |info| info.protocol);
    let answer = match protocol {
        Protocol::Plain => plain(endpoint, &media(schema, example.as_ref())),
        Protocol::OpenAiChat => chat(),
        Protocol::OpenAiEmbeddings => embeddings(),
    };
    let schemes = guard.map_or(&[][..], Guard::schemes);
    let of_guard = [
        (UNAUTHORIZED, !schemes.is_empty()),
        (FORBIDDEN, schemes.contains(&"token")),
        (TOO_MANY, guard.is_some_and(Guard::has_limits)),
    ];
    let of_guard = of_guard.into_iter().filter_map(|(error, may_be)| may_be.then_some(error));
    let errors = ERRORS.into_iter().chain(of_guard);
    let errors = errors.map(|(status, text)| (status.to_owned(), error(protocol, status, text)));
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
fn event() -> Value {
    let text = json!({"type": "string"});
    json!({"schema": {
        "description": "One event",
        "type": "object",
        "properties": {"event": text, "data": text},
        "required": ["data"],
    }})
}

fn chat() -> Value {
    let text = json!({"type": "string"});
    let count = json!({"type": "integer"});
    let message = json!({"type": "object", "properties": {
        "role": text,
        "content": {"type": ["string", "array", "null"]},
        "tool_calls": {"type": ["array", "null"]},
    }});
    let choice = json!({"type": "object", "properties": {
        "index": count, "message": message, "finish_reason": {"type": ["string", "null"]},
    }});
    let completion = json!({
        "type": "object",
        "properties": {
            "id": text, "object": {"const": "chat.completion"}, "created": count, "model": text,
            "choices": {"type": "array", "items": choice}, "usage": {"type": ["object", "null"]},
        },
        "required": ["id", "object", "created", "model", "choices"],
    });
    let description = "The completion; with `stream`, its chunks as server-sent events, the last \
                       of which is `[DONE]`";
    json!({"description": description, "content": {
        "application/json": {"schema": completion}, "text/event-stream": event(),
    }})
}

fn embeddings() -> Value {
    let embedding = json!({"type": "object", "properties": {
        "object": {"const": "embedding"},
        "index": {"type": "integer"},
        "embedding": {
            "description": "The vector, or its float32s in base64",
            "type": ["array", "string"],
            "items": {"type": "number"},
        },
    }});
    let list = json!({
        "type": "object",
        "properties": {
            "object": {"const": "list"}, "model": {"type": "string"}, "usage": {"type": "object"},
            "data": {"type": "array", "items": embedding},
        },
        "required": ["object", "model", "data"],
    });
    json!({"description": "The embeddings", "content": {"application/json": {"schema": list}}})
}

fn error(protocol: Protocol, status: &str, description: &str) -> Value {
    let mut schema = json!({
        "type": "object",
        "properties": {"detail": if status == "422" { mismatch() } else { json!({}) }},
        "required": ["detail"],
    });
    if protocol != Protocol::Plain {
        schema["properties"]["error"] = json!({"type": "object", "properties": {
            "message": {"type": "string"},
            "type": {"type": "string"},
            "param": {"type": ["string", "null"]},
            "code": {"type": "null"},
        }});
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
