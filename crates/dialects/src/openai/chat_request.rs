//! The check of a chat request, and the fields that the server reads.

use bytes::Bytes;
use litplex_http_core::raw_json::{Kind, each_field, text_of};

use super::error::Refused;
use super::shape::{Field, Mismatch, Shape, boolean, integer, optional, required};
use super::text::well_formed;

const MAX_CHOICES: u32 = 128;

/// The fields of a chat request that the server reads; the model gets the whole body.
#[derive(Debug)]
pub(super) struct ChatRequest {
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// The number of choices.
    pub(super) choices: u32,
    /// The largest number of tokens of a choice, if there is a limit.
    pub(super) max_tokens: Option<u64>,
}

impl ChatRequest {
    /// Checks a request. Fields that only the model understands are not checked.
    ///
    /// # Errors
    /// 400 if the body is not JSON; 422, with the place, if it is not such a request.
    pub(super) fn parse(body: &Bytes) -> Result<Self, Refused> {
        let body = well_formed(body)?;
        REQUEST.check(body)?;
        let mut fields = Fields::default();
        each_field(body, |name, value| {
            fields.note(&name, value.get());
            Ok::<_, Mismatch>(())
        })
        .map_err(|error| Mismatch::new("", error.to_string()))??;
        if fields.has_no_messages {
            return Err(
                Mismatch::new("messages", "`messages` is empty; send at least 1 message").into()
            );
        }
        let choices = fields.choices.unwrap_or(1);
        let choices = u32::try_from(choices).ok().filter(|n| (1..=MAX_CHOICES).contains(n));
        let choices = choices.ok_or_else(|| {
            let got = fields.choices.unwrap_or_default();
            Mismatch::new("n", format!("expected an integer from 1 to {MAX_CHOICES}, got {got}"))
        })?;
        Ok(Self {
            model: fields.model,
            stream: fields.stream,
            include_usage: fields.include_usage,
            choices,
            max_tokens: fields.max_completion_tokens.or(fields.max_tokens),
        })
    }
}

/// The fields that matter here. Of fields with the same name, the last one counts.
#[derive(Debug, Default)]
struct Fields {
    model: String,
    stream: bool,
    include_usage: bool,
    has_no_messages: bool,
    choices: Option<i64>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
}

impl Fields {
    fn note(&mut self, name: &str, value: &str) {
        // A limit below 1 counts as none.
        let limit = |value| integer(value).and_then(|most| u64::try_from(most).ok());
        match name {
            "model" => self.model = text_of(value).unwrap_or_default().into_owned(),
            "stream" => self.stream = boolean(value).unwrap_or(false),
            "stream_options" => self.include_usage = includes_usage(value),
            "messages" => self.has_no_messages = value[1..].trim_start().starts_with(']'),
            "n" => self.choices = integer(value),
            "max_tokens" => self.max_tokens = limit(value),
            "max_completion_tokens" => self.max_completion_tokens = limit(value),
            _ => {}
        }
    }
}

fn includes_usage(options: &str) -> bool {
    let mut is_wanted = false;
    if Kind::of(options) == Kind::Object {
        let _ = each_field(options, |name, value| {
            if name == "include_usage" {
                is_wanted = boolean(value.get()).unwrap_or(false);
            }
            Ok::<_, Mismatch>(())
        });
    }
    is_wanted
}

/// A chat request of the API (<https://platform.openai.com/docs/api-reference/chat/create>), and what
/// Fields that LitServe accepts in addition.
pub(super) const REQUEST: Shape = Shape::Object(&[
    optional("model", Shape::Text),
    required("messages", Shape::List(&MESSAGE)),
    optional("n", Shape::Integer),
    optional("stream", Shape::Boolean),
    optional("stream_options", Shape::Object(&[optional("include_usage", Shape::Boolean)])),
    optional("max_tokens", Shape::Integer),
    optional("max_completion_tokens", Shape::Integer),
    optional("temperature", Shape::Number),
    optional("top_p", Shape::Number),
    optional("presence_penalty", Shape::Number),
    optional("frequency_penalty", Shape::Number),
    optional("stop", Shape::Either(&[Shape::Text, Shape::List(&Shape::Text)])),
    optional("user", Shape::Text),
    optional("tools", Shape::List(&TOOL)),
    optional("tool_choice", Shape::Either(&[TOOL_MODE, NAMED_TOOL])),
    optional("response_format", RESPONSE_FORMAT),
    optional("reasoning_effort", EFFORT),
    optional("metadata", Shape::Map(&Shape::Text)),
]);

