//! The seam of dialects: the trait, and what a request is for it.
//!
//! An endpoint without a dialect is plain (`plain.rs`): it takes any body, and its response goes out as
//! the model made it. That path is not behind the trait, because a boxed future would cost each request
//! an allocation.

use std::fmt::Debug;
use std::time::Duration;

use litplex_calls::Call;
use litplex_core::{BoxFuture, ServeError};
use litplex_http_core::request_name::RequestName;
use litplex_http_core::response::HttpResponse;
use serde_json::Value;

/// A protocol between clients and an endpoint. Only its implementation knows its paths, bodies and
/// errors.
pub trait Dialect: Debug + Send + Sync {
    /// Returns the id that workers name.
    fn id(&self) -> &'static str;

    /// Returns the path of an endpoint that was configured without one.
    fn path(&self) -> &'static str;

    /// Serves a request whose body was read. The future is dropped at the deadline of the call.
    fn serve<'a>(&'a self, exchange: Exchange<'a>) -> BoxFuture<'a, HttpResponse>;

    /// Returns an error in the form of the dialect.
    fn error(&self, error: &ServeError) -> HttpResponse;

    /// Returns the JSON Schema of its requests.
    fn request_schema(&self) -> Value;

    /// Returns the description of its responses, as an `OpenAPI` response.
    fn describe_response(&self) -> Value;

    /// Returns the schema of the `error` that its errors have in addition to `detail`.
    fn error_schema(&self) -> Value;
}

/// A request whose body was read, and its call.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The label of the endpoint.
    pub endpoint: &'a str,
    /// The request as models see it.
    pub request: litplex_core::Request,
    /// The name of the request in the log.
    pub name: RequestName,
    /// The call of the endpoint.
    pub call: Call,
    /// The time without an event after which an event stream is sent a comment.
    pub ping_interval: Option<Duration>,
    /// The largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Whether the response is a stream, where the caller is a hook; a client says it in its request.
    pub stream: Option<bool>,
}
