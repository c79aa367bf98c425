//! The pages of the server as responses: the data for `pages`, and what it returns.

use http::StatusCode;
use http::header::HeaderMap;
use litplex_access::Guard;
use litplex_calls::EndpointReport;
use litplex_pages::{DescribedEndpoint, DialectSchemas};
use serde_json::Value;

use crate::answer::{AnswerBody, HttpResponse, own};
use crate::app::App;
use crate::around::Coding;
use crate::dialect::{self, Dialect};

/// Returns the `OpenAPI` document of the server.
pub(crate) fn document(app: &App) -> Value {
    let endpoints = app.report().endpoints;
    litplex_pages::document(endpoints.iter().map(|endpoint| described(app, endpoint)))
}

fn described<'a>(app: &'a App, endpoint: &'a EndpointReport) -> DescribedEndpoint<'a> {
    let route = app.route_at(&endpoint.path);
    let (guard, info) = (route.map(|route| &*route.guard), endpoint.info.as_ref());
    DescribedEndpoint {
        path: &endpoint.path,
        declared: info.map(|info| &*info.schema),
        schema: route.map(|route| &route.schema),
        dialect: info.and_then(dialect::for_model).map(schemas),
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
    let mut response = own(StatusCode::OK, page.media_type, String::new());
    response.headers_mut().extend(page.headers);
    *response.body_mut() = AnswerBody::Whole(Some(page.body));
    Some(response)
}
