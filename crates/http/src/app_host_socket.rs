//! The socket of the app host, and the connections to it that have no request.
//!
//! A connection has one request at a time. It is used again after the whole response: dropping a response
//! before its end closes the connection, so that the app host learns that the client has left.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use litplex_http_core::body::Body;
use litplex_http_core::buffers::READ_BYTES;
use litplex_http_core::response::MAX_HEADERS;
use litplex_http_core::stream::Broken;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// The time for which an idle connection is used again. The app host closes it after three times as long.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// The most connections without a request.
const MAX_IDLE: usize = 64;

/// The socket of the app host.
#[derive(Debug)]
pub struct AppHostSocket {
    path: PathBuf,
    /// The connections without a request, the last used one at the end.
    idle: Arc<Mutex<Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    connection: SendRequest<Body>,
    since: Instant,
}

/// The reason why a request has no response.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The app host accepts no connection.
    Away,
    /// The connection ended before the response began.
    Lost(hyper::Error),
}

impl AppHostSocket {
    /// Returns the socket at this path.
    pub fn new(path: PathBuf) -> Self {
        Self { path, idle: Arc::default() }
    }

    /// Returns the path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends a request, and returns the response as soon as it begins.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<ForwardedBody>, Unanswered> {
        loop {
            let idle = take(&self.idle);
            let was_idle = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => connect(&self.path).await?,
            };
            match connection.try_send_request(request).await {
                Ok(response) => {
                    let idle = self.idle.clone();
                    return Ok(response.map(|body| ForwardedBody::new(body, connection, idle)));
                }
                Err(mut error) => match error.take_message().filter(|_| was_idle) {
                    // The connection ended before the request was sent.
                    Some(unsent) => request = unsent,
                    None => return Err(Unanswered::Lost(error.into_error())),
                },
            }
        }
    }
}

/// Returns an open connection without a request.
fn take(idle: &Mutex<Vec<Idle>>) -> Option<SendRequest<Body>> {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    while let Some(Idle { connection, since }) = idle.pop() {
        if now - since < IDLE_TIME && connection.is_ready() {
            return Some(connection);
        }
    }
    None
}

fn keep(idle: &Mutex<Vec<Idle>>, connection: SendRequest<Body>) {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    // A connection that still sends the body of its request is not ready.
    if idle.len() < MAX_IDLE && connection.is_ready() {
        idle.push(Idle { connection, since: Instant::now() });
    }
}

async fn connect(path: &Path) -> Result<SendRequest<Body>, Unanswered> {
    let stream = UnixStream::connect(path).await.map_err(|_| Unanswered::Away)?;
    // The responses of the app host may be as large as the server's own.
    let mut protocol = http1::Builder::new();
    protocol.max_buf_size(READ_BYTES).max_headers(2 * MAX_HEADERS);
    let handshake = protocol.handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|_| Unanswered::Away)?;
    tokio::spawn(async {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the app host ended");
        }
    });
    Ok(sender)
}

/// The body of a response, at whose end the connection has no request.
#[derive(Debug)]
pub(crate) struct ForwardedBody {
    body: Incoming,
    connection: Option<SendRequest<Body>>,
    idle: Arc<Mutex<Vec<Idle>>>,
}

impl ForwardedBody {
    fn new(body: Incoming, connection: SendRequest<Body>, idle: Arc<Mutex<Vec<Idle>>>) -> Self {
        let mut forwarded = Self { body, connection: Some(connection), idle };
        forwarded.keep_at_end();
        forwarded
    }

    fn keep_at_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(connection) = self.connection.take()
        {
            keep(&self.idle, connection);
        }
    }
}

impl HttpBody for ForwardedBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(_))) => self.keep_at_end(),
            // The end of a body in chunks is known only now.
            Poll::Ready(None) => {
                if let Some(connection) = self.connection.take() {
                    keep(&self.idle, connection);
                }
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        let broken = |_| Broken { status: StatusCode::BAD_GATEWAY.as_u16() };
        polled.map(|frame| frame.map(|frame| frame.map_err(broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
