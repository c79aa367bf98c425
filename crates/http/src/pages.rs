//! The pages of the server as responses: the data for `pages`, and what it returns.

use http::StatusCode;
use http::header::HeaderMap;
use litplex_access::Guard;
use litplex_calls::{EndpointReport, Report, graph_text};
use litplex_dialects::{Dialect, for_model};
use litplex_http_core::response::{HttpResponse, ResponseBody, text_response};
use litplex_pages::{DescribedEndpoint, DialectSchemas};
use serde_json::Value;

use crate::middleware::Coding;
use crate::router::Router;

/// Returns the `OpenAPI` document of the server.
pub(crate) fn document(router: &Router, report: &Report) -> Value {
    let endpoints = || report.endpoints.iter();
    let calls = graph_text(endpoints().flat_map(|endpoint| &endpoint.calls));
    litplex_pages::document(endpoints().map(|endpoint| described(router, endpoint)), &calls)
}

fn described<'a>(router: &'a Router, endpoint: &'a EndpointReport) -> DescribedEndpoint<'a> {
    let route = router.route_labelled(&endpoint.identity.label);
    let (guard, info) = (route.map(|route| &*route.guard), endpoint.info.as_ref());
    DescribedEndpoint {
        path: &endpoint.identity.path,
        declared: info.map(|info| &*info.schema),
        schema: route.map(|route| &route.schema),
        dialect: info.and_then(for_model).map(schemas),
        is_stream: info.is_some_and(|info| info.stream),
        streams_bytes: endpoint.kind == "python",
        schemes: guard.map_or(&[][..], Guard::schemes),
        has_limits: guard.is_some_and(Guard::has_limits),
    }
}

fn schemas(dialect: &dyn Dialect) -> DialectSchemas {
    DialectSchemas {
        request: dialect.request_schema(),
        response: dialect.describe_response(),
        error: dialect.error_schema(),
    }
}

/// Returns Swagger UI or one of its files, for a client that sent these headers.
pub(crate) fn page(path: &str, headers: &HeaderMap) -> Option<HttpResponse> {
    let page = litplex_pages::page(path, Coding::Gzip.is_accepted(headers))?;
    let mut response = text_response(StatusCode::OK, page.media_type, String::new());
    response.headers_mut().extend(page.headers);
    *response.body_mut() = ResponseBody::Whole(Some(page.body));
    Some(response)
}
