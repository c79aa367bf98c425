//! The heads of requests that operators send to endpoints through the admin API, and of the responses.

use axum::body::Body;
use axum::http::Request;
use axum::http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    SET_COOKIE, TRANSFER_ENCODING, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};

/// The key or token of the caller, in the form of `Authorization`, which has that of the operator.
const CALLER_AUTHORIZATION: HeaderName = HeaderName::from_static("caller-authorization");

/// The header with the id by which the server remembers the request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header of responses of endpoints; others are those of the admin API.
const ENDPOINT: HeaderName = HeaderName::from_static("litplex-endpoint");

/// Headers that concern one connection, or the site of the admin API instead of the endpoint.
const DROPPED: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    SET_COOKIE,
    WWW_AUTHENTICATE,
    HeaderName::from_static("clear-site-data"),
];

/// Returns the request for the endpoint. It has neither the key of the operator nor what the browser says of
/// the page.
pub(crate) fn outgoing(request: Request<Body>) -> Request<Body> {
    let (parts, body) = request.into_parts();
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = parts.method;
    let names = [
        (CONTENT_TYPE, CONTENT_TYPE),
        (ACCEPT, ACCEPT),
        (REQUEST_ID, REQUEST_ID),
        (CALLER_AUTHORIZATION, AUTHORIZATION),
    ];
    for (from, to) in names {
        if let Some(value) = parts.headers.get(&from) {
            outgoing.headers_mut().insert(to, value.clone());
        }
    }
    outgoing
}

/// Marks a response as that of an endpoint, without what it could set for the site of the admin API.
pub(crate) fn mark(headers: &mut HeaderMap, endpoint: HeaderValue) {
    for name in DROPPED {
        headers.remove(name);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ENDPOINT, endpoint);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_gets_the_key_of_the_caller_and_not_that_of_the_operator() {
        let request = Request::post("/v1/endpoints/a/call")
            .header(AUTHORIZATION, "Bearer operator")
            .header("x-api-key", "operator")
            .header("cookie", "a=b")
            .header(CALLER_AUTHORIZATION, "Bearer caller")
            .header(REQUEST_ID, "r1")
            .header(CONTENT_TYPE, "application/json");
        let headers = outgoing(request.body(Body::empty()).unwrap()).into_parts().0.headers;
        assert_eq!(headers.len(), 3, "{headers:?}");
        assert_eq!(headers[REQUEST_ID], "r1");
        assert_eq!(headers[AUTHORIZATION], "Bearer caller");
        let request = Request::post("/").header(AUTHORIZATION, "Bearer operator");
        let outgoing = outgoing(request.body(Body::empty()).unwrap());
        assert!(outgoing.headers().is_empty());
    }

    #[test]
    fn a_response_of_an_endpoint_sets_nothing_for_the_admin_site() {
        let mut headers = HeaderMap::new();
        for name in DROPPED {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        mark(&mut headers, HeaderValue::from_static("/a"));
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert_eq!(headers[ENDPOINT], "/a");
    }
}
