//! The guard of the admin API on ports: which clients may use which operations.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use litplex_access::{Browsers, Guard, Keys, Refusal, RouteKind};
use tokio::sync::watch;

use crate::dashboard;
use crate::status::{ErrorBody, Session};

/// The guard of the admin API on a port. Each request needs a key, and none may come from a page of another
/// site, which could otherwise use a key that a browser keeps.
#[derive(Debug)]
pub struct AdminGuard {
    /// The keys for all operations.
    operators: Guard,
    /// The keys for requests that only read.
    readers: Guard,
    browsers: Browsers,
}

impl AdminGuard {
    /// Returns the guard that accepts these keys for all operations, and these for `GET` requests.
    pub fn new(
        operators: watch::Receiver<Keys>,
        readers: watch::Receiver<Keys>,
        browsers: Browsers,
    ) -> Self {
        // A guard without keys would admit every client; one with an empty set admits none.
        Self {
            operators: Guard::new(Some(operators)),
            readers: Guard::new(Some(readers)),
            browsers,
        }
    }

    /// Sets whether its listener accepts connections from this machine only.
    #[must_use]
    pub fn on_loopback(mut self, is_loopback: bool) -> Self {
        self.browsers.is_loopback = is_loopback;
        self
    }

    /// Returns the session of a request; `None` if it is for a page, which needs no key.
    ///
    /// # Errors
    /// The response to a request that is refused.
    fn admit(&self, request: &Request) -> Result<Option<Session>, Box<Response>> {
        refuse_page(&self.browsers, request)?;
        if dashboard::is_public(request) {
            return Ok(None);
        }
        let (method, path) = (request.method(), request.uri().path());
        let is_read = [Method::GET, Method::HEAD].contains(method);
        match self.role(request.headers()) {
            Ok(Role::Operator(holder)) => {
                if !is_read {
                    tracing::info!("admin API: {method} {path} with the key `{holder}`");
                }
                Ok(Some(Session { holder: Some(holder.to_string()), may_change: true }))
            }
            Ok(Role::Reader(holder)) if is_read => {
                Ok(Some(Session { holder: Some(holder.to_string()), may_change: false }))
            }
            Ok(Role::Reader(holder)) => {
                let error = format!(
                    "the key `{holder}` may only read (`admin_read_keys`); {method} {path} needs a \
                     key of `admin_keys`"
                );
                Err(Box::new((StatusCode::FORBIDDEN, Json(ErrorBody { error })).into_response()))
            }
            Err(refusal) => Err(Box::new(response(refusal))),
        }
    }

    fn role(&self, headers: &HeaderMap) -> Result<Role, Refusal> {
        let holder = |guard: &Guard| Ok(guard.admit(headers, None)?.holder.unwrap_or_default());
        match holder(&self.operators) {
            Ok(holder) => Ok(Role::Operator(holder)),
            Err(refusal) => holder(&self.readers).map(Role::Reader).map_err(|_: Refusal| refusal),
        }
    }
}

/// The role of the holder of a key.
enum Role {
    Operator(Arc<str>),
    Reader(Arc<str>),
}

fn response(refusal: Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.error.status());
    let body = Json(ErrorBody { error: refusal.error.detail.clone() });
    let mut response = (status.unwrap_or(StatusCode::FORBIDDEN), body).into_response();
    response.headers_mut().extend(refusal.into_headers());
    response
}

/// The name under which a trusted proxy received a request.
#[derive(Debug, Clone)]
pub(crate) struct ForwardedHost(pub(crate) Arc<str>);

/// Refuses what a page of another site has its browser send.
fn refuse_page(browsers: &Browsers, request: &Request) -> Result<(), Box<Response>> {
    let forwarded = request.extensions().get::<ForwardedHost>().map(|ForwardedHost(host)| &**host);
    match browsers.refuse(request, RouteKind::Admin, forwarded) {
        Some(error) => Err(Box::new(response(Refusal::from(error)))),
        None => Ok(()),
    }
}

/// Passes on the requests that the guard admits.
pub(crate) async fn guarded(
    State(guard): State<Arc<AdminGuard>>,
    mut request: Request,
    next: Next,
) -> Response {
    match guard.admit(&request) {
        Ok(session) => {
            session.map(|session| request.extensions_mut().insert(session));
            next.run(request).await
        }
        Err(refused) => *refused,
    }
}

/// Passes on the requests of a socket that only its user can reach, without a key. The user may make a port
/// of it, as `ssh -L` does, which pages of other sites could then use.
pub(crate) async fn guarded_socket(request: Request, next: Next) -> Response {
    let browsers = Browsers { is_loopback: true, ..Browsers::default() };
    match refuse_page(&browsers, &request) {
        Ok(()) => next.run(request).await,
        Err(refused) => *refused,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use litplex_access::digest;

    use super::*;

    fn status(method: Method, headers: &[(&str, &str)]) -> u16 {
        let keys = |holder: &str, key| {
            let keys = Keys::from_iter([(holder.to_owned(), digest(key))]);
            watch::channel(keys).1
        };
        let guard = AdminGuard::new(keys("ann", "all"), keys("bob", "read"), Browsers::default());
        let mut request = Request::builder().method(method).uri("/v1/stop");
        for (name, value) in [("host", "127.0.0.1:9000")].iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        guard
            .on_loopback(true)
            .admit(&request)
            .map_or_else(|refused| refused.status().as_u16(), |_| 200)
    }

    #[test]
    fn a_key_decides_what_its_holder_may_do() {
        for (method, key, wanted) in [
            (Method::GET, "all", 200),
            (Method::POST, "all", 200),
            (Method::GET, "read", 200),
            (Method::HEAD, "read", 200),
            (Method::POST, "read", 403),
            (Method::PUT, "read", 403),
            (Method::DELETE, "read", 403),
            (Method::OPTIONS, "read", 403),
            (Method::GET, "wrong", 401),
            (Method::POST, "", 401),
        ] {
            let headers = [("x-api-key", key)];
            assert_eq!(status(method.clone(), &headers), wanted, "{method} {key}");
        }
        assert_eq!(status(Method::POST, &[]), 401);
        assert_eq!(status(Method::POST, &[("authorization", "Bearer all")]), 200);
    }

    #[test]
    fn a_page_of_another_site_is_refused_with_the_right_key() {
        for header in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
        ] {
            assert_eq!(status(Method::GET, &[("x-api-key", "all"), header]), 403, "{header:?}");
        }
        let own = ("origin", "http://127.0.0.1:9000");
        assert_eq!(status(Method::POST, &[("x-api-key", "all"), own]), 200);
    }

    #[test]
    fn without_keys_no_request_is_admitted() {
        let none = || watch::channel(Keys::default()).1;
        let guard = AdminGuard::new(none(), none(), Browsers::default());
        for key in ["", "all"] {
            let request = Request::get("/v1/server").header("x-api-key", key);
            assert!(guard.admit(&request.body(Body::empty()).unwrap()).is_err());
        }
    }
}
