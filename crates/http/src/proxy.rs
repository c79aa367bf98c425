//! Passes requests on to the app host, which asks for the endpoints on a socket of its own.
//!
//! Each request has a connection to itself: the app host may be replaced at any time, and a
//! connection that was kept would only show then that its other end is gone.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::header::{
    CONNECTION, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Request, Version};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use litplex_core::{Outcome, ServeError};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::answer::{self, AnswerBody, HttpResponse};
use crate::around::Body;

/// Tells the app host what a [`Peer`] is, which it would know if it had the connection.
const PEER: HeaderName = HeaderName::from_static("x-litplex-peer");

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

/// Answers a request with what the app host behind this socket does. Both bodies are passed on as
/// they come; dropping either end drops the other. With a `limit`, an app host that hangs is not
/// waited for.
pub(crate) async fn forward(
    socket: &Path,
    mut request: Request<Body>,
    client: Option<Peer>,
    limit: Option<Duration>,
) -> HttpResponse {
    let client = client.and_then(|client| HeaderValue::try_from(client.to_string()).ok());
    // Whatever the client says of itself, it is not that.
    request.headers_mut().remove(PEER);
    request.headers_mut().extend(client.map(|client| (PEER, client)));
    let answer = exchange(socket, request);
    let answered = match limit {
        Some(limit) => timeout(limit + MORE_TIME, answer).await.unwrap_or_else(|_| Err(hangs())),
        None => answer.await,
    };
    answered.unwrap_or_else(|error| answer::error(&error))
}

async fn exchange(socket: &Path, mut request: Request<Body>) -> Outcome<HttpResponse> {
    let stream = UnixStream::connect(socket).await.map_err(|_| away())?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|_| away())?;
    tokio::spawn(async {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the app host ended");
        }
    });
    readdress(&mut request);
    let mut response = sender.send_request(request).await.map_err(|error| lost(&error))?;
    remove_hop_by_hop(response.headers_mut());
    Ok(response.map(AnswerBody::Passed))
}

/// Makes of a request to this server one to the app host.
fn readdress(request: &mut Request<Body>) {
    let host = request.uri().authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    remove_hop_by_hop(headers);
    // This server says itself that it takes the body, once it is asked for.
    headers.remove(EXPECT);
    // HTTP/2 has it in the address.
    headers.entry(HOST).or_insert(host.unwrap_or(HeaderValue::from_static("localhost")));
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
    ServeError::unavailable("the process of the program's app is starting", 1)
}

fn hangs() -> ServeError {
    ServeError::new(504, "the process of the program's app did not answer in time")
}

fn lost(error: &hyper::Error) -> ServeError {
    tracing::debug!(%error, "the app host did not answer");
    ServeError::new(502, "the process of the program's app ended before it answered this request")
}

#[cfg(test)]
mod tests {
    use super::*;

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
