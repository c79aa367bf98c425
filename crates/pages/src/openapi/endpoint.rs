//! The data of an endpoint that the document shows.

use serde_json::Value;

use super::schema::EndpointSchema;

/// An endpoint, as the document describes it.
#[derive(Debug)]
pub struct DescribedEndpoint<'a> {
    /// The path of the endpoint.
    pub path: &'a str,
    /// The schemas and examples that the worker declares, once one was ready.
    pub declared: Option<&'a Value>,
    /// The schemas and examples of the program, which replace those of the worker.
    pub schema: Option<&'a EndpointSchema>,
    /// The schemas of the endpoint's dialect; `None` where it is plain.
    pub dialect: Option<DialectSchemas>,
    /// Whether responses are streams.
    pub is_stream: bool,
    /// Whether chunks of a stream may be text or bytes, besides JSON.
    pub streams_bytes: bool,
    /// The names of the security schemes that admit callers: `key`, `bearer`, `token`. None where
    /// every caller is admitted.
    pub schemes: &'static [&'static str],
    /// Whether the number of requests of a caller is limited.
    pub has_limits: bool,
}

/// The schemas that all endpoints of a dialect share.
#[derive(Debug)]
pub struct DialectSchemas {
    /// The schema of a request.
    pub request: Value,
    /// The description of a response.
    pub response: Value,
    /// The schema of `error` in an error response.
    pub error: Value,
}
