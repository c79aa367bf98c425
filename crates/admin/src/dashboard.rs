//! The dashboard, a page that uses the admin API: its files, which need no key, because they hold no data, and
//! below them the API, so that the page has one form on every listener.

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::header::{ACCEPT_ENCODING, IF_NONE_MATCH, LOCATION};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use litplex_dashboard::{PAGE, file};

use crate::operations::Refusal;

/// The path of the page; its files and the API are below it.
pub(crate) const DASHBOARD: &str = "/dashboard";

/// Returns the routes of the page, in its own form or in that for shared listeners, and of its files.
pub(crate) fn files<S: Clone + Send + Sync + 'static>(page_name: &'static str) -> Router<S> {
    Router::new()
        .route("/dashboard/", get(redirect_up))
        .route(DASHBOARD, get(async move |headers: HeaderMap| page(page_name, &headers)))
        .route(
            "/dashboard/{*name}",
            get(async |Path(name): Path<String>, headers: HeaderMap| page(&name, &headers)),
        )
}

/// Returns the routes of the page and its files, and the way from `/` to the page.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    files(PAGE).route("/", get(redirect))
}

/// Returns whether a request is for the page or one of its files, which any client may have.
pub(crate) fn is_public(request: &Request) -> bool {
    let path = request.uri().path();
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    let name = || path.strip_prefix("/dashboard/").is_some_and(|name| file(name).is_some());
    is_read && (["/", DASHBOARD, "/dashboard/"].contains(&path) || name())
}

// The paths are relative, because a proxy may serve the page under a prefix.
async fn redirect() -> impl IntoResponse {
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "dashboard")])
}

async fn redirect_up() -> impl IntoResponse {
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, "../dashboard")])
}

fn page(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = file(name) else {
        return Refusal::not_found(format!("there is no `{DASHBOARD}/{name}`")).into_response();
    };
    let has = |header, text: &str| {
        headers
            .get(header)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|it| it.contains(text))
    };
    let (headers, body) = file.response(has(ACCEPT_ENCODING, "gzip"));
    if has(IF_NONE_MATCH, file.tag()) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, body).into_response()
}
