//! Plain responses: what a model returned, or its items one after the other.

use http::request::Parts;
use litplex_calls::Output;
use litplex_core::{Outcome, ServeError};
use litplex_http_core::request_name::RequestName;
use litplex_http_core::response::{self, HttpResponse};
use litplex_http_core::stream::{Chunks, Framing};

use crate::endpoint::Route;

/// Returns the response to a request with this head.
pub(crate) fn respond(output: Output, parts: &Parts, route: &Route) -> Outcome<HttpResponse> {
    match output {
        Output::Whole(given) => whole(given, parts, route),
        Output::Stream(first, rest) => {
            let framing = Framing::choose(&parts.headers, first.kind());
            let (first, chunks) = (framing.frame(&first), Chunks::Plain(framing, rest));
            Ok(response::stream(first, chunks, framing.media_type(), route.ping_interval))
        }
    }
}

fn whole(given: litplex_core::Response, parts: &Parts, route: &Route) -> Outcome<HttpResponse> {
    response::from_model(given).map_err(|wrong| {
        let endpoint = route.metrics.endpoint();
        let request_id = RequestName::new(&parts.headers, &parts.extensions).text();
        tracing::error!(
            endpoint,
            request_id,
            "HTTP cannot carry the response: {wrong}; check the Response that `predict` or \
             `encode_response` returned"
        );
        ServeError::internal()
    })
}
