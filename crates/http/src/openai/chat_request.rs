use std::collections::HashMap;

use litplex_core::{Outcome, ServeError};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::parse;

const MAX_CHOICES: u32 = 128;

/// What the edge needs to know of a chat request; the model gets the body as it came.
#[derive(Debug)]
pub(super) struct ChatRequest {
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// How many answers are wanted.
    pub(super) choices: u32,
    /// The most tokens of an answer.
    pub(super) max_tokens: Option<u64>,
}

impl ChatRequest {
    /// Checks a request. What only the model understands is not looked at.
    ///
    /// # Errors
    /// 400 where it is not JSON; 422, with the place, where it is not such a request.
    pub(super) fn parse(body: &[u8]) -> Outcome<Self> {
        let body: Body = parse(body)?;
        let choices = body.n.unwrap_or(1);
        if body.messages.is_empty() {
            return Err(ServeError::new(422, "`messages`: there must be at least one"));
        }
        if !(1..=MAX_CHOICES).contains(&choices) {
            let detail = format!("`n`: it must be from 1 to {MAX_CHOICES}, not {choices}");
            return Err(ServeError::new(422, detail));
        }
        Ok(Self {
            model: body.model.unwrap_or_default(),
            stream: body.stream.unwrap_or(false),
            include_usage: body.stream_options.is_some_and(|o| o.include_usage.unwrap_or(false)),
            choices,
            max_tokens: body.max_completion_tokens.or(body.max_tokens),
        })
    }
}

// Most fields are there to be checked, and are read by the model alone.
#[derive(Deserialize)]
#[expect(dead_code)]
struct Body {
    model: Option<String>,
    messages: Vec<Message>,
    n: Option<u32>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    stop: Option<Stop>,
    user: Option<String>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<ToolChoice>,
    response_format: Option<ResponseFormat>,
    reasoning_effort: Option<ReasoningEffort>,
    metadata: Option<HashMap<String, String>>,
}

/// As OpenAI's API has them.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReasoningEffort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[expect(dead_code)]
struct Message {
    role: String,
    content: Option<Content>,
    name: Option<String>,
    tool_calls: Option<Vec<ToolCall>>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "it must be a text or a list of parts: `text`, `image_url` with a \
                               `url`, or `input_audio` with `data` and a `format`"
)]
#[expect(dead_code)]
enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code)]
enum ContentPart {
    Text { text: String },
    ImageUrl { image_url: ImageUrl },
    InputAudio { input_audio: InputAudio },
}

#[derive(Deserialize)]
#[serde(untagged)]
#[expect(dead_code)]
enum ImageUrl {
    Url(String),
    Detailed { url: String, detail: Option<Detail> },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Detail {
    Auto,
    Low,
    High,
}

#[derive(Deserialize)]
#[expect(dead_code)]
struct InputAudio {
    data: String,
    /// The worker names those that there are.
    format: String,
}

#[derive(Deserialize)]
#[expect(dead_code)]
struct ToolCall {
    id: Option<String>,
    function: FunctionCall,
}

#[derive(Deserialize)]
#[expect(dead_code)]
struct FunctionCall {
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "it must be a text or a list of texts")]
#[expect(dead_code)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code)]
enum Tool {
    Function { function: Function },
}

#[derive(Deserialize)]
#[expect(dead_code)]
struct Function {
    name: String,
    description: Option<String>,
    parameters: Option<HashMap<String, IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "it must be auto, none, required, any, or a function with a `name`")]
#[expect(dead_code)]
enum ToolChoice {
    Mode(ToolMode),
    Named(NamedTool),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ToolMode {
    Auto,
    None,
    Required,
    Any,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code)]
enum NamedTool {
    Function { function: FunctionName },
}

#[derive(Deserialize)]
#[expect(dead_code)]
struct FunctionName {
    name: String,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code)]
enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema { json_schema: JsonSchema },
}

#[derive(Deserialize)]
#[expect(dead_code)]
struct JsonSchema {
    name: String,
    description: Option<String>,
    schema: Option<Value>,
    /// A boolean, which programs write as a text too.
    strict: Option<IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(mut extra: Value) -> Outcome<ChatRequest> {
        if extra.get("messages").is_none() {
            extra["messages"] = json!([{"role": "user", "content": "Hi"}]);
        }
        ChatRequest::parse(extra.to_string().as_bytes())
    }

    #[test]
    fn what_clients_send_is_taken() {
        let parts = json!([
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": "data:image/png;base64,AA=="},
            {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        ]);
        for request in [
            json!({}),
            json!({"messages": [{"role": "developer", "content": parts}]}),
            json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "4"}]}),
            json!({"tools": [{"type": "function", "function": {"name": "f"}}],
                "tool_choice": "required"}),
            json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
            json!({"response_format": {"type": "json_object"}}),
            json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "a", "schema": {}, "strict": true}}}),
            json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "a", "strict": "true"}}}),
            json!({"stop": ["a", "b"], "seed": 7, "logprobs": true, "metadata": {"a": "b"}}),
        ] {
            parsed(request.clone()).unwrap_or_else(|error| panic!("{request}: {error}"));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (request, status, says) in [
            (json!({"messages": []}), 422, "`messages`: there must be at least one"),
            (json!({"messages": [{"content": "a"}]}), 422, "`messages[0]`: missing field `role`"),
            (json!({"n": 0}), 422, "`n`: it must be from 1 to 128"),
            (json!({"temperature": "hot"}), 422, "`temperature`: invalid type"),
            (json!({"reasoning_effort": "random"}), 422, "`reasoning_effort`: unknown variant"),
            (json!({"tool_choice": "all"}), 422, "`tool_choice`: it must be auto, none"),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "input_audio",
                    "input_audio": {"format": "wav"}}]}]}),
                422,
                "`messages[0].content`: it must be a text or a list of parts",
            ),
            (json!({"tools": [{"type": "code"}]}), 422, "`tools[0]"),
        ] {
            let error = parsed(request.clone()).unwrap_err();
            assert_eq!(error.status, status, "{request}");
            assert!(error.detail.starts_with(says), "{request}: {}", error.detail);
        }
        assert_eq!(ChatRequest::parse(b"{\"messages\": [").unwrap_err().status, 400);
    }

    #[test]
    fn what_the_answer_depends_on_is_kept() {
        let request = parsed(json!({"model": "m", "n": 2, "stream": true, "max_tokens": 5,
            "stream_options": {"include_usage": true}}));
        let ChatRequest { model, stream, include_usage, choices, max_tokens } = request.unwrap();
        assert_eq!((model.as_str(), stream, include_usage), ("m", true, true));
        assert_eq!((choices, max_tokens), (2, Some(5)));
    }
}
