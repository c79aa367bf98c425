//! A message of JSON-RPC (<https://www.jsonrpc.org/specification>), read as far as it matters before
//! rmcp reads it: what is wrong with it is said in that protocol's codes.

use bytes::Bytes;
use http::StatusCode;
use litplex_http_core::raw_json::{Kind, Object, raw, text_of};
use litplex_http_core::response::{self, HttpResponse};
use rmcp::model::{ErrorCode, InitializeRequestParams};
use serde_json::json;
use serde_json::value::RawValue;

/// The largest size of a message in addition to the arguments of a call, in bytes. rmcp builds values of
/// it, for which no memory is reserved.
pub(super) const ENVELOPE_BYTES: usize = 64 * 1024;

/// A message that rmcp can read.
#[derive(Debug)]
pub(super) struct Message {
    /// The message without the arguments of a tool call, which keep their spelling.
    pub(super) text: String,
    /// The arguments of a tool call, if it has any.
    pub(super) arguments: Option<Bytes>,
    /// The id of its response, if it has one.
    pub(super) id: Option<Box<RawValue>>,
}

/// The reason for which a message is refused.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    code: ErrorCode,
    reason: String,
    id: Option<Box<RawValue>>,
}

impl Message {
    pub(super) fn parse(body: &Bytes) -> Result<Self, Refused> {
        // It was decoded before.
        let text = std::str::from_utf8(body).unwrap_or_default();
        let whole: &RawValue = serde_json::from_str(text)
            .map_err(|error| Refused::malformed(format!("malformed JSON: {error}")))?;
        let object = Object::parse(whole.get());
        let mut message =
            object.map_err(|_| Refused::invalid("expected one JSON-RPC message, an object"))?;
        let id = message.get("id").map(ToOwned::to_owned);
        check_envelope(&message, id.as_deref())?;
        let method = message.get("method").and_then(|method| text_of(method.get()));
        if method.as_deref() != Some("tools/call") && whole.get().len() > ENVELOPE_BYTES {
            return Err(too_long());
        }
        let Some(method) = method else {
            return Ok(Self { text: whole.get().to_owned(), arguments: None, id });
        };
        let wrong = |reason: &str| Refused::params(reason, id.clone());
        let params = message.get("params").filter(|params| Kind::of(params.get()) != Kind::Null);
        let params = params.map(|params| Object::parse(params.get()));
        let params = params.transpose().map_err(|_| wrong("expected an object"))?;
        match &*method {
            "initialize" => {
                let params = params.map(|params| raw(&params));
                let params = params.as_ref().map_or("{}", |params| params.get());
                serde_json::from_str::<InitializeRequestParams>(params)
                    .map_err(|error| wrong(&error.to_string()))?;
            }
            "tools/call" => {
                let mut params = params.ok_or_else(|| wrong("`name` is missing"))?;
                let name = params.get("name").map(|name| Kind::of(name.get()));
                if name != Some(Kind::Text) {
                    return Err(wrong("`name` must be a string, the name of a tool"));
                }
                let arguments = params.take("arguments");
                let kind = arguments.as_ref().map(|arguments| Kind::of(arguments.get()));
                if kind.is_some_and(|kind| kind != Kind::Object) {
                    return Err(wrong("`arguments` must be an object"));
                }
                message.write("params", &params);
                let text = raw(&message).get().to_owned();
                if text.len() > ENVELOPE_BYTES {
                    return Err(too_long());
                }
                let arguments =
                    arguments.map(|arguments| Box::<str>::from(arguments).into_string());
                let arguments = arguments.map(Bytes::from);
                return Ok(Self { text, arguments, id });
            }
            "tools/list" => {
                let cursor = params.as_ref().and_then(|params| params.get("cursor"));
                let kind = cursor.map_or(Kind::Null, |cursor| Kind::of(cursor.get()));
                if !matches!(kind, Kind::Null | Kind::Text) {
                    return Err(wrong("`cursor` must be a string"));
                }
            }
            _ => {}
        }
        Ok(Self { text: whole.get().to_owned(), arguments: None, id })
    }
}

fn too_long() -> Refused {
    Refused::invalid(&format!("it has more than {ENVELOPE_BYTES} bytes besides `arguments`"))
}

