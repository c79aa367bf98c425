//! The parts of the OpenAI API that models can be served under
//! (<https://platform.openai.com/docs/api-reference>).

mod chat;
mod chat_request;
mod chat_stream;
mod described;
mod embedding_request;
mod embeddings;
mod message;
mod shape;
mod tool_calls;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use litplex_calls::{EndpointReport, Report, off_thread};
use litplex_core::{BoxFuture, Content, Response, ServeError, json_text};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

pub(crate) use chat_stream::ChatStream;

use crate::answer::{self, HttpResponse};
use crate::app::Route;
use crate::dialect::{self, Dialect};
use crate::predict::Exchange;
use crate::raw_json::{Object, raw, text_of as text_of_json};
use crate::routes::MODELS;

/// Where the paths of the API are.
const PREFIX: &str = "/v1/";

/// Chat completions: each item of a response is an object with a message or a part of one.
#[derive(Debug)]
pub(crate) struct Chat;

/// Embeddings: the response is an object with `embeddings`.
#[derive(Debug)]
pub(crate) struct Embeddings;

impl Dialect for Chat {
    fn id(&self) -> &'static str {
        "openai_chat"
    }

    fn path(&self) -> &'static str {
        "/v1/chat/completions"
    }

    fn serve<'a>(&'a self, exchange: Exchange<'a>) -> BoxFuture<'a, HttpResponse> {
        Box::pin(async { respond(chat::answer(exchange).await) })
    }

    fn error(&self, found: &ServeError) -> HttpResponse {
        error(found)
    }

    fn request_schema(&self) -> Value {
        chat_request::REQUEST.schema()
    }

    fn describe_response(&self) -> Value {
        described::completion()
    }

    fn error_schema(&self) -> Value {
        described::error()
    }
}

impl Dialect for Embeddings {
    fn id(&self) -> &'static str {
        "openai_embeddings"
    }

    fn path(&self) -> &'static str {
        "/v1/embeddings"
    }

    fn serve<'a>(&'a self, exchange: Exchange<'a>) -> BoxFuture<'a, HttpResponse> {
        Box::pin(async { respond(embeddings::answer(exchange).await) })
    }

    fn error(&self, found: &ServeError) -> HttpResponse {
        error(found)
    }

    fn request_schema(&self) -> Value {
        embedding_request::REQUEST.schema()
    }

    fn describe_response(&self) -> Value {
        described::embeddings()
    }

    fn error_schema(&self) -> Value {
        described::error()
    }
}

fn respond(answered: Result<HttpResponse, Refused>) -> HttpResponse {
    answered.unwrap_or_else(|refused| refused.response())
}

/// Turns an error into what goes out for a path where no endpoint is: in the form of this API, where
/// its clients ask for such paths.
pub(crate) fn error_at(path: &str, found: &ServeError) -> HttpResponse {
    if path.starts_with(PREFIX) { error(found) } else { answer::error(found) }
}

/// Returns what clients of this API are to do that ask at a path without [`PREFIX`].
pub(crate) fn hint_at(path: &str) -> Option<&'static str> {
    let is_theirs = ["/chat/completions", "/embeddings", "/models"].contains(&path);
    is_theirs.then_some("the `base_url` of clients of OpenAI's API must end in `/v1`")
}

/// Why a request is not answered.
#[derive(Debug)]
struct Refused {
    error: ServeError,
    /// The field that is wrong.
    param: Option<String>,
    /// The headers of an error that the model raised.
    headers: Vec<(String, String)>,
}

impl From<ServeError> for Refused {
    fn from(error: ServeError) -> Self {
        Self { error, param: None, headers: Vec::new() }
    }
}

impl From<shape::Mismatch> for Refused {
    fn from(mismatch: shape::Mismatch) -> Self {
        let shape::Mismatch { place, reason } = mismatch;
        let between = if place.is_empty() { "" } else { ": " };
        let error = ServeError::invalid_input(format!("{place}{between}{reason}"));
        let param = Some(place).filter(|place| !place.is_empty());
        Self { error, param, headers: Vec::new() }
    }
}

impl Refused {
    /// Takes an error that a worker answered with, and what else its body holds.
    fn given(response: Response) -> (Self, Object) {
        let text = std::str::from_utf8(&response.body).unwrap_or_default();
        let mut body = Object::parse(text).unwrap_or_default();
        let detail = body.take("detail").unwrap_or_else(|| raw(&""));
        let detail = text_of_json(detail.get()).unwrap_or_else(|| detail.get().into());
        let error = ServeError::new(response.status, detail);
        (Self { error, param: None, headers: response.headers }, body)
    }