const EFFORT: Shape = Shape::Choice(&["none", "minimal", "low", "medium", "high", "xhigh", "max"]);

const MESSAGE: Shape = Shape::Object(&[
    required("role", Shape::Text),
    optional("content", Shape::Either(&[Shape::Text, Shape::List(&PART)])),
    optional("name", Shape::Text),
    optional("tool_calls", Shape::List(&TOOL_CALL)),
    optional("tool_call_id", Shape::Text),
    optional("function_call", Shape::Object(FUNCTION_CALL)),
    optional("refusal", Shape::Text),
]);

const PART: Shape = Shape::Tagged(&[
    ("text", &[required("text", Shape::Text)]),
    ("image_url", &[required("image_url", IMAGE)]),
    ("input_audio", &[required("input_audio", AUDIO)]),
    ("file", &[required("file", Shape::Object(&[]))]),
    ("refusal", &[required("refusal", Shape::Text)]),
    // Content in the form of servers for models that process video and audio.
    ("video_url", &[required("video_url", LINK)]),
    ("audio_url", &[required("audio_url", LINK)]),
]);

const LINK: Shape = Shape::Either(&[Shape::Text, Shape::Object(&[required("url", Shape::Text)])]);

const IMAGE: Shape = Shape::Either(&[
    Shape::Text,
    Shape::Object(&[
        required("url", Shape::Text),
        optional("detail", Shape::Choice(&["auto", "low", "high", "original"])),
    ]),
]);

const AUDIO: Shape = Shape::Object(&[
    required("data", Shape::Text),
    required("format", Shape::Choice(&["wav", "mp3"])),
]);

const TOOL_CALL: Shape = Shape::TaggedOrFirst(&[
    (
        "function",
        &[
            optional("id", Shape::Text),
            optional("index", Shape::Integer),
            required("function", Shape::Object(FUNCTION_CALL)),
        ],
    ),
    (
        "custom",
        &[
            optional("id", Shape::Text),
            optional("index", Shape::Integer),
            required("custom", Shape::Object(&[])),
        ],
    ),
]);

const FUNCTION_CALL: &[Field] =
    &[required("name", Shape::Text), required("arguments", Shape::Text)];

const TOOL: Shape = Shape::Tagged(&[
    ("function", &[required("function", Shape::Object(FUNCTION))]),
    ("custom", &[required("custom", Shape::Object(&[required("name", Shape::Text)]))]),
]);

const FUNCTION: &[Field] = &[
    required("name", Shape::Text),
    optional("description", Shape::Text),
    optional("parameters", Shape::Object(&[])),
];

const TOOL_MODE: Shape = Shape::Choice(&["auto", "none", "required", "any"]);

const NAMED_TOOL: Shape = Shape::Tagged(&[
    ("function", &[required("function", Shape::Object(&[required("name", Shape::Text)]))]),
    ("custom", &[required("custom", Shape::Object(&[required("name", Shape::Text)]))]),
    ("allowed_tools", &[required("allowed_tools", Shape::Object(&[]))]),
]);

const RESPONSE_FORMAT: Shape = Shape::Tagged(&[
    ("text", &[]),
    ("json_object", &[]),
    ("json_schema", &[required("json_schema", JSON_SCHEMA)]),
]);