fn check_envelope(message: &Object, id: Option<&RawValue>) -> Result<(), Refused> {
    let version = message.get("jsonrpc").and_then(|version| text_of(version.get()));
    if version.as_deref() != Some("2.0") {
        return Err(Refused::invalid("`jsonrpc` must be \"2.0\""));
    }
    let is_id = |id: &RawValue| match Kind::of(id.get()) {
        Kind::Text => true,
        Kind::Number => id.get().parse::<i64>().is_ok(),
        _ => false,
    };
    if !id.is_none_or(is_id) {
        return Err(Refused::invalid("`id` must be a string or an integer"));
    }
    match message.get("method").map(|method| Kind::of(method.get())) {
        Some(Kind::Text) => Ok(()),
        Some(_) => Err(Refused::invalid("`method` must be a string")),
        None if message.get("result").or(message.get("error")).is_some() => Ok(()),
        None => Err(Refused::invalid("`method` is missing")),
    }
}

impl Refused {
    /// The body is not JSON.
    pub(super) fn malformed(reason: String) -> Self {
        let (status, code) = (StatusCode::BAD_REQUEST, ErrorCode::PARSE_ERROR);
        Self { status, code, reason, id: None }
    }

    fn invalid(reason: &str) -> Self {
        let (status, code) = (StatusCode::BAD_REQUEST, ErrorCode::INVALID_REQUEST);
        Self { status, code, reason: format!("invalid request: {reason}"), id: None }
    }

    pub(super) fn params(reason: &str, id: Option<Box<RawValue>>) -> Self {
        let (status, code) = (StatusCode::OK, ErrorCode::INVALID_PARAMS);
        Self { status, code, reason: format!("invalid params: {reason}"), id }
    }

    pub(super) fn response(&self) -> HttpResponse {
        let mut message = Object::default();
        message.write("jsonrpc", &"2.0");
        message.set("id", self.id.clone().unwrap_or_else(|| raw(&())));
        message.write("error", &json!({"code": self.code.0, "message": self.reason}));
        response::json(self.status, &message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Message, Refused> {
        Message::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn arguments_are_kept_as_they_were_written() {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":
            {"name":"t","arguments":{"b":12345678901234567890123,"a":1.5777777777770001}}}"#;
        let message = parsed(call).unwrap();
        let exact = r#"{"b":12345678901234567890123,"a":1.5777777777770001}"#;
        assert_eq!(message.arguments.unwrap(), exact);
        assert!(!message.text.contains("arguments"));
        let null = call.replace(exact, "null");
        assert_eq!(parsed(&null).unwrap().arguments, None);
    }

    #[test]
    fn only_arguments_may_be_long() {
        let long = "a".repeat(ENVELOPE_BYTES);
        let call =
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","A":"B"}}"#;
        let with =
            |name: &str| call.replace("\"A\":\"B\"", &format!("\"{name}\":{{\"a\":\"{long}\"}}"));
        assert!(parsed(&with("arguments")).is_ok());
        for wrong in [
            with("_meta"),
            with("_meta").replace("tools/call", "tools/list"),
            call.replace("tools/call", "initialize").replace('A', &long),
            call.replace("\"id\":1", &format!("\"id\":\"{long}\"")),
            format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"a":"{long}"}}}}"#),
        ] {
            assert_eq!(parsed(&wrong).unwrap_err().code, ErrorCode::INVALID_REQUEST);
        }
    }

    #[test]
    fn each_error_has_its_code() {
        let call = |params: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":"i","method":"tools/call","params":{params}}}"#)
        };
        for (text, code) in [
            ("{".to_owned(), -32700),
            ("[]".to_owned(), -32600),
            ("7".to_owned(), -32600),
            (r#"{"id":1,"method":"ping"}"#.to_owned(), -32600),
            (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#.to_owned(), -32600),
            (r#"{"jsonrpc":"2.0","id":1}"#.to_owned(), -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":1}"#.to_owned(), -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#.to_owned(), -32602),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":1}}"#
                    .to_owned(),
                -32602,
            ),
            (call("[]"), -32602),
            (call("{}"), -32602),
            (call(r#"{"name":1}"#), -32602),
            (call(r#"{"name":"t","arguments":[1]}"#), -32602),
        ] {
            assert_eq!(parsed(&text).unwrap_err().code.0, code, "{text}");
        }
    }
}