    fn response(&self) -> HttpResponse {
        let mut body = error_body(&self.error, self.param.as_deref());
        body.detail = Some(detail(&self.error.detail));
        let response = answer::failed(&self.error, &body);
        answer::with_headers(response, &self.headers).unwrap_or_else(|wrong| {
            tracing::error!("an HTTPException cannot be sent: {wrong}");
            error(&ServeError::internal())
        })
    }
}

/// Turns an error into what clients of this API understand; `detail` is what litplex says
/// everywhere.
pub(crate) fn error(error: &ServeError) -> HttpResponse {
    Refused::from(error.clone()).response()
}

/// Returns the detail as the model gave it: one that is no text comes here as its JSON.
fn detail(text: &str) -> Box<RawValue> {
    let is_json = text.starts_with(['[', '{']);
    let value = is_json.then(|| RawValue::from_string(text.to_owned()).ok()).flatten();
    value.unwrap_or_else(|| raw(&text))
}

/// An error as the API has it.
#[derive(Debug, Serialize)]
struct ErrorBody {
    error: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Box<RawValue>>,
}

fn error_body(error: &ServeError, param: Option<&str>) -> ErrorBody {
    let kind = match error.status() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    let message = &error.detail;
    let error = json!({"message": message, "type": kind, "param": param, "code": null});
    ErrorBody { error, detail: None }
}

/// Returns whether an endpoint speaks this API, as far as it is known yet.
pub(crate) fn is_spoken(route: &Route) -> bool {
    route.dialect().is_some()
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
        None => error(&ServeError::not_found(format!("there is no model `{wanted}`"))),
    })
}

fn speaks(endpoint: &EndpointReport) -> bool {
    endpoint.info.as_ref().and_then(dialect::for_model).is_some()
}

fn name(endpoint: &EndpointReport) -> &str {
    endpoint.info.as_ref().map_or("", |info| &info.model)
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

/// Returns the body of a request as the text of JSON.
async fn text_of(exchange: &Exchange<'_>) -> Result<Bytes, ServeError> {
    if exchange.request.content != Content::Json {
        return Err(ServeError::unsupported_type("the body must be JSON; send `application/json`"));
    }
    let (body, length) = (exchange.request.body.clone(), exchange.request.body_len());
    if body.len() > 1 {
        exchange.request.reservation.grow(length)?;
    }
    off_thread(length, move || json_text(&body)).await.ok_or_else(ServeError::not_json_text)
}

/// Reads a body, on another thread where that takes long.
async fn read<T: Send + 'static>(
    body: Bytes,
    read: impl FnOnce(&Bytes) -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    off_thread(body.len(), move || read(&body)).await
}

/// Returns a body as one JSON value.
fn well_formed(body: &Bytes) -> Result<&str, ServeError> {
    // What comes here was decoded.
    let text = std::str::from_utf8(body).unwrap_or_default();
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => Ok(value.get()),
        Err(error) => Err(ServeError::malformed(format!("malformed JSON body: {error}"))),
    }
}

/// Tokens that a request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Usage {
    #[serde(rename = "prompt_tokens")]
    prompt: u64,
    #[serde(rename = "completion_tokens")]
    completion: u64,
    #[serde(rename = "total_tokens")]
    total: u64,
}

impl Usage {
    fn add(&mut self, other: Self) {
        self.prompt = self.prompt.saturating_add(other.prompt);
        self.completion = self.completion.saturating_add(other.completion);
        self.total = self.total.saturating_add(other.total);
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
        let wrong = r#"[{"msg": "wrong", "input": 1.5777777777770001}]"#;
        assert_eq!(detail(wrong).get(), wrong);
        assert_eq!(detail("[sic] no JSON").get(), r#""[sic] no JSON""#);
        assert_eq!(detail("7").get(), r#""7""#);
    }

    #[test]
    fn a_mismatch_names_its_field() {
        let refused = Refused::from(shape::Mismatch::new("n", "it is odd"));
        let body = serde_json::to_value(error_body(&refused.error, refused.param.as_deref()));
        let expected = json!({
            "message": "n: it is odd", "type": "invalid_request_error", "param": "n", "code": null,
        });
        assert_eq!(body.unwrap()["error"], expected);
    }

    #[test]
    fn ids_differ() {
        assert_ne!(unique_id("chatcmpl"), unique_id("chatcmpl"));
    }
}
