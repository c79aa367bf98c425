//! The part of the OpenAI API that endpoints can speak
//! (<https://platform.openai.com/docs/api-reference>).

mod chat;
mod chat_request;
mod chat_stream;
mod described;
mod embedding_request;
mod embeddings;
mod error;
mod ids;
mod message;
mod shape;
pub(crate) mod shared_path;
mod text;
mod tool_calls;
mod usage;

use http::StatusCode;
use litplex_calls::EndpointReport;
use litplex_core::{BoxFuture, ServeError};
use litplex_http_core::request_name::RequestName;
use litplex_http_core::response::{self, HttpResponse};
use serde_json::{Value, json};

pub use self::error::error;
pub use self::shared_path::{ModelRequest, NoEndpoint};

use self::error::{Refused, no_such_model};
use crate::dialect::{Dialect, Exchange};

/// The start of all paths of the API.
const PREFIX: &str = "/v1/";

/// The path of the list of models.
pub const MODELS: &str = "/v1/models";

/// The dialect of chat completions: each item of a response is a message, or a part of one.
#[derive(Debug)]
pub struct Chat;

/// The dialect of embeddings: a response is an object with `embeddings`.
#[derive(Debug)]
pub struct Embeddings;

impl Dialect for Chat {
    fn id(&self) -> &'static str {
        "openai_chat"
    }

    fn path(&self) -> &'static str {
        "/v1/chat/completions"
    }

    fn serve<'a>(&'a self, exchange: Exchange<'a>) -> BoxFuture<'a, HttpResponse> {
        let name = exchange.name.clone();
        Box::pin(async move { respond(chat::respond(exchange).await, &name) })
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
        let name = exchange.name.clone();
        Box::pin(async move { respond(embeddings::respond(exchange).await, &name) })
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

fn respond(answered: Result<HttpResponse, Refused>, name: &RequestName) -> HttpResponse {
    answered.unwrap_or_else(|refused| refused.response(name))
}

/// Returns the response to an error at a path without an endpoint: in the form of this API if the path
/// is below `/v1/`, where its clients send requests.
pub fn error_at(path: &str, found: &ServeError) -> HttpResponse {
    if path.starts_with(PREFIX) { error(found) } else { response::error(found) }
}

/// Returns a hint for clients of this API that left out `/v1/`.
pub fn hint_at(path: &str) -> Option<&'static str> {
    let is_theirs = ["/chat/completions", "/embeddings", "/models"].contains(&path);
    is_theirs.then_some("the `base_url` of clients of OpenAI's API must end in `/v1`")
}

/// Returns the response at [`MODELS`] or below: the `endpoints` that speak this API and that the caller
/// may call. `None`: there is no such path.
pub fn models<'a>(
    path: &str,
    endpoints: impl Iterator<Item = &'a EndpointReport>,
) -> Option<HttpResponse> {
    let rest = path.strip_prefix(MODELS)?;
    let endpoints = Vec::from_iter(endpoints);
    if rest.is_empty() {
        let data: Vec<Value> = endpoints.into_iter().map(model).collect();
        return Some(response::json(StatusCode::OK, &json!({"object": "list", "data": data})));
    }
    let wanted = rest.strip_prefix('/').filter(|wanted| !wanted.is_empty())?;
    let found = endpoints.iter().find(|endpoint| endpoint.identity.is_called(wanted));
    Some(match found {
        Some(found) => response::json(StatusCode::OK, &model(found)),
        None => {
            let known: Vec<_> = endpoints.iter().map(|endpoint| &*endpoint.identity.name).collect();
            no_such_model(wanted, &known).response(&RequestName::default())
        }
    })
}

fn model(endpoint: &EndpointReport) -> Value {
    json!({
        "id": endpoint.identity.name,
        "object": "model",
        "created": ids::server_start(),
        "owned_by": "litplex",
        "endpoint": endpoint.identity.path,
        "aliases": endpoint.identity.aliases,
    })
}
