//! Forwards requests to the app host, which sends those for endpoints back on the inner socket.
//!
//! `app_host_socket` keeps the connections.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{EXPECT, HOST, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Request, Version};
use http_body_util::BodyExt;
use litplex_access::Guard;
use litplex_core::{BoxError, ErrorCause, Origin, Outcome, Priority, ServeError, Trace};
use litplex_http_core::body::Body;
use litplex_http_core::headers::{X_LITPLEX_PRIORITY, remove_hop_by_hop};
use litplex_http_core::request_name::RequestName;
use litplex_http_core::response::{self, HttpResponse, ResponseBody};
use litplex_http_core::{path, read_body};
use tokio::time::timeout;

use crate::app_host_socket::{AppHostSocket, Unanswered};
use crate::peer::Peer;
use crate::target::Target;

/// The header with the [`Peer`] of a request, for the app host.
const PEER: HeaderName = HeaderName::from_static("x-litplex-peer");

/// The header with the target that a request was admitted to. The app host returns it with the request.
const ADMISSION: HeaderName = HeaderName::from_static("x-litplex-admission");

/// The text between the target and the number of the gate in that header.
const GATE: &str = "; gate=";

/// The text between the number and the scopes in that header.
const SCOPES: &str = "; scopes=";

/// The header with the label of the endpoint that a request was admitted to, percent-encoded, if several
/// endpoints share its path: the app host applies the guard of this endpoint.
const ENDPOINT: HeaderName = HeaderName::from_static("x-litplex-endpoint");

/// The header with the number of a request, if it is recorded: its inner request is a part of it.
const REQUEST: HeaderName = HeaderName::from_static("x-litplex-request");

/// The time that a forwarded request may take beyond its time budget: the inner request times out first,
/// with an error in the form of the endpoint.
const MORE_TIME: Duration = Duration::from_secs(5);

/// The app host of a program, and which requests are forwarded to it.
#[derive(Debug)]
pub struct AppHost {
    /// The socket on which it listens.
    pub socket: AppHostSocket,
    /// The paths of endpoints and of built-in routes that are not forwarded.
    pub direct: HashSet<String>,
    /// Whether each app in it responds to preflight requests of browsers.
    pub answers_preflights: bool,
    /// Whether it may have routes of its own, which have no time limit.
    pub has_routes: bool,
    /// The guard that it would apply to the built-in routes that are not forwarded.
    pub guard: Arc<Guard>,
}

/// The way of a request to the app host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forwarding<'a> {
    /// The socket of the app host.
    pub(crate) socket: &'a AppHostSocket,
    /// The time until the response must begin, if it is limited: a request to an app host that hangs
    /// times out.
    pub(crate) limit: Option<Duration>,
    /// The label of the endpoint, if other endpoints share its path.
    pub(crate) endpoint: Option<&'a str>,
    /// The number of the gate that admitted the request.
    pub(crate) gate: u64,
}

/// The admission of a request that comes back from the app host.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// The number of the gate, which gives the target its meaning.
    pub(crate) gate: u64,
    /// The target that the request was admitted to.
    pub(crate) target: Target,
    /// The scopes of the token, if it was admitted with one.
    pub(crate) scopes: Option<Arc<[String]>>,
}

/// Forwards a request that was admitted to this target to the app host. Both bodies are forwarded in the
/// pieces in which they arrive; dropping either end drops the other.
pub(crate) async fn forward(
    to: Forwarding<'_>,
    target: Target,
    mut request: Request<Body>,
    client: Option<Peer>,
) -> HttpResponse {
    readdress(&mut request);
    let origin = request.extensions().get::<Arc<Origin>>();
    let scopes = origin.and_then(|origin| origin.root.scopes.clone());
    let is_batch = origin.is_some_and(|origin| origin.root.priority == Priority::Batch);
    let number = request.extensions().get::<Arc<Trace>>().map(|trace| trace.request());
    introduce(request.headers_mut(), number, client, (target, scopes.as_deref()), &to);
    if is_batch {
        // Its caller is in this class, whatever it asks for.
        let class = HeaderValue::from_static(Priority::Batch.as_str());
        request.headers_mut().insert(X_LITPLEX_PRIORITY, class);
    }
    let name = RequestName::new(request.headers(), request.extensions());
    let answer = exchange(to.socket, request, &name);
    let answered = match to.limit {
        Some(limit) => timeout(limit + MORE_TIME, answer).await.unwrap_or_else(|_| Err(hangs())),
        None => answer.await,
    };
    answered.unwrap_or_else(|error| response::error(&error))
}

/// Removes the header with the admission of a request, and returns it.
pub(crate) fn take_admission(headers: &mut HeaderMap) -> Option<Admitted> {
    let admission = headers.remove(ADMISSION)?;
    let admission = admission.to_str().ok()?;
    let (admission, scopes) = match admission.split_once(SCOPES) {
        Some((admission, scopes)) => (admission, Some(scopes)),
        None => (admission, None),
    };
    let (target, gate) = admission.split_once(GATE)?;
    let words = |scopes: &str| scopes.split_whitespace().map(str::to_owned).collect();
    Some(Admitted {
        gate: gate.parse().ok()?,
        target: target.parse().ok()?,
        scopes: scopes.map(words),
    })
}

/// Removes the header with the number of the client's request, and returns the number.
pub(crate) fn take_request(headers: &mut HeaderMap) -> Option<u64> {
    headers.remove(REQUEST)?.to_str().ok()?.parse().ok()
}

