//! The description of a body.

use serde_json::{Value, json};

use super::schema;

/// Returns the description of a body: its schema, or else that of its example, or else any JSON.
pub(super) fn media(schema: Option<Value>, example: Option<&Value>) -> Value {
    let schema = schema.or_else(|| example.map(schema::infer));
    let mut media = json!({"schema": schema.unwrap_or_else(|| json!({}))});
    if let Some(example) = example {
        media["example"] = example.clone();
    }
    media
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_without_a_schema_has_that_of_its_example() {
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
