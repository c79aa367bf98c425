//! The parts of the OpenAI API that models can be served under
//! (<https://platform.openai.com/docs/api-reference>).

mod chat;
mod chat_request;
mod chat_stream;
mod embeddings;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use litplex_core::{Outcome, Protocol, Request, ServeError};
use litplex_scheduler::Endpoint;
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) use chat_stream::ChatStream;

use crate::answer::{self, HttpResponse};
use crate::app::{EndpointReport, Report};
use crate::caller::Call;

/// Answers a request to an endpoint that speaks one of these protocols.
pub(crate) async fn answer(protocol: Protocol, call: Call<'_>) -> Outcome<HttpResponse> {
    match protocol {
        Protocol::OpenAiChat => chat::answer(call).await,
        Protocol::OpenAiEmbeddings => embeddings::answer(call).await,
        Protocol::Plain => unreachable!("plain requests are answered elsewhere. This is a bug."),
    }
}

/// Turns an error into what clients of this API understand; `detail` is what litplex says
/// everywhere.
pub(crate) fn error(error: &ServeError) -> HttpResponse {
    let mut body = error_body(error);
    body["detail"] = detail(&error.detail);
    answer::failed(error, &body)
}

/// Returns the detail as the model gave it: one that is no text comes here as its JSON.
fn detail(text: &str) -> Value {
    let is_json = text.starts_with(['[', '{']);
    let value = is_json.then(|| serde_json::from_str(text).ok()).flatten();
    value.unwrap_or_else(|| text.into())
}

fn error_body(error: &ServeError) -> Value {
    let kind = match error.status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    json!({"error": {"message": error.detail, "type": kind, "param": null, "code": null}})
}

/// Where the models are listed; below it is each of them.
const MODELS: &str = "/v1/models";

/// Returns whether models are told of at this path, which was decoded.
pub(crate) fn is_models(path: &str) -> bool {
    path.strip_prefix(MODELS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns whether an endpoint speaks this API, as far as it is known yet.
pub(crate) fn is_spoken(endpoint: &Endpoint) -> bool {
    endpoint.traits().is_some_and(|traits| traits.protocol != Protocol::Plain)
}

/// Answers [`MODELS`] and what lies below it with the endpoints of a report that speak this API and
/// that the caller `may_call`. None: that is not here, because no endpoint speaks it.
pub(crate) fn models(
    path: &str,
    report: &Report,
    may_call: impl Fn(&EndpointReport) -> bool,
) -> Option<HttpResponse> {
    let rest = path.strip_prefix(MODELS)?;
    let mut named: Vec<&EndpointReport> = report.endpoints.iter().filter(|e| speaks(e)).collect();
    if named.is_empty() {
        return None;
    }
    named.retain(|endpoint| may_call(endpoint));
    if rest.is_empty() {
        let data: Vec<Value> = named.into_iter().map(model).collect();
        return Some(answer::json(StatusCode::OK, &json!({"object": "list", "data": data})));
    }
    let wanted = rest.strip_prefix('/').filter(|wanted| !wanted.is_empty())?;
    let found = named.into_iter().find(|endpoint| name(endpoint) == wanted);
    Some(match found {
        Some(found) => answer::json(StatusCode::OK, &model(found)),
        None => error(&ServeError::new(404, format!("there is no model `{wanted}`"))),
    })
}

fn speaks(endpoint: &EndpointReport) -> bool {
    endpoint.traits.as_ref().is_some_and(|traits| traits.protocol != Protocol::Plain)
}

fn name(endpoint: &EndpointReport) -> &str {
    endpoint.traits.as_ref().map_or("", |traits| &traits.model)
}

fn model(endpoint: &EndpointReport) -> Value {
    static SINCE: LazyLock<u64> = LazyLock::new(now);
    json!({
        "id": name(endpoint),
        "object": "model",
        "created": *SINCE,
        "owned_by": "litplex",
        "endpoint": endpoint.path,
    })
}

/// Reads a request; what is wrong with it is said with its place.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Outcome<T> {
    let reader = &mut serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let (place, inner) = (error.path().to_string(), error.inner());
        match inner.classify() {
            serde_json::error::Category::Data => {
                ServeError::new(422, format!("`{place}`: {inner}"))
            }
            _ => ServeError::new(400, format!("malformed JSON body: {inner}")),
        }
    })
}

/// Returns the body in one piece.
fn whole(request: &Request) -> Outcome<Bytes> {
    if let [one] = request.body.as_slice() {
        return Ok(one.clone());
    }
    request.reservation.grow(request.body_len())?;
    Ok(request.body.concat().into())
}

/// Tokens that a request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Usage {
    prompt: u64,
    completion: u64,
    total: u64,
}

impl Usage {
    /// Takes the counts out of an object that a model gave; nothing where it has none.
    fn take(object: &mut serde_json::Map<String, Value>) -> Option<Self> {
        let mut is_there = false;
        let mut count = |name| {
            let value = object.remove(name)?;
            is_there |= value.is_number();
            value.as_u64()
        };
        let prompt = count("prompt_tokens");
        let completion = count("completion_tokens");
        let total = count("total_tokens");
        let (prompt, completion) = (prompt.unwrap_or(0), completion.unwrap_or(0));
        is_there.then(|| Self { prompt, completion, total: total.unwrap_or(prompt + completion) })
    }

    fn add(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.completion += other.completion;
        self.total += other.total;
    }

    fn to_json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.total,
        })
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns an id that no other answer has.
fn unique_id(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let random = RandomState::new().build_hasher().finish();
    format!("{prefix}-{random:016x}{:08x}", COUNT.fetch_add(1, Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_what_the_model_gave() {
        assert_eq!(detail(r#"[{"msg": "wrong"}]"#), json!([{"msg": "wrong"}]));
        assert_eq!(detail("[sic] no JSON"), json!("[sic] no JSON"));
        assert_eq!(detail("7"), json!("7"));
    }

    #[test]
    fn usage_is_taken_out_of_what_a_model_gave() {
        let Value::Object(mut object) =
            json!({"content": "a", "prompt_tokens": 3, "completion_tokens": 4})
        else {
            unreachable!()
        };
        assert_eq!(Usage::take(&mut object), Some(Usage { prompt: 3, completion: 4, total: 7 }));
        assert_eq!(Value::Object(object.clone()), json!({"content": "a"}));
        assert_eq!(Usage::take(&mut object), None);
    }

    #[test]
    fn ids_differ() {
        assert_ne!(unique_id("chatcmpl"), unique_id("chatcmpl"));
    }
}
