//! The responses of the OpenAI API, as `OpenAPI` describes them.

use litplex_pages::event;
use serde_json::{Value, json};

/// Describes a chat completion.
pub(super) fn completion() -> Value {
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

/// Describes a list of embeddings.
pub(super) fn embeddings() -> Value {
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

/// Describes the `error` of the API.
pub(super) fn error() -> Value {
    json!({"type": "object", "properties": {
        "message": {"type": "string"},
        "type": {"type": "string"},
        "param": {"type": ["string", "null"]},
        "code": {"type": "null"},
    }})
}
