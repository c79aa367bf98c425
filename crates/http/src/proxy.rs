//! Passes requests on to the app host, which asks for the endpoints on a socket of its own.
//!
//! Each request has a connection to itself: the app host may be replaced at any time, and a
//! connection that was kept would only show then that its other end is gone.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{
    CONNECTION, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Request, Version};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use litplex_core::{ErrorCause, Outcome, ServeError};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::answer::{self, AnswerBody, HttpResponse, MAX_HEADERS};
use crate::around::{Body, BoxError};
use crate::pieces::READ_BYTES;
use crate::target::Target;
use crate::{body, path};

/// Tells the app host what a [`Peer`] is, which it would know if it had the connection.
const PEER: HeaderName = HeaderName::from_static("x-litplex-peer");

/// Tells the app host what a request was let in for; with it, it asks on the inner socket.
const ADMISSION: HeaderName = HeaderName::from_static("x-litplex-admission");

/// How much longer than its time budget a request to an endpoint may take: whoever asks for it on the
/// inner socket gives it up first, and in the words of the endpoint.
const MORE_TIME: Duration = Duration::from_secs(5);

/// What is said between two neighbours, and is not for whoever comes after them.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Who a client is, and how it is spoken to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) is_tls: bool,
}

impl Peer {
    pub(crate) fn scheme(self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.address)
    }
}

/// Answers a request, which was let in for this, with what the app host behind this socket does. Both
/// bodies are passed on as they come; dropping either end drops the other. With a `limit`, an app
/// host that hangs is not waited for.
pub(crate) async fn forward(
    socket: &Path,
    target: Target,
    mut request: Request<Body>,
    client: Option<Peer>,
    limit: Option<Duration>,
) -> HttpResponse {
    readdress(&mut request);
    introduce(request.headers_mut(), client, target);
    let answer = exchange(socket, request);
    let answered = match limit {
        Some(limit) => timeout(limit + MORE_TIME, answer).await.unwrap_or_else(|_| Err(hangs())),
        None => answer.await,
    };
    answered.unwrap_or_else(|error| answer::error(&error))
}

/// Returns what the app host says that a request was let in for, and takes it from the headers.
pub(crate) fn take_admission(headers: &mut HeaderMap) -> Option<Target> {
    headers.remove(ADMISSION)?.to_str().ok()?.parse().ok()
}

/// Returns the address of the client whose request the app host passes on, and takes it from the
/// headers.
pub(crate) fn take_client(headers: &mut HeaderMap) -> Option<SocketAddr> {
    let peer = headers.remove(PEER)?;
    peer.to_str().ok()?.split_once("://")?.1.parse().ok()
}

async fn exchange(socket: &Path, request: Request<Body>) -> Outcome<HttpResponse> {
    let stream = UnixStream::connect(socket).await.map_err(|_| away())?;
    let (mut sender, connection) =
        protocol().handshake(TokioIo::new(stream)).await.map_err(|_| away())?;
    tokio::spawn(async {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the app host ended");
        }
    });
    // The app host learns that a body broke off by its connection, which is then of no use: that is
    // the fault of the client, and not of the process.
    let failure = Arc::new(OnceLock::new());
    let request = request.map(|body| body.map_err(noting(failure.clone())));
    let sent = sender.send_request(request).await;
    let mut response =
        sent.map_err(|error| failure.get().cloned().unwrap_or_else(|| lost(&error)))?;
    remove_hop_by_hop(response.headers_mut());
    Ok(response.map(AnswerBody::Passed))
}

/// Returns how the app host is spoken to: what the server carries itself, its answers may have.
fn protocol() -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol.max_buf_size(READ_BYTES).max_headers(2 * MAX_HEADERS);
    protocol
}

/// Returns what notes why a body cannot be read.
fn noting(failure: Arc<OnceLock<ServeError>>) -> impl FnMut(BoxError) -> BoxError + Send {
    move |error| {
        let _ = failure.set(body::unreadable(&*error));
        error
    }
}

/// Makes of a request to this server one to the app host.
fn readdress(request: &mut Request<Body>) {
    let host = request.uri().authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    // Frameworks take nothing but ASCII there, where clients may send more.
    let path = request.uri().path_and_query().map(|path| path::escape(path.as_str()));
    let path = path.and_then(|path| PathAndQuery::try_from(&*path).ok());
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    remove_hop_by_hop(headers);
    // This server says itself that it takes the body, once it is asked for.
    headers.remove(EXPECT);
    // HTTP/2 has it in the address.
    headers.entry(HOST).or_insert(host.unwrap_or(HeaderValue::from_static("localhost")));
}

/// Says who the client is and what its request was let in for, in the place of what the client says
/// there. It must come after the headers that the client's `Connection` names are gone.
fn introduce(headers: &mut HeaderMap, client: Option<Peer>, target: Target) {
    for (name, value) in
        [(PEER, client.map(|client| client.to_string())), (ADMISSION, Some(target.to_string()))]
    {
        headers.remove(&name);
        headers.extend(value.and_then(|value| value.try_into().ok()).map(|value| (name, value)));
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn away() -> ServeError {
    ServeError::not_ready("the process of the program's app is starting", 1)
}

fn hangs() -> ServeError {
    ServeError::because(
        ErrorCause::Deadline,
        "the process of the program's app did not answer in time",
    )
}

fn lost(error: &hyper::Error) -> ServeError {
    tracing::debug!(%error, "the app host did not answer");
    ServeError::because(
        ErrorCause::WorkerLost,
        "the process of the program's app ended before it answered this request",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_say_what_its_request_was_let_in_for() {
        let client = Peer { address: ([192, 0, 2, 1], 7).into(), is_tls: true };
        for connection in ["close", "x-litplex-peer, x-litplex-admission"] {
            let mut request = Request::new(Body::default());
            for (name, value) in [
                (CONNECTION, connection),
                (PEER, "http://127.0.0.1:1"),
                (ADMISSION, "endpoint-1"),
                (ADMISSION, "endpoint-2"),
            ] {
                request.headers_mut().append(name, HeaderValue::from_static(value));
            }
            readdress(&mut request);
            introduce(request.headers_mut(), Some(client), Target::Rest);
            let said = |name| Vec::from_iter(request.headers().get_all(name));
            assert_eq!(said(PEER), ["https://192.0.2.1:7"]);
            assert_eq!(said(ADMISSION), ["rest"]);
            assert_eq!(take_admission(request.headers_mut()), Some(Target::Rest));
            assert_eq!(take_client(request.headers_mut()), Some(client.address));
            assert!(!request.headers().contains_key(PEER));
        }
    }

    #[test]
    fn what_neighbours_say_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("x-theirs", "2"),
            ("content-length", "3"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "x-theirs"]);
    }
}