const JSON_SCHEMA: Shape = Shape::Object(&[
    required("name", Shape::Text),
    optional("description", Shape::Text),
    optional("schema", Shape::Object(&[])),
    // A boolean, which some programs write as a text.
    optional("strict", Shape::Any),
]);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(mut extra: Value) -> Result<ChatRequest, Refused> {
        if extra.get("messages").is_none() {
            extra["messages"] = json!([{"role": "user", "content": "Hi"}]);
        }
        ChatRequest::parse(&extra.to_string().into())
    }

    #[test]
    fn requests_of_known_clients_are_accepted() {
        let parts = json!([
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": "data:image/png;base64,AA=="},
            {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            {"type": "file", "file": {"file_id": "file-1"}},
        ]);
        for request in [
            json!({}),
            json!({"messages": [{"role": "developer", "content": parts}]}),
            json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "4"}]}),
            json!({"messages": [{"role": "assistant", "content": null, "tool_calls": null,
                "function_call": {"name": "f", "arguments": "{}"}}]}),
            json!({"tools": [{"type": "function", "function": {"name": "f"}}],
                "tool_choice": "required"}),
            json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
            json!({"response_format": {"type": "json_object"}}),
            json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "a", "schema": {}, "strict": true}}}),
            json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "a", "strict": "true"}}}),
            json!({"stop": ["a", "b"], "seed": 7, "logprobs": true, "metadata": {"a": "b"}}),
            json!({"reasoning_effort": "max", "temperature": 1, "max_tokens": -1}),
            json!({"model": null, "n": null, "stream": null, "stream_options": null,
                "max_tokens": null, "temperature": null, "stop": null, "user": null,
                "tools": null, "tool_choice": null, "response_format": null,
                "reasoning_effort": null, "metadata": null}),
        ] {
            parsed(request.clone()).unwrap_or_else(|error| panic!("{request}: {error:?}"));
        }
    }

    #[test]
    fn an_error_names_its_place() {
        for (request, param, says) in [
            (json!({"messages": []}), "messages", "`messages` is empty"),
            (json!({"messages": [{"content": "a"}]}), "messages[0].role", "it is missing"),
            (json!({"n": 0}), "n", "expected an integer from 1 to 128, got 0"),
            (json!({"n": 1.5}), "n", "expected an integer, got a number"),
            (json!({"temperature": "hot"}), "temperature", "expected a number, got a string"),
            (json!({"reasoning_effort": "random"}), "reasoning_effort", "expected one of `none`"),
            (json!({"tool_choice": "all"}), "tool_choice", "expected one of `auto`, `none`"),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "text", "text": ""},
                    {"type": "thinking"}]}]}),
                "messages[0].content[1]",
                "unknown type `thinking`; expected one of `text`, `image_url`",
            ),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "input_audio",
                    "input_audio": {"format": "ogg", "data": ""}}]}]}),
                "messages[0].content[0].input_audio.format",
                "expected one of `wav`, `mp3`, got `ogg`",
            ),
            (json!({"tools": [{"type": "code"}]}), "tools[0]", "unknown type `code`"),
        ] {
            let Refused { error, param: got, .. } = parsed(request.clone()).unwrap_err();
            assert_eq!((error.status(), got.as_deref()), (422, Some(param)), "{request}");
            let says = format!("{param}: {says}");
            assert!(error.detail.starts_with(&says), "{request}: {}", error.detail);
        }
        for malformed in [&b"{\"messages\": ["[..], b"{\"n\": NaN}", b"{} {}", b""] {
            let refused = ChatRequest::parse(&Bytes::copy_from_slice(malformed)).unwrap_err();
            assert_eq!(refused.error.status(), 400, "{refused:?}");
        }
    }

    #[test]
    fn the_fields_that_the_response_depends_on_are_kept() {
        let request = parsed(json!({"model": "m", "n": 2.0, "stream": true, "max_tokens": 5.0,
            "stream_options": {"include_usage": true}}));
        let ChatRequest { model, stream, include_usage, choices, max_tokens } = request.unwrap();
        assert_eq!((model.as_str(), stream, include_usage), ("m", true, true));
        assert_eq!((choices, max_tokens), (2, Some(5)));
        assert_eq!(parsed(json!({"max_tokens": -1})).unwrap().max_tokens, None);
    }
}