/// Removes the headers with the client and the endpoint of a request, and returns the client's address.
pub(crate) fn take_client(headers: &mut HeaderMap) -> Option<SocketAddr> {
    headers.remove(ENDPOINT);
    let peer = headers.remove(PEER)?;
    peer.to_str().ok()?.split_once("://")?.1.parse().ok()
}

async fn exchange(
    socket: &AppHostSocket,
    request: Request<Body>,
    name: &RequestName,
) -> Outcome<HttpResponse> {
    // If the client's body breaks, the connection to the app host ends: the client is the cause, not the
    // process.
    let failure = Arc::new(OnceLock::new());
    let request = request.map(|body| Body::new(body.map_err(noting(failure.clone()))));
    let mut response = socket.send(request).await.map_err(|unanswered| match unanswered {
        Unanswered::Away => away(),
        Unanswered::Lost(error) => failure.get().cloned().unwrap_or_else(|| lost(&error, name)),
    })?;
    remove_hop_by_hop(response.headers_mut());
    Ok(response.map(ResponseBody::boxed))
}

/// Returns a function that notes why a body cannot be read.
fn noting(failure: Arc<OnceLock<ServeError>>) -> impl FnMut(BoxError) -> BoxError + Send {
    move |error| {
        let _ = failure.set(read_body::unreadable(&*error));
        error
    }
}

/// Turns a request to this server into one to the app host.
fn readdress(request: &mut Request<Body>) {
    let host = request.uri().authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    // Frameworks accept only ASCII in a path; clients may send other characters.
    let path = request.uri().path_and_query().map(|path| path::escape(path.as_str()));
    let path = path.and_then(|path| PathAndQuery::try_from(&*path).ok());
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    remove_hop_by_hop(headers);
    // This server itself sends `100 Continue`, when the body is read.
    headers.remove(EXPECT);
    // In HTTP/2 the host is part of the address.
    headers.entry(HOST).or_insert(host.unwrap_or(HeaderValue::from_static("localhost")));
}

/// Sets the headers with the number of the request, if it is recorded, with the client, with the target and the scopes that the request was admitted to, and
/// with the endpoint, in place of any that the client sent. A scope that RFC 6749 does not allow is left
/// out. The headers that the client's `Connection` names must have been removed before.
fn introduce(
    headers: &mut HeaderMap,
    number: Option<u64>,
    client: Option<Peer>,
    (target, scopes): (Target, Option<&[String]>),
    to: &Forwarding<'_>,
) {
    let is_word = |scope: &&String| scope.bytes().all(|byte| byte.is_ascii_graphic());
    let words = |scopes: &[String]| {
        let words: Vec<_> = scopes.iter().filter(is_word).map(String::as_str).collect();
        format!("{SCOPES}{}", words.join(" "))
    };
    let Forwarding { gate, endpoint, .. } = to;
    let admission = format!("{target}{GATE}{gate}{}", scopes.map(words).unwrap_or_default());
    for (name, value) in [
        (PEER, client.map(|client| client.to_string())),
        (ADMISSION, Some(admission)),
        (ENDPOINT, endpoint.map(path::encode)),
        (REQUEST, number.map(|number| number.to_string())),
    ] {
        headers.remove(&name);
        headers.extend(value.and_then(|value| value.try_into().ok()).map(|value| (name, value)));
    }
}

fn away() -> ServeError {
    ServeError::not_ready("the app host is starting", 1)
}

fn hangs() -> ServeError {
    ServeError::because(ErrorCause::Deadline, "the app host did not respond in time")
}

fn lost(error: &hyper::Error, name: &RequestName) -> ServeError {
    tracing::debug!(%error, request_id = name.text(), "the app host did not respond");
    ServeError::because(ErrorCause::WorkerLost, "the app host exited before it responded")
}

#[cfg(test)]
mod tests {
    use http::header::CONNECTION;

    use super::*;

    #[test]
    fn a_client_cannot_choose_the_target_it_is_admitted_to() {
        let client = Peer { address: ([192, 0, 2, 1], 7).into(), is_tls: true };
        for connection in ["close", "x-litplex-peer, x-litplex-admission, x-litplex-endpoint"] {
            let mut request = Request::new(Body::default());
            for (name, value) in [
                (CONNECTION, connection),
                (PEER, "http://127.0.0.1:1"),
                (ADMISSION, "endpoint-1"),
                (ADMISSION, "endpoint-2"),
                (ENDPOINT, "secret"),
                (REQUEST, "1"),
            ] {
                request.headers_mut().append(name, HeaderValue::from_static(value));
            }
            readdress(&mut request);
            let scopes = ["read".to_owned(), "no word".to_owned()];
            let socket = AppHostSocket::new("/run/app".into());
            let (limit, endpoint) = (None, Some("Qwen/é%"));
            let to = Forwarding { socket: &socket, limit, endpoint, gate: 3 };
            let target = (Target::Rest, Some(&scopes[..]));
            introduce(request.headers_mut(), Some(17), Some(client), target, &to);
            let said = |name| Vec::from_iter(request.headers().get_all(name));
            assert_eq!(said(PEER), ["https://192.0.2.1:7"]);
            assert_eq!(said(ADMISSION), ["rest; gate=3; scopes=read"]);
            assert_eq!(said(ENDPOINT), ["Qwen/%C3%A9%25"]);
            let scopes = Some(["read".to_owned()].into());
            let admitted = Admitted { gate: 3, target: Target::Rest, scopes };
            assert_eq!(take_admission(request.headers_mut()), Some(admitted));
            assert_eq!(take_client(request.headers_mut()), Some(client.address));
            assert_eq!(take_request(request.headers_mut()), Some(17));
            assert!(!request.headers().contains_key(PEER));
            assert!(!request.headers().contains_key(ENDPOINT));
        }
    }
}
